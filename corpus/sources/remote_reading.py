"""Reading a remote file so that faults of the way do not show: blocks are fetched one by one, and again if need be.

A reader holds one block at a time. It reads ahead the further the longer it is read in order, and little where it is
not, so that a stream comes in large requests and the columns of a Parquet file cost about their own bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from corpus.sources.base import SourceError
from corpus.sources.remote import full_name, look, marks, patiently, protocols_of

SMALLEST_BLOCK = 1 << 18
LARGEST_BLOCK = 1 << 23

Check = Callable[[int | None, frozenset[str]], None]
"""Called with the size (None if not told) and the marks of an object; raises if it is not the one that is meant."""


class _Handle(Protocol):
    """An open object. `size` is None where it is not told; `seekable` says whether ranges can be had in any order."""

    size: int | None
    seekable: bool
    guarded: bool  # whether every fetch is refused once the object has been replaced

    def fetch(self, begin: int, end: int) -> bytes:
        """Bytes of a range: fewer than asked where the answer was cut, none at the end or where nothing came."""
        ...

    def close(self) -> None:
        """Gives up what is held."""
        ...


class RemoteReader(io.RawIOBase):
    """A remote file opened for reading bytes; at most about two blocks (16 MiB) are held, and what a `read` returns.

    Each fetch that fails is repeated as `patiently` says, on a new connection and only if the object is still the same
    by `check`. Used with `with`, a store that does not compare on every request is asked once more at the end.

    Raises
    ------
    OSError
        On opening and reading: what did not pass, naming the file and the position.
    SourceError
        If the object is no longer the one of the inventory.
    """

    def __init__(self, system: Any, path: str, check: Check) -> None:
        self._handle: _Handle | None = None
        self._system, self._path, self._check = system, path, check
        self.name = full_name(system, path)
        self._position = 0
        self._block, self._block_begin = b"", 0
        self._window = 0
        self._fetches = 0
        handle = patiently(self.name, self._open)
        self._size = handle.size

    def _open(self) -> _Handle:
        if "http" in protocols_of(self._system):
            self._handle = _HttpObject(self._system, self._path, self._check)
        else:
            self._handle = _FsspecObject(self._system, self._path, self._check)
        return self._handle

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """False for a web server that gives files only from their start; known once the first bytes are read."""
        return self._size is not None and (self._handle is None or self._handle.seekable)

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a position; nothing is fetched."""
        if whence == io.SEEK_END and self._size is None:
            raise io.UnsupportedOperation(f"{self.name}: the server does not tell where the file ends")
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size or 0}[whence]
        if start + offset < 0:
            raise ValueError(f"{self.name}: position {start + offset} lies before the start")
        self._position = start + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Exactly `size` bytes, fewer only at the end; all that is left without a size."""
        if self.closed:
            raise ValueError(f"{self.name} is closed")
        left = -1 if size is None else size
        pieces = []
        while left != 0 and (piece := self._piece(left)):
            pieces.append(piece)
            left = max(left - len(piece), 0) if left > 0 else left
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        """Fills `buffer`; fewer bytes only at the end."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Closes the connection."""
        self._drop()
        self._block = b""
        super().close()

    def __enter__(self) -> RemoteReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes; after a reading that ended well, looks whether the object was replaced under it."""
        guarded = self._handle is None or self._handle.guarded
        self.close()
        if kind is None and self._fetches > 1 and not guarded:
            info = look(self._system, self._path)
            if info is None:
                raise self._vanished()
            self._check(info.get("size"), marks(info))

    def _piece(self, size: int) -> bytes:
        """Some of the next `size` bytes (any number if negative), none at the end."""
        at = self._position - self._block_begin
        if not 0 <= at < len(self._block):
            self._fill(size)
            at = 0
        piece = self._block if size < 0 and not at else self._block[at : at + size if size >= 0 else None]
        self._position += len(piece)
        return piece

    def _fill(self, size: int) -> None:
        position = self._position
        in_order = position == self._block_begin + len(self._block)
        self._window = min(self._window * 4, LARGEST_BLOCK) if in_order and self._window else SMALLEST_BLOCK
        end = position + max(self._window, min(size, LARGEST_BLOCK))
        end = end if self._size is None else min(end, self._size)
        self._block, self._block_begin = b"", position
        if end > position:
            try:
                self._block = patiently(f"{self.name} at byte {position}", lambda: self._fetch(position, end))
            except FileNotFoundError as error:
                raise self._vanished() from error

    def _fetch(self, begin: int, end: int) -> bytes:
        handle = self._handle or self._open()
        whole = False
        try:
            data = handle.fetch(begin, end)
            whole = len(data) > 0 or self._size is None
        finally:
            if not whole:
                self._drop()
        if not whole:
            raise ConnectionError(f"the answer ends where bytes {begin} to {end} of {self._size} should stand")
        self._fetches += 1
        return data[: end - begin]

    def _drop(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def _vanished(self) -> SourceError:
        return SourceError(f"{self.name} vanished while it was read; start again to take the source in as it is")


class _FsspecObject:
    """Ranges of any fsspec file, without its caches: they keep what a failed request left."""

    seekable = True

    def __init__(self, system: Any, path: str, check: Check) -> None:
        # s3fs sends the etag that it found on opening with every request (If-Match).
        self.guarded = "s3" in protocols_of(system)
        system.invalidate_cache()
        self._file = system.open(path, "rb", cache_type="none")
        info = getattr(self._file, "details", None) or system.info(path)
        if info.get("type") == "directory":
            self.close()
            raise IsADirectoryError(f"{path} is a folder")
        self.size: int | None = info.get("size")
        try:
            check(self.size, marks(info))
        except BaseException:
            self.close()
            raise

    def fetch(self, begin: int, end: int) -> bytes:
        self._file.seek(begin)
        data: bytes = self._file.read(end - begin)
        return data

    def close(self) -> None:
        self._file.close()


class _HttpObject:
    """Ranges of a file on a web server; where a server sends all of it instead, that answer is read on in order.

    fsspec's own file compares neither etag nor range of what it is sent.
    """

    guarded = True

    def __init__(self, system: Any, url: str, check: Check) -> None:
        self._system, self._url, self._check = system, url, check
        self._answer: Any = None  # of the whole file, read up to `_at`
        self._at = 0
        info = system.info(url)
        self.size: int | None = info.get("size")
        self.seekable = bool(info.get("partial", True))
        check(self.size, marks(info))

    def fetch(self, begin: int, end: int) -> bytes:
        from fsspec.asyn import sync

        data: bytes = sync(self._system.loop, self._get, begin, end)
        return data

    def close(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            self._system.loop.call_soon_threadsafe(answer.close)

    async def _get(self, begin: int, end: int) -> bytes:
        if self._answer is None or self._at > begin:
            data = await self._ask(begin, end)
            if data is not None:
                return data
        while self._at < begin:
            if not (passed := await self._answer.content.read(min(begin - self._at, 1 << 20))):
                return b""
            self._at += len(passed)
        pieces = []
        while self._at < end and (piece := await self._answer.content.read(end - self._at)):
            pieces.append(piece)
            self._at += len(piece)
        return b"".join(pieces)

    async def _ask(self, begin: int, end: int) -> bytes | None:
        """The range, or None if the server sends the whole file: then its answer is kept."""
        self.close()
        options = dict(self._system.kwargs)
        headers = {**options.pop("headers", {}), "Range": f"bytes={begin}-{end - 1}"}
        session = await self._system.set_session()
        answer = await session.get(self._system.encode_url(self._url), headers=headers, **options)
        keep = False
        try:
            if answer.status == 416 and self.size is None:  # the last block was full and nothing follows
                return b""
            answer.raise_for_status()
            if answer.status == 206:
                first, total = _content_range(answer.headers.get("Content-Range", ""))
                if first != begin:
                    raise ConnectionError(f"bytes from {begin} were asked for, bytes from {first} came")
                self._check(total, marks(answer.headers))
                data: bytes = await answer.read()
                return data
            self._check(
                None if answer.headers.get("Content-Encoding") else answer.content_length, marks(answer.headers)
            )
            self._answer, self._at, self.seekable, keep = answer, 0, False, True
            return None
        finally:
            if not keep:
                answer.release()


def _content_range(value: str) -> tuple[int | None, int | None]:
    """(first byte, size of the whole file) of `bytes 0-99/1234`; None for what is not told."""
    kind, _, rest = value.partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if kind != "bytes" or not first.isdigit():
        return None, None
    return int(first), int(total) if total.isdigit() else None
