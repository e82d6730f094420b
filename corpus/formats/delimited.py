"""CSV and TSV: one row a record (RFC 4180: fields in quotes may hold delimiters, doubled quotes and line ends)."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import ClassVar

from corpus.config import SourceConfig
from corpus.formats.encoded import ESCAPED, check_encoding, open_encoded, undecodable
from corpus.formats.fields import wrong_text
from corpus.formats.jsonl import OverlongLine, split_lines
from corpus.sources.base import BadRecord, Found, Record, Selection, bad_record
from corpus.sources.streams import SUFFIXES, Content

_TABS = tuple(ending + packed for ending in (".tsv", ".tab") for packed in SUFFIXES)
_NULL = "\\N"
"""What databases write for a null (MySQL, PostgreSQL, Hive)."""

# The module's own limit, for the whole process, is 128 KiB; here rows are bounded before it sees them.
csv.field_size_limit((1 << 31) - 1)


class DelimitedFiles:
    """`.csv`, `.tsv` and `.tab` files. Lines without any character are no records.

    A quote begins a field only right behind a delimiter or a line end; elsewhere it is a character like others. A row
    goes on in the next line while such a field is open. Where it is not closed within `max_record_bytes`, where
    something else than a delimiter follows the closing quote, or where such a row of several lines has not as many
    fields as the first row, then its first line alone is a bad record and reading goes on with the second line: a stray
    quote costs one line. Between tabs quotes are often no quotes: there that first line is read without them, and is a
    good row if it has as many fields as the first.
    """

    endings: ClassVar[tuple[str, ...]] = ("*.csv", "*.tsv", "*.tab")
    resumable: ClassVar[bool] = False

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        if config.delimiter in ('"', "\r", "\n"):
            raise ValueError(f"source {config.name!r}, delimiter: {config.delimiter!r} cannot stand between fields")
        self._config = config
        self._encoding = check_encoding(config)
        self._max_record_bytes = max_record_bytes

    def records(self, content: Content, selection: Selection) -> Iterator[Found]:
        """Every row after the header."""
        chunks, codec, _ = open_encoded(content, self._encoding)
        lines = split_lines(content, self._max_record_bytes, chunks)
        delimiter = self._config.delimiter or ("\t" if content.name.lower().endswith(_TABS) else ",")
        rows = iter(_Rows(lines, codec, delimiter, self._max_record_bytes, self._config.header))
        number = 0
        columns: _Columns | None = None
        for row in rows:
            if columns is None:
                if isinstance(row, list):
                    columns = _Columns(self._config, row)
                problem = row if isinstance(row, BadRecord) else columns and columns.problem
                if problem and (columns or self._config.header):
                    if selection.wants(number) and not selection.ends_before(number):
                        selection.reached(number + 1)
                        message = f"{problem.message}; the rows from here on are lost"
                        yield problem._replace(record=number, message=message)
                    return
                if self._config.header:
                    continue
            if selection.ends_before(number):
                return
            if selection.wants(number):
                selection.reached(number + 1)
                if isinstance(row, BadRecord):
                    yield row._replace(record=number)
                elif columns is not None:
                    yield columns.record(number, row)
            number += 1
        if content.broken and not selection.ends_before(number):
            selection.reached(number + 1)
            yield bad_record(number, "broken-stream", f"{content.broken}; the rest of the file is lost")


class _Columns:
    """Where the fields of a record stand in a row. `problem` says that the text is nowhere."""

    def __init__(self, config: SourceConfig, first: list[str]) -> None:
        names = [name.strip() for name in first] if config.header else [str(index) for index in range(len(first))]

        def find(name: str | None) -> int | None:
            return names.index(name) if name in names else None

        text = find(config.text_field)
        self._name = config.text_field
        self._text = 0 if text is None else text
        self._url = find(config.url_field)
        self._date = find(config.date_field)
        self._meta = [(name, names.index(name)) for name in config.meta_fields if name in names]
        self.problem: BadRecord | None = None
        if text is None:
            message = f"no column {config.text_field!r}; there are {', '.join(names)}"
            self.problem = bad_record(0, "missing-column", message)

    def record(self, number: int, row: list[str]) -> Record | BadRecord:
        text = row[self._text]
        if not text or text.isspace():
            return bad_record(number, "empty-text", f"column {self._name!r} is empty", ",".join(row))
        if text == _NULL:
            return wrong_text(number, self._name, None, ",".join(row))
        return Record(
            number,
            text,
            None if self._url is None else self._value(row[self._url]),
            None if self._date is None else self._value(row[self._date]),
            {name: row[index] for name, index in self._meta} or None,
        )

    @staticmethod
    def _value(field: str) -> str | None:
        return None if not field or field == _NULL else field


class _UnclosedError(Exception):
    """A row does not end where it must."""


class _Rows:
    """Rows of fields, or what is wrong with them. The first good row says how many fields a row has."""

    def __init__(
        self, lines: Iterator[bytes | OverlongLine], codec: str, delimiter: str, max_bytes: int, header: bool
    ) -> None:
        self._lines = lines
        self._codec = codec
        self._delimiter = delimiter
        self._max_bytes = max_bytes
        self._header = header
        self._again: deque[bytes | OverlongLine] = deque()
        # What has been taken of the row that is being read: its lines, whether they could be decoded.
        self._taken: list[bytes | OverlongLine] = []
        self._damaged = False
        self._width: int | None = None

    def __iter__(self) -> Iterator[list[str] | BadRecord]:
        taken, width = self._taken, -1
        while True:
            reader = csv.reader(self._texts(), delimiter=self._delimiter, strict=True)
            try:
                for row in reader:
                    if len(row) == width and not self._damaged:
                        yield row
                        taken.clear()
                    elif row:
                        yield self._unusual(row)
                        width = -1 if self._width is None else self._width
                    else:
                        taken.clear()
                return
            except (csv.Error, _UnclosedError) as error:
                yield self._first_line_alone(error)
                width = -1 if self._width is None else self._width

    def _texts(self) -> Iterator[str]:
        """Lines as the reader asks for them: one to begin with, and more where it is inside a quoted field."""
        again, lines, taken, codec = self._again, self._lines, self._taken, self._codec
        size = 0
        while (line := again.popleft() if again else next(lines, None)) is not None:
            size = 0 if not taken else size
            size += line.size + 1 if isinstance(line, OverlongLine) else len(line) + 1
            taken.append(line)
            if isinstance(line, OverlongLine) or (len(taken) > 1 and size > self._max_bytes):
                raise _UnclosedError(f"a quote is opened and not closed within {self._max_bytes} bytes")
            try:
                text = line.decode(codec)
            except UnicodeDecodeError:
                text = line.decode(codec, ESCAPED)
                self._damaged = True
            yield text + "\n"

    def _unusual(self, row: list[str]) -> list[str] | BadRecord:
        """A row that has been read, is damaged or has not the expected number of fields, or is the first."""
        if self._width is not None and len(row) != self._width:
            return self._first_line_alone(f"{len(row)} fields where the first row has {self._width}")
        found: list[str] | BadRecord = row
        if self._width is None and (self._header or not self._damaged):
            self._width = len(row)  # a header may hold bytes of another encoding where the names asked for do not
        elif self._damaged:
            data = b"\n".join(line for line in self._taken if isinstance(line, bytes))
            found = self._undecodable(data)
        self._taken.clear()
        self._damaged = False
        return found

    def _first_line_alone(self, problem: object) -> list[str] | BadRecord:
        """What becomes of the first line that was taken; the others are read again as rows of their own."""
        first, *others = self._taken
        self._again.extendleft(reversed(others))
        self._taken.clear()
        self._damaged = False
        if isinstance(first, OverlongLine):
            message = f"the line has {first.size} bytes, max_record_bytes is {self._max_bytes}"
            return bad_record(0, "too-long", message, first.head)
        try:
            text = first.decode(self._codec)
        except UnicodeDecodeError:
            return self._undecodable(first)
        row = text.removesuffix("\r").split("\t")
        if self._delimiter == "\t" and len(row) == (self._width or max(2, len(row))) and "\r" not in text[:-1]:
            self._width = len(row)
            return row
        return bad_record(0, "bad-row", f"not a row of fields: {problem}", first)

    def _undecodable(self, data: bytes) -> BadRecord:
        problem: object = "a byte cannot be decoded"
        try:
            data.decode(self._codec)
        except UnicodeDecodeError as error:
            problem = error
        return undecodable(0, problem, data, self._codec)
