"""Where the records of WARC and ARC files begin and end, whatever their lengths say.

A record's length is believed if it leads to where a record can end: after the block and any line ends stands another
record's first lines, or nothing more; or the block is followed by what must end it (WARC: CR LF CR LF, ARC: LF), and
garbage comes after that. What looks like a record inside such a block is part of it.

A length that does not lead there, or that is missing, is not believed: the block then goes to the next line that begins
a record (`WARC/` and a version, with a header field in the next line; or a line of ARC's five or ten fields), to a
version within a line that a field WARC-… or Content-… follows after CR LF, or to the end. Such a block is taken if it
is longer than declared (lengths counted in characters do that), or shorter by no more than its line ends explain (CR LF
made LF); if it is shorter than that, some of it is missing.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from corpus.formats.http import parse_fields
from corpus.sources.streams import Content, Gap

LONGEST_BELIEVED = 4 << 30
"""Blocks that should be longer than this are not looked for where their length says, but as if it were missing."""
_AHEAD = 1 << 14
_MAX_HEAD = 1 << 18
_PIECE = 1 << 18
_START = (
    rb"(?:(?P<warc>WARC/\d\.\d{1,2}[ \t]*\r?\n)(?=[A-Za-z][A-Za-z0-9-]*[ \t]*:)"
    # URL (of any characters), address, date, [type and, in version 2, five more], length
    rb"|(?P<url>[A-Za-z][A-Za-z0-9+.-]{0,30}:[^\r\n]{0,8192}) (?:[0-9.]{7,15}|[0-9A-Fa-f:.]{2,45}|-) "
    rb"(?P<date>\d{8,18}) (?:(?P<more>[^\r\n]{0,4096}) )?(?P<length>[^\s]{1,20})[ \t]*\r?\n)"
)
_HERE = re.compile(_START)
# Where a record was cut, or its last line end is damaged, the next one does not begin a line: more is asked of it.
_WITHIN_A_LINE = rb"WARC/[01]\.\d{1,2}\r\n(?=(?:WARC|Content)-[A-Za-z-]{1,40}:)"
_NEXT = re.compile(rb"(?<=\n)" + _START + rb"|" + _WITHIN_A_LINE)
# Fields end where another record begins, so that a file of beginnings alone is read in linear time. An address may end
# like a beginning.
_BLANK_LINE = re.compile(rb"\n\r?\n")
_NO_FIELD = re.compile(rb"\n(?=WARC/\d\.\d{1,2}[ \t]*\r?\n[A-Za-z][A-Za-z0-9-]*[ \t]*:)|(?<!/)" + _WITHIN_A_LINE)
_LINE_ENDS = re.compile(rb"[\r\n]*")
_LAST_LINE_ENDS = re.compile(rb"(?:\r?\n){1,2}\Z")
_ARC_TYPE_FIELDS = 6
_DIGESTS = ("warc-block-digest", "warc-payload-digest")


class Frame(NamedTuple):
    """One record, or a stretch of bytes that are none.

    Attributes
    ----------
    fields
        Header fields by lower-case name; those of ARC under the names that WARC has for them.
    block
        What the record holds; of what could not be read, the beginning.
    end
        Byte of the decompressed content at which the next record can be looked for; -1 after a hole in it.
    arc
        Whether it is an ARC record.
    error, message
        Why it could not be read ("" if it could): `bad-warc`, `too-long` or `broken-stream`.
    """

    fields: dict[str, str]
    block: bytes
    end: int
    arc: bool = False
    error: str = ""
    message: str = ""


def read_frames(content: Content, offset: int, max_bytes: int) -> Iterator[tuple[int, Frame]]:
    """Every record with the byte it begins at; what cannot be read is a frame with an `error`.

    Parameters
    ----------
    content
        Begins where a record does.
    offset
        Where `content` begins, in decompressed bytes.
    max_bytes
        Longer blocks are passed over; a little more than twice this much is held in memory.
    """
    reading = _Frames(content, offset, max_bytes)
    try:
        yield from reading.read()
    finally:
        reading.close()


class _Frames:
    """`data` holds what was read and `at` is where the next record begins in it; `data` begins at byte `base`."""

    def __init__(self, content: Content, offset: int, max_bytes: int) -> None:
        self._content = content
        self._segments = _Ahead(content.segments())
        self._max_bytes = max_bytes
        self._data = b""
        self._at = 0
        self._base = offset
        self._ended = False  # no more bytes before the next hole
        self._hole: Gap | None = None
        self._seen_hole = False

    def read(self) -> Iterator[tuple[int, Frame]]:
        while True:
            self._pass_line_ends()
            begin = self._base + self._at
            frame = None
            if self._at < len(self._data):
                frame = self._frame()
                if frame is not None and self._is_suspect(begin):
                    self._at = begin - self._base  # it is a part of what is lost
                elif frame is not None:
                    yield begin, frame._replace(end=-1) if self._seen_hole else frame
                    continue
            if self._hole is None:
                if self._content.broken:
                    message = f"{self._content.broken}; the rest of the file is lost"
                    yield begin, self._problem("broken-stream", message, self._data[self._at :])
                return
            message, self._hole, self._seen_hole = self._hole.message, None, True
            lost = self._data[self._at :]
            self._base += len(self._data)
            self._data, self._at, self._ended = b"", 0, False
            yield begin, Frame({}, lost[:_AHEAD], -1, error="broken-stream", message=message)

    def close(self) -> None:
        """Give back what was kept on the disk."""
        self._segments.close()

    def _fill(self, size: int) -> None:
        """Have `size` bytes from `at` on, or all there are."""
        missing = size - (len(self._data) - self._at)
        if missing <= 0 or self._ended:
            return
        parts = [self._data[self._at :]]
        while missing > 0:
            chunk = self._segments.next()
            if chunk is None or isinstance(chunk, Gap):
                self._ended, self._hole = True, chunk
                break
            parts.append(chunk)
            missing -= len(chunk)
        self._base += self._at
        self._data, self._at = b"".join(parts), 0

    def _pass_line_ends(self) -> None:
        while True:
            found = _LINE_ENDS.match(self._data, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._data) or self._ended:
                return
            self._fill(_AHEAD)

    @property
    def _torn(self) -> bool:
        """Whether what has been read ends where a stream broke."""
        return self._ended and (self._hole is not None or self._content.broken != "")

    def _is_suspect(self, begin: int) -> bool:
        """Whether a record that has been read belongs to the end of compressed data that turned out to be damaged.

        Where every record is compressed by itself, as usual, that is the record whose checksum is wrong.
        """
        suspect = self._content.suspect if self._hole is None else self._hole.suspect
        return self._torn and suspect is not None and suspect <= begin and len(self._data) - self._at < _AHEAD

    def _problem(
        self, error: str, message: str, data: bytes, fields: dict[str, str] | None = None, arc: bool = False
    ) -> Frame:
        return Frame(fields or {}, data[:_AHEAD], self._base + self._at, arc, error, message)

    def _frame(self) -> Frame | None:
        """The record or the garbage that begins here; None for a part of a record at a broken end."""
        self._fill(_AHEAD)
        start = _HERE.match(self._data, self._at)
        if start is None:
            return self._garbage("no record begins here")
        arc = start["warc"] is None
        if arc:
            fields, head = _arc_fields(start), start.end() - self._at
        else:
            lines = start.end() - self._at
            end = self._end_of_fields(lines)
            if end is None:
                return self._garbage("the header of the record does not end")
            head = end
            fields = parse_fields(self._data[self._at + lines : self._at + head])
            if not self._data.endswith(b"\r\n\r\n", self._at, self._at + head):
                for name in _DIGESTS:  # of other bytes, before somebody changed the line ends
                    fields.pop(name, None)
        length = _length(fields.get("content-length", ""))
        if length is not None and length > self._max_bytes:
            if self._passes_over(head, length, arc):
                message = f"the block has {length} bytes, max_record_bytes is {self._max_bytes}"
                return Frame(fields, b"", self._base + self._at, arc, "too-long", message)
        elif length is not None:
            self._fill(head + length + _AHEAD)
            begin, stop = self._at + head, self._at + head + length
            if _can_end(self._data, stop, self._ended, arc):
                self._at = stop
                return Frame(fields, self._data[begin:stop], self._base + stop, arc)
        return self._to_the_next(fields, head, length, arc)

    def _end_of_fields(self, size: int) -> int | None:
        """Length of the header, which is longer than `size`; None if it does not end."""
        known = _AHEAD
        while True:
            self._fill(known)
            begin, end = self._at + size - 1, self._at + known
            found = _BLANK_LINE.search(self._data, begin, end)
            if found:
                end = found.end()
            if self._data.find(b"WARC/", begin, end) >= 0 and _NO_FIELD.search(self._data, begin, end):
                return None
            if found:
                return end - self._at
            if known >= _MAX_HEAD or (self._ended and known >= len(self._data) - self._at):
                return None
            known *= 2

    def _to_the_next(self, fields: dict[str, str], head: int, length: int | None, arc: bool) -> Frame | None:
        """The record whose length is not believed: it goes to the next one, or to the end."""
        size = head + _PIECE
        searched = head
        while True:
            self._fill(size + _AHEAD)
            found = _NEXT.search(self._data, self._at + searched)
            if found is not None and found.start() - self._at - head <= self._max_bytes + 4:
                stop = found.start()
                break
            if self._ended or found is not None or size - head > self._max_bytes:
                if self._torn and found is None:
                    return None
                stop = len(self._data) if self._ended and found is None else self._at + size
                break
            searched = max(head, size)
            size = min(size * 2, head + self._max_bytes + _PIECE)
        whole = self._data[self._at + head : stop]
        block = _LAST_LINE_ENDS.sub(b"", whole)
        if len(block) > self._max_bytes:
            self._at += head
            self._seek()
            message = f"the block has no believable length and more than max_record_bytes ({self._max_bytes}) bytes"
            return self._problem("too-long", message, block, fields, arc)
        self._at = stop
        end = self._base + stop
        if length is not None and len(whole) < length:
            lost = 0 if b"\r\n" in whole else whole.count(b"\n")
            if length - len(whole) > lost:
                message = f"the block should have {length} bytes, the next record or the end comes after {len(whole)}"
                return Frame(fields, block, end, arc, "bad-warc", message)
        return Frame(fields, block, end, arc)

    def _passes_over(self, head: int, length: int, arc: bool) -> bool:
        """Pass over a block that is too long, if its length is right; else nothing is passed over."""
        if length > LONGEST_BELIEVED:
            return False
        stop = self._at + head + length
        beyond = stop - len(self._data)
        if beyond <= 0:
            self._fill(head + length + _AHEAD)
            stop = self._at + head + length
            if not _can_end(self._data, stop, self._ended, arc):
                return False
            self._at = stop
            return True
        after = None if self._ended else self._segments.look(beyond, _AHEAD)
        if after is None or not _can_end(after, 0, len(after) < _AHEAD, arc):
            return False
        self._segments.skip(beyond)
        self._base += stop
        self._data, self._at = b"", 0
        return True

    def _garbage(self, message: str) -> Frame | None:
        """A stretch that is no record, to the next one."""
        begin = self._base + self._at
        excerpt = self._data[self._at : self._at + _AHEAD]
        found = self._seek()
        if not found and self._torn:
            return None
        size = self._base + self._at - begin
        return self._problem("bad-warc", f"{message}: {size} bytes from byte {begin} on are passed over", excerpt)

    def _seek(self) -> bool:
        """Go to the next record behind this place; False if there is none."""
        while True:
            self._fill(_PIECE)
            found = _NEXT.search(self._data, self._at + 1)
            if found is not None:
                self._at = found.start()
                return True
            if self._ended:
                self._at = len(self._data)
                return False
            self._at = max(self._at, len(self._data) - _AHEAD)


class _Ahead:
    """Chunks and holes of a content that can be looked into far ahead: what lies between is kept on the disk.

    Every byte goes there once at most, however often and far is looked.
    """

    def __init__(self, segments: Iterator[bytes | Gap]) -> None:
        self._segments = segments
        self._file: BinaryIO | None = None
        self._given = 0  # bytes of the file that were given
        self._kept = 0
        self._next: list[Gap | None] = []  # what comes after what is kept, if that is no chunk

    def next(self) -> bytes | Gap | None:
        """The next chunk or hole, None at the end."""
        if self._file is not None and self._given < self._kept:
            self._file.seek(self._given)
            piece = self._file.read(min(_PIECE, self._kept - self._given))
            self._given += len(piece)
            return piece
        self.close()
        return self._next.pop() if self._next else next(self._segments, None)

    def look(self, distance: int, size: int) -> bytes | None:
        """Bytes that come after `distance` more: fewer where all ends; None if it ends before."""
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
        self._file.seek(self._kept)
        while self._kept - self._given < distance + size and not self._next:
            chunk = next(self._segments, None)
            if chunk is None or isinstance(chunk, Gap):
                self._next.append(chunk)
            else:
                self._file.write(chunk)
                self._kept += len(chunk)
        if self._kept - self._given < distance:
            return None
        self._file.seek(self._given + distance)
        return self._file.read(size)

    def skip(self, distance: int) -> None:
        """Pass over bytes that were looked beyond."""
        self._given += distance

    def close(self) -> None:
        """Give back what is on the disk."""
        if self._file is not None:
            self._file.close()
            self._file, self._given, self._kept = None, 0, 0


def _can_end(data: bytes, stop: int, ended: bool, arc: bool) -> bool:
    """Whether a block can end at this place of `data`; `ended`: nothing follows `data`."""
    if data.startswith(b"\r\n\r\nWARC/", stop):
        return True
    if stop > len(data):
        return False
    line_ends = _LINE_ENDS.match(data, stop)
    after = line_ends.end() if line_ends else stop
    if after == len(data) and ended:
        return True
    return _HERE.match(data, after) is not None or data.startswith(b"\n" if arc else b"\r\n\r\n", stop)


def _length(value: str) -> int | None:
    value = value.strip()
    return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None


def _arc_fields(start: re.Match[bytes]) -> dict[str, str]:
    """Fields of an ARC record's line: URL, address, date, type, [status, checksum, location, offset, file,] length."""
    url, date, length = (start[name].decode("utf-8", "backslashreplace") for name in ("url", "date", "length"))
    more = (start["more"] or b"").decode("utf-8", "backslashreplace").split(" ")
    kind = " ".join(more[: len(more) - _ARC_TYPE_FIELDS + 1]) if len(more) >= _ARC_TYPE_FIELDS else " ".join(more)
    return {"warc-target-uri": url, "warc-date": date, "content-type": kind, "content-length": length}
