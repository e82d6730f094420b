"""Plain text and Markdown: one file, one document.

Text is UTF-8 or what its byte order mark says; anything else is quarantined, never guessed.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import ClassVar

from corpus.config import SourceConfig
from corpus.sources.base import BadRecord, Found, Record, Selection, bad_record
from corpus.sources.streams import Content

# UTF-32's mark begins with UTF-16's, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class TextFiles:
    """`.txt`, `.md`, `.markdown` and `.rst` files; every file has one record."""

    endings: ClassVar[tuple[str, ...]] = ("*.txt", "*.md", "*.markdown", "*.rst")
    resumable: ClassVar[bool] = False

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        self._max_record_bytes = max_record_bytes

    def records(self, content: Content, selection: Selection) -> Iterator[Found]:
        """The one record of a file."""
        if selection.wants(0):
            selection.reached(1)
            yield whole_text(content, self._max_record_bytes)


def whole_text(content: Content, max_bytes: int) -> Record | BadRecord:
    """A file as one record, with number 0."""
    data = read_whole(content, max_bytes)
    if isinstance(data, BadRecord):
        return data
    text = decode(data)
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


def decode(data: bytes) -> str | BadRecord:
    """Text of bytes in UTF-8 or as their byte order mark says; the mark is dropped."""
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        return bad_record(0, "bad-utf8", str(error), data)
