"""The rules that others published, as rows of tables: name, feature, comparison, threshold, reason, source.

A rule drops a document where `feature comparison threshold` is true; comparisons are as strict as the source's. Nothing
is computed here and no library is imported. docs/rules.md shows the tables, and a test that it shows what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from data_quality import fineweb2
from data_quality.filter_config import Comparison

Threshold = float | str | tuple[str, ...] | Mapping[str, float]
"""What a feature is compared with; a mapping holds one number for each language label."""


@dataclass(frozen=True)
class Rule:
    """One row: drop a document where `feature comparison threshold` is true, or where `expression` is."""

    name: str
    feature: str
    comparison: Comparison | None
    threshold: Threshold | None
    reason: str
    source: str
    expression: str | None = None

    @property
    def condition(self) -> str:
        """What is true of the documents it drops, for people."""
        if self.expression is not None:
            return self.expression
        if isinstance(self.threshold, Mapping):
            return f"{self.feature} {self.comparison} a threshold for each of {len(self.threshold)} languages"
        if isinstance(self.threshold, tuple):
            shown = ", ".join(self.threshold[:12]) + (", …" if len(self.threshold) > 12 else "")
            return f"{self.feature} {self.comparison} [{shown}]"
        number = f"{self.threshold:,g}" if isinstance(self.threshold, int | float) else repr(self.threshold)
        return f"{self.feature} {self.comparison} {number}"


Row = tuple[str, str, Comparison, Threshold, str]


def _rules(prefix: str, source: str, rows: tuple[Row, ...]) -> tuple[Rule, ...]:
    return tuple(
        Rule(f"{prefix}-{name}", feature, comparison, threshold, reason, source)
        for name, feature, comparison, threshold, reason in rows
    )


_N_GRAMS: tuple[Row, ...] = (
    *(
        (
            f"top-{n}-gram", f"top_{n}_gram_character_share", ">", share,
            f"over {share:.0%} of characters are one {n}-gram",
        )
        for n, share in ((2, 0.20), (3, 0.18), (4, 0.16))
    ),
    *(
        (
            f"duplicate-{n}-grams", f"duplicate_{n}_gram_character_share", ">", share,
            f"over {share:.0%} of characters are in repeated {n}-grams",
        )
        for n, share in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    ),
)  # fmt: skip

_QUALITY: tuple[Row, ...] = (
    ("too-few-words", "non_symbol_words", "<", 50, "fewer than 50 words"),
    ("too-many-words", "non_symbol_words", ">", 100_000, "more than 100,000 words"),
    ("short-words", "mean_word_length", "<", 3, "words of under 3 characters on average"),
    ("long-words", "mean_word_length", ">", 10, "words of over 10 characters on average"),
    ("hashes", "hash_ratio", ">", 0.1, "more than one # in ten words"),
    ("ellipses", "ellipsis_ratio", ">", 0.1, "more than one ellipsis in ten words"),
    ("bullet-lines", "bullet_line_share", ">", 0.9, "over 90% of lines start with a bullet"),
    ("ellipsis-lines", "ellipsis_line_share", ">", 0.3, "over 30% of lines end with an ellipsis"),
    ("alphabetic-words", "alphabetic_word_share", "<", 0.8, "under 80% of words have letters"),
    ("stop-words", "stop_words", "<", 2, "fewer than two different stop words"),
)

_LINES: Row = ("duplicate-lines", "duplicate_line_share", ">", 0.30, "over 30% of lines are repeats")
_LINE_CHARACTERS: Row = (
    "duplicate-line-characters", "duplicate_line_character_share", ">", 0.20,
    "over 20% of characters are in repeated lines",
)  # fmt: skip
_PARAGRAPHS: Row = (
    "duplicate-paragraphs", "duplicate_paragraph_share", ">", 0.30, "over 30% of paragraphs are repeats",
)  # fmt: skip
_PARAGRAPH_CHARACTERS: Row = (
    "duplicate-paragraph-characters", "duplicate_paragraph_character_share", ">", 0.20,
    "over 20% of characters are in repeated paragraphs",
)  # fmt: skip

_GOPHER_SOURCE = "Rae et al. 2021 (arXiv 2112.11446), appendix A1.1"
_GOPHER = _rules("gopher", f"{_GOPHER_SOURCE}, quality filtering", _QUALITY)
_REPETITION = _rules(
    "gopher",
    f"{_GOPHER_SOURCE}, repetition removal, table A1",
    (_LINES, _PARAGRAPHS, _LINE_CHARACTERS, _PARAGRAPH_CHARACTERS, *_N_GRAMS),
)

# datatrove looks at paragraphs first, at repetition before quality (as FineWeb runs them), and measures otherwise.
_DATATROVE = _rules(
    "datatrove",
    "datatrove v0.10.0, GopherRepetitionFilter and GopherQualityFilter, default settings",
    tuple(
        (name, f"datatrove_{feature}", comparison, threshold, reason)
        for name, feature, comparison, threshold, reason in (
            _PARAGRAPHS, _PARAGRAPH_CHARACTERS, _LINES, _LINE_CHARACTERS, *_N_GRAMS, *_QUALITY,
        )
    ),
)  # fmt: skip


def _c4(prefix: str, view: str, sentences: int, source: str) -> tuple[Rule, ...]:
    return _rules(
        prefix,
        source,
        (
            ("lorem-ipsum", f"{view}_lorem_ipsum", ">", 0, "holds “lorem ipsum”"),
            ("curly-brackets", f"{view}_curly_brackets", ">", 0, "holds a curly bracket, so it may be code"),
            ("few-sentences", f"{view}_sentences", "<", sentences, f"fewer than {sentences} sentences in good lines"),
        ),
    )  # fmt: skip


def _fineweb_quality(prefix: str, view: str) -> tuple[Rule, ...]:
    return _rules(
        prefix,
        "Penedo et al. 2024 (FineWeb, arXiv 2406.17557), section 3.6; strictness and defaults as datatrove v0.10.0",
        (
            ("end-marks", f"{view}line_punct_ratio", "<", 0.12, "under 12% of lines end with an end mark"),
            ("short-lines", f"{view}short_line_ratio", ">", 0.67, "over 67% of lines have at most 30 characters"),
            ("repeated-lines", f"{view}char_dup_ratio", ">", 0.01, "over 1% of characters are in repeated lines"),
            ("lists", f"{view}list_ratio", ">", 0.3, "more than three line feeds in ten words"),
        ),
    )


_FINEWEB_LANGUAGE = _rules(
    "fineweb",
    "Penedo et al. 2024 (FineWeb, arXiv 2406.17557), section 3.3; strictness as datatrove v0.10.0",
    (
        ("language", "language", "not in", ("en",), "not English"),
        ("language-score", "language_score", "<=", 0.65, "the language is not certain (at most 65%)"),
    ),
)


def _fineweb2() -> tuple[Rule, ...]:
    of = fineweb2.thresholds
    repetition: tuple[Row, ...] = (
        ("language-score", "language_score", "<", of("language_score"), "the language is not certain enough"),
        ("duplicate-lines", "duplicate_line_share", ">", of("dup_line_frac"), "too many lines are repeats"),
        *(
            (
                f"top-{n}-gram", f"top_{n}_gram_character_share", ">", of(f"top_{n}_gram"),
                f"too many characters are one {n}-gram",
            )
            for n in (2, 3, 4)
        ),
        *(
            (
                f"duplicate-{n}-grams", f"duplicate_{n}_gram_character_share", ">", of(f"dup_{n}_gram"),
                f"too many characters are in repeated {n}-grams",
            )
            for n in range(5, 11)
        ),
        ("end-marks", "line_punct_ratio", "<", of("line_punct_thr"), "too few lines end with an end mark"),
        ("repeated-lines", "char_dup_ratio", ">", 0.1, "over 10% of characters are in repeated lines"),
        ("lists", "list_ratio", ">", of("new_line_ratio"), "too many line feeds for its words"),
    )  # fmt: skip
    for_language: dict[str, Row] = {
        "short-words": ("short-words", "mean_word_length", "<", of("min_avg_word_length"), "words are too short"),
        "long-words": ("long-words", "mean_word_length", ">", of("max_avg_word_length"), "words are too long"),
        "alphabetic-words": (
            "alphabetic-words", "alphabetic_word_share", "<", of("max_non_alpha_words_ratio"),
            "too few words have letters",
        ),
        "stop-words": (
            "stop-words", "language_stop_words", "<", 2, "fewer than two different stop words of its language"
        ),
    }  # fmt: skip
    quality = tuple(for_language.get(row[0], row) for row in _QUALITY)
    return _rules(
        "fineweb-2",
        "Penedo et al. 2025 (FineWeb2, arXiv 2506.20920), thresholds of huggingface/fineweb-2 at d0defb2",
        (*repetition, *quality),
    )


_CODE = _rules(
    "code",
    "Chen et al. 2021 (Codex, arXiv 2107.03374), section 3.1; the share of 25% as in CodeParrot and StarCoder",
    (
        ("long-lines", "max_line_length", ">", 1000, "a line of more than 1,000 characters"),
        ("long-lines-on-average", "mean_line_length", ">", 100, "lines of over 100 characters on average"),
        ("alphanumeric", "alphanumeric_share", "<", 0.25, "under 25% of characters are letters or numbers"),
        ("autogenerated", "autogenerated", ">", 0, "says of itself that a program wrote it"),
    ),
)

_LICENCE_PERMISSIVE = _rules(
    "licence-permissive",
    "Gristmill; classes as in data_quality/rights.py",
    (
        (
            "unclear", "licence_class", "not in", ("public-domain", "permissive"),
            "no licence is stated that asks for no more than attribution",
        ),
    ),
)  # fmt: skip

_RESPECT_OPT_OUT = _rules(
    "respect-opt-out",
    "robots directives noai and noml; TDM Reservation Protocol (W3C community group, 2024), section 5",
    (("opted-out", "ai_opt_out", "==", 1, "its publisher opts out of training"),),
)

PRESETS: dict[str, tuple[Rule, ...]] = {
    "none": (),
    "gopher": _GOPHER,
    "gopher-repetition": _REPETITION,
    "c4": _c4("c4", "c4", 3, "Raffel et al. 2020 (C4), section 2.2, as TensorFlow Datasets' text/c4_utils.py made it"),
    "c4-datatrove": _c4("c4-datatrove", "c4_datatrove", 5, "datatrove v0.10.0, C4QualityFilter, default settings"),
    "fineweb": (
        *_FINEWEB_LANGUAGE,
        *_REPETITION,
        *_GOPHER,
        *_c4("fineweb", "fineweb", 5, "datatrove v0.10.0, C4QualityFilter(filter_no_terminal_punct=False) of FineWeb"),
        *_fineweb_quality("fineweb", "fineweb_"),
    ),
    "fineweb-quality": _fineweb_quality("fineweb-quality", ""),
    "fineweb-2": _fineweb2(),
    "code": _CODE,
    "datatrove": _DATATROVE,
    "licence-permissive": _LICENCE_PERMISSIVE,
    "respect-opt-out": _RESPECT_OPT_OUT,
}  # fmt: skip
"""Every preset's rules in the order in which they give their reason."""

KNOWN: dict[str, Rule] = {rule.name: rule for rules in PRESETS.values() for rule in rules}
"""Every rule of every preset by its name; the same name is the same rule everywhere."""
