"""The settings tree: sound as it comes, refusals that name the field, hidden secrets, policies named by content."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from pydantic import BaseModel, ValidationError

from schemas.settings import CurrencySettings, EngineSettings, Policy, Section, Settings
from tests.strategies import money

ROOT = Path(__file__).parents[3]
SECRET = "a-secret-of-more-than-32-characters!"
PROCESS_ONLY = {"broker", "privacy_key", "control_key", "lang", "kafka", "worker", "trust_log"}


def refusal(changes: dict[str, Any], model: type[BaseModel] = Settings) -> str:
    """Return `section.field: words` of the one error."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(changes)
    (found,) = caught.value.errors()
    return f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}"


def sections(model: type[BaseModel] = Settings) -> Iterator[tuple[str, type[Section]]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield name, field.annotation


def test_the_defaults_are_valid_and_survive_their_own_json() -> None:
    assert Settings.model_validate(Settings().model_dump()) == Settings()
    assert Policy.model_validate_json(Policy().model_dump_json()) == Policy()
    for name, section in sections():
        # Defaults are not validated when a model is made: this is the one place where they are.
        assert section.model_validate(section().model_dump()) == getattr(Settings(), name)


def test_a_room_begins_in_shadow_and_no_log_is_taken_on_trust() -> None:
    assert Settings().bidding.mode == "shadow"
    assert Settings().trust_log is False


def test_the_settings_are_the_policy_and_what_a_process_needs_and_nothing_else() -> None:
    assert set(Settings.model_fields) == set(Policy.model_fields) | PROCESS_ONLY
    assert Settings().policy == Policy()


def test_every_part_of_the_policy_reaches_the_engine() -> None:
    changed = Settings.model_validate({"bidding": {"cap_minor": 7_000}, "default_stage": "promotion"})
    assert changed.policy == Policy.model_validate({"bidding": {"cap_minor": 7_000}, "default_stage": "promotion"})
    assert changed.policy != Policy()
    assert Settings(privacy_key=SECRET, lang="zh", trust_log=True).policy == Policy()


D = Settings()
CONTRADICTIONS: list[tuple[str, dict[str, Any], str]] = [
    *(
        ("engine", {name: getattr(D.engine, name) + 250}, f"{name} must be a multiple of tick_ms ({D.engine.tick_ms})")
        for name in EngineSettings.model_fields
        if name.endswith("_interval_ms")
    ),
    ("engine", {"tick_ms": 1_000, "emit_interval_ms": 1_500}, "emit_interval_ms must be a multiple of tick_ms (1000)"),
    (
        "feeds",
        {"dead_after_s": D.feeds.late_after_s},
        f"dead_after_s must exceed late_after_s ({D.feeds.late_after_s})",
    ),
    ("feeds", {"late_after_s": 99_999}, "dead_after_s must exceed late_after_s (99999)"),
    ("feeds", {"gap_factor_late": 7.5, "gap_factor_dead": 7.5}, "gap_factor_dead must exceed gap_factor_late (7.5)"),
    (
        "worker",
        {"snapshot_interval_s": 120.0},
        "snapshot_max_interval_s must be at least snapshot_interval_s (120.0)",
    ),
    ("detect", {"needed": 4, "of_last": 3}, "needed must be <= of_last (3)"),
    ("detect", {"clear_z": 3.5, "open_z": 3.5}, "clear_z must be below open_z (3.5)"),
    ("detect", {"min_samples": 41, "history": 40}, "min_samples must be <= history (40)"),
    ("bidding", {"floor_minor": 6, "cap_minor": 5}, "floor_minor must be <= cap_minor (5)"),
    ("bidding", {"goal_floor": 2.5, "goal_cap": 2}, "goal_floor must be <= goal_cap (2.0)"),
    ("bidding", {"mode": "auto", "max_mode": "approve"}, "mode must not be looser than max_mode ('approve')"),
    ("bidding", {"max_mode": "off"}, "mode must not be looser than max_mode ('off')"),
    ("incident", {"s2_budget_share": 0.05}, "s2_budget_share must be below s1_budget_share (0.05)"),
    ("incident", {"s3_budget_share": 0.03}, "s3_budget_share must be below s2_budget_share (0.02)"),
    (
        "kafka",
        {"session_timeout_s": 9, "heartbeat_interval_s": 5},
        "heartbeat_interval_s must be at most half of session_timeout_s (9.0)",
    ),
    (
        "kafka",
        {"replication_factor": 2, "min_insync_replicas": 3},
        "min_insync_replicas must be at most replication_factor (2)",
    ),
]


def test_every_section_with_a_rule_across_its_fields_is_tried() -> None:
    common = set(Section.__pydantic_decorators__.model_validators)
    ruled = {name for name, section in sections() if set(section.__pydantic_decorators__.model_validators) - common}
    assert ruled == {section for section, _, _ in CONTRADICTIONS}


@pytest.mark.parametrize(("section", "changes", "words"), CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused_with_the_fields_name(
    section: str, changes: dict[str, Any], words: str
) -> None:
    field = words.partition(" ")[0]
    got = {**getattr(D, section).model_dump(), **changes}[field]
    got = float(got) if isinstance(getattr(getattr(D, section), field), float) else got
    assert refusal({section: changes}) == f"{section}: Value error, {words}, got {got!r}"


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("engine", {"tick_ms": 1_000, "emit_interval_ms": 3_000}),
        ("engine", {"emit_interval_ms": 1_500}),
        ("feeds", {"late_after_s": 9, "dead_after_s": 10, "gap_factor_late": 2, "gap_factor_dead": 2.1}),
        ("detect", {"needed": 3, "of_last": 3, "clear_z": 3.4, "open_z": 3.5, "min_samples": 40, "history": 40}),
        ("bidding", {"floor_minor": 5, "cap_minor": 5, "goal_floor": 2, "goal_cap": 2}),
        ("bidding", {"mode": "auto", "max_mode": "auto"}),
        ("bidding", {"mode": "off", "max_mode": "off"}),
        ("kafka", {"session_timeout_s": 9, "heartbeat_interval_s": 4.5}),
        ("kafka", {"replication_factor": 2, "min_insync_replicas": 2}),
    ],
)
def test_the_edge_of_each_such_rule_is_inside(section: str, changes: dict[str, Any]) -> None:
    made = getattr(Settings.model_validate({section: changes}), section).model_dump()
    assert changes.items() <= made.items()


