"""Bring a comment to the one spelling in which terms are looked up."""

import re
import unicodedata

# Characters that print nothing: people and bots put them between letters to slip past word lists. C0/C1 controls except
# white space, soft hyphen, zero-width and bidi marks, variation selectors, tag characters.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]+"
)
# Three of a small letter, four of anything else: shorter runs stay, and the commonest (哈哈哈, 666, ...) cost no call.
_RUN = re.compile(r"(.)\1\1(?:\1+|(?<=[a-z]))")
# Nearly every comment is made of characters that are visible, compose with nothing, have no other form under NFKC and
# no capital, and whose only white space is the blank; and of the few in `_PLAINLY`. Looking for a stranger costs a
# tenth of asking NFKC.
_STRANGE = re.compile("[^ -@\\[-~一-鿿、。“”\U0001f300-\U0001f64f\U0001f900-\U0001f9ff]").search
# NFKC makes up to eighteen characters of one (U+FDFA), and with them a comment twenty times as dear to read. What such
# a text has beyond a comment's greatest length, or its own where that is more, is left out.
_MOST_EXPANDED = 2_000
_PLAINLY = {"，": ",", "！": "!", "？": "?", "～": "~", "：": ":", "’": "'"}


def _cut(run: re.Match[str]) -> str:
    """Return a run of one character at its fixed length: words double a letter, laughter and numbers treble a sign."""
    char = run[1]
    return char * 2 if "a" <= char <= "z" else char * 3


def normalise(text: str) -> str:
    """Return ``text`` in NFKC and lower case, without invisible characters, with repeats cut to a fixed length.

    A Latin letter repeats at most twice ("goooood" is "good"), anything else three times ("哈哈哈哈哈" is "哈哈哈",
    "66666" is "666"), so that emphasis is one term and not thousands. Traditional characters stay as they are.
    The result is a fixed point: normalising twice changes nothing. Any string is accepted, lone surrogates too.

    >>> normalise("ＳＯＯＯＯ　好\u200b好！！！！！")
    'soo 好好!!!'
    """
    plain = text
    while stranger := _STRANGE(plain):
        char = stranger[0]
        if char in _PLAINLY:
            plain = plain.replace(char, _PLAINLY[char])
        elif "A" <= char <= "Z":
            plain = plain.lower()
        else:
            plain = _by_all_rules(text)
            break
    if " " in plain:
        plain = plain.strip(" ")
        if "  " in plain:
            plain = " ".join(plain.split())
    # Looking first: a substitution that finds nothing costs half as much again.
    return _RUN.sub(_cut, plain) if _RUN.search(plain) else plain


def _by_all_rules(text: str) -> str:
    """Return any text visible, in NFKC and lower case."""
    text = _INVISIBLE.sub("", text)
    if text.isascii():
        text = text.lower()
    else:
        # Invisible characters had to go first: a joiner between a letter and its accent hides a composition from NFKC.
        # Lower case comes between two compositions, because a capital can have a composed form where its small letter
        # has none, and the other way round.
        longest = max(len(text), _MOST_EXPANDED)
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text)[:longest].lower()).replace("’", "'")
        text = text[:longest]
    return " ".join(text.split())
