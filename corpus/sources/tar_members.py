"""Members of tar archives as they stream by: of any dialect, compressed or not, wherever they lie."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from corpus.sources.members import Member, trouble
from corpus.sources.streams import Content

BLOCK = 512
_MAX_NAME = 1 << 16
_EXTENDED = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_FOLDERS = (tarfile.DIRTYPE, b"D")  # D: a folder with a list of what is in it
# Their size, if they have one, is that of what they stand for.
_WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
_SPARSE_MORE, _SPARSE_MORE_IN_BLOCK = 482, 504


def is_header(block: bytes) -> bool:
    """Whether a block's checksum fits: the sum of its bytes, the checksum's own taken as spaces."""
    try:
        said = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    rest = block[:148] + block[156:BLOCK]
    if len(block) < BLOCK or not any(rest):
        return False
    total = 256 + sum(rest)
    # Some old writers added the bytes as signed ones.
    return said == total or said == total - 256 * sum(byte > 127 for byte in rest)


def tar_members(content: Content) -> Iterator[Member]:
    """All members, folders aside; each must be done with before the next one is asked for.

    A damaged header costs its member; what is cut off or cannot be decompressed costs the rest.
    """
    stream = _Stream(content)
    yield from _Reader(content, stream).members()
    while stream.read(1 << 18):  # what lies behind the end, so that all of the file has gone by
        pass


class _Stream:
    """Reads over the chunks of a content."""

    def __init__(self, content: Content) -> None:
        self._chunks = iter(content)
        self._data = b""
        self._at = 0
        self.position = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes of one chunk; b"" at the end."""
        if self._at == len(self._data):
            self._data, self._at = next(self._chunks, b""), 0
        data = self._data[self._at : self._at + size]
        self._at += len(data)
        self.position += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""
        pieces = []
        while size and (data := self.read(size)):
            pieces.append(data)
            size -= len(data)
        return b"".join(pieces)

    def skip(self, size: int) -> None:
        while size and (data := self.read(size)):
            size -= len(data)


class _TarMember(io.RawIOBase):
    def __init__(self, content: Content, stream: _Stream, size: int) -> None:
        self._content = content
        self._stream = stream
        self.left = size
        self.padding = -size % BLOCK
        self.broken = ""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(data)
        if not data and self.left and size:
            why = self._content.broken or "the archive is cut off"
            self.broken = f"{why}; {self.left} bytes of the member and what follows in the archive are missing"
        return data


class _Reader:
    def __init__(self, content: Content, stream: _Stream) -> None:
        self._content = content
        self._stream = stream
        self._extended: dict[str, str] = {}  # from extended headers, for the member that follows
        self._open = _TarMember(content, stream, 0)

    def members(self) -> Iterator[Member]:
        zeros = 0
        while len(block := self._stream.exactly(BLOCK)) == BLOCK:
            if not any(block):
                zeros += 1
                continue
            if not is_header(block):
                if zeros >= 2:
                    return  # behind the end of an archive anything may lie
                lost = self._stream.position - BLOCK
                while len(block) == BLOCK and any(block) and not is_header(block):
                    block = self._stream.exactly(BLOCK)
                if len(block) < BLOCK:
                    break
                lost = self._stream.position - BLOCK - lost
                yield trouble("bad-archive", f"no header where one should be; {lost} bytes up to the next are lost")
                self._extended = {}
                zeros = 0 if any(block) else 1
                if zeros:
                    continue
            zeros = 0
            self._open = _TarMember(self._content, self._stream, 0)
            member = self._member(block)
            if member is None:
                continue
            yield member
            if self._open.broken:
                return  # whoever read it has told
            self._stream.skip(self._open.left + self._open.padding)
        if self._content.broken or not zeros or block:
            message = self._content.broken or "the archive ends without its end mark"
            yield trouble("broken-stream", f"{message}; what follows in the archive is lost")

    def _member(self, block: bytes) -> Member | None:
        """The member of a header, None for folders and extended headers."""
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            return trouble("bad-archive", f"a header cannot be read: {error}")
        size = max(0, info.size)
        if info.type in _EXTENDED or info.type == tarfile.XGLTYPE:
            data = self._stream.exactly(min(size, _MAX_NAME))
            self._stream.skip(size - len(data) + -size % BLOCK)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                self._extended["path"] = _text(data.rstrip(b"\0"))
            elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                self._extended |= _pairs(data)
            return None
        extended, self._extended = self._extended, {}
        name = extended.get("GNU.sparse.name") or extended.get("path") or info.name
        said = extended.get("size", "")
        if said.isdecimal() and len(said) < 20:
            size = int(said)
        sparse = info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in extended)
        if info.type == tarfile.GNUTYPE_SPARSE:
            more = block[_SPARSE_MORE]
            while more and len(block := self._stream.exactly(BLOCK)) == BLOCK:
                more = block[_SPARSE_MORE_IN_BLOCK]
        if info.isreg() and not sparse:
            self._open = _TarMember(self._content, self._stream, size)
            return Member(name, cast(BinaryIO, self._open))
        if info.type not in _WITHOUT_DATA and info.type != tarfile.DIRTYPE:
            self._stream.skip(size + -size % BLOCK)
        if info.type in _FOLDERS:
            return None
        if sparse:
            return Member(name, problem=("bad-archive", "a file with holes (sparse): pack it without --sparse"))
        return Member(name, special=True)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _pairs(data: bytes) -> dict[str, str]:
    """The fields of a pax header: lines of "LENGTH key=value"."""
    pairs, at = {}, 0
    while at < len(data):
        length, space, _ = data[at : at + 20].partition(b" ")
        if not space or not length.isdigit() or not int(length):
            break
        key, _, value = data[at + len(length) + 1 : at + int(length) - 1].partition(b"=")
        pairs[_text(key)] = _text(value)
        at += int(length)
    return pairs