def limits() -> Iterator[tuple[str, str, float]]:
    """Yield every numeric field of every section with a value just past each of its bounds."""
    for section, model in sections():
        for name, field in model.model_json_schema()["properties"].items():
            for part in (field, *field.get("anyOf", ())):
                whole = part.get("type") == "integer"
                if "minimum" in part:
                    yield section, name, part["minimum"] - (1 if whole else 0.001)
                if "exclusiveMinimum" in part:
                    yield section, name, part["exclusiveMinimum"]
                if "maximum" in part:
                    yield section, name, part["maximum"] + (1 if whole else 0.001)


@pytest.mark.parametrize(("section", "field", "value"), list(limits()))
def test_a_number_past_its_limit_is_refused_by_name(section: str, field: str, value: float) -> None:
    assert refusal({section: {field: value}}).startswith(f"{section}.{field}: Input should be ")


@pytest.mark.parametrize("section", [name for name, _ in sections()])
def test_every_number_of_a_section_has_a_lower_limit(section: str) -> None:
    fields = dict(sections())[section].model_json_schema()["properties"]
    numbers = {
        name: part
        for name, field in fields.items()
        for part in (field, *field.get("anyOf", ()))
        if part.get("type") in {"integer", "number"} and "enum" not in part
    }
    assert [name for name, part in numbers.items() if not {"minimum", "exclusiveMinimum"} & part.keys()] == []


PLAIN_FIELDS = [
    (section, name)
    for section, model in sections()
    for name in model.model_fields
    if isinstance(getattr(getattr(D, section), name), (bool, int, float, str))
]


@pytest.mark.parametrize(("section", "field"), PLAIN_FIELDS)
def test_a_setting_may_be_given_as_text_as_the_environment_does(section: str, field: str) -> None:
    default = getattr(getattr(D, section), field)
    assert getattr(Settings.model_validate({section: {field: str(default)}}), section) == getattr(D, section)


@pytest.mark.parametrize("section", [None, *(name for name, _ in sections())])
def test_a_misspelt_name_is_refused_never_ignored(section: str | None) -> None:
    changes = {"colour": 1} if section is None else {section: {"colour": 1}}
    where = "colour" if section is None else f"{section}.colour"
    assert refusal(changes) == f"{where}: Extra inputs are not permitted"


