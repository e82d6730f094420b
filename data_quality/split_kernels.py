"""Where words are in UTF-8, by the definition of `feature_table`, found 64 bytes at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import Array, decode, previous
from data_quality.mask_kernels import ALL, BLOCK, NONE, ONE, block_at, byte_mask, first_one, low_bits, ones

# Bits of the `kinds` table: what `character_kinds` says of a code point.
SPACE, WORD, PUNCTUATION, OWN_WORD, CLASS_BITS, LETTER, NUMBER = 0, 1, 2, 3, 3, 4, 8
SOLID = 1  # in WORD and OWN_WORD
LATIN = 1  # the number of the script of ASCII letters

# What `character_kinds` says of ASCII; all else there is punctuation.
_blank = byte_mask((0x00, 0x20), (0x7F, 0x7F))
_alphabetic = byte_mask((0x61, 0x7A), either_case=True)
_digit = byte_mask((0x30, 0x39))
_underscore = byte_mask((0x5F, 0x5F))
_high = byte_mask((0x80, 0xFF))


@njit(cache=True, nogil=True)
def _split_decoded(
    values: Array, at: int, end: int, kinds: Array, scripts: Array, starts: Array, ends: Array, lengths: Array,
    mets: Array, letters: Array, words: int,
) -> tuple[int, int, int]:  # fmt: skip
    """`split_words` of values[at:end], which holds no ASCII white space; ASCII letters and numbers are not counted."""
    numbers, white = 0, 0
    while at < end:
        code, size = decode(values, at, end)
        if kinds[code] & CLASS_BITS == SPACE:
            white += 1
            at += size
            continue
        start, length, met = at, 0, np.int64(0)
        while at < end:
            code, size = decode(values, at, end)
            kind: Any = np.int64(kinds[code])
            if kind & CLASS_BITS == SPACE or (kind & CLASS_BITS == OWN_WORD and length > 0):
                break
            if code >= 0x80:
                if kind & LETTER:
                    letters[scripts[code]] += 1
                numbers += kind >> 3
            met |= kind
            at += size
            length += 1
            if kind & CLASS_BITS == OWN_WORD:
                break
        starts[words], ends[words], lengths[words], mets[words] = start, at, length, met
        words += 1
    return words, numbers, white


@njit(cache=True, nogil=True)
def split_words(
    values: Array, begin: int, end: int, kinds: Array, scripts: Array, starts: Array, ends: Array, lengths: Array,
    mets: Array, letters: Array, tail: Array,
) -> tuple[int, int, int]:  # fmt: skip
    """Finds the words of values[begin:end]; says how many they are, how many numbers and white space characters.

    Written for every word: byte range (int64), characters (int32), the kinds of its characters or-ed (uint8). `letters`
    (int64[256]) is overwritten: letters and marks by number of the script. `tail` is uint8[BLOCK].

    ASCII white space is found 64 bytes at a time; what stands between is decoded only where it holds other characters.
    """
    letters[:] = 0
    words, numbers, white, latin = 0, 0, 0, 0
    nowhere: Any = np.int64(-1)
    opened = nowhere  # where the run of bytes under way begins that are no ASCII white space
    met, is_high = np.int64(0), False
    at = begin
    while at < end:
        block = block_at(values, at, tail)
        valid = low_bits(end - at)
        blank, high, alphabetic = _blank(block), _high(block), _alphabetic(block)
        digit, underscore = _digit(block), _underscore(block)
        white += ones(blank & valid)
        latin += ones(alphabetic & valid)
        numbers += ones(digit & valid)
        blank |= ~valid
        solid = alphabetic | digit | underscore
        marks = ~(blank | solid | high)
        rest, first_bit = ~blank, NONE
        while True:
            if opened < 0:
                if rest == NONE:
                    break
                first_bit = first_one(rest)
                opened, met, is_high = at + np.int64(first_bit), np.int64(0), False
            gap = blank & (ALL << first_bit)
            inside = (gap - ONE if gap != NONE else ALL) & ~gap & (ALL << first_bit)
            met |= (
                np.int64(solid & inside != NONE) * WORD
                | np.int64(marks & inside != NONE) * PUNCTUATION
                | np.int64(alphabetic & inside != NONE) * LETTER
                | np.int64(digit & inside != NONE) * NUMBER
            )
            is_high |= high & inside != NONE
            if gap == NONE and end - at > BLOCK:
                break  # the run goes on in the next block
            stop = min(end, at + np.int64(first_one(gap)))
            if is_high:
                words, more_numbers, more_white = _split_decoded(
                    values, opened, stop, kinds, scripts, starts, ends, lengths, mets, letters, words
                )
                numbers += more_numbers
                white += more_white
            else:
                starts[words], ends[words], lengths[words], mets[words] = opened, stop, stop - opened, met
                words += 1
            opened = nowhere
            if gap == NONE:
                break
            rest &= ALL << first_one(gap)
            first_bit = NONE
        at += BLOCK
    letters[LATIN] += latin
    return words, numbers, white


@njit(cache=True, nogil=True)
def core(values: Array, start: int, end: int, kinds: Array) -> tuple[int, int]:
    """The range from the first to the last character of values[start:end] that is no punctuation; one there must be."""
    while True:
        if values[start] < 0x80:
            if kinds[values[start]] & SOLID:
                break
            start += 1
            continue
        code, size = decode(values, start, end)
        if kinds[code] & SOLID:
            break
        start += size
    while True:
        if values[end - 1] < 0x80:
            if kinds[values[end - 1]] & SOLID:
                return start, end
            end -= 1
            continue
        at = previous(values, start, end)
        code, _ = decode(values, at, end)
        if kinds[code] & SOLID:
            return start, end
        end = at
