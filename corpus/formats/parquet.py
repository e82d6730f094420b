"""Parquet files: one row a record, read in batches of rows, only the columns that are needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.config import SourceConfig
from corpus.formats.jsonl import plain_string, wrong_text
from corpus.sources.base import BadRecord, Found, Record, Selection, bad_record
from corpus.sources.streams import Content

_BATCH_ROWS = 256


class ParquetFiles:
    """`.parquet` files; nested fields are struct columns. Offsets of a cursor are row numbers."""

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
                _raise_if_it_may_heal(error)
                yield bad_record(0, "bad-parquet", f"not a readable Parquet file: {error}")
                return
            yield from self._rows(parquet, selection)

    def _rows(self, parquet: pq.ParquetFile, selection: Selection) -> Iterator[Found]:
        config, schema = self._config, parquet.schema_arrow
        text_path = find_column(schema, config.text_field)
        if text_path is None:
            rows = parquet.metadata.num_rows
            message = f"no column {config.text_field!r}: all {rows} rows are lost; there are {', '.join(schema.names)}"
            yield bad_record(0, "missing-column", message)
            return
        url_path = find_column(schema, config.url_field)
        date_path = find_column(schema, config.date_field)
        meta_paths = [(name, found) for name in config.meta_fields if (found := find_column(schema, name)) is not None]
        paths = [text_path, *(path for path in (url_path, date_path) if path), *(path for _, path in meta_paths)]
        names = list(dict.fromkeys(path[0] for path in paths))
        number = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if number + rows <= selection.first:
                number += rows
                continue
            batches: Iterator[pa.RecordBatch] | None = None
            while True:
                try:
                    if batches is None:
                        batches = parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names)
                    batch = next(batches, None)
                except (pa.ArrowException, OSError) as error:
                    _raise_if_it_may_heal(error)
                    yield self._tail(number, parquet, error)
                    return
                if batch is None:
                    break
                texts = column(batch, text_path)
                urls = column(batch, url_path) if url_path else [None] * len(texts)
                dates = column(batch, date_path) if date_path else [None] * len(texts)
                metas = [(name, column(batch, path)) for name, path in meta_paths]
                for row, text in enumerate(texts):
                    if selection.ends_before(number) or (selection.stop is not None and number >= selection.stop):
                        return
                    if selection.wants(number):
                        selection.reached(number + 1, number + 1)
                        meta = {name: values[row] for name, values in metas if values[row] is not None}
                        yield self._read(number, text, urls[row], dates[row], meta)
                    number += 1

    def _read(self, number: int, text: Any, url: Any, date: Any, meta: dict[str, Any]) -> Record | BadRecord:
        name = self._config.text_field
        if isinstance(text, bytes):
            try:
                text = text.decode()
            except UnicodeDecodeError as error:
                return bad_record(number, "bad-utf8", f"column {name!r}: {error}", text)
        if not isinstance(text, str):
            return wrong_text(number, name, text, str(meta or ""))
        if not text or text.isspace():
            return bad_record(number, "empty-text", f"column {name!r} is empty", str(meta or ""))
        # Four bytes a character at most: only texts near the limit are encoded to be measured.
        if len(text) * 4 > self._max_record_bytes and len(text.encode("utf-8", "replace")) > self._max_record_bytes:
            return bad_record(number, "too-long", f"longer than max_record_bytes ({self._max_record_bytes})", text)
        return Record(number, text, _string(url), _string(date), meta or None)

    def _tail(self, number: int, parquet: pq.ParquetFile, error: Exception) -> BadRecord:
        lost = parquet.metadata.num_rows - number
        return bad_record(number, "bad-parquet", f"{error}; {lost} of {parquet.metadata.num_rows} rows are lost")


def _raise_if_it_may_heal(error: Exception) -> None:
    """Arrow's own errors about damaged data carry no errno; errors of the disk or the network do, or have a class."""
    if isinstance(error, (ConnectionError, TimeoutError)) or getattr(error, "errno", None) is not None:
        raise error


def find_column(schema: pa.Schema, path: str | None) -> list[str] | None:
    """The names that lead to a column, [name] or [name, field, field…]; None if there is no such column."""
    if not path:
        return None
    if path in schema.names:
        return [path]
    steps = path.split(".")
    if steps[0] not in schema.names:
        return None
    found = schema.field(steps[0]).type
    for step in steps[1:]:
        if not pa.types.is_struct(found) or found.get_field_index(step) < 0:
            return None
        found = found.field(step).type
    return steps


def column(batch: pa.RecordBatch, path: list[str]) -> list[Any]:
    """The values of a column; strings that are not UTF-8 come as bytes."""
    import pyarrow.compute as pc

    array = batch.column(path[0])
    if len(path) > 1:
        array = pc.struct_field(array, path[1:])
    try:
        values: list[Any] = array.to_pylist()
    except UnicodeDecodeError:
        # Arrow does not check UTF-8 when it reads a file; dictionaries are unpacked, then bytes are looked at singly.
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        return [_lenient(value) for value in array]
    return values


def _lenient(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        buffer = getattr(value, "as_buffer", None)
        return buffer().to_pybytes() if buffer else str(value.type)


def _string(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if value is not None and hasattr(value, "isoformat"):
        return str(value.isoformat())
    return plain_string(value)
