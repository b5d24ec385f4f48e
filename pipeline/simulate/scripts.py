"""What bots write: a few fixed texts, or templates whose words change at every use."""

from __future__ import annotations

from typing import Final

from pipeline.simulate.dice import Dice

_TEMPLATES: Final[tuple[tuple[tuple[str, ...], ...], ...]] = (
    (
        ("主播家", "这家", "他们家", "咱家", "这个直播间"),
        ("的货", "的东西", "的产品", "的衣服"),
        ("我已经", "我都", "本人", "我妈都", "闺蜜也"),
        ("回购三次了", "买了好几回了", "回购好多次", "入手第四件了"),
        ("放心冲", "闭眼入", "直接下单", "大胆买", "赶紧拍"),
    ),
    (
        ("刚刚", "刚才", "终于", "总算", "好不容易"),
        ("抢到", "拍到", "下单", "买到"),
        ("两件", "三件", "一单", "五件", "两份"),
        ("真的", "简直", "确实", "实在"),
        ("太划算了", "太值了", "便宜到家了", "跟白送一样"),
        ("大家快拍", "姐妹们冲", "手慢无", "别犹豫", ""),
    ),
    (
        ("朋友", "同事", "邻居", "表姐", "室友"),
        ("推荐来的", "介绍过来的", "安利我来的", "让我来看看"),
        ("果然", "真是", "确实", ""),
        ("没有失望", "没骗我", "名不虚传", "很靠谱"),
        ("支持主播", "关注了", "以后就认这家", "必须支持"),
    ),
    (
        ("加我", "点我头像", "看我主页", "私我", "戳我"),
        ("领", "拿", "换", "送你"),
        ("内部券", "优惠券", "红包", "福利"),
        ("先到先得", "名额不多", "最后一天", "今天截止", "手快有"),
    ),
    (
        ("关注主播", "点个关注", "跟着主播", "锁定直播间"),
        ("不迷路", "不吃亏", "有福利", "省大钱"),
        ("每天", "天天", "每晚", "场场"),
        ("福利送不停", "都有惊喜", "发红包", "抽大奖"),
    ),
)
_MARKS: Final = ("", "", "！", "!!", "~", "。", "👍", "❤️", "🔥", "，真的")


def paraphrase(dice: Dice) -> str:
    """Return one of some 10,000 texts that say one of five things.

    >>> paraphrase(Dice(1)) == paraphrase(Dice(1))
    True
    """
    return "".join(dice.choice(words) for words in dice.choice(_TEMPLATES)) + dice.choice(_MARKS)
