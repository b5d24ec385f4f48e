"""Words that people read, in English and Chinese; topics carry codes only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline import money
from schemas.base import Lang

Message = Mapping[str, Any]
"""A message of a topic, as decoded JSON."""

UNKNOWN_PART: Final = "?"
"""Stands for a parameter that the message does not have."""


def pick(lang: Lang, en: str, zh: str) -> str:
    """Return the sentence in the reader's language."""
    return zh if lang == "zh" else en


CAUSES: Final[dict[str, tuple[str, str]]] = {
    "ivt": ("bots or paid viewers", "机器人或刷量"),
    "creative": ("the creative wears out", "素材衰退"),
    "targeting": ("the wrong audience", "人群不准"),
    "content": ("what the host says or sells upsets viewers", "直播内容或商品引起不满"),
    "landing_page": ("the product page or link is broken", "商品页或链接故障"),
    "payment": ("payments fail", "支付故障"),
    "stock_price": ("stock or price", "库存或价格问题"),
    "auction_pressure": ("competitors bid more", "竞价压力上升"),
    "organic_surge": ("a wave of free traffic", "自然流量涌入"),
    "refund_wave": ("a wave of refunds", "退款潮"),
    "delivery_stopped": ("the plan does not deliver", "计划停投"),
    "tracking": ("a data feed is broken", "数据回传故障"),
    "unknown": ("cause not known", "原因不明"),
}
"""What `room.anomalies` names as the cause."""

METRICS: Final[dict[str, tuple[str, str]]] = {
    "ivt_ratio": ("invalid traffic {observed}, usually {expected}", "无效流量占比 {observed}，平时 {expected}"),
    "negative_ratio": ("negative opinions {observed}, usually {expected}", "负面评论占比 {observed}，平时 {expected}"),
    "order_ratio": (
        "orders a product click {observed}, usually {expected}",
        "商品点击下单率 {observed}，平时 {expected}",
    ),
    "ctr": ("click-through rate {observed}, usually {expected}", "点击率 {observed}，平时 {expected}"),
    "cpc_minor": ("a click costs {observed}, usually {expected}", "单次点击成本 {observed}，平时 {expected}"),
    "delivery": ("plan {plan_id} does not deliver: {status}", "计划 {plan_id} 未投放：{status}"),
    "n_shed": (
        "over {room_events_per_s} events/s: comments are counted unread, heartbeats not noted ({observed} so far)",
        "超过每秒 {room_events_per_s} 条事件：评论只计数不分析，心跳不逐人记录（已 {observed} 条）",
    ),
    "freshness_s": ("the {feed} feed is silent for {freshness_s} s", "{feed} 数据已中断 {freshness_s} 秒"),
}
"""What was seen, by `metric`; others are told by their name."""
_ANY_METRIC: Final = ("{metric} {observed}, usually {expected}", "{metric} {observed}，平时 {expected}")

