"""Rows of Arrow tables become records: what Parquet and Arrow files have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from corpus.buffers import buffers
from corpus.config import SourceConfig
from corpus.formats.fields import plain_string, wrong_text
from corpus.sources.base import BadRecord, Found, Record, Selection, bad_record
from corpus.sources.rows import Rows
from corpus.texts import blank_rows

BATCH_ROWS = 16_384
"""Rows of a table that are looked at together, at most."""
_OBJECT_ROWS = 256
"""Rows that are Python objects at a time."""

_BINARY = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}
"""Types of the same bytes that need not be UTF-8."""


class RowReader:
    """Makes records of the rows of batches with one schema.

    Parameters
    ----------
    schema
        The columns there are; `missing` says if the text column is not among them.
    """

    def __init__(self, config: SourceConfig, max_record_bytes: int, schema: pa.Schema) -> None:
        self._text_field = config.text_field
        self._max_record_bytes = max_record_bytes
        self._text = find_column(schema, config.text_field)
        self._url = find_column(schema, config.url_field)
        self._date = find_column(schema, config.date_field)
        self._meta = [(name, found) for name in config.meta_fields if (found := find_column(schema, name)) is not None]
        paths = [self._text, self._url, self._date, *(path for _, path in self._meta)]
        self.names = list(dict.fromkeys(path[0] for path in paths if path))
        """The top-level columns that are needed."""
        self.missing = "" if self._text else f"no column {config.text_field!r}; there are {', '.join(schema.names)}"

    def records(self, number: int, batch: pa.RecordBatch, selection: Selection) -> Iterator[Found | Rows]:
        """The wanted rows of a batch whose first row has this number."""
        for begin in range(0, batch.num_rows, BATCH_ROWS):
            first, some = number + begin, batch.slice(begin, BATCH_ROWS)
            if selection.stop is not None:
                some = some.slice(0, max(0, selection.stop - first))
            wanted = selection.mask(first, some.num_rows)
            if not wanted.all():
                some = some.filter(pa.array(wanted))
            numbers = first + np.flatnonzero(wanted)
            yield from self._rows(numbers, some, selection)

    def _rows(self, numbers: NDArray[np.int64], batch: pa.RecordBatch, selection: Selection) -> Iterator[Found | Rows]:
        """The records of these rows: those that are readable side by side, each of the others by itself."""
        assert self._text is not None
        texts = _checked_strings(leaf(batch, self._text), pa.large_string())
        if texts is None:
            yield from self._one_by_one(numbers, batch, selection)
            return
        odd = np.zeros(len(texts), np.bool_)
        odd[blank_rows(texts)] = True
        odd |= np.diff(buffers(texts)[0]) > self._max_record_bytes
        if texts.null_count:
            odd |= texts.is_null().to_numpy(zero_copy_only=False)
        metas = self._metas(batch)
        rows = Rows(
            numbers,
            numbers + 1,
            texts,
            self._strings(batch, self._url),
            self._strings(batch, self._date),
            metas if any(metas) else None,
        )
        begin = 0
        for end in [*np.flatnonzero(odd).tolist(), len(texts)]:
            if end > begin:
                selection.reached(int(numbers[end - 1]) + 1, int(numbers[end - 1]) + 1)
                yield rows.slice(begin, end)
            if end < len(texts):
                yield from self._one_by_one(numbers[end : end + 1], batch.slice(end, 1), selection)
            begin = end + 1

    def _strings(self, batch: pa.RecordBatch, path: list[str] | None) -> pa.StringArray | None:
        """The addresses or dates of rows."""
        if path is None:
            return None
        array = leaf(batch, path)
        strings = _checked_strings(array, pa.string())
        if strings is None:
            strings = pa.array([_string(value) for value in column(batch, path)], pa.string())
        elif pc.any(empty := pc.equal(strings, "")).as_py():
            strings = pc.if_else(empty, None, strings)
        return strings if strings.null_count < len(strings) else None

    def _metas(self, batch: pa.RecordBatch) -> list[dict[str, Any] | None]:
        columns = [(name, column(batch, path)) for name, path in self._meta]
        return [
            {name: values[row] for name, values in columns if values[row] is not None} or None
            for row in range(batch.num_rows if columns else 0)
        ]

    def _one_by_one(
        self, numbers: NDArray[np.int64], batch: pa.RecordBatch, selection: Selection
    ) -> Iterator[Found | Rows]:
        assert self._text is not None
        for begin in range(0, batch.num_rows, _OBJECT_ROWS):
            some = batch.slice(begin, _OBJECT_ROWS)
            urls, dates = (column(some, path) if path else [None] * len(some) for path in (self._url, self._date))
            metas = self._metas(some) or [None] * len(some)
            rows = zip(numbers[begin:].tolist(), column(some, self._text), urls, dates, metas, strict=False)
            for number, text, url, date, meta in rows:
                selection.reached(number + 1, number + 1)
                yield self._read(number, text, url, date, meta)

    def check(self, batch: pa.RecordBatch) -> None:
        """Raises `pa.ArrowInvalid` if the needed columns of a batch from outside are not safe to look into.

        Bytes that are not UTF-8 are left to `column`.
        """
        batch.validate()
        paths = [self._text, self._url, self._date, *(path for _, path in self._meta)]
        for path in paths:
            if path:
                _check(leaf(batch, path))

    def _read(self, number: int, text: Any, url: Any, date: Any, meta: dict[str, Any] | None) -> Record | BadRecord:
        name = self._text_field
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
        return Record(number, text, _string(url), _string(date), meta)


def raise_if_it_may_heal(error: Exception) -> None:
    """Arrow's own errors about damaged data carry no errno; errors of the disk or the network do, or have a class."""
    if isinstance(error, (ConnectionError, TimeoutError)) or getattr(error, "errno", None) is not None:
        raise error


