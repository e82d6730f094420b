"""From token shards to batches: which tokens a step sees, and which documents they came from.

The contract, before the code:

- Every source is a *stream* of tokens (`model.shards`), made into *sequences* of one length (`model.packing`).
- Which sequence stands at which *position* is a pure function of the plan and the position (`model.order`). No table is
  stored, and the state of a loader is one integer, the position.
- Step s of a run takes the next `batch_sequences` positions. Ranks and micro-batches divide that range among
  themselves, so the batch, and with it the gradient, does not depend on how many there are. What is read ahead and
  not used is not lost, for nothing is consumed by reading.
- The order changes if the shards, their order, the sequence length, the plan or the seed change, and with nothing else.
- Back and forth: a position leads to document ids, a document id to positions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.attention import ids_between, positions_between
from model.order import ALL, Located, Order, Segment
from model.packing import IGNORED, CutSequences, PackedSequences, Packing, sequences_of
from model.shards import Integers, TokenShard, TokenShardError, TokenStream

__all__ = ["IGNORED", "Ahead", "Batch", "Loader", "Seen", "TokenShard", "TokenShardError", "TokenStream"]

_WINDOW = 1 << 13
"""Positions that are located together: arithmetic on few at a time costs more than the tokens."""


@dataclass(frozen=True)
class Batch:
    """Sequences ready for the model: `tokens` and `targets` int64 (sequences, T).

    `targets` is the next token, or `IGNORED`. `boundaries` (int32) is where documents begin in the flattened tokens,
    and sequences·T last: the cumulative lengths that variable-length attention takes. None: documents see each other.
    """

    tokens: Tensor
    targets: Tensor
    boundaries: Tensor | None

    @property
    def document_ids(self) -> Tensor | None:
        """int32 (sequences, T): documents counted through the batch from 0; None without boundaries."""
        if self.boundaries is None:
            return None
        return ids_between(self.boundaries, self.tokens.numel()).view(self.tokens.shape)

    @property
    def positions(self) -> Tensor | None:
        """int32 (sequences, T): the place of a token in its document, from 0; None without boundaries."""
        if self.boundaries is None:
            return None
        return positions_between(self.boundaries, self.tokens.numel()).view(self.tokens.shape)

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in page-locked memory, from which a copy to the GPU does not stop the CPU."""
        return self._map(lambda tensor: tensor.contiguous().pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        boundaries = None if self.boundaries is None else change(self.boundaries)
        return Batch(change(self.tokens), change(self.targets), boundaries)


class Seen(NamedTuple):
    """One time that a training shows a document: at a position, in an epoch of its source."""

    position: int
    source: str
    epoch: int


class Loader:
    """Batches in the order of a plan (`shuffle_seed`), or, for validation, in the order of the streams (None).

    Parameters
    ----------
    streams
        One stream, or a stream for every source that the plan names.
    plan
        How sources are mixed; not needed for one stream.
    document_mask
        Whether batches tell documents apart. A document then starts at the end token before it, so that each is
        modelled as p(text, end | end), exactly as it is when it is scored or generated alone; without end tokens the
        first token of a document has nothing to be predicted from and is not a target.
    packing, overlap
        How streams become sequences (`model.packing`). Packed documents are always told apart.
    end_once
        The end token stands nowhere but at the end of documents.

    Raises
    ------
    TokenShardError
        If there is not one sequence.
    PlanError
        If the plan names a source without sequences.
    """

    def __init__(
        self,
        streams: TokenStream | Mapping[str, TokenStream],
        sequence_length: int,
        *,
        shuffle_seed: int | None,
        document_mask: bool,
        plan: Sequence[Segment] = (),
        packing: Packing = "cut",
        overlap: int = 0,
        end_once: bool = False,
    ) -> None:
        self.streams = {ALL: streams} if isinstance(streams, TokenStream) else dict(streams)
        self.sequence_length = sequence_length
        self.layouts: dict[str, CutSequences | PackedSequences] = {
            name: sequences_of(
                stream, sequence_length, packing, overlap=overlap, tell_documents=document_mask, end_once=end_once
            )
            for name, stream in sorted(self.streams.items())
        }
        sizes = {name: layout.count for name, layout in self.layouts.items()}
        self.order = Order(plan or (Segment(0, dict.fromkeys(sizes, 1)),), sizes, shuffle_seed)
        self.sequences = sum(sizes.values())
        self._by_number = [self.layouts[name] for name in self.order.names]
        self._windows: dict[int, Located] = {}

    @property
    def padding_share(self) -> float:
        """The share of tokens of one pass over all sequences that is padding."""
        wasted = sum(layout.padding_share * layout.count for layout in self.layouts.values())
        return wasted / self.sequences

    def locate(self, positions: Sequence[int]) -> Located:
        """Source, epoch and sequence of positions, each int64 of their number."""
        wanted = np.asarray(positions, np.int64)
        window = int(wanted[0]) // _WINDOW if len(wanted) else 0
        inside = wanted - window * _WINDOW
        if len(wanted) and inside.min() >= 0 and inside.max() < _WINDOW:
            return Located(*(part[inside] for part in self._window(window)))
        return self.order.locate(wanted)

    def _window(self, number: int) -> Located:
        if (found := self._windows.get(number)) is None:
            found = self.order.locate(np.arange(number * _WINDOW, (number + 1) * _WINDOW))
            self._windows = {**dict(list(self._windows.items())[-1:]), number: found}
        return found

    def sequence_at(self, position: int) -> int:
        """The sequence, of its source, that a position takes."""
        return int(self.locate([position]).sequences[0])

    def batch(self, positions: Sequence[int]) -> Batch:
        """The sequences at `positions`."""
        sources, _, sequences = self.locate(positions)
        if len(self._by_number) == 1:
            return _as_batch(*self._by_number[0].read(sequences))
        tokens = np.empty((len(sources), self.sequence_length), np.int64)
        targets, starts = np.empty_like(tokens), np.zeros(tokens.shape, bool)
        told = True
        for number in np.unique(sources).tolist():
            own = np.flatnonzero(sources == number)
            found = self._by_number[number].read(sequences[own])
            tokens[own], targets[own] = found.tokens, found.targets
            if found.boundaries is None:
                told = False
            else:
                rows, columns = np.divmod(found.boundaries[:-1], self.sequence_length)
                starts[own[rows], columns] = True
        boundaries = np.append(np.flatnonzero(starts), starts.size).astype(np.int32) if told else None
        return _as_batch(tokens, targets, boundaries)

    def documents_at(self, position: int) -> list[str]:
        """Ids of the documents that the sequence at `position` shows, in order."""
        [number], _, [sequence] = self.locate([position])
        name = self.order.names[number]
        spans = self.layouts[name].span(int(sequence))
        found = [document for span in spans for document in self.streams[name].documents_in(*span)]
        return list(dict.fromkeys(found))

    def seen(self, document_id: str, before: int) -> list[Seen]:
        """Every time that positions below `before` show a document (32 hex digits), by position."""
        found: set[Seen] = set()
        for name, stream in self.streams.items():
            wanted: set[int] = set()
            for start, stop in stream.spans_of(document_id):
                if start < stop:
                    wanted.update(self.layouts[name].sequences_of(start, stop))
            places = self.order.positions_of(name, np.array(sorted(wanted), np.int64), before)
            found.update(Seen(position, name, epoch) for position, epoch in places)
        return sorted(found)

    def positions_of(self, document_id: str, before: int) -> list[int]:
        """All positions below `before` whose sequence shows the document, ascending."""
        return [seen.position for seen in self.seen(document_id, before)]


def _as_batch(tokens: Integers, targets: Integers, boundaries: np.ndarray | None) -> Batch:
    ends = None if boundaries is None else torch.from_numpy(boundaries)
    return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), ends)


class Ahead:
    """Micro-batches of the steps to come, made in a thread of their own while the device works.

    Parameters
    ----------
    make
        Gives the micro-batches of a step's positions.
    depth
        Steps that are made ahead.
    """

    def __init__(self, make: Callable[[range], list[Batch]], depth: int = 2) -> None:
        self._make, self._depth = make, depth
        self._threads = ThreadPoolExecutor(1, "loader")
        self._coming: deque[tuple[range, Future[list[Batch]]]] = deque()

    def take(self, positions: range, last: int) -> list[Batch]:
        """The micro-batches of `positions`; steps of the same size that follow are begun, up to position `last`.

        Raises what making them raised.
        """
        while self._coming and self._coming[0][0] != positions:
            self._coming.popleft()[1].cancel()
        following = self._coming[-1][0].stop if self._coming else positions.start
        while len(self._coming) <= self._depth and following < last:
            step = range(following, following + len(positions))
            self._coming.append((step, self._threads.submit(self._make, step)))
            following = step.stop
        return self._coming.popleft()[1].result()

    def close(self) -> None:
        """Drop what was made ahead and end the thread."""
        self._threads.shutdown(wait=True, cancel_futures=True)
