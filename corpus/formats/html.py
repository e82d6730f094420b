"""HTML files: one file, one page, one document of its main content.

Address and date are taken where the head of the page states them; nothing is guessed.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any, ClassVar

from corpus.config import SourceConfig
from corpus.extraction.pages import Page, PageReader
from corpus.formats.text import read_whole
from corpus.sources.base import BadRecord, Found, Record, Selection, bad_record
from corpus.sources.streams import Content

_HEAD_BYTES = 1 << 16
_ELEMENT = re.compile(r"<(?:link|meta)\s[^<>]{1,4000}>", re.IGNORECASE)
_LINK = re.compile(r"<(?:a|link)\s[^<>]{1,4000}>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""([\w:-]{1,40})\s{0,9}=\s{0,9}(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
_ADDRESS = re.compile(r"https?://[^\s/]\S*", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ][\d:.]+(?:Z|[+-]\d{2}:?\d{2})?)?")
# First what names the page or its day of publication most surely.
_ADDRESSES = ("canonical", "og:url")
RIGHTS_FIELDS = ("robots", "tdm-reservation", "license")
"""What `meta_fields` can name of what a page says of its use."""
_DATES = ("article:published_time", "datepublished", "dcterms.created", "dc.date.issued", "dc.date", "date")


class HtmlFiles:
    """`.html`, `.htm` and `.xhtml` files; every file has one record.

    `url` is the canonical address, or Open Graph's; `date` is the day of publication if an element of the head gives it
    in ISO 8601. `meta_fields` may ask for `title`, `encoding` and RIGHTS_FIELDS; others are absent.
    """

    endings: ClassVar[tuple[str, ...]] = ("*.html", "*.htm", "*.xhtml")
    resumable: ClassVar[bool] = False

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        self._max_record_bytes = max_record_bytes
        self._meta_fields = config.meta_fields
        # It lives as long as this format: its process is started once, not for each file.
        self._reader = PageReader(config)

    def records(self, content: Content, selection: Selection) -> Iterator[Found]:
        """The one record of a file."""
        if selection.wants(0):
            selection.reached(1)
            yield self._read(content)

    def _read(self, content: Content) -> Record | BadRecord:
        data = read_whole(content, self._max_record_bytes)
        if isinstance(data, BadRecord):
            return data
        page = self._reader.read(data)
        if not isinstance(page, Page):
            return bad_record(0, page.error, page.message, data)
        url, date = read_head(data[:_HEAD_BYTES].decode(page.encoding, "ignore"))
        meta = (page_meta(page, self._meta_fields) or {}) | page_rights(data, page.encoding, self._meta_fields)
        return Record(0, page.text, url, date, meta or None)


def page_meta(page: Page, names: tuple[str, ...]) -> dict[str, Any] | None:
    """What is kept beside a page's text: of `title` and `encoding` those that are asked for and there."""
    offered = {"title": page.title, "encoding": page.encoding}
    return {name: value for name in names if (value := offered.get(name)) is not None} or None


def page_rights(data: bytes, encoding: str, names: tuple[str, ...]) -> dict[str, str]:
    """What a page says of its use, of RIGHTS_FIELDS those that are asked for and there.

    `robots` and `tdm-reservation` as their meta elements in the head have them, `license` as the address of the first
    link with that relation, wherever it stands (Creative Commons' marks stand at the end of pages).
    """
    wanted = [name for name in RIGHTS_FIELDS if name in names]
    if not wanted:
        return {}
    page = data.decode(encoding, "ignore")
    stated = _stated(page[:_HEAD_BYTES])
    if "license" in wanted:
        for element in _LINK.finditer(page):
            attributes = _attributes(element[0]) if "license" in element[0].lower() else {}
            if "license" in attributes.get("rel", "").lower().split() and attributes.get("href"):
                stated["license"] = attributes["href"]
                break
    return {name: stated[name] for name in wanted if stated.get(name)}


def read_head(head: str) -> tuple[str | None, str | None]:
    """The absolute address and the date of publication that link and meta elements state."""
    stated = _stated(head)
    url = next((stated[name] for name in _ADDRESSES if _ADDRESS.fullmatch(stated.get(name, ""))), None)
    date = next((stated[name] for name in _DATES if _DATE.fullmatch(stated.get(name, ""))), None)
    return url, date


def _stated(head: str) -> dict[str, str]:
    """What link and meta elements state, by relation or name in lower case; the first of each, of robots all."""
    stated: dict[str, str] = {}
    for element in _ELEMENT.finditer(head):
        attributes = _attributes(element[0])
        name = next((attributes[key] for key in ("rel", "property", "name", "itemprop") if key in attributes), "")
        value = attributes.get("href", "") or attributes.get("content", "")
        name = name.lower()
        if name == "robots" and name in stated:
            stated[name] += f", {value}"
        stated.setdefault(name, value)
    return stated


def _attributes(element: str) -> dict[str, str]:
    """The attributes of an element's tag, names in lower case."""
    return {
        name.lower(): html.unescape(double or single or bare).strip()
        for name, double, single, bare in _ATTRIBUTE.findall(element)
    }
