"""FineWeb-2's thresholds and stop words for each language, by the labels of our identifier: reads `fineweb2.tsv`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

OTHER_WORDS = ("ja", "km", "lo", "my", "th", "wuu", "yue", "zh")
"""Languages written without spaces: FineWeb-2's words are those of a segmenter, ours are letters (`words.py`), so its
numbers about words say nothing about ours."""

_LINES = ("language_score", "dup_line_frac", "line_punct_thr")
"""Settings that are not about words."""
_WORDS = "stopwords"


def thresholds(setting: str) -> dict[str, float]:
    """The numbers of one setting of FineWeb-2 (a column of the table) by language label; if it is about words, without
    OTHER_WORDS."""
    table = _table()
    return {language: float(row[setting]) for language, row in table.items() if _comparable(language, setting)}


def stop_words() -> dict[str, tuple[str, ...]]:
    """The stop words of every language but OTHER_WORDS, by label, in the order of the source."""
    return {
        language: tuple(dict.fromkeys(row[_WORDS].split()))
        for language, row in _table().items()
        if _comparable(language, _WORDS)
    }


def _comparable(language: str, setting: str) -> bool:
    return setting in _LINES or language not in OTHER_WORDS


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, str]]:
    text = Path(__file__).with_name("fineweb2.tsv").read_text(encoding="utf-8")
    header, *lines = [line.split("\t") for line in text.splitlines() if not line.startswith("# ")]
    return {line[0]: dict(zip(header, line, strict=True)) for line in lines}
