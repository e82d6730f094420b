"""Members of zip archives (PKWARE's APPNOTE.TXT, 6.3), in the order of the table of contents at the archive's end.

Where that table is missing, as in an archive that was cut off, members are found by the headers that stand before them.
"""

from __future__ import annotations

import bz2
import io
import lzma
import stat
import struct
from array import array
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from corpus.sources import streams
from corpus.sources.compression import MOST, XZ_MEMORY, ZstdDecoder, feed
from corpus.sources.members import Member, trouble
from corpus.sources.streams import Content

MAX_ZIP_MEMBERS = 1_000_000
"""More are not read: where members lie is held in memory, to see that none lies over another."""

_MEMBER = b"PK\x03\x04"
_ENTRY = b"PK\x01\x02"
_END = b"PK\x05\x06"
_MEMBER_HEADER = struct.Struct("<4s5H3L2H")
_ENTRY_HEADER = struct.Struct("<4s6H3L5H2L")
_END_RECORD = struct.Struct("<4s4H2LH")
_LONGEST_COMMENT = 0xFFFF
_ENCRYPTED, _SIZES_BEHIND, _LZMA_END_MARK, _UTF8 = 1, 1 << 3, 1 << 1, 1 << 11
_PIECE = 1 << 16
_NOWHERE = 1 << 62


class _Entry(NamedTuple):
    """What a table of contents, or the header before a member, says of it."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    attributes: int
    begin: int


class _Table(NamedTuple):
    """Where the table of contents lies, and by how much all places are off (something stands before the archive)."""

    begin: int
    end: int
    shift: int


def zip_members(content: Content) -> Iterator[Member]:
    """All members, folders aside; a damaged one, or a damaged entry of the table of contents, costs itself."""
    with content.file() as raw:
        if raw is None:
            yield trouble("broken-stream", f"{content.broken}; all of the archive is lost")
            return
        file = _File(raw)
        table = _find_table(file)
        if table is None:
            yield from (_member(content, file, entry) for entry in _walk(file) if not _is_folder(entry))
            yield trouble("bad-archive", "the table of contents is missing: the archive is cut off or damaged")
            return
        places = _places(file, table)
        if places is None:
            yield trouble("too-many-members", f"the archive has more than {MAX_ZIP_MEMBERS:,} members: unpack it first")
            return
        refused = _overlapping(file, places)
        number = 0
        for entry in _entries(file, table):
            if isinstance(entry, str):
                yield trouble("bad-archive", entry)
                continue
            if _is_folder(entry):
                pass
            elif number in refused:
                yield Member(entry.name, problem=("bad-archive", "the member lies over the next one"))
            else:
                yield _member(content, file, entry)
            number += 1


def _places(file: _File, table: _Table) -> Any:
    """Where members begin and end at least, a row each; None if there are too many."""
    places = array("q")
    for entry in _entries(file, table):
        if isinstance(entry, _Entry):
            if len(places) >= 2 * MAX_ZIP_MEMBERS:
                return None
            begin = min(entry.begin, file.length)
            places.extend((begin, begin + _MEMBER_HEADER.size + min(entry.packed, file.length)))
    return np.frombuffer(places, np.int64).reshape(-1, 2) if places else np.empty((0, 2), np.int64)


def _find_table(file: _File) -> _Table | None:
    length = file.length
    tail = file.read(max(0, length - _END_RECORD.size - _LONGEST_COMMENT), length)
    at = len(tail)
    while (at := tail.rfind(_END, 0, at)) >= 0:
        if len(tail) - at < _END_RECORD.size:
            continue
        *_, size, offset, _ = _END_RECORD.unpack_from(tail, at)
        end = length - len(tail) + at
        if at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":  # zip64: the record before says more
            (place,) = struct.unpack_from("<Q", tail, at - 12)
            for found in (place, end - 20 - 56):
                record = file.read(found, 56)
                if record[:4] == b"PK\x06\x06" and len(record) == 56:
                    size, offset = struct.unpack_from("<QQ", record, 40)
                    end = found
                    break
        for begin, shift in ((end - size, end - size - offset), (offset, 0)):
            if 0 <= begin <= end and (begin == end or file.read(begin, 4) == _ENTRY):
                return _Table(begin, end, shift)
    return None


class _File:
    """An archive that is read here and there; damage leads to places that no file has."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.length = raw.seek(0, io.SEEK_END)

    def read(self, begin: int, size: int) -> bytes:
        """Up to `size` bytes from a place on, none where there is no such place."""
        if not 0 <= begin < self.length:
            return b""
        self._raw.seek(begin)
        return self._raw.read(size)


