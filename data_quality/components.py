"""Connected components of documents that share buckets, range after range of their numbers, in memory a range bounds.

Edges lead from a document to one of a smaller or the same number. Each range joins the edges of its documents in a
forest (union-find); where that ties smaller documents outside together, it hands on an edge between them, keyed by the
larger one. Such edges only lead down, so that there is an end: every document then has one parent, the smallest of its
tree that its range knows, and looking up parents of parents (pointer jumping) gives the smallest of the component.
Sibeyn's node reduction (External connected components, SWAT 2004) with ranges for nodes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from data_quality import duplicates_kernels
from data_quality.bands import Buckets

Integers = npt.NDArray[np.int64]
BYTES = 96
"""What a range holds for a document, at most: the forest, what is written of it, and copies made on the way."""


def edges_of(buckets: Buckets) -> tuple[Integers, Integers]:
    """From every member of a bucket to its smallest one (that one's to itself): ascending members, smallest ones."""
    if not buckets.members.size:
        return buckets.members, buckets.members
    starts = buckets.starts
    least = np.minimum.reduceat(buckets.members, starts[:-1])
    others = np.repeat(least, np.diff(starts))
    order = np.argsort(buckets.members, kind="stable")
    return buckets.members[order], others[order]


class Forest:
    """The documents from `low` to below `high` with what is known of their components.

    Edges between smaller documents are given in lists of at most about `at_once`.
    """

    def __init__(self, low: int, high: int, at_once: int) -> None:
        self.low = low
        self.at_once = at_once
        self._parents = np.full(high - low, -1, dtype=np.int64)
        self._below = np.full(high - low, -1, dtype=np.int64)
        self._found = np.empty((2, 2 * at_once), dtype=np.int64)
        self._count = 0

    def join(self, numbers: Integers, others: Integers) -> Iterator[tuple[Integers, Integers]]:
        """Takes edges from documents of the range in; gives lists of edges between smaller ones that are full."""
        for start in range(0, numbers.size, self.at_once):
            some = slice(start, start + self.at_once)
            self._count = duplicates_kernels.join_range(
                numbers[some], others[some], self.low, self._parents, self._below, self._found, self._count
            )
            if self._count > self.at_once:
                yield from self.rest()

    def rest(self) -> Iterator[tuple[Integers, Integers]]:
        """The edges between smaller documents that were not given yet, sorted, each once; one list or none."""
        numbers, others = self._found[:, : self._count]
        self._count = 0
        if numbers.size:
            order = np.lexsort((others, numbers))
            numbers, others = numbers[order], others[order]
            new = np.append(True, (np.diff(numbers) != 0) | (np.diff(others) != 0))
            yield numbers[new], others[new]

    def known(self) -> tuple[Integers, Integers]:
        """The documents that had edges, ascending, and the smallest one known to be connected with each."""
        there = np.flatnonzero(self._parents >= 0)
        duplicates_kernels.flatten_range(self._parents)
        roots = self._parents[there]
        outside = self._below[roots]
        return there + self.low, np.where(outside >= 0, outside, roots + self.low)
