"""Commands that need no broker to be right: arguments, lines of a dump, comments."""

from __future__ import annotations

import base64
import subprocess
import sys
from io import BufferedReader, BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.cli.control import parse_arguments
from agents.cli.dump import line
from agents.cli.sentiment import answer, answers, chunks
from agents.errors import UsageError
from pipeline.sentiment import default_model

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("action", "pairs", "args"),
    [
        ("set_mode", ["mode=auto"], {"mode": "auto"}),
        ("kill_switch", ["on=true"], {"on": True}),
        ("kill_switch", ["on=false"], {"on": False}),
        ("approve", ["command_id=123"], {"command_id": "123"}),
        ("silence", ["until_ts=1700000000000", "metric=cvr"], {"until_ts": 1_700_000_000_000, "metric": "cvr"}),
        ("override_bid", ["plan_id=p-1", "value=1200"], {"plan_id": "p-1", "value": 1_200}),
        ("override_bid", ["plan_id=p-1", "value=1.25"], {"plan_id": "p-1", "value": "1.25"}),
        ("feedback", ["anomaly_id=a", "verdict=true"], {"anomaly_id": "a", "verdict": "true"}),
        ("update_settings", ['settings={"stage": "promotion"}'], {"settings": {"stage": "promotion"}}),
        ("ack_anomaly", ["anomaly_id=a=b"], {"anomaly_id": "a=b"}),
    ],
)
def test_arguments_are_read_as_the_type_of_their_field(action: str, pairs: list[str], args: dict[str, Any]) -> None:
    assert parse_arguments(action, pairs) == args


@pytest.mark.parametrize(
    ("action", "pairs", "words"),
    [
        ("set_mode", [], "mode of set_mode is required"),
        ("set_mode", ["mode=loud"], "must be 'off', 'shadow', 'approve' or 'auto'"),
        ("set_mode", ["mod=auto"], "--arg must be one of mode=…"),
        ("set_mode", ["auto"], "--arg must be one of mode=…"),
        ("kill_switch", ["on=yes"], "on of kill_switch must be a valid boolean"),
        ("silence", ["until_ts=soon"], "until_ts of silence must be a valid integer"),
        ("update_settings", ["settings={"], "--arg settings must be JSON"),
    ],
)
def test_arguments_that_do_not_fit_are_told(action: str, pairs: list[str], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_arguments(action, pairs)
    assert words in str(raised.value)


@given(value=st.binary(), key=st.none() | st.binary(max_size=20))
def test_a_dump_line_gives_back_every_byte_of_the_value(value: bytes, key: bytes | None) -> None:
    record = SimpleNamespace(offset=7, timestamp=1_700_000_000_000, partition=2, key=key, value=value)
    written = line(record)
    assert written.endswith(b"\n")
    assert written.count(b"\n") == 1
    read = orjson.loads(written)
    assert (read["offset"], read["timestamp"], read["partition"]) == (7, 1_700_000_000_000, 2)
    again = read["value"].encode() if "value" in read else base64.b64decode(read["value_b64"])
    assert again == value
    assert read["key"] == (None if key is None else key.decode(errors="replace"))


@given(text=st.binary())
def test_every_comment_has_a_score_and_a_confidence(text: bytes) -> None:
    score, confidence = (float(part) for part in answer(text, default_model()).split("\t"))
    assert -1 <= score <= 1
    assert 0 <= confidence <= 1


@given(st.lists(st.binary().filter(lambda line: b"\n" not in line)), st.integers(1, 40))
def test_comments_are_answered_alike_however_they_arrive(comments: list[bytes], size: int) -> None:
    class Pipe(BytesIO):
        def read1(self, _size: int | None = -1) -> bytes:
            return super().read1(size)

    source = Pipe(b"".join(comment + b"\n" for comment in comments))
    came = [line for lines in chunks(cast("BufferedReader", source)) for line in lines]
    assert came == comments
    assert answers(comments, default_model()) == [answer(comment, default_model()) for comment in comments]


@pytest.mark.parametrize("blank", [b"", b"\n", b"  \n", b"\r\n", "\u3000\n".encode()])
def test_a_blank_comment_says_nothing(blank: bytes) -> None:
    assert answer(blank, default_model()) == "0\t0"


def run(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "agents", *arguments], cwd=REPOSITORY, input=given, capture_output=True, check=False
    )


def test_comments_are_lines_ended_by_newlines_alone(tmp_path: Path) -> None:
    comments = "好棒\u2028好棒\r好棒\x0b好棒\n\n不好看\nlast one without an end".encode() + b"\xff"
    said = run("sentiment", given=comments)
    assert (said.returncode, said.stderr) == (0, b"")
    assert said.stdout.count(b"\n") == 4
    assert said.stdout.splitlines()[1] == b"0\t0"
    (tmp_path / "comments.txt").write_bytes(comments)
    assert run("sentiment", str(tmp_path / "comments.txt")).stdout == said.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sentiment", "no-such-file.txt"), b"no-such-file.txt"),
        (("tail", "room.signal"), b"room.signals"),
        (("dump", "--partition", "0", "--topic", "rooms"), b"room.events"),
        (("schema", "nothing"), b"room.events"),
        (("control", "explode", "--room", "r", "--actor", "me"), b"kill_switch"),
        (("control", "set_mode", "--actor", "me"), b"--room"),
        (("control", "set_mode", "--all", "--actor", "me", "--arg", "mode=auto"), b"--room"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: tuple[str, ...], words: bytes) -> None:
    said = run(*arguments)
    assert said.returncode == 2
    assert said.stderr.count(b"\n") == 1
    assert words in said.stderr


def test_schemas_are_printed_as_generated() -> None:
    said = run("schema", "room.signals")
    assert said.returncode == 0
    assert orjson.loads(said.stdout)["properties"]["room_id"]
