"""What copies of remote files promise: one download, a bounded folder, checked content, nothing half after a kill."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from storage import cache as cache_module
from storage.cache import CacheError, FileCache, RemoteFile
from storage.filesystem import Store, digest_bytes

SIZE = 300_000


def remote_file(store: Store, name: str) -> RemoteFile:
    """A file of SIZE random bytes in a store."""
    data = np.random.default_rng(sum(name.encode())).bytes(SIZE)
    store.create(name, data)
    return RemoteFile(store, name, len(data), digest_bytes(data))


def held(folder: Path) -> list[str]:
    """Names of all copies, finished or not."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_file())


def bytes_of(cache: FileCache, file: RemoteFile) -> bytes:
    with cache.open(file) as copy:
        return copy.read_bytes()


def test_a_copy_is_the_file_and_is_fetched_once(tmp_path: Path, s3_store: Store) -> None:
    file = remote_file(s3_store, "a")
    cache = FileCache(tmp_path / "cache", 10 * SIZE)
    assert bytes_of(cache, file) == s3_store.read_bytes("a")
    s3_store.remove("a")
    assert bytes_of(FileCache(tmp_path / "cache", 10 * SIZE), file) is not None  # the store is not asked again
    assert held(tmp_path / "cache") == [file.digest.replace(":", "-")]


CHILD = """
    import sys
    from pathlib import Path
    from storage.cache import FileCache, RemoteFile
    from storage.filesystem import Store

    class Counting(Store):
        def open(self, path):
            print("opened", flush=True)
            return super().open(path)

    url, folder, digest = sys.argv[1:]
    sys.stdin.readline()
    file = RemoteFile(Counting(url), "a", %d, digest)
    with FileCache(Path(folder), 10**9).open(file) as copy:
        assert len(copy.read_bytes()) == file.bytes
"""


