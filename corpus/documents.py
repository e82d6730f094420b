"""Records become documents: normalised, named by their content, in tables of bounded size, each accounted for."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from corpus.config import IngestConfig, NormaliseConfig, SourceConfig
from corpus.inventory import IngestUnit, Span
from corpus.normalise import normalise
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
from corpus.sources.base import EXCERPT_CHARACTERS, bad_record
from storage.manifests import Counts
from storage.schemas import DOCUMENTS, ID_BYTES, ID_INDEX, LEDGER, QUARANTINE

# Rows of a part: bounds what a part of very short documents costs in memory.
_PART_ROWS = 500_000
_HALF_KNOWN = 64  # longer than personal data is
_RECORDS_BETWEEN_TELLING = 256
# Python strings are handed to Arrow in slices of about this size, so that a part is never held twice.
_SLICE_BYTES = 4 << 20


@dataclass(frozen=True)
class Position:
    """Where in a unit the next part begins: a file, a place in it, and the counts of that file so far, for JSON."""

    file: int = 0
    member: str = ""
    record: int = 0
    offset: int = 0
    totals: Mapping[str, Any] = field(default_factory=dict)
    done: bool = False
    """True after the last part of the unit."""


@dataclass(frozen=True)
class DocumentBatch:
    """The documents of one part and what goes with them.

    Attributes
    ----------
    documents
        Schema `DOCUMENTS`, in input order.
    quarantine
        Schema `QUARANTINE`, in input order.
    ledger
        Schema `LEDGER`: one row for every file that ends in this part, with the totals of the whole file.
    counts
        Records of this part; what is dropped was skipped, being by its kind no document.
    normalised
        Repair, or kind of redaction -> documents of this part that it changed.
    next
        Where the next part begins.
    """

    documents: pa.Table
    quarantine: pa.Table
    ledger: pa.Table
    counts: Counts
    normalised: dict[str, int]
    next: Position


def document_id(text: str) -> bytes:
    """The id of a document: blake2b of its UTF-8 text, 16 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=ID_BYTES).digest()


