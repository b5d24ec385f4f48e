"""Shared Hypothesis strategies and examples: what the contract allows, written down apart from the models.

Events are plain dicts, as a producer would make them. `logs` gives whole logs of a partition in which orders, plans and
viewers meet again, some events come twice, some late, some in arrays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Event = dict[str, Any]
Record = tuple[int, int | None, bytes, bytes | None]
"""Offset, Kafka timestamp in ms (None in plain files), value, key."""

START_MS: Final = 1_767_225_600_000
"""2026-01-01T00:00:00Z: events made here fall around it."""
MAX_INTEGER: Final = 2**53 - 1
MAX_MONEY: Final = 10**12

_COMMON: Final[Event] = {
    "event_id": "e-1",
    "room_id": "room-1",
    "ts": START_MS,
    "source": "app",
    "channel": "paid",
    "plan_id": "plan-1",
    "campaign_id": "campaign-1",
    "creative_id": "creative-1",
    "segment": "new",
    "region": "浙江",
    "host_id": "host-1",
    "partner_id": "partner-1",
    "account_id": "account-1",
    "product_id": "product-1",
    "user_id": "user-1",
    "device_id": "device-1",
    "ip": "203.0.113.7",
    "consent": True,
}
_OWN_FIELDS: Final[Mapping[str, Event]] = {
    "room": {
        "action": "start",
        "settings": {
            "stage": "acquisition",
            "currency": "CNY",
            "target_roas": 2.5,
            "budget_minor": 5_000_000,
            "planned_end_ts": START_MS + 7_200_000,
            "mode": "shadow",
            "account_id": "account-1",
            "platform": "platform-1",
            "bid_floor_minor": 100,
            "bid_cap_minor": 9_000,
            "dimensions": ["segment", "region"],
        },
    },
    "view": {"action": "leave", "session_id": "session-1", "dwell_ms": 31_000},
    "presence": {"n_online": 1_234},
    "interaction": {"action": "add_to_cart"},
    "comment": {"text": "这件多少钱？ how much?"},
    "order": {
        "order_id": "order-1",
        "status": "paid",
        "amount_minor": 12_900,
        "currency": "CNY",
        "quantity": 2,
        "attribution": "direct",
        "touch_ts": START_MS - 60_000,
        "goods_cost_minor": 5_000,
        "commission_minor": 1_200,
        "is_new_customer": False,
    },
    "gift": {"amount_minor": 990, "currency": "CNY"},
    "spend": {
        "plan_id": "plan-1",
        "impressions": 1_000,
        "clicks": 30,
        "cost_minor": 4_500,
        "currency": "CNY",
        "reporting": "cumulative",
        "stat_date": "2026-01-01",
        "report_ts": START_MS,
    },
    "plan": {
        "plan_id": "plan-1",
        "status": "delivering",
        "bid_kind": "roi_goal",
        "bid_minor": 3_000,
        "roi_goal": "2.35",
        "budget_minor": 1_000_000,
        "budget_left_minor": 400_000,
        "budget_period": "day",
        "learning_state": "learned",
        "protection_state": "in_effect",
        "edits_left": 9,
        "min_edit_gap_s": 600,
        "changed_by": "us",
    },
    "product": {"product_id": "product-1", "action": "price", "stock": 0, "price_minor": 9_900},
    "counts": {"n_enters": 5, "n_product_clicks": 3, "n_add_to_cart": 1, "n_interactions": 8, "n_comments": 2},
    "feed": {"feed": "order", "complete_through_ts": START_MS, "expected_lag_s": 90},
    "tick": {"every_ms": 500},
    "control": {
        "control_id": "control-1",
        "actor": "operator-1",
        "action": "set_mode",
        "args": {"mode": "approve"},
        "kid": "control",
        "sig": "0" * 64,
    },
    "ack": {
        "command_id": "command-1",
        "status": "applied",
        "observed_value": 3_000,
        "detail": "written and read back",
        "kid": "controller:main",
        "sig": "0" * 64,
    },
}
EXAMPLES: Final[Mapping[str, Event]] = {kind: {"type": kind, **_COMMON, **own} for kind, own in _OWN_FIELDS.items()}
"""One valid event a type, with every field that the contract names."""
KINDS: Final = tuple(EXAMPLES)
PRODUCER_KINDS: Final = tuple(kind for kind in KINDS if kind not in {"tick", "control", "ack"})
"""What producers write, alone or in arrays."""

_CHARACTERS: Final = st.characters(codec="utf-8")
_PRINTABLE: Final = st.characters(categories=("L", "M", "N", "P", "S"), include_characters=" ")
_STAGES = ("acquisition", "retention", "promotion")
_MODES = ("off", "shadow", "approve", "auto")
_DIMENSIONS = ("segment", "region", "creative_id", "product_id", "host_id", "partner_id")
_FEEDS = ("view", "comment", "order", "spend", "plan")
_CONTROL_ACTIONS = (
    "set_mode",
    "kill_switch",
    "approve",
    "reject",
    "ack_anomaly",
    "resolve_anomaly",
    "silence",
    "override_bid",
    "exclude_window",
    "feedback",
    "update_settings",
)


def _edged(low: int, usual: int, high: int) -> SearchStrategy[int]:
    """Mostly what happens, sometimes the limits: a test that only meets limits meets nothing else."""
    return st.integers(max(low, -usual), usual) | st.integers(low, high) | st.sampled_from((low, high))


def identifiers() -> SearchStrategy[str]:
    """1 to 128 printable characters of any script."""
    return st.text(_PRINTABLE, min_size=1, max_size=12) | st.text(_PRINTABLE, min_size=1, max_size=128)


def room_ids() -> SearchStrategy[str]:
    """Ids of single rooms: never the `*` that stands for every room."""
    return identifiers().filter(lambda room: room != "*")


def counts() -> SearchStrategy[int]:
    """Counts that are not negative."""
    return _edged(0, 1_000, MAX_INTEGER)


def signed_counts() -> SearchStrategy[int]:
    """Counts that may correct earlier ones."""
    return _edged(-MAX_INTEGER, 1_000, MAX_INTEGER)


def money() -> SearchStrategy[int]:
    """Minor units, 0 to 10^12."""
    return _edged(0, 100_000, MAX_MONEY)


def signed_money() -> SearchStrategy[int]:
    """Minor units, -10^12 to 10^12."""
    return _edged(-MAX_MONEY, 100_000, MAX_MONEY)


def timestamps() -> SearchStrategy[int]:
    """Milliseconds around `START_MS`, sometimes any that the wire can carry."""
    return st.integers(START_MS, START_MS + 3_600_000) | st.integers(0, MAX_INTEGER)


def currencies() -> SearchStrategy[str]:
    """Three capital letters."""
    return st.sampled_from(("CNY", "USD", "JPY")) | st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=3, max_size=3)


def decimals() -> SearchStrategy[str]:
    """Decimals as text, at most six places."""
    return st.from_regex(r"[0-9]{1,9}([.][0-9]{1,6})?", fullmatch=True, alphabet="0123456789.")


def ratios() -> SearchStrategy[float | int | str]:
    """Targets and goals: a positive number, or a decimal as text."""
    return st.floats(0.01, 1_000_000) | st.integers(1, 1_000_000) | decimals().filter(lambda text: float(text) > 0)


def dates() -> SearchStrategy[str]:
    """Calendar days."""
    return st.dates().map(lambda day: day.isoformat())


def comment_texts() -> SearchStrategy[str]:
    """What viewers write, up to 2,000 characters, line breaks and all."""
    usual = st.sampled_from(("666", "多少钱", "质量太差了", "主播好棒", "", "how much?", "假货！\n退钱"))
    return usual | st.text(_CHARACTERS, max_size=2_000)


def json_values() -> SearchStrategy[Any]:
    """Anything that JSON can say, integers beyond 64 bits among it."""
    numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | numbers | st.text(_CHARACTERS, max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_", max_size=4), inner, max_size=3),
        max_leaves=6,
    )


def _settings() -> SearchStrategy[Event]:
    return st.fixed_dictionaries(
        {},
        optional={
            "stage": st.sampled_from(_STAGES),
            "currency": currencies(),
            "target_roas": ratios(),
            "budget_minor": money(),
            "planned_end_ts": timestamps(),
            "mode": st.sampled_from(_MODES),
            "account_id": identifiers(),
            "platform": identifiers(),
            "bid_floor_minor": money(),
            "bid_cap_minor": money(),
            "dimensions": st.lists(st.sampled_from(_DIMENSIONS), max_size=7),
        },
    )


_Fields = tuple[Mapping[str, SearchStrategy[Any]], Mapping[str, SearchStrategy[Any]]]


_SIGNATURE: Final[Mapping[str, SearchStrategy[Any]]] = {
    "kid": identifiers(),
    "sig": st.text("0123456789abcdef", max_size=128),
}
_FIELDS: Final[Mapping[str, _Fields]] = {
    "room": (
        {"action": st.sampled_from(("start", "update", "end"))},
        {"settings": _settings()},
    ),
    "view": (
        {"action": st.sampled_from(("enter", "heartbeat", "leave")), "session_id": identifiers()},
        {"dwell_ms": counts()},
    ),
    "presence": ({"n_online": counts()}, {}),
    "interaction": (
        {"action": st.sampled_from(("like", "share", "follow", "product_click", "add_to_cart"))},
        {},
    ),
    "comment": ({"text": comment_texts()}, {}),
    "order": (
        {
            "order_id": identifiers(),
            "status": st.sampled_from(("created", "paid", "refunded", "cancelled")),
            "amount_minor": money(),
            "currency": currencies(),
        },
        {
            "quantity": counts(),
            "attribution": st.sampled_from(("direct", "indirect", "organic", "unknown")),
            "touch_ts": timestamps(),
            "goods_cost_minor": money(),
            "commission_minor": money(),
            "is_new_customer": st.booleans(),
        },
    ),
    "gift": ({"amount_minor": money(), "currency": currencies()}, {}),
    "spend": (
        {
            "plan_id": identifiers(),
            "impressions": signed_counts(),
            "clicks": signed_counts(),
            "cost_minor": signed_money(),
            "currency": currencies(),
        },
        {
            "reporting": st.sampled_from(("increment", "cumulative", "adjust")),
            "stat_date": dates(),
            "report_ts": timestamps(),
        },
    ),
    "plan": (
        {"plan_id": identifiers()},
        {
            "status": st.sampled_from(("delivering", "paused", "review", "budget_out", "balance_out", "ended")),
            "bid_kind": st.sampled_from(("cost_per_action", "roi_goal", "none")),
            "bid_minor": money(),
            "roi_goal": ratios(),
            "budget_minor": money(),
            "budget_left_minor": money(),
            "budget_period": st.sampled_from(("day", "session")),
            "learning_state": st.sampled_from(("learning", "learned", "failed")),
            "protection_state": st.sampled_from(("none", "in_effect", "void")),
            "edits_left": counts(),
            "min_edit_gap_s": counts(),
            "changed_by": st.sampled_from(("us", "human", "platform", "other")),
        },
    ),
    "product": (
        {
            "product_id": identifiers(),
            "action": st.sampled_from(
                ("list", "delist", "explain_start", "explain_end", "price", "stock", "coupon"),
            ),
        },
        {"stock": counts(), "price_minor": money()},
    ),
    "counts": ({}, {name: counts() for name in _OWN_FIELDS["counts"]}),
    "feed": (
        {"feed": st.sampled_from(_FEEDS), "complete_through_ts": timestamps()},
        {"expected_lag_s": counts()},
    ),
    "tick": ({}, {}),
    "control": (
        {"control_id": identifiers(), "actor": identifiers(), "action": st.sampled_from(_CONTROL_ACTIONS)},
        {"args": st.dictionaries(st.text("abc_", min_size=1, max_size=8), json_values(), max_size=3), **_SIGNATURE},
    ),
    "ack": (
        {
            "command_id": identifiers(),
            "status": st.sampled_from(("accepted", "applied", "rejected", "failed", "expired", "noop", "unknown")),
        },
        {"observed_value": counts() | decimals(), "detail": st.text(_PRINTABLE, max_size=1_000), **_SIGNATURE},
    ),
}
"""The required and the optional fields of each type, beyond the common ones."""


def _common() -> _Fields:
    names = [name for name in _COMMON if name not in {"event_id", "room_id", "ts", "consent"}]
    optional: dict[str, SearchStrategy[Any]] = {name: identifiers() for name in names}
    required = {"event_id": identifiers(), "room_id": room_ids(), "ts": timestamps()}
    return required, optional | {"consent": st.booleans()}


def _obey_rules_across_fields(event: Event) -> Event:
    """Make good what fields drawn one by one get wrong together."""
    if event["type"] == "view" and event["action"] == "leave":
        event.setdefault("dwell_ms", 0)
    if event["type"] == "spend":
        if event.get("reporting") != "adjust":
            event |= {name: abs(event[name]) for name in ("impressions", "clicks", "cost_minor")}
        if event.get("reporting") == "cumulative":
            event = {"stat_date": "2026-01-01", "report_ts": event["ts"]} | event
    return event


def events(*kinds: str, **fixed: SearchStrategy[Any]) -> SearchStrategy[Event]:
    """Valid events of the `kinds` named (all of them without any), any field absent that may be.

    `fixed` replaces a field's values, which makes an optional field present: `events("order", room_id=st.just("r"))`.
    """

    def of(kind: str) -> SearchStrategy[Event]:
        (common, may), (own, own_may) = _common(), _FIELDS[kind]
        required = {"type": st.just(kind), **common, **own, **fixed}
        optional = {name: made for name, made in {**may, **own_may}.items() if name not in required}
        return st.fixed_dictionaries(required, optional=optional).map(_obey_rules_across_fields)

    return st.one_of([of(kind) for kind in kinds or KINDS])


_LOG_AMOUNTS = st.integers(0, 50_000) | st.just(MAX_MONEY)
_LOG_COUNTS = st.integers(0, 200)
# Small pools: refunds must find their orders, heartbeats their sessions, spend its plan.
_LOG_POOLS: Final[Mapping[str, SearchStrategy[Any]]] = {
    "user_id": st.sampled_from([f"user-{n}" for n in range(6)]),
    "channel": st.sampled_from(("paid", "organic", "follow")),
    "plan_id": st.sampled_from(("plan-1", "plan-2")),
    "order_id": st.sampled_from([f"order-{n}" for n in range(5)]),
    "session_id": st.sampled_from([f"session-{n}" for n in range(4)]),
    "product_id": st.sampled_from(("product-1", "product-2")),
    "segment": st.sampled_from(("new", "loyal", "unknown")),
    "creative_id": st.sampled_from([f"creative-{n}" for n in range(4)]),
    "host_id": st.sampled_from(("host-1", "host-2")),
    "currency": st.just("CNY"),
    "text": st.sampled_from(("666", "多少钱", "质量太差了", "假货！退钱", "主播好棒", "物流太慢")),
    "stat_date": st.just("2026-01-01"),
    "dwell_ms": st.integers(0, 600_000),
    "settings": st.fixed_dictionaries(
        {"stage": st.sampled_from(_STAGES), "budget_minor": _LOG_AMOUNTS},
        optional={"dimensions": st.lists(st.sampled_from(_DIMENSIONS), max_size=3)},
    ),
    "roi_goal": st.sampled_from(("1.5", "2", "3.25")),
}
_LOG_EVENT_KINDS: Final = (*PRODUCER_KINDS, "view", "comment", "order", "order", "spend")
_FAR_MS: Final = 4_000_000
"""An hour and more: enough to leave every window but the session's."""


