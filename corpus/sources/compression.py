"""gzip, Zstandard, bzip2, xz and LZ4, any number of members one after the other, each found by its magic.

`Inflater` gives what can be decompressed. Behind damage it looks for the next member that really inflates.
"""

from __future__ import annotations

import bz2
import lzma
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

PIECE = 1 << 14
"""Compressed bytes that are read at a time: exactly so many, so that results do not depend on the disk."""

MOST = 1 << 18
"""What a decoder is asked for at most at a time, so that memory is bounded whatever it could give."""

# Output of the call that meets damage is lost, so gzip is asked for little; its damage can be anywhere in a member.
_MOST_GZIP = 1 << 14
# Zstandard cannot be told how much to give: up to 128 KiB come of 4 bytes. It is given the less the more came of it.
_LEAST_ZSTD = 1 << 6
_MOST_ZSTD = 1 << 10
_ZSTD_OUTPUT = 1 << 16
_ZSTD_WINDOW = 1 << 31  # what `zstd --long=31` needs; memory is taken as it fills, so no header alone can take it
XZ_MEMORY = 1 << 30
_MAGIC = 16  # no magic is longer
_LOOK_BACK = 4 << 20
_PROBE = 1 << 20  # what inflates so far, or to so much, is taken for a member
_PROBE_OUTPUT = 16 << 20
_SEARCH = 64 << 20  # bytes that are tried in all searches together, besides a few times the file's size


@dataclass(frozen=True)
class Gap:
    """A hole in a stream: what lay between the last chunk and the next one could not be decompressed.

    If it was damaged, not cut off, what came before it from decompressed byte `suspect` on may be wrong: often only the
    checksum at the end of a member tells.
    """

    message: str
    suspect: int | None = None


@dataclass(frozen=True)
class Codec:
    """A kind of compression. `start` matches the first bytes of a member, `likely` those worth looking for."""

    name: str
    start: re.Pattern[bytes]
    likely: re.Pattern[bytes]
    make: Callable[[], Any]
    errors: tuple[type[Exception], ...]
    most: int = MOST


def find_codec(head: bytes) -> Codec | None:
    """What bytes are compressed with, by their first 16; None if they are not."""
    name = next((name for name, start in _STARTS.items() if start.match(head)), "")
    return _codec(name) if name else None


class Inflater:
    """Iterating gives decompressed pieces, and a `Gap` where damage was passed over; then `broken` says why it ended.

    `suspect` is that of the end, as a `Gap` has it.

    Parameters
    ----------
    read
        Gives exactly as many bytes as it is asked for, fewer only at the end.
    head
        The first bytes, already read; they begin with a member of `codec`.
    """

    def __init__(self, read: Callable[[int], bytes], head: bytes, codec: Codec) -> None:
        self.broken = ""
        self.suspect: int | None = None
        self._read = read
        self._codec = codec
        self._ahead = deque(_sliced(head))
        self._taken = 0
        # The bytes of the member that is being read, or the last few MiB of them, and where they begin.
        self._recent: deque[bytes] = deque()
        self._recent_bytes = 0
        self._recent_begin = 0
        self._searched = 0

    def __iter__(self) -> Iterator[bytes | Gap]:
        members, given, data = 0, 0, b""
        while data := self._next_start(data):
            problem, cut, suspect = "", False, given
            codec = find_codec(data)
            if codec is None:
                problem = "garbage between members"
            else:
                decoder = codec.make()
                while True:
                    try:
                        for piece in feed(decoder, data, codec.most):
                            given += len(piece)
                            yield piece
                    except codec.errors as error:
                        problem = str(error) or type(error).__name__
                        break
                    if decoder.eof:
                        break
                    if not (data := self._take()):
                        problem, cut = "the file ends inside a compressed member", True
                        break
            if not problem:
                members += 1
                self._codec = codec or self._codec
                data = decoder.unused_data or b""
                continue
            begin = self._recent_begin
            name = (codec or self._codec).name
            message = f"damaged {name} stream after {members} whole members: {problem}"
            if cut:
                message = f"truncated {name} stream: {problem}"
            damaged_from = None if cut else suspect
            if not self._find_next(whole=cut):
                self.broken, self.suspect = message, damaged_from
                return
            yield Gap(f"{message}; bytes {begin} to {self._taken} of the file are passed over", damaged_from)
            data = b""

    def _next_start(self, data: bytes) -> bytes:
        """The bytes from the next member on, which is remembered as begun; b"" at the end. Padding is passed over."""
        while True:
            data = data.lstrip(b"\0")
            if len(data) >= _MAGIC or not (more := self._take()):
                break
            data += more
        self._recent.clear()
        self._recent.append(data)
        self._recent_bytes = len(data)
        self._recent_begin = self._taken - len(data)
        return data

    def _take(self) -> bytes:
        """The next piece, which is remembered; b"" at the end."""
        data = self._pull()
        self._recent.append(data)
        self._recent_bytes += len(data)
        while self._recent_bytes - len(self._recent[0]) >= _LOOK_BACK:
            gone = len(self._recent.popleft())
            self._recent_bytes -= gone
            self._recent_begin += gone
        return data

    def _pull(self) -> bytes:
        data = self._ahead.popleft() if self._ahead else self._read(PIECE)
        self._taken += len(data)
        return data

    def _find_next(self, *, whole: bool) -> bool:
        """Go to the next member that really inflates (to its end, if it must be `whole`); False if there is none.

        The search begins right behind the start of the damaged member: its damage may have been noticed late, or, where
        a decoder took all later members for its own, not at all.
        """
        codec = self._codec
        data, begin, at = bytearray().join(self._recent), self._recent_begin, 1
        while True:
            found = codec.likely.search(data, at)
            at = found.start() if found else max(at, len(data) - _MAGIC)
            if found is None or len(data) - at < _MAGIC:
                if more := self._pull():
                    if at > _LOOK_BACK:
                        del data[:at]
                        begin, at = begin + at, 0
                    data += more
                    continue
                if found is None:
                    return False
            if self._searched > _SEARCH + 4 * self._taken:
                return False  # made to be searched for ever
            if self._inflates(codec, data, at, whole):
                self._ahead.extendleft(reversed(_sliced(bytes(data[at:]))))
                self._taken = begin + at
                return True
            at += 1

    def _inflates(self, codec: Codec, data: bytearray, at: int, whole: bool) -> bool:
        """Whether a member begins at this place of `data`, which is extended as needed."""
        decoder, place, output = codec.make(), at, 0
        while place - at < _PROBE and output < _PROBE_OUTPUT:
            if place == len(data):
                data += self._pull()
            piece = bytes(data[place : place + (4096 if place > at else 512)])
            if not piece:
                return not whole
            place += len(piece)
            self._searched += len(piece)
            try:
                for out in feed(decoder, piece, codec.most):
                    output += len(out)
                    self._searched += len(out) // 16
            except codec.errors:
                return False
            if decoder.eof:
                rest = (decoder.unused_data or b"") + bytes(data[place : place + 64])
                return _can_follow(rest, bytes(data[at : at + 10]))
        return not whole


