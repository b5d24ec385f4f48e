"""The embedded broker's own process: holds librdkafka's mock cluster open until its parent is gone.

    python agents/embedded.py N_BROKERS [TOPIC ...]

It writes one line to standard output, ``ready HOST:PORT[,HOST:PORT...]``, ``missing WHY`` (confluent-kafka cannot be
imported) or ``failed WHY``, and then lives as long as its standard input stays open and its parent stays the same.
`agents.broker` starts it by file path, so that it is found whatever the working directory is; for that reason it
imports nothing of this project.
"""

import os
import select
import signal
import sys

METADATA_TIMEOUT_S = 10.0
"""How long the mock cluster may take to answer the first metadata requests; it needs some 10 ms."""

PARENT_CHECK_MS = 500
"""How often to look whether the parent is still ours; closing standard input is noticed at once."""


def main(arguments: list[str]) -> int:
    """Run the broker until the parent is gone; return 1 when it could not be started."""
    # Ctrl-C reaches every process of the terminal's group. The parent decides who stops first, and the broker is last.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent_pid = os.getppid()
    n_brokers, topics = int(arguments[0]), arguments[1:]
    try:
        from confluent_kafka import KafkaException, Producer  # noqa: PLC0415  (where it is missing, that is the answer)
    except ImportError as error:
        _report("missing", str(error))
        return 1
    try:
        # No method of ours is called on the cluster: it lives inside the client, and dies with it.
        holder = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": n_brokers, "log_level": 0})
        brokers = holder.list_topics(timeout=METADATA_TIMEOUT_S).brokers.values()
        for topic in topics:
            holder.list_topics(topic, timeout=METADATA_TIMEOUT_S)  # the first metadata request makes a topic
    except (KafkaException, ValueError) as error:
        _report("failed", str(error))
        return 1
    _report("ready", ",".join(f"{broker.host}:{broker.port}" for broker in brokers))
    _wait_for_parent(parent_pid)
    # Nothing to save and nobody left to report to: do not let a client's half-open connection delay the end.
    os._exit(0)


def _report(word: str, text: str) -> None:
    sys.stdout.write(f"{word} {' '.join(text.split())}\n")
    sys.stdout.flush()


def _wait_for_parent(parent_pid: int) -> None:
    """Return when standard input ends or the parent has changed.

    The second is for a parent that forked without exec: its copy of our input's other end outlives it. The kernel's own
    parent-death signal will not do, since it also fires when only the *thread* that started us ends.
    """
    poller = select.poll()
    poller.register(sys.stdin.fileno(), select.POLLIN)
    while os.getppid() == parent_pid:
        if poller.poll(PARENT_CHECK_MS) and not os.read(sys.stdin.fileno(), 4096):
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
