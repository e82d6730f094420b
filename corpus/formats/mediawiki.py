"""XML dumps of MediaWiki (`pages-articles`): one page a record, its wikitext made plain text.

Pages are found by their tags at the speed of a search and parsed one by one, so that memory holds one page and a
damaged one costs itself alone. There is no place for entities or external files to be declared in a page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import quote
from xml.etree import ElementTree

from corpus.config import SourceConfig
from corpus.extraction.pages import PageProblem, PageReader
from corpus.sources.base import BadRecord, Found, Record, Selection, Skipped, bad_record
from corpus.sources.streams import Content

_OPEN, _CLOSE = b"<page>", b"</page>"
_NAMESPACE = re.compile(rb'<namespace key="(-?\d+)"[^>]*>([^<]*)</namespace>')
_BASE = re.compile(rb"<base>([^<]*)/[^</]*</base>")
_CATEGORY = re.compile(r"\[\[\s*([^\[\]|:]+):\s*([^\[\]|]+)")
_FILES, _CATEGORIES = 6, 14


class MediaWikiDumps:
    """`.xml` dumps of any schema version.

    A page becomes a document of its title, a blank line, and its text in its newest revision. Redirects, pages of other
    namespaces than `namespaces`, pages that hold no wikitext and deleted ones are skipped. `meta_fields` may name
    title, page_id, revision_id, namespace, categories.
    """

    endings: ClassVar[tuple[str, ...]] = ("*.xml",)
    resumable: ClassVar[bool] = False

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        self._config = config
        self._max_record_bytes = max_record_bytes
        self._reader = PageReader(config)

    def records(self, content: Content, selection: Selection) -> Iterator[Found]:
        """Every page."""
        site = _Site()
        number = 0
        for found in _pages(content, site, self._max_record_bytes):
            if selection.ends_before(number):
                return
            if selection.wants(number):
                selection.reached(number + 1)
                yield self._read(number, found, site) if isinstance(found, bytes) else found._replace(record=number)
            number += 1
        if content.broken and not selection.ends_before(number):
            selection.reached(number + 1)
            yield bad_record(number, "broken-stream", f"{content.broken}; the rest of the file is lost")

    def _read(self, number: int, data: bytes, site: _Site) -> Found:
        try:
            page = ElementTree.fromstring(data)
        except (ElementTree.ParseError, ValueError) as error:
            return bad_record(number, "bad-xml", f"a page cannot be parsed: {error}", data)
        title, namespace = page.findtext("title") or "", page.findtext("ns") or "0"
        if not re.fullmatch(r"-?\d+", namespace):
            return bad_record(number, "bad-xml", f"page {title!r}: its namespace is {namespace!r}", data)
        if int(namespace) not in self._config.namespaces:
            return Skipped(number, "namespace")
        if page.find("redirect") is not None:
            return Skipped(number, "redirect")
        revision = max(page.findall("revision"), key=lambda found: found.findtext("timestamp") or "", default=None)
        text = revision.find("text") if revision is not None else None
        if revision is None or text is None or text.get("deleted") is not None:
            return Skipped(number, "deleted")
        if (revision.findtext("model") or "wikitext") != "wikitext":
            return Skipped(number, "not-wikitext")
        wikitext = text.text or ""
        if not wikitext.strip():
            return bad_record(number, "empty-text", f"page {title!r} is empty", data)
        made = self._reader.read(f"{site.dropped()}\n{wikitext}".encode(), url=title)
        if isinstance(made, PageProblem):
            kind = "empty-text" if made.error == "no-main-content" else made.error
            return bad_record(number, kind, made.message, wikitext)
        meta = self._meta(page, revision, title, namespace, wikitext, site)
        url = f"{site.base}/{quote(title.replace(' ', '_'), safe=_UNQUOTED)}" if site.base else None
        return Record(number, f"{title}\n\n{made.text}", url, revision.findtext("timestamp"), meta)

    def _meta(
        self, page: Any, revision: Any, title: str, namespace: str, wikitext: str, site: _Site
    ) -> dict[str, Any] | None:
        found: dict[str, Any] = {}
        for name in self._config.meta_fields:
            match name:
                case "title":
                    found[name] = title
                case "namespace":
                    found[name] = int(namespace)
                case "page_id" | "revision_id":
                    text = (page if name == "page_id" else revision).findtext("id") or ""
                    found[name] = int(text) if text.isdigit() else None
                case "categories":
                    wanted = {"category", site.names.get(_CATEGORIES, "").lower()}
                    pairs = _CATEGORY.findall(wikitext)
                    found[name] = [label.strip() for space, label in pairs if space.strip().lower() in wanted]
        return found or None


_UNQUOTED = ";@$!*(),/~:"
"""Characters of titles that MediaWiki leaves as they are in addresses (`wfUrlencode`)."""


class _Site:
    """What a dump says of its wiki before the first page."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.base = ""

    def learn(self, head: bytes) -> None:
        if (base := _BASE.search(head)) is not None:
            self.base = base[1].decode("utf-8", "replace")
        for key, name in _NAMESPACE.findall(head):
            self.names[int(key)] = name.decode("utf-8", "replace")

    def dropped(self) -> str:
        """Names of the namespaces of files and categories."""
        return "|".join(self.names.get(key, "") for key in (_FILES, _CATEGORIES))


def _pages(content: Content, site: _Site, max_bytes: int) -> Iterator[bytes | BadRecord]:
    """Pages as they stand in the file.

    A page that begins before the last one has ended means that the last one's end is damaged. What stands between pages
    is passed over.
    """
    data, inside, first = b"", False, True
    given_up = 0  # of a page that is too long
    for chunk in content:
        data += chunk
        while True:
            if not inside:
                begin = data.find(_OPEN)
                if begin < 0:
                    if not first or len(data) > max_bytes:
                        data = data[1 - len(_OPEN) :]
                    break
                if first:
                    site.learn(data[:begin])
                data, inside, first = data[begin:], True, False
            end = data.find(_CLOSE)
            again = data.find(_OPEN, len(_OPEN), end if end >= 0 else len(data))
            if again >= 0:
                yield bad_record(0, "bad-xml", "a page is not closed before the next one begins", data[:again])
                data, given_up = data[again:], 0
            elif end >= 0:
                end += len(_CLOSE)
                if given_up + end > max_bytes:
                    message = f"the page has {given_up + end} bytes, max_record_bytes is {max_bytes}"
                    yield bad_record(0, "too-long", message, data[:end])
                else:
                    yield data[:end]
                data, inside, given_up = data[end:], False, 0
            else:
                if len(data) > max_bytes + len(_CLOSE):
                    given_up += len(data) - len(_OPEN) - len(_CLOSE)
                    data = _OPEN + data[-len(_CLOSE) :]
                break
    if inside and not content.broken:
        yield bad_record(0, "bad-xml", "the last page is not closed", data)
