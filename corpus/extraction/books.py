"""Text of PDF and EPUB files: one file, one text, in reading order, with what the file says of itself.

Runs in the process that extracts pages (`corpus.extraction.worker`), within its bounds of time and memory: what these
files hold is as hostile as any page.
"""

from __future__ import annotations

import io
import json
import posixpath
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

from corpus.extraction.encodings import decode_text

BookKind = Literal["pdf", "epub"]

_PDF_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?(?:(\d\d)(\d\d)(\d\d)?(Z|[+-]\d\d)?'?(\d\d)?)?")
_BROKEN_WORD = re.compile("[\x02\ufffe]\n?")  # what PDFium gives for a hyphen at the end of a line
_DIGITS = re.compile(r"\d+")
_EDGE_LINES = 3
_LEAST_REPEATED, _PAGES_A_REPEAT = 3, 50  # running titles change with the chapter
_PASSWORD = 4  # FPDF_ERR_PASSWORD

_PACKAGE_TYPE = "application/oebps-package+xml"
_CHAPTER_TYPES = ("application/xhtml+xml", "text/html", "text/x-oeb1-document")
# Fonts may be scrambled; a book whose text is encrypted cannot be read.
_ENCRYPTION = "META-INF/encryption.xml"
_MOST_MEMBERS = 100_000


class Book(NamedTuple):
    """The text of a book, not normalised, and what it says of itself: title, author, date and the like, where given."""

    text: str
    about: dict[str, str]


class BookError(Exception):
    """Why a book cannot be read: `error` is a kind of `corpus.sources.base.BadRecord`."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


def open_book_reader(kind: BookKind) -> Callable[[bytes], Book]:
    """A function from the bytes of a file to its text. It raises `BookError`."""
    if kind == "pdf":
        import pypdfium2  # noqa: F401 (here, so that no file's memory is taken for it)

        return read_pdf
    import lxml.etree  # noqa: F401
    import resiliparse.extract.html2text  # noqa: F401

    return read_epub


def write_book(book: Book) -> str:
    """A book as one text, for the way out of the process that extracts: what it says of itself in the first line."""
    return f"{json.dumps(book.about)}\n{book.text}"


def parse_book(answer: str) -> Book:
    """The book that `write_book` wrote."""
    about, _, text = answer.partition("\n")
    return Book(text, json.loads(about))


# ------------------------------------------------------------------------------------------------ PDF


def read_pdf(data: bytes) -> Book:
    """The text of a PDF file: its pages one after the other, with a blank line between them.

    Text comes in the order in which the file draws it (PDFium), lines as they stand on the page; words that are divided
    at the end of a line are joined. Lines at the head or foot of pages that come again and again (digits aside) are
    left out: running titles, numbers of pages. There is no OCR.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == _PASSWORD:
            raise BookError("encrypted-file", "the PDF opens with a password only") from None
        raise BookError("bad-pdf", str(error).replace(" (PDFium: Success)", "")) from None
    about = _pdf_about(document.get_metadata_dict(skip_empty=True))
    pages: list[list[str]] = []
    damaged = 0
    for number in range(len(document)):
        try:
            page = document[number]
            text_page = page.get_textpage()
            text = text_page.get_text_bounded()
            text_page.close()
            page.close()
        except pypdfium2.PdfiumError:
            damaged += 1
            continue
        text = _BROKEN_WORD.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
        pages.append([line.strip() for line in text.split("\n") if line and not line.isspace()])
    if damaged or not pages:
        raise BookError("bad-pdf", f"{damaged} of {damaged + len(pages)} pages cannot be read")
    if not any(pages):
        raise BookError("empty-text", f"none of {len(pages)} pages holds text; they may be pictures of it")
    about["pages"] = str(len(pages))
    return Book("\n\n".join("\n".join(lines) for lines in _without_edges(pages) if lines), about)


def _pdf_about(stated: dict[str, str]) -> dict[str, str]:
    about = {name.lower(): value.strip() for name in ("Title", "Author") if (value := stated.get(name, "")).strip()}
    found = _PDF_DATE.match(stated.get("CreationDate", ""))
    if found:
        year, month, day, hour, minute, second, zone, zone_minutes = found.groups()
        about["date"] = f"{year}-{month or '01'}-{day or '01'}"
        if hour:
            about["date"] += f"T{hour}:{minute}:{second or '00'}"
            about["date"] += f"{zone}:{zone_minutes or '00'}" if zone and zone != "Z" else zone or ""
    return about


def _without_edges(pages: Sequence[list[str]]) -> Sequence[list[str]]:
    """Pages without first and last lines that at least three pages and one in fifty share, digits aside."""
    least = max(_LEAST_REPEATED, len(pages) // _PAGES_A_REPEAT)
    for at in (0, -1):
        for _ in range(_EDGE_LINES):
            edges = Counter(_DIGITS.sub("#", page[at]) for page in pages if page)
            repeated = {edge for edge, times in edges.items() if times >= least}
            if not repeated:
                break
            for page in pages:
                if page and _DIGITS.sub("#", page[at]) in repeated:
                    del page[at]
    return pages


# ------------------------------------------------------------------------------------------------ EPUB


def read_epub(data: bytes) -> Book:
    """The text of an EPUB file (2 and 3): its chapters in the order of the spine, with a blank line between them.

    Of every chapter all text is taken: a book has no menus to leave out, its table of contents (EPUB 3) aside. A book
    of which a chapter cannot be read is no book.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_archive(archive)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OSError, _zlib_error()) as error:
        raise BookError("bad-epub", f"the archive is damaged: {error}") from None


def _zlib_error() -> type[Exception]:
    import zlib

    return zlib.error


def _read_archive(archive: zipfile.ZipFile) -> Book:
    names = set(archive.namelist())
    if len(names) > _MOST_MEMBERS:
        raise BookError("bad-epub", f"the archive has {len(names)} members")
    place = _package_place(archive, names)
    package = _parse(archive.read(place), place)
    chapters = list(_chapters(package, posixpath.dirname(place)))
    if not chapters:
        raise BookError("bad-epub", f"{place} names no chapters")
    missing = [name for name in chapters if name not in names]
    if missing:
        raise BookError("bad-epub", f"{len(missing)} of {len(chapters)} chapters are missing, first {missing[0]!r}")
    scrambled = _encrypted(archive, names)
    if any(name in scrambled or archive.getinfo(name).flag_bits & 1 for name in chapters):
        raise BookError("encrypted-file", "the chapters are encrypted")
    texts = [text for name in chapters if (text := _chapter_text(archive.read(name)))]
    if not texts:
        raise BookError("empty-text", f"none of {len(chapters)} chapters holds text")
    return Book("\n\n".join(texts), _epub_about(package))


def _package_place(archive: zipfile.ZipFile, names: set[str]) -> str:
    """Name of the member that describes the book (EPUB Open Container Format, META-INF/container.xml)."""
    place = "META-INF/container.xml"
    if place not in names:
        raise BookError("bad-epub", f"there is no {place}")
    roots = [root for root in _parse(archive.read(place), place).iter("{*}rootfile") if root.get("full-path")]
    chosen = next((root for root in roots if root.get("media-type") == _PACKAGE_TYPE), roots[0] if roots else None)
    path = "" if chosen is None else str(chosen.get("full-path")).lstrip("/")
    if path not in names:
        raise BookError("bad-epub", f"{place} points to {path!r}, which is not there")
    return path


def _parse(data: bytes, name: str) -> Any:
    from lxml import etree

    # Entities are left as they are: none is needed here, and they can be made to grow beyond all bounds.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, recover=True)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise BookError("bad-epub", f"{name}: {error}") from None
    if root is None:
        raise BookError("bad-epub", f"{name} is no XML")
    return root


def _chapters(package: Any, folder: str) -> Iterator[str]:
    """Names of the members that are read one after the other (Open Packaging Format, spine)."""
    items = {item.get("id"): item for item in package.iter("{*}item")}
    for reference in package.iter("{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is None or reference.get("linear") == "no" or "nav" in (item.get("properties") or "").split():
            continue
        if (item.get("media-type") or "").strip().lower() in _CHAPTER_TYPES:
            yield posixpath.normpath(posixpath.join(folder, unquote((item.get("href") or "").partition("#")[0])))


def _encrypted(archive: zipfile.ZipFile, names: set[str]) -> set[str]:
    if _ENCRYPTION not in names:
        return set()
    references = _parse(archive.read(_ENCRYPTION), _ENCRYPTION).iter("{*}CipherReference")
    return {unquote(reference.get("URI") or "").lstrip("/") for reference in references}


def _chapter_text(data: bytes) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    page, _ = decode_text(data, html=True)
    return str(extract_plain_text(page, main_content=False, alt_texts=False, form_fields=False, noscript=False)).strip()


def _epub_about(package: Any) -> dict[str, str]:
    about: dict[str, str] = {}
    for name, element in (("title", "title"), ("author", "creator"), ("language", "language"), ("date", "date")):
        stated = [" ".join("".join(found.itertext()).split()) for found in package.iter(f"{{*}}{element}")]
        stated = [text for text in stated if text]
        if stated:
            about[name] = "; ".join(stated) if name == "author" else stated[0]
    return about
