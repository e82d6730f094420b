"""The compiled pass over words behind `features.py`: whole Arrow buffers in, one row of integers a document out.

It counts and never divides; ratios and their guards stand in `features.py`, definitions in `feature_table.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import (
    LAST,
    SEED,
    SHIFT,
    Array,
    capacity,
    decode,
    encode,
    first,
    hash_lower_ascii,
    hash_range,
    load,
    load_eight,
    readable,
    step,
)
from data_quality.mask_kernels import BLOCK
from data_quality.split_kernels import CLASS_BITS, LATIN, LETTER, OWN_WORD, SOLID, WORD, core, split_words

# Columns of the `counts` array that `count_words` fills; numba freezes them into the machine code.
WORDS, NON_SYMBOL_WORDS, NON_SYMBOL_CHARACTERS, WORD_CHARACTERS, ALPHABETIC_WORDS, LONGEST_WORD = range(6)
STOP_WORDS, LANGUAGE_STOP_WORDS, LETTERS, NUMBERS, WHITE_SPACE = range(6, 11)
SCRIPT, SCRIPT_LETTERS, SCRIPTED_LETTERS, SCRIPTS = range(11, 15)
TOP_2_GRAM_CHARACTERS = 15  # then 3, 4: characters under the most frequent n-gram
DUPLICATE_5_GRAM_CHARACTERS = 18  # then 6, 7, 8, 9, 10: characters under repeated n-grams
COUNTS = 24

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_SMALL = np.uint64(0x2020202020202020)  # makes small letters of capitals, and letters of nothing else


@njit(cache=True, nogil=True)
def hash_folded(values: Array, start: int, end: int, is_ascii: bool, folds: Array, scratch: Array) -> Any:
    """The hash of values[start:end] with its case folded; `scratch` is uint8[2 * (end - start)] or more."""
    if is_ascii:
        return hash_lower_ascii(values, start, end)
    size: Any = np.int64(0)
    while start < end:
        code, width = decode(values, start, end)
        size = encode(folds[code], scratch, size)
        start += width
    zero: Any = np.int64(0)  # numba compiles a call anew for every literal
    return hash_range(readable(values, scratch), zero, size)


@njit(cache=True, nogil=True)
def find(keys: Array, key: Any) -> int:
    """The place of a key in an open-addressed table (uint64, a power of two of places, 0 where free), or -1."""
    mask = keys.size - 1
    place: int = int((key * LAST) >> SHIFT) & mask
    while keys[place] != 0:
        if keys[place] == key:
            return place
        place = (place + 1) & mask
    return -1


@njit(cache=True, nogil=True)
def listed(hashed: Any, number: int) -> Any:
    """The key of a folded word's hash in stop-word list `number`."""
    return step(hashed, number + 1) | np.uint64(1)


@njit(cache=True, nogil=True)
def short_place(key: Any, mask: int) -> int:
    """Where in a table of mask + 1 places a word of at most eight bytes stands, which is its own key; no other does."""
    place: int = int((key * LAST) >> SHIFT) & mask
    return place


@njit(cache=True, nogil=True)
def enter_short_words(words: Array, places: Array, short_keys: Array, short_stops: Array) -> bool:
    """Puts words (uint64) and their `places` (int64) where `short_place` says; False if two belong to one place.

    `short_keys` (uint64 zeros) and `short_stops` (int64) are of one size, a power of two.
    """
    for i in range(words.size):
        place = short_place(words[i], short_keys.size - 1)
        if short_keys[place] != 0 and short_keys[place] != words[i]:
            return False
        short_keys[place], short_stops[place] = words[i], places[i]
    return True


@njit(cache=True, nogil=True)
def enter_words(values: Array, offsets: Array, lists: Array, keys: Array, places: Array) -> None:
    """Gives every folded word of a large_string array a place in `keys`, and writes it to `places` (int64).

    `lists` (int64) is the number of each word's stop-word list, -1 where the key is to be that of `unigrams`.
    """
    mask = keys.size - 1
    for i in range(offsets.size - 1):
        hashed = hash_range(values, offsets[i], offsets[i + 1])
        key = listed(hashed, lists[i]) if lists[i] >= 0 else hashed | np.uint64(1)
        place = int((key * LAST) >> SHIFT) & mask
        while keys[place] != 0 and keys[place] != key:
            place = (place + 1) & mask
        keys[place] = key
        places[i] = place


