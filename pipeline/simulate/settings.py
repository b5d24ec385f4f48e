"""Change parameters by name: `bots.task_s=45`, `channels.feed_ads.buy_ratio=0.1`, `feeds.order.lag_ms=300,9000`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pipeline.simulate.parameters import Parameters

_POSITIVE: Final = {
    "size", "view_heartbeat_s", "presence_s", "plan_report_s", "feed_heartbeat_s", "report_s", "quantity_tail",
    "n_products", "quantity_max", "session_s", "burst_devices", "burst_texts", "fixed_interval_s", "fixed_beat_ms",
    "random_accounts", "random_blocks", "farm_devices", "farm_addresses", "hands_devices", "hands_accounts",
    "hands_blocks", "script_accounts", "script_texts", "script_blocks", "celebrity_rise_s", "nat_addresses",
    "campus_break_s", "dwell_median_s", "dwell_max_s", "reference", "ctr", "random_dwell_median_s", "credit_mean_s",
    "counts_s", "rack_phones", "rack_accounts", "rack_blocks", "rack_wave_s", "idle_blocks", "idle_dwell_median_s",
}  # fmt: skip
"""What the rooms divide by, take a logarithm of or wait for."""


class ParameterError(ValueError):
    """A parameter has no such name, or may not have such a value."""


def names(parameters: Parameters | None = None) -> list[str]:
    """Return every name that `with_values` takes.

    >>> "bots.task_s" in names()
    True
    """
    return [name for name, _ in _leaves(parameters or Parameters(), "")]


def with_values(parameters: Parameters, values: Mapping[str, str]) -> Parameters:
    """Return `parameters` with other values, each as text; raise ParameterError for what cannot be.

    >>> with_values(Parameters(), {"channels.search_ads.buy_ratio": "0.3"}).channels["search_ads"].buy_ratio
    0.3
    """
    for name, text in values.items():
        parameters = _with(parameters, name, name.split("."), text)
    check(parameters)
    return parameters


def check(parameters: Parameters) -> None:
    """Raise ParameterError where values contradict each other."""
    kinds = ("exponential", "lognormal", "pareto")
    if parameters.late_order_kind not in kinds:
        msg = f"parameter late_order_kind must be one of {', '.join(kinds)}, got {parameters.late_order_kind!r}"
        raise ParameterError(msg)
    if parameters.late_order_kind == "pareto" and parameters.late_order_shape <= 1.0:
        msg = f"parameter late_order_shape must be above 1 for pareto, got {parameters.late_order_shape:g}"
        raise ParameterError(msg)
    if parameters.hours and len(parameters.hours) != 24:
        msg = f"parameter hours must be 24 factors or none, got {len(parameters.hours)}"
        raise ParameterError(msg)
    if parameters.explain_s[0] < parameters.burst_s:
        msg = f"parameter burst_s must be at most the shortest explanation, got {parameters.burst_s}"
        raise ParameterError(msg)


def _with(part: Any, name: str, path: list[str], text: str) -> Any:
    if not path:
        return _value(part, name, text)
    head, rest = path[0], path[1:]
    if isinstance(part, dict) and head in part:
        return {**part, head: _with(part[head], name, rest, text)}
    if dataclasses.is_dataclass(part) and head in {field.name for field in dataclasses.fields(part)}:
        return dataclasses.replace(part, **{head: _with(getattr(part, head), name, rest, text)})  # type: ignore[type-var]
    known = list(part) if isinstance(part, dict) else []
    if dataclasses.is_dataclass(part):
        known = [field.name for field in dataclasses.fields(part)]
    msg = f"parameter {name} must name one of {', '.join(map(str, known)) or 'no parts'} at {head!r}"
    raise ParameterError(msg)


def _value(before: Any, name: str, text: str) -> Any:
    """Return `text` as the kind of value that is there."""
    try:
        if isinstance(before, bool):
            value: Any = {"true": True, "false": False}[text.lower()]
        elif isinstance(before, int | float):
            value = _number(before, name, text)
        elif isinstance(before, str):
            value = text
        elif isinstance(before, tuple):
            kind: Any = before[0] if before else 0.0
            parts = text.split(",") if text else []
            value = tuple(one if isinstance(kind, str) else _number(kind, name, one) for one in parts)
        else:
            msg = f"parameter {name} must name a single value, got a group of them"
            raise ParameterError(msg)
    except (ValueError, KeyError) as error:
        if isinstance(error, ParameterError):
            raise
        msg = f"parameter {name} must be like {_shown(before)}, got {text!r}"
        raise ParameterError(msg) from None
    is_pair = name.endswith(("_ms", "_s")) and isinstance(before, tuple) and len(before) == 2
    if is_pair and (len(value) != 2 or value[0] > value[1]):
        msg = f"parameter {name} must be least,largest, got {text!r}"
        raise ParameterError(msg)
    return value


def _number(before: int | float, name: str, text: str) -> int | float:
    value = int(text) if isinstance(before, int) else float(text)
    last = name.rpartition(".")[2]
    if not math.isfinite(value) or value < 0:
        msg = f"parameter {name} must be a finite number >= 0, got {text}"
        raise ParameterError(msg)
    if value == 0 and last in _POSITIVE:
        msg = f"parameter {name} must be above 0, got {text}"
        raise ParameterError(msg)
    if value > 1 and last.endswith("_ratio"):
        msg = f"parameter {name} must be in 0..1, got {text}"
        raise ParameterError(msg)
    return value


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _leaves(part: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(part):
        items: Any = [(field.name, getattr(part, field.name)) for field in dataclasses.fields(part)]
    elif isinstance(part, dict):
        items = part.items()
    else:
        yield prefix.removesuffix("."), part
        return
    for name, value in items:
        yield from _leaves(value, f"{prefix}{name}.")
