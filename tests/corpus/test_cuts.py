"""Cuts: applying spans to whole buffers equals cutting text by text."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.cuts import apply_cuts
from storage.schemas import CUTS

SPANS_TYPE = CUTS.field("spans").type
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
