"""Members of zip and tar archives, one after the other, each accounted for. Nothing is ever written by their names.

Tar is read as it streams by, so it may be compressed and lie anywhere; zip needs a file that can seek.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from corpus.sources.streams import BOMB_BYTES, BOMB_RATIO, Content

PATTERNS = ("*.zip", "*.tar", "*.tgz", *(f"*.tar{suffix}" for suffix in (".gz", ".zst", ".bz2", ".xz", ".lz4")))
"""Usual names of archives; what is one is found by its content."""

MAX_ZIP_MEMBERS = 1_000_000
"""A zip's table of contents is held in memory; tar archives may have any number of members."""
_MAX_ZIP_TABLE = 256 << 20
_TRACKED_NAMES = 1_000_000
"""So many names are remembered to tell members of one name apart."""

_BLOCK = 512
_MAX_NAME = 1 << 16
_BROKEN_MEMBER = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    struct.error,
)


@dataclass
class Member:
    """A member of an archive, or what is wrong with it.

    Attributes
    ----------
    name
        As it becomes part of uris: relative, with forward slashes, printable, different from all others.
    problem
        ("unsafe-name", …) and the like with a message, if it cannot be read.
    skipped
        Why it is by its kind no file ("archive-special-member"), or "".
    raw
        Its bytes.
    """

    name: str
    raw: BinaryIO | None = None
    problem: tuple[str, str] | None = None
    skipped: str = ""


def archive_kind(head: bytes) -> str:
    """ "zip", "tar" or "" by the first bytes (512 for tar) of a file, decompressed."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08PK\x03\x04")):
        return "zip"
    if len(head) >= _BLOCK and (head[257:262] == b"ustar" or _is_header(head[:_BLOCK])):
        return "tar"
    return ""


def members(kind: str, content: Content) -> Iterator[Member]:
    """All members in their order, folders aside. Each must be done with before the next one is asked for.

    Damage is told as members with a `problem`; what can be read after it is.
    """
    names = _Names()
    stream = _Stream(content)
    for member in _zip_members(content) if kind == "zip" else _tar_members(content, stream):
        if member.problem is None and not member.skipped:
            safe, wrong = safe_name(member.name)
            member.name = names.distinct(safe)
            if wrong:
                member.problem = ("unsafe-name", f"the name of the member {wrong}")
        else:
            member.name = names.distinct(safe_name(member.name)[0])
        yield member
    if kind == "tar":
        while stream.read(1 << 18):  # padding, so that all of the file has gone by
            pass


def safe_name(name: str) -> tuple[str, str]:
    """A name as it stands in uris, and what is wrong with it, "" if nothing."""
    wrong = ""
    if name.startswith(("/", "\\")) or name[1:3] in (":\\", ":/"):
        wrong = "is absolute"
    steps = name.replace("\\", "/").split("/")
    if ".." in steps:
        wrong = "leads out of the archive"
    if "\0" in name:
        wrong = "has a NUL in it"
    steps = [step for step in steps if step not in ("", ".", "..")]
    text = "/".join(steps).encode("utf-8", "backslashreplace").decode()
    text = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return text[:1024] or "member", wrong


class _Names:
    def __init__(self) -> None:
        self._seen: set[int] = set()

    def distinct(self, name: str) -> str:
        """The name, with ~2, ~3 … before its ending if it was there before."""
        found, number = name, 1
        while (key := int.from_bytes(hashlib.blake2b(found.encode(), digest_size=8).digest())) in self._seen:
            number += 1
            folder, slash, last = name.rpartition("/")
            stem, dot, ending = last.partition(".")
            found = f"{folder}{slash}{stem}~{number}{dot}{ending}"
        if len(self._seen) < _TRACKED_NAMES:
            self._seen.add(key)
        return found


class _Guarded(io.RawIOBase):
    """Bytes of a member: what is damaged ends it, with the reason in `broken`; faults of the disk are raised."""

    def __init__(self, raw: Any, packed: int) -> None:
        self._raw = raw
        self._packed = packed
        self._given = 0
        self.broken = ""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self.broken:
            return b""
        try:
            data: bytes = self._raw.read(size)
        except _BROKEN_MEMBER as error:
            self.broken = f"damaged member: {error or type(error).__name__}"
            return b""
        except OSError as error:
            if error.errno is not None or isinstance(error, (ConnectionError, TimeoutError)):
                raise
            self.broken = f"damaged member: {error}"  # bzip2's way to say it
            return b""
        self._given += len(data)
        if self._given > BOMB_BYTES and self._given > BOMB_RATIO * max(1, self._packed):
            self.broken = f"the member is a decompression bomb: {self._packed} bytes gave more than {BOMB_BYTES}"
            return b""
        return data


# ---------------------------------------------------------------------------------------------------------------- zip


def _zip_members(content: Content) -> Iterator[Member]:
    with content.file() as raw:
        if raw is None:
            yield Member("archive", problem=("broken-stream", f"{content.broken}; all of the archive is lost"))
            return
        try:
            entries, table = _zip_table(raw)
            if entries > MAX_ZIP_MEMBERS or table > _MAX_ZIP_TABLE:
                message = f"the archive has {entries:,} members, more than {MAX_ZIP_MEMBERS:,}: unpack it first"
                yield Member("archive", problem=("too-many-members", message))
                return
            raw.seek(0)
            archive = zipfile.ZipFile(raw)
        except _BROKEN_MEMBER as error:
            yield Member("archive", problem=("bad-archive", f"not a readable zip archive: {error}"))
            return
        with archive:
            overlapping = _overlapping(archive.infolist())
            for info in archive.infolist():
                if info.is_dir():
                    continue
                mode = info.external_attr >> 16
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                    yield Member(info.filename, skipped="archive-special-member")
                elif info.header_offset in overlapping:
                    yield Member(info.filename, problem=("bad-archive", "the member lies over another one"))
                elif info.flag_bits & 1:
                    yield Member(info.filename, problem=("encrypted-member", "the member is encrypted"))
                else:
                    yield _open_zip_member(archive, info)


def _open_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    try:
        opened = archive.open(info)
    except _BROKEN_MEMBER as error:
        return Member(info.filename, problem=("bad-archive", f"the member cannot be read: {error}"))
    except OSError as error:
        if error.errno is not None:
            raise
        return Member(info.filename, problem=("bad-archive", f"the member cannot be read: {error}"))
    return Member(info.filename, _Guarded(opened, info.compress_size))  # type: ignore[arg-type]


def _zip_table(raw: BinaryIO) -> tuple[int, int]:
    """How many members a zip says it has, and the bytes of its table of contents, from the record at its end."""
    size = raw.seek(0, io.SEEK_END)
    raw.seek(max(0, size - 65_557 - 20))
    tail = raw.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise zipfile.BadZipFile("its table of contents is missing: the file is cut off or damaged")
    entries, table = struct.unpack_from("<HL", tail, at + 10)
    if at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":
        (place,) = struct.unpack_from("<Q", tail, at - 12)
        raw.seek(place)
        record = raw.read(56)
        if record[:4] == b"PK\x06\x06" and len(record) == 56:
            entries, table = struct.unpack_from("<QQ", record, 32)
    return entries, table


def _overlapping(infos: list[zipfile.ZipInfo]) -> set[int]:
    """Offsets of members that begin before the one before them ends: archives that inflate to many times their size."""
    found = set()
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            found.add(info.header_offset)
        end = max(end, info.header_offset + 30 + info.compress_size)
    return found


# ---------------------------------------------------------------------------------------------------------------- tar


class _Stream:
    """Exact reads over the chunks of a content."""

    def __init__(self, content: Content) -> None:
        self._chunks = iter(content)
        self._data = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes of one chunk; b"" at the end."""
        if self._at == len(self._data):
            self._data, self._at = next(self._chunks, b""), 0
        data = self._data[self._at : self._at + size]
        self._at += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""
        pieces = []
        while size and (data := self.read(size)):
            pieces.append(data)
            size -= len(data)
        return b"".join(pieces)

    def skip(self, size: int) -> bool:
        while size and (data := self.read(size)):
            size -= len(data)
        return not size


