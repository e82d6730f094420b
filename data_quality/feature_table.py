"""Every feature there is, a row each: name, type, formula, source, the view of the document it reads, what turns it on.

Nothing is computed here (see `features.py`) and nothing is dropped (see `rules.py`). `docs/features.md` is this table.

Terms, the same in every feature:

character
    A Unicode code point of the text as written.
word
    A maximal run of characters that are not white space, so with the punctuation that touches it ("stop," is one
    word), except that every letter of a script written without spaces (Han, Kana, Thai, Lao, Khmer, Myanmar; see
    `words.character_classes`) is a word of its own. White space includes control and format characters.
non-symbol word
    A word with at least one character that is not punctuation or a symbol.
core
    A non-symbol word without the punctuation and symbols at its ends, its case folded.
line
    What stands between line feeds, without white space at its ends; a line of white space alone is none.
raw line
    What stands between line feeds, as it is, empty ones too; nothing stands behind a line feed that ends the text.
solid line
    A raw line that is not white space alone, by Python's `str.isspace`.
paragraph
    A maximal run of lines without an empty one between them, its lines joined by line feeds.
sentence
    What a run of terminal marks (`punctuation.TERMINAL_MARKS`) and the quotes and brackets closed behind it end on a
    raw line, where white space or the end of the line follows or the last mark is one that needs none (as 。); and what
    stands behind the last of these on its line. Full stops alone end none before a small ASCII letter, nor does a
    single one behind one letter or an abbreviation (`scan_kernels.ABBREVIATIONS`). (C4 asks NLTK's trained Punkt model,
    datatrove spaCy's rules: both know more abbreviations.)
n-gram
    n consecutive words as written, across lines.
duplicate
    The second and every later occurrence; the first is none.

A share of nothing is 0: the empty text has 0 in every feature. Null stands only where there is nothing to measure: no
URL, no letter, no language, no list for the language.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

from data_quality.quality_config import QualityConfig
from storage.schemas import ID_FIELD

_GOPHER = "Rae et al. 2021 (arXiv 2112.11446), appendix A1.1"
_C4 = "Raffel et al. 2020 (arXiv 1910.10683), section 2.2; TensorFlow Datasets, text/c4_utils.py"
_C4_DATATROVE = "datatrove v0.10, C4QualityFilter"
_FINEWEB = "Penedo et al. 2024 (arXiv 2406.17557); datatrove v0.10, FineWebQualityFilter"
_CODE = "Chen et al. 2021 (arXiv 2107.03374); CodeParrot and StarCoder (arXiv 2305.06161)"
_DATATROVE = "datatrove v0.10"
_OWN = "Gristmill"

TEXT, CUT, URL = "text", "cut", "url"
CUT_PREFIX, DATATROVE_PREFIX = "cut_", "datatrove_"

INTEGER, FLOAT, STRING = pa.int64(), pa.float64(), pa.string()


@dataclass(frozen=True)
class Feature:
    """One column of the features file.

    Attributes
    ----------
    view
        What of the document it reads: "text" as written, "cut" with `quality.cuts` applied, "c4", "c4-datatrove" and
        "fineweb" the lines that these leave (whatever is cut), "url" its address.
    setting
        The setting that makes it measured, "" if it always is. What is not measured is no column of the file.
    """

    name: str
    type: pa.DataType
    formula: str
    source: str
    view: str = TEXT
    setting: str = ""


# Shares are float64, so that 3 of 10 lines is exactly what a threshold of 0.3 says.
_N_GRAM_NOTE = (
    "of the characters in words, each counted once however many occurrences cover it. (datatrove multiplies the "
    "length by the count and divides by the length of the text with spaces, which can exceed 1.)"
)

_GOPHER_QUALITY = (
    Feature("bytes", INTEGER, "UTF-8 bytes of the text", _OWN),
    Feature("characters", INTEGER, "code points of the text", _OWN),
    Feature("lines", INTEGER, "lines that are not empty", _OWN),
    Feature("paragraphs", INTEGER, "paragraphs", _OWN),
    Feature("words", INTEGER, "words, symbols alone included", _OWN),
    Feature(
        "non_symbol_words",
        INTEGER,
        "non-symbol words: the word count of the length rule, as datatrove reads the paper",
        _GOPHER,
    ),
    Feature(
        "mean_word_length",
        FLOAT,
        "characters of non-symbol words / non-symbol words; punctuation that touches a word counts",
        _GOPHER,
    ),
    Feature("hash_ratio", FLOAT, "# characters / words", _GOPHER),
    Feature(
        "ellipsis_ratio",
        FLOAT,
        "ellipses / words, where … is one and every three full stops in a row are one",
        _GOPHER,
    ),
    Feature(
        "bullet_line_share",
        FLOAT,
        "lines that start with • or - / lines (the paper names no characters; these are datatrove's)",
        _GOPHER,
    ),
    Feature("ellipsis_line_share", FLOAT, "lines that end with ... or … / lines", _GOPHER),
    Feature(
        "alphabetic_word_share",
        FLOAT,
        "words with at least one letter or mark / words. (datatrove's English words are spaCy's, where "
        "punctuation marks are words without letters, so that it drops far more documents by this.)",
        _GOPHER,
    ),
    Feature(
        "stop_words",
        INTEGER,
        "how many different words of the list `stop_words` occur as cores, compared case-folded. (datatrove: "
        "case-sensitive, on spaCy's words.)",
        _GOPHER,
    ),
)
_GOPHER_REPETITION = (
    Feature("duplicate_line_share", FLOAT, "duplicate lines / lines", _GOPHER),
    Feature("duplicate_paragraph_share", FLOAT, "duplicate paragraphs / paragraphs", _GOPHER),
    Feature("duplicate_line_character_share", FLOAT, "characters of duplicate lines / characters of the text", _GOPHER),
    Feature(
        "duplicate_paragraph_character_share",
        FLOAT,
        "characters of duplicate paragraphs, line feeds inside them included / characters of the text",
        _GOPHER,
    ),
    *(
        Feature(
            f"top_{n}_gram_character_share",
            FLOAT,
            f"share under the occurrences of the most frequent {n}-gram, {_N_GRAM_NOTE} Of equally frequent ones "
            "the one that occurs first; 0 if none occurs twice (datatrove lets a single one count)",
            _GOPHER,
        )
        for n in (2, 3, 4)
    ),
    *(
        Feature(
            f"duplicate_{n}_gram_character_share",
            FLOAT,
            f"share under duplicate {n}-grams, {_N_GRAM_NOTE} (datatrove also jumps n words after a hit.)",
            _GOPHER,
        )
        for n in (5, 6, 7, 8, 9, 10)
    ),
)
_LINES = (
    Feature("sentences", INTEGER, "sentences", _OWN),
    Feature("third_longest_line", INTEGER, "characters of the third longest raw line, 0 if there are fewer", _C4),
    Feature("lorem_ipsum", INTEGER, 'raw lines that hold "lorem ipsum" in ASCII letters of either case', _C4),
    Feature("curly_brackets", INTEGER, "{ characters", _C4),
    Feature(
        "line_punct_ratio",
        FLOAT,
        "solid lines that end with a terminal mark (`punctuation.TERMINAL_MARKS`, 159 of them; with white space behind "
        "it a line does not) / solid lines",
        _FINEWEB,
    ),
    Feature(
        "short_line_ratio", FLOAT, "solid lines of at most `short_line_characters` characters / solid lines", _FINEWEB
    ),
    Feature(
        "char_dup_ratio", FLOAT, "characters of duplicate solid lines / characters that are not line feeds", _FINEWEB
    ),
    Feature("list_ratio", FLOAT, "line feeds / words", _FINEWEB),
    Feature("mean_line_length", FLOAT, "characters that are not line feeds / raw lines", _CODE),
    Feature("max_line_length", INTEGER, "characters of the longest raw line", _CODE),
    Feature("max_word_length", INTEGER, "characters of the longest word", _OWN),
    Feature(
        "autogenerated",
        INTEGER,
        '1 if one of the first 5 raw lines holds "auto-generated", "autogenerated", "automatically generated" or '
        '"generated automatically" in ASCII letters of either case, else 0',
        _CODE,
    ),
)
_CHARACTERS = (
    Feature("alphanumeric_share", FLOAT, "letters, marks and numbers / characters", _CODE),
    Feature("alphabetic_share", FLOAT, "letters and marks / characters", _CODE),
    Feature("digit_share", FLOAT, "numbers (categories Nd, Nl, No) / characters", _OWN),
    Feature("white_space_share", FLOAT, "white space, control and format characters / characters", _OWN),
    Feature("letters", INTEGER, "letters and marks", _OWN),
    Feature(
        "script",
        STRING,
        "ISO 15924 code of the script with most letters and marks (`script_table.txt`; those that scripts share have "
        "none); of equal ones the first in that table; null without letters of any script",
        _OWN,
    ),
    Feature("script_share", FLOAT, "letters and marks of that script / those of any script", _OWN),
    Feature("scripts", INTEGER, "scripts with at least one letter or mark", _OWN),
    Feature(
        "coded_ratio",
        FLOAT,
        "bytes that the frozen LZ77 coder of `coding_kernels` needs / bytes: near 0 for one thing over and over, about "
        "0.5 to 0.8 for prose (the longer the lower), 1 and a little more for what never repeats",
        _OWN,
    ),
)
_LANGUAGE = (
    Feature("language", STRING, "label of `language.identify`, null if not identified", _OWN),
    Feature("language_score", pa.float32(), "probability of that label, null if not identified", _OWN),
)
_URLS = tuple(
    replace(feature, view=URL)
    for feature in (
        Feature("url_host", STRING, "host of the URL, in small letters, without a full stop at its end", _OWN),
        Feature(
            "url_domain",
            STRING,
            "the host's registered domain: its public suffix and one label more, by the Public Suffix List inside the "
            "installed package tld; null where there is none (an IP address, a name of one label)",
            "publicsuffix.org",
        ),
        Feature("url_suffix", STRING, "that public suffix, private ones (as github.io) included", "publicsuffix.org"),
        Feature("url_path_depth", INTEGER, "segments of the path that are not empty", _OWN),
        Feature("url_digit_share", FLOAT, "ASCII digits / characters of the host", _OWN),
        Feature("url_is_ip", INTEGER, "1 if the host is an IPv4 or IPv6 address, else 0", _OWN),
    )
)

_VIEWS = {
    "c4": (
        "c4_",
        _C4,
        'lines that end with . ? ! or " (and not ...) and have 5 white-space words once citations are gone',
    ),
    "c4-datatrove": (
        "c4_datatrove_",
        _C4_DATATROVE,
        "lines that end with . ? ! \" or ' (and not ...) and have 3 white-space words before citations go",
    ),
    "fineweb": (
        "fineweb_",
        _FINEWEB,
        "lines of 3 white-space words before citations go, whatever they end with",
    ),
}


def _view_features() -> Iterator[Feature]:
    """What is measured of the lines that C4's rules leave, in its three readings."""
    for view, (prefix, source, first) in _VIEWS.items():
        reach = (
            f"Solid lines without a word of over 1000 characters, stripped, without [], [12], [edit] and "
            f"[citation needed]: {first}"
        )
        for name, type_, formula in (
            ("lines", INTEGER, f"lines left. {reach}; and that hold neither javascript nor a phrase on policies"),
            ("words", INTEGER, "white-space words of the lines left"),
            ("bytes", INTEGER, "UTF-8 bytes of the lines left, joined by line feeds"),
            ("sentences", INTEGER, "sentences of the lines left"),
            ("lorem_ipsum", INTEGER, 'lines with "lorem ipsum" among those that end and are long enough to stay'),
            ("curly_brackets", INTEGER, "lines with { among those that also hold no javascript"),
            ("third_longest_line", INTEGER, "characters of the third longest line left, 0 if there are fewer"),
        ):
            yield Feature(prefix + name, type_, formula, source, view)
    for name, formula in (
        ("line_punct_ratio", "`line_punct_ratio` of the lines left"),
        ("short_line_ratio", "`short_line_ratio` of the lines left"),
        ("char_dup_ratio", "`char_dup_ratio` of the lines left"),
        ("list_ratio", "lines left but one / words in them, by our own definition of a word"),
    ):
        yield Feature(f"fineweb_{name}", FLOAT, formula, _FINEWEB, "fineweb")


