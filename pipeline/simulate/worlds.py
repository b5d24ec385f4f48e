"""Named worlds: sets of parameters under which a method that was calibrated on the default ones must be judged too.

Each breaks one thing that something supposes; all of what it breaks is in `WORLDS`, by the names that `settings.py`
knows. `as-is` is the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from pipeline.simulate.parameters import Parameters
from pipeline.simulate.settings import with_values


class UnknownWorldError(ValueError):
    """No world has that name."""


class NamedWorld(NamedTuple):
    """Parameters that differ from the default, each as text; and what that means, in two languages."""

    name: str
    en: str
    zh: str
    values: Mapping[str, str]


WORLDS: Final[dict[str, NamedWorld]] = {
    world.name: world
    for world in (
        NamedWorld("as-is", "the default parameters", "默认参数", {}),
        NamedWorld(
            "slow-delay",
            "few buy at once; the others take 25 minutes on average",
            "很少当场下单，其余平均25分钟后才下单",
            {"prompt_ratio": "0.3", "late_order_mean_s": "1500"},
        ),
        NamedWorld(
            "heavy-tail",
            "late orders have a log-normal tail, some hours long",
            "迟到订单的时延呈对数正态长尾，有的长达数小时",
            {"prompt_ratio": "0.5", "late_order_kind": "lognormal", "late_order_shape": "2.0"},
        ),
        NamedWorld(
            "big-orders",
            "a few orders are worth dozens of others",
            "少数大单抵得上几十单",
            {"quantity_tail": "1.5", "quantity_max": "200", "amount_sigma": "0.8"},
        ),
        NamedWorld(
            "refunds",
            "a third of what is paid comes back, most of it within half an hour",
            "三分之一的付款会退，多半在半小时内",
            {"refund_ratio": "0.33", "refund_soon_ratio": "0.8", "refund_mean_s": "1800"},
        ),
        NamedWorld(
            "seasonal",
            "traffic follows the hour, with a peak at 21:00 in China, and grows by half at weekends",
            "流量随时段起伏，21点达到高峰，周末多一半",
            {
                "hours": "0.5,0.3,0.2,0.15,0.15,0.2,0.3,0.5,0.7,0.8,0.9,1.0,"
                "1.1,1.0,0.9,0.9,1.0,1.1,1.3,1.6,1.9,2.0,1.6,0.9",
                "weekend_factor": "1.5",
            },
        ),
        NamedWorld(
            "bursts",
            "nearly all is sold in the last seconds of an explanation, and free traffic comes in strong waves",
            "几乎都在讲解末尾成交，免费流量大起大落",
            {"burst_factor": "6.0", "explain_factor": "0.25", "pause_factor": "0.05", "wave_sigma": "0.12"},
        ),
        NamedWorld(
            "shared-sources",
            "a third of the honest viewers are behind carriers' addresses, one in eight on a shared device",
            "三分之一的真实观众共用运营商出口，八分之一共用设备",
            {"carrier_ratio": "0.33", "shared_device_ratio": "0.12"},
        ),
        NamedWorld(
            "other-bots",
            "bots of every family behave otherwise than by default",
            "每一类机器人的行为都与默认不同",
            {
                "bots.burst_devices": "24",
                "bots.burst_dwell_ms": "1500,4000",
                "bots.fixed_interval_s": "35",
                "bots.fixed_dwell_ms": "20000",
                "bots.random_accounts": "250",
                "bots.random_blocks": "25",
                "bots.random_like_ratio": "0.2",
                "bots.farm_devices": "60",
                "bots.farm_dwell_ms": "5000,40000",
                "bots.address_dwell_ms": "5000,30000",
                "bots.hands_devices": "40",
                "bots.hands_click_ratio": "0.75",
                "bots.task_s": "45",
                "bots.task_over_s": "3",
                "bots.script_accounts": "45",
                "bots.script_texts": "6",
                "bots.script_blocks": "5",
            },
        ),
        NamedWorld(
            "slow-feeds",
            "records of orders and spend come up to a minute late, and the heartbeats say so",
            "订单和消耗数据最多迟到一分钟，心跳如实告知",
            {
                "feeds.order.lag_ms": "2000,60000",
                "feeds.order.slack_ms": "61000",
                "feeds.order.expected_lag_s": "60",
                "feeds.spend.lag_ms": "5000,60000",
                "feeds.spend.slack_ms": "61000",
                "feeds.spend.expected_lag_s": "75",
            },
        ),
        NamedWorld("half-consent", "half of the viewers do not consent", "半数观众未同意", {"consent_ratio": "0.5"}),
        NamedWorld("no-consent", "no viewer consents", "没有观众同意", {"consent_ratio": "0"}),
        NamedWorld(
            "counts-only",
            "the platform tells only how many came, clicked and wrote, by channel",
            "平台只给出各渠道的人数、点击数和评论数",
            {"is_counts_only": "true"},
        ),
    )
}


def world_named(name: str) -> NamedWorld:
    """Return the world; raise UnknownWorldError that lists the known ones."""
    if name not in WORLDS:
        msg = f"world must be one of {', '.join(WORLDS)}, got {name!r}"
        raise UnknownWorldError(msg)
    return WORLDS[name]


def parameters_of(name: str, parameters: Parameters | None = None) -> Parameters:
    """Return `parameters` (the default ones) with what the world changes.

    >>> parameters_of("no-consent").consent_ratio
    0.0
    """
    return with_values(parameters or Parameters(), world_named(name).values)
