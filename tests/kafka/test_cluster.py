"""The Kafka that tests run on leaves nothing behind, keeps what it is told to, and says what it lacks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from schemas.topics import TOPICS
from tests.integration.deployment import REPOSITORY, await_true, roompulse
from tests.kafka.jars import KAFKA_VERSION, java

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@contextmanager
def make_kafka(*arguments: str, extra: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Give `make kafka` once it is ready, with the settings that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kafka", *arguments],
        cwd=REPOSITORY,
        env=os.environ | extra,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(4)]
        yield process, dict(line.removeprefix("export ").rstrip().split("=", 1) for line in lines)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def descendants(pid: int) -> list[int]:
    """Return the processes below this one."""
    folder = Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(child) for child in folder.read_text(encoding="ascii").split()] if folder.exists() else []
    return children + [below for child in children for below in descendants(child)]


def alive(pids: list[int]) -> list[int]:
    """Return those that are still there."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def with_keys(settings: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ROOMPULSE_")} | settings


def test_a_starter_that_is_killed_takes_its_brokers_and_their_data_along(tmp_path: Path) -> None:
    with make_kafka(extra={"TMPDIR": str(tmp_path)}) as (process, _):
        below = descendants(process.pid)
        assert len(below) == 2  # the guardian and its broker
        assert list(tmp_path.iterdir()) != []
        process.send_signal(signal.SIGKILL)
        await_true(lambda: alive(below) == [], "both are gone")
        assert list(tmp_path.iterdir()) == []


def test_a_guardian_that_is_killed_takes_its_broker_along(tmp_path: Path) -> None:
    with make_kafka(extra={"TMPDIR": str(tmp_path)}) as (process, _):
        guardian, broker = descendants(process.pid)
        os.kill(guardian, signal.SIGKILL)
        assert process.wait(30) == 1  # and says so
        await_true(lambda: alive([guardian, broker]) == [], "both are gone")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_clean_and_data_is_there_again_if_it_was_to_be_kept(number: signal.Signals, tmp_path: Path) -> None:
    data, extra = tmp_path / "data", {"TMPDIR": str(tmp_path)}
    for word in (b"created", b"present"):
        with make_kafka("--data", str(data), extra=extra) as (process, settings):
            said = roompulse("provision", settings=with_keys(settings))
            assert (said.returncode, said.stderr) == (0, b"")
            assert said.stdout.count(word) == said.stdout.count(b"\n") == len(TOPICS) + 1  # and the changelog
            below = descendants(process.pid)
            process.send_signal(number)
            assert process.wait(60) == 0
            assert alive(below) == []
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.parametrize(("there", "told"), [([], "java must be 17 or newer, got none"), (["java"], "got no mvn")])
def test_what_is_not_installed_is_named_in_one_line_with_the_way_to_get_it(
    there: list[str], told: str, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name in there:
        (tmp_path / "bin" / name).symlink_to(java())
    environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    said = subprocess.run(
        [sys.executable, "-m", "tests.kafka"],
        cwd=REPOSITORY,
        env=environment | {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (said.returncode, said.stdout) == (1, "")
    (line,) = said.stderr.splitlines()[1:]  # the first says what starts
    assert told in line
    assert line.endswith(": on Debian and Ubuntu: apt-get install openjdk-17-jre-headless maven")


def test_tests_and_compose_file_run_the_same_kafka() -> None:
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
