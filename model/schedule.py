"""Which sequence a training shows at a position, and which documents are in it: the contract, without tensors.

- Every source is a *stream* of tokens (`model.shards`), made into *sequences* of one length (`model.packing`).
- Which sequence stands at which *position* is a pure function of the plan and the position (`model.order`). No table is
  stored, and the state of a training's data is one integer, the position.
- The order changes if the shards, their order, the sequence length, the plan or the seed change, and with nothing else.
- Back and forth: a position leads to document ids, a document id to positions.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from model.lanes import Lanes
from model.order import ALL, Located, Order, Segment
from model.packing import CutSequences, PackedSequences, Packing, sequences_of
from model.shards import TokenStream

_WINDOW = 1 << 13
"""Positions that are located together: arithmetic on few at a time costs more than the tokens."""


class Seen(NamedTuple):
    """One time that a training shows a document: at a position, in an epoch of its source."""

    position: int
    source: str
    epoch: int


class Schedule:
    """Sequences in the order of a plan (`shuffle_seed`), or, for validation, in the order of the streams (None).

    Parameters
    ----------
    streams
        One stream, or a stream for every source that the plan names.
    plan
        How sources are mixed; not needed for one stream.
    document_mask
        Whether sequences tell documents apart. A document then starts at the end token before it, so that each is
        modelled as p(text, end | end), exactly as it is when it is scored or generated alone; without end tokens the
        first token of a document has nothing to be predicted from and is not a target.
    packing, overlap, shortest
        How streams become sequences (`model.packing`). Packed documents are always told apart.
    end_once
        The end token stands nowhere but at the end of documents.
    lanes
        The order for object stores (`model.lanes`); only for shuffled sequences.

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
        shortest: int = 0,
        end_once: bool = False,
        lanes: Lanes | None = None,
    ) -> None:
        self.streams = {ALL: streams} if isinstance(streams, TokenStream) else dict(streams)
        self.sequence_length = sequence_length
        self.layouts: dict[str, CutSequences | PackedSequences] = {
            name: sequences_of(
                stream,
                sequence_length,
                packing,
                overlap=overlap,
                shortest=shortest,
                tell_documents=document_mask,
                end_once=end_once,
            )
            for name, stream in sorted(self.streams.items())
        }
        sizes = {name: layout.count for name, layout in self.layouts.items()}
        self.order = Order(plan or (Segment(0, dict.fromkeys(sizes, 1)),), sizes, shuffle_seed, lanes)
        self.sequences = sum(sizes.values())
        self.by_number = [self.layouts[name] for name in self.order.names]
        self._windows: dict[int, Located] = {}

    def locate(self, positions: Sequence[int]) -> Located:
        """Source, epoch and sequence of positions, each int64 of their number."""
        if isinstance(positions, range) and positions.step == 1:
            window, first = divmod(positions.start, _WINDOW)
            if first + len(positions) <= _WINDOW:
                sources, epochs, sequences = self._window(window)
                inside = slice(first, first + len(positions))
                return Located(sources[inside], epochs[inside], sequences[inside])
        wanted = np.asarray(positions, np.int64)
        if len(wanted) and wanted[0] // _WINDOW == wanted.min() // _WINDOW == wanted.max() // _WINDOW:
            places = wanted % _WINDOW
            return Located(*(part[places] for part in self._window(int(wanted[0]) // _WINDOW)))
        return self.order.locate(wanted)

    def _window(self, number: int) -> Located:
        if (found := self._windows.get(number)) is None:
            found = self.order.locate(np.arange(number * _WINDOW, (number + 1) * _WINDOW))
            self._windows = {**dict(list(self._windows.items())[-1:]), number: found}
        return found

    def sequence_at(self, position: int) -> int:
        """The sequence, of its source, that a position takes."""
        return int(self.locate(range(position, position + 1)).sequences[0])

    def documents_at(self, position: int) -> list[str]:
        """Ids of the documents that the sequence at `position` shows, in order."""
        [number], _, [sequence] = self.locate(range(position, position + 1))
        name = self.order.names[number]
        spans = self.layouts[name].span(int(sequence))
        found = [document for span in spans for document in self.streams[name].documents_in(*span)]
        return list(dict.fromkeys(found))

    def seen(self, document_id: str, before: int, shards: Container[str] | None = None) -> list[Seen]:
        """Every time that positions below `before` show a document (32 hex digits), by position.

        `shards`: paths of the only ones that can hold it, where they are known.
        """
        found: set[Seen] = set()
        for name, stream in self.streams.items():
            wanted: set[int] = set()
            for start, stop in stream.spans_of(document_id, shards):
                if start < stop:
                    wanted.update(self.layouts[name].sequences_of(start, stop))
            places = self.order.positions_of(name, np.array(sorted(wanted), np.int64), before)
            found.update(Seen(position, name, epoch) for position, epoch in places)
        return sorted(found)

    def positions_of(self, document_id: str, before: int) -> list[int]:
        """All positions below `before` whose sequence shows the document, ascending."""
        return [seen.position for seen in self.seen(document_id, before)]
