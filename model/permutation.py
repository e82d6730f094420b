"""A keyed shuffle of range(size) as arithmetic, with its inverse."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

SMALL = 1 << 16
"""Below this many sequences an epoch is shuffled by sorting keyed hashes: Feistel networks mix tiny domains badly."""

ROUNDS = 8

TABLE_BITS = 13
"""Up to this size of a half, 2^26 sequences, the rounds of a network are tables (64 KiB each) and not computed."""


class Permutation:
    """A shuffle of range(size) that is a function of (size, seed, epoch, name), with its inverse, without a table.

    A balanced Feistel network (Luby and Rackoff 1988) over the next even power of two, with cycle walking (Black and
    Rogaway 2002) to stay inside the range: at most four rounds of it on average. Below `SMALL` the indices are sorted
    by keyed 64-bit hashes instead, which is a Fisher-Yates shuffle by other means.
    """

    def __init__(self, size: int, seed: int, epoch: int, name: str = "") -> None:
        self.size = size
        self.keys = keys_of(f"gristmill order {seed} {epoch}" + (f" {name}" if name else ""), ROUNDS)
        if size < SMALL:
            self.table = shuffled(size, self.keys[0])
        else:
            half = ((size - 1).bit_length() + 1) // 2
            self.half, self.low = np.uint64(half), np.uint64((1 << half) - 1)
            # What a round does to each half, where it is cheaper to look up than to compute.
            halves = np.arange(1 << half, dtype=np.uint64) if half <= TABLE_BITS else None
            self.rounds = None if halves is None else [hashed(halves, key) & self.low for key in self.keys]

    @cached_property
    def inverse_table(self) -> Integers:
        """The table of the inverse, where there is one."""
        return np.argsort(self.table, kind="stable")

    def forward(self, indices: npt.ArrayLike) -> Integers:
        """Where the shuffle sends each index: int64 of the same shape."""
        if self.size < SMALL:
            return self.table[np.asarray(indices, np.int64)]
        return self._walk(indices, backwards=False)

    def inverse(self, indices: npt.ArrayLike) -> Integers:
        """The indices that the shuffle sends there: `inverse(forward(i)) == i`."""
        if self.size < SMALL:
            return self.inverse_table[np.asarray(indices, np.int64)]
        return self._walk(indices, backwards=True)

    def _walk(self, indices: npt.ArrayLike, *, backwards: bool) -> Integers:
        given = np.asarray(indices, np.uint64)
        values = self._feistel(given.ravel(), backwards)
        outside = np.flatnonzero(values >= self.size)
        while len(outside):
            again = self._feistel(values[outside], backwards)
            values[outside] = again
            outside = outside[again >= self.size]
        return values.astype(np.int64).reshape(given.shape)

    def _feistel(self, values: Words, backwards: bool) -> Words:
        left, right = values >> self.half, values & self.low
        if backwards:
            left, right = right, left
        for number in range(ROUNDS)[:: -1 if backwards else 1]:
            if self.rounds is not None:
                mixed = self.rounds[number].take(right.view(np.int64))
            else:
                mixed = hashed(right, self.keys[number])
                mixed &= self.low
            mixed ^= left
            left, right = right, mixed
        if backwards:
            left, right = right, left
        return left << self.half | right


def keys_of(words: str, count: int) -> Words:
    """So many 64-bit keys from words (SHAKE-256)."""
    return np.frombuffer(hashlib.shake_256(words.encode()).digest(8 * count), "<u8").astype(np.uint64)


def shuffled(size: int, key: np.uint64) -> Integers:
    """range(size), sorted by keyed hashes."""
    return np.argsort(hashed(np.arange(size, dtype=np.uint64), key), kind="stable")


def hashed(values: Words, key: np.uint64) -> Words:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014) over `values + key`."""
    mixed = values + key
    shifted = mixed >> np.uint64(30)
    for factor, shift in ((0xBF58476D1CE4E5B9, 27), (0x94D049BB133111EB, 31)):
        mixed ^= shifted
        mixed *= np.uint64(factor)
        np.right_shift(mixed, np.uint64(shift), out=shifted)
    mixed ^= shifted
    return mixed
