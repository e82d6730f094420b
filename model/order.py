"""The order of training data as arithmetic: which sequence of which source stands at a position, and back.

- A *position* counts sequences since the start of training.
- A *plan* is a list of segments; each begins at a position and says with which integer weights sources are mixed from
  there on. Segments are only ever appended: what comes later changes nothing before it.
- Inside a segment, blocks of positions hold every source exactly in the proportion of its weight, in an order that is
  a keyed shuffle of the block.
- A source hands out its sequences one after another, counted through all segments: ordinal i is sequence
  `permutation(epoch)[i mod n]` of epoch `i div n`. So a new mixture goes on where the one before stopped, and every
  sequence of a source is seen once before any is seen twice.

No table is built or stored but that of one block and, for sources below `SMALL` sequences, of one epoch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

SMALL = 1 << 16
"""Below this many sequences an epoch is shuffled by sorting keyed hashes: Feistel networks mix tiny domains badly."""

ROUNDS = 8

TABLE_BITS = 13
"""Up to this size of a half, 2^26 sequences, the rounds of a network are tables (64 KiB each) and not computed."""

SMALLEST_BLOCK = 256
"""Positions in a block at least: weights are multiplied until they add up to this."""

ALL = ""
"""The name of the one source of a training that does not tell sources apart."""


class PlanError(ValueError):
    """A plan that does not fit the sources or what was trained already; the message names the segment."""


class Permutation:
    """A shuffle of range(size) that is a function of (size, seed, epoch, name), with its inverse, without a table.

    A balanced Feistel network (Luby and Rackoff 1988) over the next even power of two, with cycle walking (Black and
    Rogaway 2002) to stay inside the range: at most four rounds of it on average. Below `SMALL` the indices are sorted
    by keyed 64-bit hashes instead, which is a Fisher-Yates shuffle by other means.
    """

    def __init__(self, size: int, seed: int, epoch: int, name: str = ALL) -> None:
        self.size = size
        self.keys = _keys(f"gristmill order {seed} {epoch}" + (f" {name}" if name else ""), ROUNDS)
        if size < SMALL:
            self.table = _shuffled(size, self.keys[0])
            self.inverse_table = np.argsort(self.table, kind="stable")
        else:
            half = ((size - 1).bit_length() + 1) // 2
            self.half, self.low = np.uint64(half), np.uint64((1 << half) - 1)
            # What a round does to each half, where it is cheaper to look up than to compute.
            halves = np.arange(1 << half, dtype=np.uint64) if half <= TABLE_BITS else None
            self.rounds = None if halves is None else [_mix(halves, key) & self.low for key in self.keys]

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
                mixed = _mix(right, self.keys[number])
                mixed &= self.low
            mixed ^= left
            left, right = right, mixed
        if backwards:
            left, right = right, left
        return left << self.half | right


def _keys(words: str, count: int) -> Words:
    return np.frombuffer(hashlib.shake_256(words.encode()).digest(8 * count), "<u8").astype(np.uint64)


def _shuffled(size: int, key: np.uint64) -> Integers:
    return np.argsort(_mix(np.arange(size, dtype=np.uint64), key), kind="stable")


def _mix(values: Words, key: np.uint64) -> Words:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014) over `values + key`."""
    mixed = values + key
    shifted = mixed >> np.uint64(30)
    for factor, shift in ((0xBF58476D1CE4E5B9, 27), (0x94D049BB133111EB, 31)):
        mixed ^= shifted
        mixed *= np.uint64(factor)
        np.right_shift(mixed, np.uint64(shift), out=shifted)
    mixed ^= shifted
    return mixed


@dataclass(frozen=True)
class Segment:
    """From position `start` on, sources are mixed by integer `weights`, which are weights in tokens."""

    start: int
    weights: Mapping[str, int]
    seed: int = 0


