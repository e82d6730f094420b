"""What one line holds, found in one compiled scan of its bytes: words, sentences, C4's phrases, citations.

The passes over lines and over cuts both ask `scan_line`, so that what C4's rules would leave and what they cut are the
same lines. Their order is that of TensorFlow Datasets' c4_utils.py, which made C4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import Array, decode, previous

C4_MAX_WORD_CHARACTERS = 1000

# What `scan_line` says of a line.
WORDS_FOUND, LONGEST_WORD, FLAGS, BRACES, NUMBER_SIGNS, ELLIPSES_FOUND, SENTENCES_FOUND, CONTINUATIONS, CITATIONS = (
    range(9)
)
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

# What a pair of a byte and the next asks of `scan_line` at the first: _BLANK alone is not special.
_ORDINARY, _BLANK, _LINE_END, _MARK, _BRACKET, _BRACE, _NUMBER_SIGN, _LETTER, _HIGH_BYTE, _ODD = range(10)
_BLANKS = b"\t\v\f\r\x1c\x1d\x1e\x1f "  # what str.isspace says of ASCII, line feed apart


def make_byte_pairs() -> Any:
    """What `scan_line` does at a byte, by byte + 256 * the next byte: uint8[65536]."""
    kinds = np.zeros(256, np.uint8)
    kinds[:32] = _ODD
    kinds[127] = _ODD
    for group, kind in ((_BLANKS, _BLANK), (b"\n", _LINE_END), (b".!?", _MARK), (b"[", _BRACKET), (b"{", _BRACE)):
        kinds[list(group)] = kind
    kinds[ord("#")] = _NUMBER_SIGN
    kinds[128:] = _HIGH_BYTE
    pairs = np.tile(kinds, (256, 1))
    # The rarest letters of the phrases, where the next letter fits too; `_phrase` looks at the rest.
    for one, two in ("ja", "ki", "va", "ms", "m ", "ge"):
        for first in (one, one.upper()):
            for second in (two, two.upper()):
                pairs[ord(second), ord(first)] = _LETTER
    pairs.setflags(write=False)
    return pairs.reshape(-1)


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
def _sentence_end(values: Array, begin: int, at: int, limit: int, marks: Array) -> tuple[int, int, int, int]:
    """What the run of terminal marks at `at` does.

    Returns where the run ends, where the sentence ends behind closing quotes and brackets (-1: it goes on), the
    ellipses of three full stops in the run, and its continuation bytes.
    """
    index, dots, ellipses, continuations, only_dots, bits = at, 0, 0, 0, True, 0
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
            continuations += size - 1
            index += size
        ellipses += dots // 3
    behind = index
    while behind < limit and (values[behind] >= 0x80 or values[behind] in _CLOSING_ASCII):
        code, size = decode(values, behind, limit)
        if marks[code] & _CLOSING == 0:
            break
        behind += size
    if bits & _UNSPACED:
        return index, behind, ellipses, continuations
    if behind < limit:
        if white(values, behind, limit, marks) == 0:
            return index, -1, ellipses, continuations
        if only_dots and values[behind] != NEWLINE:
            following = behind
            while following < limit and values[following] == 32:
                following += 1
            if following < limit and 97 <= values[following] <= 122:
                return index, -1, ellipses, continuations
            if index == at + 1 and _short_form(values, begin, at):
                return index, -1, ellipses, continuations
    return index, behind, ellipses, continuations


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
def scan_line(values: Array, begin: int, limit: int, pairs: Array, marks: Array, found: Array) -> int:
    """Looks at the bytes from `begin` to the next line feed or `limit`; says where that is.

    `pairs` is `make_byte_pairs`. `found` (int64[9]) is overwritten: words between white space, characters of the
    longest (0 in a line of up to C4_MAX_WORD_CHARACTERS bytes), flags of phrases and of kinds of bytes, "{", "#",
    ellipses, sentences, continuation bytes of UTF-8, marks of citations.
    """
    at, last_end = begin, begin
    words, inside, flags, curly, hashes, ellipses, sentences = 0, 0, 0, 0, 0, 0, 0
    continuations, citations = 0, 0
    while at < limit:
        byte = values[at]
        following = values[at + 1] if at + 1 < limit else np.uint8(0)
        kind = pairs[np.uint32(byte) | (np.uint32(following) << np.uint32(8))]
        if kind <= _BLANK:
            words += kind & inside  # without a branch: words are short and their ends hard to predict
            inside = 1 - kind
            at += 1
            continue
        if kind == _LINE_END:
            break
        size, mark = 1, kind == _MARK
        if kind == _HIGH_BYTE:
            flags |= HIGH
            code, size = decode(values, at, limit)
            bits = marks[code]
            continuations += size - 1
            if bits & _WHITE:
                words += inside
                inside = 0
                at += size
                continue
            mark = bits & TERMINAL != 0
            ellipses += code == ELLIPSIS
        if mark:
            following_at, end, more, extra = _sentence_end(values, begin, at, limit, marks)
            if end >= 0:
                sentences += 1
                last_end = end
            ellipses += more
            if extra > 0:
                flags |= HIGH
            continuations += extra - (size - 1)
            inside = 1
            at = following_at
            continue
        if kind == _LETTER:
            flags |= _phrase(values, begin, at, limit)
        elif kind == _BRACKET:
            citations += citation(values, at, limit) > 0
        elif kind == _BRACE:
            curly += 1
        elif kind == _NUMBER_SIGN:
            hashes += 1
        elif kind == _ODD:
            flags |= CONTROL
        inside = 1
        at += size
    words += inside
    longest = _longest_word(values, begin, at, marks) if at - begin > C4_MAX_WORD_CHARACTERS else 0
    solid_end = at
    while (
        solid_end > last_end
        and not 32 < values[solid_end - 1] < 127
        and white_before(values, last_end, solid_end, marks)
    ):
        solid_end -= white_before(values, last_end, solid_end, marks)
    if solid_end > last_end:
        sentences += 1
    found[WORDS_FOUND], found[LONGEST_WORD], found[FLAGS], found[BRACES] = words, longest, flags, curly
    found[NUMBER_SIGNS], found[ELLIPSES_FOUND], found[SENTENCES_FOUND] = hashes, ellipses, sentences
    found[CONTINUATIONS], found[CITATIONS] = continuations, citations
    return at


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
def strip(values: Array, start: int, end: int, marks: Array) -> tuple[int, int]:
    """The range without white space (as `str.isspace`) at its ends."""
    while start < end and not 32 < values[start] < 127 and white(values, start, end, marks):
        start += white(values, start, end, marks)
    while start < end and not 32 < values[end - 1] < 127 and white_before(values, start, end, marks):
        end -= white_before(values, start, end, marks)
    return start, end


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
