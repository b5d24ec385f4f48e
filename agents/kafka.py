"""Topics as the pipeline needs them, made and checked with kafka-python; and which partition a room lives in."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import IncompatibleBrokerVersion, KafkaError, NoBrokersAvailable, TopicAlreadyExistsError
from kafka.partitioner.default import murmur2

from agents.config import broker_of
from agents.errors import ProgramError, UsageError
from agents.logs import facts
from schemas.settings import Settings
from schemas.topics import DAY_MS, TOPICS, Topic

# Its errors reach the caller as exceptions; printed as well they would be noise, several lines of it.
logging.getLogger("kafka").setLevel(logging.CRITICAL)

CONNECT_TIMEOUT_S: Final = 20.0
REQUEST_TIMEOUT_S: Final = 20.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
"""Between attempts to reach a broker: the first, doubled each time, and the longest."""
MAX_SNAPSHOT_BYTES: Final = 8 * 1024 * 1024
"""A busy room's snapshot with its order ledger; Kafka's own default is 1 MiB."""
MAX_SEGMENT_BYTES: Final = 64 * 1024 * 1024
"""Of compacted topics: a worker that starts reads at least the newest segment; Kafka's own default is 1 GiB."""
SEGMENTS: Final = 24
"""Parts in which a topic is forgotten: records stay at most this share of the retention longer."""
HOUR_MS: Final = 60 * 60 * 1000
COMPACTION_LAG_MS: Final = HOUR_MS
"""How long the changelog keeps what a later record of the same key replaces.

That record may be one of a worker that was taken for dead, and count for nothing (`agents.snapshots`): in this time
the partition's owner, or whoever starts next, writes again what does.
"""
log = logging.getLogger(__name__)

Status = Literal["present", "created", "missing", "differs"]
Made = TypeVar("Made")


class TopicState(NamedTuple):
    """What was found of one topic, and in words what must be otherwise."""

    name: str
    status: Status
    n_partitions: int
    differences: tuple[str, ...] = ()


class Cluster(NamedTuple):
    """The topics as they are; `embedded` brokers make topics by themselves and know no settings of theirs."""

    embedded: bool
    topics: tuple[TopicState, ...]

    @property
    def n_partitions(self) -> int:
        """Partitions of the room topics; they share one number once `problems` is empty."""
        return self.topics[0].n_partitions

    @property
    def problems(self) -> list[str]:
        """Return, in words, everything that keeps a worker from being right."""
        missing = [topic.name for topic in self.topics if topic.status == "missing"]
        found = [f"topics must exist, got none of {', '.join(missing)}"] if missing else []
        counts = {topic.n_partitions for topic in self.topics if topic.status != "missing"}
        if len(counts) > 1:
            odd = ", ".join(f"{topic.name} {topic.n_partitions}" for topic in self.topics)
            found.append(f"all room topics must have one number of partitions, got {odd}")
        return found

    @property
    def way_out(self) -> str:
        """Return what to do about the problems."""
        if any(topic.status == "missing" for topic in self.topics):
            return "run roompulse provision"
        most = max(topic.n_partitions for topic in self.topics)
        return f"stop all workers and run roompulse migrate --to {most}"


def partition_of(room_id: str, n_partitions: int) -> int:
    """Return the partition of a room: murmur2 of its UTF-8 id, as Java's and every client's partitioner has it."""
    return partition_of_key(room_id.encode(), n_partitions)


@lru_cache(maxsize=65_536)
def partition_of_key(key: bytes, n_partitions: int) -> int:
    """Return the same for a message's key."""
    return int((murmur2(key) & 0x7FFFFFFF) % n_partitions)


def bootstrap(settings: Settings) -> list[str]:
    """Return the brokers to ask first, as host:port; raise UsageError when none is set."""
    return broker_of(settings).removeprefix("kafka://").split(",")


def changelog_of(settings: Settings) -> str:
    """Return the topic that holds the rooms' snapshots."""
    return f"{settings.kafka.app_id}-rooms-changelog"


def wanted(settings: Settings) -> tuple[Topic, ...]:
    """Return every topic of a deployment, the snapshots' too."""
    snapshots = Topic(
        changelog_of(settings),
        -1,
        "snapshots of each room, from which a worker goes on",
        cleanup="compact",
        timestamp_type="CreateTime",
    )
    return (*TOPICS, snapshots)


