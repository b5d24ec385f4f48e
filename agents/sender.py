"""Sending records to Kafka, as what sends sees it: a call now, a confirmation later."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

Confirmation = Awaitable[Any]
"""Done when every in-sync broker has the record; raises when it could not be written."""
Headers = Sequence[tuple[str, bytes]]


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


def cloud_event(topic: str, partition: int, value: bytes) -> Headers:
    """Return a message's CloudEvents attributes as Kafka headers; the id follows from the content alone."""
    digest = hashlib.blake2b(value, digest_size=16, key=topic.encode()[:64]).hexdigest()
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", digest.encode()),
        ("ce_type", f"roompulse.{topic}".encode()),
        ("ce_source", f"/roompulse/partitions/{partition}".encode()),
        ("content-type", b"application/json"),
    )
