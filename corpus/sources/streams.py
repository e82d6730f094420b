"""Bytes as they were before compression: gzip, Zstandard, bzip2, xz and LZ4 (any number of members), by their magic.

A truncated or damaged stream gives everything that could be decompressed and then says why it ended; it never raises.
Memory is bounded whatever a stream inflates to, and one that inflates beyond all reason is ended.
"""

from __future__ import annotations

import bz2
import contextlib
import hashlib
import lzma
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

SUFFIXES = ("", ".gz", ".zst", ".bz2", ".xz", ".lz4")
"""Usual endings of compressed files; what a file is compressed with is found by its content."""

BOMB_BYTES = 256 << 20
BOMB_RATIO = 500
"""A stream that has given more than `BOMB_BYTES`, more than `BOMB_RATIO` for each byte read, is ended."""

_CHUNK = 1 << 18
# Small pieces bound two things: what one call may inflate to, and what is lost where a stream is damaged (the output of
# the call that failed). They are read in full, so results do not depend on the disk.
_PIECE = 1 << 13
_FIRST_PIECE = 1 << 9
_MOST = 1 << 20  # what decoders that can be told are asked for at most
_XZ_MEMORY = 1 << 30
_ZSTD_WINDOW = 1 << 31
_GZIP_MAGIC = b"\x1f\x8b\x08"
_LOOK_BACK = 4 << 20
_PROBE = 512


@dataclass(frozen=True)
class Gap:
    """A hole in a stream: what lay between the last chunk and the next one could not be decompressed."""

    message: str


