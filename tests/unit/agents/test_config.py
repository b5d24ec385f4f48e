"""Settings from outside: which source wins, and what a mistake is told like."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agents.config import broker_of, control_key_of, load_policy, load_settings, privacy_key_of
from agents.errors import UsageError
from schemas.settings import Policy, Settings

SECRET = "a-secret-that-must-never-be-shown-anywhere"


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ROOMPULSE_"):
            monkeypatch.delenv(name)


def toml(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def mistake(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> str:
    with pytest.raises(UsageError) as raised:
        load_settings(config, overrides)
    message = str(raised.value)
    assert "\n" not in message
    assert raised.value.exit_code == 2
    return message


def test_nothing_said_means_the_defaults() -> None:
    assert load_settings() == Settings()


def test_environment_beats_file_and_the_caller_beats_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toml(tmp_path, 'broker = "kafka://file:1"\n[kafka]\npartitions = 7\napp_id = "from-file"\n')
    monkeypatch.setenv("ROOMPULSE_BROKER", "kafka://environment:2")
    monkeypatch.setenv("ROOMPULSE_KAFKA__PARTITIONS", "9")
    settings = load_settings(path, {"kafka": {"partitions": 11}})
    assert settings.broker == "kafka://environment:2"
    assert settings.kafka.partitions == 11
    assert settings.kafka.app_id == "from-file"
    assert load_settings(path).kafka.partitions == 9


def test_the_variable_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOMPULSE_CONFIG", str(toml(tmp_path, 'lang = "zh"')))
    assert load_settings().lang == "zh"


def test_an_empty_variable_is_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOMPULSE_BROKER", "")
    assert load_settings().broker is None


def test_dictionaries_come_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOMPULSE_CURRENCY__RATES", '{"USD:CNY": "7.1"}')
    assert load_settings().currency.rates == {"USD:CNY": "7.1"}


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ROOMPULSE_KAFAK__PARTITIONS", "4", "did you mean ROOMPULSE_KAFKA__PARTITIONS?"),
        ("ROOMPULSE_KAFKA__PARTITON", "4", "did you mean ROOMPULSE_KAFKA__PARTITIONS?"),
        ("ROOMPULSE_KAFKA", "{}", "must be one the program knows"),
        ("ROOMPULSE_KAFKA__PARTITIONS", "many", "kafka.partitions must be a valid integer"),
        ("ROOMPULSE_KAFKA__PARTITIONS", "0", "kafka.partitions must be greater than or equal to 1, got '0'"),
        ("ROOMPULSE_LANG", "fr", "lang must be 'en' or 'zh', got 'fr'"),
        ("ROOMPULSE_BROKER", "http://a:1", "broker must be kafka://host:port"),
        ("ROOMPULSE_CURRENCY__RATES", "7.1 yuan", "must be a JSON object"),
        ("ROOMPULSE_SIGNALS__DIMENSIONS", "segment", "must be a JSON list"),
        ("ROOMPULSE_SIGNALS__DIMENSIONS", '["segmen"]', "signals.dimensions.0 must be 'segment'"),
        ("ROOMPULSE_SIGNALS__DIMENSIONS", '"segment"', "signals.dimensions must be"),
        ("ROOMPULSE_INCIDENT__ACK_S", '{"S1": "soon"}', "incident.ack_s.S1 must be a valid integer"),
        ("ROOMPULSE_ENGINE__EMIT_INTERVAL_MS", "700", "engine.emit_interval_ms must be a multiple of tick_ms"),
    ],
)
def test_a_mistake_in_a_variable_names_field_and_variable(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    message = mistake()
    assert words in message
    assert f"environment variable {variable}" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[kafka]\npartitons = 4", "kafka.partitons must be a field the program knows; did you mean partitions?"),
        ("[kafak]\npartitions = 4", "kafak must be a field the program knows; did you mean kafka?"),
        ("kafka = 5", "kafka must be a valid dictionary"),
        ("[kafka]\npartitions = 0", "kafka.partitions must be greater than or equal to 1, got 0"),
        ('[bidding]\nmode = "auto"\nmax_mode = "shadow"', "bidding.mode must not be looser than max_mode"),
        ("[kafka\n", "must be valid TOML"),
        ("a = 1\n[kafka]\npartitions == 3", "line 3"),
    ],
)
def test_a_mistake_in_the_file_names_field_and_file(text: str, words: str, tmp_path: Path) -> None:
    path = toml(tmp_path, text)
    message = mistake(path)
    assert words in message
    assert str(path) in message


def test_a_rule_across_fields_names_every_source_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toml(tmp_path, "[kafka]\nheartbeat_interval_s = 5")
    monkeypatch.setenv("ROOMPULSE_KAFKA__SESSION_TIMEOUT_S", "2")
    message = mistake(path)
    assert "heartbeat_interval_s must be at most half of session_timeout_s" in message
    assert str(path) in message
    assert "ROOMPULSE_KAFKA__SESSION_TIMEOUT_S" in message


def test_the_number_of_further_mistakes_is_told(tmp_path: Path) -> None:
    assert mistake(toml(tmp_path, '[kafka]\npartitions = 0\napp_id = ""\nreplication_factor = 99')).endswith(
        "; and 2 more"
    )


def test_a_file_that_is_missing_or_not_text_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none.toml") in mistake(tmp_path / "none.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"lang = '\xff'")
    assert "must be UTF-8" in mistake(binary)


@pytest.mark.parametrize("text", [f'control_key = ["{SECRET}"]', f'privacy_key = {{key = "{SECRET}"}}'])
def test_a_secret_is_not_shown_even_where_it_is_wrong(text: str, tmp_path: Path) -> None:
    assert SECRET not in mistake(toml(tmp_path, text))


def test_a_short_secret_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hunter2" not in mistake(toml(tmp_path, 'control_key = "hunter2"'))
    monkeypatch.setenv("ROOMPULSE_PRIVACY_KEY", "hunter3")
    message = mistake()
    assert "hunter3" not in message
    assert "at least 32 characters" in message


def test_a_secret_is_not_shown_by_the_settings_themselves() -> None:
    settings = load_settings(overrides={"control_key": SECRET})
    assert SECRET not in repr(settings)
    assert SECRET not in settings.model_dump_json()
    assert control_key_of(settings) == SECRET.encode()


@pytest.mark.parametrize(
    ("needed", "variable"),
    [
        (broker_of, "ROOMPULSE_BROKER"),
        (control_key_of, "ROOMPULSE_CONTROL_KEY"),
        (privacy_key_of, "ROOMPULSE_PRIVACY_KEY"),
    ],
)
def test_what_is_needed_and_not_set_is_named(needed: Any, variable: str) -> None:
    with pytest.raises(UsageError, match=variable):
        needed(Settings())


def test_a_policy_is_read_from_its_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOMPULSE_BIDDING__STEP_RATIO", "0.2")
    policy = load_policy(toml(tmp_path, "[bidding]\ncooldown_up_s = 60\n[kafka]\npartitions = 3"))
    assert policy == Policy().model_copy(update={"bidding": Policy().bidding.model_copy(update={"cooldown_up_s": 60})})
    with pytest.raises(UsageError, match=r"bidding\.cooldown"):
        load_policy(toml(tmp_path, "[bidding]\ncooldown = 60"))
