"""What is found to be cut is what the definitions say, and is applied as such."""

from __future__ import annotations

import gzip
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpus.cuts import apply_cuts
from data_quality.cuts import C4_REASONS, POLICY_PHRASES, SPANS_TYPE, c4_lines, find_cuts, policy_lines
from data_quality.features import compute_features
from data_quality.quality_config import C4Reading, CutsConfig, QualityConfig


def strings(texts: list[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def test_policy_lines_are_cut_with_their_newline_and_nothing_else() -> None:
    texts = [
        "Hello.\nRead our Terms of Use and our privacy policy.\nBye.",
        "We use cookies",
        "é\nThis site USES COOKIES.\nCookie Policy\nend\n",
        "privacy\npolicy",
        "",
        "terms of uſe",  # a letter that RE2 takes for an s, C4 does not
    ]
    spans = policy_lines(strings(texts))
    assert spans.type == SPANS_TYPE
    assert apply_cuts(strings(texts), spans).to_pylist() == [
        "Hello.\nBye.",
        "",
        "é\nend\n",
        "privacy\npolicy",
        "",
        "terms of uſe",
    ]
    assert spans.to_pylist()[1] == [{"start": 0, "end": 14, "replacement": "", "reason": "policy-line"}]
    assert [len(row) for row in policy_lines(strings(texts).slice(2, 2)).to_pylist()] == [2, 0]


def test_policy_lines_agree_with_the_definition_on_real_pages(shared_data: Path) -> None:
    with gzip.open(shared_data / "text" / "c4_en_300.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    texts[::10] = [f"{text}\nBy using this site you accept our {POLICY_PHRASES[0].upper()}\n" for text in texts[::10]]
    cut = apply_cuts(strings(texts), policy_lines(strings(texts))).to_pylist()
    for text, result in zip(texts, cut, strict=True):
        kept = [line for line in text.split("\n") if not any(phrase in line.lower() for phrase in POLICY_PHRASES)]
        assert result.rstrip("\n") == "\n".join(kept).rstrip("\n")
    assert sum(text != result for text, result in zip(texts, cut, strict=True)) >= 30


def c4_definition(text: str, min_words: int = 5, reading: C4Reading = "c4") -> tuple[list[str], list[str]]:
    """(lines that stay, reasons of those that go) by the rules in words: the oracle."""
    marks = {"c4": (".", "?", "!", '"'), "c4-datatrove": (".", "?", "!", '"', "'"), "fineweb": ("",)}[reading]
    kept, reasons = [], []
    for raw in text.split("\n"):
        line = raw.strip()
        if not line:
            continue
        before = line.split()
        long_word = any(len(word) > 1000 for word in before)
        line = re.sub(r"\[[0-9]*\]|\[edit\]|\[citation needed\]", "", line)
        lower = line.lower()
        if long_word:
            reasons.append("long-word")
        elif not line.endswith(marks) or (reading != "fineweb" and line.endswith("...")):
            reasons.append("no-end-mark")
        elif len(line.split() if reading == "c4" else before) < min_words:
            reasons.append("few-words")
        elif "javascript" in lower:
            reasons.append("javascript")
        elif any(phrase in lower for phrase in POLICY_PHRASES):
            reasons.append("policy-line")
        else:
            kept.append(line)
    return kept, reasons


def words_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.split("\n") if line.strip()]


PIECES = st.sampled_from(
    [
        "one two three four five",
        " six",
        "é中",
        ".",
        "...",
        "?",
        '"',
        "'",
        "[12]",
        "[edit]",
        "[citation needed]",
        "[x]",
        "[",
        "]",
    ]
    + ["\n", "\n\n", " \t", "\xa0", "\u3000", "\u2003", "\x1c", " JavaScript ", " use cookies ", "x" * 990, "é" * 6]
)


@settings(max_examples=600, deadline=None)
@given(
    texts=st.lists(st.lists(PIECES, max_size=14).map("".join), max_size=4),
    min_words=st.integers(0, 7),
    reading=st.sampled_from(get_args(C4Reading)),
)
@example(texts=["\n[12]\n JavaScript "], min_words=0, reading="fineweb")
def test_c4_lines_are_those_of_the_definition(texts: list[str], min_words: int, reading: C4Reading) -> None:
    spans = c4_lines(strings(texts), min_words, reading)
    spans.validate(full=True)
    cut = apply_cuts(strings(texts), spans).to_pylist()
    for text, result, row in zip(texts, cut, spans.to_pylist(), strict=True):
        kept, reasons = c4_definition(text, min_words, reading)
        assert words_of(result) == [line.split() for line in kept if line.strip()]
        assert {span["reason"] for span in row} - {"citation"} == set(reasons)
        assert all(before["end"] <= after["start"] for before, after in pairwise(row))
        # A kept line of nothing but citations leaves an empty one, whose line end stays.
        if kept and kept[-1].strip() and not c4_definition(text.strip().split("\n")[-1], min_words, reading)[0]:
            assert not result.endswith("\n")


@given(texts=st.lists(st.lists(PIECES, max_size=10).map("".join), min_size=1, max_size=4), begin=st.integers(0, 3))
def test_c4_lines_of_a_slice_are_those_of_its_texts(texts: list[str], begin: int) -> None:
    assert c4_lines(strings(texts).slice(begin)).to_pylist() == c4_lines(strings(texts)).to_pylist()[begin:]
    chunks = pa.chunked_array([strings(texts[:begin]), strings(texts[begin:])], pa.large_string())
    assert c4_lines(chunks) == c4_lines(strings(texts))


def test_every_reason_is_told_and_paragraphs_stay_apart() -> None:
    text = (
        "Menu\nHome\n\nThe first line stays as it is.[12]\n\nThe second one, too, [edit] stays here.\n\n"
        "Too short.\n\nThis one goes on and on...\nPlease enable JavaScript to see this page.\n"
        "By this you accept our privacy policy.\n" + "x" * 1001 + " and four words more.\n"
    )
    [row] = c4_lines(strings([text])).to_pylist()
    data = text.encode()
    assert [(span["reason"], data[span["start"] : span["end"]].decode()) for span in row] == [
        ("no-end-mark", "Menu\nHome\n\n"),
        ("citation", "[12]"),
        ("citation", "[edit]"),
        ("few-words", "\n\nToo short.\n\n"),
        ("no-end-mark", "This one goes on and on...\n"),
        ("javascript", "Please enable JavaScript to see this page.\n"),
        ("policy-line", "By this you accept our privacy policy.\n"),
        ("long-word", "x" * 1001 + " and four words more.\n"),
    ]
    assert {span["reason"] for span in row} == set(C4_REASONS) - {""}
    assert apply_cuts(strings([text]), c4_lines(strings([text]))).to_pylist() == [
        "The first line stays as it is.\n\nThe second one, too,  stays here."
    ]


def test_c4_lines_agree_with_the_definition_on_real_pages(shared_data: Path) -> None:
    with gzip.open(shared_data / "text" / "c4_en_300.jsonl.gz", "rt", encoding="utf-8") as lines:
        c4 = [json.loads(line)["text"] for line in lines]
    assert apply_cuts(strings(c4), c4_lines(strings(c4))).to_pylist() == c4  # they have been through it
    wiki = gzip.decompress((shared_data / "text" / "wikipedia_en_30_articles.txt.gz").read_bytes()).decode()
    news = gzip.decompress((shared_data / "text" / "abc_news_2006" / "science.txt.gz").read_bytes()).decode("latin-1")
    texts = [wiki, *news.split("<TEXT>"), *wiki.split("\n\n")]
    cut = apply_cuts(strings(texts), c4_lines(strings(texts))).to_pylist()
    assert [words_of(text) for text in cut] == [[line.split() for line in c4_definition(text)[0]] for text in texts]


def test_the_configured_producers_are_asked() -> None:
    texts = strings(["We use cookies on all our pages.\nTitle\nThis is a line that stays.", ""])
    assert find_cuts(texts, CutsConfig()) == pa.array([[], []], SPANS_TYPE)
    assert find_cuts(texts, CutsConfig(producers=("policy-lines",))) == policy_lines(texts)
    for producers in (("c4-lines",), ("policy-lines", "c4-lines")):
        assert find_cuts(texts, CutsConfig(producers=producers)) == c4_lines(texts)  # type: ignore[arg-type]
    assert find_cuts(texts, CutsConfig(producers=("c4-lines",), c4_min_words=7)) == c4_lines(texts, 7)
    config = CutsConfig(producers=("c4-lines",), c4_reading="fineweb")
    assert find_cuts(texts, config) == c4_lines(texts, 3, "fineweb")


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.lists(PIECES, max_size=14).map("".join), max_size=4))
def test_what_is_cut_and_what_the_features_of_c4_s_views_count_are_the_same_lines(texts: list[str]) -> None:
    features = compute_features(strings(texts), QualityConfig(identify_language=False))
    for reading, prefix in (("c4", "c4_"), ("c4-datatrove", "c4_datatrove_"), ("fineweb", "fineweb_")):
        cut = apply_cuts(strings(texts), c4_lines(strings(texts), None, reading)).to_pylist()  # type: ignore[arg-type]
        assert features.column(f"{prefix}words").to_pylist() == [len(text.split()) for text in cut]
