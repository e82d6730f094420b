"""From token shards to batches: which tokens a step sees, and which documents they came from.

The contract, before the code:

- A *stream* is the concatenation of all documents of all shards in the order given. It is cut into *sequences*:
  sequence i is the tokens [i·T, i·T + T + 1), so neighbours share one token and every token but the first is a target
  once. A tail too short for a sequence is not trained on.
- A *position* counts sequences since the start of training. The sequence at a position is a pure function of (seed,
  position): epoch = position // sequences, and within an epoch a permutation computed by arithmetic, with an inverse.
  No table is stored, and the state of a loader is one integer, the position.
- Step s of a run takes the next `batch_sequences` positions. Ranks and micro-batches divide that range among
  themselves, so the batch, and with it the gradient, does not depend on how many there are. What is read ahead and
  not used is not lost, for nothing is consumed by reading.
- The order changes if the shards, their order, the sequence length or the seed change, and with nothing else.
- Back and forth: a position leads to document ids, a document id to positions.

Shards are Arrow IPC files of one record batch (columns `id`, `tokens`), memory-mapped and read without a copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

IGNORED = -100
"""The target that `torch.nn.functional.cross_entropy` leaves out."""

SMALL = 1 << 16
"""Below this many sequences an epoch is shuffled by sorting keyed hashes: Feistel networks mix tiny domains badly."""

ROUNDS = 8

Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


class TokenShardError(ValueError):
    """A token shard that is missing, damaged or does not fit the job; the message names it."""


class TokenShard:
    """One Arrow IPC file of tokenised documents, memory-mapped.

    Attributes
    ----------
    offsets
        int64 (documents + 1,): document d is `tokens[offsets[d]:offsets[d + 1]]`.
    tokens
        uint16 or uint32, a view of the file.
    ids
        bytes (documents, 16), a view of the file.

    Raises
    ------
    TokenShardError
        naming the file, if it is missing, damaged or not of the schema of token shards.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            with pa.memory_map(self.path) as source, pa.ipc.open_file(source) as reader:
                if reader.num_record_batches != 1:
                    raise self.error(f"holds {reader.num_record_batches} record batches instead of one")
                batch = reader.get_batch(0)
        except FileNotFoundError:
            raise self.error("does not exist; run the tokenize stage again") from None
        except (pa.ArrowInvalid, OSError) as reason:
            raise self.error(f"is damaged ({reason}); remove it and run the tokenize stage again") from reason
        for name, what, fits in (
            ("id", "16 bytes", lambda kind: kind == pa.binary(16)),
            ("tokens", "large_list of uint16 or uint32", _is_token_list),
        ):
            if name not in batch.schema.names or not fits(batch.schema.field(name).type):
                raise self.error(f"needs a column {name!r} of {what}; its schema is {batch.schema}")
            if batch.column(name).null_count:
                raise self.error(f"has nulls in column {name!r}")
        column, ids = batch.column("tokens"), batch.column("id")
        first = column.offsets[0].as_py()
        self.offsets: Integers = column.offsets.to_numpy(zero_copy_only=True) - first
        self.tokens: npt.NDArray[np.unsignedinteger] = column.flatten().to_numpy(zero_copy_only=True)
        raw = np.frombuffer(ids.buffers()[1] or b"", np.uint8)[ids.offset * 16 :][: len(ids) * 16]
        self.ids = raw.reshape(len(ids), 16)
        if (np.diff(self.offsets) < 0).any() or self.offsets[-1] != len(self.tokens):
            raise self.error("is damaged (its offsets do not fit its tokens); run the tokenize stage again")

    def error(self, message: str) -> TokenShardError:
        """An error that names this shard."""
        return TokenShardError(f"token shard {self.path} {message}")


def _is_token_list(kind: pa.DataType) -> bool:
    return pa.types.is_large_list(kind) and kind.value_type in (pa.uint16(), pa.uint32())