def connect(
    make: Callable[..., Made], servers: Sequence[str], timeout_s: float = CONNECT_TIMEOUT_S, **kwargs: Any
) -> Made:
    """Return a client once a broker answers; raise ProgramError, with the hosts, when none does in time."""
    deadline_s, pause_s = time.monotonic() + timeout_s, FIRST_PAUSE_S
    while True:
        try:
            return make(bootstrap_servers=list(servers), **kwargs)
        except (NoBrokersAvailable, KafkaError, OSError, ValueError) as error:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                why = type(error).__name__
                msg = (
                    f"broker {','.join(servers)} must answer within {timeout_s:g} s, got {why}: "
                    "start it, or correct ROOMPULSE_BROKER"
                )
                raise ProgramError(msg) from None
            pause_s = min(pause_s * 2, left_s, LONGEST_PAUSE_S)
            log.warning(
                "broker does not answer",
                extra=facts(servers=",".join(servers), error=type(error).__name__, again_in_s=round(pause_s, 1)),
            )
            time.sleep(pause_s)


def inspect(settings: Settings, *, create: bool = False, timeout_s: float = CONNECT_TIMEOUT_S) -> Cluster:
    """Return how the topics are, after making those that are missing if `create`.

    An embedded broker's topics come to be by being asked for, always: it has nobody else to make them.

    Raises
    ------
    ProgramError
        No broker answered in time, or it refused to make a topic.
    """
    servers = bootstrap(settings)
    topics = wanted(settings)
    admin = connect(KafkaAdminClient, servers, timeout_s, request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000))
    with closing(admin):
        counts = _partition_counts(servers, timeout_s)
        there = [topic.name for topic in topics if topic.name in counts]
        copies: dict[str, int] = {}
        try:
            found = _configs(admin, there)
            copies = _copies(admin, there)
            embedded = False
        except IncompatibleBrokerVersion:
            found, embedded = {}, True
        missing = [topic for topic in topics if topic.name not in counts]
        if embedded:
            _ask_for(servers, [topic.name for topic in missing])
        elif create:
            _create(admin, settings, missing)
        if missing and (embedded or create):
            counts = _partition_counts(servers, timeout_s, [topic.name for topic in missing])
    made = {topic.name for topic in missing}
    states = []
    for topic in topics:
        n_partitions = counts.get(topic.name, 0)
        if not n_partitions or topic.name in made:
            states.append(TopicState(topic.name, "created" if n_partitions else "missing", n_partitions))
        else:
            differences: tuple[str, ...] = ()
            if not embedded:
                differences = _differences(topic, settings, n_partitions, copies[topic.name], found.get(topic.name, {}))
            states.append(TopicState(topic.name, "differs" if differences else "present", n_partitions, differences))
    return Cluster(embedded, tuple(states))


def ready(settings: Settings, timeout_s: float | None = None) -> Cluster:
    """Return the cluster a worker can work on, once it is there.

    Workers may be started before their broker, or before `provision` made its topics: both are waited for, each look
    at topics that are missing with twice the pause.

    Parameters
    ----------
    timeout_s : how long to wait; `worker.start_timeout_s` by default.

    Raises
    ------
    ProgramError
        No broker answered in time, or its topics are not right.
    """
    timeout_s = settings.worker.start_timeout_s if timeout_s is None else timeout_s
    deadline_s, pause_s = time.monotonic() + timeout_s, FIRST_PAUSE_S
    while True:
        cluster = inspect(settings, timeout_s=max(deadline_s - time.monotonic(), FIRST_PAUSE_S))
        if not cluster.problems:
            return cluster
        problems, left_s = "; ".join(cluster.problems), deadline_s - time.monotonic()
        # What is missing may still be made; a number of partitions stays wrong.
        if left_s <= 0 or not any(topic.status == "missing" for topic in cluster.topics):
            msg = f"{problems}: {cluster.way_out}"
            raise ProgramError(msg)
        pause_s = min(pause_s * 2, left_s, LONGEST_PAUSE_S)
        log.warning("topics are not right", extra=facts(problems=problems, again_in_s=round(pause_s, 1)))
        time.sleep(pause_s)


