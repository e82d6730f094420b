"""Token shards of remote stores, as a process reads them: fetched when first read, or before; closed when removed.

What is on disk is the business of `storage.cache`, which all processes of a machine share. Here is what one process
does: it announces what it will read soon, tells what it uses, and lets go of shards that were removed meanwhile, so
that their room on the disk becomes free.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from storage.cache import FileCache, RemoteFile

THREADS = 4
"""Downloads at once."""

_UPKEEP_SECONDS = 2.0


class Opened(Protocol):
    """A shard that is open."""

    def close(self) -> None:
        """Let go of the file; reading again opens it again."""


class ShardCache:
    """The remote token shards of one process.

    Parameters
    ----------
    folder, limit
        Of the copies on disk; see `storage.cache.FileCache`.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.files = FileCache(folder, limit)
        self._threads = ThreadPoolExecutor(THREADS, "shards")
        self._coming: dict[str, tuple[Future[None], int]] = {}
        self._open: dict[Opened, RemoteFile] = {}
        self._used: set[Opened] = set()
        self._kept = time.monotonic()
        self._lock = threading.Lock()

    def announce(self, file: RemoteFile) -> None:
        """Have a shard fetched by a thread, as long as what was announced and not read fits half of the cache."""
        with self._lock:
            waiting = sum(size for _, size in self._coming.values())
            if file.digest in self._coming or waiting + file.bytes > self.files.limit // 2:
                return
            self._coming[file.digest] = self._threads.submit(self.files.fetch, file), file.bytes

    @contextlib.contextmanager
    def opening(self, shard: Opened, file: RemoteFile) -> Iterator[Path]:
        """The copy of a shard while it is opened; raises as `FileCache.open` does, as fetching ahead did too."""
        with self._lock:
            coming, _ = self._coming.pop(file.digest, (None, 0))
        if coming is not None:
            coming.result()
        with self.files.open(file) as path:
            yield path
        with self._lock:
            self._open[shard] = file
        self._upkeep()

    def use(self, shards: Iterable[Opened]) -> None:
        """Tell that shards were read."""
        with self._lock:
            self._used.update(shards)
        if time.monotonic() - self._kept > _UPKEEP_SECONDS:
            self._upkeep()

    def _upkeep(self) -> None:
        """Renew what was used, and close what any process has removed."""
        with self._lock:
            self._kept = time.monotonic()
            self.files.touch(file for shard, file in self._open.items() if shard in self._used)
            self._used.clear()
            for shard, file in list(self._open.items()):
                if not self.files.copy_of(file).exists():
                    del self._open[shard]
                    shard.close()

    def close(self) -> None:
        """End the threads; downloads under way are given up."""
        self.files.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
