"""The known patterns as finite automata over kinds of characters, which `kernels.piece_end` runs.

A regular expression takes the first alternative that matches, with as many repetitions as go. Written as an automaton
that is a state a situation, where three things look back: white space leaves its last character to what follows, line
ends are taken up to the last one, and o200k's words end behind the last letter that may count as lower case.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from corpus.encoding.characters import LETTER, LINE_END, LOWER, NUMBER, OTHER, SPACE, UPPER, character_bits

Symbols = frozenset[int]

# Symbols: ASCII is its own, what lies beyond is one of these, the end of the text the last.
_UPPER, _LOWER, _EITHER, _MARK, _NUMBER, _SPACE, _OTHER, _LONG_S = range(0x80, 0x88)
END_OF_TEXT = 0xFF

# States from here on are answers: the piece ends before this character, before the one before it, before the two
# before it (both of ASCII), or where the last state of those that take note was entered.
STOP, STOP_1, STOP_2, STOP_NOTED = 0xFC, 0xFD, 0xFE, 0xFF
FIRST_STOP = STOP

_NAMES = {"stop": STOP, "stop-1": STOP_1, "stop-2": STOP_2, "stop-noted": STOP_NOTED}

Rules = Mapping[str, Mapping[str, str]]
"""State -> kinds (a name of `_kinds`, or characters after "=", several with blanks between) -> next state; what comes
later goes before what came earlier, what is not named stops. The first state is the beginning, names with "*" take note
of where they are entered."""

_CONTRACTIONS = {"=sdmt": "done", "=rv": "quote e", "=l": "quote l"}
_ANY_CASE = {"=sdmtSDMT ſ": "done", "=rvRV": "quote e", "=lL": "quote l"}

GPT2: Rules = {
    "start": {
        "white": "white", "= ": "space", "letter": "letters", "number": "numbers", "other": "others", "='": "quote",
    },
    "space": {"white": "whites", "letter": "letters", "number": "numbers", "other": "others"},
    "white": {"white": "whites"},
    "whites": {"any": "stop-1", "white": "whites", "end": "stop"},
    "letters": {"letter": "letters"},
    "numbers": {"number": "numbers"},
    "others": {"other": "others"},
    "quote": {"other": "others", **_CONTRACTIONS},
    "quote e": {"any": "stop-1", "end": "stop-1", "=e": "done"},
    "quote l": {"any": "stop-1", "end": "stop-1", "=l": "done"},
    "done": {},
}  # fmt: skip

# What cl100k, Qwen and o200k share: numbers, runs of other characters with line ends, white space with line ends.
_COMMON: Rules = {
    "number": {"number": "number 2"},
    "number 2": {"number": "done"},
    "others": {"other": "others", "line end": "others, lines"},
    "others, lines": {"line end": "others, lines"},
    "whites": {"any": "stop-1", "white": "whites", "line end": "lines*", "end": "stop"},
    "lines*": {"white": "lines, whites", "line end": "lines*"},
    "lines, whites": {"any": "stop-noted", "white": "lines, whites", "line end": "lines*", "end": "stop-noted"},
    "done": {},
}
_WHITES = {"white": "whites", "line end": "lines*"}

CL100K: Rules = {
    "start": {
        "white": "prefix, white", "= ": "space", "line end": "lines*", "letter": "letters", "number": "number",
        "other": "prefix", "='": "quote",
    },
    "prefix, white": {**_WHITES, "letter": "letters"},
    "space": {**_WHITES, "letter": "letters", "other": "others"},
    "prefix": {"letter": "letters", "other": "others", "line end": "others, lines"},
    "letters": {"letter": "letters"},
    "quote": {"letter": "letters", "other": "others", "line end": "others, lines", **_ANY_CASE},
    "quote e": {"letter": "letters", "=eE": "done"},
    "quote l": {"letter": "letters", "=lL": "done"},
    **_COMMON,
}  # fmt: skip

QWEN2: Rules = {**CL100K, "number": {}}

_WORDS = {"upper": "upper", "lower": "lower", "either": "either*"}

O200K: Rules = {
    "start": {
        "white": "prefix, white", "= ": "space", "line end": "lines*", "number": "number", "other": "prefix", **_WORDS,
    },
    "prefix, white": {**_WHITES, **_WORDS},
    "space": {**_WHITES, "other": "others", **_WORDS},
    "prefix": {"other": "others", "line end": "others, lines", **_WORDS},
    "upper": {**_WORDS, "='": "quote"},
    "lower": {"lower": "lower", "either": "lower", "='": "quote"},
    "either*": {**_WORDS, "upper": "either, upper", "='": "quote"},
    "either, upper": {"any": "stop-noted", "end": "stop-noted", **_WORDS, "upper": "either, upper"},
    "quote": {"any": "stop-1", "end": "stop-1", **_ANY_CASE},
    "quote e": {"any": "stop-2", "end": "stop-2", "=eE": "done"},
    "quote l": {"any": "stop-2", "end": "stop-2", "=lL": "done"},
    **_COMMON,
    "others, lines": {"line end": "others, lines", "=/": "others, lines"},
}  # fmt: skip

RULES: Mapping[str, Rules] = {"gpt2": GPT2, "cl100k": CL100K, "qwen2": QWEN2, "o200k": O200K}


def character_symbols() -> npt.NDArray[np.uint8]:
    """uint8 (0x110000,): the symbol of every code point."""
    bits = character_bits()
    symbols = np.full(len(bits), _OTHER, np.uint8)
    for symbol, has, has_not in (
        (_UPPER, LETTER | UPPER, LOWER),
        (_LOWER, LETTER | LOWER, UPPER),
        (_EITHER, LETTER | UPPER | LOWER, 0),
        (_MARK, OTHER | UPPER | LOWER, 0),
        (_NUMBER, NUMBER, UPPER | LOWER),
        (_SPACE, SPACE, 0),
    ):
        symbols[(bits & has == has) & (bits & has_not == 0)] = symbol
    symbols[ord("ſ")] = _LONG_S
    symbols[:0x80] = np.arange(0x80)
    return symbols


def automaton(name: str) -> tuple[npt.NDArray[np.uint8], int, int]:
    """The automaton of a pattern.

    Returns
    -------
    Next state by `state << 8 | symbol`, uint8; the first state; how many states, the first ones, take note.
    """
    rules = RULES[name]
    order = sorted(rules, key=lambda state: not state.endswith("*"))
    numbers = {state: number for number, state in enumerate(order)} | _NAMES
    kinds = _kinds()
    table = np.full((len(order), 256), STOP, np.uint8)
    for state, moves in rules.items():
        for kind, target in moves.items():
            symbols = kinds[kind] if kind in kinds else _literal(kind)
            table[numbers[state], list(symbols)] = numbers[target]
    return table.ravel(), numbers["start"], sum(state.endswith("*") for state in order)


def _literal(kind: str) -> Symbols:
    if kind == "= ":
        return frozenset({0x20})
    return frozenset(_LONG_S if character == "ſ" else ord(character) for character in kind[1:].replace(" ", ""))


def _kinds() -> Mapping[str, Symbols]:
    """The symbols of every kind of character; those of ASCII as the engine has them."""
    ascii_bits = character_bits()[:0x80]

    def with_bits(bit: np.uint8, *others: int) -> Symbols:
        return frozenset([*np.flatnonzero(ascii_bits & bit).tolist(), *others])

    return {
        "any": frozenset(range(0x88)),
        "end": frozenset({END_OF_TEXT}),
        "white": with_bits(SPACE, _SPACE),
        "line end": with_bits(LINE_END),
        "letter": with_bits(LETTER, _UPPER, _LOWER, _EITHER, _LONG_S),
        "upper": with_bits(UPPER, _UPPER),
        "lower": with_bits(LOWER, _LOWER, _LONG_S),
        "either": frozenset({_EITHER, _MARK}),
        "number": with_bits(NUMBER, _NUMBER),
        "other": with_bits(OTHER, _MARK, _OTHER),
    }
