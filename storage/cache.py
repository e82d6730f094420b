"""Copies of remote files on this machine's disk: bounded in size, shared by its processes, checked when they arrive.

A copy is named by its digest, so it serves every workspace and every training that reads the same bytes. The least
recently used go first. Nothing is ever seen half: a copy is written under another name, its digest is compared, then
it is renamed. Locks are the kernel's (`flock`), so a killed process leaves none behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from storage.filesystem import Store, has_digest

TRIES = 5
"""How often a file is asked for, with 1, 2, 4 … seconds between, when the store or the network fails."""

_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_PARTIAL = ".partial"
_WAIT = 0.05
"""Seconds between looks for room that other processes' downloads take for the moment."""


class CacheError(ValueError):
    """A file that is not what it should be, or too large for the cache; the message says what is wrong with it."""


class CacheClosed(RuntimeError):
    """The cache was closed while a file was on its way."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a store, with the size in bytes and the digest ("sha256:hex") that it must have."""

    store: Store
    path: str
    bytes: int
    digest: str


class FileCache:
    """A folder with copies of remote files.

    Parameters
    ----------
    folder
        On a local disk; made if needed. Several processes may use it at once, each with a limit of its own.
    limit
        Bytes of all copies together, those on their way included. A process that has a file open or mapped keeps
        reading it after it was removed here.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._locks = folder / "locks"
        self._locks.mkdir(parents=True, exist_ok=True)
        self._closed = threading.Event()

    def close(self) -> None:
        """Give up what is on its way, in all threads."""
        self._closed.set()

    def copy_of(self, file: RemoteFile) -> Path:
        """Where the copy of a file lies, or would lie."""
        return self.folder / file.digest.replace(":", "-")

    @contextlib.contextmanager
    def open(self, file: RemoteFile) -> Iterator[Path]:
        """The copy of a file, fetched if needed; no process removes it while the context is held.

        Raises
        ------
        CacheError
            If its content is not that of its digest, or it is larger than the whole cache.
        OSError
            If the store cannot be read, after `TRIES` tries.
        """
        while True:
            self.fetch(file)
            with self._lock("removal", shared=True):
                if self._is_there(file):
                    yield self.copy_of(file)
                    return

    def fetch(self, file: RemoteFile) -> None:
        """Have a copy of a file made unless there is one; raises as `open` does."""
        if self._is_there(file):
            return
        target = self.copy_of(file)
        partial = target.with_name(target.name + _PARTIAL)
        with self._lock(_stripe(target.name)):
            if self._is_there(file):  # another process was first
                return
            self._make_room(file, partial)
            try:
                self._download(file, partial)
                with self._lock("removal"):  # whoever counts sees it under one name or the other
                    partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)

    def touch(self, files: Iterable[RemoteFile]) -> None:
        """Tell that files were used just now."""
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.copy_of(file))

    def _is_there(self, file: RemoteFile) -> bool:
        copy = self.copy_of(file)
        try:
            if copy.stat().st_size != file.bytes:
                copy.unlink()  # cut by a crash of the machine
                return False
            os.utime(copy)
        except FileNotFoundError:
            return False
        return True

    def _make_room(self, file: RemoteFile, partial: Path) -> None:
        """Remove the least recently used copies until this one fits, and take its room."""
        if file.bytes > self.limit:
            raise CacheError(
                f"has {file.bytes} bytes, and the cache {self.folder} may hold {self.limit}: raise its limit"
            )
        while not self._closed.is_set():
            with self._lock("removal"):
                found = self._files()
                over = sum(status.st_size for _, status in found) + file.bytes - self.limit
                for name, status in found:
                    if over <= 0:
                        break
                    if not name.endswith(_PARTIAL) or self._is_abandoned(_stripe(name), own=_stripe(partial.name)):
                        (self.folder / name).unlink(missing_ok=True)
                        over -= status.st_size
                if over <= 0:
                    with partial.open("wb") as stream:
                        stream.truncate(file.bytes)
                    return
            time.sleep(_WAIT)
        raise CacheClosed

    def _files(self) -> list[tuple[str, os.stat_result]]:
        """Names and status of all copies, the least recently used first."""
        found = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):  # somebody's download failed
                if entry.is_file():
                    found.append((entry.name, entry.stat()))
        return sorted(found, key=lambda pair: (pair[1].st_mtime_ns, pair[0]))

    def _is_abandoned(self, stripe: str, own: str) -> bool:
        """Whether nobody works any more on an unfinished copy, not the caller's, who holds the stripe `own`."""
        if stripe == own:
            return True
        descriptor = os.open(self._locks / stripe, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _download(self, file: RemoteFile, partial: Path) -> None:
        for left in reversed(range(TRIES)):
            try:
                self._copy(file, partial)
                return
            except OSError as error:
                if not left or isinstance(error, _PERMANENT) or error.errno in _DISK:
                    raise
            if self._closed.wait(2.0 ** (TRIES - 1 - left)):
                raise CacheClosed

    def _copy(self, file: RemoteFile, partial: Path) -> None:
        with file.store.open(file.path) as source, partial.open("r+b") as sink:
            while chunk := source.read(1 << 22):
                if self._closed.is_set():
                    raise CacheClosed
                sink.write(chunk)
            written = sink.tell()
            sink.flush()
            os.fsync(sink.fileno())
        if written < file.bytes:
            raise OSError(errno.EIO, f"ends after {written} of {file.bytes} bytes", f"{file.store.url}/{file.path}")
        with partial.open("rb") as stream:
            if written != file.bytes or not has_digest(stream, file.digest):
                raise CacheError("has other content in the store than its digest says: look with `gristmill verify`")

    @contextlib.contextmanager
    def _lock(self, name: str, *, shared: bool = False) -> Iterator[None]:
        descriptor = os.open(self._locks / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _stripe(name: str) -> str:
    """The lock of a copy; copies share 256 of them."""
    return name.removesuffix(_PARTIAL)[-2:]
