"""Gopher's features by datatrove's own formulas, quirks included: whole Arrow buffers in, one row of integers out.

Written after what datatrove v0.10's GopherQualityFilter and GopherRepetitionFilter compute, so that their decisions can
be reproduced; definitions stand in `feature_table.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import (
    SEED,
    Array,
    capacity,
    decode,
    duplicates,
    first,
    hash_range,
    load,
    load_eight,
    readable,
    step,
    store_eight,
)
from data_quality.feature_kernels import find, keep_neighbours, keep_repeated, listed
from data_quality.mask_kernels import BLOCK, NONE, ONE, block_at, byte_mask, first_one, low_bits
from data_quality.scan_kernels import DOT, ELLIPSIS, HYPHEN, ends_in_dots, strip
from data_quality.split_kernels import CLASS_BITS, LETTER, NUMBER, PUNCTUATION, split_words

WORDS, NON_SYMBOL_WORDS, NON_SYMBOL_CHARACTERS, ALPHABETIC_WORDS, STOP_WORDS = range(5)
ALL_LINES, BULLET_LINES, ELLIPSIS_LINES = range(5, 8)
PIECES, DUPLICATE_PIECES, DUPLICATE_PIECE_CHARACTERS = range(8, 11)
PARAGRAPHS, DUPLICATE_PARAGRAPHS, DUPLICATE_PARAGRAPH_CHARACTERS = range(11, 14)
TOP_2_GRAM_CHARACTERS = 14  # then 3, 4
DUPLICATE_5_GRAM_CHARACTERS = 17  # then 6 to 10
COUNTS = 23

_DATATROVE = 8  # a bit of `punctuation.mark_bits`
# Marks between two letters or numbers that end one word, are a word, and begin another; , only if not between numbers.
_PARTING = np.array(sorted(map(ord, '/:<>=,;!?"()[]{}*…—–“”„«»')), np.int64)
_APOSTROPHE, _RIGHT_QUOTE, _COMMA, _COLON = 0x27, 0x2019, 0x2C, 0x3A
_PREFIX = 16
_BULLET, _ELLIPSIS = (np.uint64(int.from_bytes(mark.encode(), "little")) for mark in "•…")
_feed = byte_mask((0x0A, 0x0A))
_break = byte_mask((0x0A, 0x0D), (0x1C, 0x1E), (0xC2, 0xC2), (0xE2, 0xE2))  # where `_line_break` may find one


@njit(cache=True, nogil=True)
def _parts(values: Array, start: int, end: int, kinds: Array, starts: Array, ends: Array, number: int) -> int:
    """Writes the words that values[start:end], one word between white space, falls into; says how many there are now.

    A mark is a word, and so is a run of . or - or …; but it belongs to the word where letters or numbers touch it on
    both sides, unless it is one of _PARTING, a hyphen between two letters or two numbers, or an apostrophe, which
    begins a word (John 's). A full stop also belongs to the word before it that is one letter or holds one (U.S.).
    """
    word, dotted, length = -1, False, 0  # where the word under way starts
    before = np.int64(0)  # kind of the character before
    at = start
    while at < end:
        code, size = decode(values, at, end)
        kind = np.int64(kinds[code])
        if kind & CLASS_BITS != PUNCTUATION:
            if word < 0:
                word, dotted, length = at, False, 0
            length += 1
            before = kind
            at += size
            continue
        touches, after = word >= 0 and before & CLASS_BITS != PUNCTUATION, np.int64(PUNCTUATION)
        if at + size < end:
            following, _ = decode(values, at + size, end)
            after = np.int64(kinds[following])
        numbers = before & NUMBER != 0 and after & NUMBER != 0
        if touches and after & CLASS_BITS != PUNCTUATION:
            if code in (_APOSTROPHE, _RIGHT_QUOTE):
                starts[number], ends[number] = word, at
                number += 1
                word, dotted, length = at, False, 0
                before = kind
                at += size
                continue
            parting = False
            for mark in _PARTING:
                parting |= mark == code
            if code == HYPHEN:
                parting = numbers or (before & LETTER != 0 and after & LETTER != 0)
            if not parting or (numbers and code in (_COMMA, _COLON)):
                dotted |= code == DOT
                before = kind
                at += size
                continue
        elif touches and code == DOT and at + 1 == end and (dotted or length == 1):
            at += 1
            break
        if word >= 0:
            starts[number], ends[number] = word, at
            number += 1
            word = -1
        mark_start = at
        at += size
        while at < end and code in (DOT, HYPHEN, ELLIPSIS):
            following, width = decode(values, at, end)
            if following != code:
                break
            at += width
        starts[number], ends[number] = mark_start, at
        number += 1
        before = np.int64(PUNCTUATION)
    if word >= 0:
        starts[number], ends[number] = word, at
        number += 1
    return number


@njit(cache=True, nogil=True)
def _line_break(values: Array, at: int, end: int) -> int:
    """Bytes of what str.splitlines breaks at, 0 if that is not at `at`."""
    byte = values[at]
    if byte < 0x80:
        if byte == 13 and at + 1 < end and values[at + 1] == 10:
            return 2
        return 1 if 10 <= byte <= 13 or 28 <= byte <= 30 else 0
    if byte == 0xC2:
        return 2 if at + 1 < end and values[at + 1] == 0x85 else 0
    if byte == 0xE2 and at + 2 < end and values[at + 1] == 0x80:
        return 3 if values[at + 2] in (0xA8, 0xA9) else 0
    return 0


@njit(cache=True, nogil=True)
def _characters(values: Array, start: int, end: int) -> int:
    characters = 0
    for at in range(start, end):
        characters += values[at] & 0xC0 != 0x80
    return characters


@njit(cache=True, nogil=True)
def _count_split(
    values: Array, start: int, end: int, least: int, hashes: Array, lengths: Array, table: Array, tail: Array
) -> tuple[int, int, int]:
    """Pieces between runs of `least` line feeds or more, how many are duplicates, and the characters of these."""
    number, piece, at = 0, start, start
    while True:
        run: Any = end  # where a line feed is that was not looked at
        while at < end:
            feeds = _feed(block_at(values, at, tail)) & low_bits(end - at)
            if feeds != NONE:
                run = at + np.int64(first_one(feeds))
                break
            at += BLOCK
        at = run
        while run < end and values[run] == 10:
            run += 1
        if run - at >= least:
            hashes[number], lengths[number] = hash_range(values, piece, at), _characters(values, piece, at)
            number += 1
            piece = run
        if run == end:
            hashes[number], lengths[number] = hash_range(values, piece, end), _characters(values, piece, end)
            repeats, characters = duplicates(hashes, lengths, number + 1, table)
            return number + 1, repeats, characters
        at = run


@njit(cache=True, nogil=True)
def _count_line(values: Array, start: int, end: int, marks: Array, row: Array) -> None:
    """Counts a line of str.splitlines."""
    row[ALL_LINES] += 1
    left, right = strip(values, start, end, marks)
    if left == right:
        return
    row[BULLET_LINES] += values[left] == HYPHEN or (values[left] >= 0x80 and _stands(values, left, right, _BULLET))
    if values[right - 1] == DOT:
        row[ELLIPSIS_LINES] += ends_in_dots(values, left, right)
    elif values[right - 1] >= 0x80:
        row[ELLIPSIS_LINES] += _stands(values, max(left, right - 3), right, _ELLIPSIS)


@njit(cache=True, nogil=True)
def _stands(values: Array, at: int, end: int, three: Any) -> bool:
    """True if the three bytes from `at` on, of those before `end`, are these."""
    return bool(at + 3 <= end and load(values, at, at + 3) == three)


@njit(cache=True, nogil=True)
def _count_lines(values: Array, begin: int, end: int, marks: Array, tail: Array, row: Array) -> None:
    """Counts the lines of str.splitlines in values[begin:end]."""
    line, at = begin, begin
    while at < end:
        breaks = _break(block_at(values, at, tail)) & low_bits(end - at)
        while breaks != NONE:
            here: Any = at + np.int64(first_one(breaks))
            breaks &= breaks - ONE
            if here < line:  # the line feed behind a carriage return
                continue
            width = 1 if values[here] == 10 else _line_break(values, here, end)
            if width > 0:
                _count_line(values, line, here, marks, row)
                line = here + width
        at += BLOCK
    if line < end:
        _count_line(values, line, end, marks, row)


@njit(cache=True, nogil=True)
def _count_top_n_grams(
    hashes: Array, before: Array, words: int, table: Array, grams: Array, times: Array, alive: Array, row: Array
) -> None:
    """Fills the columns on the most frequent 2- to 4-gram, of equal ones the first.

    An n-gram can only repeat where both (n-1)-grams inside it do, so that only those positions go on from n = 2.
    """
    living = max(words - 1, 0)
    for i in range(living):
        alive[i] = i
        grams[i] = step(SEED, hashes[i])
    for n in range(2, 5):
        if words < n:
            return
        if n > 2:
            living = keep_neighbours(alive, living)
        size = capacity(living)
        table[:size] = -1
        best, best_count = np.int64(0), np.int64(1)
        for k in range(living):
            i = alive[k]
            grams[i] = step(grams[i], hashes[i + n - 1])
            earliest = first(table, size - 1, grams, i)
            if earliest == i:
                times[i] = 1
                continue
            count = times[earliest] + 1
            times[earliest] = count
            times[i] = 2  # marks this position as one of several
            if count > best_count or (count == best_count and earliest < best):
                best, best_count = np.int64(earliest), np.int64(count)
        row[TOP_2_GRAM_CHARACTERS + n - 2] = best_count * (before[best + n] - before[best] + n - 1)
        living = keep_repeated(alive, living, times)


@njit(cache=True, nogil=True)
def _count_duplicate_n_grams(
    joined: Array, bytes_before: Array, before: Array, words: int, table: Array, grams: Array, times: Array,
    alive: Array, row: Array,
) -> None:  # fmt: skip
    """Fills the columns on duplicate 5- to 10-grams, each the bytes of its words joined by nothing.

    Where _PREFIX bytes stand but once behind the beginning of a word, no n-gram of so many bytes repeats: exact, and
    in ordinary text few others are left. Shorter n-grams are all looked at.
    """
    total = bytes_before[words]
    size = capacity(words)
    table[:size] = -1
    positions = max(words - 4, 0)
    for i in range(positions):
        start = bytes_before[i]
        times[i] = 1
        if start + _PREFIX > total:
            continue
        middle: Any = np.int64(start + 8)  # numba compiles a call anew for every literal
        grams[i] = step(step(SEED, load_eight(joined, np.int64(start))), load_eight(joined, middle))
        earliest = first(table, size - 1, grams, i)
        if earliest != i:
            times[earliest] = times[i] = 2
    living = 0
    for i in range(positions):
        alive[living] = i
        living += (times[i] > 1) | (bytes_before[i + 5] - bytes_before[i] < _PREFIX)
    for n in range(5, 11):
        size = capacity(living)
        table[:size] = -1
        repeated, following = 0, 0
        for k in range(living):
            i = alive[k]
            if i + n > words:
                break
            start, end = bytes_before[i], bytes_before[i + n]
            if i < following or (times[i] == 1 and end - start >= _PREFIX):
                continue
            grams[i] = hash_range(joined, start, end)
            if first(table, size - 1, grams, i) != i:
                repeated += before[i + n] - before[i]
                following = i + n
        row[DUPLICATE_5_GRAM_CHARACTERS + n - 5] = repeated


@njit(cache=True, nogil=True)
def count_as_datatrove(
    values: Array, offsets: Array, separate: bool, kinds: Array, scripts: Array, marks: Array, stop_keys: Array,
    counts: Array,
) -> None:  # fmt: skip
    """Count what datatrove's Gopher filters look at in every document of a large_string array.

    Parameters
    ----------
    values, offsets
        uint8 data and int64[documents + 1] offsets of the array: document d is values[offsets[d]:offsets[d + 1]].
    separate
        Whether marks of punctuation are words (see `_parts`), else words stand between white space.
    kinds, scripts, marks
        uint8 tables over all code points: `character_kinds`, `script_table`, `punctuation.mark_bits`.
    stop_keys
        Table of `listed` hashes of the stop words as they are, list 0.
    counts
        int64[documents, COUNTS], overwritten.
    """
    longest = 0
    for d in range(offsets.size - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    room = longest + 2
    starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    whole_starts, whole_ends = np.empty(room, np.int64), np.empty(room, np.int64)
    characters, mets = np.empty(room, np.int32), np.empty(room, np.uint8)
    hashes, lengths = np.empty(room, np.uint64), np.empty(room, np.int64)
    grams, times = np.empty(room, np.uint64), np.empty(room, np.int64)
    joined, bytes_before = np.empty(room + 8, np.uint8), np.empty(room, np.int64)  # words without what is between them
    before, word_kinds = np.empty(room, np.int64), np.empty(room, np.uint8)
    alive = np.empty(room, np.int64)
    table = np.empty(capacity(room), np.int32)
    letters, tail = np.zeros(256, np.int64), np.empty(BLOCK, np.uint8)
    stop_seen = np.full(stop_keys.size, -1, np.int64)

    for d in range(offsets.size - 1):
        row = counts[d]
        row[:] = 0
        begin, end = offsets[d], offsets[d + 1]
        if begin == end:
            continue
        words, _, _ = split_words(
            values, begin, end, kinds, scripts, whole_starts, whole_ends, characters, mets, letters, tail
        )
        number = 0
        for i in range(words):
            start, stop, met = whole_starts[i], whole_ends[i], mets[i]
            if separate and met & PUNCTUATION and characters[i] > 1:
                last = _parts(values, start, stop, kinds, starts, ends, number)
                word_kinds[number:last] = 0
                number = last
                continue
            starts[number], ends[number] = start, stop
            # Of ASCII that holds a letter or a number all is known.
            is_known = (stop - start == characters[i]) & (met & (LETTER | NUMBER) != 0)
            word_kinds[number] = met if is_known else 0
            number += 1
        words = number
        before[0], bytes_before[0] = 0, 0
        for i in range(words):
            start, stop, place = starts[i], ends[i], bytes_before[i]
            for k in range(0, stop - start, 8):
                store_eight(joined, np.int64(place + k), load(values, start + k, stop))
            solid, alphabetic, length = True, word_kinds[i] & LETTER != 0, stop - start
            if word_kinds[i] == 0:
                solid, length = False, 0
                while start < stop:
                    code, size = decode(values, start, stop)
                    solid |= marks[code] & _DATATROVE == 0
                    alphabetic |= kinds[code] & LETTER != 0
                    length += 1
                    start += size
            hashes[i] = hash_range(values, starts[i], stop)
            before[i + 1], bytes_before[i + 1] = before[i] + length, place + stop - starts[i]
            row[NON_SYMBOL_WORDS] += solid
            row[NON_SYMBOL_CHARACTERS] += length if solid else 0
            row[ALPHABETIC_WORDS] += alphabetic
            place = find(stop_keys, listed(hashes[i], 0))
            if place >= 0 and stop_seen[place] != d:
                stop_seen[place] = d
                row[STOP_WORDS] += 1
        row[WORDS] = words
        _count_top_n_grams(hashes, before, words, table, grams, times, alive, row)
        _count_duplicate_n_grams(readable(values, joined), bytes_before, before, words, table, grams, times, alive, row)

        row[PIECES], row[DUPLICATE_PIECES], row[DUPLICATE_PIECE_CHARACTERS] = _count_split(
            values, begin, end, 1, hashes, lengths, table, tail
        )
        left, right = strip(values, begin, end, marks)
        row[PARAGRAPHS], row[DUPLICATE_PARAGRAPHS], row[DUPLICATE_PARAGRAPH_CHARACTERS] = _count_split(
            values, left, right, 2, hashes, lengths, table, tail
        )
        _count_lines(values, begin, end, marks, tail, row)
