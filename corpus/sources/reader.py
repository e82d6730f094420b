"""A source of files in one format: listed, opened, decompressed, archives unpacked; the format does the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from corpus.config import SourceConfig
from corpus.sources.archives import PATTERNS, archive_kind, members
from corpus.sources.base import Cursor, Found, InputFile, Selection, Skipped, bad_record, sha256_of
from corpus.sources.files import CANNOT_OPEN, find_root, list_files, matcher, open_input
from corpus.sources.streams import SUFFIXES, Content

if TYPE_CHECKING:
    from corpus.formats import Format


class FileSource:
    """Files of one format below a path."""

    def __init__(self, config: SourceConfig, format: Format) -> None:
        self.config = config
        self._format = format
        self._root = find_root(config.path)
        # Tables are no archives, and zip files of their own kind are none to us.
        self._streams = config.kind not in ("parquet", "arrow")
        self._patterns = tuple(name + packed for name in format.endings for packed in SUFFIXES)
        named = matcher(config.members or self._patterns)
        self._members_named = named

    def inventory(self) -> list[InputFile]:
        """All files, sorted by uri."""
        return list_files(self.config, (*self._patterns, *PATTERNS))

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
        """Every record of a file, or of the members of an archive."""
        cursor = cursor if cursor is not None else Cursor(record=start, offset=-1 if start else 0)
        try:
            raw = open_input(self._root, file)
        except CANNOT_OPEN as error:
            cursor.record, cursor.offset = 1, -1
            yield bad_record(0, "cannot-open", str(error))
            return
        with raw:
            middle = self._format.resumable and not cursor.member and cursor.offset > 0
            content = Content(raw, file.uri, offset=cursor.offset if middle else 0)
            cursor.tell = lambda: content.position
            # What is no archive at its beginning is none in the middle.
            if self._streams and not middle and (kind := archive_kind(content.head())):
                yield from self._members(kind, content, file, cursor)
            else:
                selection = Selection(self.config, file.uri, cursor, resumable=self._format.resumable)
                yield from self._format.records(content, selection)
        cursor.sha256 = content.sha256

    def _members(self, kind: str, archive: Content, file: InputFile, cursor: Cursor) -> Iterator[Found]:
        """Records of the members, numbered from 0 in each; a member that is not read gives one."""

        def wanted(name: str) -> bool:
            return self._members_named(name) and not _is_hidden(name)

        first, cursor.sha256 = cursor.member, None
        for member in members(kind, archive):
            if first and member.name != first:
                continue
            if not first:
                cursor.record, cursor.offset = 0, 0
            first, cursor.member = "", member.name
            if cursor.record and (member.problem or member.skipped or not wanted(member.name)):
                continue  # it was given before
            if member.problem is not None or member.skipped or not wanted(member.name):
                cursor.record, cursor.offset = 1, -1
                if member.problem is not None:
                    yield bad_record(0, *member.problem)
                else:
                    yield Skipped(0, member.skipped or "other-member")
                continue
            assert member.raw is not None
            selection = Selection(self.config, f"{file.uri}!/{member.name}", cursor, resumable=self._format.resumable)
            content = Content(member.raw, member.name, offset=selection.offset)
            if archive_kind(content.head()):
                if not cursor.record:
                    cursor.record, cursor.offset = 1, -1
                    yield bad_record(0, "nested-archive", "an archive inside an archive: unpack the outer one first")
                continue
            yield from self._format.records(content, selection)


def _is_hidden(name: str) -> bool:
    """Members that a folder's listing would not show, and those that a Mac adds to its archives."""
    return any(step.startswith(".") or step == "__MACOSX" for step in name.split("/"))
