"""JSON files of any layout: an array of records, an array deep inside, one object, or several one after the other.

Elements are found by their brackets at the speed of a regular expression and parsed one by one, so that memory holds
one element whatever the size of the file, and a bad one costs itself alone.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Any, ClassVar, NamedTuple

import orjson

from corpus.config import SourceConfig
from corpus.formats.fields import ObjectReader
from corpus.formats.jsonl import parse_json
from corpus.sources.base import EXCERPT_CHARACTERS, BadRecord, Found, Record, Selection, bad_record
from corpus.sources.streams import Content

_SPACE = re.compile(rb"[ \t\r\n]*")
# The rest of a string behind its first quote. The first way knows only quotes that are certainly escaped (by one
# backslash) or certainly not (by none), which the regular expression engine finds four times as fast.
_REST_OF_STRING = rb"""(?:[^"]*+(?:(?<!\\\\)(?<=\\)"[^"]*+)*+(?<!\\)"|[^"\\]*+(?:\\.[^"\\]*+)*+")"""
_STRING = b'"' + _REST_OF_STRING
_STRING_END = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# A string that is whole, an object without brackets inside, a bracket, or the quote of a string whose end is not there.
_NESTING = re.compile(
    _STRING + rb'|\{[^"{}\[\]]*+(?:' + _STRING + rb'[^"{}\[\]]*+)*+\}|[\[\]{}"]',
    re.DOTALL,
)
_SCALAR = re.compile(rb"[^ \t\r\n,\[\]{}\":]+")
_FIRST_KEY = re.compile(rb"\{[ \t\r\n]*" + _STRING + rb"[ \t\r\n]*:", re.DOTALL)
_BOM = b"\xef\xbb\xbf"
_ALL_ASCII = bytes(range(0x80)) + b"?" * 0x80
_BRACKETS = re.compile(rb"[{\[]")
_KEPT_BEFORE = 1 << 12
"""Bytes before a value that are kept for its indentation; as many may be the first key of an element."""
_DEPTH = 500
"""Brackets that may be open at once around the records."""


class _EndedError(Exception):
    """The content ends where something should follow."""


class _ReportedError(_EndedError):
    """The same, and a bad record said so."""


class _BadLayoutError(Exception):
    """Something else stands where JSON has a value, a comma or a bracket."""


class _Element(NamedTuple):
    value: Any
    data: bytes


class JsonArrays:
    """`.json` files. An element that is a string is a record whose text it is, unless objects came before it.

    With `records_field` a.b the records are the elements of the array b inside a, or the object there; lists on the way
    are gone through: each of their objects may have a b.

    An element that does not parse is one bad record. Where its end is lost with it, reading goes on at what looks like
    the next element: a line that is indented as it was and begins with a bracket or a quote, or an object behind a
    comma with the same first key. An element that is longer than `max_record_bytes` is passed over.
    """

    endings: ClassVar[tuple[str, ...]] = ("*.json",)
    resumable: ClassVar[bool] = False

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        self._path = config.records_field.split(".") if config.records_field else []
        if not all(self._path):
            raise ValueError(f"source {config.name!r}, records_field: {config.records_field!r} has an empty step")
        self._max_record_bytes = max_record_bytes
        self._objects = ObjectReader(config)

    def records(self, content: Content, selection: Selection) -> Iterator[Found]:
        """Every element."""
        number = 0
        for found in self._elements(_Scanner(content, self._max_record_bytes)):
            if selection.ends_before(number):
                return
            if selection.wants(number):
                selection.reached(number + 1)
                yield self._read(number, found) if isinstance(found, _Element) else found._replace(record=number)
            number += 1
        if content.broken and not selection.ends_before(number):
            selection.reached(number + 1)
            yield bad_record(number, "broken-stream", f"{content.broken}; the rest of the file is lost")

    def _elements(self, scanner: _Scanner) -> Iterator[_Element | BadRecord]:
        """The elements as they stand in the file; what belongs to a broken tail is left to the caller."""
        scanner.skip_mark()
        while first := scanner.peek():
            begin = scanner.position
            try:
                if first not in b'{["':
                    raise _BadLayoutError(f"no JSON begins at byte {begin}")
                yield from self._walk(scanner, self._path, 0)
            except _ReportedError:
                return
            except _EndedError:
                if not scanner.broken:
                    yield bad_record(0, "bad-json", f"the JSON that begins at byte {begin} is not closed")
                return
            except _BadLayoutError as error:
                yield bad_record(0, "bad-json", str(error), scanner.shown())
                scanner.skip_to(_BRACKETS)

    def _walk(self, scanner: _Scanner, path: list[str], depth: int) -> Generator[_Element | BadRecord, None, bool]:
        """The elements of the value that comes next, or, with a path, of what lies there in it.

        Returns whether the comma that should follow was passed over already.
        """
        first = scanner.peek()
        if depth > _DEPTH:
            raise _BadLayoutError(f"more than {_DEPTH} brackets are open at byte {scanner.position}")
        if first == b"[":
            yield from self._walk_array(scanner, path, depth)
        elif not path:
            return (yield from self._element(scanner))
        elif first == b"{":
            scanner.take(b"{")
            while scanner.peek() != b"}":
                key = parse_json(0, scanner.key())
                scanner.take(b":")
                if key == path[0]:
                    yield from self._walk(scanner, path[1:], depth + 1)
                else:
                    scanner.pass_over()
                scanner.take_comma(b"}")
            scanner.take(b"}")
        else:
            scanner.pass_over()
        return False

    def _walk_array(self, scanner: _Scanner, path: list[str], depth: int) -> Iterator[_Element | BadRecord]:
        scanner.take(b"[")
        signs: list[tuple[bytes, int]] = []
        while scanner.peek() != b"]":
            begin = scanner.position
            if path:  # what contains records may be long, its beginning gone when its end turns out to be damaged
                signs = scanner.signs_of_the_next(begin) or signs
            try:
                in_place = yield from self._walk(scanner, path, depth + 1) if path else self._element(scanner)
                if not in_place:
                    scanner.take_comma(b"]")
            except _BadLayoutError as error:
                signs = signs if path else scanner.signs_of_the_next(begin, scanner.model)
                patterns = [sign for sign, _ in signs] + ([] if path else [rb"[{\[\]]"])
                if not patterns:
                    raise
                yield bad_record(0, "bad-json", str(error), scanner.shown())
                if not scanner.skip_to(re.compile(b"|".join(patterns))):
                    raise _ReportedError from None
        scanner.take(b"]")

    def _element(self, scanner: _Scanner) -> Generator[_Element | BadRecord, None, bool]:
        """The value that comes next as a record; returns whether the next one follows without a comma."""
        scanner.peek()
        begin = scanner.position
        data = scanner.value()
        value: Any = None
        if scanner.closed:
            value = parse_json(0, data)
            if isinstance(value, str) and scanner.model[:1] == b"{":
                message = f"a string stands between objects at byte {begin}: the object before it was cut off"
                yield bad_record(0, "not-an-object", message, data)
                return False
            if not isinstance(value, BadRecord):
                scanner.model = data
                yield _Element(value, data)
                return False
        again = self._next_inside(scanner, begin, data)
        if again is not None:
            scanner.back_to(begin + again)
            yield bad_record(0, "bad-json", f"the element at byte {begin} is damaged", data[:again])
            return True
        if scanner.too_long:
            size = scanner.pass_over_rest()
            message = f"the element at byte {begin} has {size} bytes, max_record_bytes is {self._max_record_bytes}"
            if not scanner.closed and not scanner.broken:
                message = f"the element at byte {begin} is not closed: the {size} bytes that are left are lost"
            yield bad_record(0, "too-long", message, data)
            if not scanner.closed:
                raise _ReportedError
        elif scanner.closed:
            yield value
            signs = [] if _brackets_match(data) else scanner.signs_of_the_next(begin, scanner.model)
            if signs:
                if not scanner.skip_to(re.compile(b"|".join(sign for sign, _ in signs))):
                    raise _ReportedError
                return True
        else:
            raise _EndedError
        return False

    @staticmethod
    def _next_inside(scanner: _Scanner, begin: int, data: bytes) -> int | None:
        """Where in a value that could not be read the next one seems to begin, since its own end is damaged."""
        fault = _fault(data)
        if fault is None:
            return None
        signs = scanner.signs_of_the_next(begin, scanner.model)
        # Brackets that close are believed more than a key that comes again, but not more than lines.
        if scanner.closed and _brackets_match(data):
            signs = [sign for sign in signs if sign[0].startswith(rb"\n")]
        # What looks like the next element is one if it begins behind the fault, or if the fault is in its first key.
        places = [
            next((m.end() - 1 for m in pattern.finditer(data, 1) if m.end() + reach > fault), len(data))
            for pattern, reach in ((re.compile(sign), reach) for sign, reach in signs)
        ]
        again = min(places, default=len(data))
        return again if again < len(data) else None

    def _read(self, number: int, element: _Element) -> Record | BadRecord:
        value, data = element
        if isinstance(value, dict):
            return self._objects.record(number, value, data)
        if isinstance(value, str):
            if not value or value.isspace():
                return bad_record(number, "empty-text", "the element is an empty string", data)
            return Record(number, value)
        message = f"an object or a string is expected, this element is a {type(value).__name__}"
        return bad_record(number, "not-an-object", message, data)


def _fault(data: bytes) -> int | None:
    """Where a value stops being JSON; None if it only ends too early or is not UTF-8."""
    try:
        orjson.loads(data.translate(_ALL_ASCII))
    except orjson.JSONDecodeError as error:
        return None if "end of data" in str(error) else error.pos
    return None


def _brackets_match(data: bytes) -> bool:
    return data[-1:] == {b"{": b"}", b"[": b"]"}.get(data[:1], data[-1:])


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
            at = token.end()
            byte = data[token.start()]
            if byte == 0x22:
                if at - token.start() == 1:
                    in_string = True
                    break
            elif byte == 0x7B or byte == 0x5B:
                if at - token.start() == 1:
                    depth += 1
            else:
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
        self.model = b""
        """The last element that was whole: the others begin like it."""
        self._begin = 0  # of the value that was read last
        self._open = (0, False)  # brackets that are open in it where reading stopped; whether a string is
        self.closed = True
        """Whether the last value was read to its end."""
        self.too_long = False
        """Whether that is so because it has more than `max_value_bytes`."""

    @property
    def broken(self) -> str:
        return self._content.broken

    @property
    def position(self) -> int:
        """The byte of the content that comes next."""
        return self._before + self._at

    def shown(self) -> bytes:
        """What comes next, for an excerpt."""
        while len(self._data) - self._at < EXCERPT_CHARACTERS and self._more(self._at):
            pass
        return self._data[self._at : self._at + EXCERPT_CHARACTERS]

    def back_to(self, position: int) -> None:
        """Go back into the value that was read last."""
        self._at = position - self._before

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
            raise _BadLayoutError(f"{byte.decode()} is expected at byte {self.position}")
        self._at += 1

    def take_comma(self, or_else: bytes) -> None:
        """Pass over a comma; nothing may stand there but this bracket."""
        if self.peek() != or_else:
            self.take(b",")

    def skip_to(self, pattern: re.Pattern[bytes]) -> bool:
        """Go to the last byte of what matches next; to the end where nothing does, which is False."""
        while (found := pattern.search(self._data, self._at)) is None:
            self._at = max(self._at, len(self._data) - _KEPT_BEFORE)
            if not self._more(self._at):
                self._at = len(self._data)
                return False
        self._at = found.end() - 1
        return True

    def signs_of_the_next(self, begin: int, model: bytes = b"") -> list[tuple[bytes, int]]:
        """What the values after the one that begins there should look like: patterns that end with their first byte.

        The number says how many bytes behind that byte are part of the likeness. Empty if nothing is known, or if that
        beginning is not held any more. `model` is a value of the kind that is known to be whole.
        """
        at = begin - self._before
        if at < 0:
            return []
        while len(self._data) - at < _KEPT_BEFORE and self._more(at):
            at = begin - self._before
        key = _FIRST_KEY.match(self._data, at, at + _KEPT_BEFORE) or _FIRST_KEY.match(model, 0, _KEPT_BEFORE)
        reach = len(key.group()) if key is not None else 1
        signs = []
        line = self._data.rfind(b"\n", max(0, at - _KEPT_BEFORE), at)
        space = self._data[line + 1 : at]
        if (line >= 0 or begin == at) and not space.strip(b" \t\r"):
            signs.append((rb"\n" + space + rb'[{\["]', reach))
        if key is not None:
            signs.append((rb",[ \t\r\n]*\{(?=" + re.escape(key.group()[1:]) + rb")", reach))
        return signs

    def key(self) -> bytes:
        """The string that comes next, with its quotes."""
        found = self.peek()
        if not found:
            raise _EndedError
        if found != b'"':
            raise _BadLayoutError(f"a key is expected at byte {self.position}")
        data = self.value()
        if self.too_long:
            self.pass_over_rest()
        if not self.closed:
            raise _EndedError
        return data

    def pass_over(self) -> None:
        """Pass over the value that comes next."""
        self.value()
        if self.too_long:
            self.pass_over_rest()
        if not self.closed:
            raise _EndedError

    def value(self) -> bytes:
        """The value that comes next, as much of it as may be held; the rest is left to `pass_over_rest`."""
        first = self.peek()
        if not first:
            raise _EndedError
        self.closed, self.too_long, self._begin = True, False, self.position
        if first not in b'[{"':
            return self._scalar()
        depth, in_string = 0, first == b'"'
        at = self._at + in_string  # everything before it has been looked at
        while True:
            at, depth, in_string = _follow(self._data, at, depth, in_string)
            if at - self._at > self._max:
                self.closed, self.too_long = False, True
                break
            if not depth and not in_string:
                break
            before = self._before
            if not self._more(self._at):
                self.closed, at = False, len(self._data)
                break
            at -= self._before - before
        data = self._data[self._at : min(at, self._at + self._max)]
        self._at, self._open = at, (depth, in_string)
        return data

    def pass_over_rest(self) -> int:
        """Pass over what is left of a value that is too long, without holding it; returns its whole size in bytes."""
        depth, in_string = self._open
        while depth or in_string:
            self._at, depth, in_string = _follow(self._data, self._at, depth, in_string)
            if (depth or in_string) and not self._more(self._at):
                self._at = len(self._data)
                return self.position - self._begin
        self.closed = True
        return self.position - self._begin

    def _scalar(self) -> bytes:
        while True:
            found = _SCALAR.match(self._data, self._at)
            if found is None:
                raise _BadLayoutError(f"no value begins at byte {self.position}")
            if found.end() < len(self._data) or not self._more(self._at):
                found = _SCALAR.match(self._data, self._at)
                assert found is not None
                self._at = found.end()
                return found.group()
            if len(self._data) - self._at > max(self._max, 1 << 20):
                raise _BadLayoutError(f"no value begins at byte {self.position}")

    def _more(self, keep: int) -> bool:
        """Get another chunk; bytes before `keep` (and some before these) are given up. False at the end."""
        chunk = next(self._chunks, b"")
        if not chunk:
            return False
        keep = max(keep - _KEPT_BEFORE, 0)
        self._data = self._data[keep:] + chunk
        self._before += keep
        self._at -= keep
        return True
