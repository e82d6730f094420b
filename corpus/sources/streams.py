"""Bytes as they were before compression: gzip (any number of members), Zstandard, bzip2 and xz, found by their magic.

A truncated or damaged stream gives everything that could be decompressed and then says why it ended; it never raises.
"""

from __future__ import annotations

import bz2
import contextlib
import lzma
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

SUFFIXES = ("", ".gz", ".zst", ".bz2", ".xz")
"""Usual endings of compressed files; what a file is compressed with is found by its content."""

_CHUNK = 1 << 18
# Small pieces bound two things: what one call may inflate to (Zstandard: 32,768 to 1), and what is lost where a stream
# is damaged (the output of the call that failed). They are read in full, so results do not depend on the disk.
_PIECE = 1 << 13


class Content:
    """The decompressed bytes of a file or of a member of an archive.

    Iterating gives them in chunks of about 256 KiB; then `broken` says why they ended early, "" if they did not.

    Parameters
    ----------
    raw
        The bytes as they lie there.
    name
        For messages: uri of the file, name of the member.
    offset
        Where the chunks begin, in decompressed bytes.
    """

    def __init__(self, raw: BinaryIO, name: str = "", *, offset: int = 0) -> None:
        self._raw = raw
        self._offset = offset
        self.name = name
        self.broken = ""

    def __iter__(self) -> Iterator[bytes]:
        skip = self._offset
        for chunk in self._chunks():
            if skip >= len(chunk):
                skip -= len(chunk)
            else:
                yield chunk[skip:] if skip else chunk
                skip = 0

    @contextlib.contextmanager
    def file(self) -> Iterator[BinaryIO | None]:
        """All content as a seekable file, for formats that do not stream; None if it is broken (`broken` says how).

        What is compressed, or cannot seek, is unpacked to a temporary file first.
        """
        head = self._read(_PIECE)
        if _codec(head) is None and self._raw.seekable():
            self._raw.seek(0)
            yield self._raw
            return
        with tempfile.TemporaryFile() as unpacked:
            for chunk in self._gather(self._pieces(head)):
                unpacked.write(chunk)
            unpacked.seek(0)
            yield None if self.broken else unpacked

    def _chunks(self) -> Iterator[bytes]:
        return self._gather(self._pieces(self._read(_PIECE)))

    def _pieces(self, head: bytes) -> Iterator[bytes]:
        codec = _codec(head)
        return self._plain(head) if codec is None else self._inflate(head, *codec)

    def _gather(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        gathered: list[bytes] = []
        size = 0
        for piece in pieces:
            gathered.append(piece)
            size += len(piece)
            if size >= _CHUNK:
                yield b"".join(gathered)
                gathered.clear()
                size = 0
        if gathered:
            yield b"".join(gathered)

    def _plain(self, head: bytes) -> Iterator[bytes]:
        yield head
        while data := self._read(_CHUNK):
            yield data

    def _inflate(
        self, head: bytes, name: str, make: Callable[[], Any], errors: tuple[type[Exception], ...]
    ) -> Iterator[bytes]:
        decoder, members, data = None, 0, head
        while data:
            while data:
                if decoder is None:
                    if members and not (data := data.lstrip(b"\0")):  # padding between or after members
                        break
                    decoder = make()
                try:
                    out = decoder.decompress(data)
                except errors as error:
                    self.broken = f"damaged {name} stream after {members} whole members: {error}"
                    return
                if out:
                    yield out
                data = b""
                if decoder.eof:
                    data, decoder, members = decoder.unused_data, None, members + 1
            data = self._read(_PIECE)
        if decoder is not None and not self.broken:
            self.broken = f"truncated {name} stream: the file ends inside a compressed member"

    def _read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        data: bytes = self._raw.read(size)
        while len(data) < size and (more := self._raw.read(size - len(data))):
            data += more
        return data


def _codec(head: bytes) -> tuple[str, Callable[[], Any], tuple[type[Exception], ...]] | None:
    if head.startswith(b"\x1f\x8b"):
        from isal import isal_zlib

        damaged: Any = isal_zlib.error  # its type stub says instance where a class is meant
        return "gzip", lambda: isal_zlib.decompressobj(wbits=31), (damaged, EOFError)
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[:1] and 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18"):
        import zstandard

        return "zstd", lambda: zstandard.ZstdDecompressor().decompressobj(), (zstandard.ZstdError,)
    if head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        return "bzip2", bz2.BZ2Decompressor, (OSError, EOFError)
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz", lzma.LZMADecompressor, (lzma.LZMAError, EOFError)
    return None