REASONS: Final[dict[str, tuple[str, str]]] = {
    "return_above_target": (
        "return {roas_mature} is above the target {target_roas} (90 %: {roas_low}..{roas_high})",
        "成熟回报 {roas_mature} 高于目标 {target_roas}（90% 区间 {roas_low}..{roas_high}）",
    ),
    "return_below_target": (
        "return {roas_mature} is below the target {target_roas} (90 %: {roas_low}..{roas_high})",
        "成熟回报 {roas_mature} 低于目标 {target_roas}（90% 区间 {roas_low}..{roas_high}）",
    ),
    "emergency_cut": ("emergency cut: {cause}", "紧急降价：{cause}"),
    "override": ("set by {actor}", "由 {actor} 人工设定"),
    "kill_switch": ("the kill switch is on", "总开关已关停"),
    "excluded_window": ("this time is excluded from bidding", "该时段已排除出价"),
    "plan_unknown": ("the plan's knob has not been seen yet", "尚未收到该计划的出价信息"),
    "not_delivering": ("the plan is not delivering: {status}", "计划未在投放：{status}"),
    "stale_feed": ("data is not fresh: {feeds}", "数据不新鲜：{feeds}"),
    "no_target": ("the room has no target return", "未设目标回报"),
    "no_budget": ("the room has no budget", "未设预算"),
    "outcome_unknown": ("what became of the last command is not known", "上一条指令结果不明"),
    "open_command": ("the last command is not answered yet", "上一条指令尚未回执"),
    "session_limit": ("{max_per_session} changes in a session are enough", "本场调价已达 {max_per_session} 次上限"),
    "learning": ("the plan is still learning", "计划仍在学习期"),
    "little_data": ("too little to judge: {n_orders} orders", "数据太少：{n_orders} 单"),
    "immature": ("only {maturity} of the return has come in", "回报仅成熟 {maturity}"),
    "edits_left": ("the platform allows no more edits", "平台修改次数已用完"),
    "edit_gap": (
        "{since_s} s since the last change, the platform wants {min_edit_gap_s} s",
        "距上次修改 {since_s} 秒，平台要求 {min_edit_gap_s} 秒",
    ),
    "cooldown": ("the last change ({since_s} s ago) has to show first", "上次调整仅 {since_s} 秒前，先看效果"),
    "absurd_order": ("one order is over {factor} times the median", "有订单超过中位数 {factor} 倍"),
    "budget_spent": (
        "the budget is spent: {spent_minor} of {budget_minor}",
        "预算已花完：{spent_minor}/{budget_minor}",
    ),
    "hourly_limit": ("this hour's limit of change is reached", "已达每小时调幅上限"),
    "floor_cap": ("the bid is at its floor or cap", "出价已到上下限"),
    "smallest_step": ("the step would be under 1 %", "调整幅度不足 1%"),
    "unattended": (
        "nobody was at work when this happened: it came out of a backlog",
        "事件发生时无人处理：来自积压",
    ),
    "expired_at_birth": ("too late: it came out of a backlog", "积压所致，生成时已过期"),
    "alive": ("the pipeline is alive", "心跳正常"),
}
"""Why a command was given, or what held it back, by code."""

ACTIONS: Final[dict[str, tuple[str, str]]] = {
    "set_bid": ("bid", "出价"),
    "set_roi_goal": ("ROI goal", "ROI 目标"),
    "set_budget": ("budget", "预算"),
    "pause": ("pause", "暂停"),
    "resume": ("resume", "恢复"),
    "exclude_audience": ("exclude audience", "排除人群"),
    "block_source": ("block source", "屏蔽来源"),
    "remove_creative": ("remove creative", "下线素材"),
    "hold": ("hold", "保持"),
    "rollback": ("roll back", "回滚"),
    "heartbeat": ("heartbeat", "心跳"),
}

MODES: Final[dict[str, tuple[str, str]]] = {
    "off": ("off", "关闭"),
    "shadow": ("shadow", "影子"),
    "approve": ("approve", "审批"),
    "auto": ("auto", "自动"),
}

STATUSES: Final[dict[str, tuple[str, str]]] = {
    "issued": ("issued", "已下发"),
    "pending_approval": ("waits for approval", "待审批"),
    "approved": ("approved", "已批准"),
    "suppressed": ("suppressed", "已抑制"),
    "accepted": ("accepted", "已接收"),
    "applied": ("applied", "已生效"),
    "rejected": ("rejected", "被拒绝"),
    "failed": ("failed", "失败"),
    "expired": ("expired", "已过期"),
    "noop": ("no change", "无变化"),
    "unknown": ("outcome unknown", "结果不明"),
    "open": ("open", "新"),
    "update": ("goes on", "持续"),
    "acked": ("taken on", "已认领"),
    "resolved": ("over", "已恢复"),
}
"""Of commands, of a controller's answers, of anomalies."""


