"""Arrow IPC files, streams and Feather files (version 2): one row a record, a record batch in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa

from corpus.config import SourceConfig
from corpus.formats.tables import RowReader, raise_if_it_may_heal
from corpus.sources.base import Found, Selection, bad_record
from corpus.sources.streams import Content

_FILE_MAGIC = b"ARROW1"
_DAMAGED = (pa.ArrowException, OSError, MemoryError, OverflowError)


class ArrowFiles:
    """`.arrow`, `.feather` and `.ipc` files; nested fields are struct columns. Offsets of a cursor are row numbers.

    A record batch of a file that cannot be read is one bad record; numbers of the rows after it do not count its rows,
    which are unknown. A damaged stream is lost from there on.
    """

    endings: ClassVar[tuple[str, ...]] = ("*.arrow", "*.feather", "*.ipc", "*.arrows")
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
                schema, batches = _open(raw)
            except _DAMAGED as error:
                raise_if_it_may_heal(error)
                yield bad_record(0, "bad-arrow", f"not a readable Arrow file: {error}")
                return
            reader = RowReader(self._config, self._max_record_bytes, schema)
            if reader.missing:
                yield bad_record(0, "missing-column", f"{reader.missing}; all rows are lost")
                return
            number = 0
            for batch in batches:
                if selection.ends_before(number) or (selection.stop is not None and number >= selection.stop):
                    return
                if isinstance(batch, str):
                    if selection.wants(number):
                        selection.reached(number + 1, number + 1)
                        yield bad_record(number, "bad-arrow", batch)
                    number += 1
                    continue
                if number + batch.num_rows > selection.first:
                    yield from reader.records(number, batch, selection)
                number += batch.num_rows


def _open(raw: BinaryIO) -> tuple[pa.Schema, Iterator[pa.RecordBatch | str]]:
    """The schema, and the batches; a string says what is wrong with one."""
    head = raw.read(len(_FILE_MAGIC))
    raw.seek(0)
    if head == _FILE_MAGIC:
        file = pa.ipc.open_file(raw)
        return file.schema, _file_batches(file)
    stream = pa.ipc.open_stream(raw)
    return stream.schema, _stream_batches(stream)


def _refuse_unsafe(batch: pa.RecordBatch) -> None:
    """ArrowInvalid if reading a damaged batch could leave its buffers. Bad UTF-8 alone is left to the single rows."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        for column in batch.columns:
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                column = column.view(pa.binary() if pa.types.is_string(column.type) else pa.large_binary())
            column.validate(full=True)


def _file_batches(file: Any) -> Iterator[pa.RecordBatch | str]:
    for number in range(file.num_record_batches):
        try:
            batch = file.get_batch(number)
            _refuse_unsafe(batch)
        except _DAMAGED as error:
            raise_if_it_may_heal(error) if isinstance(error, OSError) else None
            yield f"record batch {number} of {file.num_record_batches} is damaged ({error}); its rows are lost"
        else:
            yield batch


def _stream_batches(stream: Any) -> Iterator[pa.RecordBatch | str]:
    number = 0
    while True:
        try:
            batch = stream.read_next_batch()
            _refuse_unsafe(batch)
        except StopIteration:
            return
        except _DAMAGED as error:
            raise_if_it_may_heal(error) if isinstance(error, OSError) else None
            yield f"record batch {number} is damaged ({error}); it and the rest of the stream are lost"
            return
        yield batch
        number += 1