def canonical_meta(meta: dict[str, Any]) -> str:
    """JSON with sorted keys and no spaces; values that JSON does not know (dates, decimals) as strings."""
    try:
        return orjson.dumps(meta, default=str, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # lone surrogates, integers beyond 64 bits, keys that are no strings
        text = json.dumps(meta, default=str, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace").decode()


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
    source = open_source(chosen[0], max_record_bytes=config.max_record_bytes)
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
            place = (cursor.member, cursor.record, cursor.offset)
            for found in self._source.records(file, cursor=cursor):
                uri = f"{file.uri}!/{cursor.member}" if cursor.member else file.uri
                document = self._as_document(uri, found) if type(found) is Record else found
                size = len(document.data) if type(document) is _Document else 0
                if part.is_full(size, part_bytes):
                    yield part.finish(Position(number, *place, totals=totals.as_dict()))
                    part = self._new_part()
                if type(document) is _Document:
                    part.add(uri, document)
                elif type(document) is BadRecord:
                    part.put_aside(uri, document)
                _count(document, part.counts)
                _count(document, totals)
                place = (cursor.member, cursor.record, cursor.offset)
                if not totals.read % _RECORDS_BETWEEN_TELLING:
                    advanced(size_before + max(0, cursor.tell() - begin))
            size_before += file.bytes
            advanced(size_before)
            part.ledger.append(ledger_row(file, totals, self._checksum(file, cursor)))
        if part.counts.read or part.ledger or start == Position():
            yield part.finish(Position(len(self._files), done=True))

    def _new_part(self) -> _Part:
        return _Part(self._source.config.name, self._redactor)

    def _checksum(self, file: InputFile, cursor: Cursor) -> str | None:
        """SHA-256 of the whole file as it lies there; of a file in several units, the first one finds it."""
        if not self._config.checksums or (self._span is not None and self._span.begin):
            return None
        return cursor.sha256 or self._source.checksum(file)

    def _as_document(self, uri: str, found: Record) -> _Document | BadRecord | Skipped:
        if self._taken_down and (uri, found.record) in self._taken_down:
            return Skipped(found.record, "takedown")
        text, steps = normalise(found.text, self._config.normalise)
        if self._redactor is not None:
            text, redacted = self._redactor.text(text)
            steps += tuple(f"redact {kind}" for kind in redacted)
            url, date, meta = (self._redactor.value(value) for value in (found.url, found.date, found.meta))
            found = found._replace(url=url, date=date, meta=meta)
        if not text or text.isspace():
            return bad_record(found.record, "empty-text", "nothing is left after normalising", found.text)
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            return bad_record(found.record, "lone-surrogate", f"{error}; fix_encoding would repair it", found.text)
        if self._taken_down_ids and document_id(text) in self._taken_down_ids:
            return Skipped(found.record, "takedown")
        return _Document(found, data, steps)


class _Document(NamedTuple):
    record: Record
    data: bytes
    steps: tuple[str, ...]


def _count(document: _Document | Found, counts: Counts) -> None:
    counts.read += 1
    if type(document) is _Document:
        counts.kept += 1
    elif type(document) is Skipped:
        counts.dropped[document.reason] = counts.dropped.get(document.reason, 0) + 1
    elif type(document) is BadRecord:
        counts.quarantined[document.error] = counts.quarantined.get(document.error, 0) + 1


def ledger_row(file: InputFile, counts: Counts, checksum: str | None, status: str = "read") -> dict[str, Any]:
    """The line of a file in the ledger (schema `LEDGER`); duplicates are not known yet."""
    return {
        "source": file.source,
        "uri": file.uri,
        "bytes": file.bytes,
        "etag": file.etag,
        "sha256": checksum,
        "records": counts.read,
        "written": counts.kept,
        "duplicates": 0,
        "skipped": sum(counts.dropped.values()),
        "quarantined": sum(counts.quarantined.values()),
        "reasons": canonical_meta({**counts.dropped, **counts.quarantined}),
        "status": status,
    }


class _Part:
    """Columns of a part while it grows."""

    def __init__(self, source: str, redactor: Redactor | None = None) -> None:
        self._source = source
        self._redactor = redactor
        self._batches: list[pa.RecordBatch] = []
        self._quarantine: list[dict[str, Any]] = []
        self._bytes = 0
        self._normalised: Counter[str] = Counter()
        self.counts = Counts()
        self.ledger: list[dict[str, Any]] = []
        self._empty_slice()

    def _empty_slice(self) -> None:
        self._texts: list[bytes] = []
        self._records: list[Record] = []
        self._uris: list[str] = []
        self._slice_bytes = 0

    def is_full(self, more: int, part_bytes: int) -> bool:
        """True if a text of `more` bytes does not fit any more."""
        size = self._bytes
        if size + more > part_bytes and size:
            return True
        return self.counts.read + 4 * len(self._quarantine) >= _PART_ROWS  # what is put aside are Python objects

    def add(self, uri: str, document: _Document) -> None:
        record, data, steps = document
        self._texts.append(data)
        self._records.append(record)
        self._uris.append(uri)
        self._bytes += len(data)
        self._slice_bytes += len(data) + 256
        if steps:
            self._normalised.update(steps)
        if self._slice_bytes >= _SLICE_BYTES:
            self._close_slice()

    def put_aside(self, uri: str, bad: BadRecord) -> None:
        row = bad._asdict()
        if self._redactor is not None:
            row["message"], row["excerpt"] = self._redactor.value(bad.message), self._redactor.value(bad.excerpt)
            if len(bad.excerpt) >= EXCERPT_CHARACTERS:  # half an address at its end would not be known for one
                row["excerpt"] = row["excerpt"][:-_HALF_KNOWN]
        self._quarantine.append({"source": self._source, "uri": uri, **row})

    def finish(self, following: Position) -> DocumentBatch:
        self._close_slice()
        return DocumentBatch(
            pa.Table.from_batches(self._batches, DOCUMENTS),
            pa.Table.from_pylist(self._quarantine, QUARANTINE),
            pa.Table.from_pylist(self.ledger, LEDGER),
            self.counts,
            dict(sorted(self._normalised.items())),
            following,
        )

    def _close_slice(self) -> None:
        texts, records = self._texts, self._records
        if not texts:
            return
        numbers, _, urls, dates, metas = zip(*records, strict=True)
        ids = b"".join([hashlib.blake2b(text, digest_size=ID_BYTES).digest() for text in texts])
        columns = [
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(ID_BYTES), len(texts), [None, pa.py_buffer(ids)]),
            large_strings(texts),
            pa.repeat(pa.scalar(self._source, pa.string()), len(texts)),
            _strings(self._uris),
            pa.array(numbers, pa.int64()),
            _strings(urls),
            _strings(dates),
            _strings([canonical_meta(meta) if meta else None for meta in metas]),
        ]
        self._batches.append(pa.RecordBatch.from_arrays(columns, schema=DOCUMENTS))
        self._empty_slice()


def large_strings(texts: Sequence[bytes]) -> pa.LargeStringArray:
    """A `large_string` array of UTF-8 texts, without looking at them one by one."""
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=offsets[1:])
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(texts)))


def _strings(values: Sequence[str | None]) -> pa.StringArray:
    first = values[0]
    if all(value is first for value in values):  # one file, no address, no date
        return pa.repeat(pa.scalar(_valid(first), pa.string()), len(values))
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:  # lone surrogates
        return pa.array([_valid(value) for value in values], pa.string())


def _valid(text: str | None) -> str | None:
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


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
    # lexsort is stable: among equal ids the order stays that of part names and rows.
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    sorted_ids = keys[order].astype(">u8").tobytes()
    names = pa.DictionaryArray.from_arrays(pa.array(number[order]), pa.array([name for name, _ in parts], pa.string()))
    return pa.Table.from_arrays(
        [
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(ID_BYTES), len(order), [None, pa.py_buffer(sorted_ids)]),
            names.cast(pa.string()),
            pa.array(rows[order]),
        ],
        schema=ID_INDEX,
    )


def _id_words(ids: pa.Array | pa.ChunkedArray) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    """Ids as two big-endian words each, which compare as the 16 bytes do."""
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    if ids.type != pa.binary(ID_BYTES) or ids.null_count:
        raise ValueError(f"ids must be {ID_BYTES} bytes each and never null, not {ids.type}")
    data = np.frombuffer(ids.buffers()[1], np.uint8)[ids.offset * ID_BYTES : (ids.offset + len(ids)) * ID_BYTES]
    return data.view(">u8").astype(np.uint64).reshape(-1, 2)
