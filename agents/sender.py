"""Sending records to Kafka, as what sends sees it: a call now, a confirmation later."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from xxhash import xxh3_128_hexdigest

Confirmation = Awaitable[Any]
"""Done when every in-sync broker has the record; raises when it could not be written. Many records may share one."""
Headers = Sequence[tuple[str, bytes]]
Message = tuple[str, bytes | None, bytes | None, Headers]
"""Topic, key, value, headers."""


class Send(Protocol):
    """Queue one record for an explicit partition; the stamp is this machine's clock unless given."""

    async def __call__(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int,
        *,
        timestamp_ms: int | None = None,
        headers: Headers | None = None,
    ) -> Confirmation:
        """Return what to wait for."""


class SendMany(Protocol):
    """Queue records for one partition of their topics, each topic's in order: a tenth of what as many `Send` cost."""

    async def __call__(self, messages: Sequence[Message], partition: int) -> list[Confirmation]:
        """Return what to wait for: once all of it is done, all records are in Kafka."""


def cloud_event(topic: str, partition: int, value: bytes) -> Headers:
    """Return a message's CloudEvents attributes as Kafka headers; the id follows from the content alone.

    The id tells a repeated message from another one; it proves nothing, so it need not resist who writes messages.
    """
    return [("ce_id", xxh3_128_hexdigest(value).encode()), *_constant(topic, partition)]


@lru_cache(maxsize=1_024)
def _constant(topic: str, partition: int) -> Headers:
    return (
        ("ce_specversion", b"1.0"),
        ("ce_type", f"roompulse.{topic}".encode()),
        ("ce_source", f"/roompulse/partitions/{partition}".encode()),
        ("content-type", b"application/json"),
    )