def _can_follow(rest: bytes, header: bytes) -> bool:
    """Whether what stands behind a member can stand there.

    A compressed file that was stored as it is inside the damaged member would be taken for a member otherwise. Headers
    of one writer look alike, so a damaged one is known as well.
    """
    behind = rest.lstrip(b"\0")
    if not behind or len(rest) - len(behind) > len(header) or find_codec(behind) is not None:
        return True
    return sum(one == other for one, other in zip(behind, header, strict=False)) > len(header) // 2


def _sliced(data: bytes) -> list[bytes]:
    return [data[at : at + PIECE] for at in range(0, len(data), PIECE)]


def feed(decoder: Any, data: bytes, most: int = MOST) -> Iterator[bytes]:
    """All that a decoder (of the interface of `bz2.BZ2Decompressor`) gives for some input, `most` bytes at a time."""
    out = decoder.decompress(data, most)
    while out:
        yield out
        if decoder.eof or decoder.needs_input:
            return
        out = decoder.decompress(b"", most)


class ZstdDecoder:
    """The interface that the other decoders have, for one that keeps no input."""

    def __init__(self) -> None:
        import zstandard

        self._decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj(_ZSTD_OUTPUT)
        self._damaged = zstandard.ZstdError
        self._error: Exception | None = None
        self._data = b""
        self._at = 0
        self._slice = _LEAST_ZSTD
        self.needs_input = True
        self.eof = False
        self.unused_data = b""

    def decompress(self, data: bytes, most: int) -> bytes:
        """Output of the next slices of input, until there is enough, or damage."""
        if data:
            self._data, self._at = data, 0
        if self._error is not None:
            raise self._error
        gathered: list[bytes] = []
        size = 0
        while size < _ZSTD_OUTPUT and not self.eof and self._at < len(self._data):
            try:
                out = self._decoder.decompress(self._data[self._at : self._at + self._slice])
            except self._damaged as error:
                if not size:
                    raise
                self._error, self.needs_input = error, False
                return b"".join(gathered)
            self._at += self._slice
            self._slice = _LEAST_ZSTD if len(out) > most else min(2 * self._slice, _MOST_ZSTD)
            gathered.append(out)
            size += len(out)
            if self._decoder.eof:
                self.eof = True
                self.unused_data = self._decoder.unused_data + self._data[self._at :]
        self.needs_input = self._at >= len(self._data)
        return b"".join(gathered)


_STARTS = {
    "gzip": re.compile(rb"\x1f\x8b"),
    # Frames to be skipped are the same in LZ4; what follows them is looked at anew.
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
    "bzip2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    "lz4": re.compile(rb"\x04\x22\x4d\x18"),
}
_LIKELY = {
    "gzip": re.compile(rb"\x1f\x8b\x08[\x00-\x1f]"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
}


def _codec(name: str) -> Codec:
    start, likely = _STARTS[name], _LIKELY.get(name, _STARTS[name])
    match name:
        case "gzip":
            from isal import igzip_lib

            damaged: Any = igzip_lib.error  # its type stub says instance where a class is meant

            def make() -> Any:
                return igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)

            return Codec(name, start, likely, make, (damaged, EOFError), _MOST_GZIP)
        case "zstd":
            import zstandard

            return Codec(name, start, likely, ZstdDecoder, (zstandard.ZstdError,))
        case "bzip2":
            return Codec(name, start, likely, bz2.BZ2Decompressor, (OSError, EOFError))
        case "xz":

            def make_xz() -> Any:
                return lzma.LZMADecompressor(memlimit=XZ_MEMORY)

            return Codec(name, start, likely, make_xz, (lzma.LZMAError, EOFError))
        case _:
            import lz4.frame

            return Codec(name, start, likely, lz4.frame.LZ4FrameDecompressor, (RuntimeError, EOFError))
