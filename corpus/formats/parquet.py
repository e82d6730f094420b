"""Parquet files: one row a record, read in batches of rows, only the columns that are needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.config import SourceConfig
from corpus.formats.tables import BATCH_ROWS, RowReader, raise_if_it_may_heal
from corpus.sources.base import Found, Selection, bad_record
from corpus.sources.streams import Content


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

    def records(self, content: Content, selection: Selection) -> Iterator[Found]:
        """Every row of a file."""
        with content.file() as raw:
            if raw is None:
                yield bad_record(0, "broken-stream", f"{content.broken}; all of the file is lost")
                return
            try:
                parquet = pq.ParquetFile(raw)
            except (pa.ArrowException, OSError) as error:
                raise_if_it_may_heal(error)
                yield bad_record(0, "bad-parquet", f"not a readable Parquet file: {error}")
                return
            reader = RowReader(self._config, self._max_record_bytes, parquet.schema_arrow)
            if reader.missing:
                message = f"{reader.missing}; all {parquet.metadata.num_rows} rows are lost"
                yield bad_record(0, "missing-column", message)
                return
            first = 0
            for group in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                end = first + rows
                if selection.ends_before(first) or (selection.stop is not None and first >= selection.stop):
                    return
                if end > selection.first:
                    yield from self._group(parquet, group, first, end, reader, selection)
                first = end

    def _group(
        self, parquet: pq.ParquetFile, group: int, first: int, end: int, reader: RowReader, selection: Selection
    ) -> Iterator[Found]:
        number = first
        batches: Iterator[pa.RecordBatch] | None = None
        while number < end:
            try:
                if batches is None:
                    batches = parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=reader.names)
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise_if_it_may_heal(error)
                message = f"row group {group} is damaged ({error}); its rows {number} to {end - 1} are lost"
            else:
                if batch is not None and batch.num_rows:
                    yield from reader.records(number, batch, selection)
                    number += batch.num_rows
                    continue
                message = f"row group {group} ends early; its rows {number} to {end - 1} are lost"
            if selection.wants(number) and not selection.ends_before(number):
                selection.reached(end, end)
                yield bad_record(number, "bad-parquet", message)
            return
