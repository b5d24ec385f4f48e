"""Bring a comment to the one spelling in which terms are looked up."""

import re
import unicodedata

# Characters that print nothing: people and bots put them between letters to slip past word lists. C0/C1 controls except
# white space, soft hyphen, zero-width and bidi marks, variation selectors, tag characters.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]+"
)
_RUN = re.compile(r"(.)\1\1+")


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
    text = _INVISIBLE.sub("", text)
    if text.isascii():
        text = text.lower()
    else:
        # Invisible characters had to go first: a joiner between a letter and its accent hides a composition from NFKC.
        # Lower case comes between two compositions, because a capital can have a composed form where its small letter
        # has none, and the other way round.
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower()).replace("’", "'")
    return _RUN.sub(_cut, " ".join(text.split()))
