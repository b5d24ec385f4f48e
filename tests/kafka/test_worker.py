"""The worker's tests again, on a real broker instead of the embedded one."""

from __future__ import annotations

import pytest

from tests.broker.test_worker import test_events_become_signals_controls_take_effect_and_a_stop_is_clean
from tests.integration.test_live_equals_replay import test_a_log_with_everything_in_it_gives_the_same_live_and_replayed
from tests.integration.test_worker import test_two_workers_share_the_rooms_and_a_killed_one_loses_nothing

__all__ = [
    "test_a_log_with_everything_in_it_gives_the_same_live_and_replayed",
    "test_events_become_signals_controls_take_effect_and_a_stop_is_clean",
    "test_two_workers_share_the_rooms_and_a_killed_one_loses_nothing",
]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
