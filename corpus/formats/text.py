"""Plain text and Markdown: a file a document, or several documents in a file.

Text is UTF-8 or what its byte order mark says; anything else is quarantined, unless the source names its encoding or
has it detected.
"""

from __future__ import annotations

import codecs
import itertools
import re
import string
from collections.abc import Iterable, Iterator
from typing import ClassVar

from corpus.config import SourceConfig
from corpus.extraction.encodings import decode_text
from corpus.formats.encoded import ESCAPED, check_encoding, open_encoded, undecodable
from corpus.formats.jsonl import OverlongLine, split_lines
from corpus.sources.base import EXCERPT_CHARACTERS, BadRecord, Found, Record, Selection, bad_record
from corpus.sources.streams import Content

_SEPARATOR_CHARACTERS = 4096
"""How long a separator may be, and how far it may look around itself."""


class TextFiles:
    """`.txt`, `.md`, `.markdown` and `.rst` files.

    Blank lines, and what is blank between separators, are no records. A separator is found wherever it stands if it is
    no longer than 4,096 characters; `^` without `(?m)` is the beginning of the file.
    """

    endings: ClassVar[tuple[str, ...]] = ("*.txt", "*.md", "*.markdown", "*.rst")
    resumable: ClassVar[bool] = True

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        self._split_by = config.split_by
        self._encoding = check_encoding(config)
        self._max_record_bytes = max_record_bytes
        if config.split_by == "separator":
            self._separator = _compile_separator(config)

    def records(self, content: Content, selection: Selection) -> Iterator[Found]:
        """The one record of a file, its lines, its paragraphs, or what stands between separators."""
        match self._split_by:
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
        chunks, codec, begin = open_encoded(content, self._encoding, at_start=not middle)
        # Offsets are of no use where the encoding is known from the beginning of the file alone.
        known = begin >= 0 and codec == (self._encoding or "utf-8")
        offset, paragraphs = selection.offset if middle else max(0, begin), self._split_by == "blank-line"
        gathered: list[bytes] = []
        size = first = 0  # bytes of the paragraph so far; where it begins
        for line in split_lines(content, self._max_record_bytes, chunks):
            overlong = isinstance(line, OverlongLine)
            length = line.size if isinstance(line, OverlongLine) else len(line)
            begin, offset = offset, offset + length + 1
            if overlong or (line and not line.isspace()):  # type: ignore[union-attr]
                first = begin if not gathered else first
                if selection.stop is not None and first >= selection.stop:
                    return
                data = line.head if isinstance(line, OverlongLine) else line
                if not paragraphs:
                    yield self._read(data, length, codec), offset if known else -1
                    continue
                if size <= self._max_record_bytes:  # beyond it only the size is followed
                    gathered.append(data)
                size += length + 1
            elif gathered:
                yield self._read(b"\n".join(gathered), size - 1, codec), begin if known else -1
                gathered, size = [], 0
        if gathered and not content.broken:
            yield self._read(b"\n".join(gathered), size - 1, codec), -1

    def _read(self, data: bytes, size: int, codec: str) -> Record | BadRecord:
        if size > self._max_record_bytes:
            return self._too_long(size, data)
        try:
            text = data.removesuffix(b"\r").decode(codec)
        except UnicodeDecodeError as error:
            return undecodable(0, error, data, codec)
        return bad_record(0, "empty-text", "there is only white space", text) if text.isspace() else Record(0, text)

    def _too_long(self, size: int, data: bytes | str) -> BadRecord:
        message = f"the record has about {size} bytes, max_record_bytes is {self._max_record_bytes}"
        return bad_record(0, "too-long", message, data)

    def _between_separators(self, content: Content) -> Iterator[tuple[Record | BadRecord, int]]:
        chunks, codec, _ = open_encoded(content, self._encoding)
        pieces = split_text(chunks, codec, self._separator, self._max_record_bytes)
        for text, size, last in pieces:
            if last and content.broken:
                return
            if size > self._max_record_bytes:
                yield self._too_long(size, text), -1
            elif text and not text.isspace():
                yield self._check(text, codec), -1

    def _check(self, text: str, codec: str) -> Record | BadRecord:
        # Four bytes a character at most: only texts near the limit are encoded to be measured.
        if len(text) * 4 > self._max_record_bytes:
            size = len(text.encode("utf-8", "replace"))
            if size > self._max_record_bytes:
                return self._too_long(size, text)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            byte = ord(text[error.start]) - 0xDC00
            return undecodable(0, f"byte 0x{byte:02x} after {error.start} characters is no {codec}", text, codec)
        return Record(0, text)


def _compile_separator(config: SourceConfig) -> re.Pattern[str]:
    where = f"source {config.name!r}, separator: {config.separator!r}"
    try:
        separator = re.compile(config.separator)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{where} is no regular expression: {error}") from None
    # Patterns that match nothing do so somewhere in this, but for far-fetched ones; those split nowhere.
    if any(not match.group() for probe in ("", string.printable * 2) for match in separator.finditer(probe)):
        raise ValueError(f"{where} matches the empty text: it would split between any two characters")
    return separator


def split_text(
    chunks: Iterable[bytes], codec: str, separator: re.Pattern[str], max_bytes: int
) -> Iterator[tuple[str, int, bool]]:
    """Texts between the matches of a separator, about how many bytes each has, and whether it is the last.

    A text that is longer than `max_bytes` characters is given in part. Bytes that cannot be decoded come as `ESCAPED`
    has them.
    """
    decoder = codecs.getincrementaldecoder(codec)(ESCAPED)
    # `text` holds some characters before `begin`, for separators that look behind; up to `searched` there is none.
    text, begin, searched, given_up = "", 0, 0, 0
    for chunk in itertools.chain(chunks, (None,)):
        keep = max(0, begin - _SEPARATOR_CHARACTERS)
        text = text[keep:] + decoder.decode(chunk or b"", final=chunk is None)
        begin, searched = begin - keep, searched - keep
        # Where the next match begins and ends is known if enough of what follows it is there.
        certain = len(text) if chunk is None else len(text) - 2 * _SEPARATOR_CHARACTERS
        while searched <= certain and (match := separator.search(text, searched)) is not None:
            if match.end() > certain:
                searched = min(match.start(), max(searched, certain))
                break
            if match.group():
                yield text[begin : match.start()], given_up + match.start() - begin, False
                begin, given_up = match.end(), 0
            searched = match.end() + (not match.group())
        else:
            searched = max(searched, certain)
        shown = min(max_bytes, EXCERPT_CHARACTERS)
        unneeded = searched - _SEPARATOR_CHARACTERS - begin - shown
        if unneeded > max_bytes:  # the text is too long already: only its size is followed
            text = text[: begin + shown] + text[begin + shown + unneeded :]
            searched, given_up = searched - unneeded, given_up + unneeded
    yield text[begin:], given_up + len(text) - begin, True


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
    codec = "detect"
    try:
        if encoding == "detect":
            return decode_text(data)[0]
        chunks, codec, _ = open_encoded([data], encoding)
        return b"".join(chunks).decode(codec)
    except UnicodeDecodeError as error:
        return undecodable(0, error, data, codec)
