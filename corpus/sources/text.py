"""Plain text and Markdown: one file, one document.

Text is UTF-8 or what its byte order mark says; anything else is quarantined, never guessed.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from corpus.config import SourceConfig
from corpus.sources.base import BadRecord, InputFile, Record, Selection, bad_record
from corpus.sources.files import CANNOT_OPEN, Root, find_root, list_files, open_input
from corpus.sources.streams import ByteStream

_NAMES = ("*.txt", "*.md", "*.markdown", "*.rst")
ENDINGS = tuple(name + packed for name in _NAMES for packed in ("", ".gz", ".zst", ".bz2", ".xz"))
# UTF-32's mark begins with UTF-16's, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class TextFiles:
    """`.txt`, `.md`, `.markdown` and `.rst` files, plain or compressed; every file has one record."""

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        self.config = config
        self._max_record_bytes = max_record_bytes
        self._root = find_root(config.path)

    def inventory(self) -> list[InputFile]:
        """All files, sorted by uri."""
        return list_files(self.config, ENDINGS)

    def records(self, file: InputFile, *, start: int = 0) -> Iterator[Record | BadRecord]:
        """The one record of a file."""
        if Selection(self.config, file.uri, start).wants(0):
            yield whole_file(self._root, file, self._max_record_bytes)


def whole_file(root: Root, file: InputFile, max_bytes: int) -> Record | BadRecord:
    """A file as one record, with number 0."""
    data = read_whole(root, file, max_bytes)
    if isinstance(data, BadRecord):
        return data
    text = decode(data)
    if isinstance(text, BadRecord):
        return text
    return Record(0, text) if text and not text.isspace() else bad_record(0, "empty-text", "the file is empty", text)


def read_whole(root: Root, file: InputFile, max_bytes: int) -> bytes | BadRecord:
    """All (decompressed) bytes of a file."""
    try:
        raw = open_input(root, file)
    except CANNOT_OPEN as error:
        return bad_record(0, "cannot-open", str(error))
    chunks, size = [], 0
    with raw:
        stream = ByteStream(raw)
        for chunk in stream:
            chunks.append(chunk)
            size += len(chunk)
            if size > max_bytes:
                message = f"the file has more bytes than max_record_bytes ({max_bytes})"
                return bad_record(0, "too-long", message, chunks[0])
    data = b"".join(chunks)
    return bad_record(0, "broken-stream", stream.broken, data) if stream.broken else data


def decode(data: bytes) -> str | BadRecord:
    """Text of bytes in UTF-8 or as their byte order mark says; the mark is dropped."""
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        return bad_record(0, "bad-utf8", str(error), data)
