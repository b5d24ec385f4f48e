"""Named sets of rooms: which room has which trouble."""

from __future__ import annotations

from typing import Final, NamedTuple

from pipeline.simulate.truth import TroubleKind

MIXED: Final[tuple[TroubleKind | None, ...]] = (
    "bot_burst",
    None,
    "angry_chat",
    "landing_page",
    None,
    "cost_rise",
    None,
    "crowd_echo",
    None,
    "feed_dead",
)


class UnknownScenarioError(ValueError):
    """No scenario has that name."""


class Scenario(NamedTuple):
    """One trouble in rooms 1, 3, 5, …, the others are controls; or the demonstration's mix."""

    name: str
    kind: TroubleKind | None
    en: str
    zh: str

    def trouble_of(self, index: int) -> TroubleKind | None:
        """Return the trouble of room number `index` (from 0), whatever the number of rooms."""
        if self.name == "mixed":
            return MIXED[index] if index < len(MIXED) else None
        return self.kind if index % 2 == 0 else None


SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        Scenario("calm", None, "healthy rooms, nothing happens", "健康的直播间，什么都没发生"),
        Scenario(
            "bot_burst",
            "bot_burst",
            "view bots and script comments on one paid channel",
            "某付费渠道涌入刷量机器人和脚本评论",
        ),
        Scenario("angry_chat", "angry_chat", "many viewers complain about one topic", "大量观众集中抱怨同一话题"),
        Scenario("landing_page", "landing_page", "clicks go on, orders collapse", "点击照旧，下单骤降"),
        Scenario(
            "cost_rise",
            "cost_rise",
            "a click costs 2.5 times as much, conversion is flat",
            "点击成本涨到2.5倍，转化不变",
        ),
        Scenario("feed_dead", "feed_dead", "the order feed falls silent, sales go on", "订单数据中断，销售照常"),
        Scenario("crowd_echo", "crowd_echo", "innocent: everybody types 扣1", "无辜场景：全场刷“扣1”"),
        Scenario(
            "mixed",
            None,
            "ten rooms with six kinds of trouble and healthy ones between, all further rooms healthy",
            "前十个直播间含六种异常并夹杂健康直播间，其余全部健康",
        ),
    )
}


def scenario_named(name: str) -> Scenario:
    """Return the scenario; raise UnknownScenarioError that lists the known ones."""
    if name not in SCENARIOS:
        msg = f"scenario must be one of {', '.join(SCENARIOS)}, got {name!r}"
        raise UnknownScenarioError(msg)
    return SCENARIOS[name]
