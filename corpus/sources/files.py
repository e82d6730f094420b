"""Where input files lie: listing and opening them on a local disk or behind any fsspec URL.

What is named by a listing and cannot be opened (a link to nothing, a pipe, a dead link of an index page) is listed all
the same, with 0 bytes: it is counted where it is read, as `cannot-open`, instead of being left out without a word.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from corpus.config import SourceConfig
from corpus.sources.base import InputFile, SourceError, hash64, sha256_of
from corpus.sources.remote import connect, etag, full_name, list_remote, look, names_in, protocols_of
from corpus.sources.remote_reading import RemoteReader
from corpus.sources.streams import SUFFIXES

_GLOB = re.compile(r"[*?\[]")
_URL = re.compile(r"://|::")
_NAMES_SHOWN = 6

MISSING = "missing"
"""The etag of what a listing names and nobody can open."""

# What makes a file a bad record. Other errors (a lost connection, a failing disk) may heal: they are raised, so that
# the work is tried again instead of a document being put aside for good.
CANNOT_OPEN = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)

_NO_FILE = (errno.ELOOP, errno.ENXIO, errno.ENODEV)  # a link in a circle, a socket, a device without a driver

_KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".md": "text",
    ".rst": "text",
    ".html": "html",
    ".htm": "html",
    ".warc": "warc",
    ".xml": "mediawiki",
    ".pdf": "pdf",
    ".epub": "epub",
}
"""The kind of source that usually reads an ending, for error messages."""


@dataclass(frozen=True)
class Root:
    """The folder that the uris of a source are relative to, and which files below it the path means.

    `system` is the fsspec file system, None for a local disk; `pattern` is "" for all files; `single` says that the
    path is one file, the one that `pattern` matches.
    """

    system: Any
    folder: str
    pattern: str = ""
    single: bool = False

    def locate(self, uri: str) -> str:
        """The full path of a file."""
        return f"{self.folder.rstrip('/')}/{uri}" if self.folder else uri


def find_root(path: str) -> Root:
    """The root of a source's `path`: the folder itself, the folder of a single file, or the folder above a glob.

    Raises
    ------
    SourceError
        If a URL holds credentials, its protocol is unknown, or the package that reads it is missing.
    OSError
        If the place cannot be reached now.
    """
    local = os.path.expanduser(path)
    if not _URL.search(path) or os.path.lexists(local):
        return _local_root(local)
    system, inside = connect(path)
    if "file" in protocols_of(system):
        return _local_root(inside)
    # A folder of a web server is what has a slash at its end; no store has a `*` in the name of a bucket.
    web = "http" in protocols_of(system)
    if web and inside.partition("?")[0].endswith("/"):
        return Root(system, inside.rstrip("/"))
    steps = inside.split("/")
    wild = [index for index, step in enumerate(steps) if _GLOB.search(step)]
    if wild and "s3" in protocols_of(system) and wild[0] == 0:
        raise SourceError(f"{path!r}: the name of the bucket must be given, patterns begin behind it")
    info = None if web and "*" in inside else look(system, inside)
    if info is not None and info["type"] != "directory":
        folder, slash, name = inside.rpartition("/")
        return Root(system, folder or slash, _escape(name), single=True)
    if info is not None or not wild:
        return Root(system, inside.rstrip("/"))
    return Root(system, "/".join(steps[: wild[0]]), "/".join(steps[wild[0] :]))


def _local_root(path: str) -> Root:
    if os.path.isdir(path):
        return Root(None, path.rstrip("/") or "/")
    if os.path.lexists(path):
        folder, slash, name = path.rpartition("/")
        return Root(None, folder or slash or ".", _escape(name), single=True)
    steps = path.split("/")
    wild = [index for index, step in enumerate(steps) if _GLOB.search(step)]
    if not wild:
        return Root(None, path.rstrip("/") or "/")
    folder = "/".join(steps[: wild[0]]) or ("/" if path.startswith("/") else ".")
    return Root(None, folder, "/".join(steps[wild[0] :]))


def list_files(config: SourceConfig, endings: tuple[str, ...], root: Root | None = None) -> list[InputFile]:
    """The input files of a source, sorted by uri, after `include`, `exclude` and `max_bytes`.

    Hidden files and folders (a leading dot) are passed over. `endings` are the format's usual patterns; they count
    only where neither `include` nor the path itself says which files are meant. `root` is that of the path, if it has
    been looked for already.

    Raises
    ------
    SourceError
        If no file is left (it says what is there instead), a folder may not be listed, or a file name is not valid
        UTF-8.
    OSError
        If a place cannot be listed now.
    """
    root = root or find_root(config.path)
    named = matcher([root.pattern]) if root.pattern else None
    wanted = matcher(config.include) if config.include else (None if root.pattern else matcher(endings))
    unwanted = matcher(config.exclude)
    files, others = [], []
    for uri, size, mark in _listing(root, unwanted):
        if (named is None or named(uri)) and (wanted is None or wanted(uri)) and not unwanted(uri):
            files.append(InputFile(config.name, uri, size, mark))
        else:
            others.append(uri)
            if mark == MISSING and "." not in uri.rpartition("/")[2] and not unwanted(uri):
                raise SourceError(
                    f"source {config.name!r}: {root.locate(uri)!r} leads to nothing that can be read, and a folder of "
                    f"files may be missing there; put it right, remove it, or exclude {uri!r}"
                )
    return finish_listing(config, files, looked_at=config.path, instead="" if files else _instead(root, config, others))


def _listing(root: Root, unwanted: Callable[[str], bool]) -> Iterator[tuple[str, int, str]]:
    """(uri, size, etag) of every file that is not hidden."""
    # A pattern without `**` reaches no deeper than its slashes.
    depth = None if not root.pattern or "**" in root.pattern else root.pattern.count("/")
    if root.system is None:
        if root.single:
            uri = _unescape(root.pattern)
            if (found := _local_file(root.locate(uri))) is not None:
                yield uri, *found
        else:
            yield from local_listing(root.folder, depth=depth, unwanted=unwanted)
        return
    if root.single:
        uri = _unescape(root.pattern)
        info = look(root.system, root.locate(uri)) or {}
        yield uri, int(info.get("size") or 0), etag(info)
        return
    for uri, size, mark in list_remote(root.system, root.folder, depth):
        if not any(step.startswith(".") for step in uri.split("/")):
            yield uri, size, mark


def _instead(root: Root, config: SourceConfig, others: list[str]) -> str:
    """What is found where no file of the source is."""
    place = root.folder if root.system is None else full_name(root.system, root.folder)
    if others:
        endings = Counter(_ending(uri) for uri in others)
        shown = ", ".join(f"{ending} ({count})" for ending, count in endings.most_common(_NAMES_SHOWN))
        text = f"below {place!r} there are {len(others)} other files, with these endings: {shown}"
        if root.pattern:
            text += f"; none matches {root.pattern!r}"
        kinds = Counter(_KINDS[ending] for uri in others if (ending := _ending(uri, packed=False)) in _KINDS)
        if kinds and not config.include and not root.pattern:
            text += f"; did you mean kind: {kinds.most_common(1)[0][0]}?"
        return text
    there = os.path.lexists(root.folder) if root.system is None else look(root.system, root.folder) is not None
    if there:
        return f"{place!r} is there and holds no files that are not hidden"
    return f"{place!r} does not exist{_nearest(root)}"


def _nearest(root: Root) -> str:
    """The nearest folder above that exists, and what it holds."""
    above, below = root.folder.rstrip("/"), ""
    while True:
        above, slash, below = above.rpartition("/")
        folder = above or slash or ("." if root.system is None else "")
        if root.system is None:
            names = sorted(os.listdir(folder)) if os.path.isdir(folder) and os.access(folder, os.R_OK) else []
        else:
            names = [] if folder.endswith(":/") else names_in(root.system, folder)
        names = [name for name in names if not name.startswith(".")]
        if names:
            near = difflib.get_close_matches(below, names, n=1)
            shown = ", ".join(names[:_NAMES_SHOWN]) + (" …" if len(names) > _NAMES_SHOWN else "")
            return f"; {folder!r} holds {shown}" + (f"; did you mean {near[0]!r}?" if near else "")
        if not above:
            return ""


def _ending(uri: str, packed: bool = True) -> str:
    """ ".jsonl.gz" of "2024/a.jsonl.gz", ".jsonl" if not `packed`; "none" where a name has no ending."""
    stem, ending = os.path.splitext(uri.rpartition("/")[2])
    if ending in SUFFIXES[1:]:
        inner = os.path.splitext(stem)[1]
        return inner + ending if packed else inner
    return ending or "none"


def finish_listing(config: SourceConfig, files: list[InputFile], looked_at: str, instead: str = "") -> list[InputFile]:
    """Sorts a listing, applies the `max_bytes` cap and refuses what cannot be a source.

    `instead` says what was found in place of files.
    """
    if not files:
        raise SourceError(
            f"source {config.name!r}, path: no {config.kind} files found at {looked_at!r}"
            + (f", include {config.include}" if config.include else "")
            + (f", exclude {config.exclude}" if config.exclude else "")
            + (f"; {instead}" if instead else "")
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

    Remote files are read in blocks of at most 8 MiB; what fails on the way is tried again (`RemoteReader`).

    Raises
    ------
    OSError
        If it cannot be opened; one of `CANNOT_OPEN` if it never will.
    SourceError
        If it is no longer the file of the inventory.
    """
    path = root.locate(file.place)
    if root.system is not None:

        def check(size: int | None, marks: frozenset[str]) -> None:
            if size not in (None, file.bytes) and file.bytes and (file.seen or file.etag) in marks:
                raise ConnectionError(f"the answer speaks of {size} bytes, the listing of {file.bytes}")
            _refuse_changed(file, size, marks)

        return cast(BinaryIO, RemoteReader(root.system, path, check))
    # Without waiting: a pipe that nobody writes to would be opened for ever.
    try:
        stream = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except OSError as error:
        if error.errno in _NO_FILE:
            raise PermissionError(error.errno, error.strerror, path) from error
        raise
    try:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(errno.EPERM, "this is a pipe, a socket or a device, not a file", path)
        _refuse_changed(file, status.st_size, frozenset({str(status.st_mtime_ns)}))
    except (SourceError, OSError):
        stream.close()
        raise
    return stream