@njit(cache=True, nogil=True)
def _top_characters(starts: Array, grams: Array, alive: Array, living: int, best: int, n: int) -> int:
    """Characters under the n-grams that are the one at `best`, each counted once."""
    wanted = grams[best]
    covered, characters = 0, 0
    for k in range(living):
        i = alive[k]
        if grams[i] == wanted:
            characters += starts[i + n] - starts[max(i, covered)]
            covered = i + n
    return characters


@njit(cache=True, nogil=True)
def _repeated_pairs(
    word_hashes: Array, starts: Array, words: int, table: Array, grams: Array, seen: Array, alive: Array, counts: Array
) -> int:
    """The first step of `_repeated_n_grams`, n = 2, which looks at every word; says how many are alive."""
    size = 2 * capacity(words)  # sparse, since most pairs occur once and should find their place free
    table[:size] = -1
    mask = size - 1
    best: Any = np.int64(-1)
    best_count = np.int64(1)
    for i in range(words - 1):
        gram = step(word_hashes[i] * LAST, word_hashes[i + 1])  # the order of the two words matters
        grams[i], alive[i] = gram, i
        slot = int((gram * LAST) >> SHIFT) & mask
        earliest = table[slot]
        while earliest >= 0 and grams[earliest] != gram:
            slot = (slot + 1) & mask
            earliest = table[slot]
        if earliest < 0:
            table[slot] = i
            seen[i] = 1
            continue
        count = seen[earliest] + 1
        seen[earliest] = count
        seen[i] = 2  # marks this position as one of several
        if count > best_count or (count == best_count and earliest < best):
            best, best_count = np.int64(earliest), np.int64(count)
    if best < 0:
        return 0
    living = keep_repeated(alive, words - 1, seen)
    counts[TOP_2_GRAM_CHARACTERS] = _top_characters(starts, grams, alive, living, best, 2)
    return living


@njit(cache=True, nogil=True)
def keep_repeated(alive: Array, living: int, seen: Array) -> int:
    """Leaves of the first `living` positions in `alive` those that were seen more than once; says how many they are."""
    kept = 0
    for k in range(living):
        here = alive[k]
        alive[kept] = here  # without a branch: which ones repeat is hard to predict
        kept += seen[here] > 1
    return kept


@njit(cache=True, nogil=True)
def keep_neighbours(alive: Array, living: int) -> int:
    """Leaves of the first `living` positions in `alive`, ascending, those behind which the next one is there too."""
    kept = 0
    for k in range(living - 1):
        here = alive[k]
        alive[kept] = here
        kept += alive[k + 1] == here + 1
    return kept


@njit(cache=True, nogil=True)
def _repeated_n_grams(
    word_hashes: Array, starts: Array, words: int, table: Array, grams: Array, seen: Array, alive: Array, counts: Array
) -> None:
    """Fill the n-gram columns of one document's `counts`, for n from 2 to 10.

    An n-gram can only repeat where both (n-1)-grams inside it repeat, so only those positions go on to n: exact,
    and in ordinary text few are left after n = 3. `starts[i]` is the number of word characters before word i.
    `grams[i]` is the hash of the n-gram at i, `seen[i]` how often the n-gram first seen at i was met,
    `alive` the ascending positions of n-grams that occur twice or more.
    """
    living = _repeated_pairs(word_hashes, starts, words, table, grams, seen, alive, counts)
    for n in range(3, 11):
        kept = keep_neighbours(alive, living)  # the (n-1)-gram one word on must repeat too
        if kept < 2:
            return
        size = capacity(kept)
        table[:size] = -1
        best: Any = np.int64(-1)
        best_count = np.int64(1)
        covered, duplicate_characters = 0, 0
        for k in range(kept):
            i = alive[k]
            grams[i] = step(grams[i], word_hashes[i + n - 1])
            earliest = first(table, size - 1, grams, i)
            if earliest == i:
                seen[i] = 1
                continue
            count = seen[earliest] + 1
            seen[earliest] = count
            seen[i] = 2  # marks this position as one of several
            if count > best_count or (count == best_count and earliest < best):
                best, best_count = np.int64(earliest), np.int64(count)
            if n >= 5:
                duplicate_characters += starts[i + n] - starts[max(i, covered)]
                covered = i + n
        if best < 0:
            return
        if n <= 4:
            counts[TOP_2_GRAM_CHARACTERS + n - 2] = _top_characters(starts, grams, alive, kept, best, n)
        else:
            counts[DUPLICATE_5_GRAM_CHARACTERS + n - 5] = duplicate_characters
        living = keep_repeated(alive, kept, seen)


