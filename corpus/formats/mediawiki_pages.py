"""Dumps of MediaWiki cut into pages, and what stands in a page's XML.

The bytes are cut at `<page>` and `</page>`, which stand in no text (there they are `&lt;page&gt;`), and each page is
parsed alone: damage costs its page, and there is no document type in which entities could be declared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from xml.parsers import expat

from corpus.sources.streams import Gap

_OPEN, _CLOSE = b"<page>", b"</page>"
_REVISION, _REVISION_END = b"<revision>", b"</revision>"
_TIMESTAMP = re.compile(rb"<timestamp>([^<]{1,40})<")
_SITE = re.compile(rb"<siteinfo>.*?</siteinfo>", re.DOTALL)
# What may stand around pages: where dumps are joined, also between them.
_AROUND = re.compile(
    rb"(?:\xef\xbb\xbf|\s+|<\?xml[^<>]*>|</?mediawiki[^<>]*>|<siteinfo>.*?</siteinfo>|<!--.*?-->|"
    rb"<!DOCTYPE[^<>\[]*(?:\[[^\]]*\])?\s*>)*+",
    re.DOTALL,
)
_MOST_AROUND = 1 << 20
_MOST_LEVELS = 20
_TEXT_BUFFER = 1 << 20

_Tell = Callable[[tuple[str, ...], dict[str, str], str], None]


class Piece(NamedTuple):
    """What a dump is made of, in order.

    Attributes
    ----------
    kind
        page: all of a page, or of a long one all but superseded revisions; unclosed: a page that does not end before
        the next one; cut: the last one if it does not end; too-long: one with more than the allowed bytes; around: what
        stands before and between pages; after: what stands behind the last; lost: a hole in the stream, with the pages
        that it cuts.
    data
        The bytes; of what is too long, the first ones.
    size
        How many bytes there were.
    """

    kind: Literal["page", "unclosed", "cut", "too-long", "around", "after", "lost"]
    data: bytes
    size: int = 0
    message: str = ""


def cut_pages(chunks: Iterable[bytes | Gap], max_bytes: int) -> Iterator[Piece]:
    """All of a dump in pieces.

    A page is too long if any of its revisions is, together with what stands outside of revisions. Memory holds a few
    times `max_bytes`, whatever is in a page.
    """
    buffer = bytearray()
    around = bytearray()
    around_size = 0
    inside, after_gap, scanned, patience = False, False, 0, max_bytes
    superseded = dropped = 0  # bytes of the page that are no longer held: of older revisions; of what is too long
    for chunk in chunks:
        if isinstance(chunk, Gap):
            yield Piece("lost", bytes(buffer[:max_bytes]), len(buffer), chunk.message)
            buffer.clear()
            around.clear()
            inside, after_gap, around_size = False, True, 0
            continue
        buffer += chunk
        while True:
            if not inside:
                at = buffer.find(_OPEN)
                end = at if at >= 0 else max(0, len(buffer) - len(_OPEN) + 1)
                around += buffer[: min(end, _MOST_AROUND - len(around))]
                around_size += end
                del buffer[:end]
                if at < 0:
                    break
                if not after_gap:  # else it is the rest of what was lost
                    yield Piece("around", bytes(around), around_size)
                around.clear()
                inside, after_gap, around_size = True, False, 0
                scanned, patience, superseded, dropped = len(_OPEN), max_bytes, 0, 0
            end = buffer.find(_CLOSE, scanned)
            again = buffer.find(_OPEN, scanned, end if end >= 0 else len(buffer))
            if end < 0 and again < 0:
                scanned = max(len(_OPEN), len(buffer) - len(_CLOSE) + 1)
                if dropped or len(buffer) > patience:
                    kept = None if dropped else _newest_revision(bytes(buffer), max_bytes)
                    if kept is None:
                        # Only its size is followed, and its first bytes are kept for those who look for it.
                        head = min(_MOST_AROUND, max_bytes, scanned)
                        dropped += scanned - head
                        del buffer[head:scanned]
                        scanned = head
                    else:
                        shorter = len(buffer) - len(kept)
                        buffer[:] = kept
                        superseded += shorter
                        scanned = max(len(_OPEN), scanned - shorter)
                        patience = len(kept) + max_bytes
                break
            stop = again if again >= 0 else end + len(_CLOSE)
            with memoryview(buffer) as view:
                page = bytes(view[:stop])
            del buffer[:stop]
            inside = False
            if again >= 0:
                yield Piece("unclosed", page[:max_bytes], stop + superseded + dropped)
                continue
            found = None if dropped else page if stop + superseded <= max_bytes else _newest_revision(page, max_bytes)
            if found is None or len(found) > max_bytes:
                yield Piece("too-long", page[:max_bytes], stop + superseded + dropped)
            else:
                yield Piece("page", found, stop + superseded)
    if inside:
        yield Piece("cut", bytes(buffer[:max_bytes]), len(buffer) + superseded + dropped)
    elif not after_gap:
        around += buffer[: _MOST_AROUND - len(around)]
        yield Piece("after", bytes(around), around_size + len(buffer))


def _newest_revision(page: bytes, max_bytes: int) -> bytes | None:
    """A page, or the beginning of one, without the revisions that a newer one supersedes; None if it is too long."""
    first = page.find(_REVISION)
    if first < 0:
        return page if len(page) <= max_bytes else None
    best, best_time, position = b"", b"", first
    while (end := page.find(_REVISION_END, position)) >= 0:
        revision = page[position : end + len(_REVISION_END)]
        if first + len(revision) > max_bytes:
            return None
        found = _TIMESTAMP.search(revision)
        time = found[1] if found else b""
        if time >= best_time or not best:
            best, best_time = revision, time
        position = end + len(_REVISION_END)
    if first + len(page) - position > max_bytes:
        return None
    return page[:first] + best + page[position:]


def is_around(data: bytes, size: int) -> bool:
    """Whether bytes are what stands around pages: the root element's tags, siteinfo, comments, white space.

    A document type is passed over, so that nothing it declares is ever known.
    """
    return size == len(data) and _AROUND.fullmatch(data) is not None


@dataclass
class Site:
    """What a dump says of its wiki.

    Attributes
    ----------
    base
        Address of the main page, "" if unknown.
    namespaces
        Names and aliases of namespaces in lower case, and their numbers.
    """

    base: str = ""
    namespaces: dict[str, int] = field(default_factory=dict)

    def names(self, number: int) -> frozenset[str]:
        """What a namespace is called."""
        return frozenset(name for name, key in self.namespaces.items() if key == number)


def read_site(head: bytes) -> Site | None:
    """What the siteinfo in the head of a dump says; None if there is none that can be read."""
    found = _SITE.search(head)
    if found is None:
        return None
    site = Site()

    def ends(path: tuple[str, ...], attributes: dict[str, str], text: str) -> None:
        if path == ("siteinfo", "base"):
            site.base = text.strip()
        elif text.strip() and attributes.get("key", "").lstrip("-").isdecimal():
            site.namespaces[" ".join(text.replace("_", " ").split()).lower()] = int(attributes["key"])

    try:
        _parse(found[0], ends)
    except expat.ExpatError:
        return None
    return site


@dataclass
class Revision:
    """A version of a page; `text` is None where the dump holds none."""

    id: str = ""
    timestamp: str = ""
    model: str = ""
    text: str | None = None
    deleted: bool = False


@dataclass
class PageElement:
    """What stands in a page's XML; `namespace` is "" in dumps from before schema 0.6."""

    title: str = ""
    namespace: str = ""
    id: str = ""
    redirect: bool = False
    revision: Revision | None = None


