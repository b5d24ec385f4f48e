"""`make kafka`: a real Kafka on this machine until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.kafka.cluster import KafkaCluster
from tests.kafka.jars import KAFKA_VERSION, KafkaUnavailableError


def main(arguments: list[str]) -> int:
    """Run the brokers; return 0 when stopped, 1 when they could not start."""
    parser = argparse.ArgumentParser(prog="make kafka ARGS='…'", description=__doc__)
    parser.add_argument("--brokers", type=int, default=1, help="how many; 1 if not given")
    parser.add_argument("--port", type=int, help="of the first broker; a free one if not given")
    parser.add_argument("--data", type=Path, help="folder that keeps the data; removed at the end if not given")
    given = parser.parse_args(arguments)
    if given.brokers < 1:
        parser.error(f"--brokers must be at least 1, got {given.brokers}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started this in the background
    cluster = KafkaCluster(given.brokers, data=given.data, port=given.port)
    try:
        sys.stderr.write(f"Kafka {KAFKA_VERSION} starts …\n")
        with cluster:
            for name, value in cluster.settings.items():
                sys.stdout.write(f"export {name}={value}\n")
            sys.stdout.flush()
            sys.stderr.write("ready: next `roompulse provision`, then `roompulse worker`; Ctrl-C ends it\n")
            while all(broker.is_running for broker in cluster.brokers):
                time.sleep(0.5)
            dead = next(broker for broker in cluster.brokers if not broker.is_running)
            log = dead.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
            sys.stderr.write(f"make kafka: broker {dead.number} must go on, got an end: {log[-1:]}\n")
            return 1
    except KeyboardInterrupt:
        return 0
    except KafkaUnavailableError as error:
        sys.stderr.write(f"make kafka: {error}\n")
        return 1


def _stop(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