class Content:
    """The decompressed bytes of a file or of a member of an archive.

    Iterating gives them in chunks of about 256 KiB; then `broken` says why they ended early, "" if they did not.

    Parameters
    ----------
    raw
        The bytes as they lie there. If it has an attribute `broken`, that says why it ended early.
    name
        For messages and endings: uri of the file, name of the member.
    offset
        Where the chunks begin, in decompressed bytes.
    """

    def __init__(self, raw: BinaryIO, name: str = "", *, offset: int = 0) -> None:
        self._raw = raw
        self._offset = offset
        self._hash = hashlib.sha256()
        self._whole = True
        self._ended = False
        self._head: bytes | None = None
        self._begun: Iterator[bytes | Gap] | None = None
        self._first: bytes | Gap | None = None
        self._bytes_out = 0
        self._recent = bytearray()  # the last bytes of the gzip member that is being read
        self.position = 0
        """Bytes of the raw stream that have been read."""
        self.name = name
        self.broken = ""

    @property
    def sha256(self) -> str | None:
        """ "sha256:hex" of the raw bytes, once all of them went by in order; else None."""
        return f"sha256:{self._hash.hexdigest()}" if self._whole and self._ended else None

    @property
    def packed(self) -> bool:
        """Whether the content is compressed."""
        return _codec(self._peek()) is not None

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.segments():
            if isinstance(chunk, Gap):
                self.broken = chunk.message
                return
            yield chunk

    def segments(self) -> Iterator[bytes | Gap]:
        """Chunks, and a `Gap` where a damaged gzip member was passed over: the next chunk begins with a new member.

        Only who can tell where a record begins should ask for what comes after a gap.
        """
        begun, self._begun = self._begun or self._segments(), None
        if self._first is not None:
            yield self._first
        yield from begun

    def _segments(self) -> Iterator[bytes | Gap]:
        skip = 0 if self._seeks() else self._offset
        for chunk in self._gather(self._from_offset()):
            if isinstance(chunk, Gap) or not skip:
                yield chunk
            elif skip >= len(chunk):
                skip -= len(chunk)
            else:
                yield chunk[skip:]
                skip = 0

    @contextlib.contextmanager
    def file(self) -> Iterator[BinaryIO | None]:
        """All content as a seekable file, for formats that do not stream; None if it is broken (`broken` says how).

        What is compressed, or cannot seek, is unpacked to a temporary file first.
        """
        if not self.packed and self._raw.seekable():
            self._whole = False
            self._raw.seek(0)
            yield self._raw
            return
        with tempfile.TemporaryFile() as unpacked:
            for chunk in self:
                unpacked.write(chunk)
            unpacked.seek(0)
            yield None if self.broken else unpacked

    def head(self) -> bytes:
        """The first bytes, decompressed, without taking them away; b"" where there are none."""
        if self._begun is None:
            self._begun = self._segments()
            self._first = next(self._begun, None)
        return self._first if isinstance(self._first, bytes) else b""

    def _peek(self) -> bytes:
        if self._head is None:
            self._head = self._read(_PIECE)
        return self._head

    def _seeks(self) -> bool:
        """Whether the offset is reached without reading what lies before it."""
        return self._offset > len(self._peek()) and not self.packed and self._raw.seekable()

    def _from_offset(self) -> Iterator[bytes | Gap]:
        head = self._peek()
        codec = _codec(head)
        if codec is not None:
            yield from self._inflate(head, codec)
        elif self._seeks():
            self._raw.seek(self._offset)
            self._whole, self.position = False, self._offset
            yield from self._plain(b"")
        else:
            yield from self._plain(head)
        if not self.broken:
            self.broken = getattr(self._raw, "broken", "")

    def _gather(self, pieces: Iterator[bytes | Gap]) -> Iterator[bytes | Gap]:
        gathered: list[bytes] = []
        size = 0
        for piece in pieces:
            if isinstance(piece, Gap):
                if gathered:
                    yield b"".join(gathered)
                gathered, size = [], 0
                yield piece
                continue
            gathered.append(piece)
            size += len(piece)
            if size >= _CHUNK:
                yield b"".join(gathered)
                gathered, size = [], 0
        if gathered:
            yield b"".join(gathered)

    def _plain(self, head: bytes) -> Iterator[bytes]:
        if head:
            yield head
        while data := self._read(_CHUNK):
            yield data

    def _inflate(self, head: bytes, codec: _Codec) -> Iterator[bytes | Gap]:
        decoder, members, unread, piece = None, 0, head, _FIRST_PIECE
        while True:
            unread = unread or self._read(piece)
            message = ""
            if decoder is None:
                unread = unread.lstrip(b"\0") if members else unread  # padding between or after members
                if not unread:
                    if self._ended:
                        return
                    continue
                decoder = codec.make()
                self._recent.clear()
            if not unread:
                message = f"truncated {codec.name} stream: the file ends inside a compressed member"
            data, unread = unread[:piece], unread[piece:]
            if codec.name == "gzip":
                self._recent += data
                if len(self._recent) > 2 * _LOOK_BACK:
                    del self._recent[:-_LOOK_BACK]
            before = self._bytes_out
            try:
                for out in codec.step(decoder, data) if data else ():
                    self._bytes_out += len(out)
                    if self._bytes_out > BOMB_BYTES and self._bytes_out > BOMB_RATIO * self.position:
                        self.broken = (
                            f"the {codec.name} stream is a decompression bomb: {self.position} bytes gave more than "
                            f"{self._bytes_out - len(out)}"
                        )
                        return
                    yield out
            except codec.errors as error:
                message = f"damaged {codec.name} stream after {members} whole members: {error}"
            if message:
                following = self._next_member(unread) if codec.name == "gzip" else b""
                if not following:
                    self.broken = message
                    return
                yield Gap(f"{message}; reading goes on at a later member")
                unread, decoder, members = following, None, members + 1
                continue
            # What inflates much is read in smaller pieces.
            piece = min(_PIECE, max(64, _MOST * len(data) // max(1, self._bytes_out - before)))
            if decoder.eof:
                unread, decoder, members = (decoder.unused_data or b"") + unread, None, members + 1

    def _next_member(self, unread: bytes) -> bytes:
        """Bytes from the next gzip member on that really inflates, b"" if there is none.

        The search begins right behind the start of the damaged member: its damage may have been noticed late.
        """
        from isal import isal_zlib

        damaged: Any = isal_zlib.error  # its type stub says instance where a class is meant
        data, at = bytes(self._recent) + unread, 1
        while True:
            at = data.find(_GZIP_MAGIC, at)
            if at < 0 or len(data) - at < _PROBE:
                more = self._read(_CHUNK)
                if more:
                    keep = max(0, len(data) - 2) if at < 0 else at
                    data, at = data[keep:] + more, 0
                    continue
                if at < 0:
                    return b""
            try:
                probe = isal_zlib.decompressobj(wbits=31)
                if data[at + 3] < 0x20 and (probe.decompress(data[at : at + _PROBE]) or probe.eof):
                    return data[at:]
            except (damaged, EOFError, IndexError):
                pass
            at += 1

    def _read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        data: bytes = self._raw.read(size)
        while len(data) < size and (more := self._raw.read(size - len(data))):
            data += more
        self.position += len(data)
        self._hash.update(data)
        self._ended = len(data) < size
        return data


@dataclass(frozen=True)
class _Codec:
    name: str
    make: Callable[[], Any]
    errors: tuple[type[Exception], ...]
    step: Callable[[Any, bytes], Iterator[bytes]]


def _all_at_once(decoder: Any, data: bytes) -> Iterator[bytes]:
    if out := decoder.decompress(data):
        yield out


def _bounded(decoder: Any, data: bytes) -> Iterator[bytes]:
    """For decoders that keep input they were not asked to inflate yet."""
    out = decoder.decompress(data, _MOST)
    while True:
        if out:
            yield out
        if decoder.eof or decoder.needs_input:
            return
        out = decoder.decompress(b"", _MOST)


def _codec(head: bytes) -> _Codec | None:
    if head.startswith(b"\x1f\x8b"):
        from isal import isal_zlib

        damaged: Any = isal_zlib.error  # its type stub says instance where a class is meant
        return _Codec("gzip", lambda: isal_zlib.decompressobj(wbits=31), (damaged, EOFError), _all_at_once)
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[:1] and 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18"):
        import zstandard

        make = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj
        return _Codec("zstd", make, (zstandard.ZstdError,), _all_at_once)
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return _Codec("bzip2", bz2.BZ2Decompressor, (OSError, EOFError), _bounded)
    if head.startswith(b"\xfd7zXZ\x00"):
        return _Codec("xz", lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY), (lzma.LZMAError, EOFError), _bounded)
    if head.startswith(b"\x04\x22\x4d\x18"):
        import lz4.frame

        return _Codec("lz4", lz4.frame.LZ4FrameDecompressor, (RuntimeError, EOFError), _bounded)
    return None
