"""Cuts of several producers, joined, cut what each of them would cut, once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from corpus.cuts import apply_cuts
from corpus.joined_cuts import SPANS_TYPE, join_cuts, spans_of

TEXT = "0123456789" * 3


@st.composite
def producers(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    """For some documents the sorted, disjoint spans of one producer."""
    documents = []
    for _ in range(3):
        borders = sorted(draw(st.sets(st.integers(0, len(TEXT)), max_size=8)))
        reason = draw(st.sampled_from(["a", "b"]))
        pairs = zip(borders[::2], borders[1::2], strict=False)
        documents.append([{"start": a, "end": b, "replacement": "", "reason": reason} for a, b in pairs])
    return documents


def covered(documents: list[list[dict[str, Any]]]) -> list[set[int]]:
    return [{place for span in spans for place in range(span["start"], span["end"])} for spans in documents]


@given(st.lists(producers(), min_size=1, max_size=3))
def test_what_any_producer_cuts_is_cut_and_nothing_else(found: list[list[list[dict[str, Any]]]]) -> None:
    joined = join_cuts([pa.array(documents, SPANS_TYPE) for documents in found])
    cut = [set.union(*sets) for sets in zip(*(covered(documents) for documents in found), strict=True)]
    assert covered(joined.to_pylist()) == cut
    texts = apply_cuts(pa.array([TEXT] * 3, pa.large_string()), joined)  # refuses spans that overlap
    assert texts.to_pylist() == ["".join(c for i, c in enumerate(TEXT) if i not in places) for places in cut]


def test_of_spans_that_overlap_the_first_gives_its_reason_and_replacement() -> None:
    def span(start: int, end: int, reason: str, replacement: str = "") -> dict[str, Any]:
        return {"start": start, "end": end, "replacement": replacement, "reason": reason}

    first = pa.array([[span(2, 6, "mail", "<mail>"), span(8, 10, "line")], []], SPANS_TYPE)
    second = pa.array([[span(4, 8, "words"), span(10, 12, "line"), span(20, 21, "x")], [span(0, 3, "y")]], SPANS_TYPE)
    assert join_cuts([first, pa.chunked_array([second])]).to_pylist() == [
        [span(2, 8, "mail", "<mail>"), span(8, 12, "line"), span(20, 21, "x")],
        [span(0, 3, "y")],
    ]
    assert join_cuts([first]) is first


def test_nulls_slices_and_no_spans_at_all() -> None:
    some = pa.array([None, [], [{"start": 1, "end": 2, "replacement": "", "reason": "a"}]], SPANS_TYPE)
    assert [len(spans) for spans in join_cuts([some.slice(1), some.slice(0, 2)]).to_pylist()] == [0, 1]
    empty = np.zeros(0, np.int64)
    none = pa.array([], pa.string())
    assert spans_of(2, empty, empty, empty, none, none).to_pylist() == [[], []]
