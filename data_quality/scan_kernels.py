"""What lines hold, found in one compiled scan of their bytes: words, sentences, C4's phrases, citations.

The passes over lines and over cuts both ask `scan_lines`, so that what C4's rules would leave and what they cut are the
same lines. Their order is that of TensorFlow Datasets' c4_utils.py, which made C4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import Array, decode, previous
from data_quality.mask_kernels import BLOCK, NONE, ONE, block_at, byte_mask, first_one, low_bits, ones
from data_quality.punctuation import TERMINAL_MARKS, WHITE_SPACE, code_spans

C4_MAX_WORD_CHARACTERS = 1000

TAIL = BLOCK + 2
"""Bytes of the array that a scan needs for the end of the text: a block, and the two bytes behind it."""

LINES_AT_ONCE = 256

# What `scan_lines` says of a line.
WORDS_FOUND, LONGEST_WORD, FLAGS, BRACES, NUMBER_SIGNS, ELLIPSES_FOUND, SENTENCES_FOUND, CONTINUATIONS = range(8)
CITATIONS, LINE_END, FOUND = 8, 9, 10
JAVASCRIPT, POLICY, LOREM, GENERATED, HIGH, CONTROL = 1, 2, 4, 8, 16, 32

# Bits of `punctuation.mark_bits`.
TERMINAL, _UNSPACED, _CLOSING, _WHITE = 1, 2, 4, 16

NEWLINE, DOT, HYPHEN, BULLET, ELLIPSIS = 0x0A, 0x2E, 0x2D, 0x2022, 0x2026
_CLOSING_ASCII = (0x22, 0x27, 0x29, 0x5D, 0x7D)


def _ascii(text: str) -> Any:
    return np.frombuffer(text.encode(), np.uint8)


_JAVASCRIPT_WORD, _COOKIE, _LOREM_IPSUM = _ascii("javascript"), _ascii("cookie"), _ascii("lorem ipsum")
_POLICY_WORD, _TERMS, _PRIVACY = _ascii(" policy"), _ascii("terms of use"), _ascii("privacy policy")
_USES, _USE_OF, _USE = _ascii("uses "), _ascii("use of "), _ascii("use ")
_GENERATED_WORD, _AUTO, _AUTO_HYPHEN = _ascii("generated"), _ascii("auto"), _ascii("auto-")
_AUTOMATICALLY, _THEN_AUTOMATICALLY = _ascii("automatically "), _ascii(" automatically")
_EDIT, _CITATION_NEEDED = _ascii("[edit]"), _ascii("[citation needed]")

# Short forms that a full stop ends without ending a sentence, beside single letters; lower-cased, little-endian.
ABBREVIATIONS = (
    "mr", "mrs", "ms", "dr", "prof", "st", "sen", "rep", "gov", "gen", "col", "capt", "lt", "sgt", "rev", "hon",
    "vs", "eg", "ie", "cf", "al", "no", "vol", "pp", "fig", "eq", "ed", "eds", "jan", "feb", "aug", "sept", "oct",
    "nov", "dec",
)  # fmt: skip
_ABBREVIATIONS = np.array(sorted(int.from_bytes(word.encode(), "little") for word in ABBREVIATIONS), np.int64)

# Where `scan_lines` looks closer: at . ! ? [ and the first bytes of other marks that end sentences, of ellipses and of
# white space; and where three letters of a phrase stand that are rare together (`_phrase` looks at the rest).
_first_bytes = sorted(
    {
        chr(code).encode()[0]
        for first, last in code_spans(f"{TERMINAL_MARKS} {WHITE_SPACE} {ELLIPSIS:x}")
        for code in range(first, last + 1)
        if code >= 0x80
    }
)
_special = byte_mask(*((byte, byte) for byte in (*b".!?[", *_first_bytes)))
_feed, _brace, _number_sign = (byte_mask((byte, byte)) for byte in b"\n{#")
_white = byte_mask((0x09, 0x09), (0x0B, 0x0D), (0x1C, 0x20))  # what str.isspace says of ASCII, line feed apart
_control = byte_mask((0x00, 0x08), (0x0E, 0x1B), (0x7F, 0x7F))
_high, _continuation = byte_mask((0x80, 0xFF)), byte_mask((0x80, 0xBF))
_a, _c, _e, _g, _i, _j, _k, _m, _n, _s, _v, _space = (
    byte_mask((byte, byte), either_case=True) for byte in b"acegijkmnsv "
)


@njit(cache=True, nogil=True)
def _stands(values: Array, at: int, limit: int, word: Array) -> bool:
    """True if `word` (small letters, spaces, marks) stands at `at` in letters of either case."""
    if at + len(word) > limit:
        return False
    for k in range(len(word)):
        byte = values[at + k]
        if byte != word[k] and not (97 <= word[k] <= 122 and (byte | 0x20) == word[k]):
            return False
    return True


@njit(cache=True, nogil=True)
def _stands_before(values: Array, begin: int, at: int, word: Array) -> bool:
    """True if `word` ends before `at` and begins at or after `begin`."""
    return at - len(word) >= begin and _stands(values, at - len(word), at, word)


@njit(cache=True, nogil=True)
def _phrase(values: Array, begin: int, at: int, limit: int) -> int:
    """The flag of a phrase around the letter at `at` (Javascript, cooKie, priVacy, terMs, loreM, Generated), or 0."""
    letter = values[at] | 0x20
    if letter == 106:
        return JAVASCRIPT if _stands(values, at, limit, _JAVASCRIPT_WORD) else 0
    if letter == 107:  # cookie policy, uses cookies, use of cookies, use cookies
        start = at - 3
        if start < begin or not _stands(values, start, limit, _COOKIE):
            return 0
        after = start + 6
        if _stands(values, after, limit, _POLICY_WORD):
            return POLICY
        if after < limit and values[after] | 0x20 == 115:
            for before in (_USES, _USE_OF, _USE):
                if _stands_before(values, begin, start, before):
                    return POLICY
        return 0
    if letter == 118:
        return POLICY if at - 3 >= begin and _stands(values, at - 3, limit, _PRIVACY) else 0
    if letter == 109:
        if at - 3 >= begin and _stands(values, at - 3, limit, _TERMS):
            return POLICY
        return LOREM if at - 4 >= begin and _stands(values, at - 4, limit, _LOREM_IPSUM) else 0
    if not _stands(values, at, limit, _GENERATED_WORD):
        return 0
    for before in (_AUTO, _AUTO_HYPHEN, _AUTOMATICALLY):
        if _stands_before(values, begin, at, before):
            return GENERATED
    return GENERATED if _stands(values, at + 9, limit, _THEN_AUTOMATICALLY) else 0


@njit(cache=True, nogil=True)
def _blank(byte: int) -> bool:
    """What str.isspace says of an ASCII byte."""
    return byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31


@njit(cache=True, nogil=True)
def white(values: Array, at: int, end: int, marks: Array) -> int:
    """Bytes of the white space character (as `str.isspace`, line feeds too) at `at`, 0 if there is none."""
    if at >= end:
        return 0
    if values[at] < 0x80:
        return 1 if _blank(values[at]) else 0
    code, size = decode(values, at, end)
    return size if marks[code] & _WHITE else 0


@njit(cache=True, nogil=True)
def white_before(values: Array, start: int, end: int, marks: Array) -> int:
    """Bytes of the white space character that ends before `end`, 0 if there is none."""
    if end <= start:
        return 0
    at = previous(values, start, end)
    return end - at if white(values, at, end, marks) else 0


@njit(cache=True, nogil=True)
def strip(values: Array, start: int, end: int, marks: Array) -> tuple[int, int]:
    """The range without white space (as `str.isspace`) at its ends."""
    while start < end:
        size = (1 if _blank(values[start]) else 0) if values[start] < 0x80 else white(values, start, end, marks)
        if size == 0:
            break
        start += size
    while start < end:
        last = values[end - 1]
        size = (1 if _blank(last) else 0) if last < 0x80 else white_before(values, start, end, marks)
        if size == 0:
            break
        end -= size
    return start, end


@njit(cache=True, nogil=True)
def _short_form(values: Array, begin: int, dot: int) -> bool:
    """True if the letters before the full stop at `dot` are one letter or an abbreviation."""
    word, at = np.int64(0), dot - 1
    while at >= begin and dot - at <= 6 and 97 <= values[at] | 0x20 <= 122:
        word = (word << 8) | np.int64(values[at] | 0x20)
        at -= 1
    length = dot - 1 - at
    if length == 0 or length > 5 or (at >= begin and (values[at] >= 0x80 or 48 <= values[at] <= 57)):
        return False
    known = length == 1
    for abbreviation in _ABBREVIATIONS:
        known |= abbreviation == word
    return known


@njit(cache=True, nogil=True)
def _sentence_end(values: Array, begin: int, at: int, limit: int, marks: Array) -> tuple[int, int, int]:
    """What the run of terminal marks at `at` does.

    Returns where the run ends, where the sentence ends behind closing quotes and brackets (-1: it goes on), and the
    ellipses of three full stops in the run.
    """
    index, dots, ellipses, only_dots, bits = at, 0, 0, True, 0
    if values[at] < 0x80 and at + 1 < limit and (values[at + 1] == 32 or values[at + 1] == NEWLINE):
        index, only_dots = at + 1, values[at] == DOT  # by far the most
    else:
        while index < limit:
            code, size = decode(values, index, limit)
            if marks[code] & TERMINAL == 0:
                break
            bits = marks[code]
            if code == DOT:
                dots += 1
            else:
                ellipses, dots, only_dots = ellipses + dots // 3, 0, False
            index += size
        ellipses += dots // 3
    behind = index
    while behind < limit and (values[behind] >= 0x80 or values[behind] in _CLOSING_ASCII):
        code, size = decode(values, behind, limit)
        if marks[code] & _CLOSING == 0:
            break
        behind += size
    if bits & _UNSPACED:
        return index, behind, ellipses
    if behind < limit:
        if white(values, behind, limit, marks) == 0:
            return index, -1, ellipses
        if only_dots and values[behind] != NEWLINE:
            following = behind
            while following < limit and values[following] == 32:
                following += 1
            if following < limit and 97 <= values[following] <= 122:
                return index, -1, ellipses
            if index == at + 1 and _short_form(values, begin, at):
                return index, -1, ellipses
    return index, behind, ellipses


@njit(cache=True, nogil=True)
def citation(values: Array, index: int, limit: int) -> int:
    """Length of [], [12], [edit] or [citation needed] at `index`, 0 if there is none."""
    at = index + 1
    while at < limit and 48 <= values[at] <= 57:
        at += 1
    if at < limit and values[at] == 93:
        return at + 1 - index
    for word in (_EDIT, _CITATION_NEEDED):
        if index + len(word) <= limit:
            same = True
            for k in range(len(word)):
                same = same and values[index + k] == word[k]
            if same:
                return len(word)
    return 0


@njit(cache=True, nogil=True)
def _longest_word(values: Array, at: int, end: int, marks: Array) -> int:
    """Characters of the longest word between white space in values[at:end]."""
    longest, run = 0, 0
    while at < end:
        code, size = decode(values, at, end)
        run = 0 if marks[code] & _WHITE else run + 1
        longest = max(longest, run)
        at += size
    return longest


@njit(cache=True, nogil=True)
def scan_lines(values: Array, begin: int, limit: int, marks: Array, tail: Array, lines: Array) -> int:
    """Looks at the lines of values[begin:limit], as many as `lines` has rows; says how many they are.

    `tail` is uint8[TAIL]. `lines` (int64[rows, FOUND]) is overwritten: where the line ends, words between white space,
    characters of the longest (0 in a line of up to C4_MAX_WORD_CHARACTERS bytes), flags of phrases and of kinds of
    bytes, "{", "#", ellipses, sentences, continuation bytes of UTF-8, marks of citations.
    """
    number = 0
    line = begin  # where the line under way begins
    last_end = begin
    white_until, marks_until = begin, begin  # where white space of several bytes ends, and a run of marks
    words, flags, curly, hashes, ellipses, sentences, continuations, citations = 0, 0, 0, 0, 0, 0, 0, 0
    inside = NONE  # whether the byte before belongs to a word
    at = begin
    while at < limit:
        block = block_at(values, at, tail)
        second, third = block + 1, block + 2
        valid = low_bits(limit - at)
        feeds = _feed(block) & valid
        high, control, rare = _high(block), _control(block), _brace(block) | _number_sign(block)
        blank = _white(block) | feeds | low_bits(white_until - at)
        special = _special(block) | (
            (_j(block) & _a(second) & _v(third))
            | (_k(block) & _i(second) & _e(third))
            | (_v(block) & _a(second) & _c(third))
            | (_g(block) & _e(second) & _n(third))
            | (_m(block) & (_s(second) | _space(second)) & (_space(third) | _i(third)))
        )
        special &= valid & ~low_bits(marks_until - at)
        before = NONE  # the bytes of this block that belong to earlier lines
        while True:
            part = valid & ~before
            if feeds != NONE:
                part &= (feeds - ONE) & ~feeds
            closer = special & part
            while closer != NONE:
                bit = first_one(closer)
                closer &= closer - ONE
                here = at + np.int64(bit)
                byte = values[here]
                is_mark = byte < 0x40
                if byte >= 0x80:
                    code, size = decode(values, here, limit)
                    if marks[code] & _WHITE:
                        blank |= low_bits(size) << bit
                        white_until = here + size
                        continue
                    is_mark = marks[code] & TERMINAL != 0
                    ellipses += code == ELLIPSIS
                if is_mark:
                    marks_until, end, more = _sentence_end(values, line, here, limit, marks)
                    closer &= ~low_bits(marks_until - at)
                    if end >= 0:
                        sentences += 1
                        last_end = end
                    ellipses += more
                elif byte == 0x5B:
                    citations += citation(values, here, limit) > 0
                elif byte < 0x80:
                    flags |= _phrase(values, line, here, limit)
            if high & part != NONE:
                flags |= HIGH
                continuations += ones(_continuation(block) & part)
            if control & part != NONE:
                flags |= CONTROL
            if rare & part != NONE:
                curly += ones(_brace(block) & part)
                hashes += ones(_number_sign(block) & part)
            text = part & ~blank
            words += ones(text & ~((text << ONE) | inside))
            inside = text >> np.uint64(BLOCK - 1)
            if feeds == NONE and at + BLOCK < limit:
                break
            line_end = min(limit, at + np.int64(first_one(feeds)))
            if feeds != NONE or line < limit:
                if last_end < line_end:
                    is_solid = 32 < values[line_end - 1] < 127
                    if not is_solid:
                        left, right = strip(values, last_end, line_end, marks)
                        is_solid = left < right
                    sentences += is_solid
                lines[number, LINE_END], lines[number, WORDS_FOUND], lines[number, FLAGS] = line_end, words, flags
                lines[number, BRACES], lines[number, NUMBER_SIGNS] = curly, hashes
                lines[number, ELLIPSES_FOUND], lines[number, SENTENCES_FOUND] = ellipses, sentences
                lines[number, CONTINUATIONS], lines[number, CITATIONS] = continuations, citations
                is_long = line_end - line > C4_MAX_WORD_CHARACTERS
                lines[number, LONGEST_WORD] = _longest_word(values, line, line_end, marks) if is_long else 0
                number += 1
            if feeds == NONE or number == lines.shape[0]:
                return number
            before = feeds ^ (feeds - ONE)
            feeds &= feeds - ONE
            line = last_end = line_end + 1
            inside = NONE
            words, flags, curly, hashes, ellipses, sentences, continuations, citations = 0, 0, 0, 0, 0, 0, 0, 0
        at += BLOCK
    return number


@njit(cache=True, nogil=True)
def scan_line(values: Array, begin: int, limit: int, marks: Array, tail: Array, line: Array) -> None:
    """`scan_lines` of values[begin:limit] where that is one line; `line` is int64[1, FOUND]."""
    line[:] = 0
    scan_lines(values, begin, limit, marks, tail, line)


@njit(cache=True, nogil=True)
def without_citations(values: Array, start: int, end: int, scratch: Array) -> int:
    """Copies values[start:end] without the marks of citations to `scratch`; says how many bytes are left."""
    size = 0
    while start < end:
        width = citation(values, start, end) if values[start] == 0x5B else 0
        if width == 0:
            scratch[size] = values[start]
            size += 1
            width = 1
        start += width
    return size


@njit(cache=True, nogil=True)
def ends_in_dots(values: Array, start: int, end: int) -> bool:
    """True if values[start:end] ends with three full stops."""
    return bool(end - start >= 3 and values[end - 1] == DOT and values[end - 2] == DOT and values[end - 3] == DOT)


@njit(cache=True, nogil=True)
def end_mark(values: Array, start: int, end: int) -> int:
    """2 if values[start:end] ends with . ? ! or " and not with ..., 1 if with ', else 0."""
    if start >= end:
        return 0
    last = values[end - 1]
    if last in (0x21, 0x22, 0x3F) or (last == DOT and not ends_in_dots(values, start, end)):
        return 2
    return 1 if last == 0x27 else 0
