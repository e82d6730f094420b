"""Records become documents: normalised, named by their content, in tables of bounded size, each accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from corpus.buffers import buffers
from corpus.config import IngestConfig, NormaliseConfig, SourceConfig
from corpus.inventory import IngestUnit, Span
from corpus.normalise import normalise
from corpus.parts import Document, DocumentBatch, Part, Position, ledger_row
from corpus.redaction import Redactor
from corpus.sources import (
    BadRecord,
    Cursor,
    Found,
    InputFile,
    Record,
    Skipped,
    Source,
    SourceError,
    open_source,
)
from corpus.sources.base import bad_record
from corpus.sources.rows import Rows
from corpus.texts import blank_rows, document_id, normalise_texts
from storage.manifests import Counts
from storage.schemas import ID_BYTES, ID_INDEX

_RECORDS_BETWEEN_TELLING = 256
_INDEX_ROWS = 1 << 20
_FEW_ROWS = 8
"""Fewer rows than this cost less one by one than as columns."""


def read_unit(
    config: IngestConfig,
    unit: IngestUnit,
    start: Position | None = None,
    advanced: Callable[[int], None] = lambda size: None,
) -> Iterator[DocumentBatch]:
    """Reads the files of a unit into parts of at most `part_bytes` of text; at least one, in input order.

    The parts depend on the files and the configuration only. A document longer than `part_bytes` is a part of its own.
    Memory holds about one part. With `start`, the `next` of an earlier part, only the parts after it are made; they are
    the same as without. `advanced` is told now and then how many bytes of the unit's files have been read.

    Raises
    ------
    SourceError
        If a file changed after the inventory was taken, or the unit's source is not in the configuration.
    """
    chosen = [source for source in config.sources if source.name == unit.source]
    if not chosen:
        raise SourceError(f"unit {unit.stem}: there is no source {unit.source!r} in the configuration")
    source = open_source(chosen[0], max_record_bytes=config.max_record_bytes, redact=config.redact)
    reader = _UnitReader(config, source, unit.files, unit.span)
    yield from reader.parts(start or Position(), advanced)


def read_source(config: IngestConfig, source: SourceConfig) -> Iterator[DocumentBatch]:
    """All documents of a source beside the corpus, in parts, as ingest would read them: sorted by uri and record.

    Raises
    ------
    SourceError
        If there are no files.
    """
    reader = open_source(source, max_record_bytes=config.max_record_bytes)
    yield from _UnitReader(config, reader, reader.inventory()).parts(Position())


def read_all(source: SourceConfig, normalise: NormaliseConfig) -> pa.Table:
    """All documents of a small source, for evaluation sets: schema `DOCUMENTS`, sorted by uri and record.

    The counts of its records stand in the schema's metadata under `counts`, as JSON.

    Raises
    ------
    SourceError
        If there are no files, or none of their records can be read.
    """
    tables, counts = [], Counts()
    for batch in read_source(IngestConfig(sources=(source,), normalise=normalise), source):
        tables.append(batch.documents)
        counts.add(batch.counts)
    if not counts.kept:
        raise SourceError(
            f"source {source.name!r}: none of its {counts.read} records could be read {counts.quarantined}"
        )
    quarantined = dict(sorted(counts.quarantined.items()))
    described = orjson.dumps({"read": counts.read, "kept": counts.kept, "quarantined": quarantined})
    return pa.concat_tables(tables).replace_schema_metadata({"counts": described})


class _Block(NamedTuple):
    """Records that have become documents side by side: their texts are normalised; row -> repairs that changed it."""

    rows: Rows
    steps: dict[int, tuple[str, ...]]


class _UnitReader:
    """Reads files one after the other into parts."""

    def __init__(
        self, config: IngestConfig, source: Source, files: Sequence[InputFile], span: Span | None = None
    ) -> None:
        self._config = config
        self._source = source
        self._files = files
        self._span = span
        self._redactor = Redactor(config.redact) if config.redact.kinds else None
        self._taken_down = {(down.uri, down.record) for down in config.takedown if down.source == source.config.name}
        # A copy of such a text in another file is taken down as well.
        self._taken_down_ids = {bytes.fromhex(down.id) for down in config.takedown if down.id}
        self._each_by_itself = bool(self._redactor or self._taken_down or self._taken_down_ids)

    def parts(self, start: Position, advanced: Callable[[int], None] = lambda size: None) -> Iterator[DocumentBatch]:
        part, part_bytes = self._new_part(), self._config.part_bytes
        begin = 0 if self._span is None else self._span.begin
        size_before = sum(file.bytes for file in self._files[: start.file])
        for number in range(start.file, len(self._files)):
            file, totals = self._files[number], Counts()
            cursor = Cursor()
            if self._span is not None:
                cursor = Cursor(record=self._span.record, offset=self._span.begin, stop=self._span.end)
            if number == start.file and start.totals:
                totals = Counts.from_json(start.totals, f"position in {file.uri}")
                cursor = Cursor(start.member, start.record, start.offset, cursor.stop)
            place, told = (cursor.member, cursor.record, cursor.offset), 0
            for uri, found, behind in self._documents(file, cursor):
                if isinstance(found, _Block):
                    rows, taken = found.rows, 0
                    sizes = np.diff(buffers(rows.texts)[0])
                    while taken < len(sizes):
                        more = part.room(sizes[taken:], part_bytes)
                        if not more:
                            yield part.finish(Position(number, *place, totals=totals.as_dict()))
                            part = self._new_part()
                            continue
                        steps = (names for row, names in found.steps.items() if taken <= row < taken + more)
                        part.add_rows(uri, rows.slice(taken, taken + more), steps)
                        taken += more
                        for counts in (part.counts, totals):
                            counts.add(Counts(more, more))
                        place = (behind[0], int(rows.numbers[taken - 1]) + 1, int(rows.ends[taken - 1]))
                else:
                    if part.is_full(len(found.data) if type(found) is Document else 0, part_bytes):
                        yield part.finish(Position(number, *place, totals=totals.as_dict()))
                        part = self._new_part()
                    if type(found) is Document:
                        part.add(uri, found)
                    elif type(found) is BadRecord:
                        part.put_aside(uri, found)
                    _count(found, part.counts)
                    _count(found, totals)
                    place = behind
                if totals.read - told >= _RECORDS_BETWEEN_TELLING:
                    told = totals.read
                    advanced(size_before + max(0, cursor.tell() - begin))
            size_before += file.bytes
            advanced(size_before)
            part.ledger.append(ledger_row(file, totals, self._checksum(file, cursor)))
        if part.counts.read or part.ledger or start == Position():
            yield part.finish(Position(len(self._files), done=True))

    def _documents(
        self, file: InputFile, cursor: Cursor
    ) -> Iterator[tuple[str, Document | BadRecord | Skipped | _Block, tuple[str, int, int]]]:
        """What becomes of the records of a file: uri, document or documents, and the place of the cursor behind."""
        for found in self._source.batches(file, cursor):
            uri = f"{file.uri}!/{cursor.member}" if cursor.member else file.uri
            if not isinstance(found, Rows):
                document = self._as_document(uri, found) if isinstance(found, Record) else found
                yield uri, document, (cursor.member, cursor.record, cursor.offset)
            elif self._each_by_itself or len(found.numbers) < _FEW_ROWS:
                for record, end in zip(found.records(), found.ends.tolist(), strict=True):
                    yield uri, self._as_document(uri, record), (cursor.member, record.record + 1, end)
            else:
                for row, result in self._normalised(found):
                    yield uri, result, (cursor.member, int(found.numbers[row]) + 1, int(found.ends[row]))

    def _normalised(self, rows: Rows) -> Iterator[tuple[int, _Block | BadRecord]]:
        """Rows of which a text is left, together, and the others; each with the number of its last row."""
        texts, steps = normalise_texts(rows.texts, self._config.normalise)
        begin = 0
        for end in [*(blank_rows(texts) if steps else ()), len(texts)]:
            if end > begin:
                some = rows._replace(texts=texts).slice(begin, end)
                yield end - 1, _Block(some, {row - begin: names for row, names in steps.items() if begin <= row < end})
            if end < len(texts):
                yield end, _nothing_left(int(rows.numbers[end]), rows.texts[end].as_py())
            begin = end + 1

    def _new_part(self) -> Part:
        return Part(self._source.config.name, self._redactor)

    def _checksum(self, file: InputFile, cursor: Cursor) -> str | None:
        """SHA-256 of the whole file as it lies there; of a file in several units, the first one finds it."""
        if not self._config.checksums or (self._span is not None and self._span.begin):
            return None
        return cursor.sha256 or self._source.checksum(file)

    def _as_document(self, uri: str, found: Record) -> Document | BadRecord | Skipped:
        if self._taken_down and (uri, found.record) in self._taken_down:
            return Skipped(found.record, "takedown")
        text, steps = normalise(found.text, self._config.normalise)
        if self._redactor is not None:
            text, redacted = self._redactor.text(text)
            steps += tuple(f"redact {kind}" for kind in redacted)
            url, date, meta = (self._redactor.value(value) for value in (found.url, found.date, found.meta))
            found = found._replace(url=url, date=date, meta=meta)
        if not text or text.isspace():
            return _nothing_left(found.record, found.text)
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            return bad_record(found.record, "lone-surrogate", f"{error}; fix_encoding would repair it", found.text)
        if self._taken_down_ids and document_id(text) in self._taken_down_ids:
            return Skipped(found.record, "takedown")
        return Document(found, data, steps)


def _nothing_left(record: int, text: str) -> BadRecord:
    return bad_record(record, "empty-text", "nothing is left after normalising", text)


def _count(document: Document | Found, counts: Counts) -> None:
    counts.read += 1
    if type(document) is Document:
        counts.kept += 1
    elif type(document) is Skipped:
        counts.dropped[document.reason] = counts.dropped.get(document.reason, 0) + 1
    elif type(document) is BadRecord:
        counts.quarantined[document.error] = counts.quarantined.get(document.error, 0) + 1


def id_index(parts: Sequence[tuple[str, pa.Array | pa.ChunkedArray]]) -> pa.Table:
    """Where every document lies.

    Parameters
    ----------
    parts
        (part name, its id column in row order), in any order of parts.

    Returns
    -------
    Table of schema `ID_INDEX`, sorted by id, part name and row: exact copies are neighbours.
    """
    parts = sorted(parts, key=lambda part: part[0])
    keys = np.concatenate([np.empty((0, 2), np.uint64), *(_id_words(ids) for _, ids in parts)])
    lengths = [len(ids) for _, ids in parts]
    number = np.repeat(np.arange(len(parts), dtype=np.int32), lengths)
    rows = np.concatenate([np.empty(0, np.int64), *(np.arange(length, dtype=np.int64) for length in lengths)])
    order = _sorted_order(keys)
    sorted_ids = keys[order].astype(">u8").tobytes()
    starts = range(0, len(order), _INDEX_ROWS)
    names = pa.DictionaryArray.from_arrays(pa.array(number[order]), pa.array([name for name, _ in parts], pa.string()))
    return pa.Table.from_arrays(
        [
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(ID_BYTES), len(order), [None, pa.py_buffer(sorted_ids)]),
            # In pieces: an array of strings has 2 GiB at most.
            pa.chunked_array([names[at : at + _INDEX_ROWS].cast(pa.string()) for at in starts], pa.string()),
            pa.array(rows[order]),
        ],
        schema=ID_INDEX,
    )


def _sorted_order(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The stable order of keys (uint64[n, 2]) by their first word, then by their second.

    Fast where few are equal: sorting by one word alone need not be stable, and equal neighbours are put right after.
    """
    order = np.argsort(keys[:, 0])
    first = keys[order, 0]
    tied = np.zeros(len(order) + 1, np.bool_)
    tied[1:-1] = first[1:] == first[:-1]
    places = np.flatnonzero(tied[1:] | tied[:-1])
    if len(places) > len(order) // 8:
        return np.lexsort((keys[:, 1], keys[:, 0]))
    some = order[places]
    order[places] = some[np.lexsort((some, keys[some, 1], keys[some, 0]))]
    return order


def _id_words(ids: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """Ids as two big-endian words each, which compare as the 16 bytes do."""
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    if ids.type != pa.binary(ID_BYTES) or ids.null_count:
        raise ValueError(f"ids must be {ID_BYTES} bytes each and never null, not {ids.type}")
    data = np.frombuffer(ids.buffers()[1], np.uint8)[ids.offset * ID_BYTES : (ids.offset + len(ids)) * ID_BYTES]
    return data.view(">u8").astype(np.uint64).reshape(-1, 2)
