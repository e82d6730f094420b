"""What marks of punctuation mean to the features: one byte of bits a code point, from lists with their sources."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from data_quality.words import CODE_POINTS

TERMINAL, UNSPACED, CLOSING, DATATROVE, WHITE = 1, 2, 4, 8, 16
"""Ends a sentence (FineWeb's list); does so without white space behind it; closes a quotation or a bracket; is
punctuation to datatrove; is white space to Python's str.isspace (Unicode 14), by which C4's lines are stripped."""

# The 159 marks of Unicode's Sentence_Terminal property that datatrove v0.10 (utils/text.py) has in
# TERMINAL_PUNCTUATION, as hexadecimal code points and ranges.
TERMINAL_MARKS = """
21 2e 3f 589 61d-61f 6d4 700-702 7f9 837 839 83d-83e 964-965 104a-104b 1362 1367-1368 166e 1735-1736 17d4-17d6
17d9-17da 1803 1809 1944-1945 1aa8-1aab 1b5a-1b5b 1b5e-1b5f 1b7d-1b7e 1c3b-1c3c 1c7e-1c7f 203c-203d 2047-2049 2e2e
2e3c 2e53-2e54 3002 a4ff a60e-a60f a6f3 a6f7 a876-a877 a8ce-a8cf a92f a9c8-a9c9 aa5d-aa5f aaf0-aaf1 abeb fe52
fe56-fe57 ff01 ff0e ff1f ff61 10a56-10a57 10f55-10f59 10f86-10f89 11047-11048 110be-110c1 11141-11143 111c5-111c6
111cd 111de-111df 11238-11239 1123b-1123c 112a9 1144b-1144c 115c2-115c3 115c9-115d7 11641-11642 1173c-1173e 11944
11946 11a42-11a43 11a9b-11a9c 11c41-11c42 11ef7-11ef8 11f43-11f44 16a6e-16a6f 16af5 16b37-16b38 16b44 16e98 1bc9f
1da88
"""
# Those among them that are written without a space behind them: of Chinese, Japanese, Khmer, Lao, Myanmar and Thai.
UNSPACED_MARKS = "104a-104b 17d4-17d5 3002 fe52 fe56-fe57 ff01 ff0e ff1f ff61"
# Quotation marks and brackets that may stand between the end of a sentence and white space.
CLOSING_MARKS = "22 27 29 5d 7d bb 2019 201d 203a 300b 300d 300f 3011 ff09 ff02 ff07"
# datatrove v0.10 (utils/text.py), PUNCTUATION; its PUNCTUATION_SET adds the terminal marks.
DATATROVE_MARKS = """
0-8 b-1f 21-2f 3a-40 5b-60 7b-9f ab b4 bb 2013-2014 2019 201c-201e 2026 2236 2501 25ba 3001-3002 3008-300d 3010-3011
ff01 ff05 ff08-ff09 ff0c ff0e ff11 ff1a-ff1b ff1f ff5e
"""
WHITE_SPACE = "9-d 1c-20 85 a0 1680 2000-200a 2028-2029 202f 205f 3000"


@lru_cache(maxsize=1)
def mark_bits() -> npt.NDArray[np.uint8]:
    """The bits of every code point: uint8[0x110000], read-only, shared by all callers."""
    bits = np.zeros(CODE_POINTS, dtype=np.uint8)
    for spans, found in (
        (TERMINAL_MARKS, TERMINAL | DATATROVE),
        (UNSPACED_MARKS, UNSPACED),
        (CLOSING_MARKS, CLOSING),
        (DATATROVE_MARKS, DATATROVE),
        (WHITE_SPACE, WHITE),
    ):
        for first, last in code_spans(spans):
            bits[first : last + 1] |= found
    bits.setflags(write=False)
    return bits


def code_spans(spans: str) -> list[tuple[int, int]]:
    """The ranges in "21 2e 30-39": first and last code point of each."""
    found = []
    for span in spans.split():
        start, _, last = span.partition("-")
        found.append((int(start, 16), int(last or start, 16)))
    return found
