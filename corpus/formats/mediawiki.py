"""XML dumps of MediaWiki (Wikipedia's `pages-articles`), of any version of the export schema: a page is a record."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote
from xml.parsers.expat import ExpatError

from corpus.config import SourceConfig
from corpus.extraction.pages import PageProblem, PageReader
from corpus.extraction.wikitext import Names, PlainPage, read_answer, write_request
from corpus.formats.mediawiki_pages import (
    PageElement,
    Piece,
    Revision,
    Site,
    cut_pages,
    is_around,
    parse_page,
    read_site,
)
from corpus.sources.base import BadRecord, Found, Record, Selection, Skipped, bad_record
from corpus.sources.streams import Content

META_FIELDS = ("title", "page_id", "revision_id", "namespace", "categories")
"""What `meta_fields` of a source can name."""

_FILES, _CATEGORIES = 6, 14
_REDIRECT = re.compile(r"\s*#redirect\s*:?\s*\[\[", re.IGNORECASE)
_UNQUOTED = ";@$!*(),/~:"  # what MediaWiki's wfUrlencode leaves as it is
_WIKITEXT = ("", "wikitext")


class MediaWikiDumps:
    """`.xml` dumps of MediaWiki.

    The text of a document is the title, a blank line, and the text of the newest revision (as
    `corpus.extraction.wikitext` has it); its address is the wiki's with the title, its date the revision's. What a wiki
    calls its namespaces stands before the first page alone, so that reading cannot begin in the middle.

    Raises
    ------
    ValueError
        `meta_fields` names a field that pages do not have.
    """

    endings: ClassVar[tuple[str, ...]] = ("*.xml",)
    resumable: ClassVar[bool] = False

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        unknown = sorted(set(config.meta_fields) - set(META_FIELDS))
        if unknown:
            raise ValueError(
                f"source {config.name!r}, meta_fields: pages of MediaWiki have no {', '.join(map(repr, unknown))}, "
                f"only {', '.join(META_FIELDS)}"
            )
        self._meta_fields = config.meta_fields
        self._namespaces = frozenset(config.namespaces)
        self._max_record_bytes = max_record_bytes
        self._reader = PageReader(replace(config, encoding="utf-8"))

    def records(self, content: Content, selection: Selection) -> Iterator[Found]:
        """Every page of a dump, and every stretch that is none (`bad-xml`)."""
        number, site, open_root = selection.first, Site(), False
        for piece in cut_pages(content.segments(), self._max_record_bytes):
            if content.broken and piece.kind in ("cut", "after"):
                break  # the lost tail
            if piece.kind in ("around", "after"):
                open_root = (open_root or b"<mediawiki" in piece.data) and b"</mediawiki>" not in piece.data
                if is_around(piece.data, piece.size):
                    site = read_site(piece.data) or site
                    continue
            open_root = open_root and piece.kind != "cut"
            if selection.ends_before(number):
                return
            if selection.wants(number):
                selection.reached(number + 1)
                yield self._read(number, piece, site)
            number += 1
        if (content.broken or open_root) and not selection.ends_before(number) and selection.wants(number):
            problem = content.broken or "the file ends without </mediawiki>"
            selection.reached(number + 1)
            yield bad_record(number, "broken-stream", f"{problem}; the rest of the file is lost")

    def _read(self, number: int, piece: Piece, site: Site) -> Found:
        match piece.kind:
            case "lost":
                return bad_record(number, "broken-stream", piece.message, piece.data)
            case "around" | "after":
                message = f"{piece.size} bytes are no page of a MediaWiki dump in UTF-8"
                return bad_record(number, "bad-xml", message, piece.data)
            case "unclosed":
                return bad_record(number, "bad-xml", "the page does not end before the next one begins", piece.data)
            case "cut":
                return bad_record(number, "bad-xml", "the file ends inside the page", piece.data)
            case "too-long":
                message = f"the page has {piece.size} bytes, max_record_bytes is {self._max_record_bytes}"
                return bad_record(number, "too-long", message, piece.data)
        try:
            page = parse_page(piece.data)
        except ExpatError as error:
            return _unreadable(number, piece.data, str(error))
        if not page.title or not (page.namespace or "0").lstrip("-").isdecimal():
            message = f"the page {page.title!r} is in namespace {page.namespace!r}" if page.title else "it has no title"
            return _unreadable(number, piece.data, message)
        return self._document(number, page, site)

    def _document(self, number: int, page: PageElement, site: Site) -> Found:
        namespace = int(page.namespace) if page.namespace else _namespace_of(page.title, site)
        revision = page.revision or Revision()
        if namespace not in self._namespaces:
            return Skipped(number, "namespace")
        if page.redirect or _REDIRECT.match(revision.text or ""):
            return Skipped(number, "redirect")
        if revision.deleted:
            return Skipped(number, "deleted")
        if revision.model not in _WIKITEXT:
            return Skipped(number, "not-wikitext")
        if revision.text is None:
            return bad_record(number, "missing-text", f"page {page.title!r} has no text: is this a stub dump?")
        if not revision.text or revision.text.isspace():
            return bad_record(number, "empty-text", f"page {page.title!r} is empty")
        found = self._plain_text(page, revision.text, site)
        if isinstance(found, PageProblem):
            if found.error == "no-main-content":
                message = f"page {page.title!r} has nothing but templates, tables, files and the like"
                return bad_record(number, "empty-text", message, revision.text)
            return bad_record(number, found.error, f"page {page.title!r}: {found.message}", revision.text)
        return Record(
            number,
            f"{page.title}\n\n{found.text}",
            page_address(site.base, page.title),
            revision.timestamp or None,
            self._meta(page, revision, namespace, found.categories),
        )

    def _plain_text(self, page: PageElement, wikitext: str, site: Site) -> PlainPage | PageProblem:
        request = write_request(wikitext, page.title, Names(site.names(_FILES), site.names(_CATEGORIES)))
        found = self._reader.read(request.encode())
        return found if isinstance(found, PageProblem) else read_answer(found.text)

    def _meta(
        self, page: PageElement, revision: Revision, namespace: int, categories: list[str]
    ) -> dict[str, Any] | None:
        offered: Mapping[str, Any] = {
            "title": page.title,
            "page_id": int(page.id) if page.id.isdecimal() else None,
            "revision_id": int(revision.id) if revision.id.isdecimal() else None,
            "namespace": namespace,
            "categories": categories,
        }
        return {name: offered[name] for name in self._meta_fields if offered[name] is not None} or None


def page_address(base: str, title: str) -> str | None:
    """The address of a page, from that of the wiki's main page (`<base>` of siteinfo); None if that is unknown.

    Titles are written as MediaWiki's wfUrlencode does.
    """
    if not base:
        return None
    name = quote(title.replace(" ", "_"), safe=_UNQUOTED)
    before, marker, _ = base.partition("title=")
    if marker:
        return f"{before}{marker}{name}"
    before, marker, _ = base.partition("/wiki/")
    return f"{before}{marker}{name}" if marker else f"{base.rpartition('/')[0]}/{name}"


def _namespace_of(title: str, site: Site) -> int:
    """The namespace that a title names, for dumps that do not say it."""
    prefix, colon, _ = title.partition(":")
    return site.namespaces.get(" ".join(prefix.split()).lower(), 0) if colon else 0


def _unreadable(number: int, data: bytes, problem: str) -> BadRecord:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return bad_record(number, "bad-utf8", f"the page is not UTF-8: {error}", data)
    return bad_record(number, "bad-xml", f"the page cannot be read: {problem}", data)