def test_processes_of_a_machine_fetch_a_file_once_together(tmp_path: Path, s3_store: Store) -> None:
    file = remote_file(s3_store, "a")
    arguments = [sys.executable, "-c", textwrap.dedent(CHILD % SIZE), s3_store.url, str(tmp_path), file.digest]
    children = [subprocess.Popen(arguments, stdin=-1, stdout=-1, text=True) for _ in range(3)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert "".join(said).count("opened") == 1


def test_the_least_recently_used_go_first(tmp_path: Path, local_store: Store) -> None:
    a, b, c, d = (remote_file(local_store, name) for name in "abcd")
    cache = FileCache(tmp_path / "cache", 3 * SIZE)
    for file in (a, b, c):
        cache.fetch(file)
    cache.touch([a])
    cache.fetch(b)  # there already: used again
    cache.fetch(d)
    assert held(tmp_path / "cache") == sorted(cache.copy_of(file).name for file in (a, b, d))


def test_the_folder_never_outgrows_its_limit(tmp_path: Path, s3_store: Store) -> None:
    files = [remote_file(s3_store, f"{number}") for number in range(8)]
    folder, limit = tmp_path / "cache", int(2.5 * SIZE)
    wholes = {file.path: s3_store.read_bytes(file.path) for file in files}
    largest, done = 0, threading.Event()

    def watch() -> None:
        nonlocal largest
        while not done.is_set():
            sizes = []
            for name in held(folder) if folder.exists() else []:
                try:
                    sizes.append((folder / name).stat().st_size)
                except FileNotFoundError:
                    continue
            largest = max(largest, sum(sizes))

    def work(seed: int) -> None:
        cache = FileCache(folder, limit)
        for number in np.random.default_rng(seed).integers(0, len(files), 12).tolist():
            assert bytes_of(cache, files[number]) == wholes[files[number].path]

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    done.set()
    watcher.join()
    # A listing is not one moment: a file may be counted under both its names while it is renamed.
    assert SIZE < largest <= limit + SIZE
    assert sum((folder / name).stat().st_size for name in held(folder)) <= limit


def test_a_file_larger_than_the_limit_is_refused(tmp_path: Path, local_store: Store) -> None:
    with pytest.raises(CacheError, match=rf"has {SIZE} bytes, and the cache .* may hold {SIZE - 1}: raise its limit"):
        FileCache(tmp_path, SIZE - 1).fetch(remote_file(local_store, "a"))


def test_other_content_than_the_digest_says_is_refused_and_removed(tmp_path: Path, s3_store: Store) -> None:
    file = remote_file(s3_store, "a")
    s3_store.replace("a", bytes(SIZE))
    with pytest.raises(CacheError, match="has other content in the store than its digest says"):
        FileCache(tmp_path, 10 * SIZE).fetch(file)
    assert held(tmp_path) == []


def test_a_missing_file_is_an_error_at_once(tmp_path: Path, s3_store: Store) -> None:
    file = remote_file(s3_store, "a")
    s3_store.remove("a")
    started = time.monotonic()
    with pytest.raises(FileNotFoundError):
        FileCache(tmp_path, 10 * SIZE).fetch(file)
    assert time.monotonic() - started < 1.0
    assert held(tmp_path) == []


class Breaking(Store):
    """A store whose first reads end early, or with a fault."""

    def __init__(self, url: str, ends: list[object]) -> None:
        super().__init__(url)
        self.ends = ends

    def open(self, path: str) -> IO[bytes]:
        if self.ends:
            end = self.ends.pop(0)
            if isinstance(end, Exception):
                raise end
            return io.BytesIO(self.read_bytes(path)[: SIZE // 2])
        return super().open(path)


def test_broken_connections_are_tried_again(tmp_path: Path, s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = remote_file(s3_store, "a")
    store = Breaking(s3_store.url, ["early", ConnectionResetError("by peer")])
    cache = FileCache(tmp_path, 10 * SIZE)
    started = time.monotonic()
    assert bytes_of(cache, RemoteFile(store, "a", SIZE, whole.digest)) == s3_store.read_bytes("a")
    assert store.ends == []
    assert 3.0 <= time.monotonic() - started < 10.0  # 1 and 2 seconds between the tries

    monkeypatch.setattr(cache_module, "TRIES", 2)
    store = Breaking(s3_store.url, ["early"] * 3)
    with pytest.raises(OSError, match=f"ends after {SIZE // 2} of {SIZE} bytes"):
        FileCache(tmp_path / "other", 10 * SIZE).fetch(RemoteFile(store, "a", SIZE, whole.digest))
    assert store.ends == ["early"]
    assert held(tmp_path / "other") == []


SLOW = """
    import io, sys, time
    from pathlib import Path
    from storage.cache import FileCache, RemoteFile
    from storage.filesystem import Store

    class Slow(io.BytesIO):
        def read(self, size=-1):
            time.sleep(60)

    class SlowStore(Store):
        def open(self, path):
            return Slow()

    url, folder, digest = sys.argv[1:]
    FileCache(Path(folder), 10**9).fetch(RemoteFile(SlowStore(url), "a", %d, digest))
"""


@pytest.mark.parametrize("same_file", [True, False])
def test_what_a_killed_process_left_is_no_obstacle(tmp_path: Path, local_store: Store, same_file: bool) -> None:
    killed, other = remote_file(local_store, "a"), remote_file(local_store, "b")
    arguments = [sys.executable, "-c", textwrap.dedent(SLOW % SIZE), local_store.url, str(tmp_path), killed.digest]
    child = subprocess.Popen(arguments)
    partial = tmp_path / (killed.digest.replace(":", "-") + ".partial")
    deadline = time.monotonic() + 30
    while not partial.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert partial.stat().st_size == SIZE  # its room is taken while it comes
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    file = killed if same_file else other
    cache = FileCache(tmp_path, SIZE)  # room for one
    assert bytes_of(cache, file) == local_store.read_bytes(file.path)
    assert held(tmp_path) == [cache.copy_of(file).name]