class _Window:
    """Bytes of a file by their place, read ahead."""

    def __init__(self, file: _File, end: int) -> None:
        self._file = file
        self._end = end
        self._data = b""
        self._begin = 0

    def at(self, begin: int, size: int) -> bytes:
        """`size` bytes, fewer at the end."""
        size = max(0, min(size, self._end - begin))
        if not (self._begin <= begin and begin + size <= self._begin + len(self._data)):
            self._data, self._begin = self._file.read(begin, max(size, min(_PIECE, self._end - begin))), begin
        return self._data[begin - self._begin : begin - self._begin + size]

    def find(self, what: bytes, begin: int) -> int:
        """Where the next one begins, from `begin` on; the end if there is none."""
        if self.at(begin, len(what)) == what:
            return begin
        while begin < self._end:
            data = self.at(begin, _PIECE)
            found = data.find(what)
            if found >= 0:
                return begin + found
            begin += max(1, len(data) - len(what) + 1)
        return self._end


def _entries(file: _File, table: _Table) -> Iterator[_Entry | str]:
    """What the table of contents holds; a string for a stretch of it that is damaged."""
    window = _Window(file, table.end)
    at = table.begin
    while at < table.end:
        data = window.at(at, _ENTRY_HEADER.size)
        if len(data) < _ENTRY_HEADER.size or data[:4] != _ENTRY:
            begin, at = at, window.find(_ENTRY, at + 1)
            yield f"{at - begin} bytes of the table of contents are damaged"
            continue
        fields = _ENTRY_HEADER.unpack(data)
        flags, method = fields[3:5]
        crc, packed, size, name_length, extra_length, comment_length = fields[7:13]
        attributes, begin = fields[15:17]
        rest = window.at(at + _ENTRY_HEADER.size, name_length + extra_length)
        packed, size, begin = _wide(rest[name_length:], packed, size, begin)
        name = _name(rest[:name_length], flags)
        if table.shift:
            begin = _moved(file, begin, table.shift, rest[:name_length])
        yield _Entry(name, flags, method, crc, packed, size, attributes, begin)
        following = at + _ENTRY_HEADER.size + name_length + extra_length + comment_length
        if following != table.end and window.at(following, 4) != _ENTRY:  # one of the lengths is damaged
            following = window.find(_ENTRY, at + _ENTRY_HEADER.size)
        at = following


def _moved(file: _File, begin: int, shift: int, name: bytes) -> int:
    """Where a member begins, if something stands before the archive, or something was lost or put in further on."""
    for place in (begin + shift, begin):
        if place >= 0:
            header = file.read(place, _MEMBER_HEADER.size + len(name))
            if header[:4] == _MEMBER and header[_MEMBER_HEADER.size :] == name:
                return place
    return _NOWHERE  # another member may stand where it should


def _walk(file: _File) -> Iterator[_Entry]:
    """What the headers before members say, one member after the other."""
    length = file.length
    window = _Window(file, length)
    at = 0
    while (at := window.find(_MEMBER, at)) < length:
        data = window.at(at, _MEMBER_HEADER.size)
        if len(data) < _MEMBER_HEADER.size:
            return
        _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _MEMBER_HEADER.unpack(data)
        rest = window.at(at + _MEMBER_HEADER.size, name_length + extra_length)
        if len(rest) < name_length + extra_length:
            at += len(_MEMBER)
            continue
        packed, size, _ = _wide(rest[name_length:], packed, size, 0)
        begin = at + _MEMBER_HEADER.size + name_length + extra_length
        if flags & _SIZES_BEHIND and not packed:
            # Up to what comes next, with the sizes that stand behind the member.
            crc = size = -1
            packed = min(window.find(_MEMBER, begin), window.find(_ENTRY, begin)) - begin
        yield _Entry(_name(rest[:name_length], flags), flags, method, crc, packed, size, 0, at)
        # Only if something follows where the member should end it ends there.
        follows = begin + packed < length and window.at(begin + packed, 2) == b"PK"
        at = begin + packed if follows else max(begin, at + 4)


