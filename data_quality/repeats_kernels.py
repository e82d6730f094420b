"""Compiled loops that find passages of texts by hash: lines, paragraphs, and windows of words.

A hash only finds: whatever is marked as a repeat was compared with the other passage, byte by byte or word by word.
The two lowest bits of every hash say what kind of passage it is of.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.word_kernels import mix64

Array = Any  # numba compiles by dtype; the docstrings name it

LINE, PARAGRAPH, WORDS = 0, 1, 2
_LF = 10
_KIND = np.uint64(3)
_SEED = np.uint64(0x9E3779B97F4A7C15)
_BYTE = np.uint64(0xD6E8FEB86659FD93)
_WORD = np.uint64(0xA24BAED4963EE407)
_ONE, _TWO, _SHIFT, _BITS = np.uint64(1), np.uint64(2), np.uint64(32), np.uint64(63)
_LAST_CODE_POINT = np.int64(0x10FFFF)


@njit(cache=True, nogil=True)
def fill_table(hashes: Array, bits: Array, table: Array) -> None:
    """Enters different hashes into an open-addressed table (int64, a power of two, filled with -1).

    `bits` (uint64, a power of two of words) is a filter that stays in the processor's cache: most look-ups end there.
    """
    mask = table.size - 1
    for i in range(hashes.size):
        bits[(hashes[i] >> _SHIFT) & np.uint64(bits.size - 1)] |= _ONE << ((hashes[i] >> _TWO) & _BITS)
        slot = np.int64(hashes[i] >> _TWO) & mask
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = i


@njit(cache=True, nogil=True)
def look_up(wanted: Any, hashes: Array, bits: Array, table: Array) -> Any:
    """Where `wanted` stands in `hashes`, -1 if it does not."""
    if not (bits[(wanted >> _SHIFT) & np.uint64(bits.size - 1)] >> ((wanted >> _TWO) & _BITS)) & _ONE:
        return -1
    mask = table.size - 1
    slot = np.int64(wanted >> _TWO) & mask
    while table[slot] >= 0:
        if hashes[table[slot]] == wanted:
            return table[slot]
        slot = (slot + 1) & mask
    return -1


@njit(cache=True, nogil=True)
def add_up(
    hashes: Array, order: Array, owners: Array, counted: Array, documents: Array, first: Array, limits: Array,
    totals: Array, chosen: Array,
) -> None:  # fmt: skip
    """The documents of every hash over all parts.

    Parameters
    ----------
    hashes, order
        uint64, and int64: their places in ascending order, equal ones by part.
    owners, documents, first
        By place: the part, how many of its documents hold the hash, and (or nothing) the smallest of their ids.
    counted, limits
        By part, whether its documents count; by kind, in how many a passage may stand without being repeated.
    totals, chosen
        int64, written in the order of `order`: the documents of the counted parts, 0 of what is not repeated, and the
        place of the counted part with the smallest `first`.
    """
    begin = 0
    while begin < order.size:
        value = hashes[order[begin]]
        total, best = 0, -1
        end = begin
        while end < order.size and hashes[order[end]] == value:
            place = order[end]
            if counted[owners[place]]:
                total += documents[place]
                if best < 0 or (first.size > 0 and first[place] < first[best]):
                    best = place
            end += 1
        totals[begin:end] = total if total > limits[value & _KIND] else 0
        chosen[begin:end] = best
        begin = end


# ------------------------------------------------------------------------------------------- lines and paragraphs


@njit(cache=True, nogil=True)
def _is_space(byte: int) -> bool:
    return byte == 32 or 9 <= byte <= 13


@njit(cache=True, nogil=True)
def next_line(data: Array, position: int, limit: int) -> tuple[int, int, int]:
    """(start, end, next): the line at `position` without ASCII white space around it, and where the next begins."""
    end = position
    while end < limit and data[end] != _LF:
        end += 1
    following = min(end + 1, limit)
    start = position
    while start < end and _is_space(data[start]):
        start += 1
    while end > start and _is_space(data[end - 1]):
        end -= 1
    return start, end, following


@njit(cache=True, nogil=True)
def next_paragraph(data: Array, position: int, limit: int) -> tuple[int, int, int]:
    """As `next_line` for the paragraph at `position`; blank lines go with the paragraph before them."""
    start, end, at = next_line(data, position, limit)
    while start == end and at < limit:
        start, end, at = next_line(data, at, limit)
    blank = start == end
    while at < limit:
        more, last, following = next_line(data, at, limit)
        if more == last:
            blank = True
        elif blank:
            break
        else:
            end = last
        at = following
    return start, end, at


@njit(cache=True, nogil=True)
def _passage(data: Array, position: int, limit: int, kind: int) -> tuple[int, int, int]:
    if kind == LINE:
        return next_line(data, position, limit)
    return next_paragraph(data, position, limit)


@njit(cache=True, nogil=True)
def _hash_bytes(data: Array, start: int, end: int, seed: Any, kind: int) -> Any:
    state = seed ^ np.uint64(end - start)
    i = start
    while i + 8 <= end:
        word = np.uint64(data[i])
        for k in range(1, 8):
            word |= np.uint64(data[i + k]) << np.uint64(8 * k)
        state = (state ^ word) * _BYTE
        state ^= state >> _SHIFT
        i += 8
    while i < end:
        state = (state ^ np.uint64(data[i])) * _BYTE
        i += 1
    return (mix64(state) & ~_KIND) | np.uint64(kind)


@njit(cache=True, nogil=True)
def hash_passages(
    data: Array, offsets: Array, kind: int, shortest: int, seed: Any, hashes: Array, documents: Array
) -> int:
    """All lines (or paragraphs, by `kind`) of at least `shortest` bytes; returns how many there are.

    Written: `hashes` (uint64) and `documents` (int64, the number of the text). With too little room nothing is written
    behind it; the caller comes again.
    """
    number = 0
    for d in range(offsets.size - 1):
        position, limit = offsets[d], offsets[d + 1]
        while position < limit:
            start, end, position = _passage(data, position, limit, kind)
            if end - start >= shortest:
                if number < hashes.size:
                    hashes[number] = _hash_bytes(data, start, end, seed, kind)
                    documents[number] = d
                number += 1
    return number


@njit(cache=True, nogil=True)
def find_passages(
    data: Array, offsets: Array, kind: int, shortest: int, seed: Any, hashes: Array, bits: Array, table: Array,
    rows: Array, documents: Array, places: Array,
) -> int:  # fmt: skip
    """The lines (or paragraphs) whose hash is among `hashes`; returns how many there are.

    Written as by `hash_passages`: `rows` of `hashes`, `documents`, and `places` (int64[.., 4]): start and end in `data`
    without white space around, then of what would be cut.
    """
    number = 0
    for d in range(offsets.size - 1):
        position, limit = offsets[d], offsets[d + 1]
        while position < limit:
            start, end, following = _passage(data, position, limit, kind)
            if end - start >= shortest:
                row = look_up(_hash_bytes(data, start, end, seed, kind), hashes, bits, table)
                if row >= 0:
                    if number < rows.size:
                        rows[number], documents[number] = row, d
                        places[number, 0], places[number, 1] = start, end
                        places[number, 2], places[number, 3] = position, following
                    number += 1
            position = following
    return number


@njit(cache=True, nogil=True)
def same_bytes(
    data: Array, starts: Array, ends: Array, other: Array, other_starts: Array, other_ends: Array, same: Array
) -> None:
    """same[i] = whether data[starts[i]:ends[i]] is other[other_starts[i]:other_ends[i]]."""
    for i in range(starts.size):
        size = ends[i] - starts[i]
        equal = size == other_ends[i] - other_starts[i]
        k = 0
        while equal and k < size:
            equal = data[starts[i] + k] == other[other_starts[i] + k]
            k += 1
        same[i] = equal


# ------------------------------------------------------------------------------------------------ words


@njit(cache=True, nogil=True)
def _decode(data: Array, i: int, limit: int) -> tuple[Any, int]:
    """The code point that begins at a byte above 127, and its number of bytes."""
    byte = data[i]
    if byte < 0xE0:
        size, code = 2, np.int64(byte) & 0x1F
    elif byte < 0xF0:
        size, code = 3, np.int64(byte) & 0x0F
    else:
        size, code = 4, np.int64(byte) & 0x07
    if i + size > limit:
        return _LAST_CODE_POINT, limit - i  # cannot happen in a valid Arrow string, must not read past it
    for k in range(1, size):
        code = (code << 6) | (np.int64(data[i + k]) & 0x3F)
    return min(code, _LAST_CODE_POINT), size


@njit(cache=True, nogil=True)
def _code_at(data: Array, i: int, limit: int) -> tuple[Any, int]:
    if data[i] < 128:
        return np.int64(data[i]), 1
    return _decode(data, i, limit)


@njit(cache=True, nogil=True)
def split_words(
    data: Array, start: int, limit: int, ascii_words: Array, classes: Array, folds: Array, seed: Any,
    words: Array, starts: Array, ends: Array,
) -> int:  # fmt: skip
    """The folded words of data[start:limit], as `words.split_words` splits; returns how many.

    Written: `words` (uint64) a hash of each, `starts` and `ends` (int64) its bytes in `data`.
    """
    count = 0
    value = seed
    inside = False
    i = start
    while i < limit:
        byte = data[i]
        if byte < 128:
            folded = ascii_words[byte]
            if folded != 0:
                if not inside:
                    starts[count] = i
                    inside = True
                value = (value ^ np.uint64(folded)) * _BYTE
            elif inside:
                words[count], ends[count] = mix64(value), i
                count += 1
                value = seed
                inside = False
            i += 1
            continue
        code, size = _decode(data, i, limit)
        found = classes[code]
        if found == 1:
            if not inside:
                starts[count] = i
                inside = True
            value = (value ^ np.uint64(folds[code])) * _BYTE
        else:
            if inside:
                words[count], ends[count] = mix64(value), i
                count += 1
                value = seed
                inside = False
            if found == 3:
                starts[count], ends[count] = i, i + size
                words[count] = mix64((seed ^ np.uint64(folds[code])) * _BYTE)
                count += 1
        i += size
    if inside:
        words[count], ends[count] = mix64(value), limit
        count += 1
    return count


@njit(cache=True, nogil=True)
def _power(size: int) -> Any:
    power = np.uint64(1)
    for _ in range(size):
        power *= _WORD
    return power


@njit(cache=True, nogil=True)
def _window_hashes(words: Array, count: int, width: int, hashes: Array) -> int:
    """The hash of every window of `width` words: hashes[i] (uint64) of words[i : i + width]; returns how many."""
    leaving = _power(width)
    rolling = np.uint64(0)
    for i in range(count):
        rolling = rolling * _WORD + words[i]
        if i >= width:
            rolling -= leaving * words[i - width]
        if i + 1 >= width:
            hashes[i + 1 - width] = (mix64(rolling) & ~_KIND) | np.uint64(WORDS)
    return max(0, count - width + 1)


@njit(cache=True, nogil=True)
def _minima(values: Array, count: int, width: int, queue: Array, minima: Array) -> int:
    """The smallest of every `width` neighbours: minima[i] of values[i : i + width]; returns how many.

    `queue` (int64, room for `count`) holds the positions whose values may still become the smallest.
    """
    head, tail = 0, 0
    for i in range(count):
        while tail > head and values[queue[tail - 1]] >= values[i]:
            tail -= 1
        queue[tail] = i
        tail += 1
        if queue[head] + width <= i:
            head += 1
        if i + 1 >= width:
            minima[i + 1 - width] = values[queue[head]]
    return max(0, count - width + 1)


@njit(cache=True, nogil=True)
def _room(offsets: Array) -> int:
    """The most words a text of `offsets` can have: two of one byte have a byte between them, others have more."""
    longest = 0
    for d in range(offsets.size - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    return longest // 2 + 1


@njit(cache=True, nogil=True)
def hash_seeds(
    data: Array, offsets: Array, ascii_words: Array, classes: Array, folds: Array, width: int, inner: int, seed: Any,
    hashes: Array, documents: Array,
) -> int:  # fmt: skip
    """The seeds of every window of `width` words: the smallest hash of its runs of `inner` words; returns how many.

    Equal windows have equal seeds, and neighbouring windows mostly share theirs (winnowing: Schleimer, Wilkerson,
    Aiken 2003), so that few hashes stand for all windows. Written as by `hash_passages`.
    """
    room = _room(offsets)
    words = np.empty(room, np.uint64)
    starts, ends, queue = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    grams, minima = np.empty(room, np.uint64), np.empty(room, np.uint64)
    number = 0
    for d in range(offsets.size - 1):
        count = split_words(data, offsets[d], offsets[d + 1], ascii_words, classes, folds, seed, words, starts, ends)
        if count < width:
            continue
        windows = _minima(grams, _window_hashes(words, count, inner, grams), width - inner + 1, queue, minima)
        for i in range(windows):
            if i == 0 or minima[i] != minima[i - 1]:
                if number < hashes.size:
                    hashes[number], documents[number] = minima[i], d
                number += 1
    return number


@njit(cache=True, nogil=True)
def find_windows(
    data: Array, offsets: Array, order: Array, ascii_words: Array, classes: Array, folds: Array, width: int,
    inner: int, seed: Any, seeds: Array, bits: Array, table: Array,
    hashes: Array, documents: Array, runs: Array, positions: Array, run_places: Array,
) -> tuple[int, int]:  # fmt: skip
    """The windows whose seed is among `seeds`, text by text in `order`; returns how many, and their runs.

    A run is neighbouring windows. Written for every window: its hash, its text, the number of its run and its first
    word counted in the run; for every run `run_places` (int64[.., 3]): the text, and its bytes in `data`. With too
    little room nothing is written behind it.
    """
    room = _room(offsets)
    words = np.empty(room, np.uint64)
    starts, ends, queue = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    grams, minima = np.empty(room, np.uint64), np.empty(room, np.uint64)
    number, run = 0, 0
    for d in order:
        count = split_words(data, offsets[d], offsets[d + 1], ascii_words, classes, folds, seed, words, starts, ends)
        if count < width:
            continue
        windows = _minima(grams, _window_hashes(words, count, inner, grams), width - inner + 1, queue, minima)
        _window_hashes(words, count, width, grams)
        first = -1
        known, last = False, np.uint64(0)
        for i in range(windows):
            if i == 0 or minima[i] != last:
                last = minima[i]
                known = look_up(last, seeds, bits, table) >= 0
            if known:
                if first < 0:
                    first = i
                if number < hashes.size:
                    hashes[number], documents[number], runs[number], positions[number] = grams[i], d, run, i - first
                number += 1
            if first >= 0 and (not known or i + 1 == windows):
                if run < run_places.shape[0]:
                    run_places[run, 0], run_places[run, 1] = d, starts[first]
                    run_places[run, 2] = ends[(i if known else i - 1) + width - 1]
                run += 1
                first = -1
    return number, run


@njit(cache=True, nogil=True)
def _same_word(
    data: Array, start: int, end: int, other: Array, other_start: int, other_end: int,
    ascii_words: Array, folds: Array,
) -> bool:  # fmt: skip
    """Whether two words are equal after folding."""
    i, j = start, other_start
    while i < end and j < other_end:
        a, b = data[i], other[j]
        if a < 128 and b < 128:
            if ascii_words[a] != ascii_words[b]:
                return False
            i += 1
            j += 1
            continue
        code_a, size_a = _code_at(data, i, end)
        code_b, size_b = _code_at(other, j, other_end)
        if folds[code_a] != folds[code_b]:
            return False
        i += size_a
        j += size_b
    return i == end and j == other_end


@njit(cache=True, nogil=True)
def mark_windows(
    data: Array, offsets: Array, owners: Array, ascii_words: Array, classes: Array, folds: Array, width: int, seed: Any,
    hashes: Array, bits: Array, table: Array, first: Array, texts: Array, positions: Array, keep_first: bool,
    text_data: Array, text_offsets: Array,
    spans: Array, found: Array, collisions: Array,
) -> tuple[int, int]:  # fmt: skip
    """The bytes that windows cover which stand, word for word, in another document; returns spans and collisions.

    Parameters
    ----------
    owners
        uint64: the beginning of each text's id; a window whose `first` is the same stays if `keep_first`.
    hashes, bits, table, first, texts, positions
        Repeated windows: hash, filter and table of the hashes, the owner, and where its words stand: text, word in it.
    spans
        int64[.., 3], written: text, start, end (bytes in `data`), disjoint and in order.
    found
        int64, written: how many windows were cut, by row of `hashes`.
    collisions
        int64[.., 2], written: row of `hashes`, text, of windows that have the hash but other words.
    """
    room = max(_room(offsets), _room(text_offsets))
    words = np.empty(room, np.uint64)
    starts, ends, grams = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.uint64)
    # The words of all texts that windows are compared with.
    total = (text_offsets[text_offsets.size - 1] - text_offsets[0]) // 2 + text_offsets.size
    other_starts, other_ends = np.empty(total, np.int64), np.empty(total, np.int64)
    first_words = np.empty(text_offsets.size, np.int64)
    known = 0
    for t in range(text_offsets.size - 1):
        first_words[t] = known
        known += split_words(
            text_data, text_offsets[t], text_offsets[t + 1], ascii_words, classes, folds, seed, words,
            other_starts[known:], other_ends[known:],
        )  # fmt: skip
    number, wrong = 0, 0
    for d in range(offsets.size - 1):
        count = split_words(data, offsets[d], offsets[d + 1], ascii_words, classes, folds, seed, words, starts, ends)
        windows = _window_hashes(words, count, width, grams) if count >= width else 0
        before = -2  # the word the window before was verified against
        begin, end = -1, -1  # the words that are cut
        for i in range(windows):
            row = look_up(grams[i], hashes, bits, table)
            if row < 0:
                before = -2
                continue
            at = first_words[texts[row]] + positions[row]
            same = True
            k = width - 1 if at == before + 1 else 0
            while same and k < width:
                same = _same_word(
                    data, starts[i + k], ends[i + k], text_data, other_starts[at + k], other_ends[at + k],
                    ascii_words, folds,
                )  # fmt: skip
                k += 1
            if not same:
                if wrong < collisions.shape[0]:
                    collisions[wrong, 0], collisions[wrong, 1] = row, d
                wrong += 1
                before = -2
                continue
            before = at
            if keep_first and first[row] == owners[d]:
                continue
            found[row] += 1
            if i > end:
                if end > begin and begin >= 0:
                    if number < spans.shape[0]:
                        spans[number, 0], spans[number, 1], spans[number, 2] = d, starts[begin], ends[end - 1]
                    number += 1
                begin = i
            end = i + width
        if begin >= 0:
            if number < spans.shape[0]:
                spans[number, 0], spans[number, 1], spans[number, 2] = d, starts[begin], ends[end - 1]
            number += 1
    return number, wrong


@njit(cache=True, nogil=True)
def whole_characters(data: Array, limits: Array, starts: Array, ends: Array, marks: Array) -> None:
    """Makes spans smaller, in place, where they would part a letter from the marks behind it.

    `limits` is where each span's text ends, `marks` (bool, by code point) what belongs to the character before it.
    """
    for i in range(starts.size):
        start, end, limit = starts[i], ends[i], limits[i]
        while start < end:
            code, size = _code_at(data, start, limit)
            if code >= marks.size or not marks[code]:
                break
            start += size
        if end < limit:
            code, _ = _code_at(data, end, limit)
            parted = code < marks.size and marks[code]
            while parted and end > start:
                end -= 1
                while end > start and data[end] & 0xC0 == 0x80:
                    end -= 1
                code, _ = _code_at(data, end, limit)
                parted = code < marks.size and marks[code]
        starts[i], ends[i] = start, end
