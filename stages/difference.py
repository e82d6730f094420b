"""Two texts word for word: what is the same, what only one of them has. For people, so long texts are cut short."""

from __future__ import annotations

import difflib
import re

SAME, KEEPER, THIS = "same", "keeper", "this"
"""Whose words a passage holds: of both, only of the document that stays, only of the one that was asked for."""
WORDS_COMPARED = 600
WORDS_AROUND = 8
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


def word_difference(keeper: str, text: str) -> list[tuple[str, str]]:
    """Passages in order, each with whose it is; of what both have only the words next to a difference.

    Between what they begin and end with alike only the first 600 words and marks of either are compared, since
    comparing takes the product of the lengths and more; a passage `…` says where something is left out.
    """
    theirs, mine = _WORDS.findall(keeper), _WORDS.findall(text)
    shortest = min(len(theirs), len(mine))
    start = next((i for i in range(shortest) if theirs[i] != mine[i]), shortest)
    left = shortest - start
    end = next((i for i in range(left) if theirs[-1 - i] != mine[-1 - i]), left)
    inside = [words[start : len(words) - end] for words in (theirs, mine)]
    cut = max(map(len, inside)) > WORDS_COMPARED
    a, b = (words[:WORDS_COMPARED] for words in inside)
    passages = [(SAME, theirs[:start])] if start else []
    for kind, a_start, a_end, b_start, b_end in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            passages.append((SAME, a[a_start:a_end]))
            continue
        passages += [(KEEPER, a[a_start:a_end])] if a_end > a_start else []
        passages += [(THIS, b[b_start:b_end])] if b_end > b_start else []
    if cut:
        passages.append((SAME, ["…"]))
    if end:
        passages.append((SAME, theirs[len(theirs) - end :]))
    last = len(passages) - 1
    return [
        (whose, _shortened(words, keep_start=number > 0, keep_end=number < last) if whose == SAME else "".join(words))
        for number, (whose, words) in enumerate(passages)
    ]


def _shortened(words: list[str], *, keep_start: bool, keep_end: bool) -> str:
    """The words next to a difference: at the start of a passage, at its end, or both."""
    around = 2 * WORDS_AROUND  # every second one is a space
    if len(words) <= around * (keep_start + keep_end) + 1 or not (keep_start or keep_end):
        return "".join(words)
    start = "".join(words[:around]) + " " if keep_start else ""
    end = " " + "".join(words[-around:]) if keep_end else ""
    return f"{start}…{end}"
