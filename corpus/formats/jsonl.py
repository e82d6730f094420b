"""JSON lines: one object a line, plain or compressed. Blank lines are no records and have no number."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple, overload

import orjson

from corpus.config import SourceConfig
from corpus.formats.fields import ObjectReader
from corpus.sources.base import BadRecord, Found, Record, Selection, bad_record
from corpus.sources.streams import Content, Gap

_BOM = b"\xef\xbb\xbf"


class OverlongLine(NamedTuple):
    """A line that was passed over without being held in memory."""

    head: bytes
    size: int


class JsonLines:
    """`.jsonl`, `.ndjson` and `.json` files with one object a line."""

    endings: ClassVar[tuple[str, ...]] = ("*.jsonl", "*.ndjson", "*.json")
    resumable: ClassVar[bool] = True

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        self._max_record_bytes = max_record_bytes
        self._objects = ObjectReader(config)

    def records(self, content: Content, selection: Selection) -> Iterator[Found]:
        """Every non-blank line of a file."""
        number, offset, after_gap = selection.first, selection.offset, False
        stop = selection.stop
        wants, ends_before, reached, record = selection.wants, selection.ends_before, selection.reached, self._record
        for line in split_lines(content, self._max_record_bytes, content.segments()):
            if type(line) is Gap:
                # Lines around a hole may be parts of lines: the one before is lost, the one after must prove itself.
                if wants(number) and not ends_before(number):
                    reached(number + 1)
                    yield bad_record(number, "broken-stream", line.message)
                number, offset, after_gap = number + 1, -1, True
                continue
            if stop is not None and offset >= stop:
                return
            if type(line) is bytes:
                if offset >= 0:
                    offset += len(line) + 1
                if not line or line.isspace():
                    continue
            elif type(line) is OverlongLine and offset >= 0:
                offset += line.size + 1
            if after_gap:
                after_gap = False
                if type(line) is not bytes or type(parse_json(0, line)) is BadRecord:
                    continue
            if ends_before(number):
                return
            if wants(number):
                reached(number + 1, offset)
                yield record(number, line) if type(line) is bytes else self._overlong(number, line)
            number += 1
        if content.broken and not selection.ends_before(number):
            selection.reached(number + 1)
            yield bad_record(number, "broken-stream", f"{content.broken}; the rest of the file is lost")

    def _overlong(self, number: int, line: Any) -> BadRecord:
        message = f"the line has {line.size} bytes, max_record_bytes is {self._max_record_bytes}"
        return bad_record(number, "too-long", message, line.head)

    def _record(self, number: int, line: bytes) -> Record | BadRecord:
        value = parse_json(number, line)
        if type(value) is BadRecord:
            return value
        if type(value) is not dict:
            message = f"one JSON object a line is expected, this line is a {type(value).__name__}"
            return bad_record(number, "not-an-object", message, line)
        return self._objects.record(number, value, line)


def parse_json(number: int, data: bytes) -> Any:
    """The value of a JSON text, or the `BadRecord` that says what is wrong with it."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return _second_look(number, data, error)


def _second_look(number: int, line: bytes, error: orjson.JSONDecodeError) -> Any:
    """What is wrong with a line that orjson refuses. Escaped lone surrogates (cut emojis) are let through."""
    if line.startswith(_BOM):
        try:
            return orjson.loads(line[3:])
        except orjson.JSONDecodeError as after_mark:
            line, error = line[3:], after_mark
    try:
        text = line.decode()
    except UnicodeDecodeError as undecodable:
        return bad_record(number, "bad-utf8", str(undecodable), line)
    if "\\u" in text and "surrogate" in str(error):
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            pass  # something else is wrong with the line too: the first error stands
    return bad_record(number, "bad-json", str(error), line)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


@overload
def split_lines(
    stream: Content, max_bytes: int, chunks: Iterable[bytes] | None = None
) -> Iterator[bytes | OverlongLine]: ...
@overload
def split_lines(
    stream: Content, max_bytes: int, chunks: Iterable[bytes | Gap]
) -> Iterator[bytes | OverlongLine | Gap]: ...
def split_lines(
    stream: Content, max_bytes: int, chunks: Iterable[bytes | Gap] | None = None
) -> Iterator[bytes | OverlongLine | Gap]:
    """Lines without their LF. The unfinished last line of a broken stream is not given: it belongs to the lost tail.

    `chunks` are the stream's, where they are not taken as they are. An unfinished line before a gap is not given.
    """
    pieces: list[bytes] = []
    size = 0
    for chunk in stream if chunks is None else chunks:
        if isinstance(chunk, Gap):
            pieces, size = [], 0
            yield chunk
            continue
        lines = chunk.split(b"\n")
        if len(lines) > 1:
            pieces.append(lines[0])
            size += len(lines[0])
            yield b"".join(pieces) if size <= max_bytes else OverlongLine(b"".join(pieces)[:max_bytes], size)
            for line in lines[1:-1]:
                yield line if len(line) <= max_bytes else OverlongLine(line[:max_bytes], len(line))
            pieces, size = [], 0
        if size <= max_bytes:  # beyond it only the size is followed, so that a line of any length fits memory
            pieces.append(lines[-1])
        size += len(lines[-1])
    if size and not stream.broken:
        yield b"".join(pieces) if size <= max_bytes else OverlongLine(b"".join(pieces)[:max_bytes], size)
