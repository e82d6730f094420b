"""Compiled loops that find windows of words by hash and compare them word by word (`passage_kernels.py`: lines)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import decode
from data_quality.passage_kernels import KIND, WORDS, look_up, same_range
from data_quality.word_kernels import mix64

Array = Any  # numba compiles by dtype; the docstrings name it

_BYTE = np.uint64(0xD6E8FEB86659FD93)
_WORD = np.uint64(0xA24BAED4963EE407)


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
        code, size = decode(data, i, limit)
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
            hashes[i + 1 - width] = (mix64(rolling) & ~KIND) | np.uint64(WORDS)
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
        first = -1
        hashed, known, last = False, False, np.uint64(0)
        for i in range(windows):
            if i == 0 or minima[i] != last:
                last = minima[i]
                known = look_up(last, seeds, bits, table) >= 0
            if known:
                if not hashed:
                    _window_hashes(words, count, width, grams)
                    hashed = True
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
        code_a, size_a = decode(data, i, end)
        code_b, size_b = decode(other, j, other_end)
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
                word = (data, starts[i + k], ends[i + k], text_data, other_starts[at + k], other_ends[at + k])
                same = same_range(*word) or _same_word(*word, ascii_words, folds)
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
            code, size = decode(data, start, limit)
            if code >= marks.size or not marks[code]:
                break
            start += size
        if end < limit:
            code, _ = decode(data, end, limit)
            parted = code < marks.size and marks[code]
            while parted and end > start:
                end -= 1
                while end > start and data[end] & 0xC0 == 0x80:
                    end -= 1
                code, _ = decode(data, end, limit)
                parted = code < marks.size and marks[code]
        starts[i], ends[i] = start, end
