"""Plain Python definitions of what the rooms compute on buffers: peers to be compared with, oracles to judge by."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict

from data_quality.quality_config import GOPHER_STOP_WORDS

QUALITY = (
    "non_symbol_words", "mean_word_length", "hash_ratio", "ellipsis_ratio", "bullet_line_share", "ellipsis_line_share",
    "alphabetic_word_share", "stop_words",
)  # fmt: skip
REPETITION = (
    "duplicate_line_share", "duplicate_paragraph_share",
    *(f"top_{n}_gram_character_share" for n in (2, 3, 4)),
    *(f"duplicate_{n}_gram_character_share" for n in range(5, 11)),
)  # fmt: skip
_WORD = re.compile(r"\w+")
_IN_WORD = re.compile(r"\w")
_OUTSIDE = "!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~“”‘’«»…–—•"


def word_ngrams(text: str, n: int = 5) -> set[bytes]:
    r"""The set of word n-grams as users of MinHash libraries write it: `\w+` of the lower-cased text, joined by spaces.

    A text of fewer words is one n-gram, as in `data_quality.sketch`; the two differ where scripts have no spaces.
    """
    words = _WORD.findall(text.lower())
    width = min(n, len(words))
    return {" ".join(words[i : i + width]).encode() for i in range(len(words) - width + 1)} if words else set()


def similar_pairs(sets: list[frozenset[bytes]], threshold: float) -> list[tuple[int, int]]:
    """All pairs of Jaccard similarity `threshold` or more (prefix filtering: Bayardo, Ma and Srikant 2007)."""
    times = Counter(gram for found in sets for gram in found)
    begins: dict[bytes, list[int]] = defaultdict(list)
    pairs = []
    for number in sorted(range(len(sets)), key=lambda number: len(sets[number])):
        mine = sets[number]
        rare_first = sorted(mine, key=lambda gram: (times[gram], gram))
        # Of two similar sets the first n - ceil(threshold·n) + 1 n-grams, the rarest first, share one at least.
        prefix = rare_first[: len(mine) - math.ceil(threshold * len(mine) - 1e-9) + 1]
        for other in {other for gram in prefix for other in begins[gram]}:
            if len(sets[other]) >= threshold * len(mine) - 1e-9:
                shared = len(mine & sets[other])
                if shared >= threshold * (len(mine) + len(sets[other]) - shared) - 1e-9:
                    pairs.append((other, number))
        for gram in prefix:
            begins[gram].append(number)
    return pairs


def quality(text: str) -> tuple[float, ...]:
    """The features of Gopher's quality rules, on words between white space."""
    words = text.split()
    lines = [line for raw in text.split("\n") if (line := raw.strip())]
    solid = [word for word in words if _IN_WORD.search(word)]
    some, rows = len(words) or 1, len(lines) or 1
    return (
        len(solid),
        sum(map(len, solid)) / (len(solid) or 1),
        text.count("#") / some,
        (text.count("...") + text.count("…")) / some,
        sum(line.startswith(("•", "-")) for line in lines) / rows,
        sum(line.endswith(("...", "…")) for line in lines) / rows,
        sum(any(map(str.isalpha, word)) for word in words) / some,
        len({word.strip(_OUTSIDE).casefold() for word in words}.intersection(GOPHER_STOP_WORDS)),
    )


def repetition(text: str) -> tuple[float, ...]:
    """The features of Gopher's repetition rules: repeated lines, paragraphs and word n-grams."""
    words = text.split()
    lines = [line for raw in text.split("\n") if (line := raw.strip())]
    blocks = "\n".join(line.strip() for line in text.split("\n"))
    paragraphs = [found.strip("\n") for found in re.split(r"\n\n+", blocks) if found.strip("\n")]
    letters = sum(map(len, words)) or 1
    found = [1 - len(set(items)) / len(items) if items else 0.0 for items in (lines, paragraphs)]
    for n in (2, 3, 4):
        grams = list(zip(*(words[i:] for i in range(n)), strict=False))
        top, times = Counter(grams).most_common(1)[0] if grams else ((), 1)
        starts = [i for i, gram in enumerate(grams) if gram == top] if times > 1 else []
        found.append(_covered(words, starts, n) / letters)
    for n in range(5, 11):
        seen: set[tuple[str, ...]] = set()
        starts = []
        for i, gram in enumerate(zip(*(words[i:] for i in range(n)), strict=False)):
            if gram in seen:
                starts.append(i)
            seen.add(gram)
        found.append(_covered(words, starts, n) / letters)
    return tuple(found)


def _covered(words: list[str], starts: list[int], n: int) -> int:
    return sum(len(words[i]) for i in {i for start in starts for i in range(start, start + n)})