def test_settings_cannot_be_changed_after_they_were_checked() -> None:
    for part, name in ((Settings(), "trust_log"), (Settings().bidding, "cap_minor"), (Policy(), "default_stage")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, getattr(part, name))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_setting_is_infinite_or_not_a_number(value: float) -> None:
    assert refusal({"feeds": {"gap_factor_dead": value}}).startswith("feeds.gap_factor_dead: ")


@pytest.mark.parametrize("url", ["kafka://127.0.0.1:9092", "kafka://a:1,b.example:65535", "kafka://[::1]:9092", None])
def test_a_broker_is_a_list_of_hosts_and_ports(url: str | None) -> None:
    assert Settings(broker=url).broker == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:9092",
        "http://a:1",
        "kafka://",
        "kafka://a",
        "kafka://a:",
        "kafka://a:b",
        "kafka://a:65536",
        "kafka://a:1,b",
        "kafka://a:1,",
        "kafka://:9092",
        "kafka://9092",
        "kafka://a:1, b:2",
        "kafka://a:１",
        "kafka://a:1/x",
    ],
    ids=ascii,
)
def test_any_other_broker_is_refused_with_the_form_it_must_have(url: str) -> None:
    assert refusal({"broker": url}) == f"broker: Value error, must be kafka://host:port[,host:port], got {url!r}"


@pytest.mark.parametrize(
    "pair", ["usd:CNY", "USD", "USDCNY", "USD:", ":CNY", "US:CNY", "USD:CNYY", "USD:CNY:JPY", "ＵＳＤ:CNY", "U5D:CNY"],
    ids=ascii,
)  # fmt: skip
def test_a_pair_of_currencies_is_written_one_way(pair: str) -> None:
    words = f"currency.rates: Value error, rates key must be like 'USD:CNY', got {pair!r}"
    assert refusal({"currency": {"rates": {pair: "7.1"}}}) == words


@pytest.mark.parametrize("rate", ["", "0", "0.000", "-1", "1e3", "7,1", ".", "７", "NaN", "1.2.3", "1" * 19], ids=ascii)
def test_a_rate_is_a_positive_decimal_as_text(rate: str) -> None:
    words = f"currency.rates: Value error, rates['USD:CNY'] must be a positive decimal as text, got {rate!r}"
    assert refusal({"currency": {"rates": {"USD:CNY": rate}}}) == words
    assert CurrencySettings(rates={"USD:CNY": "7.1", "JPY:CNY": "0.048"}).rates["JPY:CNY"] == "0.048"


@pytest.mark.parametrize("field", ["privacy_key", "control_key"])
def test_a_secret_is_shown_nowhere(field: str) -> None:
    settings = Settings.model_validate({field: SECRET})
    assert getattr(settings, field).get_secret_value() == SECRET
    shown = (
        repr(settings),
        str(settings),
        f"{settings}",
        repr(settings.model_dump()),
        repr(settings.model_dump(mode="json")),
        settings.model_dump_json(),
        repr(settings.policy),
        repr(settings.model_copy(update={"lang": "zh"})),
    )
    assert [text for text in shown if SECRET in text] == []


@pytest.mark.parametrize("field", ["privacy_key", "control_key"])
def test_a_short_secret_is_refused_without_being_told(field: str) -> None:
    short = "just-31-characters-of-a-secret!"
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({field: short})
    (found,) = caught.value.errors()
    assert found["loc"] == (field,)
    assert "must have at least 32 characters" in found["msg"]
    assert short not in found["msg"]
    assert short not in str(caught.value)
    assert getattr(Settings.model_validate({field: f"{short}!"}), field) is not None


def test_the_defaults_of_one_tree_are_not_those_of_another() -> None:
    one = Policy()
    before = Policy().version()
    one.incident.owners["ivt"] = "nobody"
    one.currency.rates["USD:CNY"] = "1"
    assert Policy().version() == before
    assert Settings().policy.version() == before


