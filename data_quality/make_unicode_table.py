"""Writes `unicode_table.txt`, the word classes and simple case folding that `words.py` reads.

Run by a person when the rules below change or a newer Unicode is wanted (`python -m
data_quality.make_unicode_table`), never at run time: the file is checked in, so that words, features
and signatures do not change with the Python that computes them. Raise VERSION with every change.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

VERSION = 1
CODE_POINTS = 0x110000

SPACE, WORD, PUNCTUATION, OWN_WORD = 0, 1, 2, 3

# Scripts written without spaces between words, by the first words of the Unicode character names.
# unicodedata knows no scripts, but names are normative and never change.
OWN_WORD_NAMES = (
    "CJK UNIFIED IDEOGRAPH",
    "CJK COMPATIBILITY IDEOGRAPH",
    "IDEOGRAPHIC ",
    "VERTICAL IDEOGRAPHIC ",
    "VERTICAL KANA ",
    "HANGZHOU NUMERAL",
    "HIRAGANA ",
    "HENTAIGANA ",
    "KATAKANA",
    "HALFWIDTH KATAKANA",
    "COMBINING KATAKANA",
    "THAI ",
    "LAO ",
    "KHMER ",
    "MYANMAR ",
)
# Planes 2 and 3 are reserved for Han ideographs: those assigned after this table was made count too.
HAN_PLANES = ((0x20000, 0x2FFFE), (0x30000, 0x3FFFE))
ZERO_WIDTH_NON_JOINER, ZERO_WIDTH_JOINER = 0x200C, 0x200D
VARIATION_SELECTORS = ((0xFE00, 0xFE10), (0xE0100, 0xE01F0))


def character_class(code: int) -> int:
    """The class of one code point: see `words.character_classes`."""
    if any(start <= code < end for start, end in HAN_PLANES):
        return OWN_WORD
    if any(start <= code < end for start, end in VARIATION_SELECTORS):
        return PUNCTUATION  # they mostly dress emoji; as marks they would be words of their own there
    if code in (ZERO_WIDTH_NON_JOINER, ZERO_WIDTH_JOINER):
        return WORD  # inside words of Persian and of Indic scripts
    category = unicodedata.category(chr(code))
    if category in ("Zs", "Zl", "Zp", "Cc", "Cf"):
        return SPACE
    if category[0] == "L" or category in ("Mn", "Mc", "Nl"):
        return OWN_WORD if unicodedata.name(chr(code), "").startswith(OWN_WORD_NAMES) else WORD
    if category[0] == "N" or code == ord("_"):
        return WORD
    return PUNCTUATION


def simple_fold(code: int) -> int:
    """Simple case folding (statuses C and S of CaseFolding.txt) of one code point.

    Python has full folding only. Where that gives several characters, the simple folding is the
    lower-case character if there is one, else none.
    """
    character = chr(code)
    for folded in (character.casefold(), character.lower()):
        if len(folded) == 1:
            return ord(folded)
    return code


def runs(value: Callable[[int], int]) -> Iterator[tuple[int, int, int]]:
    """(start, end, value) of every maximal run of equal values over all code points; end exclusive."""
    start, current = 0, value(0)
    for code in range(1, CODE_POINTS):
        found = value(code)
        if found != current:
            yield start, code, current
            start, current = code, found
    yield start, CODE_POINTS, current


def fold_runs() -> Iterator[tuple[int, int, int, int]]:
    """(start, end, step, difference): each step-th code point from start to end folds by it."""
    folds = {code: simple_fold(code) - code for code in range(CODE_POINTS) if simple_fold(code) != code}
    while folds:
        start = min(folds)
        difference = folds[start]
        step = next((s for s in (1, 2) if folds.get(start + s) == difference), 1)
        end = start
        while folds.get(end) == difference:
            del folds[end]
            end += step
        yield start, end, step, difference


def table_text() -> str:
    lines = [
        "# Word classes and simple case folding; made by make_unicode_table.py, not edited by hand.",
        f"version {VERSION}",
        f"unicode {unicodedata.unidata_version}",
        "# class START END CLASS (END exclusive, hexadecimal; 0 space, 1 word, 2 punctuation, 3 own word)",
    ]
    lines += [f"class {start:x} {end:x} {found}" for start, end, found in runs(character_class)]
    lines.append("# fold START END STEP DIFFERENCE (difference in decimal)")
    lines += [f"fold {start:x} {end:x} {step} {difference}" for start, end, step, difference in fold_runs()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    target = Path(__file__).with_name("unicode_table.txt")
    target.write_text(table_text(), encoding="ascii")
    sys.stdout.write(f"{target.name}: {target.stat().st_size} bytes\n")
