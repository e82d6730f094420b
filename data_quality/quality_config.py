"""The settings of `quality` and `decontaminate`: what is measured, what is compared.

Light on purpose: planning a run and drawing forms import nothing but this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from storage.settings import STRICT, setting

GOPHER_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""The eight words of Rae et al. 2021, appendix A1.1."""

C4Reading = Literal["c4", "c4-datatrove", "fineweb"]


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """What the `quality` stage measures. Any change here is a new scan of the text."""

    __pydantic_config__ = STRICT

    stop_words: tuple[str, ...] = setting(
        "Words counted by the feature stop_words (each once), compared without case and outer punctuation.",
        GOPHER_STOP_WORDS,
        max_length=1000,
    )
    identify_language: bool = setting("Whether to identify the language; if not, its features are null.", True)
    language_characters: int = setting(
        "Characters from the start of a document by which its language is judged.", 300, ge=20, le=100_000
    )
    language_stop_words: dict[str, tuple[str, ...]] | Literal["fineweb-2"] = setting(
        "Stop words by language label, counted by the feature language_stop_words in documents of that language; "
        "fineweb-2: its lists for 165 languages.",
        default_factory=dict,
    )
    short_line_characters: int = setting("Characters that a short line has at most (FineWeb).", 30, ge=1, le=100_000)
    measure_cut: bool = setting(
        "Whether to measure every text a second time with quality.cuts applied, as the features cut_NAME.", False
    )
    unigram_table: str = setting(
        "Where word frequencies for unigram_log_probability come from: empty, not measured; corpus, counted in the "
        "documents themselves (whenever they change, all are measured again); else a CSV or Parquet file of word and "
        "count, as the unigrams part of an earlier output.",
        "",
    )
    unigram_sample_bytes: int = setting(
        "unigram_table corpus: count in about this many bytes of text, chosen by document id.", 64 << 20, ge=1024
    )
    unigram_words: int = setting("unigram_table: the most frequent words are kept, so many.", 100_000, ge=1, le=10**7)
    datatrove_words: Literal["off", "attached", "separate"] = setting(
        "Whether to compute Gopher's features by datatrove's formulas too, on words between white space (attached) or "
        "with every mark of punctuation a word of its own (separate, nearest to spaCy's English words).",
        "off",
    )


@dataclass(frozen=True, kw_only=True)
class CutsConfig:
    """What is cut out of texts where they leave the house."""

    __pydantic_config__ = STRICT

    producers: tuple[Literal["policy-lines", "c4-lines"], ...] = setting(
        "Which passages are cut. policy-lines: lines on cookies, privacy and terms of use (C4, section 2.2). c4-lines: "
        "all lines that C4 removes (no end mark, few words, javascript, policies) and marks of citations; for English.",
        (),
    )
    c4_reading: C4Reading = setting(
        "c4-lines: c4, as TensorFlow Datasets' code that made C4; c4-datatrove, as datatrove's (' ends a line too, "
        "marks of citations count as words); fineweb: as datatrove's without the rule on end marks.",
        "c4",
    )
    c4_min_words: int | None = setting(
        "c4-lines: lines with fewer words are cut; null: 5 for c4, 3 for the others.", None, ge=0
    )


@dataclass(frozen=True, kw_only=True)
class DecontaminateConfig:
    """How documents are compared with evaluation sets. The sets themselves are an input of the stage."""

    __pydantic_config__ = STRICT

    ngram: int = setting("Words in the sequences that are compared.", 13, ge=2, le=100)
    shortest_item: int = setting(
        "Items of fewer words are ignored and counted: they would be found everywhere. "
        "Items between this and `ngram` words are matched whole.",
        5,
        ge=1,
        le=100,
    )
    minimum_overlap: float = setting(
        "Smallest share of an item's n-grams that is stored; must not exceed filter.contamination_overlap.",
        0.1,
        gt=0,
        le=1,
    )
    stock_phrase_items: int = setting(
        "An n-gram that stands in more evaluation items than this is a stock phrase: ignored and counted.",
        8,
        ge=1,
    )