@njit(cache=True, nogil=True)
def _count_scripts(letters: Array, row: Array) -> None:
    """Fills the columns on letters and scripts from the letters by number of the script, 0 being that of none."""
    others = 0
    for script in range(LATIN + 1, letters.size):
        others |= letters[script]
    last = letters.size if others else LATIN + 1  # most texts are of one script
    row[LETTERS] = letters[0]
    for script in range(1, last):
        found = letters[script]
        row[LETTERS] += found
        row[SCRIPTED_LETTERS] += found
        row[SCRIPTS] += found > 0
        if found > row[SCRIPT_LETTERS]:
            row[SCRIPT], row[SCRIPT_LETTERS] = script, found


@njit(cache=True, nogil=True)
def count_words(
    values: Array, offsets: Array, kinds: Array, folds: Array, scripts: Array, stop_keys: Array, short_keys: Array,
    short_stops: Array, stop_number: int, lists: Array, unigrams: Array, log_probabilities: Array, unknown: float,
    counts: Array, sums: Array,
) -> None:  # fmt: skip
    """Count everything about the words and characters of every document of a large_string array.

    Parameters
    ----------
    values, offsets
        uint8 data and int64[documents + 1] offsets of the array: document d is values[offsets[d]:offsets[d + 1]].
    kinds, folds, scripts
        uint8, uint32 and uint8 tables over all code points: class and bits, case folding, number of the script.
    stop_keys, short_keys, short_stops, stop_number
        Table of `listed` stop words, list 0 being that of all documents; the words of list 0 themselves, each where
        `short_place` says, and the place in `stop_keys` of each (int64), both empty where that is not possible; words
        in list 0.
    lists
        int64[documents]: the number of the document's own list, 0 if it has none.
    unigrams, log_probabilities, unknown
        Table of folded words, the logarithm of each one's probability (float64, by place), and that of all others.
        Without places nothing is looked up.
    counts
        int64[documents, COUNTS], overwritten.
    sums
        float64[documents], overwritten: the sum of the logarithms over all non-symbol words.
    """
    documents = offsets.size - 1
    longest = 0
    for d in range(documents):
        longest = max(longest, offsets[d + 1] - offsets[d])
    # Two neighbouring words of one byte need a byte between them and class-3 characters have two bytes or more,
    # so there are at most (bytes + 1) / 2 words. Untouched pages of these cost nothing.
    room = longest // 2 + 2
    word_hashes = np.empty(room, dtype=np.uint64)
    starts = np.empty(room + 1, dtype=np.int64)
    grams = np.empty(room, dtype=np.uint64)
    seen = np.empty(room, dtype=np.int32)
    alive = np.empty(room, dtype=np.int32)
    table = np.empty(2 * capacity(room), dtype=np.int32)
    stop_seen = np.full(stop_keys.size + 1, -1, dtype=np.int64)
    short_mask = short_keys.size - 1
    letters = np.zeros(256, dtype=np.int64)
    scratch, tail = np.empty(2 * longest + 8, dtype=np.uint8), np.empty(BLOCK, dtype=np.uint8)
    begins, ends = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
    lengths, mets = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.uint8)

    for d in range(documents):
        row = counts[d]
        row[:] = 0
        words, row[NUMBERS], row[WHITE_SPACE] = split_words(
            values, offsets[d], offsets[d + 1], kinds, scripts, begins, ends, lengths, mets, letters, tail
        )
        word_characters, non_symbol_words, non_symbol_characters, alphabetic_words, longest_word = 0, 0, 0, 0, 0
        stop_words, own_stop_words = 0, 0
        total = 0.0
        own_list = lists[d]
        is_short = short_keys.size > 0 and own_list == 0 and unigrams.size == 0
        for i in range(words):
            start, at, length, met = begins[i], ends[i], int(lengths[i]), int(mets[i])
            size = at - start
            if size <= 8 and start + 8 <= values.size:  # `hash_range` without a call
                word_hashes[i] = step(
                    SEED + np.uint64(size), load_eight(values, start) & (_ALL >> np.uint64(64 - 8 * size))
                )
            else:
                word_hashes[i] = hash_range(values, start, at)
            starts[i] = word_characters
            word_characters += length
            longest_word = max(longest_word, length)
            alphabetic_words += (met & LETTER) >> 2
            if met & SOLID == 0:
                continue
            non_symbol_words += 1
            non_symbol_characters += length
            if stop_words == stop_number and own_list == 0 and unigrams.size == 0:
                continue
            is_ascii = at - start == length
            own = length == 1 and met & CLASS_BITS == OWN_WORD
            if not own and met & CLASS_BITS != WORD:
                start, at = core(values, start, at, kinds)
            if is_short and (is_ascii or own):
                # Without a branch: whether a word is a stop word is hard to predict.
                key = load(values, start, at) | _SMALL >> np.uint64(64 - 8 * min(at - start, 8))
                place = short_place(key, short_mask)
                is_listed = (at - start <= 8) & (short_keys[place] == key)
                place = short_stops[place] if is_listed else stop_keys.size
                stop_words += is_listed & (stop_seen[place] != d)
                stop_seen[place] = d
                continue
            hashed = hash_folded(values, start, at, is_ascii, folds, scratch)
            place = find(stop_keys, listed(hashed, 0))
            if place >= 0 and stop_seen[place] != d:
                stop_seen[place] = d
                stop_words += 1
            if own_list > 0:
                place = find(stop_keys, listed(hashed, own_list))
                if place >= 0 and stop_seen[place] != d:
                    stop_seen[place] = d
                    own_stop_words += 1
            if unigrams.size > 0:
                place = find(unigrams, hashed | np.uint64(1))
                total += log_probabilities[place] if place >= 0 else unknown
        starts[words] = word_characters
        sums[d] = total
        row[WORDS], row[WORD_CHARACTERS], row[LONGEST_WORD] = words, word_characters, longest_word
        row[NON_SYMBOL_WORDS], row[NON_SYMBOL_CHARACTERS] = non_symbol_words, non_symbol_characters
        row[ALPHABETIC_WORDS] = alphabetic_words
        row[STOP_WORDS], row[LANGUAGE_STOP_WORDS] = stop_words, own_stop_words
        _count_scripts(letters, row)
        _repeated_n_grams(word_hashes, starts, words, table, grams, seen, alive, row)


