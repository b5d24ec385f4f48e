"""Faust's producer, made steady for a broker that stops answering without closing its connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from faust.transport.drivers import aiokafka as driver

LEADER_TIMEOUT_S: Final = 6.0
"""How long the leader may wait for its followers before it says so."""
ANSWER_TIMEOUT_S: Final = 8.0
"""How long a broker may be silent before its connection is given up and the leader asked for again."""


class SteadyProducer(driver.Producer):
    """Writes each record once and in order, however often it has to be sent; gives up on silent brokers in time.

    Faust has one timeout of 20 minutes for two things: how long a record may wait to be written (a worker outlives a
    broker's restart) and how long one request may stay unanswered. A broker that hangs, or a network that swallows
    packets, then stops every write for 20 minutes, although another broker has long taken over. Requests that are
    given up are sent again, and the first may arrive after all: the producer is idempotent, else a changelog could
    end with an old snapshot, which compaction would keep as the only one.
    """

    def _settings_extra(self) -> Mapping[str, Any]:
        return {**super()._settings_extra(), "enable_idempotence": True}

    def _new_producer(self, transactional_id: str | None = None) -> Any:
        producer = super()._new_producer(transactional_id)
        producer.client._request_timeout_ms = int(ANSWER_TIMEOUT_S * 1_000)
        producer._sender._request_timeout_ms = int(LEADER_TIMEOUT_S * 1_000)
        return producer
