"""Everything the quality rules look at, measured once a document in compiled passes over the Arrow buffers.

Nothing is dropped here: thresholds stand in `rules.py`. What the features are stands in `feature_table.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_quality import fineweb2
from data_quality.buffers import character_kinds, string_buffers
from data_quality.feature_table import (
    CUT_PREFIX,
    DATATROVE_PREFIX,
    FEATURE_COLUMNS,
    FEATURE_SCHEMA,
    FEATURE_TYPES,
    FEATURES,
    KERNEL_FEATURES,
    Feature,
    feature_schema,
    how_to_measure,
)
from data_quality.language import identify
from data_quality.punctuation import mark_bits
from data_quality.quality_config import QualityConfig
from data_quality.unigrams import NO_UNIGRAMS, UnigramTable, fold, word_table
from data_quality.urls import url_features
from data_quality.words import fold_table, script_table

__all__ = (
    "FEATURES", "FEATURE_COLUMNS", "FEATURE_SCHEMA", "FEATURE_TYPES", "Feature", "compute_features", "feature_schema",
    "how_to_measure",
)  # fmt: skip

Counts = npt.NDArray[np.int64]


def compute_features(
    texts: pa.LargeStringArray,
    config: QualityConfig,
    *,
    urls: pa.Array | pa.ChunkedArray | None = None,
    cut_texts: pa.LargeStringArray | None = None,
    unigrams: UnigramTable | None = None,
) -> pa.Table:
    """Measure every document.

    Parameters
    ----------
    texts
        Documents, none null; a slice is fine.
    config
        What is measured besides, stop words, language settings.
    urls
        The documents' URLs (string), null where there is none; None if no document has one.
    cut_texts
        The documents with cuts applied, for `measure_cut`.
    unigrams
        The table for `unigram_table`.

    Returns
    -------
    pa.Table
        `feature_schema(config)` without the id, one row a text, in order.

    Raises
    ------
    ValueError
        If a text is null, or something is to be measured and what it needs is not given.
    """
    if config.measure_cut and cut_texts is None:
        raise ValueError("quality.features.measure_cut: there are no cuts; name them in quality.cuts.producers")
    if config.unigram_table and unigrams is None:
        raise ValueError("quality.features.unigram_table: the table was not given")
    if config.language_stop_words and not config.identify_language:
        raise ValueError("quality.features.language_stop_words: needs quality.features.identify_language")
    string_buffers(texts)  # refuses nulls before anything is computed
    columns: dict[str, Any] = {}
    if config.identify_language:
        columns["language"], columns["language_score"] = identify(texts, config.language_characters)
    else:
        columns["language"] = pa.nulls(len(texts), pa.string())
        columns["language_score"] = pa.nulls(len(texts), pa.float32())
    columns |= _text_features(texts, config, columns["language"], unigrams or NO_UNIGRAMS, whole=True)
    columns |= url_features(pa.nulls(len(texts), pa.string()) if urls is None else urls)
    if config.measure_cut and cut_texts is not None:
        cut = _text_features(cut_texts, config, None, NO_UNIGRAMS, whole=False)
        columns |= {CUT_PREFIX + feature.name: cut[feature.name] for feature in KERNEL_FEATURES}
    if config.datatrove_words != "off":
        columns |= _datatrove_features(texts, config, columns)
    schema = feature_schema(config).remove(0)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _text_features(
    texts: pa.LargeStringArray,
    config: QualityConfig,
    languages: pa.Array | None,
    unigrams: UnigramTable,
    *,
    whole: bool,
) -> dict[str, Any]:
    """The features of texts alone by name; if `whole`, those of C4's views and on request too."""
    from data_quality import coding_kernels, feature_kernels, line_kernels

    values, offsets = string_buffers(texts)
    kinds, marks, (scripts, script_names) = character_kinds(), mark_bits(), script_table()
    by_line = np.zeros((len(texts), line_kernels.COUNTS), dtype=np.int64)
    line_kernels.count_lines(values, offsets, kinds, marks, config.short_line_characters, whole, by_line)
    by_word = np.zeros((len(texts), feature_kernels.COUNTS), dtype=np.int64)
    logs = np.zeros(len(texts), dtype=np.float64)
    stop_keys, short_keys, short_stops, stop_number, labels = _stop_words(
        config.stop_words, tuple((label, words) for label, words in sorted(language_stop_words(config).items()))
    )
    lists = _list_numbers(languages, labels, len(texts))
    feature_kernels.count_words(
        values, offsets, kinds, fold_table(), scripts, stop_keys, short_keys, short_stops, stop_number, lists,
        unigrams.keys, unigrams.log_probabilities, unigrams.unknown, by_word, logs,
    )  # fmt: skip
    coded = np.zeros(len(texts), dtype=np.int64)
    coding_kernels.count_coded_bytes(values, offsets, coded)
    by_line, by_word = by_line.T.copy(), by_word.T.copy()  # columns are read one by one
    found = _by_line(by_line, by_word) | _by_word(by_word, by_line, script_names)
    found["bytes"] = np.diff(offsets)
    found["coded_ratio"] = _share(coded, found["bytes"])
    if whole:
        found |= _views(by_line)
        found["language_stop_words"] = pa.array(by_word[feature_kernels.LANGUAGE_STOP_WORDS], mask=lists == 0)
        found["unigram_log_probability"] = _share(logs, by_word[feature_kernels.NON_SYMBOL_WORDS])
    return found


