"""Compiled loops of `classifier.py`: hashed n-grams of whole buffers, stochastic gradient steps, scores.

Only IEEE 754 additions, multiplications, divisions and square roots in a fixed order, no library's exponential: the
same documents give the same weights, bit for bit, on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import decode
from data_quality.word_kernels import hash_words, longest, word_scratch

_WORD, _OWN_WORD = 1, 3  # classes of `words.character_classes`
_SEED = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0xD6E8FEB86659FD93)
_LAST = np.uint64(0xFF51AFD7ED558CCD)
_HALF = np.uint64(33)
_CHARACTERS_SEED = np.uint64(0xA24BAED4963EE407)  # "ab" as two characters is no word "ab"
_EDGE = 0  # stands for the edge of a word among its characters: no word character is U+0000


@njit(cache=True, nogil=True)
def sigmoid(value: float, powers: Any) -> Any:
    """1 / (1 + e^-value); `powers` is float64[129], 2^-64 to 2^64. Within 3e-16 of the exact value."""
    # e^-x = 2^k · e^r with |r| <= ln 2 / 2, where 14 terms of the series are exact to the last bits.
    x = -min(max(value, -40.0), 40.0)
    k = int(np.floor(x * 1.4426950408889634 + 0.5))
    r = (x - k * 0.6931471803691238) - k * 1.9082149292705877e-10  # ln 2 in two pieces (Cody and Waite)
    term, total = 1.0, 1.0
    for i in range(1, 15):
        term = term * r / i
        total += term
    return 1.0 / (1.0 + total * powers[k + 64])


@njit(cache=True, nogil=True)
def _framed_characters(data: Any, start: int, end: int, classes: Any, folds: Any, codes: Any) -> int:
    """Writes the folded words of a text as code points with _EDGE before, between and after them; returns how many."""
    codes[0] = _EDGE
    count = 1
    i = start
    while i < end:
        lead = data[i]
        if lead < 128:
            code, size = int(lead), 1
        else:
            code, size = decode(data, i, end)
        i += size
        found = classes[code]
        if found != _WORD and codes[count - 1] != _EDGE:
            codes[count] = _EDGE
            count += 1
        if found in (_WORD, _OWN_WORD):
            codes[count] = folds[code]
            count += 1
        if found == _OWN_WORD:
            codes[count] = _EDGE
            count += 1
    if codes[count - 1] != _EDGE:
        codes[count] = _EDGE
        count += 1
    return count


@njit(cache=True, nogil=True)
def _find_buckets(
    data: Any, start: int, end: int, tables: Any, orders: Any, scratch: Any, words: Any, codes: Any, stamps: Any,
    stamp: int, shift: Any, found: Any,
) -> int:  # fmt: skip
    """Writes the different buckets of one text to `found` in order of first appearance; returns how many.

    `tables` are `words.character_classes`, `words.fold_table` and `sketch.word_forms`; `orders` are the longest word
    n-gram, the shortest and the longest character n-gram (0: none). `scratch` is that of `hash_words`.
    `stamps[bucket]` is `stamp` where the text has it already.
    """
    classes, folds, forms = tables
    longest_words, shortest_characters, longest_characters = orders
    total = 0
    if longest_words > 0:
        count = hash_words(data, start, end, forms, scratch, words)
        for i in range(count):
            value = _SEED
            for n in range(min(longest_words, count - i)):
                value = (value ^ words[i + n]) * _STEP
                value ^= value >> _HALF
                bucket = np.int64((value * _LAST) >> shift)
                if stamps[bucket] != stamp:
                    stamps[bucket] = stamp
                    found[total] = bucket
                    total += 1
    if longest_characters > 0:
        count = _framed_characters(data, start, end, classes, folds, codes)
        for i in range(count):
            value = _CHARACTERS_SEED
            for n in range(1, min(longest_characters, count - i) + 1):
                code = codes[i + n - 1]
                if code == _EDGE and n == 2 and codes[i] == _EDGE:
                    break  # no word between two edges
                value = (value ^ np.uint64(code)) * _STEP
                value ^= value >> _HALF
                if n >= shortest_characters and (n > 1 or code != _EDGE):
                    bucket = np.int64((value * _LAST) >> shift)
                    if stamps[bucket] != stamp:
                        stamps[bucket] = stamp
                        found[total] = bucket
                        total += 1
                if code == _EDGE and n > 1:
                    break  # the word's end
    return total


@njit(cache=True, nogil=True)
def room_of(longest_text: int, orders: Any) -> tuple[int, int, int]:
    """Room for the words, the framed characters and the n-grams of a text of so many bytes."""
    words = (longest_text + 1) // 2 if orders[0] > 0 else 0
    characters = 3 * longest_text // 2 + 3 if orders[2] > 0 else 0  # one byte a character, an edge for every other
    kinds = orders[2] - orders[1] + 1 if orders[2] > 0 else 0
    return words + 1, characters + 1, words * orders[0] + characters * kinds + 1


@njit(cache=True, nogil=True)
def extract(data: Any, offsets: Any, tables: Any, orders: Any, bits: int, counts: Any, buckets: Any) -> int:
    """The different buckets of every text, one after the other.

    Parameters
    ----------
    data, offsets
        uint8 data and int64[documents + 1] offsets of texts.
    counts
        int64[documents], overwritten with the number of buckets of each.
    buckets
        uint32, filled as far as it reaches.

    Returns
    -------
    int
        The number of all buckets. More than `buckets` holds: call again with that much room.
    """
    word_room, character_room, room = room_of(longest(offsets), orders)
    scratch = word_scratch(2 * word_room)
    words = np.empty(word_room, dtype=np.uint64)
    codes = np.empty(character_room, dtype=np.uint32)
    found = np.empty(room, dtype=np.uint32)
    stamps = np.full(1 << bits, -1, dtype=np.int32)
    shift = np.uint64(64 - bits)
    total = 0
    for d in range(offsets.size - 1):
        start, end = offsets[d], offsets[d + 1]
        n = _find_buckets(data, start, end, tables, orders, scratch, words, codes, stamps, d, shift, found)
        counts[d] = n
        if total + n <= buckets.size:
            for k in range(n):
                buckets[total + k] = found[k]
        total += n
    return total


@njit(cache=True, nogil=True)
def train(
    buckets: Any, bounds: Any, labels: Any, class_weights: Any, order: Any, epoch: int, epochs: int, rate: float,
    l2: float, powers: Any, weights: Any, squares: Any, bias: Any,
) -> None:  # fmt: skip
    """One epoch of logistic regression by AdaGrad (Duchi et al. 2011), document by document in the given order.

    Document d has the buckets buckets[bounds[d]:bounds[d + 1]], each with the value 1 / sqrt(their number).

    Parameters
    ----------
    labels, class_weights
        uint8[documents], 0 or 1, and float64[2]: how much a document of each class counts.
    order
        int64[documents], the order of this epoch.
    weights, squares
        float32 and float32[2^bits], the weights and AdaGrad's sums of squared gradients, changed in place.
    bias
        float64[2], the bias and its sum, changed in place.
    """
    steps = epochs * order.size
    for step in range(order.size):
        d = order[step]
        start, end = bounds[d], bounds[d + 1]
        if end == start:
            continue
        pace = rate * (1.0 - (epoch * order.size + step) / steps)
        value = 1.0 / np.sqrt(np.float64(end - start))
        total = 0.0
        for k in range(start, end):
            total += np.float64(weights[buckets[k]])
        error = sigmoid(bias[0] + total * value, powers) - np.float64(labels[d])
        error *= class_weights[labels[d]]
        pull = error * value
        for k in range(start, end):
            bucket = buckets[k]
            gradient = pull + l2 * np.float64(weights[bucket])
            square = np.float64(squares[bucket]) + gradient * gradient
            squares[bucket] = np.float32(square)
            weights[bucket] = np.float32(np.float64(weights[bucket]) - pace * gradient / np.sqrt(square + 1e-12))
        bias[1] += error * error
        bias[0] -= pace * error / np.sqrt(bias[1] + 1e-12)


@njit(cache=True, nogil=True)
def score(
    data: Any, offsets: Any, tables: Any, orders: Any, bits: int, weights: Any, bias: float, margins: Any
) -> None:
    """The linear score of every text before the sigmoid: float64[documents]; NaN for a text without n-grams."""
    word_room, character_room, room = room_of(longest(offsets), orders)
    scratch = word_scratch(2 * word_room)
    words = np.empty(word_room, dtype=np.uint64)
    codes = np.empty(character_room, dtype=np.uint32)
    found = np.empty(room, dtype=np.uint32)
    stamps = np.full(1 << bits, -1, dtype=np.int32)
    shift = np.uint64(64 - bits)
    for d in range(offsets.size - 1):
        start, end = offsets[d], offsets[d + 1]
        n = _find_buckets(data, start, end, tables, orders, scratch, words, codes, stamps, d, shift, found)
        if n == 0:
            margins[d] = np.nan
            continue
        total = 0.0
        for k in range(n):
            total += np.float64(weights[found[k]])
        margins[d] = bias + total / np.sqrt(np.float64(n))


@njit(cache=True, nogil=True)
def probabilities(margins: Any, slope: float, intercept: float, powers: Any, out: Any) -> None:
    """sigmoid(slope · margin + intercept) of every margin; NaN stays NaN."""
    for i in range(margins.size):
        out[i] = np.nan if np.isnan(margins[i]) else sigmoid(slope * margins[i] + intercept, powers)
