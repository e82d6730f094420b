"""Bytes as they were before compression: gzip, Zstandard, bzip2, xz and LZ4 (any number of members), by their magic.

A truncated or damaged stream gives everything that could be decompressed and then says why it ended; it never raises.
Memory is bounded whatever a stream inflates to, and one that inflates beyond all reason is ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

from corpus.sources.compression import Codec, Gap, Inflater, find_codec

__all__ = ["BOMB_BYTES", "BOMB_RATIO", "SUFFIXES", "Content", "Gap", "bytes_from"]

SUFFIXES = ("", ".gz", ".zst", ".bz2", ".xz", ".lz4")
"""Usual endings of compressed files; what a file is compressed with is found by its content."""

BOMB_BYTES = 256 << 20
BOMB_RATIO = 500
"""A stream that has given more than `BOMB_BYTES`, more than `BOMB_RATIO` for each byte read, is ended.

Text comes to ratios of 3 to 30, logs that repeat themselves to 100 or 200; gzip ends at 1,032, Zstandard at 32,768.
"""

_CHUNK = 1 << 18
_START = 1 << 13


class Content:
    """The decompressed bytes of a file or of a member of an archive, to be read once.

    Iterating gives them in chunks of about 256 KiB; then `broken` says why they ended early, "" if they did not.

    Parameters
    ----------
    raw
        The bytes as they lie there. If it has an attribute `broken`, that says why it ended early.
    name
        For messages and endings: uri of the file, name of the member.
    offset
        Where the chunks begin, in decompressed bytes.
    around
        The archive that this is a member of: what all members inflate to is measured by its bytes too.
    """

    def __init__(self, raw: BinaryIO, name: str = "", *, offset: int = 0, around: Content | None = None) -> None:
        self._raw = raw
        self._offset = offset
        self._around = around
        self._hash = hashlib.sha256()
        self._in_order = True
        self._ended = False
        self._start: bytes | None = None
        self._pieces: Iterator[bytes | Gap] | None = None
        self._looked_at: list[bytes | Gap] = []
        self._holes = 0
        self._inflated = 0  # bytes that came out of the decoder, here and in members of this archive
        self.position = 0
        """Bytes of the raw stream that have been read, for progress."""
        self.name = name
        self.broken = ""
        self.suspect: int | None = None
        """Of content that broke because it is damaged: what came from this decompressed byte on may be wrong."""
        self.what_follows: Callable[[int], str] = bytes_from
        """Says what came from a decompressed byte on, in words, for the message."""

    @property
    def sha256(self) -> str | None:
        """ "sha256:hex" of the raw bytes, once all of them went by in order; else None."""
        return f"sha256:{self._hash.hexdigest()}" if self._in_order and self._ended else None

    @property
    def packed(self) -> bool:
        """Whether the content is compressed."""
        return find_codec(self._peek()) is not None

    @property
    def packed_twice(self) -> bool:
        """Whether what comes out of the decoder is compressed again."""
        return self.packed and find_codec(self.head()) is not None

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.segments():
            if isinstance(chunk, Gap):
                self.broken, self.suspect = chunk.message, chunk.suspect
                return
            yield chunk

    def segments(self) -> Iterator[bytes | Gap]:
        """Chunks, and a `Gap` where a damaged member was passed over: the next chunk begins with a new member.

        Only who can tell where a record begins should ask for what comes after a gap.
        """
        gathered: list[bytes] = []
        size = 0
        for piece in itertools.chain(self._looked_at, self._from_offset()):
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

    @contextlib.contextmanager
    def file(self) -> Iterator[BinaryIO | None]:
        """All content as a seekable file, for formats that do not stream; None if it is broken (`broken` says how).

        What is compressed, or cannot seek, is unpacked to a temporary file first. The offset has no meaning here: such
        formats count rows by it.
        """
        self._offset = 0
        if not self.packed and self._raw.seekable():
            self._in_order = False
            self._raw.seek(0)
            yield self._raw
            return
        with tempfile.TemporaryFile() as unpacked:
            for chunk in self:
                unpacked.write(chunk)
            unpacked.seek(0)
            yield None if self.broken else unpacked

    def head(self, size: int = 512) -> bytes:
        """The first bytes from the offset on, decompressed, without taking them away; fewer where there are no more."""
        known = sum(len(piece) for piece in self._looked_at if isinstance(piece, bytes))
        while known < size and (piece := next(self._from_offset(), None)) is not None:
            self._looked_at.append(piece)
            if isinstance(piece, Gap):
                break
            known += len(piece)
        return b"".join(piece for piece in self._looked_at if isinstance(piece, bytes))[:size]

    def _from_offset(self) -> Iterator[bytes | Gap]:
        """The pieces, of which those that were taken are gone."""
        if self._pieces is None:
            self._pieces = self._after(self._offset)
        return self._pieces

    def _after(self, skip: int) -> Iterator[bytes | Gap]:
        start = self._peek()
        codec = find_codec(start)
        if codec is None and skip > len(start) and self._raw.seekable():
            self._raw.seek(skip)
            self._in_order, self.position = False, skip
            pieces, skip = self._plain(b""), 0
        else:
            pieces = self._plain(start) if codec is None else self._inflate(start, codec)
        while skip and (piece := next(pieces, None)) is not None:
            if isinstance(piece, bytes):
                if skip < len(piece):
                    yield piece[skip:]
                skip = max(0, skip - len(piece))
        yield from pieces
        if broken := getattr(self._raw, "broken", ""):
            self.suspect = getattr(self._raw, "suspect", None)
            self.broken = self._told(broken, self.suspect)

    def _told(self, message: str, suspect: int | None) -> str:
        """The message to damage, with what came of damaged data that was given already."""
        if suspect is None:
            return message
        what = "what came since the last such place" if self._holes else self.what_follows(suspect)
        return f"{message}; {what} may be wrong"

    def _peek(self) -> bytes:
        if self._start is None:
            self._start = self._read(_START)
        return self._start

    def _plain(self, start: bytes) -> Iterator[bytes | Gap]:
        if start:
            yield start
        while data := self._read(_CHUNK):
            yield data

    def _inflate(self, start: bytes, codec: Codec) -> Iterator[bytes | Gap]:
        inflater = Inflater(self._read, start, codec)
        for piece in inflater:
            if isinstance(piece, bytes) and (problem := self._too_much(len(piece))):
                self.broken = f"the {codec.name} stream is a decompression bomb: {problem}"
                return
            if isinstance(piece, Gap):
                piece = Gap(self._told(piece.message, piece.suspect), piece.suspect)
                self._holes += 1
            yield piece
        self.broken, self.suspect = self._told(inflater.broken, inflater.suspect), inflater.suspect

    def _too_much(self, size: int) -> str:
        """Why no more should be inflated after these bytes, "" if there is no reason."""
        self._inflated += size
        if self._inflated > BOMB_BYTES and self._inflated > BOMB_RATIO * self.position:
            return f"{self.position} bytes gave more than {self._inflated - size}"
        return "" if self._around is None else self._around._too_much(size)

    def _read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        data: bytes = self._raw.read(size)
        while len(data) < size and (more := self._raw.read(size - len(data))):
            data += more
        self.position += len(data)
        self._hash.update(data)
        self._ended = len(data) < size
        return data


def bytes_from(offset: int) -> str:
    """What came from a decompressed byte on, where there is no better name for it."""
    return f"what came from byte {offset} of the decompressed content on"
