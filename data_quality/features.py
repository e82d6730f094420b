"""Everything the quality rules look at, measured once a document in one pass over the Arrow buffers.

Nothing is dropped here: thresholds stand in `rules.py`. Every feature is a row of FEATURES with its formula and source.

Terms, the same in every feature:

character
    A Unicode code point of the text as written.
word
    A maximal run of characters that are not white space, so with the punctuation that touches it ("stop," is one
    word), except that every letter of a script written without spaces (Han, Kana, Thai, Lao, Khmer, Myanmar; see
    `words.character_classes`) is a word of its own. White space includes control and format characters.
non-symbol word
    A word with at least one character that is not punctuation or a symbol.
line
    What stands between line feeds, without white space at its ends; a line of white space alone is none.
paragraph
    A maximal run of lines without an empty one between them, its lines joined by line feeds.
n-gram
    n consecutive words as written, across lines.
duplicate
    The second and every later occurrence; the first is none.

A share of nothing is 0: the empty text has 0 in every feature.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_quality.language import identify
from data_quality.quality_config import QualityConfig
from data_quality.words import OWN_WORD, WORD, character_classes, fold_table
from storage.schemas import ID_FIELD

_GOPHER = "Rae et al. 2021 (arXiv 2112.11446), appendix A1.1"
_OWN = "Gristmill"


@dataclass(frozen=True)
class Feature:
    """One column of the features file: its name, Arrow type, how it is computed, and whose idea it is."""

    name: str
    type: pa.DataType
    formula: str
    source: str


# Shares are float64, so that 3 of 10 lines is exactly what a threshold of 0.3 says.
_N_GRAM_NOTE = (
    "of the characters in words, each counted once however many occurrences cover it. (datatrove multiplies the "
    "length by the count and divides by the length of the text with spaces, which can exceed 1.)"
)

FEATURES: tuple[Feature, ...] = (
    Feature("bytes", pa.int64(), "UTF-8 bytes of the text", _OWN),
    Feature("characters", pa.int64(), "code points of the text", _OWN),
    Feature("lines", pa.int64(), "lines that are not empty", _OWN),
    Feature("paragraphs", pa.int64(), "paragraphs", _OWN),
    Feature("words", pa.int64(), "words, symbols alone included", _OWN),
    Feature(
        "non_symbol_words",
        pa.int64(),
        "non-symbol words: the word count of the length rule, as datatrove reads the paper",
        _GOPHER,
    ),
    Feature(
        "mean_word_length",
        pa.float64(),
        "characters of non-symbol words / non-symbol words; punctuation that touches a word counts",
        _GOPHER,
    ),
    Feature("hash_ratio", pa.float64(), "# characters / words", _GOPHER),
    Feature(
        "ellipsis_ratio",
        pa.float64(),
        "ellipses / words, where … is one and every three full stops in a row are one",
        _GOPHER,
    ),
    Feature(
        "bullet_line_share",
        pa.float64(),
        "lines that start with • or - / lines (the paper names no characters; these are datatrove's)",
        _GOPHER,
    ),
    Feature("ellipsis_line_share", pa.float64(), "lines that end with ... or … / lines", _GOPHER),
    Feature(
        "alphabetic_word_share",
        pa.float64(),
        "words with at least one letter or mark / words. (datatrove's English words are spaCy's, where "
        "punctuation marks are words without letters, so that it drops far more documents by this.)",
        _GOPHER,
    ),
    Feature(
        "stop_words",
        pa.int64(),
        "how many different words of the stop-word list occur, compared case-folded and without outer "
        "punctuation. (datatrove: case-sensitive, on spaCy's words.)",
        _GOPHER,
    ),
    Feature("duplicate_line_share", pa.float64(), "duplicate lines / lines", _GOPHER),
    Feature("duplicate_paragraph_share", pa.float64(), "duplicate paragraphs / paragraphs", _GOPHER),
    Feature(
        "duplicate_line_character_share",
        pa.float64(),
        "characters of duplicate lines / characters of the text",
        _GOPHER,
    ),
    Feature(
        "duplicate_paragraph_character_share",
        pa.float64(),
        "characters of duplicate paragraphs, line feeds inside them included / characters of the text",
        _GOPHER,
    ),
    *(
        Feature(
            f"top_{n}_gram_character_share",
            pa.float64(),
            f"share under the occurrences of the most frequent {n}-gram, {_N_GRAM_NOTE} Of equally frequent ones "
            "the one that occurs first; 0 if none occurs twice (datatrove lets a single one count)",
            _GOPHER,
        )
        for n in (2, 3, 4)
    ),
    *(
        Feature(
            f"duplicate_{n}_gram_character_share",
            pa.float64(),
            f"share under duplicate {n}-grams, {_N_GRAM_NOTE} (datatrove also jumps n words after a hit.)",
            _GOPHER,
        )
        for n in (5, 6, 7, 8, 9, 10)
    ),
    Feature("language", pa.string(), "label of `language.identify`, null if not identified", _OWN),
    Feature("language_score", pa.float32(), "probability of that label, null if not identified", _OWN),
)

FEATURE_COLUMNS = pa.schema([pa.field(feature.name, feature.type) for feature in FEATURES])
"""The columns of `compute_features`. Only language and language_score are ever null."""

FEATURE_SCHEMA = pa.schema([ID_FIELD, *FEATURE_COLUMNS])
"""The features file: one row a document, in the order of its part."""

LETTER = 4
"""The bit that `character_kinds` adds to the class of letters and marks."""

# Numbers (Unicode 14, categories Nd, Nl, No), the underscore and the zero-width joiners: word characters that make
# no word alphabetic. Written out, since Python's own Unicode data changes with its version.
_NOT_ALPHABETIC = """
30-39 5f b2-b3 b9 bc-be 660-669 6f0-6f9 7c0-7c9 966-96f 9e6-9ef 9f4-9f9 a66-a6f ae6-aef b66-b6f b72-b77 be6-bf2
c66-c6f c78-c7e ce6-cef d58-d5e d66-d78 de6-def e50-e59 ed0-ed9 f20-f33 1040-1049 1090-1099 1369-137c 16ee-16f0
17e0-17e9 17f0-17f9 1810-1819 1946-194f 19d0-19da 1a80-1a89 1a90-1a99 1b50-1b59 1bb0-1bb9 1c40-1c49 1c50-1c59
200c-200d 2070 2074-2079 2080-2089 2150-2182 2185-2189 2460-249b 24ea-24ff 2776-2793 2cfd 3007 3021-3029 3038-303a
3192-3195 3220-3229 3248-324f 3251-325f 3280-3289 32b1-32bf a620-a629 a6e6-a6ef a830-a835 a8d0-a8d9 a900-a909
a9d0-a9d9 a9f0-a9f9 aa50-aa59 abf0-abf9 ff10-ff19 10107-10133 10140-10178 1018a-1018b 102e1-102fb 10320-10323 10341
1034a 103d1-103d5 104a0-104a9 10858-1085f 10879-1087f 108a7-108af 108fb-108ff 10916-1091b 109bc-109bd 109c0-109cf
109d2-109ff 10a40-10a48 10a7d-10a7e 10a9d-10a9f 10aeb-10aef 10b58-10b5f 10b78-10b7f 10ba9-10baf 10cfa-10cff
10d30-10d39 10e60-10e7e 10f1d-10f26 10f51-10f54 10fc5-10fcb 11052-1106f 110f0-110f9 11136-1113f 111d0-111d9
111e1-111f4 112f0-112f9 11450-11459 114d0-114d9 11650-11659 116c0-116c9 11730-1173b 118e0-118f2 11950-11959
11c50-11c6c 11d50-11d59 11da0-11da9 11fc0-11fd4 12400-1246e 16a60-16a69 16ac0-16ac9 16b50-16b59 16b5b-16b61
16e80-16e96 1d2e0-1d2f3 1d360-1d378 1d7ce-1d7ff 1e140-1e149 1e2f0-1e2f9 1e8c7-1e8cf 1e950-1e959 1ec71-1ecab
1ecad-1ecaf 1ecb1-1ecb4 1ed01-1ed2d 1ed2f-1ed3d 1f100-1f10c 1fbf0-1fbf9
"""


def compute_features(texts: pa.LargeStringArray, config: QualityConfig) -> pa.Table:
    """Measure every document.

    Parameters
    ----------
    texts
        Documents, none null; a slice is fine.
    config
        Stop words and language settings.

    Returns
    -------
    pa.Table
        FEATURE_COLUMNS, one row a text, in order.

    Raises
    ------
    ValueError
        If a text is null.
    """
    from data_quality import feature_kernels as kernels

    values, offsets = string_buffers(texts)
    stop_hashes, stop_length = _stop_words(config.stop_words)
    counts = np.zeros((len(texts), kernels.COUNTS), dtype=np.int64)
    kernels.count_features(values, offsets, character_kinds(), fold_table(), stop_hashes, stop_length, counts)

    def column(index: int) -> npt.NDArray[np.int64]:
        return np.ascontiguousarray(counts[:, index])

    def share(part: int, whole: int) -> npt.NDArray[np.float64]:
        above, below = column(part).astype(np.float64), column(whole).astype(np.float64)
        return np.divide(above, below, out=np.zeros_like(above), where=below > 0)

    columns: dict[str, Any] = {
        "bytes": np.diff(offsets),
        "characters": column(kernels.CHARACTERS),
        "lines": column(kernels.LINES),
        "paragraphs": column(kernels.PARAGRAPHS),
        "words": column(kernels.WORDS),
        "non_symbol_words": column(kernels.NON_SYMBOL_WORDS),
        "mean_word_length": share(kernels.NON_SYMBOL_CHARACTERS, kernels.NON_SYMBOL_WORDS),
        "hash_ratio": share(kernels.HASHES, kernels.WORDS),
        "ellipsis_ratio": share(kernels.ELLIPSES, kernels.WORDS),
        "bullet_line_share": share(kernels.BULLET_LINES, kernels.LINES),
        "ellipsis_line_share": share(kernels.ELLIPSIS_LINES, kernels.LINES),
        "alphabetic_word_share": share(kernels.ALPHABETIC_WORDS, kernels.WORDS),
        "stop_words": column(kernels.STOP_WORDS),
        "duplicate_line_share": share(kernels.DUPLICATE_LINES, kernels.LINES),
        "duplicate_paragraph_share": share(kernels.DUPLICATE_PARAGRAPHS, kernels.PARAGRAPHS),
        "duplicate_line_character_share": share(kernels.DUPLICATE_LINE_CHARACTERS, kernels.CHARACTERS),
        "duplicate_paragraph_character_share": share(kernels.DUPLICATE_PARAGRAPH_CHARACTERS, kernels.CHARACTERS),
    }
    for n in (2, 3, 4):
        columns[f"top_{n}_gram_character_share"] = share(kernels.TOP_2_GRAM_CHARACTERS + n - 2, kernels.WORD_CHARACTERS)
    for n in range(5, 11):
        columns[f"duplicate_{n}_gram_character_share"] = share(
            kernels.DUPLICATE_5_GRAM_CHARACTERS + n - 5, kernels.WORD_CHARACTERS
        )
    if config.identify_language:
        columns["language"], columns["language_score"] = identify(texts, config.language_characters)
    else:
        columns["language"] = pa.nulls(len(texts), pa.string())
        columns["language_score"] = pa.nulls(len(texts), pa.float32())
    return pa.table(columns, schema=FEATURE_COLUMNS)


def string_buffers(texts: pa.LargeStringArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The data (uint8) and offsets (int64[len(texts) + 1]) of a large_string array, without a copy.

    Raises
    ------
    ValueError
        If the array holds nulls: a null text has no features.
    """
    if texts.null_count:
        raise ValueError(f"{texts.null_count} of {len(texts)} texts are null: documents always have a text")
    _, offsets_buffer, values_buffer = texts.buffers()
    if offsets_buffer is None or offsets_buffer.size == 0:
        return np.zeros(0, dtype=np.uint8), np.zeros(1, dtype=np.int64)
    offsets = np.frombuffer(offsets_buffer, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    values = np.frombuffer(values_buffer if values_buffer is not None else b"", dtype=np.uint8)
    return values, offsets


@lru_cache(maxsize=1)
def character_kinds() -> npt.NDArray[np.uint8]:
    """The class of every code point (`words.character_classes`), plus LETTER for letters and marks: uint8[0x110000]."""
    kinds = character_classes().copy()
    letters = (kinds == WORD) | (kinds == OWN_WORD)
    for span in _NOT_ALPHABETIC.split():
        start, _, last = span.partition("-")
        letters[int(start, 16) : int(last or start, 16) + 1] = False
    kinds[letters] |= LETTER
    kinds.setflags(write=False)
    return kinds


def _stop_words(stop_words: Iterable[str]) -> tuple[npt.NDArray[np.uint64], int]:
    """Sorted hashes of the folded stop words, and the characters of the longest."""
    from data_quality.feature_kernels import hash_word

    folds = fold_table()
    folded = {tuple(int(folds[ord(character)]) for character in word) for word in stop_words}
    hashes = sorted(int(hash_word(np.array(codes, dtype=np.int64))) for codes in folded if codes)
    return np.array(hashes, dtype=np.uint64), max((len(codes) for codes in folded), default=0)