def others(annotation: Any, value: Any) -> list[Any]:
    """Return values that a field might take instead of `value`, of which at least one should be valid."""
    if get_origin(annotation) is Literal:
        return [other for other in get_args(annotation) if other != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value * 2, value * 4, value - value % 10 + 10, value + 1, value - 1, value // 2]
    if isinstance(value, float):
        return [value / 2, value * 1.5, value + 0.25]
    if isinstance(value, str):
        return [f"{value}-2"]
    if isinstance(value, dict):
        return [{**value, key: other} for key in value for other in others(str, value[key])] + [
            {"USD:CNY": "7.1"},
            {"*/feed_ads": 60},
        ]
    if isinstance(value, tuple):
        return [("segment",)]
    return ["CNY", 1, 0.5]


def variants() -> Iterator[tuple[str, Policy]]:
    """Yield, for every field of the policy, a policy that differs in that field alone."""
    default = Policy().model_dump()

    def first_valid(where: str, changed: Iterator[dict[str, Any]]) -> tuple[str, Policy]:
        for candidate in changed:
            try:
                policy = Policy.model_validate(candidate)
            except ValidationError:
                continue
            if policy.model_dump() != default:
                return where, policy
        pytest.fail(f"{where} should have another valid value than its default")

    for section, model in sections(Policy):
        for name, field in model.model_fields.items():
            values = others(field.annotation, default[section][name])
            yield first_valid(
                f"{section}.{name}",
                ({**default, section: {**default[section], name: value}} for value in values),
            )
    yield first_valid("default_stage", iter([{**default, "default_stage": "promotion"}]))


def test_the_version_of_a_policy_changes_with_any_field() -> None:
    made = dict(variants())
    versions = {where: policy.version() for where, policy in made.items()}
    n_fields = sum(len(model.model_fields) for _, model in sections(Policy)) + 1
    assert len(versions) == n_fields
    assert len({*versions.values(), Policy().version()}) == n_fields + 1


def test_equal_policies_have_equal_versions_however_they_were_written() -> None:
    assert Policy().version() == Policy().version()
    assert Policy.model_validate(Policy().model_dump(mode="json")).version() == Policy().version()
    whole = Policy.model_validate({"detect": {"open_z": 4, "needed": "3"}})
    assert whole == Policy()
    assert whole.version() == Policy().version()
    rates = {"USD:CNY": "7.1", "JPY:CNY": "0.048", "EUR:CNY": "7.8"}
    backwards = dict(reversed(rates.items()))
    assert (
        Policy(currency=CurrencySettings(rates=rates)).version()
        == Policy(currency=CurrencySettings(rates=backwards)).version()
        != Policy().version()
    )


@given(money(), money())
def test_versions_agree_exactly_when_the_policies_do(one: int, other: int) -> None:
    def capped(cap_minor: int) -> Policy:
        return Policy.model_validate({"bidding": {"floor_minor": 0, "cap_minor": cap_minor}})

    assert (capped(one).version() == capped(other).version()) is (one == other)


def test_a_version_is_twelve_hex_digits_and_the_same_under_every_hash_seed() -> None:
    code = (
        "from schemas.settings import CurrencySettings, Policy;"
        "rates = {'USD:CNY': '7.1', 'JPY:CNY': '0.048'};"
        "print(Policy().version(), Policy(currency=CurrencySettings(rates=rates)).version())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed, zone in (("0", "UTC"), ("1", "Asia/Shanghai"), ("4294967295", "America/New_York"))
    }
    rates = {"USD:CNY": "7.1", "JPY:CNY": "0.048"}
    here = f"{Policy().version()} {Policy(currency=CurrencySettings(rates=rates)).version()}\n"
    assert printed == {here}
    assert all(len(version) == 12 and int(version, 16) >= 0 for version in here.split())


def test_a_policy_is_json_that_can_travel_in_the_log() -> None:
    dumped = Policy().model_dump(mode="json")
    assert json.loads(json.dumps(dumped, allow_nan=False)) == dumped
    assert len(json.dumps({"policy": dumped}).encode()) < 16 * 1024


def test_every_setting_that_decides_says_what_it_is() -> None:
    undescribed = {
        f"{section}.{name}"
        for section, model in sections(Policy)
        for name, field in model.model_fields.items()
        if field.description is None
    }
    assert undescribed == set()


CHOICES = [
    (section, name)
    for section, model in sections()
    for name, field in model.model_fields.items()
    if get_origin(field.annotation) is Literal
]


@pytest.mark.parametrize(("section", "field"), CHOICES)
def test_a_choice_takes_its_own_words_only(section: str, field: str) -> None:
    assert refusal({section: {field: "nonsense"}}).startswith(f"{section}.{field}: Input should be ")
