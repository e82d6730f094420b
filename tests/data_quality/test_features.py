"""Every feature against its definition written out in plain Python, on made-up and on real text."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_quality.features import FEATURE_COLUMNS, FEATURE_SCHEMA, FEATURES, character_kinds, compute_features
from data_quality.quality_config import QualityConfig
from data_quality.words import OWN_WORD, PUNCTUATION, SPACE, character_classes, fold_table

CONFIG = QualityConfig(identify_language=False)


def kind(character: str) -> int:
    return int(character_classes()[ord(character)])


def plain_words(text: str) -> list[str]:
    words, run = [], ""
    for character in text:
        if kind(character) in (SPACE, OWN_WORD):
            if run:
                words.append(run)
            run = ""
            if kind(character) == OWN_WORD:
                words.append(character)
        else:
            run += character
    return [*words, run] if run else words


def strip(text: str, classes: tuple[int, ...]) -> str:
    inside = [i for i, character in enumerate(text) if kind(character) not in classes]
    return text[inside[0] : inside[-1] + 1] if inside else ""


def duplicates(items: list[str]) -> list[str]:
    seen: set[str] = set()
    found = []
    for item in items:
        if item in seen:
            found.append(item)
        seen.add(item)
    return found


def covered(words: list[str], starts: list[int], n: int) -> int:
    return sum(len(words[i]) for i in {i for start in starts for i in range(start, start + n)})


def top_n_gram(words: list[str], n: int) -> int:
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    counts = Counter(grams)  # most_common keeps first occurrence first among equals
    if not counts or counts.most_common(1)[0][1] == 1:
        return 0
    top = counts.most_common(1)[0][0]
    return covered(words, [i for i, gram in enumerate(grams) if gram == top], n)


def duplicate_n_grams(words: list[str], n: int) -> int:
    seen: set[tuple[str, ...]] = set()
    starts = []
    for i in range(len(words) - n + 1):
        gram = tuple(words[i : i + n])
        if gram in seen:
            starts.append(i)
        seen.add(gram)
    return covered(words, starts, n)


def fold(text: str) -> str:
    return "".join(chr(fold_table()[ord(character)]) for character in text)


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def plain_features(text: str, config: QualityConfig = CONFIG) -> dict[str, Any]:
    words = plain_words(text)
    non_symbol = [word for word in words if any(kind(c) != PUNCTUATION for c in word)]
    lines, paragraphs, paragraph = [], [], []
    for raw in [*text.split("\n"), ""]:
        line = strip(raw, (SPACE,))
        if line:
            lines.append(line)
            paragraph.append(line)
        elif paragraph:
            paragraphs.append("\n".join(paragraph))
            paragraph = []
    stop_words = {fold(word) for word in config.stop_words if word}
    cores = {fold(strip(word, (SPACE, PUNCTUATION))) for word in words}
    letters = sum(len(word) for word in words)
    return {
        "bytes": len(text.encode()),
        "characters": len(text),
        "lines": len(lines),
        "paragraphs": len(paragraphs),
        "words": len(words),
        "non_symbol_words": len(non_symbol),
        "mean_word_length": share(sum(len(word) for word in non_symbol), len(non_symbol)),
        "hash_ratio": share(text.count("#"), len(words)),
        "ellipsis_ratio": share(text.count("...") + text.count("…"), len(words)),
        "bullet_line_share": share(sum(line.startswith(("•", "-")) for line in lines), len(lines)),
        "ellipsis_line_share": share(sum(line.endswith(("...", "…")) for line in lines), len(lines)),
        "alphabetic_word_share": share(
            sum(any(character_kinds()[ord(c)] & 4 for c in word) for word in words), len(words)
        ),
        "stop_words": len(stop_words & cores),
        "duplicate_line_share": share(len(duplicates(lines)), len(lines)),
        "duplicate_paragraph_share": share(len(duplicates(paragraphs)), len(paragraphs)),
        "duplicate_line_character_share": share(sum(map(len, duplicates(lines))), len(text)),
        "duplicate_paragraph_character_share": share(sum(map(len, duplicates(paragraphs))), len(text)),
        **{f"top_{n}_gram_character_share": share(top_n_gram(words, n), letters) for n in (2, 3, 4)},
        **{f"duplicate_{n}_gram_character_share": share(duplicate_n_grams(words, n), letters) for n in range(5, 11)},
        "language": None,
        "language_score": None,
    }


def features(texts: list[str], config: QualityConfig = CONFIG) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = compute_features(pa.array(texts, pa.large_string()), config).to_pylist()
    return rows


def is_measured_as_defined(texts: list[str], config: QualityConfig = CONFIG) -> None:
    for text, row in zip(texts, features(texts, config), strict=True):
        assert row == plain_features(text, config), text[:300]


SCRAPS = [
    "the", "The,", "“that”", "be", "have", "WITH", "a", "b", "to", "#", "##", "...", "....", "……", ".", "-", "•",
    "中", "文", "。", "ไทย", "العربية", "Привет", "é", "e\u0301", "🙂", "👩\u200d💻", "3.14", "x2", "_", "\u00ad",
    " ", "  ", "\t", "\n", "\n\n", "\n \n", "\r\n", "\u3000", "\u2028", "\x00", "K", "ſ", "don't", "\ufeff",
]  # fmt: skip

texts_of_scraps = st.lists(st.sampled_from(SCRAPS), max_size=60).map("".join)
repetitive = st.lists(st.sampled_from(["a ", "b ", "ab ", "中", "\n", "c\n\n"]), max_size=80).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(texts_of_scraps, repetitive, st.text(max_size=200)), max_size=4))
@example([""])
@example(["a"])
@example(["。"])
@example(["\n"])
@example(["中"])
@example(["a" * 70])
@example(["- x...", "…", "...", ". . .", "a...\n...b\n. ..", "•\n-\n–"])
@example(["a b a b a b a b a b a b a b a b a b a b a b"])
def test_every_feature_is_what_its_definition_says(texts: list[str]) -> None:
    is_measured_as_defined(texts)


@settings(max_examples=50, deadline=None)
@given(texts_of_scraps, st.lists(st.text(max_size=6), max_size=5).map(tuple))
def test_stop_words_of_one_s_own_are_found_in_any_script(text: str, own: tuple[str, ...]) -> None:
    # A stop word that holds white space, outer punctuation or several words can never be found.
    config = QualityConfig(identify_language=False, stop_words=(*own, "Привет", "中", "é", "THE"))
    is_measured_as_defined([text], config)


def real_texts(shared_data: Path) -> list[str]:
    def lines(name: str) -> list[str]:
        return gzip.decompress((shared_data / name).read_bytes()).decode().splitlines()

    english = [json.loads(line)["text"] for line in lines("text/c4_en_300.jsonl.gz")[:60]]
    many = [json.loads(line)["text"] for line in lines("langid/xquad_paragraphs_12_languages.jsonl.gz")[::40]]
    chinese = ["\n".join(lines("text/zh_wikipedia_paragraphs_dev.txt.gz")[:20])]
    play = gzip.decompress((shared_data / "text/tinyshakespeare.txt.gz").read_bytes()).decode()[:30_000]
    naughty = json.loads((shared_data / "encoding/blns.json").read_text(encoding="utf-8"))
    return [*english, *many, *chinese, play, *naughty, "\n".join(naughty)]


def test_every_feature_is_what_its_definition_says_on_real_text(shared_data: Path) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in real_texts(shared_data)]
    is_measured_as_defined(texts)


def test_a_slice_of_an_array_is_measured_as_a_copy_of_it() -> None:
    texts = pa.array(["one two", "", "drei vier fünf", "四五"], pa.large_string())
    copy = pa.array(["", "drei vier fünf"], pa.large_string())
    assert compute_features(texts.slice(1, 2), CONFIG).equals(compute_features(copy, CONFIG))


def test_no_texts_give_no_rows_and_the_same_columns() -> None:
    for empty in (pa.array([], pa.large_string()), pa.array(["a"], pa.large_string()).slice(1)):
        table = compute_features(empty, CONFIG)
        assert table.num_rows == 0
        assert table.schema == FEATURE_COLUMNS


def test_the_schema_is_the_id_and_the_documented_features() -> None:
    assert FEATURE_SCHEMA.names == ["id", *(feature.name for feature in FEATURES)]
    assert all(feature.formula and feature.source for feature in FEATURES)


def test_a_null_text_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 texts are null"):
        compute_features(pa.array(["a", None], pa.large_string()), CONFIG)


def test_three_of_ten_is_exactly_the_threshold_and_no_more() -> None:
    text = "\n".join(["same line"] * 4 + [f"line {i}" for i in range(6)])
    assert features([text])[0]["duplicate_line_share"] == 0.3


@pytest.mark.parametrize(
    "unit", ["hello world foo bar baz ", "abcdefg", "a ", "中文", "\n", "x\n", ". ", "- item...\n\n"]
)
def test_five_megabytes_take_seconds_whatever_they_hold(unit: str) -> None:
    features(["warm up"])
    text = unit * (5_000_000 // len(unit.encode()))
    start = time.perf_counter()
    row = features([text])[0]
    assert time.perf_counter() - start < 10
    assert row["bytes"] == len(text.encode())


def test_five_megabytes_of_different_words_in_one_line_take_seconds() -> None:
    text = " ".join(str(number * 2_654_435_761 % 2**32) for number in range(480_000))
    start = time.perf_counter()
    row = features([text])[0]
    assert time.perf_counter() - start < 10
    assert (row["words"], row["lines"], row["top_2_gram_character_share"]) == (480_000, 1, 0.0)


def test_one_huge_document_among_small_ones_changes_none_of_them() -> None:
    small = ["the cat and the dog", "中文 text", ""]
    with_huge = features([*small, "a b c d e f " * 100_000, *small])
    assert with_huge[:3] == with_huge[4:] == features(small)
