"""FineWeb-2's thresholds and stop words for each language, by the labels of our identifier: reads `fineweb2.tsv`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

_WORDS = "stopwords"


def thresholds(setting: str) -> dict[str, float]:
    """The numbers of one setting of FineWeb-2 (a column of the table) by language label."""
    return {language: float(row[setting]) for language, row in _table().items()}


def stop_words() -> dict[str, tuple[str, ...]]:
    """The stop words of every language, by label, in the order of the source."""
    return {language: tuple(dict.fromkeys(row[_WORDS].split())) for language, row in _table().items()}


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, str]]:
    text = Path(__file__).with_name("fineweb2.tsv").read_text(encoding="utf-8")
    header, *lines = [line.split("\t") for line in text.splitlines() if not line.startswith("# ")]
    return {line[0]: dict(zip(header, line, strict=True)) for line in lines}
