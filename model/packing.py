"""Sequences out of a stream: cut at every T tokens, packed document by document, one document a row, or by length.

- `cut`: sequence i is the tokens [i·T, i·T + T + 1) of the stream, whatever documents they belong to; neighbours share
  one token, and every token but the first is a target once. A tail too short for a sequence is left out.
- `pack`: documents that fit into a sequence are never cut; sequences are filled by best fit, longest documents first
  (Ding et al. 2024, arXiv 2404.10830). Longer documents are split.
- `single`: as `pack`, with one document, or piece of one, in a row.
- `buckets`: documents are decomposed into pieces of T, T/2, T/4 … tokens, longest first, and every sequence holds
  pieces of one length (Pouransari et al. 2024, arXiv 2405.13226, section 2). Pieces that do not fill a sequence are
  halved; what is shorter than the shortest pieces is packed as by `pack`, so that nothing is lost.

A document is modelled as p(text, end | end): its first token is predicted from the end token. Without end tokens there
is nothing to predict it from, and it is no target. Pieces of a split document may overlap: the tokens of the overlap
are read again as context and are not targets again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from model.shards import Integers, Tokens, TokenShardError, TokenStream

IGNORED = -100
"""The target that `torch.nn.functional.cross_entropy` leaves out."""

Packing = Literal["cut", "pack", "single", "buckets"]


class Rows(NamedTuple):
    """Sequences in memory.

    `tokens` and `targets`: int64 (rows, T); `boundaries`: int32, where documents begin in the flattened tokens, and
    their number last (rows·T), or None where documents are not told apart.
    """

    tokens: Integers
    targets: Integers
    boundaries: npt.NDArray[np.int32] | None


class CutSequences:
    """The stream cut at every `length` tokens.

    Parameters
    ----------
    tell_documents
        Whether rows say where documents begin. With end tokens a document begins at the end token before it.
    end_once
        The end token stands nowhere but at the end of documents, so that it alone tells where they begin.

    Attributes
    ----------
    count
        Sequences.
    lost
        Tokens of the stream that no sequence shows: those behind the last one.
    """

    padding = 0
    padding_share = 0.0

    def __init__(self, stream: TokenStream, length: int, *, tell_documents: bool, end_once: bool = False) -> None:
        self.stream, self.length = stream, length
        self.tell_documents, self.end_once = tell_documents, end_once
        self.count = max(0, len(stream) - 1) // length
        self.lost = len(stream) - (self.count * length + 1 if self.count else 0)

    def read(self, sequences: Integers) -> Rows:
        """The rows of sequences, in their order."""
        begins = sequences * self.length
        rows = self.stream.read_rows(begins, self.length + 1)
        wide = rows.astype(np.int64)
        tokens, targets = wide[:, :-1], wide[:, 1:]
        if not self.tell_documents:
            return Rows(tokens, targets, None)
        # Where documents begin, in rows of T + 1: a row's last token is its last target, and the first token of the
        # next sequence. After the last row comes the end.
        starts = np.zeros(rows.size + 1, bool)
        inside = starts[:-1].reshape(rows.shape)
        end_id = self.stream.end_id
        if self.end_once and end_id is not None:
            np.equal(rows, end_id, out=inside)
        else:
            documents, places = self.stream.starts_in_rows(begins, self.length + 1)
            before = documents, places - 1  # the target there is the first token of a document
            if end_id is not None:
                self._check_ends(rows[before], begins)
                inside[before] = True
            else:
                targets = targets.copy()
                targets[before] = IGNORED
                inside[documents, places] = True
        inside[:, -1] = False
        starts[:: self.length + 1] = True
        return Rows(tokens, targets, _flat_places(len(rows), self.length)[starts])

    def span(self, sequence: int) -> list[tuple[int, int]]:
        """The tokens of the stream that a sequence shows, as [start, stop) ranges."""
        return [(sequence * self.length, (sequence + 1) * self.length + 1)]

    def sequences_of(self, start: int, stop: int) -> Iterable[int]:
        """The sequences that show one of the tokens [start, stop), the token that neighbours share included."""
        first, last = max(0, -(-start // self.length) - 1), min((stop - 1) // self.length, self.count - 1)
        return range(first, last + 1)

    def _check_ends(self, ends: Tokens, begins: Integers) -> None:
        if (ends == self.stream.end_id).all():
            return
        for begin in begins.tolist():
            for start in self.stream.document_starts(begin, begin + self.length + 1).tolist():
                if (token := int(self.stream.read(start - 1, start)[0])) != self.stream.end_id:
                    document = self.stream.documents_in(start - 1, start)[0]
                    raise self.stream.shard_at(start - 1).error(
                        f"ends document {document} with token {token}, but tokens.end_id is {self.stream.end_id}"
                    )


class PackedSequences:
    """Documents packed into sequences of `length` tokens, or one a row.

    Holds some 40 bytes a document in memory, and reads the lengths of all documents when it is made.

    Parameters
    ----------
    overlap
        Tokens of a split document that the next piece reads again as context.
    single
        One document, or piece of one, a row.
    shortest
        Pieces of `length`, its half … down to this many tokens, in rows of their own; 0: documents whole where they
        fit.

    Attributes
    ----------
    count
        Sequences.
    padding
        Tokens of all sequences that are padding, and their share, `padding_share`.
    lost
        Tokens of the stream that no sequence shows: documents of one token, where there are no end tokens.
    """

    def __init__(
        self, stream: TokenStream, length: int, *, overlap: int = 0, single: bool = False, shortest: int = 0
    ) -> None:
        if not 0 <= overlap < length:
            raise ValueError(f"an overlap of {overlap} tokens must be below the sequence length {length}")
        self.stream, self.length = stream, length
        pieces = _pieces_of(stream, length, overlap)
        if shortest:
            pieces, rows = _bucketed(pieces, length, shortest)
        else:
            rows = np.arange(len(pieces.sizes)) if single else best_fit(pieces.sizes, length)
        self.starts, self.sizes, self.context, self.firsts = pieces
        self.count = int(rows.max(initial=-1)) + 1
        self.rows = rows
        # Pieces of one row stand in the order of the stream.
        self.pieces = np.argsort(rows, kind="stable")
        self.bounds = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=self.count))))
        self.padding = self.count * length - int(self.sizes.sum())
        self.padding_share = self.padding / (self.count * length) if self.count else 0.0
        unpredicted = 0 if stream.end_id is not None else int(self.firsts.sum())  # first tokens, read before the others
        self.lost = len(stream) - int((self.sizes - self.context).sum()) - unpredicted

    def read(self, sequences: Integers) -> Rows:
        """The rows of sequences, in their order; padding is a document of its own whose targets are ignored."""
        stream, end_id = self.stream, self.stream.end_id
        tokens = np.full((len(sequences), self.length), end_id or 0, np.int64)
        targets = np.full((len(sequences), self.length), IGNORED, np.int64)
        begins: list[int] = []
        for row, sequence in enumerate(sequences.tolist()):
            place = 0
            for piece in self.pieces[self.bounds[sequence] : self.bounds[sequence + 1]].tolist():
                start, size, context = int(self.starts[piece]), int(self.sizes[piece]), int(self.context[piece])
                # Without a token before it (the first of all) or across a document's beginning, the end token stands.
                before = 0 if self.firsts[piece] and end_id is not None else 1
                read = stream.read(start - before, start + size)
                tokens[row, place + 1 - before : place + size] = read[:-1]
                if end_id is not None and not before:
                    tokens[row, place] = end_id
                targets[row, place + context : place + size] = read[before + context :]
                begins.append(row * self.length + place)
                place += size
            if place < self.length:
                begins.append(row * self.length + place)
        boundaries = np.array([*begins, tokens.size], np.int32)
        return Rows(tokens, targets, boundaries)

    def span(self, sequence: int) -> list[tuple[int, int]]:
        """The tokens of the stream that a sequence shows, as [start, stop) ranges."""
        pieces = self.pieces[self.bounds[sequence] : self.bounds[sequence + 1]]
        before = np.where(self.firsts[pieces], self.stream.end_id is None, 1)
        begins, ends = self.starts[pieces] - before, (self.starts + self.sizes)[pieces]
        return list(zip(begins.tolist(), ends.tolist(), strict=True))

    def sequences_of(self, start: int, stop: int) -> Iterable[int]:
        """The sequences that show one of the tokens [start, stop)."""
        first = int(np.searchsorted(self.starts + self.sizes, start, side="right"))
        last = int(np.searchsorted(self.starts, stop, side="left"))
        return sorted(set(self.rows[first:last].tolist()))


def sequences_of(
    stream: TokenStream,
    length: int,
    packing: Packing,
    *,
    overlap: int,
    tell_documents: bool,
    end_once: bool,
    shortest: int = 0,
) -> CutSequences | PackedSequences:
    """The sequences of a stream under a packing policy.

    Raises
    ------
    TokenShardError
        If there is not one.
    """
    found: CutSequences | PackedSequences
    if packing == "cut":
        found = CutSequences(stream, length, tell_documents=tell_documents, end_once=end_once)
    else:
        if packing == "buckets" and not 0 < shortest <= length:
            raise ValueError(f"pieces of {shortest} tokens are no buckets of sequences of {length}")
        shortest = shortest if packing == "buckets" else 0
        found = PackedSequences(stream, length, overlap=overlap, single=packing == "single", shortest=shortest)
    if not found.count:
        raise TokenShardError(
            f"{len(stream.shards)} token shards ({stream.shards[0].path} …) hold {len(stream)} tokens, too few "
            f"for one sequence of training.sequence_length + 1 = {length + 1}"
        )
    return found


def packing_report(layouts: Mapping[str, CutSequences | PackedSequences]) -> dict[str, Any]:
    """What packing makes of streams, by one pass over all sequences.

    Returns
    -------
    dict
        `sequences`; `tokens` in them, padding included; `padding` and `padding_share`; `lost`: tokens of the streams
        that no sequence shows. With several sources the same of each in `sources`.
    """
    each = {
        name: {
            "sequences": layout.count,
            "tokens": layout.count * layout.length,
            "padding": layout.padding,
            "padding_share": layout.padding_share,
            "lost": layout.lost,
        }
        for name, layout in layouts.items()
    }
    if len(each) == 1:
        return dict(*each.values())
    found: dict[str, Any] = {
        name: sum(part[name] for part in each.values()) for name in ("sequences", "tokens", "padding", "lost")
    }
    return {**found, "padding_share": found["padding"] / found["tokens"], "sources": each}


@lru_cache(maxsize=4)
def _flat_places(rows: int, length: int) -> npt.NDArray[np.int32]:
    """For every place in rows of length + 1, and the one behind them, its place in rows of `length`."""
    places = np.arange(rows * (length + 1) + 1)
    return (places - places // (length + 1)).astype(np.int32)


class _Pieces(NamedTuple):
    """Pieces of documents in the order of the stream.

    A piece predicts the tokens [start, start + size) of the stream; its first `context` tokens were predicted by the
    piece before; `firsts`: it begins a document.
    """

    starts: Integers
    sizes: Integers
    context: Integers
    firsts: npt.NDArray[np.bool_]


def _pieces_of(stream: TokenStream, length: int, overlap: int) -> _Pieces:
    """All documents, those above `length` in pieces."""
    skip = 0 if stream.end_id is not None else 1  # the first token is no target without an end token before it
    begins, sizes = [], []
    for base, shard in zip(stream.starts.tolist(), stream.shards, strict=False):
        begins.append(shard.offsets[:-1] + base + skip)
        sizes.append(np.diff(shard.offsets) - skip)
    start, size = np.concatenate(begins), np.concatenate(sizes)
    start, size = start[size > 0], size[size > 0]
    step = length - overlap
    number = np.where(size <= length, 1, -(-(size - overlap) // step))  # pieces of a document
    owner = np.repeat(np.arange(len(size)), number)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(number) - number, number)
    return _Pieces(
        start[owner] + place * step,
        np.minimum(length, size[owner] - place * step),
        np.where(place > 0, overlap, 0),
        place == 0,
    )


def _bucketed(pieces: _Pieces, length: int, shortest: int) -> tuple[_Pieces, Integers]:
    """Pieces without overlap decomposed into lengths of length / 2^k tokens, and the row of every new piece.

    A row holds pieces of one length; the last rows hold what is left, by best fit.
    """
    starts, sizes, firsts = pieces.starts, pieces.sizes, pieces.firsts
    left, left_firsts = starts[:0], firsts[:0]  # pieces of twice the size that did not fill a row
    made: list[tuple[Integers, Integers, npt.NDArray[np.bool_], Integers]] = []
    opened, size = 0, length
    while size >= shortest:
        fitting = sizes >= size
        begins = np.concatenate((starts[fitting], left, left + size))
        is_first = np.concatenate((firsts[fitting], left_firsts, np.zeros(len(left), np.bool_)))
        order = np.argsort(begins)
        each = length // size
        whole, rest = np.split(order, [len(order) // each * each])
        made.append((begins[whole], np.full(len(whole), size), is_first[whole], opened + np.arange(len(whole)) // each))
        opened += len(whole) // each
        left, left_firsts = begins[rest], is_first[rest]
        starts, sizes = np.where(fitting, starts + size, starts), np.where(fitting, sizes - size, sizes)
        firsts = firsts & ~fitting
        size //= 2
    short = sizes > 0
    begins, is_first = np.concatenate((starts[short], left)), np.concatenate((firsts[short], left_firsts))
    lengths = np.concatenate((sizes[short], np.full(len(left), shortest)))
    made.append((begins, lengths, is_first, opened + best_fit(lengths, length)))
    starts, sizes, firsts, rows = (np.concatenate(parts) for parts in zip(*made, strict=True))
    order = np.argsort(starts)
    return _Pieces(starts[order], sizes[order], np.zeros(len(order), np.int64), firsts[order]), rows[order]


def best_fit(sizes: npt.ArrayLike, length: int) -> Integers:
    """The bin of every item when items go, longest first, where the least room is left after them.

    Items of one size are placed together, so the work grows with the number of distinct sizes, not of items.

    Parameters
    ----------
    sizes
        From 1 to `length`.

    Returns
    -------
    int64, the number of the bin of every item; bins are numbered from 0 in the order in which they are opened, and
    none holds more than `length`.
    """
    sizes = np.asarray(sizes, np.int64)
    bins = np.empty(len(sizes), np.int64)
    order = np.argsort(-sizes, kind="stable")
    values, firsts = np.unique(-sizes[order], return_index=True)  # ascending: the longest first
    rooms: dict[int, list[Integers]] = {}  # free room -> bins that have it
    free = 0  # bit r: a bin has room r
    opened = 0
    for size, items in zip((-values).tolist(), np.split(order, firsts[1:]), strict=False):
        while len(items):
            if fitting := free >> size:
                room = size + (fitting & -fitting).bit_length() - 1
                found = np.concatenate(rooms.pop(room))
                free &= ~(1 << room)
            else:
                room = length
                found = np.arange(opened, opened + -(-len(items) // (length // size)))
                opened += len(found)
            # A bin that took one item is the best fit for the next, as long as there is room for it.
            each = room // size
            full, rest = divmod(len(items), each)
            used = min(len(found), full)
            filled = np.repeat(found[:used], each)
            bins[items[: len(filled)]] = filled
            items = items[len(filled) :]
            groups = [(found[:used], room - each * size)]
            if len(items) and used < len(found):
                bins[items] = found[used]
                groups.append((found[used : used + 1], room - rest * size))
                used, items = used + 1, items[:0]
            groups.append((found[used:], room))
            for some, left in groups:
                if len(some) and left:
                    rooms.setdefault(left, []).append(some)
                    free |= 1 << left
    return bins
