"""What kind of character each code point is to the regular expressions of `tokenizers`, asked of that engine itself.

Python's and `regex`'s tables are of other Unicode versions and differ from it on thousands of letters. The answers for
one version of the library lie in `characters.json`; for any other version the engine is asked anew (some 5 s).
`python -m corpus.encoding.characters` writes the file.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

LETTER, NUMBER, SPACE, UPPER, LOWER, LINE_END, OTHER, COMPOSES = (np.uint8(1 << bit) for bit in range(8))
"""Bits of a code point: `\\p{L}`; `\\p{N}`; `\\s`; o200k's `[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]` and
`[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]`; CR or LF; none of the first three; may not be in Unicode normal form C as it stands."""

CLASSES = {
    LETTER: r"\p{L}",
    NUMBER: r"\p{N}",
    SPACE: r"\s",
    UPPER: r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
    LOWER: r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
    LINE_END: r"[\r\n]",
    OTHER: r"[^\s\p{L}\p{N}]",
}
CODE_POINTS = 0x110000
_SURROGATES = range(0xD800, 0xE000)
_FILE = Path(__file__).with_name("characters.json")


@cache
def character_bits() -> npt.NDArray[np.uint8]:
    """uint8 (0x110000,), read-only: the bits of every code point for the installed `tokenizers`."""
    from importlib.metadata import version

    kept = json.loads(_FILE.read_text(encoding="ascii"))
    found = _from_runs(kept["runs"]) if kept["tokenizers"] == version("tokenizers") else probe()
    found.flags.writeable = False
    return found


def probe() -> npt.NDArray[np.uint8]:
    """The bits of every code point as the installed engine has them; surrogates have none."""
    from tokenizers import Regex, pre_tokenizers

    points = np.array([point for point in range(CODE_POINTS) if point not in _SURROGATES])
    text = "".join(map(chr, points.tolist()))
    bits = np.zeros(CODE_POINTS, np.uint8)
    for bit, pattern in CLASSES.items():
        # Of a text of every code point once, what is left when the matches are taken out.
        matched = np.ones(len(points), np.bool_)
        for _, (start, end) in pre_tokenizers.Split(Regex(pattern + "+"), "removed").pre_tokenize_str(text):
            matched[start:end] = False
        bits[points[matched]] |= bit
    bits[points[_composing(points)]] |= COMPOSES
    return bits


def _composing(points: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which code points a text in normal form C may not hold, or not everywhere.

    The rest are starters that normalising changes neither alone nor with what stands beside them (UAX #15, quick
    check). Code points that Python's tables do not know are counted in: the library's may be newer.
    """
    import unicodedata

    from tokenizers import normalizers

    normalise = normalizers.NFC().normalize_str
    second = {  # all that can be composed with a starter before it
        unicodedata.normalize("NFD", chr(point))[-1]
        for point in points.tolist()
        if unicodedata.decomposition(chr(point)) or 0xAC00 <= point < 0xD7A4
    }
    return np.array(
        [
            unicodedata.category(character) == "Cn"
            or unicodedata.combining(character) != 0
            or character in second
            or unicodedata.normalize("NFC", character) != character
            or normalise(character) != character
            for character in map(chr, points.tolist())
        ]
    )


def _to_runs(bits: npt.NDArray[np.uint8]) -> list[list[int]]:
    """[first code point, bits] of every run of equal bits."""
    starts = np.flatnonzero(np.diff(bits, prepend=~bits[:1]))
    return [[int(start), int(bits[start])] for start in starts]


def _from_runs(runs: list[list[int]]) -> npt.NDArray[np.uint8]:
    bits = np.zeros(CODE_POINTS, np.uint8)
    for (start, value), (end, _) in pairwise([*runs, [CODE_POINTS, 0]]):
        bits[start:end] = value
    return bits


def write_table() -> None:
    """Ask the installed engine and write `characters.json`."""
    from importlib.metadata import version

    runs = ",\n".join(json.dumps(run) for run in _to_runs(probe()))
    _FILE.write_text(f'{{"tokenizers": "{version("tokenizers")}", "runs": [\n{runs}\n]}}\n', encoding="ascii")


if __name__ == "__main__":
    write_table()
