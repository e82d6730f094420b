"""Parquet files: one row a record, read in batches of rows, only the columns that are needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.config import SourceConfig
from corpus.formats.tables import BATCH_ROWS, RowReader, raise_if_it_may_heal
from corpus.sources.base import Found, Selection, bad_record
from corpus.sources.rows import Rows
from corpus.sources.streams import Content

_BATCH_BYTES = 4 << 20
_BUFFER_BYTES = 1 << 20
"""What is read of a column at a time: row groups may be larger than memory."""
_DAMAGED = (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError)


class ParquetFiles:
    """`.parquet` files; nested fields are struct columns. Offsets of a cursor are row numbers.

    A row group that cannot be read costs its rows from the damage on: they are one bad record, and the rows of the next
    group have their true numbers.
    """

    endings: ClassVar[tuple[str, ...]] = ("*.parquet", "*.pq")
    resumable: ClassVar[bool] = True

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        self._config = config
        self._max_record_bytes = max_record_bytes

    def records(self, content: Content, selection: Selection) -> Iterator[Found | Rows]:
        """Every row of a file."""
        with content.file() as raw:
            if raw is None:
                yield bad_record(0, "broken-stream", f"{content.broken}; all of the file is lost")
                return
            try:
                parquet = pq.ParquetFile(raw, buffer_size=_BUFFER_BYTES)
                reader = RowReader(self._config, self._max_record_bytes, parquet.schema_arrow)
                group_rows = [max(0, parquet.metadata.row_group(i).num_rows) for i in range(parquet.num_row_groups)]
            except _DAMAGED as error:
                raise_if_it_may_heal(error)
                yield bad_record(0, "bad-parquet", f"not a readable Parquet file: {error}")
                return
            if reader.missing:
                message = f"{reader.missing}; all {parquet.metadata.num_rows} rows are lost"
                yield bad_record(0, "missing-column", message)
                return
            first = 0
            for group, rows in enumerate(group_rows):
                if selection.ends_before(first) or (selection.stop is not None and first >= selection.stop):
                    return
                if first + rows > selection.first:
                    yield from self._group(parquet, group, range(first, first + rows), reader, selection)
                first += rows

    def _group(
        self, parquet: pq.ParquetFile, group: int, rows: range, reader: RowReader, selection: Selection
    ) -> Iterator[Found | Rows]:
        number, end = rows.start, rows.stop
        batches: Iterator[pa.RecordBatch] | None = None
        while number < end:
            try:
                if batches is None:
                    size = _batch_rows(parquet.metadata.row_group(group))
                    batches = parquet.iter_batches(size, row_groups=[group], columns=reader.names, use_threads=False)
                batch = next(batches, None)
                if batch is not None:
                    reader.check(batch)  # damage may have left indices that lie outside of a dictionary
            except _DAMAGED as error:
                raise_if_it_may_heal(error)
                problem = f"is damaged ({error})"
            else:
                if batch is not None and batch.num_rows:
                    yield from reader.records(number, batch.slice(0, end - number), selection)
                    number += batch.num_rows
                    continue
                problem = "ends early"
            beyond = selection.ends_before(number) or (selection.stop is not None and number >= selection.stop)
            if selection.wants(number) and not beyond:
                selection.reached(end, end)
                message = f"row group {group} {problem}; its rows {number} to {end - 1} are lost"
                yield bad_record(number, "bad-parquet", message)
            return


def _batch_rows(group: pq.RowGroupMetaData) -> int:
    """How many rows have about `_BATCH_BYTES`."""
    # Of all columns: Arrow ends the process (26.0.1) if it is asked for one column's metadata and they are damaged.
    return int(min(BATCH_ROWS, max(1, _BATCH_BYTES * group.num_rows // max(1, group.total_byte_size))))