class TokenStream:
    """All documents of many shards as one run of tokens with global offsets.

    Parameters
    ----------
    paths
        The shards, in the order of the manifest.
    vocabulary_size
        Tokens at or above it are an error that names the shard, raised when they are read.
    end_id
        The token every document ends with; None if none was written.
    """

    def __init__(self, paths: Sequence[str | Path], vocabulary_size: int, end_id: int | None = None) -> None:
        if not paths:
            raise TokenShardError("no token shards were given; run the tokenize stage first")
        if end_id is not None and not 0 <= end_id < vocabulary_size:
            raise ValueError(f"tokens.end_id = {end_id} is not below the vocabulary size {vocabulary_size}")
        self.vocabulary_size = vocabulary_size
        self.end_id = end_id
        self.shards = [TokenShard(path) for path in paths]
        self.starts: Integers = np.cumsum([0, *(len(shard.tokens) for shard in self.shards)], dtype=np.int64)
        self.documents = sum(len(shard.ids) for shard in self.shards)

    def __len__(self) -> int:
        """Tokens."""
        return int(self.starts[-1])

    def read(self, start: int, stop: int) -> Integers:
        """The tokens [start, stop) as int64."""
        pieces = []
        for number, low, high in self._pieces(start, stop):
            piece = self.shards[number].tokens[low:high].astype(np.int64)
            if piece.max(initial=0) >= self.vocabulary_size:
                raise self.shards[number].error(
                    f"holds token {piece.max()} but the vocabulary has {self.vocabulary_size}; "
                    "it was made with another tokeniser"
                )
            pieces.append(piece)
        return np.concatenate(pieces) if len(pieces) != 1 else pieces[0]

    def document_starts(self, start: int, stop: int) -> Integers:
        """Global offsets in (start, stop) at which a document begins; sorted, each once."""
        found = []
        for number, low, high in self._pieces(start, stop):
            offsets, base = self.shards[number].offsets, int(self.starts[number])
            inside = offsets[np.searchsorted(offsets, low) : np.searchsorted(offsets, high)]
            found.append(inside + base)
        starts = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
        return starts[starts > start]

    def documents_in(self, start: int, stop: int) -> list[str]:
        """Ids (32 hex digits) of the documents with a token in [start, stop), in order."""
        ids = []
        for number, low, high in self._pieces(start, stop):
            shard = self.shards[number]
            first = int(np.searchsorted(shard.offsets, low, side="right")) - 1
            last = int(np.searchsorted(shard.offsets, high, side="left"))
            filled = np.flatnonzero(np.diff(shard.offsets[first : last + 1])) + first
            ids += [shard.ids[row].tobytes().hex() for row in filled]
        return ids

    def spans_of(self, document_id: str) -> list[tuple[int, int]]:
        """Where a document (32 hex digits) stands: global [start, stop), once for every time it occurs."""
        wanted = np.frombuffer(bytes.fromhex(document_id), np.uint8)
        spans = []
        for base, shard in zip(self.starts.tolist(), self.shards, strict=False):
            for row in np.flatnonzero((shard.ids == wanted).all(axis=1)):
                spans.append((base + int(shard.offsets[row]), base + int(shard.offsets[row + 1])))
        return spans

    def _pieces(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(shard number, first, last + 1 token within it) of the shards that [start, stop) touches."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"tokens [{start}, {stop}) lie outside the stream of {len(self)} tokens")
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        last = int(np.searchsorted(self.starts, stop, side="left"))
        pieces = []
        for number in range(first, last):
            base, end = int(self.starts[number]), int(self.starts[number + 1])
            if base < end:
                pieces.append((number, max(start, base) - base, min(stop, end) - base))
        return pieces


class Permutation:
    """A shuffle of range(size) that is a function of (size, seed, epoch), with its inverse, and needs no table.

    A balanced Feistel network (Luby and Rackoff 1988) over the next even power of two, with cycle walking (Black and
    Rogaway 2002) to stay inside the range: at most four rounds of it on average. Below `SMALL` the indices are sorted
    by keyed 64-bit hashes instead, which is a Fisher-Yates shuffle by other means.
    """

    def __init__(self, size: int, seed: int, epoch: int) -> None:
        self.size = size
        digest = hashlib.shake_256(f"gristmill order {seed} {epoch}".encode()).digest(8 * ROUNDS)
        self.keys = np.frombuffer(digest, "<u8").astype(np.uint64)
        if size < SMALL:
            self.table = np.argsort(_mix(np.arange(size, dtype=np.uint64), self.keys[0]), kind="stable")
            self.inverse_table = np.argsort(self.table, kind="stable")
        self.half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
        self.low = np.uint64((1 << int(self.half)) - 1)

    def forward(self, indices: npt.ArrayLike) -> Integers:
        """Where the shuffle sends each index: int64 of the same shape."""
        if self.size < SMALL:
            return self.table[np.asarray(indices, np.int64)]
        return self._walk(np.asarray(indices, np.uint64), self.keys, backwards=False)

    def inverse(self, indices: npt.ArrayLike) -> Integers:
        """The indices that the shuffle sends there: `inverse(forward(i)) == i`."""
        if self.size < SMALL:
            return self.inverse_table[np.asarray(indices, np.int64)]
        return self._walk(np.asarray(indices, np.uint64), self.keys[::-1], backwards=True)

    def _walk(self, indices: Words, keys: Words, *, backwards: bool) -> Integers:
        values = self._feistel(indices, keys, backwards)
        while (outside := values >= self.size).any():
            values = np.where(outside, self._feistel(values, keys, backwards), values)
        return values.astype(np.int64)

    def _feistel(self, values: Words, keys: Words, backwards: bool) -> Words:
        left, right = values >> self.half, values & self.low
        for key in keys:
            if backwards:
                left, right = right ^ (_mix(left, key) & self.low), left
            else:
                left, right = right, left ^ (_mix(right, key) & self.low)
        return left << self.half | right


def _mix(values: Words, key: np.uint64) -> Words:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014) over `values + key`."""
    mixed = values + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@dataclass(frozen=True)
class Batch:
    """Sequences ready for the model, each tensor int64 (sequences, T).

    `targets` is the next token, or `IGNORED`; `document_ids` counts the documents of a row from 0 (None: no mask).
    """

    tokens: Tensor
    targets: Tensor
    document_ids: Tensor | None

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        ids = None if self.document_ids is None else self.document_ids.to(device, non_blocking=True)
        return Batch(self.tokens.to(device, non_blocking=True), self.targets.to(device, non_blocking=True), ids)


class Loader:
    """Batches of a stream in shuffled order (`shuffle_seed`) or, for validation, in the order of the stream (None).

    With `document_mask` the rows carry document ids. A document then starts at the end token before it, so that each
    is modelled as p(text, end | end), exactly as it is when it is scored or generated alone; without end tokens the
    first token of a document has nothing to be predicted from and is not a target.
    """

    def __init__(
        self, stream: TokenStream, sequence_length: int, *, shuffle_seed: int | None, document_mask: bool
    ) -> None:
        self.stream = stream
        self.sequence_length = sequence_length
        self.shuffle_seed = shuffle_seed
        self.document_mask = document_mask
        self.sequences = max(0, len(stream) - 1) // sequence_length
        self._permutation: tuple[int, Permutation] | None = None
        if not self.sequences:
            raise TokenShardError(
                f"{len(stream.shards)} token shards ({stream.shards[0].path} …) hold {len(stream)} tokens, too few "
                f"for one sequence of training.sequence_length + 1 = {sequence_length + 1}"
            )

    def sequences_at(self, positions: Sequence[int]) -> Integers:
        """The sequences that positions take, int64 of the same length; permuted together, an epoch at a time."""
        epochs, indices = np.divmod(np.asarray(positions, np.int64), self.sequences)
        if self.shuffle_seed is None:
            return indices
        found = np.empty_like(indices)
        for epoch in np.unique(epochs):
            own = epochs == epoch
            found[own] = self._epoch(int(epoch)).forward(indices[own])
        return found

    def sequence_at(self, position: int) -> int:
        """The sequence that a position takes."""
        return int(self.sequences_at([position])[0])

    def batch(self, positions: Sequence[int]) -> Batch:
        """The sequences at `positions`."""
        time = self.sequence_length
        rows = np.empty((len(positions), time + 1), np.int64)
        starts = np.zeros((len(positions), time + 1), bool)
        for row, begin in enumerate((self.sequences_at(positions) * time).tolist()):
            rows[row] = self.stream.read(begin, begin + time + 1)
            if self.document_mask:
                starts[row, self.stream.document_starts(begin, begin + time + 1) - begin] = True
        tokens, targets = rows[:, :-1], rows[:, 1:].copy()
        if not self.document_mask:
            return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), None)
        first_tokens = starts[:, 1:]  # where the target is the first token of a document
        if self.stream.end_id is None:
            targets[first_tokens] = IGNORED
            document_ids = np.cumsum(starts[:, :-1], axis=1)
        else:
            self._check_ends(tokens[first_tokens], positions)
            document_ids = np.cumsum(first_tokens, axis=1)
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(document_ids))

    def documents_at(self, position: int) -> list[str]:
        """Ids of the documents that the sequence at `position` shows, in order."""
        begin = self.sequence_at(position) * self.sequence_length
        return self.stream.documents_in(begin, begin + self.sequence_length + 1)

    def positions_of(self, document_id: str, before: int) -> list[int]:
        """All positions below `before` whose sequence shows the document, ascending."""
        time = self.sequence_length
        touched: set[int] = set()
        for start, stop in self.stream.spans_of(document_id):
            if start < stop:  # sequence i covers [i·T, i·T + T], the shared token included
                first, last = max(0, -(-start // time) - 1), min((stop - 1) // time, self.sequences - 1)
                touched.update(range(first, last + 1))
        wanted = np.array(sorted(touched), np.int64)
        positions: list[int] = []
        for epoch in range(-(-before // self.sequences)):
            indices = wanted if self.shuffle_seed is None else self._epoch(epoch).inverse(wanted)
            positions += sorted(int(index) + epoch * self.sequences for index in indices)
        return [position for position in positions if position < before]

    def _epoch(self, epoch: int) -> Permutation:
        """The permutation of an epoch; the last one used is kept."""
        if self._permutation is None or self._permutation[0] != epoch:
            seed = self.shuffle_seed if self.shuffle_seed is not None else 0
            self._permutation = (epoch, Permutation(self.sequences, seed, epoch))
        return self._permutation[1]

    def _check_ends(self, ends: Integers, positions: Sequence[int]) -> None:
        if (ends == self.stream.end_id).all():
            return
        for position in positions:
            begin = self.sequence_at(position) * self.sequence_length
            for start in self.stream.document_starts(begin, begin + self.sequence_length + 1).tolist():
                if (token := int(self.stream.read(start - 1, start)[0])) != self.stream.end_id:
                    shard = self.stream.shards[self.stream._pieces(start - 1, start)[0][0]]
                    document = self.stream.documents_in(start - 1, start)[0]
                    raise shard.error(
                        f"ends document {document} with token {token}, but tokens.end_id is {self.stream.end_id}"
                    )