def find_column(schema: pa.Schema, path: str | None) -> list[str] | None:
    """The names that lead to a column, [name] or [name, field, field…]; None if there is no such column.

    Where several columns have one name, it is the first of them.
    """
    if not path:
        return None
    if path in schema.names:
        return [path]
    steps = path.split(".")
    if steps[0] not in schema.names:
        return None
    found = schema.field(schema.names.index(steps[0])).type
    for step in steps[1:]:
        if not pa.types.is_struct(found) or found.get_field_index(step) < 0:
            return None
        found = found.field(step).type
    return steps


def _check(array: pa.Array) -> None:
    kind = array.type
    if pa.types.is_dictionary(kind):
        _check(array.dictionary)
        binary = array.dictionary.cast(_BINARY[kind.value_type]) if kind.value_type in _BINARY else array.dictionary
        pa.DictionaryArray.from_arrays(array.indices, binary).validate(full=True)
    else:
        (array.cast(_BINARY[kind]) if kind in _BINARY else array).validate(full=True)


def _checked_strings(array: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Strings, or binaries, as strings of this type; None if they are no strings, or if any is not UTF-8."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    binary = array.type if array.type in _BINARY.values() else _BINARY.get(array.type)
    try:
        return None if binary is None else array.cast(binary).cast(kind)
    except pa.ArrowInvalid:
        return None


def leaf(batch: pa.RecordBatch, path: list[str]) -> pa.Array:
    """The array of a column, or of a field in it."""
    array = batch.column(batch.schema.names.index(path[0]))
    return pc.struct_field(array, path[1:]) if len(path) > 1 else array


def column(batch: pa.RecordBatch, path: list[str]) -> list[Any]:
    """The values of a column; strings that are not UTF-8 come as bytes, times that Python has not as strings."""
    array = leaf(batch, path)
    try:
        values: list[Any] = array.to_pylist()
    except (ValueError, OverflowError, KeyError):  # UnicodeDecodeError is a ValueError; KeyError: no such time zone
        # Arrow does not check UTF-8 when it reads a file; dictionaries are unpacked, then values are looked at singly.
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
    except (ValueError, OverflowError, KeyError):
        try:
            return value.cast(pa.string()).as_py()
        except (pa.ArrowException, ValueError):
            return str(value.type)


def _string(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if value is not None and hasattr(value, "isoformat"):
        return str(value.isoformat())
    return plain_string(value)
