"""Connected components found range by range are those of the whole, in as many rounds as ranges at most."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_quality.bands import Buckets, joined
from data_quality.components import Forest, edges_of


def smallest_connected(buckets: list[list[int]]) -> dict[int, int]:
    """The smallest of its component for every member, by relabelling until nothing changes."""
    label = {member: member for bucket in buckets for member in bucket}
    changed = True
    while changed:
        changed = False
        for bucket in buckets:
            least = min(label[member] for member in bucket)
            changed |= any(label[member] != least for member in bucket)
            label |= dict.fromkeys(bucket, least)
    return label


@settings(deadline=None, max_examples=200)
@given(data=st.data(), width=st.integers(1, 45), at_once=st.integers(1, 9))
def test_components_across_ranges_are_those_of_the_whole(data: st.DataObject, width: int, at_once: int) -> None:
    number = 40
    buckets = data.draw(
        st.lists(st.lists(st.integers(0, number - 1), min_size=2, max_size=5, unique=True), max_size=30)
    )
    pieces = [edges_of(Buckets.none())]
    for bucket in buckets:
        first = np.arange(len(bucket)) == 0
        pieces.append(edges_of(joined([Buckets(np.array(bucket), first)] * 2)))
    ranges = [(low, min(low + width, number)) for low in range(0, number, width)]
    edges = dict.fromkeys(range(len(ranges)), pieces)
    known = {}
    turns = 0
    while edges:
        turns += 1
        further: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        for i, some in edges.items():
            low, high = ranges[i]
            forest = Forest(low, high, at_once)
            found = []
            for numbers, others in some:
                inside = slice(*np.searchsorted(numbers, [low, high]))
                found += list(forest.join(numbers[inside], others[inside]))
            found += list(forest.rest())
            known[i] = forest.known()
            for numbers, others in found:
                assert (others < numbers).all()
                assert (numbers < low).all()
                assert numbers.size <= 2 * at_once
                assert (np.diff(numbers) >= 0).all()
                for lower in np.unique(numbers // width).tolist():
                    further.setdefault(lower, []).append((numbers, others))
        edges = {i: [known[i], *some] for i, some in further.items()}
    assert turns <= len(ranges)
    parent = {n: p for numbers, roots in known.values() for n, p in zip(numbers.tolist(), roots.tolist(), strict=True)}
    assert list(parent) == sorted(parent) == sorted({member for bucket in buckets for member in bucket})
    for member in sorted(parent):
        parent[member] = parent[parent[member]]
    assert parent == smallest_connected(buckets)