def read_segments(values: Iterable[Mapping[str, Any]]) -> tuple[Segment, ...]:
    """Segments from JSON.

    Raises
    ------
    PlanError
        Naming the segment and the field that is missing, unknown or wrong.
    """
    segments: list[Segment] = []
    for number, value in enumerate(values):
        where = f"plan[{number}]"
        if unknown := sorted(set(value) - {"start", "weights", "seed"}):
            raise PlanError(f"{where}: unknown field {', '.join(unknown)}; allowed are start, weights, seed")
        start, weights, seed = value.get("start", 0), value.get("weights"), value.get("seed", 0)
        if not isinstance(start, int) or (start != 0 if not segments else start <= segments[-1].start):
            least = "0" if not segments else f"above {segments[-1].start}, where the segment before begins"
            raise PlanError(f"{where}.start = {start!r} must be {least}")
        if not isinstance(weights, Mapping) or not weights:
            raise PlanError(f"{where}.weights = {weights!r} must name at least one source with its weight")
        for source, weight in weights.items():
            if not isinstance(weight, int) or isinstance(weight, bool) or weight < 1:
                raise PlanError(f"{where}.weights.{source} = {weight!r} must be a whole number from 1")
        segments.append(Segment(start, dict(weights), seed))
    if not segments:
        raise PlanError("plan: it has no segment")
    return tuple(segments)


def plan_digest(segments: Sequence[Segment]) -> str:
    """What names a plan: "blake2b:hex" over all its segments."""
    canonical = json.dumps([[s.start, sorted(s.weights.items()), s.seed] for s in segments], separators=(",", ":"))
    return f"blake2b:{hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()}"


class Located(NamedTuple):
    """What stands at positions, each int64 of their shape: number of the source, its epoch, its sequence."""

    sources: Integers
    epochs: Integers
    sequences: Integers


