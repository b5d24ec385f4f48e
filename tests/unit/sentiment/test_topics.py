"""What a comment is about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sentiment import TOPICS, topics


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("太贵了", ("price",)),
        ("这是智商税吧", ("price",)),
        ("way too expensive", ("price",)),
        ("衣服起球还掉色", ("quality",)),
        ("the zipper broke, poor quality", ("quality",)),
        ("还不发货，物流太慢", ("logistics",)),
        ("shipping took a month", ("logistics",)),
        ("主播态度好差", ("host",)),
        ("the host is rude", ("host",)),
        ("卡了，没声音", ("tech",)),
        ("链接打不开", ("tech",)),
        ("stream is lagging", ("tech",)),
        ("假货吧", ("authenticity",)),
        ("是正品吗", ("authenticity",)),
        ("is it real or fake?", ("authenticity",)),
        ("又贵又卡，还是假货", ("price", "tech", "authenticity")),
        ("银行卡可以用", ()),
        ("我是贵州的", ()),
        ("晚上好", ()),
        ("hello", ()),
        ("", ()),
    ],
)
def test_topics_of_live_comments(text: str, named: tuple[str, ...]) -> None:
    assert topics(text) == named


@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_any_text_names_each_topic_at_most_once_in_their_order(text: str) -> None:
    named = topics(text)
    assert named == tuple(topic for topic in TOPICS if topic in named)
