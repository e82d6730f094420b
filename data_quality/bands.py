"""Which documents may be similar: bands of their signatures sorted by hash, and the buckets of those that share one.

Documents bear numbers that count through all parts. Everything here is arrays: whoever calls it reads and writes files.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from data_quality import duplicates_kernels
from data_quality.duplicates_config import DeduplicateConfig

Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
HASHES = 1 << 64
RECORD = 16
"""What a document takes beside its shingles, in numbers of 8 bytes."""


@dataclass(frozen=True)
class Range:
    """The hashes from `low` to below `high` of one band."""

    band: int
    low: int
    high: int

    def of(self, hashes: Hashes, band_size: int) -> slice:
        """Where the range lies among the sorted hashes of all bands, `band_size` of each."""
        start = self.band * band_size
        band = hashes[start : start + band_size]
        ends = [
            band.size if edge >= HASHES else int(np.searchsorted(band, np.uint64(edge)))
            for edge in (self.low, self.high)
        ]
        return slice(start + ends[0], start + ends[1])


def divide(bands: int, pieces: int) -> list[tuple[Range, ...]]:
    """All hashes of all bands in at least `pieces` pieces of nearly equal size: whole bands, or ranges of one."""
    if pieces <= bands:
        edges = [number * bands // max(1, pieces) for number in range(max(1, pieces) + 1)]
        return [tuple(Range(band, 0, HASHES) for band in range(start, end)) for start, end in pairwise(edges)]
    ranges = -(-pieces // bands)
    edges = [number * HASHES // ranges for number in range(ranges + 1)]
    return [(Range(band, low, high),) for band in range(bands) for low, high in pairwise(edges)]


def band_entries(
    signatures: npt.NDArray[Any], rows: npt.NDArray[np.uint32], config: DeduplicateConfig
) -> tuple[Hashes, npt.NDArray[np.uint32]]:
    """The hashes of all bands of some rows of signatures [n, permutations], sorted, with the rows they belong to.

    As many of each band as there are rows.

    Raises
    ------
    ValueError
        If the signatures are too short for the bands.
    """
    config = config.banded(signatures.shape[1])
    hashes = np.empty((config.bands, rows.size), dtype=np.uint64)
    places = np.empty((config.bands, rows.size), dtype=np.uint32)
    duplicates_kernels.band_keys(signatures, rows, config.rows, hashes)
    for band in range(config.bands):
        order = sorted_places(hashes[band])
        hashes[band], places[band] = hashes[band][order], rows[order]
    return hashes.reshape(-1), places.reshape(-1)


def sorted_places(first: Hashes, *further: Hashes) -> Integers:
    """The places of hashes of several words in ascending order, equal ones as they stand."""
    order = np.empty(first.size, dtype=np.int64)
    duplicates_kernels.sort_hashes(first, order)
    for word in further:
        tied = first[order[1:]] == first[order[:-1]]
        if (tied & (word[order[1:]] < word[order[:-1]])).any():  # equal first words are nearly always whole copies
            return np.lexsort((*reversed(further), first))
    return order


@dataclass(frozen=True)
class Buckets:
    """Documents that stand together: their numbers, and where each bucket of two at least begins."""

    members: Integers
    first: npt.NDArray[np.bool_]

    @classmethod
    def none(cls) -> Buckets:
        """No buckets."""
        return cls(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.bool_))

    @classmethod
    def of(cls, keys: tuple[Hashes, ...], numbers: Integers) -> Buckets:
        """The documents whose keys agree, in the order of keys and, within a bucket, as they stand."""
        if keys[0].size:  # nearly all of them stand alone, and need not be sorted
            some = np.empty(keys[0].size, dtype=np.bool_)
            duplicates_kernels.may_repeat(keys[0], some)
            keys, numbers = tuple(key[some] for key in keys), numbers[some]
        order = sorted_places(*keys)
        begins = first_of_equal(tuple(key[order] for key in keys))
        alone = begins & np.append(begins[1:], True)[: order.size]
        return cls(numbers[order[~alone]], begins[~alone])

    @property
    def starts(self) -> Integers:
        """Bucket b is members[starts[b]:starts[b + 1]]."""
        return np.append(np.flatnonzero(self.first), self.members.size)

    def distinct_pairs(self) -> Buckets:
        """The same without buckets of two documents that stand there already: they lead to the same comparisons."""
        starts = self.starts
        pairs = starts[:-1][np.diff(starts) == 2]
        one, other = self.members[pairs].astype(np.uint64), self.members[pairs + 1].astype(np.uint64)
        mixed = one * duplicates_kernels.KEY_MULTIPLIER + other
        mixed = (mixed ^ (mixed >> np.uint64(32))) * duplicates_kernels.KEY_MULTIPLIER
        order = sorted_places(mixed)
        again = (one[order[1:]] == one[order[:-1]]) & (other[order[1:]] == other[order[:-1]])
        repeated = pairs[order[1:][again]]
        stays = np.ones(self.members.size, dtype=np.bool_)
        stays[repeated] = stays[repeated + 1] = False
        return Buckets(self.members[stays], self.first[stays])

    def histogram(self) -> npt.NDArray[np.int64]:
        """How many buckets have 2, 3-4, 5-8 … members: entry k counts those of up to 2^(k + 1)."""
        sizes = np.diff(self.starts)
        return np.bincount(np.ceil(np.log2(sizes)).astype(np.int64) - 1 if sizes.size else sizes)


def joined(buckets: list[Buckets]) -> Buckets:
    """All buckets, one list after the other."""
    if not buckets:
        return Buckets.none()
    return Buckets(np.concatenate([some.members for some in buckets]), np.concatenate([some.first for some in buckets]))


@dataclass(frozen=True)
class Groups:
    """Documents that share buckets, directly or through others, put together in groups of limited size.

    `numbers` ascend; `group` is the group of each. Scheduling only: no bucket crosses two groups.
    """

    numbers: Integers
    group: npt.NDArray[np.int32]
    count: int

    @classmethod
    def of(cls, buckets: list[Buckets], sizes: Any, limit: int) -> Groups:
        """Connected components, the smallest number first, put together until a group is full.

        Parameters
        ----------
        sizes
            `sizes(numbers)` gives the shingles of documents (ascending numbers).
        limit
            Shingles of a group; a component that has more is a group of its own.
        """
        numbers = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *(some.members for some in buckets)]))
        parents = np.arange(numbers.size)
        for some in buckets:
            duplicates_kernels.connect(np.searchsorted(numbers, some.members), some.first, parents)
        duplicates_kernels.flatten(parents)
        roots, component = np.unique(parents, return_inverse=True)
        weights = np.bincount(component, weights=sizes(numbers) + RECORD, minlength=roots.size).astype(np.int64)
        group_of = np.zeros(roots.size, dtype=np.int32)
        count = duplicates_kernels.fill_groups(weights, limit, group_of)
        return cls(numbers, group_of[component], count)


def find_pairs(keys: tuple[Hashes, Hashes], sorted_keys: tuple[Hashes, Hashes]) -> tuple[Integers, Integers]:
    """Places in `keys` and in `sorted_keys` (distinct, sorted by both words) where the same pair of words stands."""
    high, low = sorted_keys
    start = np.searchsorted(high, keys[0])
    mine = np.flatnonzero(start < high.size)
    theirs = start[mine]
    found = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    while mine.size:  # more than once only where first words are equal and second ones are not
        equal = high[theirs] == keys[0][mine]
        mine, theirs = mine[equal], theirs[equal]
        same = low[theirs] == keys[1][mine]
        found[0].append(mine[same])
        found[1].append(theirs[same])
        mine, theirs = mine[~same], theirs[~same] + 1
        inside = theirs < high.size
        mine, theirs = mine[inside], theirs[inside]
    return np.concatenate(found[0]), np.concatenate(found[1])


def matching(wanted: Hashes, among: Hashes) -> Integers:
    """Where the sorted hashes `among` are one of `wanted` (sorted, distinct): as many searches as are wanted."""
    start = np.searchsorted(among, wanted, side="left")
    count = np.searchsorted(among, wanted, side="right") - start
    before = np.cumsum(count) - count
    return np.repeat(start - before, count) + np.arange(int(count.sum()))


def first_of_each(hashes: Hashes, order: npt.NDArray[np.int32], limit: int) -> Integers:
    """Places of at most `limit` entries of every hash, those of the smallest `order`; sorted by hash and order."""
    sorted_by = np.lexsort((order, hashes))
    begins = np.flatnonzero(np.diff(hashes[sorted_by], prepend=~hashes[sorted_by[:1]]))
    rank = np.arange(hashes.size) - np.repeat(begins, np.diff(begins, append=hashes.size))
    return sorted_by[rank < limit]


def first_of_equal(keys: tuple[Hashes, ...]) -> npt.NDArray[np.bool_]:
    """Where keys that are sorted differ in any word from the one before."""
    begins = np.zeros(keys[0].size, dtype=np.bool_)
    begins[:1] = True
    for key in keys:
        begins[1:] |= key[1:] != key[:-1]
    return begins


def runs(keys: tuple[Hashes, Hashes]) -> tuple[Integers, Integers]:
    """Places sorted by pairs of words, and where among them each pair begins."""
    order = sorted_places(*keys)
    return order, np.flatnonzero(first_of_equal((keys[0][order], keys[1][order])))