class Order:
    """The order that a plan gives to sources of known sizes.

    Parameters
    ----------
    segments
        The plan, in order of their starts.
    sizes
        Sequences of every source.
    seed
        Of the shuffles inside sources; None: every source in its own order, again and again.

    Raises
    ------
    PlanError
        If the plan names a source that is not there or has no sequence.
    """

    def __init__(self, segments: Sequence[Segment], sizes: Mapping[str, int], seed: int | None) -> None:
        self.names = sorted(sizes)
        self.sizes = np.array([sizes[name] for name in self.names], np.int64)
        self.seed = seed
        self._permutations: dict[tuple[int, int], Permutation] = {}
        self._labels: dict[tuple[int, int], Integers] = {}
        self._segments: list[_Mixture] = []
        taken = np.zeros(len(self.names), np.int64)
        for number, segment in enumerate(segments):
            for source in segment.weights:
                if not sizes.get(source):
                    known = ", ".join(repr(name) for name in self.names if sizes[name]) or "none"
                    raise PlanError(f"plan[{number}].weights: no sequence of source {source!r}; there are: {known}")
            if self._segments:
                taken = taken + self._counts_before(self._segments[-1], segment.start - self._segments[-1].start)
            self._segments.append(_Mixture(number, segment, self.names, taken))
        self._starts = np.array([mixture.start for mixture in self._segments], np.int64)

    def locate(self, positions: npt.ArrayLike) -> Located:
        """What stands at positions (int64, one-dimensional)."""
        positions = np.asarray(positions, np.int64)
        sources, ordinals = np.empty_like(positions), np.empty_like(positions)
        owners = self._starts.searchsorted(positions, side="right") - 1
        for number in np.unique(owners).tolist():
            own = owners == number
            sources[own], ordinals[own] = self._mixed(self._segments[number], positions[own])
        epochs, indices = np.divmod(ordinals, self.sizes[sources])
        if self.seed is None:
            return Located(sources, epochs, indices)
        found = np.empty_like(indices)
        places = sources * (int(epochs.max(initial=0)) + 1) + epochs
        for place in np.unique(places):
            own = places == place
            first = int(own.argmax())
            found[own] = self._permutation(int(sources[first]), int(epochs[first])).forward(indices[own])
        return Located(sources, epochs, found)

    def positions_of(self, source: str, sequences: npt.ArrayLike, before: int) -> list[tuple[int, int]]:
        """(position, epoch) of all positions below `before` that show one of the sequences of a source, ascending."""
        number, wanted = self.names.index(source), np.asarray(sequences, np.int64)
        size = int(self.sizes[number])
        found: list[tuple[int, int]] = []
        for mixture, stop in zip(self._segments, [*self._starts[1:].tolist(), before], strict=True):
            length = min(stop, before) - mixture.start
            if length <= 0 or not mixture.quotas[number]:
                continue
            first = int(mixture.taken[number])
            last = first + int(self._counts_before(mixture, length)[number])  # ordinals [first, last)
            for epoch in range(first // size, -(-last // size)):
                indices = wanted if self.seed is None else self._permutation(number, epoch).inverse(wanted)
                for ordinal in (indices + epoch * size).tolist():
                    if first <= ordinal < last:
                        block, place = divmod(ordinal - first, int(mixture.quotas[number]))
                        slots = np.flatnonzero(self._block(mixture, block) == number)
                        found.append((mixture.start + block * mixture.size + int(slots[place]), epoch))
        return sorted(found)

    def _mixed(self, mixture: _Mixture, positions: Integers) -> tuple[Integers, Integers]:
        """Source and ordinal of positions inside one segment."""
        if mixture.only is not None:
            sources = np.full_like(positions, mixture.only)
            return sources, positions - mixture.start + mixture.taken[mixture.only]
        blocks, slots = np.divmod(positions - mixture.start, mixture.size)
        sources, places = np.empty_like(positions), np.empty_like(positions)
        for block in np.unique(blocks).tolist():
            own = blocks == block
            labels = self._block(mixture, block)
            place = np.empty_like(labels)
            for number in mixture.present:
                of_source = labels == number
                place[of_source] = np.arange(int(of_source.sum()))
            sources[own], places[own] = labels[slots[own]], place[slots[own]]
        return sources, np.asarray(mixture.taken[sources] + blocks * mixture.quotas[sources] + places, np.int64)

    def _block(self, mixture: _Mixture, block: int) -> Integers:
        """The number of the source at every slot of a block."""
        if mixture.only is not None:
            return np.full(mixture.size, mixture.only, np.int64)
        if (found := self._labels.get((mixture.number, block))) is None:
            key = _keys(f"gristmill mixture {mixture.seed} {mixture.start} {block}", 1)[0]
            found = np.repeat(np.arange(len(self.names)), mixture.quotas)[_shuffled(mixture.size, key)]
            self._labels = {(mixture.number, block): found}
        return found

    def _counts_before(self, mixture: _Mixture, length: int) -> Integers:
        """How many sequences of every source the first `length` positions of a segment take."""
        blocks, rest = divmod(length, mixture.size)
        part = np.bincount(self._block(mixture, blocks)[:rest], minlength=len(self.names))
        return blocks * mixture.quotas + part

    def _permutation(self, source: int, epoch: int) -> Permutation:
        """The shuffle of a source in an epoch; the last ones used are kept, one a source."""
        if (found := self._permutations.get((source, epoch))) is None:
            assert self.seed is not None
            found = Permutation(int(self.sizes[source]), self.seed, epoch, self.names[source])
            self._permutations = {place: kept for place, kept in self._permutations.items() if place[0] != source}
            self._permutations[source, epoch] = found
        return found


class _Mixture:
    """A segment in numbers: what a block holds of every source, and what was taken before it began."""

    def __init__(self, number: int, segment: Segment, names: Sequence[str], taken: Integers) -> None:
        self.number, self.start, self.seed, self.taken = number, segment.start, segment.seed, taken
        weights = np.array([segment.weights.get(name, 0) for name in names], np.int64)
        self.quotas: Integers = weights * -(-SMALLEST_BLOCK // int(weights.sum()))
        self.size = int(self.quotas.sum())
        self.present = np.flatnonzero(weights).tolist()
        self.only: int | None = self.present[0] if len(self.present) == 1 else None
