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

With lanes (`model/lanes.py`) all this holds for *rows* of so many positions as there are lanes: a row takes all its
sequences from one source, the ordinals of the row one after another, and epochs are shuffled lane by lane.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model.lanes import Lanes, LaneShuffle
from model.permutation import Integers, Permutation, keys_of, shuffled

SMALLEST_BLOCK = 256
"""Positions (with lanes: rows) in a block at least: weights are multiplied until they add up to this."""

ALL = ""
"""The name of the one source of a training that does not tell sources apart."""


class PlanError(ValueError):
    """A plan that does not fit the sources or what was trained already; the message names the segment."""


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


def check_lanes(segments: Sequence[Segment], lanes: Lanes | None) -> None:
    """Refuse a plan whose segments begin inside a row of lanes; raises `PlanError`."""
    for number, segment in enumerate(segments):
        if lanes is not None and segment.start % lanes.count:
            raise PlanError(
                f"plan[{number}].start = {segment.start} must be a multiple of training.lanes = {lanes.count}"
            )


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
    lanes
        The order for object stores; it needs a seed.

    Raises
    ------
    PlanError
        If the plan names a source that is not there or has no sequence, or does not fit the lanes.
    """

    def __init__(
        self, segments: Sequence[Segment], sizes: Mapping[str, int], seed: int | None, lanes: Lanes | None = None
    ) -> None:
        if lanes is not None and seed is None:
            raise ValueError("lanes are a way to shuffle: they need a seed")
        check_lanes(segments, lanes)
        self.lanes, self._width = lanes, lanes.count if lanes else 1
        self.names = sorted(sizes)
        self.sizes = np.array([sizes[name] for name in self.names], np.int64)
        self.seed = seed
        self._permutations: dict[tuple[int, int], Permutation | LaneShuffle] = {}
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
        for number in _different(owners):
            own = owners == number
            sources[own], ordinals[own] = self._mixed(self._segments[number], positions[own])
        epochs, indices = np.divmod(ordinals, self.sizes[sources])
        if self.seed is None:
            return Located(sources, epochs, indices)
        found = np.empty_like(indices)
        places = sources * (int(epochs.max(initial=0)) + 1) + epochs
        for place in _different(places):
            own = places == place
            first = int(own.argmax())
            found[own] = self._permutation(int(sources[first]), int(epochs[first])).forward(indices[own])
        return Located(sources, epochs, found)

    def positions_of(self, source: str, sequences: npt.ArrayLike, before: int) -> list[tuple[int, int]]:
        """(position, epoch) of all positions below `before` that show one of the sequences of a source, ascending."""
        number, wanted = self.names.index(source), np.asarray(sequences, np.int64)
        size = int(self.sizes[number])
        found: list[tuple[int, int]] = []
        width = self._width
        for mixture, until in zip(self._segments, [*self._starts[1:].tolist(), before], strict=True):
            stop = min(until, before)
            if stop <= mixture.start or not mixture.quotas[number]:
                continue
            first = int(mixture.taken[number])
            rows = -(-(stop - mixture.start) // width)
            last = first + int(self._counts_before(mixture, rows * width)[number])  # ordinals [first, last)
            for epoch in range(first // size, -(-last // size)):
                indices = wanted if self.seed is None else self._permutation(number, epoch).inverse(wanted)
                for ordinal in (indices + epoch * size).tolist():
                    if first <= ordinal < last:
                        row, lane = divmod(ordinal - first, width)
                        block, place = divmod(row, int(mixture.quotas[number]))
                        slots = np.flatnonzero(self._block(mixture, block) == number)
                        position = mixture.start + (block * mixture.size + int(slots[place])) * width + lane
                        if position < stop:
                            found.append((position, epoch))
        return sorted(found)

    def _mixed(self, mixture: _Mixture, positions: Integers) -> tuple[Integers, Integers]:
        """Source and ordinal of positions inside one segment."""
        if mixture.only is not None:
            sources = np.full_like(positions, mixture.only)
            return sources, positions - mixture.start + mixture.taken[mixture.only]
        rows, lanes = np.divmod(positions - mixture.start, self._width)
        blocks, slots = np.divmod(rows, mixture.size)
        sources, places = np.empty_like(positions), np.empty_like(positions)
        for block in _different(blocks):
            own = blocks == block
            labels = self._block(mixture, block)
            place = np.empty_like(labels)
            for number in mixture.present:
                of_source = labels == number
                place[of_source] = np.arange(int(of_source.sum()))
            sources[own], places[own] = labels[slots[own]], place[slots[own]]
        taken = (blocks * mixture.quotas[sources] + places) * self._width + lanes
        return sources, np.asarray(mixture.taken[sources] + taken, np.int64)

    def _block(self, mixture: _Mixture, block: int) -> Integers:
        """The number of the source at every slot of a block."""
        if mixture.only is not None:
            return np.full(mixture.size, mixture.only, np.int64)
        if (found := self._labels.get((mixture.number, block))) is None:
            key = keys_of(f"gristmill mixture {mixture.seed} {mixture.start} {block}", 1)[0]
            found = np.repeat(np.arange(len(self.names)), mixture.quotas)[shuffled(mixture.size, key)]
            self._labels = {(mixture.number, block): found}
        return found

    def _counts_before(self, mixture: _Mixture, length: int) -> Integers:
        """How many sequences of every source the first `length` positions (whole rows) of a segment take."""
        blocks, rest = divmod(length // self._width, mixture.size)
        part = np.bincount(self._block(mixture, blocks)[:rest], minlength=len(self.names))
        return (blocks * mixture.quotas + part) * self._width

    def _permutation(self, source: int, epoch: int) -> Permutation | LaneShuffle:
        """The shuffle of a source in an epoch; the last ones used are kept, one a source."""
        if (found := self._permutations.get((source, epoch))) is None:
            assert self.seed is not None
            size, name = int(self.sizes[source]), self.names[source]
            if self.lanes is None:
                found = Permutation(size, self.seed, epoch, name)
            else:
                found = LaneShuffle(size, self.lanes, self.seed, epoch, name)
            self._permutations = {place: kept for place, kept in self._permutations.items() if place[0] != source}
            self._permutations[source, epoch] = found
        return found


def _different(numbers: Integers) -> list[int]:
    """The different numbers, ascending; they are sorted only if they lie far apart."""
    if not len(numbers):
        return []
    least = int(numbers.min())
    if int(numbers.max()) - least > 4 * len(numbers):
        found = np.unique(numbers)
    else:
        found = np.flatnonzero(np.bincount(numbers - least)) + least
    return [int(number) for number in found]


class _Mixture:
    """A segment in numbers: what a block holds of every source, and what was taken before it began."""

    def __init__(self, number: int, segment: Segment, names: Sequence[str], taken: Integers) -> None:
        self.number, self.start, self.seed, self.taken = number, segment.start, segment.seed, taken
        weights = np.array([segment.weights.get(name, 0) for name in names], np.int64)
        self.quotas: Integers = weights * -(-SMALLEST_BLOCK // int(weights.sum()))
        self.size = int(self.quotas.sum())
        self.present = np.flatnonzero(weights).tolist()
        self.only: int | None = self.present[0] if len(self.present) == 1 else None
