"""From token shards to batches of tensors, and those of the next steps ahead of time.

The contract, before the code:

- Which sequence stands at which *position* is a pure function of the plan and the position (`model.schedule`), so the
  state of a loader is one integer, the position.
- Step s of a run takes the next `batch_sequences` positions. Ranks and micro-batches divide that range among
  themselves, so the batch, and with it the gradient, does not depend on how many there are. What is read ahead and
  not used is not lost, for nothing is consumed by reading.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.attention import ids_between, positions_between
from model.packing import IGNORED
from model.schedule import Schedule, Seen
from model.shards import Integers, TokenShard, TokenShardError, TokenStream

__all__ = ["IGNORED", "Ahead", "Batch", "Loader", "Seen", "TokenShard", "TokenShardError", "TokenStream"]


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


class Loader(Schedule):
    """A schedule whose sequences are read into batches."""

    def batch(self, positions: Sequence[int]) -> Batch:
        """The sequences at `positions`."""
        sources, _, sequences = self.locate(positions)
        if len(self.by_number) == 1:
            return _as_batch(*self.by_number[0].read(sequences))
        tokens = np.empty((len(sources), self.sequence_length), np.int64)
        targets, starts = np.empty_like(tokens), np.zeros(tokens.shape, bool)
        told = True
        for number in np.unique(sources).tolist():
            own = np.flatnonzero(sources == number)
            found = self.by_number[number].read(sequences[own])
            tokens[own], targets[own] = found.tokens, found.targets
            if found.boundaries is None:
                told = False
            else:
                rows, columns = np.divmod(found.boundaries[:-1], self.sequence_length)
                starts[own[rows], columns] = True
        boundaries = np.append(np.flatnonzero(starts), starts.size).astype(np.int32) if told else None
        return _as_batch(tokens, targets, boundaries)

    def announce(self, positions: Sequence[int]) -> None:
        """Have the remote shards fetched that `positions` need, which will be asked for soon."""
        sources, _, sequences = self.locate(positions)
        for number in np.unique(sources).tolist():
            layout = self.by_number[number]
            own = sequences[sources == number].tolist()
            layout.stream.announce(span for sequence in own for span in layout.span(sequence))


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
