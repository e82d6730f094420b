"""The documentation inside a Python installation: docstrings, READMEs, package descriptions and licence files.

Real text that is found on every machine. Nothing is imported: Python files are parsed with `ast`. Folders of tests
(`test`, `tests`, `idle_test`) are left out: their docstrings document nothing.
"""

from __future__ import annotations

import ast
import email
import gc
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from corpus.config import SourceConfig
from corpus.formats.text import decode_whole, read_whole, whole_text
from corpus.sources.base import (
    BadRecord,
    Cursor,
    Found,
    InputFile,
    Record,
    Selection,
    SourceError,
    bad_record,
)
from corpus.sources.files import CANNOT_OPEN, Root, checksum, finish_listing, local_listing, matcher, open_input
from corpus.sources.streams import Content

_PRUNE = frozenset({"__pycache__", "test", "tests", "idle_test", "site-packages", "dist-packages", "node_modules"})
_README = re.compile(r"readme(\.(md|rst|txt))?", re.IGNORECASE)
_LICENCE = re.compile(r"(licen[sc]e|copying)([-_.].*)?", re.IGNORECASE)
_NOT_PROSE = (
    ".py",
    ".pyi",
    ".pyc",
    ".json",
    ".html",
    ".htm",
    ".xml",
    ".js",
    ".css",
    ".h",
    ".c",
    ".so",
    ".toml",
    ".yaml",
)
# A docstring is a string at the start of a line or after the colon of a one-line body: a file without either has none.
_MAY_HAVE_DOCSTRING = re.compile(rb"""(?:^|[:\r]|\A\xef\xbb\xbf)[ \t\f(]*[rRuU]?["']""", re.MULTILINE)
_BODIES = ("body", "orelse", "finalbody", "handlers", "cases")
_DOCUMENTED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class PythonDocs:
    """`*.py`, README, METADATA and licence files of the standard library and the installed packages.

    Uris begin with `stdlib/` or `site-packages/` when `path` is empty, and are relative to `path` otherwise. Each
    record has meta `{"kind": "docstring" | "readme" | "metadata" | "licence", "name": qualified name,
    "package": top-level package}`.
    """

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        self.config = config
        self._max_record_bytes = max_record_bytes
        self._roots = {"": config.path.rstrip("/")} if config.path else _installation()

    def inventory(self) -> list[InputFile]:
        """All files, sorted by uri (found by walking the folders; about half a second for 20,000 files)."""
        config = self.config
        wanted = matcher(config.include) if config.include else None
        unwanted = matcher(config.exclude)
        files, packages = [], set()
        for prefix, folder in self._roots.items():
            for path, size, etag in local_listing(folder, _PRUNE, follow=False):
                if _kind(path.rpartition("/")[2]) is None:
                    continue
                uri = prefix + path
                package = self._package(uri)
                packages.add(package)
                if self._takes(prefix, package) and (wanted is None or wanted(uri)) and not unwanted(uri):
                    files.append(InputFile(config.name, uri, size, etag))
        for name in config.packages:
            if name not in packages and name != "stdlib":
                raise SourceError(f"source {config.name!r}: packages names {name!r}, which is not installed here")
        looked_at = config.path or ", ".join(self._roots.values())
        return finish_listing(config, files, looked_at)

    def records(self, file: InputFile, *, start: int = 0, cursor: Cursor | None = None) -> Iterator[Found]:
        """The docstrings of a Python file in the order they stand there, or the one text of any other file.

        Docstrings are cleaned with `inspect.cleandoc`; empty ones are no records.
        """
        cursor = cursor if cursor is not None else Cursor(record=start)
        selection = Selection(self.config, file.uri, cursor, resumable=False)
        for number, found in enumerate(self._read(file)):
            if selection.ends_before(number):
                return
            if selection.wants(number):
                selection.reached(number + 1)
                yield found._replace(record=number)

    def batches(self, file: InputFile, cursor: Cursor) -> Iterator[Found]:
        """The same records."""
        return self.records(file, cursor=cursor)

    def checksum(self, file: InputFile) -> str | None:
        """ "sha256:hex" of a file, by reading it; None if it cannot be opened."""
        return checksum(*self._locate(file))

    def _locate(self, file: InputFile) -> tuple[Root, InputFile]:
        prefix = next(prefix for prefix in self._roots if file.uri.startswith(prefix))
        path = file.uri.removeprefix(prefix)
        return Root(None, self._roots[prefix]), replace(file, uri=path)

    def _read(self, file: InputFile) -> Iterator[Record | BadRecord]:
        root, located = self._locate(file)
        try:
            raw = open_input(root, located)
        except CANNOT_OPEN as error:
            yield bad_record(0, "cannot-open", str(error))
            return
        with raw:
            yield from self._content(Content(raw, located.uri), located.uri, self._package(file.uri))

    def _content(self, content: Content, path: str, package: str) -> Iterator[Record | BadRecord]:
        kind = _kind(path.rpartition("/")[2])
        if kind == "readme" or kind == "licence":
            found = whole_text(content, self._max_record_bytes)
            meta = {"kind": kind, "name": path, "package": package}
            yield found._replace(meta=meta) if isinstance(found, Record) else found
            return
        data = read_whole(content, self._max_record_bytes)
        if isinstance(data, BadRecord):
            yield data
        elif kind == "metadata":
            yield from _description(data, package)
        elif _MAY_HAVE_DOCSTRING.search(data):
            yield from _docstrings(data, path, package)

    def _package(self, uri: str) -> str:
        """The top-level package a file belongs to; for a `.dist-info` folder the package it describes."""
        prefix = next(prefix for prefix in self._roots if uri.startswith(prefix))
        top, slash, _ = uri[len(prefix) :].partition("/")
        if not slash:
            return top.partition(".")[0]
        if top.endswith((".dist-info", ".egg-info")):
            return _described_package(self._roots[prefix], top)
        return top

    def _takes(self, prefix: str, package: str) -> bool:
        names = {package, "stdlib"} if prefix == "stdlib/" else {package}
        if self.config.packages and names.isdisjoint(self.config.packages):
            return False
        return names.isdisjoint(self.config.exclude_packages)