def _share(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part), dtype=np.float64), where=whole > 0)


def _by_line(lines: Counts, words: Counts) -> dict[str, Any]:
    """What the pass over lines counts, and its ratios; int64[COUNTS, documents] both."""
    from data_quality import feature_kernels
    from data_quality import line_kernels as kernels

    def share(part: int, whole: int) -> npt.NDArray[np.float64]:
        return _share(lines[part], lines[whole])

    number = words[feature_kernels.WORDS]
    inside = lines[kernels.CHARACTERS] - lines[kernels.LINE_FEEDS]
    return {
        "characters": lines[kernels.CHARACTERS],
        "lines": lines[kernels.LINES],
        "paragraphs": lines[kernels.PARAGRAPHS],
        "hash_ratio": _share(lines[kernels.HASHES], number),
        "ellipsis_ratio": _share(lines[kernels.ELLIPSES], number),
        "bullet_line_share": share(kernels.BULLET_LINES, kernels.LINES),
        "ellipsis_line_share": share(kernels.ELLIPSIS_LINES, kernels.LINES),
        "duplicate_line_share": share(kernels.DUPLICATE_LINES, kernels.LINES),
        "duplicate_paragraph_share": share(kernels.DUPLICATE_PARAGRAPHS, kernels.PARAGRAPHS),
        "duplicate_line_character_share": share(kernels.DUPLICATE_LINE_CHARACTERS, kernels.CHARACTERS),
        "duplicate_paragraph_character_share": share(kernels.DUPLICATE_PARAGRAPH_CHARACTERS, kernels.CHARACTERS),
        "sentences": lines[kernels.SENTENCES],
        "third_longest_line": lines[kernels.THIRD_LINE],
        "lorem_ipsum": lines[kernels.LOREM_IPSUM],
        "curly_brackets": lines[kernels.CURLY_BRACKETS],
        "line_punct_ratio": share(kernels.MARKED_LINES, kernels.SOLID_LINES),
        "short_line_ratio": share(kernels.SHORT_LINES, kernels.SOLID_LINES),
        "char_dup_ratio": _share(lines[kernels.REPEATED_CHARACTERS], inside),
        "list_ratio": _share(lines[kernels.LINE_FEEDS], number),
        "mean_line_length": _share(inside, lines[kernels.ALL_LINES]),
        "max_line_length": lines[kernels.LONGEST_LINE],
        "autogenerated": lines[kernels.AUTOGENERATED],
    }


