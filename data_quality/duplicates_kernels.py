"""Compiled loops of deduplication: band keys, connected buckets, and the pass that decides who stays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import capacity
from data_quality.mask_kernels import number_at
from data_quality.word_kernels import mix64

Array = Any

ZERO = np.uint64(0)
ONE = np.uint64(1)
KEY_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

CANDIDATES, VERIFIED = 0, 1


@njit(cache=True, nogil=True)
def band_keys(signatures: Array, places: Array, rows: int, keys: Array) -> None:
    """keys[band, i] (uint64) = a hash of the band of signatures[places[i]]: equal ones share a bucket."""
    for i in range(places.size):
        signature = signatures[places[i]]
        for band in range(keys.shape[0]):
            value = np.uint64(band)
            for k in range(band * rows, (band + 1) * rows):
                value = mix64(value * KEY_MULTIPLIER + np.uint64(signature[k]))
            keys[band, i] = value


@njit(cache=True, nogil=True)
def slots_in_order(hashes: Array, most: int) -> Any:
    """low, shift and number of slots, `most` at most, in the order of hashes: one has slot (hash - low) >> shift."""
    low, high = hashes[0], hashes[0]
    for value in hashes:
        low, high = min(low, value), max(high, value)
    shift = ZERO
    while (high - low) >> shift >= np.uint64(most):
        shift += ONE
    return low, shift, ((high - low) >> shift) + ONE


@njit(cache=True, nogil=True)
def sort_hashes(hashes: Array, order: Array) -> None:
    """Fills `order` (int64) with the places of the hashes (uint64) in ascending order, equal ones as they stand.

    Hashes are spread evenly, so that one distribution by their first bits leaves about one to a slot; slots that
    are fuller, for hashes that repeat, are sorted by comparison.
    """
    number = hashes.size
    if number == 0:
        return
    low, shift, slots = slots_in_order(hashes, 2 * number)
    starts = np.zeros(slots + ONE, dtype=np.int64)
    for value in hashes:
        starts[((value - low) >> shift) + ONE] += 1
    for slot in range(1, starts.size):
        starts[slot] += starts[slot - 1]
    for i in range(number):
        slot = (hashes[i] - low) >> shift
        order[starts[slot]] = i
        starts[slot] += 1
    begin = 0
    for slot in range(starts.size - 1):
        end = starts[slot]
        if end - begin > 32:
            some = order[begin:end].copy()
            order[begin:end] = some[np.argsort(hashes[some], kind="mergesort")]
        else:
            for i in range(begin + 1, end):
                place = order[i]
                value = hashes[place]
                k = i
                while k > begin and hashes[order[k - 1]] > value:
                    order[k] = order[k - 1]
                    k -= 1
                order[k] = place
        begin = end


@njit(cache=True, nogil=True)
def may_repeat(hashes: Array, some: Array) -> None:
    """some[i] = whether another hash has the first bits of hashes[i], or all: one of 8 does that is evenly spread.

    Sorted runs go through the slots from one end to the other.
    """
    low, shift, slots = slots_in_order(hashes, 16 * hashes.size)
    counts = np.zeros(slots, dtype=np.uint8)
    for value in hashes:
        slot = (value - low) >> shift
        counts[slot] = min(counts[slot] + 1, 2)
    for i in range(hashes.size):
        some[i] = counts[(hashes[i] - low) >> shift] == 2


@njit(cache=True, nogil=True)
def connect(members: Array, first: Array, parents: Array) -> None:
    """Joins the members of every bucket (`first` marks where one begins) in the forest `parents` (union-find).

    The root of a tree is its smallest member, so that the forest does not depend on the order of buckets.
    """
    for i in range(members.size):
        if first[i]:
            continue
        a, b = members[i - 1], members[i]
        while parents[a] != a:
            parents[a] = parents[parents[a]]
            a = parents[a]
        while parents[b] != b:
            parents[b] = parents[parents[b]]
            b = parents[b]
        if a < b:
            parents[b] = a
        else:
            parents[a] = b


@njit(cache=True, nogil=True)
def flatten(parents: Array) -> None:
    """Replaces every parent by its root; a parent is never larger than its child."""
    for i in range(parents.size):
        parents[i] = parents[parents[i]]


@njit(cache=True, nogil=True)
def join_range(numbers: Array, others: Array, low: int, parents: Array, below: Array, found: Array, count: int) -> int:
    """Joins edges from documents of a range, which begins at `low`, to smaller ones or themselves (union-find).

    `parents` (int64, by place in the range; -1: not seen) is a forest whose roots are smallest; below[root] is the
    smallest document before the range that its tree reaches, -1 if none. Where a tree reaches two, the edge from the
    larger to the smaller one is written to found[:, count]; returns the new count: one more an edge at most.
    """
    for i in range(numbers.size):
        a = numbers[i] - low
        if parents[a] < 0:
            parents[a] = a
        while parents[a] != a:
            parents[a] = parents[parents[a]]
            a = parents[a]
        reached = others[i]
        if reached >= low:
            b = reached - low
            if parents[b] < 0:
                parents[b] = b
            while parents[b] != b:
                parents[b] = parents[parents[b]]
                b = parents[b]
            if a == b:
                continue
            a, b = min(a, b), max(a, b)
            parents[b] = a
            reached = below[b]
            if reached < 0:
                continue
        if below[a] < 0:
            below[a] = reached
        elif below[a] != reached:
            found[0, count] = max(below[a], reached)
            found[1, count] = min(below[a], reached)
            count += 1
            below[a] = min(below[a], reached)
    return count


@njit(cache=True, nogil=True)
def flatten_range(parents: Array) -> None:
    """Replaces every parent by its root, leaving out -1; a parent is never larger than its child."""
    for i in range(parents.size):
        if parents[i] >= 0:
            parents[i] = parents[parents[i]]


@njit(cache=True, nogil=True)
def fill_groups(weights: Array, limit: int, group: Array) -> int:
    """Puts one item after the other into groups of at most `limit`, a heavier one alone; returns how many groups."""
    count, held = 0, 0
    for i in range(weights.size):
        if count == 0 or (held > 0 and held + weights[i] > limit):
            count, held = count + 1, 0
        held += weights[i]
        group[i] = count - 1
    return count


@njit(cache=True, nogil=True)
def shared(address: int, size: int, table: Array, mask: Any, needed: int) -> int:
    """How many of `size` shingles stand in the hash table; -1 as soon as it is certain that fewer than `needed` do."""
    may_miss = size - needed
    missed = 0
    for i in range(size):
        value = number_at(address + 8 * i)
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
    old: Array,
    already: Array,
    inserts: bool,
    addresses: Array,
    sizes: Array,
    document_starts: Array,
    document_buckets: Array,
    bucket_starts: Array,
    limit: int,
    threshold: float,
    keeper: Array,
    intersection: Array,
    union: Array,
    container: Array,
    contained: Array,
    capped: Array,
    statistics: Array,
) -> None:
    """Goes through documents 0, 1 … in π and decides each against the kept ones before it.

    Document d has the buckets document_buckets[document_starts[d]:document_starts[d + 1]] and sizes[d] distinct
    shingles (uint64) from addresses[d] in memory; old[d]: it was kept in an earlier generation.
    Bucket b has bucket_starts[b + 1] - bucket_starts[b] members. Improves, for all that are not old: keeper (-1: kept),
    intersection and union with it; container, the kept one that shares most of its shingles (-1: none), and
    contained, how many; capped, whether kept ones of a full bucket were passed over. `statistics` is added to.

    already[b]: so many kept documents before these stand in bucket b, with which they were compared. Without `inserts`
    documents are compared with old ones only, and not with each other.
    """
    number = old.size
    kept_in_bucket = np.empty(bucket_starts[-1], dtype=np.int64)
    kept_count = already.copy()
    seen = np.full(number, -1, dtype=np.int64)
    table = np.empty(1024, dtype=np.uint64)
    candidates = np.empty(1024, dtype=np.int64)
    for d in range(number):
        found = 0
        for e in range(document_starts[d], document_starts[d + 1] if not old[d] else document_starts[d]):
            bucket = document_buckets[e]
            capped[d] = capped[d] or kept_count[bucket] > limit
            for q in range(min(kept_count[bucket], limit) - already[bucket]):
                other = kept_in_bucket[bucket_starts[bucket] + q]
                if seen[other] != d:
                    seen[other] = d
                    if found == candidates.size:
                        candidates = np.append(candidates, candidates)
                    candidates[found] = other
                    found += 1
        statistics[CANDIDATES] += found

        own = sizes[d]
        filled = False
        mask = ZERO
        best, best_shared, best_union = keeper[d], intersection[d], union[d]
        most = contained[d]
        for c in range(found):
            other = candidates[c]
            theirs = sizes[other]
            # s / (m - s) >= t for s shared of m in all means s >= m·t / (1 + t); one less against rounding.
            # Fewer than that is of interest only if it holds more of the document than any other one.
            similar = int((own + theirs) * threshold / (1 + threshold)) - 1
            needed = min(similar, max(1, most))
            statistics[VERIFIED] += min(own, theirs) >= similar
            if min(own, theirs) < needed:
                continue
            if not filled:
                slots = capacity(own)
                if slots > table.size:
                    table = np.empty(slots, dtype=np.uint64)
                mask = np.uint64(slots - 1)
                table[:slots] = ZERO
                for i in range(own):
                    value = number_at(addresses[d] + 8 * i)
                    slot = value & mask
                    while table[slot] != ZERO:
                        slot = (slot + ONE) & mask
                    table[slot] = value
                filled = True
            both = shared(addresses[other], theirs, table, mask, needed)
            if both <= 0:
                continue
            if both > most or (both == most and other < container[d]):
                container[d], most = other, both
            either = own + theirs - both
            if both / either < threshold:
                continue
            ahead = both * best_union - best_shared * either
            if best < 0 or ahead > 0 or (ahead == 0 and other < best):
                best, best_shared, best_union = other, both, either

        contained[d] = most
        keeper[d] = best
        if best >= 0:
            intersection[d] = best_shared
            union[d] = best_union
            continue
        for e in range(document_starts[d], document_starts[d + 1] if inserts or old[d] else document_starts[d]):
            bucket = document_buckets[e]
            if kept_count[bucket] < limit:
                kept_in_bucket[bucket_starts[bucket] + kept_count[bucket] - already[bucket]] = d
            kept_count[bucket] += 1