class _Parts(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return UNKNOWN_PART


def of(table: Mapping[str, tuple[str, str]], code: str, lang: Lang) -> str:
    """Return a code's words; a code of a newer version is shown as it is."""
    words = table.get(code)
    return code if words is None else pick(lang, *words)


def amount(minor: float | None, currency: str | None = None) -> str:
    """Return money in major units, without its currency.

    >>> amount(123456, "CNY"), amount(123456, "JPY"), amount(None)
    ('1,234.56', '123,456', '?')
    """
    if minor is None:
        return UNKNOWN_PART
    places = money.EXPONENTS.get(currency or "", 2)
    return f"{minor / 10**places:,.{places}f}"


def share(ratio: float | None) -> str:
    """Return a fraction as people say it.

    >>> share(0.384), share(0.0125), share(None)
    ('38%', '1.2%', '?')
    """
    if ratio is None:
        return UNKNOWN_PART
    percent = ratio * 100
    return f"{percent:.0f}%" if abs(percent) >= 10 or percent == 0 else f"{percent:.1f}%"


def anomaly_words(anomaly: Message, lang: Lang, currency: str | None = None) -> str:
    """Return what was seen in a room and what it looks like; whose room and how grave is beside it."""
    metric = str(anomaly["metric"])
    parts = _parts(anomaly.get("params") or {}, lang, currency)
    parts["metric"] = metric
    for name in ("observed", "expected"):
        value = anomaly.get(name)
        if metric.endswith("_minor"):
            parts[name] = amount(value, currency)
        elif metric.endswith("_ratio") or metric == "ctr":
            parts[name] = share(value)
        else:
            parts[name] = UNKNOWN_PART if value is None else f"{value:g}"
    seen = pick(lang, *METRICS.get(metric, _ANY_METRIC)).format_map(parts)
    cause = of(CAUSES, str(anomaly.get("cause")), lang)
    return pick(lang, f"{seen}: {cause}", f"{seen}；{cause}")


def command_words(command: Message, lang: Lang) -> str:
    """Return what a command wants of a plan: the knob, from where to where."""
    action, currency = str(command["action"]), _currency(command)
    words = of(ACTIONS, action, lang)
    if command.get("value") is None:
        return words
    before, after = (_knob(command.get(name), currency) for name in ("prev_value", "value"))
    return f"{words} {before} → {after}"


def reason_words(command: Message, lang: Lang) -> str:
    """Return why a command was given, and what clipped or blocked it."""
    reason, currency = command.get("reason") or {}, _currency(command)
    code = str(reason.get("code"))
    words = of(REASONS, code, lang).format_map(_parts(reason.get("params") or {}, lang, currency))
    limits = [
        of(REASONS, str(guardrail["name"]), lang).format_map(_parts(guardrail.get("params") or {}, lang, currency))
        for guardrail in command.get("guardrails") or []
        if guardrail["name"] != code
    ]
    if not limits:
        return words
    return pick(lang, f"{words}; limited: {', '.join(limits)}", f"{words}；受限：{'，'.join(limits)}")


def _currency(command: Message) -> str | None:
    unit = command.get("unit")
    return unit.partition(":")[2] if isinstance(unit, str) and unit.startswith("minor:") else None


def _knob(value: Any, currency: str | None) -> str:
    """Return a bid as money; a goal is decimal text already, of which two places matter to a reader."""
    if isinstance(value, int):
        return amount(value, currency)
    return UNKNOWN_PART if value is None else f"{float(value):.2f}"


def _parts(params: Message, lang: Lang, currency: str | None) -> _Parts:
    return _Parts({name: _part(name, value, lang, currency) for name, value in params.items()})


def _part(name: str, value: Any, lang: Lang, currency: str | None) -> str:
    if value is None:
        return UNKNOWN_PART
    if name == "cause":
        return of(CAUSES, str(value), lang)
    if name == "feeds":
        return ", ".join(f"{feed} {state}" for feed, state in sorted(value.items()))
    if name.endswith("_minor"):
        return amount(value, currency)
    if name.endswith("_ratio") or name in ("maturity", "needed"):
        return share(value)
    if isinstance(value, float):
        return f"{value:.2f}"
    return str(value)
