"""One way to reach files, local or remote: a `Store` is a root on any fsspec file system and paths relative to it.

Publishing is create-only: a file appears whole or not at all, and never over another. Locally that is a temporary
name, fsync and a hard link (which fails if the target exists); on object stores an exclusive put.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from storage.remote import RemoteFiles

TEMPORARY_PREFIX = ".tmp-"
FILE_DIGEST = "sha256"
_ALGORITHMS: Mapping[str, Callable[[], Any]] = {
    FILE_DIGEST: hashlib.sha256,
    "blake2b": partial(hashlib.blake2b, digest_size=32),
}
_CHUNK = 1 << 20


def digest_bytes(data: bytes) -> str:
    """The digest of what is no file as "blake2b:hex" (256 bits)."""
    return f"blake2b:{hashlib.blake2b(data, digest_size=32).hexdigest()}"


def digest_stream(stream: IO[bytes], algorithm: str = FILE_DIGEST) -> str:
    """The digest of everything left in `stream`, read in pieces of 1 MiB, as "sha256:hex": what `sha256sum` says."""
    state = _ALGORITHMS[algorithm]()
    while chunk := stream.read(_CHUNK):
        state.update(chunk)
    return f"{algorithm}:{state.hexdigest()}"


def is_file_digest(digest: str | None) -> bool:
    """Whether `has_digest` knows the algorithm of this digest."""
    return digest is not None and digest.partition(":")[0] in _ALGORITHMS


def has_digest(stream: IO[bytes], digest: str) -> bool:
    """Whether everything left in `stream` has this digest, by the algorithm that it names (older files: blake2b).

    Raises
    ------
    ValueError
        If that is no algorithm known here.
    """
    if not is_file_digest(digest):
        raise ValueError(f"{digest!r} is not a digest of one of {', '.join(_ALGORITHMS)}")
    return digest_stream(stream, digest.partition(":")[0]) == digest


def is_local(url: str) -> bool:
    """Whether a path or URL names something on this machine's disk."""
    return "://" not in url or url.startswith(("file://", "local://"))