def _wide(extra: bytes, packed: int, size: int, begin: int) -> tuple[int, int, int]:
    """Sizes and place as zip64's extra field has them, where the header has no room."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            values = list(struct.unpack_from(f"<{len(field) // 8}Q", field))
            size = values.pop(0) if size == 0xFFFFFFFF and values else size
            packed = values.pop(0) if packed == 0xFFFFFFFF and values else packed
            begin = values.pop(0) if begin == 0xFFFFFFFF and values else begin
        at += 4 + length
    return packed, size, begin


def _name(data: bytes, flags: int) -> str:
    """UTF-8 where it is said or fits, as many writers do not say it; else code page 437."""
    if flags & _UTF8:
        return data.decode("utf-8", "surrogateescape")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp437")


def _is_folder(entry: _Entry) -> bool:
    return entry.name.endswith(("/", "\\")) and not entry.size


def _overlapping(file: _File, places: Any) -> set[int]:
    """Numbers of members that reach into the one that begins next: archives that inflate to many times their size.

    Entries that point to no member at all are left out of it, so that a damaged one does not cost its neighbour.
    """
    order = np.argsort(places[:, 0], kind="stable")

    def reaching(order: Any) -> Any:
        return order[:-1][places[order[:-1], 1] > places[order[1:], 0]]

    if len(reaching(order)):
        order = order[[file.read(int(places[number, 0]), 4) == _MEMBER for number in order]]
    return set(reaching(order).tolist())


def _member(content: Content, file: _File, entry: _Entry) -> Member:
    if stat.S_IFMT(entry.attributes >> 16) not in (0, stat.S_IFREG):
        return Member(entry.name, special=True)
    if entry.flags & _ENCRYPTED:
        return Member(entry.name, problem=("encrypted-member", "the member is encrypted"))
    if entry.method not in _METHODS:
        known = ", ".join(sorted(name for name, _ in _METHODS.values()))
        message = f"compression method {entry.method} is not known; {known} are"
        return Member(entry.name, problem=("unsupported-compression", message))
    if entry.method == 0 and entry.size < 0:
        return Member(entry.name, problem=("bad-archive", "without a table of contents its size is not known"))
    header = file.read(entry.begin, _MEMBER_HEADER.size)
    if header[:4] != _MEMBER or len(header) < _MEMBER_HEADER.size:
        return Member(entry.name, problem=("bad-archive", "no member begins where the table of contents says"))
    name_length, extra_length = _MEMBER_HEADER.unpack(header)[-2:]
    begin = entry.begin + _MEMBER_HEADER.size + name_length + extra_length
    return Member(entry.name, cast(BinaryIO, _ZipMember(content, file, entry, begin)))


class _ZipMember(io.RawIOBase):
    """Bytes of a member: what is damaged ends it, with the reason in `broken`; faults of the disk are raised.

    `suspect` is 0 if any of the bytes may be wrong, as the one checksum of all of them says.
    """

    def __init__(self, content: Content, file: _File, entry: _Entry, begin: int) -> None:
        self._content = content
        self._file = file
        self._entry = entry
        self._begin = begin
        self._tells = not content.packed
        self._pieces = self._inflate()
        self._rest = b""
        self.broken = ""
        self.suspect: int | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._rest or next(self._pieces, b"")
        if size < 0:
            return data + b"".join(self._pieces)
        self._rest = data[size:]
        return data[:size]

    def _inflate(self) -> Iterator[bytes]:
        from isal import igzip_lib, isal_zlib

        damaged: Any = igzip_lib.error
        errors = (damaged, ValueError, struct.error, OSError, EOFError, lzma.LZMAError, _zstd_error())
        entry = self._entry
        name, make = _METHODS[entry.method]
        given, crc, left, decoder = 0, 0, entry.packed, None
        while left and (data := self._file.read(self._begin + entry.packed - left, min(_PIECE, left))):
            left -= len(data)
            if self._tells:
                self._content.position = self._begin + entry.packed - left
            try:
                if decoder is None:
                    decoder, data = make(data, entry)
                for out in feed(decoder, data, MOST):
                    given += len(out)
                    crc = isal_zlib.crc32(out, crc)
                    if given > streams.BOMB_BYTES and given > streams.BOMB_RATIO * (entry.packed - left):
                        self.broken = f"the member is a decompression bomb: {entry.packed} bytes gave over {given}"
                        return
                    yield out
            except errors as error:
                self.broken = f"damaged {name} data in the member: {error or type(error).__name__}"
                self.suspect = 0
                return
            if decoder.eof:
                break
        if left and not (decoder is not None and decoder.eof):
            self.broken = f"the archive is cut off {left} bytes before the end of the member"
        elif decoder is not None and not decoder.eof and name != "stored":
            self.broken = f"truncated {name} data in the member"
        elif entry.crc >= 0 and (given, crc) != (entry.size, entry.crc):
            self.broken = f"the member's checksum or size is wrong: {given} bytes came out, {entry.size} should have"
            self.suspect = 0


class _Stored:
    """The interface of a decoder for what is not compressed."""

    eof, needs_input, unused_data = False, True, b""

    def decompress(self, data: bytes, most: int) -> bytes:
        return data


def _deflate(data: bytes, entry: _Entry) -> tuple[Any, bytes]:
    from isal import igzip_lib

    return igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE), data


def _lzma(data: bytes, entry: _Entry) -> tuple[Any, bytes]:
    """As a file of its own it has the size before the data, in a zip archive the length of the properties."""
    (length,) = struct.unpack_from("<H", data, 2)
    if length != 5:
        raise ValueError("its properties have an unknown form")
    size = 2**64 - 1 if entry.flags & _LZMA_END_MARK or entry.size < 0 else entry.size
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=XZ_MEMORY)
    return decoder, data[4:9] + struct.pack("<Q", size) + data[9:]


def _zstd_error() -> Any:
    import zstandard

    return zstandard.ZstdError


_METHODS: dict[int, tuple[str, Callable[[bytes, _Entry], tuple[Any, bytes]]]] = {
    0: ("stored", lambda data, entry: (_Stored(), data)),
    8: ("deflate", _deflate),
    12: ("bzip2", lambda data, entry: (bz2.BZ2Decompressor(), data)),
    14: ("lzma", _lzma),
    93: ("zstd", lambda data, entry: (ZstdDecoder(), data)),
    95: ("xz", lambda data, entry: (lzma.LZMADecompressor(memlimit=XZ_MEMORY), data)),
}