def _partition_counts(servers: list[str], timeout_s: float, expected: Sequence[str] = ()) -> dict[str, int]:
    """Return the partitions of every topic there is, once those `expected` have some."""
    deadline_s = time.monotonic() + timeout_s
    with closing(connect(KafkaConsumer, servers, timeout_s)) as consumer:
        while True:
            counts = {name: len(consumer.partitions_for_topic(name) or ()) for name in consumer.topics()}
            late = [name for name in expected if not counts.get(name)]
            if not late:
                return {name: count for name, count in counts.items() if count}
            if time.monotonic() > deadline_s:
                msg = f"topic {late[0]} must come to be within {timeout_s:g} s, got nothing: look at the broker's log"
                raise ProgramError(msg)
            time.sleep(0.05)


def _ask_for(servers: list[str], names: list[str]) -> None:
    if names:
        with closing(connect(KafkaProducer, servers)) as producer:
            for name in names:
                producer.partitions_for(name)


def _settings_of(topic: Topic, settings: Settings) -> dict[str, str]:
    """Return what the topic is set to; a broker cleans up whole segments, and never the one it writes."""
    configs = {
        "cleanup.policy": topic.cleanup,
        "retention.ms": str(topic.retention_ms),
        "message.timestamp.type": topic.timestamp_type,
        # Kafka's own week would keep a day's topic for eight.
        "segment.ms": str(min(max(topic.retention_ms // SEGMENTS, HOUR_MS), 7 * DAY_MS)),
    }
    if topic.cleanup == "compact":
        configs["max.message.bytes"] = str(MAX_SNAPSHOT_BYTES)
        configs["segment.bytes"] = str(MAX_SEGMENT_BYTES)
        configs["min.compaction.lag.ms"] = str(COMPACTION_LAG_MS)
    if settings.kafka.min_insync_replicas is not None:
        configs["min.insync.replicas"] = str(settings.kafka.min_insync_replicas)
    return configs


def _create(admin: Any, settings: Settings, missing: list[Topic]) -> None:
    for topic in missing:
        new = NewTopic(
            topic.name,
            settings.kafka.partitions,
            settings.kafka.replication_factor,
            topic_configs=_settings_of(topic, settings),
        )
        try:
            admin.create_topics([new], timeout_ms=int(REQUEST_TIMEOUT_S * 1000))
        except TopicAlreadyExistsError:  # another provision was quicker
            continue
        except KafkaError as error:
            msg = f"topic {topic.name} must be created, got {type(error).__name__}: {_first_line(error)}"
            raise ProgramError(msg) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]


def _configs(admin: Any, names: list[str]) -> dict[str, dict[str, str]]:
    """Return each topic's settings in force; raise IncompatibleBrokerVersion on an embedded broker."""
    found: dict[str, dict[str, str]] = {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    # Asked even without a topic of ours: it tells an embedded broker, which does not know the request.
    for response in admin.describe_configs(resources or [ConfigResource(ConfigResourceType.TOPIC, TOPICS[0].name)]):
        for resource in response.resources:
            name, entries = resource[3], resource[4]
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found


def _copies(admin: Any, names: list[str]) -> dict[str, int]:
    """Return how many brokers hold each topic; of partitions that differ, the fewest."""
    if not names:
        return {}
    return {
        topic["topic"]: min(len(partition["replicas"]) for partition in topic["partitions"])
        for topic in admin.describe_topics(names)
    }


def _differences(
    topic: Topic, settings: Settings, n_partitions: int, n_copies: int, configs: Mapping[str, str]
) -> tuple[str, ...]:
    needs: dict[str, tuple[str, str | None]] = {
        "partitions": (str(settings.kafka.partitions), str(n_partitions)),
        "replication factor": (str(settings.kafka.replication_factor), str(n_copies)),
    }
    if configs:  # none where the broker does not let this client read them
        needs |= {name: (value, configs.get(name)) for name, value in _settings_of(topic, settings).items()}
    return tuple(f"{name} must be {value}, got {actual}" for name, (value, actual) in needs.items() if actual != value)


def check_topic(name: str, subject: str) -> None:
    """Raise UsageError, with `subject` for what was given, unless a topic of this program has that name."""
    names = [topic.name for topic in TOPICS]
    if name not in names:
        msg = f"{subject} must be one of {', '.join(names)}, got {name!r}"
        raise UsageError(msg)