def _installation() -> dict[str, str]:
    """Prefix of the uris -> folder, for the running interpreter."""
    roots = {"stdlib/": sysconfig.get_path("stdlib"), "site-packages/": sysconfig.get_path("purelib")}
    if not os.path.samefile(sysconfig.get_path("platlib"), roots["site-packages/"]):
        roots["platform-packages/"] = sysconfig.get_path("platlib")
    return roots


def _kind(name: str) -> str | None:
    """What a file is, by its name; None for files that are not read."""
    if name.endswith(".py"):
        return "docstring"
    if name in ("METADATA", "PKG-INFO"):
        return "metadata"
    first = name[:1]
    if first in "rR" and _README.fullmatch(name):
        return "readme"
    if first in "lLcC" and _LICENCE.fullmatch(name) and not name.lower().endswith(_NOT_PROSE):
        return "licence"
    return None


@lru_cache(maxsize=4096)
def _described_package(folder: str, info: str) -> str:
    """The importable package of a distribution: its own name where a folder or module is called so, else as it says."""
    name = re.sub(r"[-.]+", "_", info.partition("-")[0])
    for spelling in (name, name.lower()):
        if os.path.exists(f"{folder}/{spelling}") or os.path.exists(f"{folder}/{spelling}.py"):
            return spelling
    for listing, pattern in (("top_level.txt", r"(\w+)\s*"), ("RECORD", r"(\w+)(?:/__init__)?\.py,.*")):
        try:
            with open(f"{folder}/{info}/{listing}", encoding="utf-8") as lines:
                found = [match[1] for line in lines if (match := re.fullmatch(pattern, line.rstrip("\n")))]
        except (OSError, UnicodeDecodeError):
            continue  # the listing is optional: the distribution's own name is as good a label
        public = [package for package in found if not package.startswith("_")]
        if public:
            return public[0]
    return name


def _description(data: bytes, package: str) -> Iterator[Record | BadRecord]:
    """The description of a METADATA file: its body, or the Description header of older ones."""
    text = decode_whole(data)
    if isinstance(text, BadRecord):
        yield text
        return
    message = email.message_from_string(text)
    body = message.get_payload()
    description = body if isinstance(body, str) else ""
    if not description.strip():
        folded = str(message.get("Description") or "")
        description = re.sub(r"\n(?: {7}\||\t| {8})", "\n", folded)
    if description.strip() and description.strip() != "UNKNOWN":
        yield Record(
            0, description, meta={"kind": "metadata", "name": str(message.get("Name") or package), "package": package}
        )


def _docstrings(data: bytes, path: str, package: str) -> Iterator[Record | BadRecord]:
    """The docstrings of a Python file's module, classes and functions, in source order."""
    try:
        tree = _parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # ValueError: null bytes; RecursionError and MemoryError: nesting that the parser gives up on.
        yield bad_record(0, "bad-syntax", f"does not parse as Python: {error or type(error).__name__}", data)
        return
    module = re.sub(r"(/__init__)?\.py$", "", path).replace("/", ".")
    pending: list[tuple[ast.AST, str]] = [(tree, module)]
    while pending:
        node, name = pending.pop()
        if isinstance(node, (ast.Module, *_DOCUMENTED)):
            text = _docstring(node)
            if text.strip():
                yield Record(0, text, meta={"kind": "docstring", "name": name, "package": package})
        inner: list[tuple[ast.AST, str]] = []
        for field in _BODIES:
            for child in getattr(node, field, ()):
                if isinstance(child, _DOCUMENTED):
                    inner.append((child, f"{name}.{child.name}"))
                elif not isinstance(child, (ast.Expr, ast.Assign, ast.Return)):
                    inner.append((child, name))
        pending.extend(reversed(inner))


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    first = node.body[0] if node.body else None
    if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
        return ""
    return inspect.cleandoc(first.value.value) if isinstance(first.value.value, str) else ""


def _parse(data: bytes) -> ast.Module:
    """`ast.parse` without warnings about old escapes, and without garbage collection: it makes 40% of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(data)
    finally:
        if collecting:
            gc.enable()
