"""A part while it grows: documents, what was put aside, and the ledger's lines, up to a bounded size."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from corpus.buffers import buffers
from corpus.redaction import Redactor
from corpus.sources import BadRecord, InputFile, Record
from corpus.sources.base import EXCERPT_CHARACTERS
from corpus.sources.rows import Rows
from corpus.texts import content_ids, large_strings
from storage.manifests import Counts
from storage.schemas import DOCUMENTS, LEDGER, QUARANTINE

# Rows of a part: bounds what a part of very short documents costs in memory.
_PART_ROWS = 500_000
_HALF_KNOWN = 64  # longer than personal data is
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


class Document(NamedTuple):
    """A record that has become a document: its text in UTF-8, and the repairs that changed it."""

    record: Record
    data: bytes
    steps: tuple[str, ...]


class Part:
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
        return (size + more > part_bytes and size > 0) or self._rows_left() <= 0

    def room(self, sizes: NDArray[np.int64], part_bytes: int) -> int:
        """How many of texts of these sizes, in bytes, fit one after the other."""
        fitting = int(np.searchsorted(np.cumsum(sizes), part_bytes - self._bytes, "right"))
        return max(0, min(fitting if self._bytes else max(fitting, 1), self._rows_left()))

    def _rows_left(self) -> int:
        return _PART_ROWS - self.counts.read - 4 * len(self._quarantine)  # what is put aside are Python objects

    def add(self, uri: str, document: Document) -> None:
        """One document more."""
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

    def add_rows(self, uri: str, rows: Rows, steps: Iterable[tuple[str, ...]]) -> None:
        """Some documents more, whose texts are normalised; `steps` are the repairs of those that were changed."""
        self._close_slice()
        self._append(
            rows.texts,
            pa.repeat(pa.scalar(_valid(uri), pa.string()), len(rows.texts)),
            pa.array(rows.numbers),
            rows.urls if rows.urls is not None else pa.nulls(len(rows.texts), pa.string()),
            rows.dates if rows.dates is not None else pa.nulls(len(rows.texts), pa.string()),
            rows.metas,
        )
        self._bytes += int(buffers(rows.texts)[0][[0, -1]] @ (-1, 1))
        for names in steps:
            self._normalised.update(names)

    def put_aside(self, uri: str, bad: BadRecord) -> None:
        """One record more that cannot be read."""
        row = bad._asdict()
        if self._redactor is not None:
            row["message"], row["excerpt"] = self._redactor.value(bad.message), self._redactor.value(bad.excerpt)
            if len(bad.excerpt) >= EXCERPT_CHARACTERS:  # half an address at its end would not be known for one
                row["excerpt"] = row["excerpt"][:-_HALF_KNOWN]
        self._quarantine.append({"source": self._source, "uri": uri, **row})

    def finish(self, following: Position) -> DocumentBatch:
        """The part as tables."""
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
        if not self._texts:
            return
        numbers, _, urls, dates, metas = zip(*self._records, strict=True)
        self._append(
            large_strings(self._texts),
            _strings(self._uris),
            pa.array(numbers, pa.int64()),
            _strings(urls),
            _strings(dates),
            metas if any(metas) else None,
        )
        self._empty_slice()

    def _append(
        self,
        texts: pa.LargeStringArray,
        uris: pa.StringArray,
        numbers: pa.Int64Array,
        urls: pa.StringArray,
        dates: pa.StringArray,
        metas: Sequence[dict[str, Any] | None] | None,
    ) -> None:
        described = [canonical_meta(meta) if meta else None for meta in metas or ()]
        columns = [
            content_ids(texts),
            texts,
            pa.repeat(pa.scalar(self._source, pa.string()), len(texts)),
            uris,
            numbers,
            urls,
            dates,
            _strings(described) if described else pa.nulls(len(texts), pa.string()),
        ]
        self._batches.append(pa.RecordBatch.from_arrays(columns, schema=DOCUMENTS))


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


def canonical_meta(meta: dict[str, Any]) -> str:
    """JSON with sorted keys and no spaces; values that JSON does not know (dates, decimals) as strings."""
    try:
        return orjson.dumps(meta, default=str, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # lone surrogates, integers beyond 64 bits, keys that are no strings
        text = json.dumps(meta, default=str, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace").decode()


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
