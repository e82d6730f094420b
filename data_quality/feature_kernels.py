"""The compiled one-pass counter behind `features.py`: whole Arrow buffers in, one row of integers a document out.

It counts and never divides; ratios and their guards stand in `features.py`, thresholds in `rules.py`.
Lines, paragraphs, words and n-grams are compared by 64-bit hashes: two different ones are taken for the same
with a chance of about k² / 2⁶⁵ in a document of k of them (one in ten million for a million words).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

# Columns of the `counts` array that `count_features` fills; numba freezes them into the machine code.
CHARACTERS, WORD_CHARACTERS, LINES, PARAGRAPHS, WORDS, NON_SYMBOL_WORDS, NON_SYMBOL_CHARACTERS = range(7)
HASHES, ELLIPSES, BULLET_LINES, ELLIPSIS_LINES, ALPHABETIC_WORDS, STOP_WORDS = range(7, 13)
DUPLICATE_LINES, DUPLICATE_LINE_CHARACTERS, DUPLICATE_PARAGRAPHS, DUPLICATE_PARAGRAPH_CHARACTERS = range(13, 17)
TOP_2_GRAM_CHARACTERS = 17  # then 3, 4: characters under the most frequent n-gram
DUPLICATE_5_GRAM_CHARACTERS = 20  # then 6, 7, 8, 9, 10: characters under repeated n-grams
COUNTS = 26

# Bits of the `kinds` table: what `features.character_kinds` says of a code point.
SPACE, WORD, PUNCTUATION, OWN_WORD, CLASS_BITS, LETTER = 0, 1, 2, 3, 3, 4

_NEWLINE, _HASH, _HYPHEN, _DOT, _BULLET, _ELLIPSIS = 0x0A, 0x23, 0x2D, 0x2E, 0x2022, 0x2026

# Odd constants with well mixed bits: the golden ratio and the two multipliers of murmur3's 64-bit finaliser.
_SEED = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0xFF51AFD7ED558CCD)
_LAST = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(32)


@njit(cache=True, nogil=True)
def _step(state: Any, value: Any) -> Any:
    """A hash extended by one value; the shift brings high bits down, so that every bit matters later."""
    mixed = (state ^ np.uint64(value)) * _STEP
    return mixed ^ (mixed >> _SHIFT)


@njit(cache=True, nogil=True)
def _decode(values: Any, position: int, end: int) -> tuple[int, int]:
    """The code point of 2 to 4 bytes at `position` and their number; a damaged byte is U+FFFD, 1 byte."""
    lead = values[position]
    if lead >= 0xF0:
        size, code = 4, lead & 0x07
    elif lead >= 0xE0:
        size, code = 3, lead & 0x0F
    elif lead >= 0xC0:
        size, code = 2, lead & 0x1F
    else:
        return 0xFFFD, 1
    if position + size > end:
        return 0xFFFD, 1
    for k in range(1, size):
        code = (code << 6) | (values[position + k] & 0x3F)
    return (code, size) if code < 0x110000 else (0xFFFD, size)


@njit(cache=True, nogil=True)
def hash_word(codes: Any) -> Any:
    """The hash of a word given as code points, as the kernel makes it for stop words."""
    state = _SEED
    for code in codes:
        state = _step(state, code)
    return state


@njit(cache=True, nogil=True)
def _stop_word(values: Any, start: int, end: int, folds: Any, stop_hashes: Any) -> int:
    """The index among the sorted `stop_hashes` of the folded characters in a byte range, or -1."""
    state = _SEED
    while start < end:
        if values[start] < 0x80:
            code, size = int(values[start]), 1
        else:
            code, size = _decode(values, start, end)
        state = _step(state, folds[code])
        start += size
    low, high = 0, stop_hashes.size
    while low < high:
        middle = (low + high) // 2
        if stop_hashes[middle] < state:
            low = middle + 1
        else:
            high = middle
    return low if low < stop_hashes.size and stop_hashes[low] == state else -1


@njit(cache=True, nogil=True)
def _capacity(items: int) -> int:
    """The smallest power of two that leaves half of an open-addressed table free."""
    size = 16
    while size < 2 * items:
        size *= 2
    return size


@njit(cache=True, nogil=True)
def _first(table: Any, mask: Any, hashes: Any, position: int) -> int:
    """The earliest position with the same hash, entering this one if there is none (then itself)."""
    wanted = hashes[position]
    slot = int((wanted * _LAST) >> _SHIFT) & mask
    while table[slot] >= 0:
        if hashes[table[slot]] == wanted:
            return int(table[slot])
        slot = (slot + 1) & mask
    table[slot] = position
    return position


@njit(cache=True, nogil=True)
def _duplicates(hashes: Any, lengths: Any, items: int, table: Any) -> tuple[int, int]:
    """How many items repeat an earlier one, and the sum of their lengths."""
    capacity = _capacity(items)
    table[:capacity] = -1
    repeats, characters = 0, 0
    for i in range(items):
        if _first(table, capacity - 1, hashes, i) != i:
            repeats += 1
            characters += lengths[i]
    return repeats, characters


@njit(cache=True, nogil=True)
def _repeated_n_grams(
    word_hashes: Any, starts: Any, words: int, table: Any, grams: Any, seen: Any, alive: Any, counts: Any
) -> None:
    """Fill the n-gram columns of one document's `counts`, for n from 2 to 10.

    An n-gram can only repeat where both (n-1)-grams inside it repeat, so only those positions go on to n: exact,
    and in ordinary text few are left after n = 3. `starts[i]` is the number of word characters before word i.
    `grams[i]` is the hash of the n-gram at i, `seen[i]` how often the n-gram first seen at i was met,
    `alive` the ascending positions of n-grams that occur twice or more.
    """
    for i in range(words):
        grams[i] = _step(_SEED, word_hashes[i])  # so that the order of the two words matters
        alive[i] = i
    living = words
    for n in range(2, 11):
        # The (n-1)-gram one word on must repeat too, i.e. be the next entry: entries ascend.
        kept = 0
        for k in range(living - 1):
            if alive[k + 1] == alive[k] + 1:
                alive[kept] = alive[k]
                kept += 1
        if kept < 2:
            return
        capacity = _capacity(kept)
        table[:capacity] = -1
        best, best_count = -1, 1
        covered, duplicate_characters = 0, 0
        for k in range(kept):
            i = alive[k]
            grams[i] = _step(grams[i], word_hashes[i + n - 1])
            first = _first(table, capacity - 1, grams, i)
            if first == i:
                seen[i] = 1
                continue
            seen[first] += 1
            seen[i] = 2  # marks this position as one of several
            if seen[first] > best_count or (seen[first] == best_count and first < best):
                best, best_count = first, seen[first]
            if n >= 5:
                duplicate_characters += starts[i + n] - starts[max(i, covered)]
                covered = i + n
        if best < 0:
            return
        if n <= 4:
            wanted = grams[best]
            covered, top_characters = 0, 0
            for k in range(kept):
                i = alive[k]
                if grams[i] == wanted:
                    top_characters += starts[i + n] - starts[max(i, covered)]
                    covered = i + n
            counts[TOP_2_GRAM_CHARACTERS + n - 2] = top_characters
        else:
            counts[DUPLICATE_5_GRAM_CHARACTERS + n - 5] = duplicate_characters
        living = 0
        for k in range(kept):
            if seen[alive[k]] > 1:
                alive[living] = alive[k]
                living += 1


@njit(cache=True, nogil=True)
def count_features(
    values: Any, offsets: Any, kinds: Any, folds: Any, stop_hashes: Any, stop_length: int, counts: Any
) -> None:
    """Count everything about every document of a large_string array.

    Parameters
    ----------
    values, offsets
        uint8 data and int64[documents + 1] offsets of the array: document d is values[offsets[d]:offsets[d + 1]].
    kinds, folds
        uint8 and uint32 tables over all code points: class and letter bit, and case folding.
    stop_hashes, stop_length
        Sorted uint64 hashes of the folded stop words, and the characters of the longest.
    counts
        int64[documents, COUNTS], overwritten.
    """
    documents = offsets.size - 1
    longest = 0
    for d in range(documents):
        longest = max(longest, offsets[d + 1] - offsets[d])
    # Two neighbouring words of one byte need a byte between them and class-3 characters have two bytes or more,
    # so there are at most (bytes + 1) / 2 words, and no more lines. Untouched pages of these cost nothing.
    room = longest // 2 + 2
    word_hashes = np.empty(room, dtype=np.uint64)
    starts = np.empty(room + 1, dtype=np.int64)
    grams = np.empty(room, dtype=np.uint64)
    seen = np.empty(room, dtype=np.int32)
    alive = np.empty(room, dtype=np.int32)
    line_hashes = np.empty(room, dtype=np.uint64)
    line_lengths = np.empty(room, dtype=np.int64)
    paragraph_hashes = np.empty(room, dtype=np.uint64)
    paragraph_lengths = np.empty(room, dtype=np.int64)
    table = np.empty(_capacity(room), dtype=np.int32)
    stop_seen = np.full(stop_hashes.size, -1, dtype=np.int64)

    for d in range(documents):
        row = counts[d]
        row[:] = 0
        position, end = offsets[d], offsets[d + 1]
        characters, words, lines, paragraphs = 0, 0, 0, 0
        non_symbol_words, non_symbol_characters, alphabetic_words, stop_words = 0, 0, 0, 0
        hashes, ellipses, dots, word_characters = 0, 0, 0, 0
        bullet_lines, ellipsis_lines = 0, 0
        # The word under way: characters so far, its hash, the classes and letters in it, and its core, the
        # byte range from the first to the last character that is not punctuation.
        length, state, met = 0, _SEED, 0
        core_start, core_end, core_length, core_tail = 0, 0, 0, 0
        # The line under way, from its first character that is not white space: everything so far, and as it
        # was after the last such character (the stripped line).
        line_state, line_length, stripped_state, stripped_length = _SEED, 0, _SEED, 0
        bullet, trailing_dots, ends_in_ellipsis = False, 0, False
        paragraph_state, paragraph_length = _SEED, 0

        while position <= end:
            if position == end:
                # One line feed past the end closes the last word and line; a second one closes the paragraph.
                code, size = _NEWLINE, 1
            elif values[position] < 0x80:
                code, size = int(values[position]), 1
            else:
                code, size = _decode(values, position, end)
            kind = kinds[code]
            found = kind & CLASS_BITS

            if length > 0 and (found in (SPACE, OWN_WORD) or (met & 8) != 0):
                word_hashes[words] = state
                starts[words] = word_characters
                word_characters += length
                words += 1
                if met & 1:
                    non_symbol_words += 1
                    non_symbol_characters += length
                    if 0 < core_length <= stop_length and stop_words < stop_hashes.size:
                        index = _stop_word(values, core_start, core_end, folds, stop_hashes)
                        if index >= 0 and stop_seen[index] != d:
                            stop_seen[index] = d
                            stop_words += 1
                if met & LETTER:
                    alphabetic_words += 1
                length, state, met, core_length, core_tail = 0, _SEED, 0, 0, 0

            if found != SPACE:
                state = _step(state, code)
                length += 1
                met |= kind & LETTER
                if found == PUNCTUATION:
                    if core_length > 0:
                        core_tail += 1
                else:
                    met |= 1 if found == WORD else 9  # 8: a word of its own ends at the next character
                    if core_length == 0:
                        core_start = position
                    core_length += core_tail + 1
                    core_tail = 0
                    core_end = position + size
                if line_length == 0:
                    bullet = code in (_HYPHEN, _BULLET)
                line_state = _step(line_state, code)
                line_length += 1
                stripped_state, stripped_length = line_state, line_length
                trailing_dots = trailing_dots + 1 if code == _DOT else 0
                ends_in_ellipsis = trailing_dots >= 3 or code == _ELLIPSIS
            elif code == _NEWLINE:
                if stripped_length > 0:
                    line_hashes[lines] = stripped_state
                    line_lengths[lines] = stripped_length
                    lines += 1
                    bullet_lines += bullet
                    ellipsis_lines += ends_in_ellipsis
                    paragraph_state = _step(paragraph_state, stripped_state)
                    paragraph_length += stripped_length + (1 if paragraph_length > 0 else 0)
                if paragraph_length > 0 and (stripped_length == 0 or position == end):
                    paragraph_hashes[paragraphs] = paragraph_state
                    paragraph_lengths[paragraphs] = paragraph_length
                    paragraphs += 1
                    paragraph_state, paragraph_length = _SEED, 0
                line_state, line_length, stripped_state, stripped_length = _SEED, 0, _SEED, 0
                bullet, trailing_dots, ends_in_ellipsis = False, 0, False
            else:
                trailing_dots = 0
                if line_length > 0:
                    line_state = _step(line_state, code)
                    line_length += 1

            if position < end:
                characters += 1
                if code == _DOT:
                    dots += 1
                    if dots == 3:
                        ellipses += 1
                        dots = 0
                else:
                    dots = 0
                    ellipses += code == _ELLIPSIS
                    hashes += code == _HASH
            position += size

        starts[words] = word_characters
        row[CHARACTERS], row[WORD_CHARACTERS] = characters, word_characters
        row[LINES], row[PARAGRAPHS], row[WORDS] = lines, paragraphs, words
        row[NON_SYMBOL_WORDS], row[NON_SYMBOL_CHARACTERS] = non_symbol_words, non_symbol_characters
        row[HASHES], row[ELLIPSES] = hashes, ellipses
        row[BULLET_LINES], row[ELLIPSIS_LINES] = bullet_lines, ellipsis_lines
        row[ALPHABETIC_WORDS], row[STOP_WORDS] = alphabetic_words, stop_words
        row[DUPLICATE_LINES], row[DUPLICATE_LINE_CHARACTERS] = _duplicates(line_hashes, line_lengths, lines, table)
        row[DUPLICATE_PARAGRAPHS], row[DUPLICATE_PARAGRAPH_CHARACTERS] = _duplicates(
            paragraph_hashes, paragraph_lengths, paragraphs, table
        )
        _repeated_n_grams(word_hashes, starts, words, table, grams, seen, alive, row)