def _log_field(name: str, made: SearchStrategy[Any], clock_ms: int) -> SearchStrategy[Any]:
    if name in _LOG_POOLS:
        return _LOG_POOLS[name]
    if name.endswith("_ts"):
        return st.integers(clock_ms - 300_000, clock_ms)
    if name.endswith("_minor"):
        return _LOG_AMOUNTS
    if name.startswith("n_") or name in {"impressions", "clicks", "quantity", "stock", "edits_left"}:
        return _LOG_COUNTS
    return made


@st.composite
def _log_event(draw: st.DrawFn, kinds: Sequence[str], event_id: str, room_id: str, clock_ms: int) -> Event:
    kind = draw(st.sampled_from(kinds))
    late_ms = draw(st.sampled_from((0, 0, 0, 250, 5_000, 90_000)))
    event: Event = {"type": kind, "event_id": event_id, "room_id": room_id, "ts": clock_ms - late_ms}
    required, optional = _FIELDS[kind]
    for name, made in required.items():
        event[name] = draw(_log_field(name, made, clock_ms))
    for name in ("user_id", "channel", "segment", "creative_id", "host_id"):
        if draw(st.booleans()):
            event[name] = draw(_LOG_POOLS[name])
    for name, made in optional.items():
        if draw(st.booleans()):
            event[name] = draw(_log_field(name, made, clock_ms))
    return _obey_rules_across_fields(event)


