"""JSON files of any layout: an array of records, an array deep inside, one object, or several one after the other.

Elements are found by their brackets at the speed of a regular expression and parsed one by one, so that memory holds
one element whatever the size of the file, and a bad one costs itself alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from corpus.config import SourceConfig
from corpus.formats.fields import ObjectReader
from corpus.formats.jsonl import parse_json
from corpus.sources.base import BadRecord, Found, Record, Selection, bad_record
from corpus.sources.streams import Content

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING_END = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
# A string that is whole, a bracket, or the quote of a string whose end is not there yet.
_NESTING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}"]', re.DOTALL)
_SCALAR = re.compile(rb"[^ \t\r\n,\[\]{}\":]+")
_BOM = b"\xef\xbb\xbf"
_DEPTH = 1000
"""Brackets that may be open at once in what lies around the records."""


class _EndedError(Exception):
    """The content ends where something should follow."""


class _BadLayoutError(Exception):
    """Something else stands where JSON has a value, a comma or a bracket."""


class JsonArrays:
    """`.json` files. An element that is a string is a record whose text it is.

    An element that does not parse is one bad record. Where its brackets do not close, or close too late, reading goes
    on at the next line that begins with a bracket and is indented as the element was, if there is one.
    """

    endings: ClassVar[tuple[str, ...]] = ("*.json",)
    resumable: ClassVar[bool] = False

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        self._path = config.records_field.split(".") if config.records_field else []
        self._max_record_bytes = max_record_bytes
        self._objects = ObjectReader(config)

    def records(self, content: Content, selection: Selection) -> Iterator[Found]:
        """Every element."""
        scanner = _Scanner(content, self._max_record_bytes)
        number = 0
        for found in self._elements(scanner):
            if selection.ends_before(number):
                return
            if selection.wants(number):
                selection.reached(number + 1)
                yield self._read(number, found) if isinstance(found, bytes) else found._replace(record=number)
            number += 1
        if content.broken and not selection.ends_before(number):
            selection.reached(number + 1)
            yield bad_record(number, "broken-stream", f"{content.broken}; the rest of the file is lost")

    def _elements(self, scanner: _Scanner) -> Iterator[bytes | BadRecord]:
        """The elements as they stand in the file; what belongs to a broken tail is left to the caller."""
        scanner.skip_mark()
        damaged = False
        while first := scanner.peek():
            begin = scanner.position()
            if damaged and first in b",]}":  # what is left over of the brackets around a damaged place
                scanner.take(first)
                continue
            try:
                yield from self._walk(scanner, self._path, 0)
            except _EndedError:
                if not scanner.broken:
                    yield bad_record(0, "bad-json", f"the JSON that begins at byte {begin} is not closed")
                return
            except _BadLayoutError as error:
                yield bad_record(0, "bad-json", str(error), scanner.rest(200))
                scanner.skip_stray()
                damaged = True

    def _walk(self, scanner: _Scanner, path: list[str], depth: int) -> Iterator[bytes | BadRecord]:
        first = scanner.peek()
        if depth > _DEPTH:
            raise _BadLayoutError(f"more than {_DEPTH} brackets are open at byte {scanner.position()}")
        if first == b"[":
            scanner.take(b"[")
            while scanner.peek() != b"]":
                yield from self._walk(scanner, path, depth + 1) if path else self._element(scanner)
                if scanner.peek() == b",":
                    scanner.take(b",")
                elif scanner.peek() != b"]":
                    raise _BadLayoutError(f"a comma or ] is missing at byte {scanner.position()}")
            scanner.take(b"]")
        elif not path:
            if not depth and first not in b'{"':
                raise _BadLayoutError(f"no array or object begins at byte {scanner.position()}")
            yield from self._element(scanner)
        elif first == b"{":
            scanner.take(b"{")
            while scanner.peek() != b"}":
                key = parse_json(0, scanner.string())
                scanner.take(b":")
                if key == path[0]:
                    yield from self._walk(scanner, path[1:], depth + 1)
                else:
                    scanner.pass_over()
                if scanner.peek() == b",":
                    scanner.take(b",")
                elif scanner.peek() != b"}":
                    raise _BadLayoutError(f"a comma or }} is missing at byte {scanner.position()}")
            scanner.take(b"}")
        else:
            scanner.pass_over()

    def _element(self, scanner: _Scanner) -> Iterator[bytes | BadRecord]:
        begin, indent = scanner.position(), scanner.indent()
        element, size = scanner.value()
        if size > self._max_record_bytes:
            message = f"the element at byte {begin} has {size} bytes, max_record_bytes is {self._max_record_bytes}"
            yield bad_record(0, "too-long", message, element)
            return
        closed = scanner.closed
        if closed and not isinstance(parse_json(0, element), BadRecord):
            yield element
            return
        again = re.compile(rb"\n" + re.escape(indent) + rb"[{\[]").search(element, 1) if indent is not None else None
        if again is not None:
            scanner.back(len(element) - again.start() - 1)
            yield bad_record(0, "bad-json", f"the element at byte {begin} is damaged", element[: again.start()])
            # The comma before the element that follows belongs to the damaged one.
            yield from self._element(scanner)
        elif closed:
            yield element
        else:
            raise _EndedError

    def _read(self, number: int, element: bytes) -> Record | BadRecord:
        value: Any = parse_json(number, element)
        if isinstance(value, BadRecord):
            return value
        if isinstance(value, dict):
            return self._objects.record(number, value, element)
        if isinstance(value, str):
            if not value or value.isspace():
                return bad_record(number, "empty-text", "the element is an empty string", element)
            return Record(number, value)
        message = f"an object or a string is expected, this element is a {type(value).__name__}"
        return bad_record(number, "not-an-object", message, element)


def _follow(data: bytes, at: int, depth: int, in_string: bool) -> tuple[int, int, bool]:
    """Follow a value from `at` to its end, or to the end of the data; returns where that is, and what is still open."""
    while True:
        if in_string:
            end = _STRING_END.match(data, at)
            if end is None:
                escapes = len(data) - len(data[at:].rstrip(b"\\")) - at
                return len(data) - escapes % 2, depth, True
            at, in_string = end.end(), False
            if not depth:
                return at, 0, False
        for token in _NESTING.finditer(data, at):
            byte = token.group()
            at = token.end()
            if byte == b'"':
                in_string = True
                break
            if byte in b"[{":
                depth += 1
            elif byte in b"]}":
                depth -= 1
                if not depth:
                    return at, 0, False
        else:
            return len(data), depth, False


class _Scanner:
    """Goes through the bytes of a content, holding no more than one value."""

    def __init__(self, content: Content, max_value_bytes: int) -> None:
        self._content = content
        self._chunks = iter(content)
        self._max = max_value_bytes
        self._data = b""
        self._at = 0
        self._before = 0
        self._line = b""
        self.closed = True

    @property
    def broken(self) -> str:
        return self._content.broken

    def position(self) -> int:
        """The byte that comes next."""
        return self._before + self._at

    def rest(self, size: int) -> bytes:
        return self._data[self._at : self._at + size]

    def back(self, size: int) -> None:
        """Go back by so many bytes of the value that was read last."""
        self._at -= size

    def indent(self) -> bytes | None:
        """The white space before the next value, if it is the first in its line, else None."""
        begin = self._data.rfind(b"\n", 0, self._at)
        if begin < 0 and self._before:
            return None
        space = self._data[begin + 1 : self._at]
        return None if space.strip(b" \t\r") else space

    def _more(self, keep: int) -> bool:
        """Get another chunk; bytes before `keep` (and the line it is in) are given up. False at the end."""
        chunk = next(self._chunks, b"")
        if not chunk:
            return False
        keep = max(self._data.rfind(b"\n", 0, keep), keep - 4096, 0)
        self._data = self._data[keep:] + chunk
        self._before += keep
        self._at -= keep
        return True

    def skip_mark(self) -> None:
        while len(self._data) < len(_BOM) and self._more(0):
            pass
        if self._data.startswith(_BOM):
            self._at = len(_BOM)

    def peek(self) -> bytes:
        """The next byte that is no white space; b"" at the end."""
        while True:
            self._at = _SPACE.match(self._data, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._more(self._at):
                return b""

    def take(self, byte: bytes) -> None:
        """Pass over the next byte, which must be this one."""
        found = self.peek()
        if not found:
            raise _EndedError
        if found != byte:
            raise _BadLayoutError(f"{byte.decode()} is expected at byte {self.position()}")
        self._at += 1

    def skip_stray(self) -> None:
        """Pass over what cannot begin a value, so that reading goes on with the next bracket that opens."""
        while self.peek():
            opening = re.compile(rb"[{\[]").search(self._data, self._at)
            if opening is not None:
                self._at = opening.start()
                return
            self._at = len(self._data)

    def string(self) -> bytes:
        """The string that comes next, with its quotes."""
        if self.peek() != b'"':
            if not self.peek():
                raise _EndedError
            raise _BadLayoutError(f"a string is expected at byte {self.position()}")
        return self.value()[0]

    def pass_over(self) -> None:
        """Pass over the value that comes next without holding it."""
        limit, self._max = self._max, 0
        try:
            self.value()
        finally:
            self._max = limit
        if not self.closed:
            raise _EndedError

    def value(self) -> tuple[bytes, int]:
        """The value that comes next and its size; of one that is too long, the beginning.

        `closed` is false afterwards if the content ends before the value does.
        """
        first = self.peek()
        if not first:
            raise _EndedError
        self.closed = True
        if first not in b'[{"':
            return self._scalar()
        in_string = first == b'"'
        at, depth = self._at + in_string, 0  # everything before `at` has been looked at
        head, given_up = b"", 0
        while True:
            at, depth, in_string = _follow(self._data, at, depth, in_string)
            if not depth and not in_string:
                break
            if given_up + at - self._at > self._max:
                head = head or self._data[self._at : self._at + 200]
                given_up += at - self._at
                self._at = at
            before = self._before
            if not self._more(self._at):
                self.closed = False
                at = len(self._data)
                break
            at -= self._before - before
        value, size = self._data[self._at : at], given_up + at - self._at
        self._at = at
        return head or value, size

    def _scalar(self) -> tuple[bytes, int]:
        while True:
            found = _SCALAR.match(self._data, self._at)
            if found is None:
                raise _BadLayoutError(f"no value begins at byte {self.position()}")
            if found.end() < len(self._data) or not self._more(self._at):
                found = _SCALAR.match(self._data, self._at)
                assert found is not None
                self._at = found.end()
                return found.group(), len(found.group())
            if len(self._data) - self._at > max(self._max, 1 << 20):
                raise _BadLayoutError(f"no value begins at byte {self.position()}")
