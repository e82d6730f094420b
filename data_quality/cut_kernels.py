"""The compiled loop behind `cuts.c4_lines`: the spans of what C4's rules remove from many texts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import Array, readable
from data_quality.scan_kernels import (
    C4_MAX_WORD_CHARACTERS,
    CITATIONS,
    FLAGS,
    FOUND,
    LINE_END,
    LINES_AT_ONCE,
    LONGEST_WORD,
    TAIL,
    WORDS_FOUND,
    citation,
    end_mark,
    scan_line,
    scan_lines,
    strip,
    without_citations,
)
from data_quality.scan_kernels import JAVASCRIPT as JAVASCRIPT_FLAG
from data_quality.scan_kernels import POLICY as POLICY_FLAG

# Codes of the reasons, in the order in which C4 asks for them; CITATION is cut inside lines that stay.
KEPT, LONG_WORD, NO_END_MARK, FEW_WORDS, JAVASCRIPT, POLICY, CITATION = range(7)


@njit(cache=True, nogil=True)
def c4_spans(
    values: Array, offsets: Array, marks: Array, min_words: int, with_citations: bool, least_mark: int,
    counts: Array, starts: Array, ends: Array, codes: Array,
) -> int:  # fmt: skip
    """Finds the lines that C4 removes, and the citations in those that it keeps.

    Parameters
    ----------
    values, offsets
        uint8 and int64: the buffers of a large_string array.
    marks
        `punctuation.mark_bits`.
    min_words, with_citations
        Fewer words, and a line is removed; whether the marks of citations count as words.
    least_mark
        What `scan_kernels.end_mark` must say of a line: 2 C4, 1 datatrove, 0 anything.
    counts, starts, ends, codes
        int64, written: spans of each text; positions relative to their text and reason of each span.

    Returns
    -------
    The number of spans.
    """
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    scratch, tail = np.empty(longest + 8, np.uint8), np.empty(TAIL, np.uint8)
    copy = readable(values, scratch)
    lines, cited_line = np.empty((LINES_AT_ONCE, FOUND), np.int64), np.empty((1, FOUND), np.int64)
    number = 0
    for row in range(len(offsets) - 1):
        first, begin, limit = number, offsets[row], offsets[row + 1]
        origin = begin
        kept_until = begin  # end of the last line that stays, without its line end
        cut_before = False
        lines_found, line_number = 0, 0
        while begin < limit:
            if line_number == lines_found:
                lines_found, line_number = scan_lines(values, begin, limit, marks, tail, lines), 0
            found = lines[line_number]
            line_number += 1
            end = found[LINE_END]
            following = min(end + 1, limit)
            left, right = strip(values, begin, end, marks)
            if left == right:
                if cut_before:  # blank lines go with the line before them
                    ends[number - 1] = following - origin
                begin = following
                continue
            code = _judge(
                values, left, right, marks, min_words, with_citations, least_mark, scratch, copy, tail, found,
                cited_line,
            )  # fmt: skip
            cut_before = code != KEPT
            if not cut_before:
                kept_until = right
                while left < right:
                    width = citation(values, left, right) if values[left] == 0x5B else 0
                    if width > 0:
                        starts[number], ends[number], codes[number] = left - origin, left + width - origin, CITATION
                        number += 1
                    left += max(width, 1)
            elif number > first and codes[number - 1] == code and ends[number - 1] == begin - origin:
                ends[number - 1] = following - origin
            else:
                starts[number], ends[number], codes[number] = begin - origin, following - origin, code
                number += 1
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
    values: Array, left: int, right: int, marks: Array, min_words: int, with_citations: bool, least_mark: int,
    scratch: Array, copy: Array, tail: Array, found: Array, cited_line: Array,
) -> int:  # fmt: skip
    """The first reason to remove the line values[left:right], of which `found` tells, or KEPT."""
    if found[LONGEST_WORD] > C4_MAX_WORD_CHARACTERS:
        return LONG_WORD
    words = found[WORDS_FOUND]
    if found[CITATIONS] > 0:
        right = without_citations(values, left, right, scratch)
        zero: Any = np.int64(0)  # numba compiles a call anew for every literal
        values, left = copy, zero
        scan_line(copy, zero, right, marks, tail, cited_line)
        found = cited_line[0]
    if end_mark(values, left, right) < least_mark:
        return NO_END_MARK
    if (words if with_citations else found[WORDS_FOUND]) < min_words:
        return FEW_WORDS
    if found[FLAGS] & JAVASCRIPT_FLAG:
        return JAVASCRIPT
    return POLICY if found[FLAGS] & POLICY_FLAG else KEPT
