"""An order of training data for object stores: near random, but every rank reads a few shards at a time, its own.

- Positions are dealt to L *lanes* in turn: position p belongs to lane p mod L.
- Sequences that follow each other in a source form *blocks* of B. Block j·L + l belongs to lane l in every epoch, so
  that a machine finds in epoch two what it fetched in epoch one.
- In an epoch a lane takes its blocks in a shuffled order, W at a time, and shuffles the sequences inside such a window.
- What is left, fewer than L·B sequences of a source, comes at the end of the epoch, shuffled.
- Ranks own lanes, not places in a batch. Which position shows which sequence does not depend on how many ranks there
  are, so their number may change, and most lanes stay where they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from model.permutation import Integers, Permutation, hashed, keys_of


@dataclass(frozen=True)
class Lanes:
    """How many lanes there are, sequences in a block, and blocks of a lane whose sequences are shuffled together."""

    count: int
    block_sequences: int
    window_blocks: int


class LaneShuffle:
    """The order of one epoch of a source in lanes: a shuffle of range(size), with its inverse.

    Parameters
    ----------
    size
        Sequences of the source.
    """

    def __init__(self, size: int, lanes: Lanes, seed: int, epoch: int, name: str) -> None:
        self.size, self.lanes = size, lanes
        self.seed, self.epoch, self.name = seed, epoch, name
        self.blocks = size // (lanes.count * lanes.block_sequences)  # of each lane
        self.laned = self.blocks * lanes.count * lanes.block_sequences
        # Epochs need not begin at lane 0, for the lane of an index is that of its position.
        self.first_lane = epoch * size % lanes.count
        # A lane needs the order of its blocks and one window, or two where one ends.
        self._permutation = lru_cache(maxsize=3 * lanes.count + 1)(self._make)

    def forward(self, indices: npt.ArrayLike) -> Integers:
        """The sequence at each index of the epoch: int64, one-dimensional."""
        indices = np.asarray(indices, np.int64)
        count, size, width = self.lanes.count, self.lanes.block_sequences, self.lanes.window_blocks
        found = np.empty_like(indices)
        rest = indices >= self.laned
        if rest.any():
            found[rest] = self._rest().forward(indices[rest] - self.laned) + self.laned
        laned = np.flatnonzero(~rest)
        rows, lanes = indices[laned] // count, (indices[laned] + self.first_lane) % count
        windows, places = np.divmod(rows, width * size)
        for own in _groups(lanes * (self.blocks + 1) + windows):
            lane, window = int(lanes[own[0]]), int(windows[own[0]])
            numbers, inside = np.divmod(self._window(lane, window).forward(places[own]), size)
            blocks = self._blocks(lane).forward(numbers + window * width)
            found[laned[own]] = (blocks * count + lane) * size + inside
        return found

    def inverse(self, sequences: npt.ArrayLike) -> Integers:
        """The indices at which sequences stand: `inverse(forward(i)) == i`."""
        sequences = np.asarray(sequences, np.int64)
        count, size, width = self.lanes.count, self.lanes.block_sequences, self.lanes.window_blocks
        found = np.empty_like(sequences)
        rest = sequences >= self.laned
        if rest.any():
            found[rest] = self._rest().inverse(sequences[rest] - self.laned) + self.laned
        laned = np.flatnonzero(~rest)
        blocks, inside = np.divmod(sequences[laned], size)
        blocks, lanes = np.divmod(blocks, count)
        for own in _groups(lanes):
            lane = int(lanes[own[0]])
            windows, numbers = np.divmod(self._blocks(lane).inverse(blocks[own]), width)
            for some in _groups(windows):
                window = int(windows[some[0]])
                places = self._window(lane, window).inverse(numbers[some] * size + inside[own[some]])
                rows = places + window * width * size
                found[laned[own[some]]] = rows * count + (lane - self.first_lane) % count
        return found

    def _rest(self) -> Permutation:
        return self._permutation(self.size - self.laned, "rest")

    def _blocks(self, lane: int) -> Permutation:
        return self._permutation(self.blocks, f"blocks {lane}")

    def _window(self, lane: int, window: int) -> Permutation:
        blocks = min(self.lanes.window_blocks, self.blocks - window * self.lanes.window_blocks)
        return self._permutation(blocks * self.lanes.block_sequences, f"window {lane} {window}")

    def _make(self, size: int, what: str) -> Permutation:
        return Permutation(size, self.seed, self.epoch, f"{self.name}\0{what}")


def _groups(keys: Integers) -> Iterator[Integers]:
    """The places of equal keys, in order of the keys."""
    order = np.argsort(keys, kind="stable")
    bounds = np.flatnonzero(np.diff(keys[order])) + 1
    return iter(np.split(order, bounds)) if len(keys) else iter(())


def deal_lanes(lanes: int, ranks: int) -> Integers:
    """The rank that owns each lane: int64 (lanes,), each rank as many.

    Rendezvous hashing (Thaler and Ravishankar 1998) with a limit: pairs of lane and rank are taken by falling hash,
    where the lane is free and the rank has room. So most lanes stay where they are if `ranks` changes.

    Raises
    ------
    ValueError
        If the ranks do not divide the lanes.
    """
    if lanes % ranks:
        raise ValueError(f"{lanes} lanes cannot be shared equally by {ranks} ranks")
    pairs = np.arange(lanes, dtype=np.uint64)[:, None] << np.uint64(32) | np.arange(ranks, dtype=np.uint64)
    order = np.argsort(hashed(pairs.ravel(), keys_of("gristmill lanes", 1)[0]), kind="stable")[::-1]
    owners = np.full(lanes, -1, np.int64)
    room = [lanes // ranks] * ranks
    for lane, rank in zip((order // ranks).tolist(), (order % ranks).tolist(), strict=True):
        if owners[lane] < 0 and room[rank]:
            owners[lane] = rank
            room[rank] -= 1
    return owners


def positions_of_rank(positions: range, owners: Integers, rank: int) -> list[int]:
    """The positions whose lanes a rank owns, ascending."""
    lanes = np.arange(positions.start, positions.stop) % len(owners)
    return (np.flatnonzero(owners[lanes] == rank) + positions.start).tolist()
