"""What a run needs of its broker, and the embedded one."""

from __future__ import annotations

from typing import Protocol, Self

from agents.broker import DEFAULT_PARTITIONS, EmbeddedBroker


class Brokers(Protocol):
    """One or more brokers; those that outlive a restart say how many may be restarted."""

    name: str
    bootstrap: str
    n_partitions: int
    n_restartable: int

    def __enter__(self) -> Self:
        """Start them."""

    def __exit__(self, *_: object) -> None:
        """Stop them."""

    def down(self, number: int) -> None:
        """Stop one."""

    def up(self, number: int) -> None:
        """Start it again."""


class Embedded:
    """The embedded broker: memory only, so it is never restarted, and it keeps the last 5 MB a partition."""

    name = "embedded"
    n_partitions = DEFAULT_PARTITIONS
    n_restartable = 0

    def __init__(self) -> None:
        self._broker = EmbeddedBroker()
        self.bootstrap = ""

    def __enter__(self) -> Self:
        self._broker.start()
        self.bootstrap = self._broker.bootstrap
        return self

    def __exit__(self, *_: object) -> None:
        self._broker.stop()

    def down(self, number: int) -> None:
        """Refuse: what it holds would be gone."""
        msg = f"the embedded broker must not be restarted, got broker_down {number}"
        raise ValueError(msg)

    def up(self, number: int) -> None:
        """Refuse, as `down` does."""
        self.down(number)