class Store:
    """A folder on a local disk, in memory or in an object store.

    Parameters
    ----------
    url
        A local path or any fsspec URL (`file://`, `memory://`, `s3://bucket/prefix` …). Credentials come from the
        environment. All other methods take POSIX paths relative to it.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        text = os.fspath(url)
        self.is_local = is_local(text)
        if self.is_local:
            bare = text.split("://", 1)[1] if "://" in text else text
            self.root = Path(bare).expanduser().resolve()
            self.url = str(self.root)
            self._base = str(self.root).rstrip("/")
        else:
            self.url = text if text.endswith("://") else text.rstrip("/")
            self._remote = RemoteFiles(self.url)
            self._base = self._remote.base

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.url,)

    # ---------------------------------------------------------------- paths

    def _full(self, path: str) -> str:
        if "\0" not in path and not {"", ".", ".."}.intersection(path.split("/")):
            return f"{self._base}/{path}"
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "\0" in path:
            raise ValueError(f"{path!r} is not a path inside {self.url}")
        return f"{self._base}/{pure}" if pure.parts else self._base

    def local(self, path: str) -> Path:
        """The path on this machine's disk; only for local stores."""
        if not self.is_local:
            raise ValueError(f"{self.url} is not on a local disk")
        return Path(self._full(path) or "/")

    def scratch(self) -> Path:
        """A folder on a local disk for temporary files, made if needed (inside the workspace when it is local)."""
        if self.is_local:
            folder = self.root / "tmp"
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        return private_folder(hashlib.blake2b(self.url.encode(), digest_size=8).hexdigest())

    # ---------------------------------------------------------------- reading

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        if self.is_local:
            return self.local(path).is_file()
        return self._remote.file_size(self._full(path)) is not None

    def size(self, path: str) -> int:
        """Bytes of a file; FileNotFoundError if it is not there."""
        if self.is_local:
            return self.local(path).stat().st_size
        size = self._remote.file_size(self._full(path))
        if size is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", f"{self.url}/{path}")
        return size

    def open(self, path: str) -> IO[bytes]:
        """A file opened for reading bytes."""
        if self.is_local:
            return self.local(path).open("rb")
        return self._remote.open(self._full(path))

    def read_bytes(self, path: str) -> bytes:
        """The whole content of a file."""
        if self.is_local:
            return self.local(path).read_bytes()
        return self._remote.read(self._full(path))

    def read_json(self, path: str) -> Any:
        """A JSON file's value; ValueError naming the file if it is not JSON."""
        try:
            return json.loads(self.read_bytes(path))
        except ValueError as error:
            raise ValueError(f"{self.url}/{path} is not valid JSON: {error}") from error

    def digest(self, path: str) -> str:
        """The digest of a file's bytes as "sha256:hex"."""
        with self.open(path) as stream:
            return digest_stream(stream)

    def has_digest(self, path: str, digest: str) -> bool:
        """Whether a file has the digest, see `has_digest`."""
        with self.open(path) as stream:
            return has_digest(stream, digest)

    def listing(self, prefix: str = "") -> dict[str, int]:
        """Every file below a folder with its size in bytes, by path relative to the store, sorted.

        Unfinished temporary files are left out. A missing folder is an empty listing.
        """
        found: dict[str, int] = {}
        if self.is_local:
            self._walk(self.local(prefix), found)
        else:
            skip = len(self._base) + 1
            for name, size in self._remote.sizes(self._full(prefix)).items():
                if not PurePosixPath(name).name.startswith(TEMPORARY_PREFIX):
                    found[name[skip:]] = size
        return dict(sorted(found.items()))

    def _walk(self, folder: Path, found: dict[str, int]) -> None:
        skip = len(self._base) + 1
        stack = [str(folder)]
        while stack:
            try:
                entries = os.scandir(stack.pop())
            except (FileNotFoundError, NotADirectoryError):
                continue
            with entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                    elif not entry.name.startswith(TEMPORARY_PREFIX):
                        with contextlib.suppress(FileNotFoundError):
                            found[entry.path[skip:]] = entry.stat().st_size

    def folders(self, prefix: str) -> list[str]:
        """The names of the folders directly below `prefix`, sorted; none if it is missing."""
        if self.is_local:
            folder = self.local(prefix)
            return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        return self._remote.folder_names(self._full(prefix))

    # ---------------------------------------------------------------- writing

    @contextlib.contextmanager
    def temporary(self, path: str) -> Iterator[Path]:
        """A name on a local disk to write a file under before it is published at `path`; removed afterwards."""
        folder = self.local(path).parent if self.is_local else self.scratch()
        _make_folder(folder)
        name = folder / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
        try:
            yield name
        finally:
            name.unlink(missing_ok=True)

    def create(self, path: str, data: bytes) -> None:
        """Create a file that must not exist yet, whole or not at all; FileExistsError if somebody was first."""
        with self.temporary(path) as name:
            name.write_bytes(data)
            self.publish(name, path)

    def create_json(self, path: str, value: Any) -> None:
        """`create` for a JSON value, with sorted keys and an indent people can read."""
        self.create(path, json_bytes(value, f"{self.url}/{path}"))

    def publish(self, file: Path, path: str, *, durable: bool = True) -> None:
        """Make a finished local file appear at `path`; FileExistsError if something is there already.

        On a local store `file` and what is published may be one file on disk afterwards: it must not be written to
        again, only removed. Without `durable` it outlives the process, but not always the machine.
        """
        if not self.is_local:
            self._remote.create(file, self._full(path))
            return
        target = self.local(path)
        _make_folder(target.parent)
        if durable:
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        try:
            os.link(file, target)
        except FileExistsError as error:
            raise FileExistsError(errno.EEXIST, "already published", str(target)) from error
        except OSError as error:
            if error.errno == errno.EXDEV:
                with self.temporary(path) as copy:
                    shutil.copyfile(file, copy)
                    self.publish(copy, path, durable=durable)
                return
            if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP):
                raise OSError(
                    error.errno,
                    "this file system has no hard links, which exclusive publishing needs; "
                    "put the workspace on another disk or on an object store",
                    str(target),
                ) from error
            raise
        if durable:
            _sync_folder(target.parent)

    def replace(self, path: str, data: bytes) -> None:
        """Write a file over an older one, atomically. Only for run records and heartbeats."""
        if not self.is_local:
            self._remote.replace(self._full(path), data)
            return
        target = self.local(path)
        with self.temporary(path) as name:
            with name.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            name.replace(target)
        _sync_folder(target.parent)

    def remove(self, path: str) -> None:
        """Remove one file; nothing happens if it is gone already."""
        if self.is_local:
            self.local(path).unlink(missing_ok=True)
        else:
            self._remote.remove(self._full(path))

    def remove_tree(self, prefix: str) -> None:
        """Remove a folder and all below it; nothing happens if it is gone already."""
        if not PurePosixPath(prefix).parts:
            raise ValueError(f"remove_tree would empty {self.url}: name a folder in it")
        if not self.is_local:
            self._remote.remove_tree(self._full(prefix))
            return
        folder = self.local(prefix)
        while folder.is_dir():
            # Somebody else may be removing the same folder: go on until it is gone.
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)

    def fetch(self, path: str, target: Path) -> None:
        """Copy a file of the store to a local path, whole or not at all."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}")
        try:
            with self.open(path) as source, partial.open("wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def private_folder(name: str) -> Path:
    """This user's folder of that name where the machine keeps temporary files, made if needed.

    PermissionError if it is somebody else's.
    """
    folder = Path(tempfile.gettempdir()) / f"gristmill-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "the scratch folder belongs to somebody else; set TMPDIR", str(folder))
    return folder


def json_bytes(value: Any, where: str, *, indent: int | None = 1) -> bytes:
    """A JSON value as UTF-8 with sorted keys; ValueError naming `where` for NaN and infinity."""
    try:
        text = json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{where} cannot be written as JSON: {error}; write null for what is not a number") from error
    return (text + "\n").encode()


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each entry synced, so that what is published in it outlives a power cut."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file lies where a folder is needed", str(folder)) from None
        return
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
