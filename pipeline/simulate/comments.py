"""What people write: texts of our own by topic and feeling, varied so that no honest crowd repeats itself."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from pipeline.simulate.dice import Dice
from pipeline.simulate.parameters import Parameters

Topic = Literal["price", "quality", "logistics", "host", "tech", "authenticity"]
Feeling = Literal["negative", "positive", "neutral", "chatter", "script"]
Lines = tuple[str, ...]
TOPICS: Final[tuple[Topic, ...]] = ("price", "quality", "logistics", "host", "tech", "authenticity")

NEGATIVE_ZH: Final[dict[Topic, Lines]] = {
    "price": (
        "太贵了根本买不起",
        "昨天买的今天就降价，亏死了",
        "价格比别家贵一倍",
        "先涨价再打折，套路太深",
        "说好的优惠券用不了，骗人",
        "不值这个价，太坑了",
        "运费还要自己出，太黑了",
    ),
    "quality": (
        "质量太差了，穿一次就破",
        "掉色严重，垃圾",
        "起球太厉害，根本没法穿",
        "做工粗糙，线头一大堆",
        "用两天就坏了，退货",
        "味道刺鼻，不敢用",
        "跟描述完全不一样，太失望了",
    ),
    "logistics": (
        "下单一个星期还没发货",
        "快递太慢了，等了十天",
        "包装都烂了，东西摔坏了",
        "物流一直不动，急死人",
        "发错货了还不给换",
        "少发了一件，客服不理人",
        "催了三次都不发货，差评",
    ),
    "host": (
        "主播态度太差了",
        "主播一直骂人，取关了",
        "问了半天都不理人",
        "主播说话太快，烦死了",
        "磨磨蹭蹭不上链接，浪费时间",
        "主播不懂产品，乱讲一通",
        "吵死了，能不能别喊了",
    ),
    "tech": (
        "一直卡，画面都不动了",
        "没有声音，听不见",
        "链接点不开，怎么买",
        "付不了款，一直报错",
        "页面一直转圈进不去",
        "直播间又黑屏了，烦死",
        "购物车打不开，气死了",
    ),
    "authenticity": (
        "假货，别买",
        "收到的根本不是正品",
        "骗子直播间，举报了",
        "专柜验过了，是假的",
        "虚假宣传，打电话投诉",
        "评论都是托，别信",
        "防伪码查不到，假的吧，退钱",
    ),
}
NEGATIVE_EN: Final[dict[Topic, Lines]] = {
    "price": ("way too expensive", "cheaper everywhere else, rip-off", "the coupon does not work, so annoying"),
    "quality": ("fell apart after one wash, terrible", "poor quality, want a refund", "looks cheap and smells bad"),
    "logistics": ("still not shipped after a week", "parcel arrived broken", "worst delivery ever"),
    "host": ("the host is so rude", "stop shouting, it is annoying", "host ignores every question"),
    "tech": ("the stream keeps freezing", "no sound again, hopeless", "checkout is broken, cannot pay"),
    "authenticity": ("these are fake, do not buy", "total scam", "got a counterfeit, reporting this"),
}
POSITIVE_ZH: Final[dict[Topic, Lines]] = {
    "price": ("这个价格真的划算", "比上次还便宜，开心", "太值了，买了两件", "优惠力度真大，谢谢主播"),
    "quality": ("质量很好，回购第三次了", "面料很舒服，喜欢", "上身效果好看", "做工精致，满意", "用了一个月，效果不错"),
    "logistics": ("昨天下单今天就到了，好快", "包装很用心，喜欢", "发货速度快，赞", "快递小哥很好，五星"),
    "host": ("主播讲得很清楚", "主播真好看，声音也好听", "喜欢主播，真诚", "主播太专业了，支持", "主播好可爱，爱了"),
    "tech": ("画面好清晰", "今天很流畅，不错", "一点就付好了，方便"),
    "authenticity": ("是正品，放心买", "专柜同款，验过了很放心", "老粉了，一直信得过"),
}
POSITIVE_EN: Final[dict[Topic, Lines]] = {
    "price": ("great price, love it", "best deal today"),
    "quality": ("really good quality", "so comfortable, bought it again"),
    "logistics": ("arrived the next day, amazing", "fast shipping, thank you"),
    "host": ("love the host", "so clear and helpful, thanks"),
    "tech": ("picture is great today", "checkout was quick and easy"),
    "authenticity": ("genuine, checked it myself", "trusted shop, always happy"),
}
NEUTRAL_ZH: Final[Lines] = (
    "{link}号链接还有吗",
    "身高{height}穿什么码",
    "{weight}斤穿多大",
    "有黑色的吗",
    "什么时候发货",
    "可以退换吗",
    "包邮吗",
    "{link}号讲一下",
    "这个是什么材质",
    "有运费险吗",
    "几天能到{city}",
    "孕妇能用吗",
    "还有库存吗",
    "小个子能穿吗",
    "上一件怎么没有了",
    "刚来，现在讲的是几号",
    "怎么领券",
    "保质期多久",
    "能开发票吗",
    "M码和L码差多少",
)
NEUTRAL_EN: Final[Lines] = (
    "what size for {height}cm?",
    "is link {link} still there?",
    "do you ship to {city}?",
    "which fabric is it?",
    "any other colours?",
    "how do I get the coupon?",
)
CHATTER: Final[Lines] = (
    "扣1",
    "1",
    "666",
    "111",
    "来了来了",
    "哈哈哈",
    "晚上好",
    "主播好",
    "已拍",
    "蹲一个",
    "冲",
    "路过",
    "打卡",
    "第一次来",
    "老粉来了",
    "点点赞",
    "gogo",
    "hi",
    "hello everyone",
    "想要",
    "上链接",
    "三二一",
    "送福袋吗",
    "抽奖",
    "家人们好",
    "👍",
    "❤️",
    "嗯嗯",
    "好的",
    "拍了",
)
ECHO: Final[Lines] = ("扣1", "1", "1", "11", "111", "666", "扣 1")
SCRIPT: Final[Lines] = (
    "主播家的货我回购三次了姐妹们放心冲",
    "刚刚抢到两件真的太划算了大家快下单",
    "朋友推荐来的果然没有失望必须支持主播",
    "加我领内部优惠券先到先得名额不多",
    "这个直播间良心推荐全网最低价闭眼入",
    "手慢无家人们赶紧拍我已经下单五件了",
    "关注主播不迷路每天福利送不停",
    "点我头像进群领红包今天最后一天",
)
LOTTERY: Final[Lines] = (
    "主播家的好货天天有我要抽大奖",
    "祝直播间生意兴隆福袋给我",
    "关注主播好运连连抽我抽我",
)
TASK: Final[Lines] = ("打卡", "签到", "任务打卡", "来做任务", "领金币", "看完了", "打卡领红包")
CITIES: Final[Lines] = ("上海", "成都", "沈阳", "乌鲁木齐", "海口", "哈尔滨", "西安", "拉萨")
CITIES_EN: Final[Lines] = ("Shanghai", "Chengdu", "Xi'an", "Harbin", "Haikou")
_OPENERS_NEGATIVE: Final[Lines] = (
    "",
    "",
    "",
    "真的，",
    "说实话，",
    "服了，",
    "唉，",
    "讲真，",
    "有一说一，",
    "我就想问，",
)
_OPENERS_POSITIVE: Final[Lines] = ("", "", "", "真的，", "姐妹们，", "家人们，", "说实话，", "嗯，")
_TAILS_NEGATIVE: Final[Lines] = ("", "", "！", "！！", "。", "……", "，无语", "，真失望", "😡", "，你们也是吗", "，生气")
_TAILS_POSITIVE: Final[Lines] = ("", "", "！", "～", "。", "，爱了", "👍", "😍", "，支持", "，推荐")
_OPENERS_EN: Final[Lines] = ("", "", "", "honestly, ", "well, ", "guys, ", "ok ", "hm, ")
_TAILS_NEGATIVE_EN: Final[Lines] = ("", "", "!", "!!", "...", " 😡", ", not happy", ", seriously")
_TAILS_POSITIVE_EN: Final[Lines] = ("", "", "!", "!!", " 👍", " 😍", ", recommend", " :)")


class Said(NamedTuple):
    """A comment and what it means."""

    text: str
    feeling: Feeling
    topic: Topic | None = None


def negative(topic: Topic, dice: Dice, *, english: bool) -> str:
    """Return a complaint about `topic`; some 800 different ones a topic, so that a crowd is no script."""
    if english:
        return dice.choice(_OPENERS_EN) + dice.choice(NEGATIVE_EN[topic]) + dice.choice(_TAILS_NEGATIVE_EN)
    return dice.choice(_OPENERS_NEGATIVE) + dice.choice(NEGATIVE_ZH[topic]) + dice.choice(_TAILS_NEGATIVE)


def positive(topic: Topic, dice: Dice, *, english: bool) -> str:
    """Return praise."""
    if english:
        return dice.choice(_OPENERS_EN) + dice.choice(POSITIVE_EN[topic]) + dice.choice(_TAILS_POSITIVE_EN)
    return dice.choice(_OPENERS_POSITIVE) + dice.choice(POSITIVE_ZH[topic]) + dice.choice(_TAILS_POSITIVE)


def neutral(dice: Dice, *, english: bool) -> str:
    """Return a question: no opinion."""
    text = dice.choice(NEUTRAL_EN if english else NEUTRAL_ZH)
    if "{" not in text:
        return text
    return text.format(
        link=dice.between(1, 12),
        height=dice.between(150, 185),
        weight=dice.between(85, 180),
        city=dice.choice(CITIES_EN if english else CITIES),
    )


def ordinary(dice: Dice, parameters: Parameters) -> Said:
    """Return what a viewer of a healthy room writes."""
    u = dice.uniform()
    english = dice.chance(parameters.english_ratio)
    if u < parameters.positive_ratio:
        topic = dice.choice(TOPICS)
        return Said(positive(topic, dice, english=english), "positive", topic)
    u -= parameters.positive_ratio
    if u < parameters.neutral_ratio:
        return Said(neutral(dice, english=english), "neutral")
    if u - parameters.neutral_ratio < parameters.negative_ratio:
        topic = dice.choice(TOPICS)
        return Said(negative(topic, dice, english=english), "negative", topic)
    return Said(dice.choice(CHATTER), "chatter")
