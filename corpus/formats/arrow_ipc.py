"""Arrow IPC files, streams and Feather files (version 2): one row a record, a record batch in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa

from corpus.config import SourceConfig
from corpus.formats.tables import RowReader, raise_if_it_may_heal
from corpus.sources.base import Found, Selection, bad_record
from corpus.sources.rows import Rows
from corpus.sources.streams import Content

_FILE_MAGIC = b"ARROW1"
_FEATHER_1_MAGIC = b"FEA1"
_STREAM_BEGIN = 8
"""Where the stream begins that a file holds: behind the magic, padded (Arrow columnar format, IPC file format)."""
_DAMAGED = (pa.ArrowException, OSError, MemoryError, OverflowError, UnicodeDecodeError)


class ArrowFiles:
    """`.arrow`, `.feather` and `.ipc` files; nested fields are struct columns. Offsets of a cursor are row numbers.

    A record batch is in memory as a whole, only the columns that are needed. In a file a batch that cannot be read is
    one bad record with one number, since nobody knows how many rows it had; in a stream, or in a file whose end is
    damaged, everything from there on is lost.
    """

    endings: ClassVar[tuple[str, ...]] = ("*.arrow", "*.feather", "*.ipc", "*.arrows")
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
                open_batches, problem = _open(raw)
                schema = open_batches(None).schema
                reader = RowReader(self._config, self._max_record_bytes, schema)
                wanted = [schema.names.index(name) for name in reader.names]
                batches = open_batches(pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False))
            except _DAMAGED as error:
                raise_if_it_may_heal(error)
                yield bad_record(0, "bad-arrow", f"not a readable Arrow file: {error}")
                return
            if reader.missing:
                yield bad_record(0, "missing-column", f"{reader.missing}; all rows are lost")
                return
            number = 0
            for batch in _read(batches, reader, problem):
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


def _open(raw: BinaryIO) -> tuple[Callable[[pa.ipc.IpcReadOptions | None], Any], str]:
    """A function that opens the batches of a file or stream, and what is wrong with its end."""
    head, begin, problem = raw.read(_STREAM_BEGIN), 0, ""
    if head.startswith(_FEATHER_1_MAGIC):
        raise pa.ArrowInvalid("this is Feather version 1; pyarrow.feather reads it and writes version 2")
    if head.startswith(_FILE_MAGIC):
        raw.seek(0)
        try:
            pa.ipc.open_file(raw)
        except _DAMAGED as error:
            raise_if_it_may_heal(error)
            begin, problem = _STREAM_BEGIN, f"the file has no readable end ({error}); what may have followed is lost"
        else:
            return lambda options: pa.ipc.open_file(raw, options=options), ""

    def open_stream(options: pa.ipc.IpcReadOptions | None) -> Any:
        raw.seek(begin)
        return pa.ipc.open_stream(raw, options=options)

    return open_stream, problem


def _read(batches: Any, reader: RowReader, problem: str) -> Iterator[pa.RecordBatch | str]:
    """The batches, and, as strings, what is wrong with those that cannot be read."""
    is_file = hasattr(batches, "get_batch")
    count, number = batches.num_record_batches if is_file else None, 0
    while number != count:
        try:
            batch = batches.get_batch(number) if is_file else batches.read_next_batch()
            reader.check(batch)
        except StopIteration:
            break
        except _DAMAGED as error:
            raise_if_it_may_heal(error)
            if not is_file:
                yield f"record batch {number} is damaged ({error}); it and all rows after it are lost"
                return
            yield f"record batch {number} of {count} is damaged ({error}); its rows are lost"
        else:
            yield batch
        number += 1
    if problem:
        yield problem
