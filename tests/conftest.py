"""What every test shares: how Hypothesis runs."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No test may fail because the machine was busy: no deadlines, and slow drawing is no failure.
settings.register_profile("roompulse", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("roompulse")
