"""A source of files in one format: listed, opened, decompressed, archives unpacked; the format does the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from corpus.config import SourceConfig
from corpus.sources.base import Cursor, Found, InputFile, Selection, bad_record, sha256_of
from corpus.sources.files import CANNOT_OPEN, find_root, list_files, open_input
from corpus.sources.streams import SUFFIXES, Content

if TYPE_CHECKING:
    from corpus.formats import Format


class FileSource:
    """Files of one format below a path."""

    def __init__(self, config: SourceConfig, format: Format) -> None:
        self.config = config
        self._format = format
        self._root = find_root(config.path)

    def inventory(self) -> list[InputFile]:
        """All files, sorted by uri."""
        return list_files(self.config, tuple(name + packed for name in self._format.endings for packed in SUFFIXES))

    @contextlib.contextmanager
    def open(self, file: InputFile) -> Iterator[BinaryIO | None]:
        """A file as it lies there; None if it cannot be opened."""
        try:
            raw = open_input(self._root, file)
        except CANNOT_OPEN:
            yield None
            return
        with raw:
            yield raw

    def local_path(self, file: InputFile) -> Path | None:
        """The file's path on this machine, None where it lies elsewhere."""
        return Path(self._root.locate(file.uri)) if self._root.system is None else None

    def checksum(self, file: InputFile) -> str | None:
        """ "sha256:hex" of a file as it lies there, by reading it; None if it cannot be opened."""
        with self.open(file) as raw:
            return None if raw is None else sha256_of(raw)

    def records(self, file: InputFile, *, start: int = 0, cursor: Cursor | None = None) -> Iterator[Found]:
        """Every record of a file."""
        cursor = cursor if cursor is not None else Cursor(record=start, offset=-1 if start else 0)
        selection = Selection(self.config, file.uri, cursor, resumable=self._format.resumable)
        try:
            raw = open_input(self._root, file)
        except CANNOT_OPEN as error:
            cursor.record, cursor.offset = 1, -1
            yield bad_record(0, "cannot-open", str(error))
            return
        with raw:
            yield from self._format.records(Content(raw, file.uri, offset=selection.offset), selection)
