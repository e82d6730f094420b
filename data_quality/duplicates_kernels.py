"""Compiled loops of deduplication: band keys, comparison of texts, and the pass that decides who stays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.word_kernels import mix64, slots_for

Array = Any

ZERO = np.uint64(0)
ONE = np.uint64(1)
KEY_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

CANDIDATES, VERIFIED, CAPPED = 0, 1, 2


@njit(cache=True, nogil=True)
def band_keys(signatures: Array, band: int, rows: int, keys: Array) -> None:
    """keys[i] (uint64) = a hash of signatures[i, band·rows : (band + 1)·rows]; documents of one key share a bucket."""
    for i in range(signatures.shape[0]):
        value = np.uint64(band)
        for k in range(band * rows, (band + 1) * rows):
            value = mix64(value * KEY_MULTIPLIER + np.uint64(signatures[i, k]))
        keys[i] = value


@njit(cache=True, nogil=True)
def texts_differ(data: Array, offsets: Array, known: Array, starts: Array, ends: Array) -> int:
    """The first text i of data/offsets that is not byte for byte known[starts[i]:ends[i]]; -1 if there is none."""
    for i in range(offsets.size - 1):
        size = offsets[i + 1] - offsets[i]
        if size != ends[i] - starts[i]:
            return i
        for k in range(size):
            if data[offsets[i] + k] != known[starts[i] + k]:
                return i
    return -1


@njit(cache=True, nogil=True)
def shared(shingles: Array, table: Array, mask: Any, needed: int) -> int:
    """How many of `shingles` stand in the hash table; -1 as soon as it is certain that fewer than `needed` do."""
    size: int = shingles.size
    may_miss = size - needed
    missed = 0
    for value in shingles:
        slot = value & mask
        while table[slot] != ZERO and table[slot] != value:
            slot = (slot + ONE) & mask
        if table[slot] == ZERO:
            missed += 1
            if missed > may_miss:
                return -1
    return size - missed


@njit(cache=True, nogil=True)
def decide(
    documents: Array,
    position: Array,
    shingles: Array,
    offsets: Array,
    document_starts: Array,
    document_buckets: Array,
    bucket_starts: Array,
    kept_in_bucket: Array,
    kept_count: Array,
    limit: int,
    threshold: float,
    seen: Array,
    keeper: Array,
    intersection: Array,
    union: Array,
    statistics: Array,
) -> None:
    """Goes through `documents` (ascending numbers in π) and decides each against the kept ones before it.

    Document d has the buckets document_buckets[document_starts[d]:document_starts[d + 1]] and the distinct
    shingles shingles[offsets[p]:offsets[p + 1]] with p = position[d]. kept_in_bucket, from bucket_starts[b],
    lists the first kept documents of bucket b, kept_count[b] counts all of them. Fills keeper (-1: kept),
    intersection and union of the removed; `seen` is scratch (-1 at first); `statistics` is added to.
    """
    table = np.empty(1024, dtype=np.uint64)
    candidates = np.empty(1024, dtype=np.int64)
    for d in documents:
        found = 0
        capped = False
        for e in range(document_starts[d], document_starts[d + 1]):
            bucket = document_buckets[e]
            capped = capped or kept_count[bucket] > limit
            for q in range(min(kept_count[bucket], limit)):
                other = kept_in_bucket[bucket_starts[bucket] + q]
                if seen[other] != d:
                    seen[other] = d
                    if found == candidates.size:
                        candidates = np.append(candidates, candidates)
                    candidates[found] = other
                    found += 1
        statistics[CANDIDATES] += found

        own = shingles[offsets[position[d]] : offsets[position[d] + 1]]
        filled = False
        mask = ZERO
        best, best_shared, best_union = -1, 0, 1
        for c in range(found):
            other = candidates[c]
            theirs = shingles[offsets[position[other]] : offsets[position[other] + 1]]
            smaller, larger = min(own.size, theirs.size), max(own.size, theirs.size)
            if smaller / larger < threshold:
                continue  # the similarity is at most this ratio
            if not filled:
                slots = slots_for(own.size)
                if slots > table.size:
                    table = np.empty(slots, dtype=np.uint64)
                mask = np.uint64(slots - 1)
                table[:slots] = ZERO
                for value in own:
                    slot = value & mask
                    while table[slot] != ZERO:
                        slot = (slot + ONE) & mask
                    table[slot] = value
                filled = True
            statistics[VERIFIED] += 1
            # s / (m - s) >= t for s shared of m in all means s >= m·t / (1 + t); one less against rounding.
            needed = int((own.size + theirs.size) * threshold / (1 + threshold)) - 1
            both = shared(theirs, table, mask, needed)
            if both < 0:
                continue
            either = own.size + theirs.size - both
            if both / either < threshold:
                continue
            ahead = both * best_union - best_shared * either
            if best < 0 or ahead > 0 or (ahead == 0 and other < best):
                best, best_shared, best_union = other, both, either

        keeper[d] = best
        if best >= 0:
            intersection[d] = best_shared
            union[d] = best_union
            continue
        if capped:
            statistics[CAPPED] += 1
        for e in range(document_starts[d], document_starts[d + 1]):
            bucket = document_buckets[e]
            if kept_count[bucket] < limit:
                kept_in_bucket[bucket_starts[bucket] + kept_count[bucket]] = d
            kept_count[bucket] += 1
