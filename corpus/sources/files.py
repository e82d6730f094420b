"""Where input files lie: listing and opening them on a local disk or behind any fsspec URL."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from corpus.config import SourceConfig
from corpus.sources.base import InputFile, SourceError, hash64

_GLOB = re.compile(r"[*?\[]")

# What makes a file a bad record. Other errors (a lost connection, a failing disk) may heal: they are raised, so that
# the work is tried again instead of a document being put aside for good.
CANNOT_OPEN = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


@dataclass(frozen=True)
class Root:
    """The folder that the uris of a source are relative to, and which files below it the path means.

    `system` is the fsspec file system, None for a local disk; `pattern` is "" for all files.
    """

    system: Any
    folder: str
    pattern: str = ""

    def locate(self, uri: str) -> str:
        """The full path of a file."""
        return f"{self.folder}/{uri}" if self.folder else uri


def find_root(path: str) -> Root:
    """The root of a source's `path`: the folder itself, the folder of a single file, or the folder above a glob."""
    system, local = None, os.path.expanduser(path)
    if "://" in path or "::" in path:
        import fsspec

        system, local = fsspec.core.url_to_fs(path)
        if "file" in _protocols(system):
            system = None
    is_file = os.path.isfile(local) if system is None else system.isfile(local)
    if is_file:
        folder, _, name = local.rpartition("/")
        return Root(system, folder or ("/" if local.startswith("/") else "."), _escape(name))
    exists = os.path.exists(local) if system is None else system.exists(local)
    if exists or not _GLOB.search(local):
        return Root(system, local.rstrip("/") or "/")
    steps = local.split("/")
    fixed = next(index for index, step in enumerate(steps) if _GLOB.search(step))
    folder = "/".join(steps[:fixed]) or ("/" if local.startswith("/") else ".")
    return Root(system, folder, "/".join(steps[fixed:]))


def list_files(config: SourceConfig, endings: tuple[str, ...]) -> list[InputFile]:
    """The input files of a source, sorted by uri, after `include`, `exclude` and `max_bytes`.

    Hidden files and folders (a leading dot) are passed over. `endings` are the format's usual patterns; they count
    only where neither `include` nor the path itself says which files are meant.

    Raises
    ------
    SourceError
        If no file is left, or a file name is not valid UTF-8.
    """
    root = find_root(config.path)
    named = matcher([root.pattern]) if root.pattern else None
    wanted = matcher(config.include) if config.include else (None if root.pattern else matcher(endings))
    unwanted = matcher(config.exclude)
    files = [
        InputFile(config.name, uri, size, etag)
        for uri, size, etag in (_remote_listing(root) if root.system is not None else local_listing(root.folder))
        if (named is None or named(uri)) and (wanted is None or wanted(uri)) and not unwanted(uri)
    ]
    return finish_listing(config, files, looked_at=config.path)


def finish_listing(config: SourceConfig, files: list[InputFile], looked_at: str) -> list[InputFile]:
    """Sorts a listing, applies the `max_bytes` cap and refuses what cannot be a source."""
    if not files:
        raise SourceError(
            f"source {config.name!r}: no {config.kind} files found at {looked_at!r}; check the path"
            + (f", include {config.include}" if config.include else "")
            + (f", exclude {config.exclude}" if config.exclude else "")
        )
    for file in files:
        if not file.uri.isascii():
            try:
                file.uri.encode()
            except UnicodeEncodeError:
                raise SourceError(
                    f"source {config.name!r}: the file name {file.uri!r} below {looked_at!r} is not UTF-8; rename it"
                ) from None
    if config.max_bytes is not None:
        files = _cap(files, config.max_bytes)
    return sorted(files, key=lambda file: file.uri)


def _cap(files: list[InputFile], max_bytes: int) -> list[InputFile]:
    """Whole files in the order of a hash of their uri until their sizes reach `max_bytes`; at least one."""
    taken, size = [], 0
    for file in sorted(files, key=lambda file: (hash64(file.uri), file.uri)):
        if size >= max_bytes:
            break
        taken.append(file)
        size += file.bytes
    return taken


