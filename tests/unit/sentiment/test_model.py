"""For, against, or nothing to say."""

import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sentiment import Entry, Sentiment, SentimentModel, default_model
from pipeline.sentiment.model import read_lexicon

ABSTAIN_BELOW = 500

FOR = """
主播人真好|质量很好，下次还会来|好用，已经回购三次了|yyds|绝绝子|太香了，买它|爱了爱了|性价比超高，闭眼入|不贵，很值
没有失望|发货快，包装严实|被种草了|666|awsl|没毛病老铁|不错不错|这也太好看了吧|没有异味|不是不好看|主播讲得很清楚|衣服不掉色
good quality, love it|not bad at all|never disappointed|super fast shipping, thank you|this is amazing 😍|👍👍👍
great price and worth it|I can't say how much I love it|won't regret it, great value|🥰|之前觉得贵，但是真的好用
""".replace("\n", "|").strip("|")

AGAINST = """
假货，大家别买|是骗子，退钱|智商税|太卡了没声音|链接打不开|主播下头|又翻车了|避雷|已拔草|还不发货|怎么这么卡|为什么这么慢？
太贵了，不值|质量一般，不推荐|不好用|不太好看|衣服掉色还起球|客服不理人|垃\u200b圾|差评|一点都不好吃
not worth the money|I don't like it|fake product, scam|the stream is lagging|never again|it broke after two days 😡
isn't great|worst purchase ever|waste of money|no sound|not good|ＴＲＡＳＨ|👎|💔
""".replace("\n", "|").strip("|")

NOTHING_TO_SAY = """
多少钱|这个多少钱？|是正品吗|质量好吗？|怎么买|有没有优惠|好用吗|真的好看？|什么时候发货|贵不贵|卡不卡|好看不好看|会不会掉色
能便宜点吗|how much is it?|is this good?|is it fake?|does it fit true to size?|can you show size M?
大家好|主播好|晚上好|扣1|来了来了|哈哈哈哈哈|2333|hello everyone|1号链接|好的|先看看|100|。。。|??|🎵🐙🎵🐙
加微信领福利，质量好|兼职日结加我微信|check my profile, great deals|衣服不错，就是有点贵
""".replace("\n", "|").strip("|")


@pytest.mark.parametrize("text", FOR.split("|"))
def test_praise_is_for(text: str) -> None:
    score_milli, confidence_milli = default_model().score(text)
    assert score_milli > 0
    assert confidence_milli >= ABSTAIN_BELOW


@pytest.mark.parametrize("text", AGAINST.split("|"))
def test_complaints_are_against(text: str) -> None:
    score_milli, confidence_milli = default_model().score(text)
    assert score_milli < 0
    assert confidence_milli >= ABSTAIN_BELOW


@pytest.mark.parametrize("text", NOTHING_TO_SAY.split("|"))
def test_questions_small_talk_spam_and_mixed_feelings_abstain(text: str) -> None:
    assert default_model().score(text).confidence_milli < ABSTAIN_BELOW


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u200b\ufeff", "\x00\x07"])
def test_blank_text_says_nothing(text: str) -> None:
    assert default_model().score(text) == Sentiment(0, 0)


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("难能可贵", 1),
        ("主播真是才华横溢", 1),
        ("满腹狐疑", -1),
        ("简直乌烟瘴气", -1),
        ("这人很龌龊", -1),
        ("一点也不温柔", -1),
    ],
)
def test_idioms_and_words_for_people_are_opinions_and_turn_round(text: str, sign: int) -> None:
    score, _ = default_model().score(text)
    assert score * sign > 0


PRAISE_ZH = [
    term
    for term, entry in read_lexicon().items()
    if entry.kind == "word" and entry.weight >= 2 and not term.isascii() and "不" not in term and "没" not in term
]


@pytest.mark.parametrize("negator", ["不", "没有", "不太"])
def test_a_negator_before_praise_never_raises_the_score(negator: str) -> None:
    score = default_model().score
    raised = [term for term in PRAISE_ZH if score(negator + term).score_milli > score(term).score_milli]
    assert raised == []


@given(
    st.sampled_from(["good", "great", "helpful", "comfortable", "delicious", "worth it"]),
    st.sampled_from(["not", "never"]),
)
def test_english_negation_turns_praise_round(praise: str, negator: str) -> None:
    score = default_model().score
    assert score(f"it is {negator} {praise}").score_milli < 0 < score(f"it is {praise}").score_milli


def test_negation_ends_with_its_clause() -> None:
    score = default_model().score
    assert score("不，很好看") == score("不 很好看")
    assert score("不，很好看").score_milli > 0


def test_emphasis_strengthens_the_word_right_after_it() -> None:
    plain = SentimentModel(
        {"甜": Entry("word", 4), "很": Entry("more", 0), "very": Entry("more", 0), "sweet": Entry("word", 4)}
    )
    assert plain.score("很甜").score_milli > plain.score("甜").score_milli
    assert plain.score("very sweet").score_milli > plain.score("sweet").score_milli
    assert plain.score("很多人说甜") == plain.score("甜")


def test_what_follows_but_outweighs_what_came_before() -> None:
    model = SentimentModel({"美": Entry("word", 4), "慢": Entry("word", -4), "但": Entry("but", 0)})
    assert model.score("美但慢").score_milli < 0 < model.score("慢但美").score_milli
    assert default_model().score("看着不错，但是质量太差").score_milli < 0  # a lean, too mixed to be an opinion


def test_repeating_a_term_says_it_once() -> None:
    lexicon = SentimentModel(read_lexicon())
    assert lexicon.score("垃圾垃圾垃圾垃圾垃圾") == lexicon.score("垃圾")


def test_hints_alone_never_make_an_opinion() -> None:
    model = SentimentModel({"才": Entry("word", -1)})
    assert model.score("才。" * 50) == Sentiment(-943, 0)


any_text = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=300),
    st.lists(st.sampled_from([*read_lexicon(), ",", "?", " ", "。"]), max_size=40).map("".join),
)


@given(any_text)
def test_any_text_gets_bounded_integers_and_the_same_ones_again(text: str) -> None:
    score_milli, confidence_milli = default_model().score(text)
    assert type(score_milli) is int and -1000 <= score_milli <= 1000
    assert type(confidence_milli) is int and 0 <= confidence_milli <= 1000
    assert score_milli != 0 or confidence_milli == 0
    assert default_model().score(text) == (score_milli, confidence_milli)


def _n_steps(text: str) -> int:
    """Return how many lines of Python and calls of C functions scoring a text takes: its cost, on any machine."""
    score = default_model().score
    n_steps = 0

    def count_calls(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal n_steps
        n_steps += event == "c_call"

    def count_lines(_frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal n_steps
        n_steps += event == "line"
        return count_lines

    before, traced_before = sys.getprofile(), sys.gettrace()
    sys.setprofile(count_calls)
    sys.settrace(count_lines)
    try:
        score(text)
    finally:
        sys.settrace(traced_before)
        sys.setprofile(before)
    return n_steps


@pytest.mark.parametrize(
    "unit", ["不", "好", "不好", "好,", "怎么这么", "很不太", "not ", "a ", "tha", "?", "贵不", "😡", "\ud800", "\x00"]
)
def test_work_grows_no_faster_than_the_text(unit: str) -> None:
    short, long = (unit * (size // len(unit)) for size in (1_000, 2_000))
    assert _n_steps(long) <= 2 * _n_steps(short) + 40
    assert _n_steps(long) <= 40 * 2_000
