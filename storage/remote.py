"""Files of object stores and in memory, through fsspec, with what a `Store` promises and fsspec alone does not.

Exclusive creation whose outcome is known even if a response was lost, errors that are always OSError, connections that
survive a fork.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fsspec.core import url_to_fs
from fsspec.spec import AbstractFileSystem

WRITER_KEY = "gristmill-writer"
"""Object metadata that tells, after an unclear answer, whether the object is the one this call wrote."""
CONFLICT_TRIES = 5

_memory_lock = threading.Lock()
_proven: set[str] = set()


class RemoteFiles:
    """The fsspec file system behind a URL; all methods take full paths as fsspec spells them.

    Every method raises OSError or one of its kinds, whatever the library underneath raises.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._connect()

    def _connect(self) -> None:
        # Listings are not cached: another process may have published since.
        self._is_s3 = self.url.startswith(("s3://", "s3a://"))
        self._is_memory = self.url.startswith("memory://")
        options = {"use_listings_cache": False} if self._is_s3 else {}
        self._files, base = url_to_fs(self.url, **options)
        self.base = str(base).rstrip("/")
        self._process = os.getpid()

    @property
    def files(self) -> Any:
        """The fsspec file system; a forked child opens its own, since event loops do not survive a fork."""
        if self._process != os.getpid():
            self._connect()
        return self._files

    # ---------------------------------------------------------------- reading

    def file_size(self, path: str) -> int | None:
        """Bytes of a file, or None if there is no file of that name."""
        with _as_os_error(path):
            try:
                info = self.files.info(path)
            except FileNotFoundError:
                return None
            return int(info["size"]) if info["type"] == "file" else None

    def open(self, path: str) -> IO[bytes]:
        """A file opened for reading."""
        if self._is_memory:
            # fsspec hands every reader of a file in memory the same position.
            return io.BytesIO(self.read(path))
        with _as_os_error(path):
            return self.files.open(path, "rb")  # type: ignore[no-any-return]

    def read(self, path: str) -> bytes:
        """The whole content of a file."""
        with _as_os_error(path):
            return bytes(self.files.cat_file(path))

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every file below a folder by full path; empty if there is none."""
        with _as_os_error(folder):
            try:
                found = self.files.find(folder, detail=True)
            except FileNotFoundError:
                return {}
        return {name: int(info["size"]) for name, info in found.items() if name.startswith(f"{folder}/")}

    def folder_names(self, folder: str) -> list[str]:
        """Names of the folders directly below one; empty if it is missing."""
        with _as_os_error(folder):
            try:
                entries = self.files.ls(folder, detail=True)
            except FileNotFoundError:
                return []
        return sorted(e["name"].rstrip("/").rpartition("/")[2] for e in entries if e["type"] == "directory")

    # ---------------------------------------------------------------- writing

    def create(self, file: Path, path: str) -> None:
        """Put a local file where nothing is; FileExistsError if somebody else's file is there."""
        if self._is_memory:
            self._create_in_memory(file.read_bytes(), path)
            return
        self._prove_exclusive()
        self._create(file, path)

    def _create_in_memory(self, data: bytes, path: str) -> None:
        with _memory_lock:
            if self.files.exists(path):
                raise _already_published(path)
            self.files.pipe_file(path, data)

    def _create(self, file: Path, path: str) -> None:
        writer = secrets.token_hex(16)
        options = {"Metadata": {WRITER_KEY: writer}} if self._is_s3 else {}
        for left in reversed(range(CONFLICT_TRIES)):
            try:
                with _as_os_error(path):
                    self.files.put_file(str(file), path, mode="create", **options)
                return
            except OSError as error:
                # The put may have succeeded and only its answer been lost; a retry inside the library then finds our
                # own object in the way.
                if self._is_s3 and self._wrote(path, writer):
                    return
                status = _http_status(error)
                if isinstance(error, FileExistsError) or status == 412:
                    raise _already_published(path) from error
                # 409 says that something else happened to the name meanwhile, not that it is taken.
                if status != 409:
                    raise
                if self.file_size(path) is not None:
                    raise _already_published(path) from error
                if not left:
                    raise
                time.sleep(0.1 + 0.1 * secrets.randbelow(5))

    def _wrote(self, path: str, writer: str) -> bool:
        try:
            with _as_os_error(path):
                return bool(self.files.metadata(path).get(WRITER_KEY) == writer)
        except OSError:
            return False

    def _prove_exclusive(self) -> None:
        """Try, once a process, whether this store refuses to create a file twice: some ignore the condition."""
        if self.url in _proven:
            return
        kind = type(self.files)
        own = getattr(kind, "_put_file", None) or kind.put_file
        problem = OSError(
            errno.ENOTSUP,
            "this store cannot create a file exclusively, which publishing needs; put the workspace on a local disk or "
            "on an object store with conditional writes (If-None-Match)",
            self.url,
        )
        if own is AbstractFileSystem.put_file:
            raise problem
        probe = f"{self.base}/.tmp-probe-{secrets.token_hex(8)}"
        try:
            with _as_os_error(probe):
                self.files.pipe_file(probe, b"probe")
            with contextlib.suppress(FileExistsError):
                self._create(Path(os.devnull), probe)
                raise problem
        finally:
            self.remove(probe)
        _proven.add(self.url)

    def replace(self, path: str, data: bytes) -> None:
        """Write a file over an older one."""
        with _as_os_error(path), _memory_lock if self._is_memory else contextlib.nullcontext():
            self.files.pipe_file(path, data)

    def remove(self, path: str) -> None:
        """Remove one file if it is there."""
        with _as_os_error(path), contextlib.suppress(FileNotFoundError):
            self.files.rm_file(path)

    def remove_tree(self, folder: str) -> None:
        """Remove everything below a folder if it is there."""
        with _as_os_error(folder), contextlib.suppress(FileNotFoundError):
            self.files.rm(folder, recursive=True)


@contextlib.contextmanager
def _as_os_error(path: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        kind = PermissionError if "Credential" in type(error).__name__ else OSError
        number = errno.EACCES if kind is PermissionError else errno.EIO
        raise kind(number, f"{type(error).__name__}: {error}", path) from error


def _already_published(path: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "already published", path)


def _http_status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error, as botocore and others keep it; None if there is none."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(status, int):
                return status
        if isinstance(code := getattr(error, "code", None), int):
            return code
        error = error.__cause__
    return None
