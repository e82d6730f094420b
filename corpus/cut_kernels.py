"""The compiled loop behind `corpus.cuts.c4_lines`: one pass over the bytes of many texts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any  # numba compiles by dtype; the docstrings name it

_EDIT = np.frombuffer(b"[edit]", np.uint8)
_CITATION_NEEDED = np.frombuffer(b"[citation needed]", np.uint8)

# Codes of the reasons, in the order in which C4 asks for them; CITATION is cut inside lines that stay.
KEPT, LONG_WORD, NO_END_MARK, FEW_WORDS, JAVASCRIPT, POLICY, CITATION = range(7)


@njit(cache=True, nogil=True)
def c4_spans(
    data: Array, offsets: Array, hits: Array, hit_codes: Array, min_words: int, max_word: int,
    counts: Array, starts: Array, ends: Array, codes: Array,
) -> int:  # fmt: skip
    """Finds the lines that C4 removes, and the citations in those that it keeps.

    Parameters
    ----------
    data, offsets
        uint8 and int64: the buffers of a `large_string` array.
    hits, hit_codes
        int64, sorted, and int64: where a phrase begins in `data`, and the reason it is.
    min_words, max_word
        Fewer words, or a word of more characters, and a line is removed.
    counts, starts, ends, codes
        int64, written: spans of each text; positions relative to their text and reason of each span.

    Returns
    -------
    The number of spans.
    """
    number, hit = 0, 0
    for row in range(len(offsets) - 1):
        first, begin, limit = number, offsets[row], offsets[row + 1]
        origin = begin
        kept_until = begin  # end of the last line that stays, without its line end
        cut_before = False
        while begin < limit:
            end = begin
            while end < limit and data[end] != 10:
                end += 1
            following = min(end + 1, limit)
            left, right = begin, end
            while left < right and _space(data, left, right):
                left += _space(data, left, right)
            while left < right and _space_before(data, left, right):
                right -= _space_before(data, left, right)
            if left == right:
                if cut_before:  # blank lines go with the line before them
                    ends[number - 1] = following - origin
                begin = following
                continue

            citations = number
            code, number = _judge(data, left, right, origin, min_words, max_word, starts, ends, codes, number)
            while hit < len(hits) and hits[hit] < begin:
                hit += 1
            while hit < len(hits) and hits[hit] < right:
                if code == KEPT or code > hit_codes[hit]:
                    code = hit_codes[hit]
                hit += 1
            cut_before = code != KEPT
            if cut_before:
                number = citations
                if number > first and codes[number - 1] == code and ends[number - 1] == begin - origin:
                    ends[number - 1] = following - origin
                else:
                    starts[number], ends[number], codes[number] = begin - origin, following - origin, code
                    number += 1
            else:
                kept_until = right
            begin = following
        if cut_before and kept_until > origin:
            # Nothing comes behind the cut: the line ends before it go too.
            last = number - 1
            while last > first and codes[last - 1] != CITATION and ends[last - 1] == starts[last]:
                last -= 1
            starts[last] = max(kept_until - origin, ends[last - 1] if last > first else 0)
        counts[row] = number - first
    return number


@njit(cache=True, nogil=True)
def _judge(
    data: Array, left: int, right: int, origin: int, min_words: int, max_word: int,
    starts: Array, ends: Array, codes: Array, number: int,
) -> tuple[int, int]:  # fmt: skip
    """(reason by what is in the line alone, `number` and the citations that were written)."""
    words, in_word, word_length = 0, False, 0
    last, second, third = 0, 0, 0  # the last three bytes, citations left out
    index = left
    while index < right:
        byte = data[index]
        if byte > 32 and byte < 127 and byte != 91:  # most are these
            if not in_word:
                words += 1
                in_word = True
            word_length += 1
            if word_length > max_word:
                return LONG_WORD, number
            third, second, last = second, last, byte
            index += 1
            continue
        width = _citation(data, index, right) if byte == 91 else 0
        if width:
            starts[number], ends[number], codes[number] = index - origin, index + width - origin, CITATION
            number += 1
            # Words are measured as they stand: [citation needed] ends one and begins another.
            word_length += 9 if width == 17 else width
            if word_length > max_word:
                return LONG_WORD, number
            if width == 17:
                word_length = 7
            index += width
            continue
        width = _space(data, index, right)
        if width:
            in_word, word_length = False, 0
        else:
            width = 1
            if not in_word:
                words += 1
                in_word = True
            if byte & 0xC0 != 0x80:
                word_length += 1
                if word_length > max_word:
                    return LONG_WORD, number
        third, second, last = second, last, byte
        index += width
    if not (last == 46 or last == 63 or last == 33 or last == 34) or (last == 46 and second == 46 and third == 46):
        return NO_END_MARK, number
    return (FEW_WORDS if words < min_words else KEPT), number


@njit(cache=True, nogil=True)
def _citation(data: Array, index: int, limit: int) -> int:
    """Length of [], [12], [edit] or [citation needed] at `index`, 0 if there is none."""
    at = index + 1
    while at < limit and 48 <= data[at] <= 57:
        at += 1
    if at < limit and data[at] == 93:
        return at + 1 - index
    if _begins(data, index, limit, _EDIT):
        return len(_EDIT)
    return len(_CITATION_NEEDED) if _begins(data, index, limit, _CITATION_NEEDED) else 0


@njit(cache=True, nogil=True)
def _begins(data: Array, index: int, limit: int, word: Array) -> bool:
    """True if `word` (uint8) stands at `index`."""
    if index + len(word) > limit:
        return False
    for offset in range(len(word)):  # noqa: SIM110 - numba knows no generators
        if data[index + offset] != word[offset]:
            return False
    return True


@njit(cache=True, nogil=True)
def _space(data: Array, index: int, limit: int) -> int:
    """Bytes of the white space character (as `str.isspace`) at `index`, 0 if it is none."""
    byte = data[index]
    if byte < 0x80:
        return 1 if byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31 else 0
    if byte == 0xC2 and index + 1 < limit:
        return 2 if data[index + 1] in (0x85, 0xA0) else 0
    if byte < 0xE1 or byte > 0xE3 or index + 2 >= limit:
        return 0
    second, third = data[index + 1], data[index + 2]
    if byte == 0xE2:
        if second == 0x80:
            return 3 if third <= 0x8A or third in (0xA8, 0xA9, 0xAF) else 0
        return 3 if second == 0x81 and third == 0x9F else 0
    return 3 if (byte == 0xE1 and second == 0x9A and third == 0x80) or (byte == 0xE3 and second == third == 0x80) else 0


@njit(cache=True, nogil=True)
def _space_before(data: Array, start: int, end: int) -> int:
    """Bytes of the white space character that ends before `end`, 0 if there is none."""
    for width in (1, 2, 3):
        if end - width >= start and _space(data, end - width, end) == width:
            return width
    return 0
