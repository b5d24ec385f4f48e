"""Words that people read, in English and Chinese; topics carry codes only."""

from __future__ import annotations

from schemas.base import Lang


def pick(lang: Lang, en: str, zh: str) -> str:
    """Return the sentence in the reader's language."""
    return zh if lang == "zh" else en
