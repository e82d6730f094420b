"""The compiled loops behind `contamination.py`: folded words of whole buffers, and look-ups of word windows.

A window is looked up by a 64-bit hash and then compared character by character with the evaluation item's own words,
so that a hash collision is never a hit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import decode

_WORD, _OWN_WORD = 1, 3  # classes of `words.character_classes`
_SEED = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0xFF51AFD7ED558CCD)
_BASE = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(32)
_ONE = np.uint64(1)
_BITS = np.uint64(63)


@njit(cache=True, nogil=True)
def split_text(
    values: Any, start: int, end: int, classes: Any, folds: Any, letters: Any, ends: Any, hashes: Any, spans: Any
) -> tuple[int, int]:
    """Split values[start:end] into folded words; returns the number of words and of their letters.

    Filled: `letters` (uint32) folded code points of all words; `ends` (int64) where each word ends in them;
    `hashes` (uint64) a hash a word; `spans` (int64[words, 2]) the bytes of each word in `values`.
    """
    words, length = 0, 0
    inside = False
    state = _SEED
    position = start
    while position < end:
        code, size = decode(values, position, end)
        found = classes[code]
        if found in (_WORD, _OWN_WORD):
            if not inside or found == _OWN_WORD:
                if inside:
                    ends[words], hashes[words] = length, state
                    words += 1
                spans[words, 0] = position
                state = _SEED
            letters[length] = folds[code]
            length += 1
            state = (state ^ np.uint64(folds[code])) * _STEP
            state ^= state >> _SHIFT
            spans[words, 1] = position + size
            inside = True
            if found == _OWN_WORD:
                ends[words], hashes[words] = length, state
                words += 1
                inside = False
        elif inside:
            ends[words], hashes[words] = length, state
            words += 1
            inside = False
        position += size
    if inside:
        ends[words], hashes[words] = length, state
        words += 1
    return words, length


@njit(cache=True, nogil=True)
def split_texts(
    values: Any, offsets: Any, classes: Any, folds: Any, letters: Any, ends: Any, hashes: Any, spans: Any, bounds: Any
) -> tuple[int, int]:
    """`split_text` for every text, one after the other; `bounds[t]` is the first word of text t."""
    words, length = 0, 0
    for t in range(offsets.size - 1):
        bounds[t] = words
        more, longer = split_text(
            values, offsets[t], offsets[t + 1], classes, folds, letters[length:], ends[words:], hashes[words:],
            spans[words:],
        )  # fmt: skip
        ends[words : words + more] += length
        words += more
        length += longer
    bounds[offsets.size - 1] = words
    return words, length


@njit(cache=True, nogil=True)
def _same(letters: Any, ends: Any, a: int, other: Any, other_ends: Any, b: int, size: int) -> bool:
    """Whether `size` words from word a on are the words from word b on in the other text."""
    start_a = ends[a - 1] if a > 0 else 0
    start_b = other_ends[b - 1] if b > 0 else 0
    if ends[a + size - 1] - start_a != other_ends[b + size - 1] - start_b:
        return False
    for k in range(size):
        if ends[a + k] - start_a != other_ends[b + k] - start_b:
            return False
    for k in range(ends[a + size - 1] - start_a):  # noqa: SIM110 - numba knows no generators
        if letters[start_a + k] != other[start_b + k]:
            return False
    return True


@njit(cache=True, nogil=True)
def _prefix(hashes: Any, start: int, words: int, sums: Any) -> None:
    """Polynomial prefix sums of word hashes, from which `_window` takes the hash of any window."""
    sums[0] = 0
    for k in range(words):
        sums[k + 1] = sums[k] * _BASE + hashes[start + k]


@njit(cache=True, nogil=True)
def _power(size: int) -> Any:
    power = np.uint64(1)
    for _ in range(size):
        power *= _BASE
    return power


@njit(cache=True, nogil=True)
def _window(sums: Any, position: int, size: int, power: Any) -> Any:
    """The hash of `size` words, spread over all bits (the low bits of a polynomial alone are weak)."""
    state = (sums[position + size] - sums[position] * power) ^ (np.uint64(size) * _SEED)
    state = (state ^ (state >> _SHIFT)) * _STEP
    return state ^ (state >> _SHIFT)


@njit(cache=True, nogil=True)
def number_grams(
    letters: Any, ends: Any, hashes: Any, bounds: Any, ngram: int, shortest: int, table: Any,
    gram_words: Any, gram_sizes: Any, gram_hashes: Any, occurrences: Any,
) -> tuple[int, int]:  # fmt: skip
    """Give every different n-gram of the items a number; returns the number of grams and of occurrences.

    An item of fewer than `ngram` but at least `shortest` words is one gram, shorter ones have none. Filled:
    `gram_words` its first word in the item words; `gram_sizes` its words; `gram_hashes`; `occurrences`
    (int64[.., 2]) pairs of gram and item, an item's repeated gram as often as it stands there.
    `table` (int32, a power of two, filled with -1) is the open-addressed table from hash to gram.
    """
    mask = table.size - 1
    grams, found = 0, 0
    longest = 0
    for item in range(bounds.size - 1):
        longest = max(longest, bounds[item + 1] - bounds[item])
    sums = np.empty(longest + 1, dtype=np.uint64)
    for item in range(bounds.size - 1):
        start = bounds[item]
        words = bounds[item + 1] - start
        if words < shortest:
            continue
        size = min(words, ngram)
        power = _power(size)
        _prefix(hashes, start, words, sums)
        for k in range(words - size + 1):
            wanted = _window(sums, k, size, power)
            slot = int(wanted) & mask
            gram = table[slot]
            while gram >= 0 and not (
                gram_hashes[gram] == wanted
                and gram_sizes[gram] == size
                and _same(letters, ends, start + k, letters, ends, gram_words[gram], size)
            ):
                slot = (slot + 1) & mask
                gram = table[slot]
            if gram < 0:
                gram = grams
                table[slot] = gram
                gram_words[gram], gram_sizes[gram], gram_hashes[gram] = start + k, size, wanted
                grams += 1
            occurrences[found, 0], occurrences[found, 1] = gram, item
            found += 1
    return grams, found


@njit(cache=True, nogil=True)
def fill_table(gram_hashes: Any, table: Any) -> None:
    """Enter different grams into an open-addressed table (int32, a power of two, filled with -1)."""
    mask = table.size - 1
    for gram in range(gram_hashes.size):
        slot = int(gram_hashes[gram]) & mask
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = gram


@njit(cache=True, nogil=True)
def fill_filter(gram_hashes: Any, bits: Any) -> None:
    """Set a bit for every gram in a filter (uint64, a power of two of words) that stays in the processor's cache."""
    for wanted in gram_hashes:
        bits[(wanted >> _SHIFT) & np.uint64(bits.size - 1)] |= _ONE << (wanted & _BITS)


