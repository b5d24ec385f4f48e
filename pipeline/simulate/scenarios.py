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


TRAFFIC: Final[tuple[TroubleKind | None, ...]] = (
    "bot_burst",
    None,
    "view_bots_fixed",
    "carrier_nat",
    "view_bots_random",
    "crowd_echo",
    "device_farm",
    None,
    "shared_address",
    "campus",
    "click_farm",
    "lottery",
    "incentive_hunters",
    None,
    "script_comments",
    "celebrity",
    "paraphrase_comments",
    "organic_surge",
    "synced_phones",
    "idle_audience",
)


CAUSES: Final[tuple[TroubleKind | None, ...]] = (
    "bot_burst",
    None,
    "creative_fatigue",
    "targeting_drift",
    None,
    "content_slump",
    "landing_page",
    None,
    "payment_failure",
    "sold_out",
    None,
    "cost_rise",
    "organic_surge",
    None,
    "refund_wave",
    "delivery_stopped",
    None,
    "tracking_outage",
)
RETURNS: Final[tuple[TroubleKind | None, ...]] = (
    None,
    "orders_late",
    "refund_wave",
    None,
    "click_farm",
    "absurd_orders",
    None,
    "orders_lost",
    "landing_page",
    None,
    "payment_failure",
    "tracking_outage",
)


class UnknownScenarioError(ValueError):
    """No scenario has that name."""


class Scenario(NamedTuple):
    """One trouble in rooms 1, 3, 5, …, the others are controls; or a mix of several."""

    name: str
    kind: TroubleKind | None
    en: str
    zh: str
    mix: tuple[TroubleKind | None, ...] = ()
    """Which trouble the rooms have in turn; None are healthy."""
    repeats: bool = False
    """Whether the mix begins again after its last room; else all further rooms are healthy."""

    def trouble_of(self, index: int) -> TroubleKind | None:
        """Return the trouble of room number `index` (from 0), whatever the number of rooms."""
        if self.mix:
            place = index % len(self.mix) if self.repeats else index
            return self.mix[place] if place < len(self.mix) else None
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
        Scenario("lottery", "lottery", "innocent: a lucky bag for who writes its phrase", "无辜场景：抽奖刷口令"),
        Scenario("celebrity", "celebrity", "innocent: a star brings a crowd", "无辜场景：明星来访带来人潮"),
        Scenario("organic_surge", "organic_surge", "innocent: the platform pushes the room", "无辜场景：平台推荐放量"),
        Scenario(
            "carrier_nat",
            "carrier_nat",
            "innocent: viewers behind a carrier's few addresses",
            "无辜场景：运营商共享出口",
        ),
        Scenario("campus", "campus", "innocent: students of one campus network", "无辜场景：同一校园网的学生"),
        Scenario(
            "view_bots_fixed", "view_bots_fixed", "view bots that come back to the second", "按固定间隔进出的机器人"
        ),
        Scenario("view_bots_random", "view_bots_random", "view bots that stay like people", "模仿真人停留的刷量机器人"),
        Scenario("device_farm", "device_farm", "ever new accounts on few devices", "少量设备不断换号"),
        Scenario("shared_address", "shared_address", "machines of one address block", "同一网段的机器"),
        Scenario("click_farm", "click_farm", "paid hands that click and never pay", "雇人点击，从不付款"),
        Scenario("incentive_hunters", "incentive_hunters", "people rewarded for a visit", "做任务领奖励的人"),
        Scenario("script_comments", "script_comments", "accounts that post fixed texts", "固定文案的脚本评论"),
        Scenario(
            "paraphrase_comments", "paraphrase_comments", "accounts that reword one message", "换着说法的脚本评论"
        ),
        Scenario("synced_phones", "synced_phones", "a rack of phones that one hand moves", "群控手机一起进出"),
        Scenario("idle_audience", "idle_audience", "hired accounts that hang in the room", "雇来挂机充人气的账号"),
        Scenario("complaint_price", "complaint_price", "complaints about prices", "集中抱怨价格"),
        Scenario("complaint_quality", "complaint_quality", "complaints about quality", "集中抱怨质量"),
        Scenario("complaint_logistics", "complaint_logistics", "complaints about delivery", "集中抱怨物流"),
        Scenario("complaint_host", "complaint_host", "complaints about the host", "集中抱怨主播"),
        Scenario("payment_failure", "payment_failure", "orders are made, paying fails", "下单照旧，付款失败"),
        Scenario("sold_out", "sold_out", "products on stage are out of stock", "讲解的商品断货"),
        Scenario("delisted", "delisted", "products are taken off the shelf", "商品被下架"),
        Scenario("price_rise", "price_rise", "prices rise, conversion falls", "涨价后转化下降"),
        Scenario("refund_wave", "refund_wave", "much of what was paid comes back", "大量已付款订单退款"),
        Scenario(
            "creative_fatigue",
            "creative_fatigue",
            "the same impressions bring fewer and dearer clicks",
            "曝光照旧，点击变少变贵",
        ),
        Scenario("targeting_drift", "targeting_drift", "the ad brings the wrong people", "广告带来错误的人群"),
        Scenario("content_slump", "content_slump", "the show bores, viewers leave soon", "内容乏味，观众很快离开"),
        Scenario(
            "delivery_stopped",
            "delivery_stopped",
            "the account's balance is out, no more ads",
            "账户余额不足，停止投放",
        ),
        Scenario("view_feed_dead", "view_feed_dead", "the feed of viewers falls silent", "观众数据中断"),
        Scenario("comment_feed_dead", "comment_feed_dead", "the comment feed falls silent", "评论数据中断"),
        Scenario(
            "spend_feed_dead",
            "spend_feed_dead",
            "the spend feed falls silent, money goes out",
            "消耗数据中断，花费照常",
        ),
        Scenario("tracking_outage", "tracking_outage", "orders lose their attribution", "订单丢失归因"),
        Scenario("orders_late", "orders_late", "order records come minutes late", "订单数据迟到"),
        Scenario("orders_lost", "orders_lost", "order records get lost", "订单数据丢失"),
        Scenario("absurd_orders", "absurd_orders", "orders nobody means, up to millions", "荒谬订单，最高数百万"),
        Scenario(
            "mixed",
            None,
            "ten rooms with six kinds of trouble and healthy ones between, all further rooms healthy",
            "前十个直播间含六种异常并夹杂健康直播间，其余全部健康",
            MIXED,
        ),
        Scenario(
            "traffic",
            None,
            "every family of invalid traffic, every innocent crowd and healthy rooms, in turn",
            "轮流出现：每一类无效流量、每一种无辜的人群、健康直播间",
            TRAFFIC,
            repeats=True,
        ),
        Scenario(
            "causes",
            None,
            "a trouble of each cause and healthy rooms, in turn",
            "轮流出现：每种原因的异常与健康直播间",
            CAUSES,
            repeats=True,
        ),
        Scenario(
            "returns",
            None,
            "what makes return hard to measure, and healthy rooms, in turn",
            "轮流出现：使回报难以衡量的异常与健康直播间",
            RETURNS,
            repeats=True,
        ),
    )
}


def scenario_named(name: str) -> Scenario:
    """Return the scenario; raise UnknownScenarioError that lists the known ones."""
    if name not in SCENARIOS:
        msg = f"scenario must be one of {', '.join(SCENARIOS)}, got {name!r}"
        raise UnknownScenarioError(msg)
    return SCENARIOS[name]
