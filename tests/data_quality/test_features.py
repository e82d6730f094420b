"""Every feature against its definition written out in plain Python, on made-up and on real text."""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_quality.feature_page import page
from data_quality.features import (
    FEATURE_COLUMNS,
    FEATURE_SCHEMA,
    FEATURE_TYPES,
    FEATURES,
    compute_features,
    feature_schema,
    how_to_measure,
)
from data_quality.quality_config import QualityConfig
from tests.data_quality.plain_features import CONFIG, plain_features


def strings(texts: list[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def features(texts: list[str], config: QualityConfig = CONFIG) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = compute_features(pa.array(texts, pa.large_string()), config).to_pylist()
    return rows


def is_measured_as_defined(texts: list[str], config: QualityConfig = CONFIG) -> None:
    for text, row in zip(texts, features(texts, config), strict=True):
        row = {name: value for name, value in row.items() if not name.startswith("url_")}
        wanted = plain_features(text, config)
        assert row.keys() == wanted.keys()
        wrong = {name: (row[name], wanted[name]) for name in row if row[name] != wanted[name]}
        assert not wrong, text[:300]


SCRAPS = [
    "the", "The,", "“that”", "be", "have", "WITH", "a", "b", "to", "#", "##", "...", "....", "……", ".", "-", "•",
    "中", "文", "。", "ไทย", "العربية", "Привет", "é", "e\u0301", "🙂", "👩\u200d💻", "3.14", "x2", "_", "\u00ad",
    " ", "  ", "\t", "\n", "\n\n", "\n \n", "\r\n", "\u3000", "\u2028", "\x00", "K", "ſ", "don't", "\ufeff",
    "Lorem Ipsum", "javaScript", "{", "[1]", "[edit]", "[citation needed]", "Terms of Use", "privacy policy", "use",
    "uses ", "of ", "cookies", "cookie policy", "?", "!\"", ".'", "。」", "؟", "Mr.", "e.g.", "U.S.", "Auto-Generated",
    "automatically generated", "well-known", "1,000", "John's", "a/b", "(x)", "--", "\x85", "\x1c",
]  # fmt: skip

texts_of_scraps = st.lists(st.sampled_from(SCRAPS), max_size=60).map("".join)
repetitive = st.lists(st.sampled_from(["a ", "b ", "ab ", "中", "\n", "c\n\n"]), max_size=80).map("".join)


@pytest.mark.parametrize("filling", ["ab cd. ", "abcdefg", "東京", "\n"])
def test_what_crosses_the_bounds_of_blocks_of_64_bytes_is_measured_as_defined(filling: str) -> None:
    start = 64 // len(filling.encode()) * filling
    texts = [
        start[: len(start) - shift] + scrap + rest
        for scrap in SCRAPS
        for shift in range(6)
        for rest in ("", " Then more.\nAnd so on")
    ]
    is_measured_as_defined(texts)


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
@example(["\n".join([*(["One line of five words here."] * 3), "[1] [2] [3]", "Short.", "a " * 600 + "b" * 1001 + "."])])
@example(["Sentence one two three [1]\nThe end, he said. [2]\n[3] Leading mark and words.[4]\n"])
def test_every_feature_is_what_its_definition_says(texts: list[str]) -> None:
    is_measured_as_defined(texts)
    for words in ("attached", "separate"):
        is_measured_as_defined(texts, replace(CONFIG, datatrove_words=words))


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
    for words in ("attached", "separate"):
        is_measured_as_defined(texts, replace(CONFIG, datatrove_words=words))


def test_a_slice_of_an_array_is_measured_as_a_copy_of_it() -> None:
    texts = pa.array(["one two", "", "drei vier fünf", "四五"], pa.large_string())
    copy = pa.array(["", "drei vier fünf"], pa.large_string())
    assert compute_features(texts.slice(1, 2), CONFIG).equals(compute_features(copy, CONFIG))


def test_no_texts_give_no_rows_and_the_same_columns() -> None:
    for empty in (pa.array([], pa.large_string()), pa.array(["a"], pa.large_string()).slice(1)):
        table = compute_features(empty, CONFIG)
        assert table.num_rows == 0
        assert table.schema == FEATURE_COLUMNS


ALL = QualityConfig(
    language_stop_words={"de": ("der", "die", "und"), "en": ("the",)},
    unigram_table="corpus",
    measure_cut=True,
    datatrove_words="separate",
)


def test_the_schema_is_the_id_and_the_features_that_are_measured() -> None:
    always = [feature.name for feature in FEATURES if not feature.setting]
    assert FEATURE_SCHEMA.names == ["id", *always]
    assert feature_schema(ALL).names == ["id", *(feature.name for feature in FEATURES)]
    assert len(FEATURE_TYPES) == len(FEATURES)
    assert all(feature.formula and feature.source for feature in FEATURES)


def test_what_is_not_always_measured_says_what_to_set() -> None:
    for feature in FEATURES:
        said = how_to_measure(feature.name)
        assert said.startswith(f"set {feature.setting} (") if feature.setting else said == ""
    assert how_to_measure("no_such_feature") == ""


def test_cut_texts_are_measured_as_texts_of_their_own() -> None:
    texts, cut = ["Some words here.\nCut this", "b"], ["Some words here.", ""]
    config = QualityConfig(identify_language=False, measure_cut=True)
    rows = compute_features(strings(texts), config, cut_texts=strings(cut)).to_pylist()
    for text, left, row in zip(texts, cut, rows, strict=True):
        without = {name: value for name, value in row.items() if not name.startswith(("cut_", "url_"))}
        assert without == plain_features(text)
        wanted = plain_features(left, whole=False)
        assert {name: row[f"cut_{name}"] for name in wanted} == wanted
    with pytest.raises(ValueError, match="measure_cut: there are no cuts"):
        compute_features(strings(texts), config)


def test_stop_words_of_the_document_s_language_are_counted() -> None:
    german = "Der Hund und die Katze liegen in der Sonne, und niemand stört sie dabei an diesem schönen Nachmittag."
    french = "Le chien et le chat sont au soleil, et personne ne les dérange pendant ce bel après-midi de printemps."
    config = QualityConfig(language_stop_words={"de": ("DER", "die", "und", "hat"), "en": ("the",)})
    rows = compute_features(strings([german, french, ""]), config).to_pylist()
    assert [(row["language"], row["language_stop_words"]) for row in rows] == [("de", 3), ("fr", None), ("und", None)]
    with pytest.raises(ValueError, match=r"language_stop_words: needs quality\.features.identify_language"):
        compute_features(strings([german]), replace(config, identify_language=False))


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


def test_the_page_on_features_is_the_table() -> None:
    page_as_written = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")
    assert page_as_written == page(), "run `python -m data_quality.feature_page`"
    assert all(f"`{feature.name}`" in page_as_written for feature in FEATURES)
