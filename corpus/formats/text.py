"""Plain text and Markdown: a file a document, or several documents in a file.

Text is UTF-8 or what its byte order mark says; anything else is quarantined, unless the source names its encoding or
has it detected.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

from corpus.config import SourceConfig
from corpus.formats.encoded import check_encoding, open_encoded
from corpus.formats.jsonl import OverlongLine, split_lines
from corpus.sources.base import BadRecord, Found, Record, Selection, bad_record
from corpus.sources.streams import Content


class TextFiles:
    """`.txt`, `.md`, `.markdown` and `.rst` files."""

    endings: ClassVar[tuple[str, ...]] = ("*.txt", "*.md", "*.markdown", "*.rst")
    resumable: ClassVar[bool] = True

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        self._config = config
        self._encoding = check_encoding(config)
        self._max_record_bytes = max_record_bytes
        if config.split_by == "separator":
            try:
                self._separator = re.compile(config.separator)
            except re.error as error:
                raise ValueError(f"source {config.name!r}, separator: {config.separator!r}: {error}") from None
            if self._separator.fullmatch(""):
                raise ValueError(f"source {config.name!r}, separator: {config.separator!r} matches the empty text")

    def records(self, content: Content, selection: Selection) -> Iterator[Found]:
        """The one record of a file, its lines, its paragraphs, or what stands between separators."""
        match self._config.split_by:
            case "file":
                if selection.wants(0):
                    selection.reached(1)
                    yield whole_text(content, self._max_record_bytes, self._encoding)
                return
            case "separator":
                pieces = self._between_separators(content)
            case _:
                pieces = self._of_lines(content, selection)
        number = selection.first
        for piece, offset in pieces:
            if selection.ends_before(number):
                return
            if selection.wants(number):
                selection.reached(number + 1, offset)
                yield piece._replace(record=number)
            number += 1
        if content.broken and not selection.ends_before(number):
            selection.reached(number + 1)
            yield bad_record(number, "broken-stream", f"{content.broken}; the rest of the file is lost")

    def _of_lines(self, content: Content, selection: Selection) -> Iterator[tuple[Record | BadRecord, int]]:
        """Lines, or runs of lines between blank ones, each with the offset at which reading could go on."""
        middle = selection.offset > 0
        chunks, codec, offset = open_encoded(content, self._encoding, at_start=not middle)
        # From the middle on nothing can be detected.
        known = offset >= 0 and codec == (self._encoding or "utf-8")
        offset = selection.offset if middle else max(0, offset)
        paragraphs = self._config.split_by == "blank-line"
        gathered: list[bytes] = []
        size = 0
        for line in split_lines(content, self._max_record_bytes, chunks):
            before, length = offset, line.size if isinstance(line, OverlongLine) else len(line)
            offset += length + 1
            blank = not isinstance(line, OverlongLine) and (not line or line.isspace())
            if paragraphs and not blank:
                if size <= self._max_record_bytes:
                    gathered.append(line.head if isinstance(line, OverlongLine) else line)
                size += length + 1
            elif paragraphs and gathered:
                yield self._read(b"\n".join(gathered), size - 1, codec), before if known else -1
                gathered, size = [], 0
            elif not paragraphs and not blank:
                data = line.head if isinstance(line, OverlongLine) else line.removesuffix(b"\r")
                yield self._read(data, length, codec), offset if known else -1
        if gathered and not content.broken:
            yield self._read(b"\n".join(gathered), size - 1, codec), -1

    def _read(self, data: bytes, size: int, codec: str) -> Record | BadRecord:
        if size > self._max_record_bytes:
            message = f"the record has {size} bytes, max_record_bytes is {self._max_record_bytes}"
            return bad_record(0, "too-long", message, data)
        text = decode(data, codec)
        return text if isinstance(text, BadRecord) else Record(0, text)

    def _between_separators(self, content: Content) -> Iterator[tuple[Record | BadRecord, int]]:
        chunks, codec, _ = open_encoded(content, self._encoding)
        for text, size in _split(chunks, codec, self._separator, self._max_record_bytes):
            if size > self._max_record_bytes:
                message = f"the record has about {size} bytes, max_record_bytes is {self._max_record_bytes}"
                yield bad_record(0, "too-long", message, text), -1
            elif not text or text.isspace():
                continue
            else:
                # Bytes that could not be decoded came through as lone surrogates.
                found = decode(text.encode(codec, "surrogateescape"), codec)
                yield found if isinstance(found, BadRecord) else Record(0, found), -1


def _split(
    chunks: Iterable[bytes], codec: str, separator: re.Pattern[str], max_bytes: int
) -> Iterator[tuple[str, int]]:
    """Texts between matches and about how many bytes they have; of those that are too long, the beginning.

    A match that ends with what has been read so far might go on, so it waits for more.
    """
    decoder = codecs.getincrementaldecoder(codec)("surrogateescape")
    text, begin, given_up = "", 0, 0
    ended = False
    chunks = iter(chunks)
    while not ended:
        chunk = next(chunks, None)
        ended = chunk is None
        text = text[begin:] + decoder.decode(chunk or b"", final=ended)
        begin = 0
        for match in separator.finditer(text):
            if match.end() == len(text) and not ended:
                break
            if match.end() > match.start():
                yield text[begin : match.start()], given_up + match.start() - begin
                begin, given_up = match.end(), 0
        if len(text) - begin > max_bytes:
            # Too long already: only its size is followed, and as much as a separator across chunks may need.
            keep = len(text) - min(len(text) - begin, 4096)
            given_up += keep - begin
            begin = keep
    yield text[begin:], given_up + len(text) - begin


def whole_text(content: Content, max_bytes: int, encoding: str = "") -> Record | BadRecord:
    """A file as one record, with number 0."""
    data = read_whole(content, max_bytes)
    if isinstance(data, BadRecord):
        return data
    text = decode_whole(data, encoding)
    if isinstance(text, BadRecord):
        return text
    return Record(0, text) if text and not text.isspace() else bad_record(0, "empty-text", "the file is empty", text)


def read_whole(content: Content, max_bytes: int) -> bytes | BadRecord:
    """All (decompressed) bytes of a file."""
    chunks, size = [], 0
    for chunk in content:
        chunks.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            message = f"the file has more bytes than max_record_bytes ({max_bytes})"
            return bad_record(0, "too-long", message, chunks[0])
    data = b"".join(chunks)
    return bad_record(0, "broken-stream", content.broken, data) if content.broken else data


def decode_whole(data: bytes, encoding: str = "") -> str | BadRecord:
    """The text of all bytes of a file, in an encoding as `SourceConfig.encoding` has it."""
    chunks, codec, _ = open_encoded([data], encoding)
    return decode(b"".join(chunks), codec)


def decode(data: bytes, codec: str = "utf-8") -> str | BadRecord:
    """Text of bytes; what cannot be decoded is a bad record that says what to set."""
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        message = f"{error}; `encoding: detect` or the name of the encoding may read it"
        return bad_record(0, "bad-utf8" if codec == "utf-8" else "bad-encoding", message, data)