def parse_page(data: bytes) -> PageElement:
    """The page of one `<page>` element, with its newest revision (the last of those of one time).

    Raises
    ------
    xml.parsers.expat.ExpatError
        The bytes are not well-formed XML in UTF-8, use entities other than XML's own, or nest beyond reason.
    """
    page = PageElement()
    revision = Revision()

    def ends(path: tuple[str, ...], attributes: dict[str, str], text: str) -> None:
        nonlocal revision
        match path[1:]:
            case ("title",):
                page.title = text
            case ("ns",):
                page.namespace = text.strip()
            case ("id",):
                page.id = text.strip()
            case ("redirect",):
                page.redirect = True
            case ("revision", "id"):
                revision.id = text.strip()
            case ("revision", "timestamp"):
                revision.timestamp = text.strip()
            case ("revision", "model"):
                revision.model = text.strip()
            case ("revision", "text"):
                revision.deleted = "deleted" in attributes
                # Stub dumps say how many bytes there are, and hold none.
                is_stub = not text and attributes.get("bytes", "0") not in ("", "0")
                revision.text = None if is_stub else text
            case ("revision",):
                if page.revision is None or revision.timestamp >= page.revision.timestamp:
                    page.revision = revision
                revision = Revision()

    _parse(data, ends)
    return page


class _Ends:
    """Handlers of expat that tell the end of every element, with its path, its attributes and its own text."""

    def __init__(self, tell: _Tell) -> None:
        self._tell = tell
        self._path: tuple[str, ...] = ()
        self._attributes: list[dict[str, str]] = []
        self._text: list[list[str]] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._path) >= _MOST_LEVELS:
            raise expat.ExpatError(f"elements nest more than {_MOST_LEVELS} levels deep")
        self._path += (name,)
        self._attributes.append(attributes)
        self._text.append([])

    def data(self, text: str) -> None:
        self._text[-1].append(text)

    def end(self, name: str) -> None:
        self._tell(self._path, self._attributes.pop(), "".join(self._text.pop()))
        self._path = self._path[:-1]


def _parse(data: bytes, tell: _Tell) -> None:
    handlers = _Ends(tell)
    parser = expat.ParserCreate("UTF-8")
    parser.buffer_text = True
    parser.buffer_size = _TEXT_BUFFER
    parser.StartElementHandler = handlers.start
    parser.CharacterDataHandler = handlers.data
    parser.EndElementHandler = handlers.end
    parser.Parse(data, True)