def checksum(root: Root, file: InputFile) -> str | None:
    """ "sha256:hex" of an input file as it lies there, by reading it; None if it cannot be opened."""
    try:
        raw = open_input(root, file)
    except CANNOT_OPEN:
        return None
    with raw:
        return sha256_of(raw)


def _refuse_changed(file: InputFile, size: int | None, marks: frozenset[str]) -> None:
    """The output is named by the inventory, so a file that changed since must not slip in.

    What is not known (no etag, no size: 0 bytes with one) is not compared.
    """
    expected = file.seen or file.etag
    other = bool(expected and marks and expected not in marks)
    if other or (file.bytes and size not in (None, file.bytes)):
        raise SourceError(
            f"source {file.source!r}: {file.uri} changed after the inventory was taken "
            f"({file.bytes} bytes then, {size} now); start again to take it in as it is"
        )


def local_listing(
    folder: str,
    prune: frozenset[str] = frozenset(),
    follow: bool = True,
    depth: int | None = None,
    unwanted: Callable[[str], bool] = lambda uri: False,
) -> Iterator[tuple[str, int, str]]:
    """(uri, size, etag) of every file below a local folder, hidden ones aside; folders in `prune` are not entered.

    Links are followed (`follow`); a folder that is reached in several ways is listed once, under its own name where it
    lies below `folder` itself. Links to nothing, pipes, sockets and devices come with 0 bytes and the etag "missing".
    `depth` is the number of folders that are gone down into, None for all.

    Raises
    ------
    SourceError
        If a folder cannot be listed, unless its uri with a slash at the end is `unwanted`: passing over it would lose
        its files without a word.
    """
    if not os.path.isdir(folder):
        return
    seen: set[tuple[int, int]] = set()
    pending, links = [(folder, "")], list[tuple[str, str]]()
    while pending or links:
        if not pending:
            links.sort(key=lambda link: link[1], reverse=True)
            pending.append(links.pop())
        path, prefix = pending.pop()
        try:
            if follow:  # a link to a folder above would otherwise be walked for ever
                status = os.stat(path)
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as found:
                entries = list(found)
        except OSError as error:
            gone = prefix and isinstance(error, FileNotFoundError) and not os.path.islink(path)
            if gone or (prefix and unwanted(prefix)):
                continue
            raise SourceError(
                f"the folder {path!r} cannot be listed: {error.strerror}; allow it, or exclude {f'{prefix}**'!r}"
            ) from error
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if _is_folder(entry, follow):
                if name not in prune and (depth is None or prefix.count("/") < depth):
                    (links if entry.is_symlink() else pending).append((entry.path, f"{prefix}{name}/"))
            elif (size_and_mark := _local_file(entry.path)) is not None:
                yield prefix + name, *size_and_mark


def _is_folder(entry: os.DirEntry[str], follow: bool) -> bool:
    try:
        return entry.is_dir(follow_symlinks=follow)
    except OSError:  # a link that leads in a circle, or where nobody may look
        return False


def _local_file(path: str) -> tuple[int, str] | None:
    """(size, etag) of a file; None for a folder and for what is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, MISSING) if os.path.lexists(path) else None
    if stat.S_ISREG(status.st_mode):
        return status.st_size, str(status.st_mtime_ns)
    return None if stat.S_ISDIR(status.st_mode) else (0, MISSING)


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


def _unescape(pattern: str) -> str:
    """The name that `_escape` made a pattern of."""
    return re.sub(r"\[([*?\[])\]", r"\1", pattern)
