"""Cuts: what is found is what the definition says, and applying spans to whole buffers equals cutting text by text."""

from __future__ import annotations

import gzip
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import CutsConfig
from corpus.cuts import C4_REASONS, POLICY_PHRASES, SPANS_TYPE, apply_cuts, c4_lines, find_cuts, policy_lines

TEXTS = st.lists(st.text(st.sampled_from("aé中😀 \n"), max_size=12), max_size=8)


def spans_of(*rows: list[tuple[int, int, str]]) -> pa.Array:
    names = ("start", "end", "replacement", "reason")
    return pa.array([[dict(zip(names, (*span, "t"), strict=True)) for span in row] for row in rows], SPANS_TYPE)


def strings(texts: list[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


@st.composite
def texts_and_spans(draw: Any) -> tuple[list[str], list[list[tuple[int, int, str]]]]:
    texts = draw(TEXTS)
    rows = []
    for text in texts:
        places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
        pairs = list(zip(places[::2], places[1::2], strict=False))
        to_bytes = [len(text[:at].encode()) for at in range(len(text) + 1)]
        rows.append([(to_bytes[a], to_bytes[b], draw(st.sampled_from(["", "x", "é"]))) for a, b in pairs])
    return texts, rows


def cut_one(text: str, row: list[tuple[int, int, str]]) -> str:
    data, out, at = text.encode(), b"", 0
    for start, end, replacement in row:
        out += data[at:start] + replacement.encode()
        at = end
    return (out + data[at:]).decode()


@given(case=texts_and_spans(), begin=st.integers(0, 3))
def test_whole_buffers_are_cut_like_single_texts(
    case: tuple[list[str], list[list[tuple[int, int, str]]]], begin: int
) -> None:
    texts, rows = case
    array, spans = strings(texts).slice(begin), spans_of(*rows).slice(begin)
    cut = apply_cuts(array, spans)
    cut.validate(full=True)
    assert cut.to_pylist() == [cut_one(text, row) for text, row in zip(texts, rows, strict=True)][begin:]
    chunked = apply_cuts(pa.chunked_array([array], pa.large_string()), pa.chunked_array([spans], SPANS_TYPE))
    assert chunked == cut


@given(texts=TEXTS)
def test_no_spans_change_nothing(texts: list[str]) -> None:
    assert apply_cuts(strings(texts), spans_of(*[[] for _ in texts])).to_pylist() == texts
    assert apply_cuts(strings(texts), pa.nulls(len(texts), SPANS_TYPE)).to_pylist() == texts


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([(0, 2, ""), (1, 3, "")], "overlaps"),
        ([(2, 3, ""), (0, 1, "")], "overlaps"),
        ([(0, 99, "")], "outside"),
        ([(-1, 1, "")], "outside"),
        ([(3, 1, "")], "ends before"),
        ([(4, 5, "")], "UTF-8"),
        ([(0, 4, "")], "UTF-8"),
    ],
)
def test_spans_that_would_damage_a_text_are_refused_with_their_row(row: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"row 1: span .*{message}"):
        apply_cuts(strings(["first", "abcé中", "last"]), spans_of([], row, []))


def test_texts_and_spans_must_belong_together() -> None:
    with pytest.raises(ValueError, match="2 texts but 1 lists"):
        apply_cuts(strings(["a", "b"]), spans_of([]))
    with pytest.raises(ValueError, match="null"):
        apply_cuts(strings(["a", None]), spans_of([], []))  # type: ignore[list-item]


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


def c4_definition(text: str, min_words: int = 5) -> tuple[list[str], list[str]]:
    """(lines that stay, reasons of those that go) by the rules in words: the oracle."""
    kept, reasons = [], []
    for raw in text.split("\n"):
        line = raw.strip()
        if not line:
            continue
        long_word = any(len(word) > 1000 for word in line.split())
        line = re.sub(r"\[[0-9]*\]|\[edit\]|\[citation needed\]", "", line)
        lower = line.lower()
        if long_word:
            reasons.append("long-word")
        elif not line.endswith((".", "?", "!", '"')) or line.endswith("..."):
            reasons.append("no-end-mark")
        elif len(line.split()) < min_words:
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
@given(texts=st.lists(st.lists(PIECES, max_size=14).map("".join), max_size=4), min_words=st.integers(0, 7))
def test_c4_lines_are_those_of_the_definition(texts: list[str], min_words: int) -> None:
    spans = c4_lines(strings(texts), min_words)
    spans.validate(full=True)
    cut = apply_cuts(strings(texts), spans).to_pylist()
    for text, result, row in zip(texts, cut, spans.to_pylist(), strict=True):
        kept, reasons = c4_definition(text, min_words)
        assert words_of(result) == [line.split() for line in kept if line.strip()]
        assert {span["reason"] for span in row} - {"citation"} == set(reasons)
        assert all(before["end"] <= after["start"] for before, after in pairwise(row))
        if kept and not c4_definition(text.strip().split("\n")[-1], min_words)[0]:
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
