"""JSON lines: one object a line, plain or compressed. Blank lines are no records and have no number."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import compress, groupby
from typing import Any, ClassVar, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from corpus.config import SourceConfig
from corpus.formats.fields import ObjectReader
from corpus.sources.base import BadRecord, Found, Record, Selection, bad_record
from corpus.sources.rows import Rows
from corpus.sources.streams import Content, Gap
from corpus.texts import blank_rows

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

    def records(self, content: Content, selection: Selection) -> Iterator[Found | Rows]:
        """Every non-blank line of a file."""
        number, offset, after_gap = selection.first, selection.offset, False
        for some in line_groups(content, self._max_record_bytes, content.segments()):
            if isinstance(some, Gap):
                # Lines around a hole may be parts of lines: the one before is lost, the one after must prove itself.
                if selection.wants(number) and not selection.ends_before(number):
                    selection.reached(number + 1)
                    yield bad_record(number, "broken-stream", some.message)
                number, offset, after_gap = number + 1, -1, True
                continue
            if selection.ends_before(number) or (selection.stop is not None and offset >= selection.stop):
                return
            if isinstance(some, OverlongLine):
                offset = offset + some.size + 1 if offset >= 0 else -1
                if after_gap:
                    after_gap = False
                    continue
                if selection.wants(number):
                    selection.reached(number + 1, offset)
                    yield self._overlong(number, some)
                number += 1
                continue
            lines, ends = some, np.full(len(some), -1, np.int64)
            if offset >= 0:
                sizes = np.fromiter(map(len, lines), np.int64, len(lines)) + 1
                ends = offset + np.cumsum(sizes)
                offset = int(ends[-1])
                if selection.stop is not None and offset - sizes[-1] >= selection.stop:
                    inside = int(np.searchsorted(ends - sizes, selection.stop))
                    lines, ends = lines[:inside], ends[:inside]
            if not all(lines) or any(map(bytes.isspace, lines)):
                filled = [bool(line) and not line.isspace() for line in lines]
                lines, ends = list(compress(lines, filled)), ends[filled]
            if after_gap and lines:
                after_gap = False
                if type(parse_json(0, lines[0])) is BadRecord:
                    lines, ends = lines[1:], ends[1:]
            wanted = selection.mask(number, len(lines))
            numbers = number + np.flatnonzero(wanted)
            number += len(lines)
            if len(numbers) < len(lines):
                lines, ends = list(compress(lines, wanted)), ends[wanted]
            yield from self._rows(numbers, ends, lines, selection)
        if content.broken and not selection.ends_before(number):
            selection.reached(number + 1)
            yield bad_record(number, "broken-stream", f"{content.broken}; the rest of the file is lost")

    def _rows(
        self, numbers: NDArray[np.int64], ends: NDArray[np.int64], lines: list[bytes], selection: Selection
    ) -> Iterator[Found | Rows]:
        """The records of lines: those that are readable side by side, each of the others by itself."""
        values = _objects(lines)
        texts, *others = self._objects.columns(values)
        begin = 0
        for end in [*blank_rows(texts), len(lines)]:
            if end > begin:
                selection.reached(int(numbers[end - 1]) + 1, int(ends[end - 1]))
                yield Rows(numbers, ends, texts, *others).slice(begin, end)
            if end < len(lines):
                selection.reached(int(numbers[end]) + 1, int(ends[end]))
                yield self._record(int(numbers[end]), lines[end])
            begin = end + 1

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


def _objects(lines: list[bytes]) -> list[dict[str, Any]]:
    """The object on every line, empty where there is none."""
    try:
        values = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        values = [_value_or_none(line) for line in lines]
    if set(map(type, values)) <= {dict}:
        return values
    return [value if type(value) is dict else {} for value in values]


def _value_or_none(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


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


def split_lines(
    stream: Content, max_bytes: int, chunks: Iterable[bytes] | None = None
) -> Iterator[bytes | OverlongLine]:
    """Lines without their LF, one by one; see `line_groups`."""
    for some in line_groups(stream, max_bytes, stream if chunks is None else chunks):
        if isinstance(some, list):
            yield from some
        elif isinstance(some, OverlongLine):
            yield some


def line_groups(
    stream: Content, max_bytes: int, chunks: Iterable[bytes | Gap]
) -> Iterator[list[bytes] | OverlongLine | Gap]:
    """Lines without their LF, those of a chunk together.

    The unfinished last line of a broken stream is not given: it belongs to the lost tail; nor is one before a gap.
    """
    pieces: list[bytes] = []
    size = 0
    for chunk in chunks:
        if isinstance(chunk, Gap):
            pieces, size = [], 0
            yield chunk
            continue
        lines = chunk.split(b"\n")
        if len(lines) > 1:
            pieces.append(lines[0])
            size += len(lines[0])
            if size > max_bytes:
                yield OverlongLine(b"".join(pieces)[:max_bytes], size)
            else:
                lines[0] = b"".join(pieces)
            whole, pieces, size = lines[1 if size > max_bytes else 0 : -1], [], 0
            if whole:
                yield from _within(whole, max_bytes) if max_bytes < len(chunk) else [whole]
        if size <= max_bytes:  # beyond it only the size is followed, so that a line of any length fits memory
            pieces.append(lines[-1])
        size += len(lines[-1])
    if size and not stream.broken:
        yield [b"".join(pieces)] if size <= max_bytes else OverlongLine(b"".join(pieces)[:max_bytes], size)


def _within(lines: list[bytes], max_bytes: int) -> Iterator[list[bytes] | OverlongLine]:
    """Groups of lines that are not too long, and those that are."""
    for overlong, group in groupby(lines, lambda line: len(line) > max_bytes):
        if overlong:
            yield from (OverlongLine(line[:max_bytes], len(line)) for line in group)
        else:
            yield list(group)
