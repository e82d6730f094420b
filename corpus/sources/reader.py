"""A source of files in one format: listed, opened, decompressed, archives unpacked; the format does the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from corpus.config import SourceConfig
from corpus.sources.archives import PATTERNS, Member, archive_kind, is_epub, members
from corpus.sources.base import BadRecord, Cursor, Found, InputFile, Selection, Skipped, SourceError, bad_record
from corpus.sources.files import CANNOT_OPEN, checksum, find_root, list_files, matcher, open_input
from corpus.sources.rows import Rows, one_by_one
from corpus.sources.streams import SUFFIXES, Content, bytes_from

if TYPE_CHECKING:
    from corpus.formats import Format


class FileSource:
    """Files of one format below a path; `shown` gives the names that files and members of archives have in uris."""

    def __init__(self, config: SourceConfig, format: Format, shown: Callable[[str], str] | None = None) -> None:
        self.config = config
        self._shown = shown
        self._format = format
        try:
            self._root = find_root(config.path)
        except SourceError as error:
            raise SourceError(f"source {config.name!r}, path: {error}") from error
        self._patterns = tuple(name + packed for name in format.endings for packed in SUFFIXES)
        self._locating = False
        self._members_named = matcher(config.members or self._patterns)

    def inventory(self) -> list[InputFile]:
        """All files, sorted by uri."""
        files = list_files(self.config, (*self._patterns, *PATTERNS), self._root)
        if self._shown is None:
            return files
        shown = [replace(file, uri=self._shown(file.uri), path=file.uri) for file in files]
        return sorted(shown, key=lambda file: file.uri)

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
        return Path(self._root.locate(file.place)) if self._root.system is None else None

    def checksum(self, file: InputFile) -> str | None:
        """ "sha256:hex" of a file as it lies there, by reading it; None if it cannot be opened."""
        return checksum(self._root, file)

    def records(self, file: InputFile, *, start: int = 0, cursor: Cursor | None = None) -> Iterator[Found]:
        """Every record of a file, or of the members of an archive."""
        cursor = cursor if cursor is not None else Cursor(record=start, offset=-1 if start else 0)
        return one_by_one(self.batches(file, cursor), cursor)

    def batches(self, file: InputFile, cursor: Cursor) -> Iterator[Found | Rows]:
        """The same records, of which those that a format reads together come as rows."""
        try:
            raw = open_input(self._root, file)
        except CANNOT_OPEN as error:
            cursor.record, cursor.offset = 1, -1
            yield bad_record(0, "cannot-open", str(error))
            return
        with raw:
            middle = self._format.resumable and not cursor.member and cursor.offset > 0
            content = Content(raw, file.place, offset=cursor.offset if middle else 0)
            content.what_follows = lambda offset: f"records from {self._record_at(file, offset)} on"
            cursor.tell = lambda: content.position
            # What is no archive at its beginning is none in the middle.
            if not middle and (kind := self._archive_kind(content)):
                content.what_follows = bytes_from
                yield from self._members(kind, content, file, cursor)
            elif not middle and content.packed_twice:
                yield from _packed_twice(content, cursor)
            else:
                selection = Selection(self.config, file.place, cursor, resumable=self._format.resumable)
                yield from self._read(content, selection)
        cursor.sha256 = content.sha256

    def _members(self, kind: str, archive: Content, file: InputFile, cursor: Cursor) -> Iterator[Found | Rows]:
        """Records of the members, numbered from 0 in each; a member that is not read gives one, as its record 0."""
        resumed = cursor.member
        for member in members(kind, archive):
            name = member.name if self._shown is None else self._shown(member.name)
            if resumed and name != resumed:
                continue
            if not resumed:
                cursor.record, cursor.offset = 0, 0
            resumed, cursor.member = "", name
            if (instead := self._instead(member)) is not None:
                if not cursor.record:
                    cursor.record, cursor.offset = 1, -1
                    yield instead
                continue
            assert member.raw is not None
            selection = Selection(self.config, f"{file.place}!/{member.name}", cursor, resumable=self._format.resumable)
            content = Content(member.raw, member.name, offset=selection.offset, around=archive)
            content.what_follows = lambda offset: "records from 0 on"
            # What is no archive at its beginning is none in the middle.
            if not selection.offset and self._archive_kind(content):
                if not cursor.record:
                    cursor.record, cursor.offset = 1, -1
                    yield bad_record(0, "nested-archive", "an archive inside an archive: unpack the outer one first")
                continue
            if not selection.offset and content.packed_twice:
                yield from _packed_twice(content, cursor)
            else:
                yield from self._read(content, selection)

    def _archive_kind(self, content: Content) -> str:
        """ "zip", "tar" or "" for what is no archive, but a file of the format."""
        head = content.head()
        return "" if self.config.kind == "epub" and is_epub(head, content.name) else archive_kind(head)

    def _read(self, content: Content, selection: Selection) -> Iterator[Found | Rows]:
        """Records of a file or member, without those that were given before, as a tail that is lost may have been."""
        start = selection.cursor.record
        found = self._format.records(content, selection)
        return found if not start else (some for some in found if isinstance(some, Rows) or some.record >= start)

    def _record_at(self, file: InputFile, offset: int) -> int:
        """The first record that may reach beyond a decompressed byte, found by reading up to it once more."""
        cursor, number = Cursor(), 0
        if offset and not self._locating:  # the damage is met again on the way there
            self._locating = True
            try:
                for found in self.records(file, cursor=cursor):
                    if not 0 <= cursor.offset <= offset:
                        break
                    number = found.record + 1
            finally:
                self._locating = False
        return number

    def _instead(self, member: Member) -> BadRecord | Skipped | None:
        """What a member gives that is not read; None for one that is."""
        if member.special:
            return Skipped(0, "archive-special-member")
        if not member.of_archive and (not self._members_named(member.name) or _is_hidden(member.name)):
            return Skipped(0, "other-member")
        return bad_record(0, *member.problem) if member.problem is not None else None


def _is_hidden(name: str) -> bool:
    """Members that a folder's listing would not show, and those that a Mac adds to its archives."""
    return any(step.startswith(".") or step == "__MACOSX" for step in name.split("/"))


def _packed_twice(content: Content, cursor: Cursor) -> Iterator[Found]:
    """The one record of a file that nobody meant to compress twice."""
    if not cursor.record:
        cursor.record, cursor.offset = 1, -1
        yield bad_record(
            0, "unsupported-compression", "the content is compressed twice: unpack it once", content.head()
        )
