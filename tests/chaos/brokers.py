"""What a run needs of its broker: the embedded one, or real ones that can be ended and brought back."""

from __future__ import annotations

from typing import Protocol, Self

from agents.broker import DEFAULT_PARTITIONS, EmbeddedBroker
from tests.kafka.cluster import KafkaCluster


class Brokers(Protocol):
    """One or more brokers; those that outlive a restart say how many there are."""

    name: str
    n_partitions: int
    n_restartable: int
    settings: dict[str, str]
    """What the program is told about them, by the names of its environment."""
    bootstrap: str

    def __enter__(self) -> Self:
        """Start them."""

    def __exit__(self, *_: object) -> None:
        """Stop them."""

    def kill(self, number: int) -> None:
        """End one as a crash does."""

    def halt(self, number: int) -> None:
        """End one as an operator does."""

    def bring_back(self, number: int) -> None:
        """Start it again with what it left."""


class Embedded:
    """The embedded broker: memory only, so it is never restarted, and it keeps the last 5 MB a partition."""

    name = "embedded"
    n_partitions = DEFAULT_PARTITIONS
    n_restartable = 0

    def __init__(self) -> None:
        self._broker = EmbeddedBroker()
        self.bootstrap = ""
        self.settings: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._broker.start()
        self.bootstrap, self.settings = self._broker.bootstrap, {"ROOMPULSE_BROKER": self._broker.url}
        return self

    def __exit__(self, *_: object) -> None:
        self._broker.stop()

    def kill(self, number: int) -> None:
        """Refuse: what it holds would be gone."""
        msg = f"the embedded broker must not be restarted, got {number}"
        raise ValueError(msg)

    def halt(self, number: int) -> None:
        """Refuse, as `kill` does."""
        self.kill(number)

    def bring_back(self, number: int) -> None:
        """Refuse, as `kill` does."""
        self.kill(number)


class Kafka:
    """Apache Kafka itself: one broker, or three of which two stay up."""

    n_partitions = KafkaCluster.n_partitions

    def __init__(self, n_brokers: int) -> None:
        self.name = f"kafka{n_brokers}"
        self.n_restartable = n_brokers
        self._cluster = KafkaCluster(n_brokers)
        self.bootstrap = ""
        self.settings: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._cluster.start()
        self.bootstrap, self.settings = self._cluster.bootstrap, self._cluster.settings
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.stop()

    def kill(self, number: int) -> None:
        """End one with `kill -9`, unless another is down: a majority has to stay."""
        self._end(number, self._cluster.kill)

    def halt(self, number: int) -> None:
        """End one with SIGTERM, on the same condition."""
        self._end(number, self._cluster.halt)

    def _end(self, number: int, way: object) -> None:
        if callable(way) and all(broker.is_running for broker in self._cluster.brokers):
            way(self._cluster.brokers[number])

    def bring_back(self, number: int) -> None:
        """Start it again and wait until it has caught up."""
        if not self._cluster.brokers[number].is_running:
            self._cluster.bring_back(self._cluster.brokers[number])