@njit(cache=True, nogil=True)
def collect_cores(
    values: Array, offsets: Array, kinds: Array, folds: Array, scripts: Array, hashes: Array, starts: Array, ends: Array
) -> int:
    """The folded hash and the byte range of the core of every non-symbol word, in order; says how many there are.

    `hashes` (uint64), `starts` and `ends` (int64) have room for half of the bytes and one a document.
    """
    longest = 0
    for d in range(offsets.size - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    room = longest // 2 + 2
    begins, stops = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
    lengths, mets = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.uint8)
    letters = np.zeros(256, dtype=np.int64)
    scratch, tail = np.empty(2 * longest + 8, dtype=np.uint8), np.empty(BLOCK, dtype=np.uint8)
    number = 0
    for d in range(offsets.size - 1):
        words, _, _ = split_words(
            values, offsets[d], offsets[d + 1], kinds, scripts, begins, stops, lengths, mets, letters, tail
        )
        for i in range(words):
            if mets[i] & SOLID:
                left, right = core(values, begins[i], stops[i], kinds)
                is_ascii = stops[i] - begins[i] == lengths[i]
                hashes[number] = hash_folded(values, left, right, is_ascii, folds, scratch) | np.uint64(1)
                starts[number], ends[number] = left, right
                number += 1
    return number