def _by_word(words: Counts, lines: Counts, script_names: tuple[str, ...]) -> dict[str, Any]:
    """What the pass over words counts, and its ratios."""
    from data_quality import feature_kernels as kernels
    from data_quality import line_kernels

    def share(part: int, whole: int) -> npt.NDArray[np.float64]:
        return _share(words[part], words[whole])

    characters = lines[line_kernels.CHARACTERS]
    scripts = words[kernels.SCRIPT]
    return {
        "words": words[kernels.WORDS],
        "non_symbol_words": words[kernels.NON_SYMBOL_WORDS],
        "mean_word_length": share(kernels.NON_SYMBOL_CHARACTERS, kernels.NON_SYMBOL_WORDS),
        "alphabetic_word_share": share(kernels.ALPHABETIC_WORDS, kernels.WORDS),
        "stop_words": words[kernels.STOP_WORDS],
        "max_word_length": words[kernels.LONGEST_WORD],
        **{
            f"top_{n}_gram_character_share": share(kernels.TOP_2_GRAM_CHARACTERS + n - 2, kernels.WORD_CHARACTERS)
            for n in (2, 3, 4)
        },
        **{
            f"duplicate_{n}_gram_character_share": share(
                kernels.DUPLICATE_5_GRAM_CHARACTERS + n - 5, kernels.WORD_CHARACTERS
            )
            for n in range(5, 11)
        },
        "alphanumeric_share": _share(words[kernels.LETTERS] + words[kernels.NUMBERS], characters),
        "alphabetic_share": _share(words[kernels.LETTERS], characters),
        "digit_share": _share(words[kernels.NUMBERS], characters),
        "white_space_share": _share(words[kernels.WHITE_SPACE], characters),
        "letters": words[kernels.LETTERS],
        "script": pa.array(script_names, pa.string()).take(pa.array(scripts, mask=scripts == 0)),
        "script_share": share(kernels.SCRIPT_LETTERS, kernels.SCRIPTED_LETTERS),
        "scripts": words[kernels.SCRIPTS],
    }


def _views(lines: Counts) -> dict[str, Any]:
    """What the lines come to that C4's rules leave."""
    from data_quality import line_kernels as kernels

    names = ("lines", "words", "bytes", "sentences", "lorem_ipsum", "curly_brackets", "third_longest_line")
    columns: dict[str, Any] = {
        prefix + name: lines[kernels.VIEW + kernels.VIEW_COUNTS * view + i]
        for view, prefix in enumerate(("c4_", "c4_datatrove_", "fineweb_"))
        for i, name in enumerate(names)
    }
    solid = lines[kernels.FINEWEB_SOLID_LINES]
    return columns | {
        "fineweb_line_punct_ratio": _share(lines[kernels.FINEWEB_MARKED_LINES], solid),
        "fineweb_short_line_ratio": _share(lines[kernels.FINEWEB_SHORT_LINES], solid),
        "fineweb_char_dup_ratio": _share(lines[kernels.FINEWEB_REPEATED_CHARACTERS], lines[kernels.FINEWEB_CHARACTERS]),
        "fineweb_list_ratio": _share(np.maximum(columns["fineweb_lines"] - 1, 0), lines[kernels.FINEWEB_WORDS]),
    }