@njit(cache=True, nogil=True)
def find_grams(
    values: Any, offsets: Any, classes: Any, folds: Any,
    letters: Any, ends: Any, bits: Any, table: Any, gram_words: Any, gram_sizes: Any, gram_hashes: Any,
    gram_bounds: Any, gram_items: Any, item_grams: Any, item_sizes: Any, sizes: Any, minimum: float,
    rows: Any, byte_spans: Any,
) -> int:  # fmt: skip
    """Find the items of an index in documents; returns how many (document, item) pairs there are.

    Only the first `len(rows)` pairs are written, so a caller with too little room learns how much it needs.
    `rows` (int64[.., 3]): document (ascending), item, the item's different grams found. `byte_spans` (int64[.., 2]):
    the bytes in `values` of the longest run, i.e. of neighbouring windows that are all grams of the item; the first
    of equals. `sizes` are the different gram sizes of the index, ascending.
    """
    longest = 0
    for d in range(offsets.size - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    room = longest + 1
    own_letters = np.empty(room, dtype=np.uint32)
    own_ends = np.empty(room // 2 + 1, dtype=np.int64)
    own_hashes = np.empty(room // 2 + 1, dtype=np.uint64)
    own_spans = np.empty((room // 2 + 1, 2), dtype=np.int64)
    sums = np.empty(room // 2 + 2, dtype=np.uint64)
    mask = table.size - 1
    filter_mask = np.uint64(bits.size - 1)
    items = item_grams.size
    gram_seen = np.full(gram_words.size, -1, dtype=np.int64)  # the last document with the gram
    item_seen = np.full(items, -1, dtype=np.int64)
    hits = np.zeros(items, dtype=np.int64)
    run_start = np.zeros(items, dtype=np.int64)  # the run under way, by the first and last window
    run_last = np.zeros(items, dtype=np.int64)
    best_start = np.zeros(items, dtype=np.int64)
    best_last = np.zeros(items, dtype=np.int64)
    touched = np.empty(items, dtype=np.int64)
    pairs = 0
    for d in range(offsets.size - 1):
        words, _ = split_text(
            values, offsets[d], offsets[d + 1], classes, folds, own_letters, own_ends, own_hashes, own_spans
        )
        if words < sizes[0]:
            continue
        _prefix(own_hashes, 0, words, sums)
        count = 0
        for size in sizes:
            power = _power(size)
            before = -2  # the first word of the gram that the window before is
            for k in range(words - size + 1):
                wanted = _window(sums, k, size, power)
                found, before = before, -2
                if not (bits[(wanted >> _SHIFT) & filter_mask] >> (wanted & _BITS)) & _ONE:
                    continue
                slot = int(wanted) & mask
                gram = table[slot]
                while gram >= 0:
                    if gram_hashes[gram] == wanted and gram_sizes[gram] == size:
                        # Where the window before stood one word earlier in the item, only the last word is new.
                        first = gram_words[gram]
                        known = size - 1 if first == found + 1 else 0
                        if _same(own_letters, own_ends, k + known, letters, ends, first + known, size - known):
                            before = first
                            break
                    slot = (slot + 1) & mask
                    gram = table[slot]
                if gram < 0:
                    continue
                fresh = gram_seen[gram] != d
                gram_seen[gram] = d
                for j in range(gram_bounds[gram], gram_bounds[gram + 1]):
                    item = gram_items[j]
                    if item_seen[item] != d:
                        item_seen[item] = d
                        touched[count] = item
                        count += 1
                        hits[item] = 0
                        run_start[item] = best_start[item] = best_last[item] = k
                    elif run_last[item] != k - 1:
                        run_start[item] = k
                    run_last[item] = k
                    if k - run_start[item] > best_last[item] - best_start[item]:
                        best_start[item], best_last[item] = run_start[item], k
                    hits[item] += fresh
        for item in touched[:count]:
            # The same float32 comparison as of the stored share.
            if np.float32(hits[item] / item_grams[item]) >= np.float32(minimum):
                if pairs < rows.shape[0]:
                    rows[pairs, 0], rows[pairs, 1], rows[pairs, 2] = d, item, hits[item]
                    byte_spans[pairs, 0] = own_spans[best_start[item], 0]
                    byte_spans[pairs, 1] = own_spans[best_last[item] + item_sizes[item] - 1, 1]
                pairs += 1
    return pairs
