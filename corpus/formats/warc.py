"""Web archives: WARC, WET (extracted text in WARC) and ARC files. Every record has a number, documents or not.

Documents are: responses with HTTP status 200, resources and conversions whose content is HTML or plain text. HTML is
extracted (`corpus.extraction`), plain text is taken as it is. What content is, its media type says; where that is
missing or says nothing (`application/octet-stream`, `unknown/unknown` …) its first bytes do (`sniff`).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from corpus.config import SourceConfig
from corpus.extraction.encodings import decode_text
from corpus.extraction.pages import PageProblem, PageReader
from corpus.formats.digests import wrong_digest
from corpus.formats.html import RIGHTS_FIELDS, page_rights
from corpus.formats.http import BodyProblem, decode_body, join_chunks, parse_response
from corpus.formats.web_archives import Frame, read_frames
from corpus.sources.base import BadRecord, Found, Record, Selection, Skipped, bad_record
from corpus.sources.streams import Content

META_FIELDS = (
    "warc.type", "warc.record_id", "http.status", "http.content_type", "http.x-robots-tag", "http.tdm-reservation",
    "title", "encoding", *RIGHTS_FIELDS,
)  # fmt: skip
"""What `meta_fields` of a source can name."""

Media = Literal["html", "text", "other"]

_NO_DOCUMENTS = {kind: f"warc-{kind}" for kind in ("warcinfo", "request", "metadata", "revisit", "continuation")}
_MEDIA: Mapping[str, Media] = {
    "text/html": "html",
    "application/xhtml+xml": "html",
    "application/vnd.wap.xhtml+xml": "html",
    "text/plain": "text",
    "text/markdown": "text",
}
_SAYS_NOTHING = frozenset(
    {"", "application/octet-stream", "application/unknown", "binary/octet-stream", "no-type", "unknown/unknown", "*/*"}
)
_SNIFFED_BYTES = 1445  # MIME Sniffing Standard, section 5.2
_UTF16_MARKS = (b"\xfe\xff", b"\xff\xfe")
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_MARKUP = re.compile(
    rb"(?:\xef\xbb\xbf)?[\t\n\x0c\r ]*<(?:!--|"
    rb"(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p)[\s>])",
    re.IGNORECASE,
)
_XML = re.compile(rb"(?:\xef\xbb\xbf)?[\t\n\x0c\r ]*<\?xml[ \t\r\n]", re.IGNORECASE)
_HTML_ELEMENT = re.compile(rb"<html[\s>]", re.IGNORECASE)
_NOT_IN_ADDRESSES = re.compile(r"[\x00-\x20\x7f]")


class _Payload(NamedTuple):
    """What a record carries, free of its protocol; `status`, `content_type` and `fields` are what HTTP said, if it did.

    `sent` is the body as the block has it.
    """

    data: bytes
    content_type: str
    media: Media
    status: int | None
    sent: bytes
    fields: Mapping[str, str]


class WarcFiles:
    """`.warc`, `.wet` and `.arc` files."""

    endings: ClassVar[tuple[str, ...]] = ("*.warc", "*.arc", "*.wet")
    resumable: ClassVar[bool] = True

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        unknown = sorted(set(config.meta_fields) - set(META_FIELDS))
        if unknown:
            raise ValueError(
                f"source {config.name!r}, meta_fields: WARC records have no {', '.join(map(repr, unknown))}, "
                f"only {', '.join(META_FIELDS)}"
            )
        self._meta_fields = config.meta_fields
        self._encoding = config.encoding or "detect"
        self._check_digests = config.digests == "check"
        self._pages = PageReader(config)
        self._max_record_bytes = max_record_bytes

    def records(self, content: Content, selection: Selection) -> Iterator[Found]:
        """Every record of a file, and every stretch that is none (`bad-warc`)."""
        number = selection.first
        for begin, frame in read_frames(content, selection.offset, self._max_record_bytes):
            if selection.stop is not None and begin >= selection.stop:
                return
            if selection.ends_before(number):
                return
            if selection.wants(number):
                selection.reached(number + 1, frame.end)
                yield self._read(number, frame)
            number += 1

    def _read(self, number: int, frame: Frame) -> Found:
        fields, url = frame.fields, address(frame.fields.get("warc-target-uri", ""))
        if frame.error:
            return bad_record(number, frame.error, f"{url}: {frame.message}" if url else frame.message, frame.block)
        if frame.arc:
            kind = "arc-header" if url is not None and url.lower().startswith("filedesc:") else "response"
        else:
            kind = fields.get("warc-type", "").lower()
        if kind == "arc-header":
            return Skipped(number, kind)
        if kind in _NO_DOCUMENTS:
            return Skipped(number, _NO_DOCUMENTS[kind])
        if not kind:
            return bad_record(number, "bad-warc", _about(url, "the record has no WARC-Type"), frame.block)
        if url is not None and url.lower().startswith("metadata:"):
            return Skipped(number, "warc-metadata")  # wget keeps its log and its arguments as resources
        if kind not in ("response", "resource", "conversion"):
            return Skipped(number, "warc-other")
        if "warc-segment-number" in fields:
            return bad_record(number, "bad-warc", _about(url, "only a segment of a record"), frame.block)
        found = self._payload(kind, frame, url)
        if isinstance(found, str):
            return Skipped(number, found)
        if isinstance(found, BodyProblem):
            return bad_record(number, found.error, _about(url, found.message), frame.block)
        if self._check_digests and (wrong := wrong_digest(fields, frame.block, _readings(found))):
            message = f"{wrong}; digests: ignore reads it all the same"
            return bad_record(number, "wrong-digest", _about(url, message), found.data)
        return self._document(number, kind, frame, url, found)

    def _payload(self, kind: str, frame: Frame, url: str | None) -> _Payload | BodyProblem | str:
        """What a record carries; or why it is no document; or what is wrong with it."""
        fields = frame.fields
        data = sent = frame.block
        declared, status = fields.get("content-type", ""), None
        http: Mapping[str, str] = {}
        if media_type(declared) == "text/dns" or (url is not None and url.lower().startswith("dns:")):
            return "dns"
        if kind == "response":
            response = parse_response(data)
            if response is not None:
                status, http = response.status, response.fields
                if status != 200:
                    return "http-status"
                declared = response.fields.get("content-type", "")
                if not declared:
                    declared = fields.get("warc-identified-payload-type", "")
                if _media(declared) == "other":
                    return "not-text"
                cut = fields.get("warc-truncated", "") != ""
                body = decode_body(response.body, response.fields, self._max_record_bytes, cut)
                if isinstance(body, BodyProblem):
                    return body
                data, sent = body, response.body
            elif media_type(declared) == "application/http":
                return BodyProblem("bad-http", "the block does not begin with an HTTP status line")
        media = _media(declared)
        if media is None:
            media = sniff(data)
        elif media == "text" and kind != "conversion" and _is_binary(data):
            media = "other"  # servers call what they do not know text/plain
        return "not-text" if media == "other" else _Payload(data, declared, media, status, sent, http)

    def _document(self, number: int, kind: str, frame: Frame, url: str | None, payload: _Payload) -> Record | BadRecord:
        title = None
        if not payload.data.strip():
            return bad_record(number, "empty-text", _about(url, "the record has no content"), frame.block)
        if payload.media == "html":
            page = self._pages.read(payload.data, content_type=payload.content_type or None, url=url)
            if isinstance(page, PageProblem):
                return bad_record(number, page.error, page.message, payload.data)
            text, title, encoding = page
        else:
            try:
                text, encoding = decode_text(
                    payload.data, declared=payload.content_type or None, encoding=self._encoding
                )
            except UnicodeDecodeError as error:
                return bad_record(number, "bad-encoding", _about(url, str(error)), payload.data)
        if not text or text.isspace():
            return bad_record(number, "empty-text", _about(url, "the record has no text"), payload.data)
        date = frame.fields.get("warc-date") or None
        meta: dict[str, Any] | None = None
        if self._meta_fields:
            known: dict[str, Any] = {
                "warc.type": None if frame.arc else kind,
                "warc.record_id": frame.fields.get("warc-record-id"),
                "http.status": payload.status,
                "http.content_type": payload.content_type or None,
                "http.x-robots-tag": payload.fields.get("x-robots-tag"),
                "http.tdm-reservation": payload.fields.get("tdm-reservation"),
                "title": title,
                "encoding": encoding,
            }
            if payload.media == "html":
                known |= page_rights(payload.data, encoding, self._meta_fields)
            meta = {name: known[name] for name in self._meta_fields if known.get(name) is not None}
        return Record(number, text, url, arc_date(date) if frame.arc and date else date, meta or None)


def _readings(payload: _Payload) -> Iterator[bytes]:
    """What crawlers take for the payload, of which they write down the digest."""
    yield payload.sent
    joined = join_chunks(payload.sent, cut=False)
    if isinstance(joined, bytes) and joined is not payload.sent:
        yield joined
    if payload.data is not payload.sent:
        yield payload.data


def address(value: str) -> str | None:
    """A target URI as it may stand in one: without `<>`, white space and control characters percent-encoded."""
    value = value.strip()
    if value.startswith("<") and value.endswith(">"):
        value = value[1:-1].strip()
    return _NOT_IN_ADDRESSES.sub(lambda match: f"%{ord(match[0]):02X}", value) or None


def arc_date(digits: str) -> str | None:
    """The date of an ARC record (YYYYMMDDhhmmss in UTC, or longer) as ISO 8601; None if it is none."""
    try:
        moment = datetime.datetime.strptime(digits[:14].ljust(14, "0"), "%Y%m%d%H%M%S")
    except ValueError:
        return None
    return f"{moment.isoformat()}Z"


def media_type(content_type: str) -> str:
    """Type and subtype of a Content-Type, in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def sniff(data: bytes) -> Media:
    """What content without a usable type is (MIME Sniffing Standard, sections 7.1 and 7.2, as far as text goes).

    Other than the standard, XML that has an element `html` near its beginning is HTML, and other XML is no document.
    """
    head = data[:_SNIFFED_BYTES]
    if _MARKUP.match(head):
        return "html"
    if _XML.match(head):
        return "html" if _HTML_ELEMENT.search(head) else "other"
    return "other" if _is_binary(head) else "text"


def _is_binary(data: bytes) -> bool:
    head = data[:_SNIFFED_BYTES]
    if head.startswith(_UTF16_MARKS):
        return False
    return _BINARY.search(head) is not None or head.startswith(b"%PDF-")


def _media(content_type: str) -> Media | None:
    """What a Content-Type says; None if it says nothing."""
    name = media_type(content_type)
    return None if name in _SAYS_NOTHING or "/" not in name else _MEDIA.get(name, "other")


def _about(url: str | None, message: str) -> str:
    return f"{url}: {message}" if url else message
