"""Token shards, and many of them as one stream of tokens; mapped into memory, opened when first read."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.shard_cache import ShardCache
from storage.cache import CacheError, RemoteFile

Integers = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.unsignedinteger]


class TokenShardError(ValueError):
    """A token shard that is missing, damaged or does not fit the job; the message names it."""


class TokenShard:
    """One Arrow IPC file of tokenised documents: one record batch of `id` and `tokens`, mapped without a copy.

    Attributes
    ----------
    length
        Tokens in it.
    offsets
        int64 (documents + 1,): document d is `tokens[offsets[d]:offsets[d + 1]]`.
    tokens
        uint16 or uint32, a view of the file.
    ids
        uint8 (documents, 16), a view of the file.

    Parameters
    ----------
    length
        Tokens it should hold, where that is known: the file is then opened when it is first read, and checked.
    remote, cache
        The file, if it lies in a remote store (`path` is then its URL), and what keeps copies of such files.

    Raises
    ------
    TokenShardError
        naming the file, if it is missing, damaged, not of the schema of token shards, or of another length; at once
        without `length`, else when it is opened.
    """

    def __init__(
        self,
        path: str | Path,
        length: int | None = None,
        remote: RemoteFile | None = None,
        cache: ShardCache | None = None,
    ) -> None:
        self.path = str(path)
        self.remote, self.cache = remote, cache
        self.length = len(self.tokens) if length is None else length

    @contextlib.contextmanager
    def _file(self) -> Iterator[str]:
        if self.remote is None or self.cache is None:
            yield self.path
            return
        with self.cache.opening(self, self.remote) as copy:
            yield str(copy)

    @cached_property
    def _columns(self) -> tuple[pa.Array, pa.Array]:
        try:
            with self._file() as file, pa.memory_map(file) as source, pa.ipc.open_file(source) as reader:
                self.bytes = os.stat(file).st_size
                if reader.num_record_batches != 1:
                    raise self.error(f"holds {reader.num_record_batches} record batches instead of one")
                batch = reader.get_batch(0)
        except FileNotFoundError:
            raise self.error("does not exist; run the tokenize stage again") from None
        except CacheError as reason:
            raise self.error(str(reason)) from reason
        except pa.ArrowInvalid as reason:
            raise self.error(f"is damaged ({reason}); remove it and run the tokenize stage again") from reason
        except OSError as reason:
            raise self.error(f"cannot be read ({reason})") from reason
        for name, what, fits in (
            ("id", "16 bytes", lambda kind: kind == pa.binary(16)),
            ("tokens", "large_list of uint16 or uint32", _is_token_list),
        ):
            if name not in batch.schema.names or not fits(batch.schema.field(name).type):
                raise self.error(f"needs a column {name!r} of {what}; its schema is {batch.schema}")
            if batch.column(name).null_count:
                raise self.error(f"has nulls in column {name!r}")
        return batch.column("id"), batch.column("tokens")

    @cached_property
    def tokens(self) -> Tokens:
        column = self._columns[1]
        found: Tokens = column.flatten().to_numpy(zero_copy_only=True)
        bounds = column.offsets
        if len(bounds) and bounds[-1].as_py() - bounds[0].as_py() != len(found):
            raise self.error("is damaged (its offsets do not fit its tokens); run the tokenize stage again")
        length = getattr(self, "length", len(found))
        if len(found) != length:
            raise self.error(f"holds {len(found)} tokens where {length} were written; run the tokenize stage again")
        return found

    @cached_property
    def view(self) -> memoryview:
        """`tokens` as a memory view, which is sliced faster."""
        return memoryview(self.tokens)  # type: ignore[arg-type]

    @cached_property
    def offsets(self) -> Integers:
        column = self._columns[1]
        found: Integers = column.offsets.to_numpy(zero_copy_only=True)
        if found[0]:
            found = found - found[0]
        if (np.diff(found) < 0).any() or found[-1] != len(self.tokens):
            raise self.error("is damaged (its offsets do not fit its tokens); run the tokenize stage again")
        return found

    @cached_property
    def offset_view(self) -> memoryview:
        """`offsets` as a memory view."""
        return memoryview(self.offsets)  # type: ignore[arg-type]

    @cached_property
    def ids(self) -> npt.NDArray[np.uint8]:
        column = self._columns[0]
        raw = np.frombuffer(column.buffers()[1] or b"", np.uint8)[column.offset * 16 :][: len(column) * 16]
        return raw.reshape(len(column), 16)

    @property
    def is_open(self) -> bool:
        """Whether the file is mapped."""
        return "_columns" in self.__dict__

    def close(self) -> None:
        """Let go of the file, once nobody holds a view of it; reading again opens it again."""
        for name in ("_columns", "tokens", "view", "offsets", "offset_view", "ids"):
            self.__dict__.pop(name, None)

    def announce(self) -> None:
        """Have a copy of a remote file fetched, for it will be read soon."""
        if self.remote is not None and self.cache is not None and not self.is_open:
            self.cache.announce(self.remote)

    def check_unchanged(self) -> None:
        """If it was opened, check that the file still has its size: reading behind its end would kill the process.

        Copies of remote files are nobody else's. Raises `TokenShardError`.
        """
        if self.remote is not None or not self.is_open:
            return
        try:
            size = os.stat(self.path).st_size
        except FileNotFoundError:
            raise self.error("does not exist any more; run the tokenize stage again") from None
        if size != self.bytes:
            raise self.error(f"was changed while it was read: it has {size} bytes instead of {self.bytes}")

    def error(self, message: str) -> TokenShardError:
        """An error that names this shard."""
        return TokenShardError(f"token shard {self.path} {message}")


def _is_token_list(kind: pa.DataType) -> bool:
    return pa.types.is_large_list(kind) and kind.value_type in (pa.uint16(), pa.uint32())


class TokenStream:
    """All documents of many shards as one run of tokens with global offsets.

    Parameters
    ----------
    shards
        The shards, or their paths, in the order of the manifest. One whose length is known is not opened before it is
        read.
    vocabulary_size
        Tokens at or above it are an error that names the shard, raised when they are read.
    end_id
        The token every document ends with; None if none was written.
    """

    def __init__(
        self,
        shards: Sequence[str | Path | TokenShard],
        vocabulary_size: int,
        end_id: int | None = None,
    ) -> None:
        if not shards:
            raise TokenShardError("no token shards were given; run the tokenize stage first")
        if end_id is not None and not 0 <= end_id < vocabulary_size:
            raise ValueError(f"tokens.end_id = {end_id} is not below the vocabulary size {vocabulary_size}")
        self.vocabulary_size = vocabulary_size
        self.end_id = end_id
        self.dtype = np.dtype(np.uint16 if vocabulary_size <= 1 << 16 else np.uint32)
        self.shards = [shard if isinstance(shard, TokenShard) else TokenShard(shard) for shard in shards]
        self.cache = next((shard.cache for shard in self.shards if shard.cache is not None), None)
        self.sizes: Integers = np.array([shard.length for shard in self.shards], np.int64)
        self.starts: Integers = np.concatenate(([0], np.cumsum(self.sizes)))

    def __len__(self) -> int:
        """Tokens."""
        return int(self.starts[-1])

    @property
    def documents(self) -> int:
        """Documents of all shards; opens them."""
        return sum(len(shard.ids) for shard in self.shards)

    def read_rows(self, begins: npt.ArrayLike, length: int) -> Tokens:
        """The tokens [b, b + length) for every b of `begins`, in the type of the vocabulary: (len(begins), length).

        Raises
        ------
        TokenShardError
            If a token is not of the vocabulary.
        """
        begins = np.asarray(begins, np.int64)
        numbers, inside, crossing = self._places(begins, length)
        shards = self.shards
        owners = numbers.tolist()
        places = zip(owners, inside.tolist(), strict=True)
        # Joining memory views costs half of what numpy asks for slices of so few bytes.
        pieces = [shards[number].view[low : low + length] for number, low in places]
        self._used(owners)
        for row in crossing[::-1]:
            begin = int(begins[row])
            pieces[row : row + 1] = [
                shards[number].view[low:high] for number, low, high in self._pieces(begin, begin + length)
            ]
        data = b"".join(pieces)
        size = len(begins) * length
        if len(data) == size * self.dtype.itemsize:
            found: Tokens = np.frombuffer(data, self.dtype)
            if not size or found.max() < self.vocabulary_size:
                return found.reshape(len(begins), length)
        # A shard of another type than the vocabulary needs, or a token too large, which is an error.
        return np.array([self.read(begin, begin + length) for begin in begins.tolist()], self.dtype)

    def starts_in_rows(self, begins: npt.ArrayLike, length: int) -> tuple[Integers, Integers]:
        """Where documents begin inside (b, b + length) for every b of `begins`: number of the row, tokens after b.

        In order; a place comes more than once where empty documents begin before another.
        """
        begins = np.asarray(begins, np.int64)
        numbers, inside, crossing = self._places(begins, length)
        found: list[memoryview] = []
        for number, low in zip(numbers.tolist(), inside.tolist(), strict=True):
            offsets = self.shards[number].offset_view
            first = bisect_left(offsets, low + 1)
            found.append(offsets[first : bisect_left(offsets, low + length, first)])
        for row in crossing:
            begin = int(begins[row])
            found[row] = memoryview(self.document_starts(begin, begin + length) - self.starts[numbers[row]])
        counts = [len(offsets) for offsets in found]
        places = np.frombuffer(b"".join(found), np.int64) - np.repeat(inside, counts)
        return np.repeat(np.arange(len(begins)), counts), places

    def _used(self, numbers: Iterable[int]) -> None:
        """Tell the cache of remote shards which ones were read."""
        if self.cache is not None:
            self.cache.use(self.shards[number] for number in numbers)

    def _places(self, begins: Integers, length: int) -> tuple[Integers, Integers, list[int]]:
        """The shard in which each row of `length` tokens begins, the token there, and the rows that go on behind it."""
        numbers = self.starts.searchsorted(begins, side="right") - 1
        inside = begins - self.starts[numbers]
        crossing = inside + length > self.sizes[numbers]
        return numbers, inside, np.flatnonzero(crossing).tolist()

    def read(self, start: int, stop: int) -> Integers:
        """The tokens [start, stop) as int64.

        Raises
        ------
        TokenShardError
            If a token is not of the vocabulary.
        """
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
            inside = offsets[offsets.searchsorted(low) : offsets.searchsorted(high)]
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

    def spans_of(self, document_id: str, shards: Container[str] | None = None) -> list[tuple[int, int]]:
        """Where a document (32 hex digits) stands: global [start, stop), once for every time it occurs.

        `shards`: paths of the only ones to look into; all by default.
        """
        wanted = np.frombuffer(bytes.fromhex(document_id), np.uint8)
        spans = []
        for base, shard in zip(self.starts.tolist(), self.shards, strict=False):
            if shards is not None and shard.path not in shards:
                continue
            for row in np.flatnonzero((shard.ids == wanted).all(axis=1)):
                spans.append((base + int(shard.offsets[row]), base + int(shard.offsets[row + 1])))
        return spans

    def check_unchanged(self) -> None:
        """Check the files that were opened; raises `TokenShardError`."""
        for shard in self.shards:
            shard.check_unchanged()

    def announce(self, spans: Iterable[tuple[int, int]]) -> None:
        """Have the remote shards fetched that hold tokens of the ranges [start, stop), which will be read soon."""
        for number in dict.fromkeys(number for span in spans for number, _, _ in self._pieces(*span)):
            self.shards[number].announce()

    def shard_at(self, offset: int) -> TokenShard:
        """The shard that holds the token at a global offset."""
        return self.shards[int(self.starts.searchsorted(offset, side="right")) - 1]

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
        self._used(number for number, _, _ in pieces)
        return pieces