@st.composite
def logs(
    draw: st.DrawFn,
    *,
    max_rooms: int = 3,
    min_records: int = 0,
    max_records: int = 30,
    kinds: Sequence[str] = _LOG_EVENT_KINDS,
    timestamps: bool = True,
) -> list[Record]:
    """A partition's log: valid records of one to `max_rooms` rooms, in offset order, with time going on between them.

    Offsets have gaps, as after compaction or aborted sends. Timestamps may step back a little, as they do between
    brokers; without `timestamps` every record carries None. About one record in six repeats an earlier one.
    """
    rooms = [f"room-{n}" for n in range(1, draw(st.integers(1, max_rooms)) + 1)]
    steps = st.sampled_from((0, 1, 20, 499, 500, 501, 5_000, 61_000, _FAR_MS))
    log: list[Record] = []
    value: bytes
    key: bytes | None
    clock_ms, offset, n_made = START_MS, draw(st.sampled_from((0, 7, 2**40))), 0
    for _ in range(draw(st.integers(min_records, max_records))):
        clock_ms += draw(steps)
        stamp = clock_ms - draw(st.sampled_from((0, 0, 0, 300))) if timestamps else None
        if log and draw(st.integers(0, 5)) == 0:
            _, _, value, key = draw(st.sampled_from(log))
        else:
            room = draw(st.sampled_from((*rooms, *rooms, *rooms, "*")))
            made: list[Event] = []
            for _ in range(1 if room == "*" else draw(st.sampled_from((1, 1, 1, 3)))):
                name = f"e{n_made}"
                tick = {"type": "tick", "event_id": name, "room_id": room, "ts": clock_ms}
                made.append(tick if room == "*" else draw(_log_event(kinds, name, room, clock_ms)))
                n_made += 1
            value = json.dumps(made if len(made) > 1 else made[0], ensure_ascii=False).encode()
            key = room.encode()
        log.append((offset, stamp, value, key))
        offset += draw(st.sampled_from((1, 1, 1, 4)))
    return log