def open_input(root: Root, file: InputFile) -> BinaryIO:
    """Opens an input file for reading bytes.

    Raises
    ------
    OSError
        If it cannot be opened.
    SourceError
        If it is no longer the file of the inventory.
    """
    path = root.locate(file.uri)
    if root.system is not None:
        stream = cast(BinaryIO, root.system.open(path, "rb"))
        _refuse_changed(file, getattr(stream, "size", None), None)
        return stream
    stream = open(path, "rb")  # noqa: SIM115 (the caller closes it)
    status = os.fstat(stream.fileno())
    try:
        _refuse_changed(file, status.st_size, str(status.st_mtime_ns))
    except SourceError:
        stream.close()
        raise
    return stream


def _refuse_changed(file: InputFile, size: int | None, etag: str | None) -> None:
    """The output is named by the inventory, so a file that changed since must not slip in."""
    if not file.etag:
        return
    if (size is not None and size != file.bytes) or (etag is not None and etag != file.etag):
        raise SourceError(
            f"source {file.source!r}: {file.uri} changed after the inventory was taken "
            f"({file.bytes} bytes then, {size} now); start again to take it in as it is"
        )


def local_listing(
    folder: str, prune: frozenset[str] = frozenset(), follow: bool = True
) -> Iterator[tuple[str, int, str]]:
    """(uri, size, etag) of every file below a local folder, hidden ones aside; folders in `prune` are not entered."""
    if not os.path.isdir(folder):
        return
    seen: set[tuple[int, int]] = set()
    pending = [(folder, "")]
    while pending:
        path, prefix = pending.pop()
        if follow:  # a link to a folder above would otherwise be walked for ever
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=follow):
                    if name not in prune:
                        pending.append((entry.path, f"{prefix}{name}/"))
                elif entry.is_file():
                    status = entry.stat()
                    yield prefix + name, status.st_size, str(status.st_mtime_ns)


def _remote_listing(root: Root) -> Iterator[tuple[str, int, str]]:
    folder = root.folder.rstrip("/")
    for path, info in root.system.find(root.folder, detail=True).items():
        uri = path.removeprefix(folder).lstrip("/")
        if not any(step.startswith(".") for step in uri.split("/")):
            yield uri, int(info["size"] or 0), _etag(info)


def _etag(info: dict[str, Any]) -> str:
    for key in ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "mtime", "created"):
        if info.get(key):
            return str(info[key]).strip('"')
    return ""


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """A predicate on uris: does any of the glob patterns match?

    A pattern without a slash is matched against the file's name, one with a slash against the whole uri; `*` and `?`
    stay within a folder, `**/` stands for any number of folders, `[abc]` and `[!abc]` for one character.
    """
    patterns = tuple(patterns)
    whole = [_regular_expression(pattern) for pattern in patterns if "/" in pattern]
    names = [_regular_expression(pattern) for pattern in patterns if "/" not in pattern]
    uri_match = re.compile("|".join(whole)).fullmatch if whole else None
    name_match = re.compile("|".join(names)).fullmatch if names else None

    def matches(uri: str) -> bool:
        if name_match is not None and name_match(uri.rpartition("/")[2]):
            return True
        return uri_match is not None and uri_match(uri) is not None

    return matches


def _regular_expression(pattern: str) -> str:
    out, at = [], 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            out.append("(?:.*/)?")
            at += 3
        elif pattern.startswith("**", at):
            out.append(".*")
            at += 2
        elif pattern[at] == "[" and (close := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : close].replace("\\", "\\\\").replace("[", "\\[")
            out.append(f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]")
            at = close + 1
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(pattern[at], re.escape(pattern[at])))
            at += 1
    return "(?:" + "".join(out) + ")"


def _escape(name: str) -> str:
    """A pattern that matches exactly this name."""
    return re.sub(r"([*?\[])", r"[\1]", name)