_ON_REQUEST = (
    Feature(
        "language_stop_words",
        INTEGER,
        "how many different words of the list for the document's language occur as cores, compared case-folded; null "
        "if the language has no list",
        "Penedo et al. 2025, FineWeb2 (arXiv 2506.20920)",
        setting="quality.features.language_stop_words",
    ),
    Feature(
        "unigram_log_probability",
        FLOAT,
        "mean natural logarithm of the probability of the cores, each its count in the pinned table / the table's "
        "total, 10^-9 for those that are not in it",
        "datatrove v0.10, UnigramLogProbFilter, after peS2o",
        setting="quality.features.unigram_table",
    ),
)


def _datatrove_features() -> Iterator[Feature]:
    """datatrove's own formulas, on words of the kind that `datatrove_words` names."""
    whole = "the length of the text"
    formulas = {
        "non_symbol_words": "words with a character outside datatrove's PUNCTUATION_SET",
        "mean_word_length": "characters of these / these",
        "hash_ratio": "# characters / words",
        "ellipsis_ratio": "(... + …) / words",
        "bullet_line_share": "lines of str.splitlines that start with • or - behind white space / all, empty ones too",
        "ellipsis_line_share": "lines of str.splitlines that end with ... or … before white space / all",
        "alphabetic_word_share": "words with a letter / words",
        "stop_words": "words of the list `stop_words` among the words, case and punctuation as they are",
        "duplicate_line_share": r"duplicates among the pieces between runs of line feeds / these",
        "duplicate_paragraph_share": "the same of the stripped text between runs of two line feeds or more",
        "duplicate_line_character_share": f"characters of these duplicate lines / {whole}",
        "duplicate_paragraph_character_share": f"characters of these duplicate paragraphs / {whole}",
        **{
            f"top_{n}_gram_character_share": f"characters of the most frequent {n}-gram, joined by spaces, times its "
            f"count / {whole}; of equal counts the first"
            for n in (2, 3, 4)
        },
        **{
            f"duplicate_{n}_gram_character_share": f"characters of duplicate {n}-grams, joined by nothing, going on "
            f"behind each / {whole}"
            for n in range(5, 11)
        },
    }
    types = {feature.name: feature.type for feature in (*_GOPHER_QUALITY, *_GOPHER_REPETITION)}
    for name, formula in formulas.items():
        setting = "quality.features.datatrove_words"
        yield Feature(DATATROVE_PREFIX + name, types[name], formula, _DATATROVE, setting=setting)


