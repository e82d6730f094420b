"""CSV and TSV: one row a record (RFC 4180: fields in quotes may hold delimiters, doubled quotes and line ends)."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import ClassVar

from corpus.config import SourceConfig
from corpus.formats.encoded import check_encoding, open_encoded
from corpus.formats.fields import wrong_text
from corpus.formats.jsonl import OverlongLine, split_lines
from corpus.sources.base import BadRecord, Found, Record, Selection, bad_record
from corpus.sources.streams import Content

_TABS = (".tsv", ".tab")
_PACKED = (".gz", ".zst", ".bz2", ".xz", ".lz4")


class DelimitedFiles:
    """`.csv`, `.tsv` and `.tab` files.

    A row goes on in the next line while its quotes are not closed. Where they never are, or where the row then has not
    as many fields as the first row of the file, its first line alone is a bad record and reading goes on with the
    second: a stray quote costs one line. Lines without any character are no records.
    """

    endings: ClassVar[tuple[str, ...]] = ("*.csv", "*.tsv", "*.tab")
    resumable: ClassVar[bool] = False

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        self._config = config
        self._encoding = check_encoding(config)
        self._max_record_bytes = max_record_bytes

    def records(self, content: Content, selection: Selection) -> Iterator[Found]:
        """Every row after the header."""
        chunks, codec, _ = open_encoded(content, self._encoding)
        lines = split_lines(content, self._max_record_bytes, chunks)
        rows = _Rows(lines, codec, self._delimiter(content.name), self._max_record_bytes)
        number = 0
        columns: _Columns | None = None
        for row in rows:
            if columns is None:
                if isinstance(row, BadRecord):
                    yield row._replace(message=f"first row: {row.message}; all rows are lost")
                    return
                columns = _Columns(self._config, row)
                rows.width = len(row)
                if columns.missing:
                    yield bad_record(0, "missing-column", f"{columns.missing}; all rows are lost")
                    return
                if self._config.header:
                    continue
            if selection.ends_before(number):
                return
            if selection.wants(number):
                selection.reached(number + 1)
                yield row._replace(record=number) if isinstance(row, BadRecord) else columns.record(number, row)
            number += 1
        if content.broken and not selection.ends_before(number):
            selection.reached(number + 1)
            yield bad_record(number, "broken-stream", f"{content.broken}; the rest of the file is lost")

    def _delimiter(self, name: str) -> str:
        if self._config.delimiter:
            return self._config.delimiter
        name = name.lower()
        for packed in _PACKED:
            name = name.removesuffix(packed)
        return "\t" if name.endswith(_TABS) else ","


class _Columns:
    """Where the fields of a record stand in a row."""

    def __init__(self, config: SourceConfig, first: list[str]) -> None:
        names = [name.strip() for name in first] if config.header else [str(index) for index in range(len(first))]
        self._name = config.text_field
        self._text = names.index(config.text_field) if config.text_field in names else -1
        self._url = names.index(config.url_field) if config.url_field in names else None
        self._date = names.index(config.date_field) if config.date_field in names else None
        self._meta = [(name, names.index(name)) for name in config.meta_fields if name in names]
        self.missing = "" if self._text >= 0 else f"no column {config.text_field!r}; there are {', '.join(names)}"

    def record(self, number: int, row: list[str]) -> Record | BadRecord:
        text = row[self._text]
        if not text or text.isspace():
            return bad_record(number, "empty-text", f"column {self._name!r} is empty", ",".join(row))
        if text == "\\N":  # what databases write for null
            return wrong_text(number, self._name, None, ",".join(row))
        return Record(
            number,
            text,
            (row[self._url] or None) if self._url is not None else None,
            (row[self._date] or None) if self._date is not None else None,
            {name: row[index] for name, index in self._meta} or None,
        )


class _Rows:
    """Rows of fields, or what is wrong with them. `width` is how many fields a row must have, once that is known."""

    def __init__(self, lines: Iterator[bytes | OverlongLine], codec: str, delimiter: str, max_bytes: int) -> None:
        self._lines = lines
        self._codec = codec
        self._delimiter = delimiter
        self._max_bytes = max_bytes
        self._again: deque[bytes | OverlongLine] = deque()
        self.width: int | None = None
        csv.field_size_limit(max(csv.field_size_limit(), max_bytes))

    def __iter__(self) -> Iterator[list[str] | BadRecord]:
        while (line := self._next()) is not None:
            if isinstance(line, OverlongLine):
                message = f"the line has {line.size} bytes, max_record_bytes is {self._max_bytes}"
                yield bad_record(0, "too-long", message, line.head)
            elif line.strip(b"\r"):
                yield self._row(line)

    def _next(self) -> bytes | OverlongLine | None:
        return self._again.popleft() if self._again else next(self._lines, None)

    def _row(self, first: bytes) -> list[str] | BadRecord:
        if first.count(b'"') % 2 == 0:
            return self._parse(first)
        lines, size = [first], len(first)
        while True:
            line = self._next()
            if line is None or isinstance(line, OverlongLine) or size + len(line) >= self._max_bytes:
                if line is not None:
                    lines.append(line)  # type: ignore[arg-type]
                problem = bad_record(0, "bad-row", "a quote is opened and not closed", first)
                break
            lines.append(line)
            size += len(line) + 1
            if line.count(b'"') % 2:
                found = self._parse(b"\n".join(lines))
                if not isinstance(found, BadRecord):
                    return found
                problem = found
                break
        # The lines after the first are read again as rows of their own.
        self._again.extendleft(reversed(lines[1:]))
        return problem._replace(excerpt=bad_record(0, "", "", first).excerpt)

    def _parse(self, data: bytes) -> list[str] | BadRecord:
        try:
            text = data.removesuffix(b"\r").decode(self._codec)
        except UnicodeDecodeError as error:
            message = f"{error}; `encoding: detect` or the name of the encoding may read it"
            return bad_record(0, "bad-utf8" if self._codec == "utf-8" else "bad-encoding", message, data)
        try:
            [row] = csv.reader([text], delimiter=self._delimiter, strict=True)
        except (csv.Error, ValueError) as error:
            return bad_record(0, "bad-row", f"not a row of fields: {error}", data)
        if self.width is not None and len(row) != self.width:
            return bad_record(0, "bad-row", f"{len(row)} fields where the first row has {self.width}", data)
        return row
