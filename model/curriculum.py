"""A sequence-length curriculum: sequences are read in parts, short ones first, of a length that their position says.

Positions, and with them the documents of a step and its number of tokens, are what they are without: a sequence of T
tokens is reshaped to T/t rows of t (Li et al. 2022, arXiv 2108.06084, section 4, with lengths by segment instead of a
linear growth, and with nothing cut off). Every token stays a target; it sees less before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from model.config import LengthSegment
from model.data import Batch
from model.shards import Integers


def lengths_at(segments: Sequence[LengthSegment], positions: Sequence[int]) -> Integers:
    """Tokens of the parts in which the sequences at `positions` are read, int64 of their number."""
    starts = np.array([segment.start for segment in segments])
    lengths = np.array([segment.length for segment in segments], np.int64)
    return np.asarray(lengths[starts.searchsorted(np.asarray(positions, np.int64), side="right") - 1])


def in_parts(batch: Batch, segments: Sequence[LengthSegment], positions: Sequence[int]) -> Batch:
    """The batch of `positions` with every sequence divided; without segments it is given back as it is.

    Where all of them have parts of one length, these are its rows: (sequences · T/t, t). Else the rows stay, and parts
    are told apart as documents are.
    """
    if not segments:
        return batch
    lengths = lengths_at(segments, positions)
    time = batch.tokens.shape[1]
    starts = np.arange(time) % lengths[:, None] == 0
    if batch.boundaries is not None:
        starts.reshape(-1)[batch.boundaries[:-1].numpy()] = True
    rows = int(lengths[0]) if (lengths == lengths[0]).all() else time
    boundaries = None
    if batch.boundaries is not None or rows == time:
        boundaries = torch.from_numpy(np.append(np.flatnonzero(starts), starts.size).astype(np.int32))
    return Batch(batch.tokens.reshape(-1, rows), batch.targets.reshape(-1, rows), boundaries)