class _TarMember(io.RawIOBase):
    def __init__(self, stream: _Stream, size: int) -> None:
        self._stream = stream
        self.left = size
        self.broken = ""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(data)
        if not data and self.left and size:
            self.broken = f"the archive ends {self.left} bytes before the end of the member"
        return data


def _is_header(block: bytes) -> bool:
    """Whether a block's checksum fits: the sum of its bytes, the checksum's own taken as spaces."""
    if len(block) < _BLOCK or not any(block):
        return False
    try:
        said = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    rest = block[:148] + block[156:_BLOCK]
    # Some old writers added the bytes as signed ones.
    return said in (256 + sum(rest), 256 + sum(byte - 256 * (byte > 127) for byte in rest))


def _tar_members(content: Content, stream: _Stream) -> Iterator[Member]:
    name, size = "", None  # from extended headers, for the member that follows
    zeros = 0
    while True:
        block = stream.exactly(_BLOCK)
        if len(block) < _BLOCK:
            if content.broken or not zeros:
                message = content.broken or "the archive ends without its end mark"
                yield Member("archive", problem=("broken-stream", f"{message}; the rest of the archive is lost"))
            return
        if not any(block):
            zeros += 1
            continue
        if zeros >= 2 and not _is_header(block):
            return  # what lies behind the end of an archive is padding
        zeros = 0
        if not _is_header(block):
            lost = len(block)
            while len(block) == _BLOCK and not _is_header(block) and any(block):
                block = stream.exactly(_BLOCK)
                lost += len(block)
            message = f"no header where one should be; {lost - len(block)} bytes up to the next one are lost"
            yield Member("archive", problem=("bad-archive", message))
            if not _is_header(block):
                continue
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            yield Member("archive", problem=("bad-archive", f"a header cannot be read: {error}"))
            continue
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE):
            data = stream.exactly(min(info.size, _MAX_NAME))
            stream.skip(-info.size % _BLOCK + info.size - len(data))
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif info.type == tarfile.XHDTYPE:
                name, size = _extended(data, name, size)
            continue
        length = info.size if size is None else size
        found = name or info.name
        name, size = "", None
        if info.isdir():
            continue
        if not info.isreg():
            yield Member(found, skipped="archive-special-member")
            if info.type == tarfile.GNUTYPE_SPARSE:
                stream.skip(length + -length % _BLOCK)
            continue
        raw = _TarMember(stream, length)
        yield Member(found, raw)  # type: ignore[arg-type]
        if raw.broken:
            return  # whoever read it has told
        stream.skip(raw.left + -length % _BLOCK)


def _extended(data: bytes, name: str, size: int | None) -> tuple[str, int | None]:
    """Path and size from a pax header: lines of "LENGTH key=value"."""
    at = 0
    while at < len(data):
        length, space, _ = data[at : at + 20].partition(b" ")
        if not space or not length.isdigit() or not int(length):
            break
        key, _, value = data[at + len(length) + 1 : at + int(length) - 1].partition(b"=")
        if key == b"path":
            name = value.decode("utf-8", "surrogateescape")
        elif key == b"size" and value.isdigit():
            size = int(value)
        at += int(length)
    return name, size