def _datatrove_features(
    texts: pa.LargeStringArray, config: QualityConfig, measured: Mapping[str, Any]
) -> dict[str, npt.NDArray[Any]]:
    """datatrove's formulas; # and ellipses are those already counted."""
    from data_quality import datatrove_kernels as kernels

    values, offsets = string_buffers(texts)
    counts = np.zeros((len(texts), kernels.COUNTS), dtype=np.int64)
    kernels.count_as_datatrove(
        values, offsets, config.datatrove_words == "separate", character_kinds(), script_table()[0], mark_bits(),
        _exact_stop_words(config.stop_words), counts,
    )  # fmt: skip

    def share(part: int, whole: int) -> npt.NDArray[np.float64]:
        return _share(counts[:, part], counts[:, whole])

    def of_text(index: int) -> npt.NDArray[np.float64]:
        return _share(counts[:, index], measured["characters"])

    words = counts[:, kernels.WORDS]
    found = {
        "non_symbol_words": np.ascontiguousarray(counts[:, kernels.NON_SYMBOL_WORDS]),
        "mean_word_length": share(kernels.NON_SYMBOL_CHARACTERS, kernels.NON_SYMBOL_WORDS),
        "hash_ratio": _share(np.rint(measured["hash_ratio"] * measured["words"]), words),
        "ellipsis_ratio": _share(np.rint(measured["ellipsis_ratio"] * measured["words"]), words),
        "bullet_line_share": share(kernels.BULLET_LINES, kernels.ALL_LINES),
        "ellipsis_line_share": share(kernels.ELLIPSIS_LINES, kernels.ALL_LINES),
        "alphabetic_word_share": share(kernels.ALPHABETIC_WORDS, kernels.WORDS),
        "stop_words": np.ascontiguousarray(counts[:, kernels.STOP_WORDS]),
        "duplicate_line_share": share(kernels.DUPLICATE_PIECES, kernels.PIECES),
        "duplicate_paragraph_share": share(kernels.DUPLICATE_PARAGRAPHS, kernels.PARAGRAPHS),
        "duplicate_line_character_share": of_text(kernels.DUPLICATE_PIECE_CHARACTERS),
        "duplicate_paragraph_character_share": of_text(kernels.DUPLICATE_PARAGRAPH_CHARACTERS),
        **{f"top_{n}_gram_character_share": of_text(kernels.TOP_2_GRAM_CHARACTERS + n - 2) for n in (2, 3, 4)},
        **{
            f"duplicate_{n}_gram_character_share": of_text(kernels.DUPLICATE_5_GRAM_CHARACTERS + n - 5)
            for n in range(5, 11)
        },
    }
    return {DATATROVE_PREFIX + name: column for name, column in found.items()}


Lists = tuple[tuple[str, tuple[str, ...]], ...]


def language_stop_words(config: QualityConfig) -> Mapping[str, tuple[str, ...]]:
    """The lists that a configuration names, by language label."""
    given = config.language_stop_words
    return fineweb2.stop_words() if isinstance(given, str) else given


@lru_cache(maxsize=8)
def _stop_words(
    stop_words: tuple[str, ...], lists: Lists
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], Counts, int, tuple[str, ...]]:
    """The kernel's first four arguments on stop words (`count_words`); the labels of the lists from number 1."""
    from data_quality.feature_kernels import enter_short_words

    words = [
        (number, fold(word)) for number, (_, found) in enumerate((("", stop_words), *lists)) for word in found if word
    ]
    keys, places = word_table([word for _, word in words], [number for number, _ in words])
    common = {word: place for (number, word), place in zip(words, places, strict=True) if number == 0}
    short_keys, short_stops = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    if all(word.isascii() and word.isalpha() and len(word) <= 8 for word in common):
        as_numbers = np.array([int.from_bytes(word.encode(), "little") for word in common], np.uint64)
        for bits in range(6, 13):
            tried = np.zeros(1 << bits, np.uint64), np.zeros(1 << bits, np.int64)
            if enter_short_words(as_numbers, np.array(list(common.values()), np.int64), *tried):
                short_keys, short_stops = tried
                break
    return keys, short_keys, short_stops, len(common), tuple(label for label, _ in lists)


@lru_cache(maxsize=8)
def _exact_stop_words(stop_words: tuple[str, ...]) -> npt.NDArray[np.uint64]:
    words = [word for word in stop_words if word]
    return word_table(words, [0] * len(words))[0]


def _list_numbers(languages: pa.Array | None, labels: tuple[str, ...], documents: int) -> Counts:
    """The number of every document's own stop-word list, 0 if its language has none."""
    if languages is None or not labels:
        return np.zeros(documents, dtype=np.int64)
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    return np.array([numbers.get(label, 0) for label in languages.to_pylist()], dtype=np.int64)