KERNEL_FEATURES = (*_GOPHER_QUALITY, *_GOPHER_REPETITION, *_LINES, *_CHARACTERS)
"""What is measured of a text alone, and so of a text with cuts applied too."""

FEATURES: tuple[Feature, ...] = (
    *KERNEL_FEATURES,
    *_LANGUAGE,
    *_view_features(),
    *_URLS,
    *_ON_REQUEST,
    *(
        replace(
            feature,
            name=CUT_PREFIX + feature.name,
            formula=f"`{feature.name}` with `quality.cuts` applied",
            view=CUT,
            setting="quality.features.measure_cut",
        )
        for feature in KERNEL_FEATURES
    ),
    *_datatrove_features(),
)

FEATURE_TYPES = {feature.name: feature.type for feature in FEATURES}
_BY_NAME = {feature.name: feature for feature in FEATURES}
_EXAMPLES = {
    "quality.features.language_stop_words": "fineweb-2, or {de: [der, und, ...]}",
    "quality.features.unigram_table": "corpus, or a file of words and counts",
    "quality.features.measure_cut": "true, and quality.cuts.producers",
    "quality.features.datatrove_words": "attached, or separate",
}


def feature_schema(config: QualityConfig) -> pa.Schema:
    """The columns of the features file that a configuration measures, `id` first: one row a document of its part."""
    wanted = {
        "": True,
        "quality.features.language_stop_words": bool(config.language_stop_words),
        "quality.features.unigram_table": bool(config.unigram_table),
        "quality.features.measure_cut": config.measure_cut,
        "quality.features.datatrove_words": config.datatrove_words != "off",
    }
    return pa.schema([ID_FIELD, *(pa.field(f.name, f.type) for f in FEATURES if wanted[f.setting])])


def how_to_measure(name: str) -> str:
    """What to set for a feature to be measured, for error messages; "" if it always is or there is no such feature."""
    setting = _BY_NAME[name].setting if name in _BY_NAME else ""
    return f"set {setting} ({_EXAMPLES[setting]}), which measures the text again" if setting else ""


FEATURE_SCHEMA = feature_schema(QualityConfig())
"""The features file of the default configuration."""

FEATURE_COLUMNS = FEATURE_SCHEMA.remove(0)
"""The same without the id."""
