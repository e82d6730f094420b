"""What a word is, for every language at once: one class and one case folding a Unicode code point.

Quality features, signatures and word differences all split text by these two tables, which come
from a versioned file of ours, so that results do not change with the version of Python.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

UNICODE_TABLE_VERSION = 1
SCRIPT_TABLE_VERSION = 1
CODE_POINTS = 0x110000

SPACE, WORD, PUNCTUATION, OWN_WORD = 0, 1, 2, 3


def character_classes() -> npt.NDArray[np.uint8]:
    """The class of every code point: uint8[0x110000], read-only, shared by all callers.

    0  white space, control and format characters: separate words
    1  word characters: letters, marks, numbers, underscore, and the two zero-width joiners of
       Persian and Indic words; a word is a maximal run of them
    2  punctuation, symbols, emoji, private use and unassigned: separate words
    3  letters and marks of scripts written without spaces, every character a word of its own:
       Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar

    Digits of class-3 scripts are class 1. Tibetan and Ethiopic need no class 3, since they mark the
    ends of syllables or words by punctuation; Hangul has spaces.
    """
    return _tables()[0]


def fold_table() -> npt.NDArray[np.uint32]:
    """Simple case folding of every code point: uint32[0x110000], read-only, shared by all callers."""
    return _tables()[1]


def unicode_version() -> str:
    """The version of Unicode the tables were made from, for manifests."""
    return _tables()[2]


def split_words(text: str) -> list[str]:
    """The case-folded words of a text, in order; the plain form of what the kernels do on buffers.

    >>> split_words("Don't stop, 東京!")
    ['don', 't', 'stop', '東', '京']
    """
    classes, folds = character_classes(), fold_table()
    words: list[str] = []
    previous = SPACE
    for character in text:
        code = ord(character)
        found = int(classes[code])
        folded = chr(folds[code])
        if found == OWN_WORD or (found == WORD and previous != WORD):
            words.append(folded)
        elif found == WORD:
            words[-1] += folded
        previous = found
    return words


@lru_cache(maxsize=1)
def script_table() -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """The script of every letter and mark, and the names: uint8[0x110000], read-only, 0 for none, else the place in the
    names (ISO 15924 codes, "" first). Marks and letters that several scripts share have none.
    """
    scripts = np.zeros(CODE_POINTS, dtype=np.uint8)
    names: list[str] = [""]
    version = ""
    path = Path(__file__).with_name("script_table.txt")
    for line in path.read_text(encoding="ascii").splitlines():
        match line.split():
            case ["script", start, end, found]:
                scripts[int(start, 16) : int(end, 16)] = int(found)
            case ["names", *found_names]:
                names += found_names
            case ["version", found_version]:
                version = found_version
    if version != str(SCRIPT_TABLE_VERSION):
        raise ValueError(
            f"{path.name} is version {version}, this code needs {SCRIPT_TABLE_VERSION}: "
            "run `python -m data_quality.make_script_table` with the VERSION it expects"
        )
    scripts.setflags(write=False)
    return scripts, tuple(names)


@lru_cache(maxsize=1)
def _tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32], str]:
    path = Path(__file__).with_name("unicode_table.txt")
    classes = np.full(CODE_POINTS, PUNCTUATION, dtype=np.uint8)
    folds = np.arange(CODE_POINTS, dtype=np.int64)
    facts: dict[str, str] = {}
    for line in path.read_text(encoding="ascii").splitlines():
        match line.split():
            case ["class", start, end, found]:
                classes[int(start, 16) : int(end, 16)] = int(found)
            case ["fold", start, end, step, difference]:
                folds[int(start, 16) : int(end, 16) : int(step)] += int(difference)
            case ["version" | "unicode" as name, value]:
                facts[name] = value
    if facts.get("version") != str(UNICODE_TABLE_VERSION):
        raise ValueError(
            f"{path.name} is version {facts.get('version')}, this code needs {UNICODE_TABLE_VERSION}: "
            "run `python -m data_quality.make_unicode_table` with the VERSION it expects"
        )
    codes = folds.astype(np.uint32)
    classes.setflags(write=False)
    codes.setflags(write=False)
    return classes, codes, facts["unicode"]
