"""What every test shares: how much Hypothesis tries, and brokers for those that need one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from agents.broker import EmbeddedBroker
from tests.effort import LONG, QUICK
from tests.integration.deployment import Cluster, Embedded

# No test may fail because the machine was busy: no deadlines, and slow drawing is no failure.
for name, max_examples in (("quick", QUICK), ("long", LONG)):
    calm = (HealthCheck.too_slow,)
    settings.register_profile(name, deadline=None, suppress_health_check=calm, max_examples=max_examples)
settings.load_profile("quick")

_n_prefixes = itertools.count(1)


@pytest.fixture(scope="session")
def broker() -> Iterator[EmbeddedBroker]:
    """One embedded broker for the whole session; it starts empty and takes 0.1 s."""
    with EmbeddedBroker() as running:
        yield running


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Give an empty embedded broker of the test's own; `tests/kafka` gives the same tests a real Kafka."""
    with EmbeddedBroker() as running:
        yield Embedded(running)


@pytest.fixture
def unique_prefix(request: pytest.FixtureRequest) -> str:
    """A prefix for this test's topics, groups and application ids: the session's tests share one broker."""
    test = re.sub(r"[^a-zA-Z0-9]+", "-", request.node.name).strip("-")
    return f"t{next(_n_prefixes)}-{test[:60]}"
