"""PDF and EPUB files: one file, one document, whatever is in it. All files are made here."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from corpus.config import SourceConfig
from corpus.sources import BadRecord, Record, SourceError, open_source
from tests.corpus.reading import kinds, read, texts


def make_pdf(pages: Sequence[Sequence[str]], info: str = "", trailer: str = "", content: bytes | None = None) -> bytes:
    """A PDF file of pages of lines in Helvetica; `content` replaces what is drawn on every page (Flate-compressed)."""
    objects: list[bytes] = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    objects.append(f"<< {info} >>".encode())
    kids = []
    for lines in pages:
        drawn = b"BT /F1 12 Tf 72 720 Td 14 TL\n"
        for line in lines:
            escaped = line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
            drawn += f"({escaped}) Tj T*\n".encode("cp1252")
        stream = zlib.compress(drawn + b"ET" if content is None else content)
        objects.append(b"<< /Filter /FlateDecode /Length %d >> stream\n%s\nendstream" % (len(stream), stream))
        kids.append(len(objects) + 1)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
    objects[1] = f"<< /Type /Pages /Count {len(kids)} /Kids [{' '.join(f'{kid} 0 R' for kid in kids)}] >>".encode()
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = f"trailer << /Size {len(objects) + 1} /Root 1 0 R /Info 4 0 R {trailer} >>\nstartxref\n{len(out)}\n%%EOF\n"
    return out + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + end.encode()


CONTAINER = """<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
CHAPTERS = {"two words.xhtml": "<h1>One</h1><p>The first &amp; best.</p>", "b.xhtml": "<p>The second.</p>"}


def make_epub(
    chapters: dict[str, str] = CHAPTERS,
    opf: str | None = None,
    more: dict[str, str | bytes] | None = None,
    container: str = CONTAINER,
    typed: bool = True,
) -> bytes:
    """An EPUB file with these chapters in its spine, in their order (EPUB Packages 3.3)."""
    hrefs = [name.replace(" ", "%20") for name in chapters]
    items = "".join(f'<item id="i{i}" href="{h}" media-type="application/xhtml+xml"/>' for i, h in enumerate(hrefs))
    spine = "".join(f'<itemref idref="i{number}"/>' for number in range(len(chapters)))
    opf = opf or (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A  book</dc:title>'
        "<dc:creator>A. One</dc:creator><dc:creator>B. Two</dc:creator>"
        "<dc:language>en</dc:language><dc:date>2020-01-02</dc:date></metadata><manifest>"
        f'<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>{items}'
        f'</manifest><spine><itemref idref="nav"/>{spine}</spine></package>'
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        if typed:
            archive.writestr(zipfile.ZipInfo("mimetype"), "application/epub+zip")
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("OEBPS/book.opf", opf)
        archive.writestr("OEBPS/nav.xhtml", "<html><body><nav>Contents</nav></body></html>")
        # In another order than they are read.
        for name, body in reversed(chapters.items()):
            archive.writestr(f"OEBPS/{name}", f"<html><head><title>x</title></head><body>{body}</body></html>")
        for name, data in (more or {}).items():
            archive.writestr(name, data)
    return out.getvalue()


def only(found: list[object]) -> Record:
    [record] = found
    assert isinstance(record, Record), record
    return record


def bad(found: list[object]) -> BadRecord:
    [record] = found
    assert isinstance(record, BadRecord), record
    return record


# ------------------------------------------------------------------------------------------------ PDF


def test_a_pdf_is_a_document_of_its_pages_with_what_it_says_of_itself(tmp_path: Path) -> None:
    info = "/Title (Bread) /Author (A. Baker) /CreationDate (D:20200102030405+01'30')"
    (tmp_path / "a.pdf").write_bytes(
        make_pdf([["Bread is made of flour,", "and of water (caf\xe9)."], ["The end."]], info)
    )
    record = only(read("pdf", tmp_path, meta_fields=("title", "author", "pages")))
    assert record.text == "Bread is made of flour,\nand of water (café).\n\nThe end."
    assert record.date == "2020-01-02T03:04:05+01:30"
    assert record.meta == {"title": "Bread", "author": "A. Baker", "pages": "2"}


@pytest.mark.parametrize(
    ("stated", "date"),
    [
        ("D:2020", "2020-01-01"),
        ("D:20200203", "2020-02-03"),
        ("D:20200203040506Z", "2020-02-03T04:05:06Z"),
        ("x", None),
    ],
)
def test_dates_of_pdf_files_are_given_as_iso_8601(tmp_path: Path, stated: str, date: str | None) -> None:
    (tmp_path / "a.pdf").write_bytes(make_pdf([["Text."]], f"/CreationDate ({stated})"))
    assert only(read("pdf", tmp_path)).date == date


def test_running_titles_and_page_numbers_are_left_out(tmp_path: Path) -> None:
    words = ("one", "two", "three", "four")
    pages = [["A running title", f"What {w} says.", f"The end of {w}.", f"page {n}"] for n, w in enumerate(words, 9)]
    (tmp_path / "a.pdf").write_bytes(make_pdf(pages))
    assert only(read("pdf", tmp_path)).text == "\n\n".join(f"What {w} says.\nThe end of {w}." for w in words)
    (tmp_path / "a.pdf").write_bytes(make_pdf(pages[:2]))  # twice is no habit
    assert only(read("pdf", tmp_path)).text.startswith("A running title\nWhat one says.\nThe end of one.\npage 9\n\nA")


def test_words_divided_at_line_ends_are_joined(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(make_pdf([["It is about for-", "mats and well known", "things - mostly."]]))
    assert only(read("pdf", tmp_path)).text == "It is about formats and well known\nthings - mostly."


ENCRYPTED = f"/ID [<00> <00>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{'11' * 32}> /U <{'22' * 32}> >>"


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", "empty-text", "the file is empty"),
        (b"no PDF at all", "bad-pdf", "Failed to load document"),
        (make_pdf([["Secret."]], trailer=ENCRYPTED), "encrypted-file", "password"),
        (make_pdf([[], []]), "empty-text", "none of 2 pages holds text"),
        (make_pdf([]), "bad-pdf", "Failed to load document"),
    ],
)
def test_what_is_no_readable_pdf_is_put_aside(tmp_path: Path, data: bytes, error: str, message: str) -> None:
    (tmp_path / "a.pdf").write_bytes(data)
    (tmp_path / "b.pdf").write_bytes(make_pdf([["Still read."]]))
    first, second = read("pdf", tmp_path)
    assert isinstance(first, BadRecord)
    assert (first.error, message in first.message) == (error, True), first
    assert isinstance(second, Record)


def test_pdf_files_are_read_packed_and_in_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/one.pdf", make_pdf([["One."]]))
        archive.writestr("x/one.txt", "no pdf")
    (tmp_path / "b.pdf.gz").write_bytes(gzip.compress(make_pdf([["Two."]])))
    found = read("pdf", tmp_path)
    assert texts(found) == ["One.", "Two."]
    assert kinds(found) == ["", "other-member", ""]


def test_a_pdf_that_takes_too_long_or_too_much_is_put_aside_and_the_next_one_read(tmp_path: Path) -> None:
    slow = b"BT /F1 1 Tf 72 720 Td " + b"(aaaaaaaaaaaaaaaa) Tj 0 -0.0001 Td " * 300_000 + b"ET"
    (tmp_path / "a.pdf").write_bytes(make_pdf([[]], content=slow))
    (tmp_path / "b.pdf").write_bytes(make_pdf([["Still read."]]))
    assert kinds(read("pdf", tmp_path, page_seconds=0.3)) == ["extraction-timeout", ""]
    huge = b"BT /F1 1 Tf (" + b"a" * (400 << 20) + b") Tj ET"
    (tmp_path / "a.pdf").write_bytes(make_pdf([[]], content=huge))
    assert kinds(read("pdf", tmp_path, page_memory_bytes=64 << 20)) == ["extraction-memory", ""]


def test_cut_and_damaged_pdf_files_end_as_documents_or_put_aside(tmp_path: Path) -> None:
    whole, chance = make_pdf([["One page.", "With text."], ["And another one."]] * 3), random.Random(1)
    for number in range(40):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        (tmp_path / f"{number:02}.pdf").write_bytes(data[: chance.randrange(len(data))] if number % 2 else data)
    found = read("pdf", tmp_path)
    assert len(found) == 40
    assert {"", "bad-pdf"} <= set(kinds(found)) <= {"", "bad-pdf", "empty-text", "encrypted-file"}


def test_without_its_package_a_pdf_source_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpus.formats.books.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"source 's', kind: .* pip install 'gristmill\[pdf\]'"):
        open_source(SourceConfig(name="s", kind="pdf", path=str(tmp_path)))


@pytest.mark.parametrize("kind", ["pdf", "epub"])
def test_fields_that_books_do_not_have_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match=r"meta_fields: .* have no 'isbn', only title, author"):
        read(kind, tmp_path, meta_fields=("title", "isbn"))
    (tmp_path / f"a.{kind}").touch()
    with pytest.raises(SourceError, match=f"did you mean kind: {kind}"):
        read("html", tmp_path)


# ------------------------------------------------------------------------------------------------ EPUB


def test_an_epub_is_a_document_of_its_chapters_in_the_order_of_the_spine(tmp_path: Path) -> None:
    (tmp_path / "a.epub").write_bytes(make_epub())
    record = only(read("epub", tmp_path, meta_fields=("title", "author", "language")))
    assert record.text == "One\n\nThe first & best.\n\nThe second."
    assert record.date == "2020-01-02"
    assert record.meta == {"title": "A book", "author": "A. One; B. Two", "language": "en"}


def test_what_the_spine_does_not_read_in_order_is_left_out(tmp_path: Path) -> None:
    opf = """<package xmlns="http://www.idpf.org/2007/opf"><metadata/><manifest>
    <item id="a" href="two words.xhtml#top" media-type="application/xhtml+xml"/>
    <item id="b" href="b.xhtml" media-type="application/xhtml+xml"/>
    <item id="p" href="p.svg" media-type="image/svg+xml"/></manifest>
    <spine><itemref idref="p"/><itemref idref="a"/><itemref idref="b" linear="no"/><itemref idref="c"/></spine>
    </package>"""
    (tmp_path / "a.epub").write_bytes(make_epub(opf=opf))
    assert only(read("epub", tmp_path)).text == "One\n\nThe first & best."


@pytest.mark.parametrize("typed", [True, False])
def test_books_are_read_inside_archives_and_are_none_themselves(tmp_path: Path, typed: bool) -> None:
    with zipfile.ZipFile(tmp_path / "books.zip", "w") as archive:
        archive.writestr("one.epub", make_epub(typed=typed))
        archive.writestr("two.epub", make_epub({"c.xhtml": "<p>Two.</p>"}, typed=typed))
    assert texts(read("epub", tmp_path)) == ["One\n\nThe first & best.\n\nThe second.", "Two."]
    assert kinds(read("text", tmp_path, members=("*.epub",))) == ["nested-archive", "nested-archive"]


OBFUSCATED = """<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<EncryptedData xmlns="http://www.w3.org/2001/04/xmlenc#"><CipherData><CipherReference URI="{}"/></CipherData>
</EncryptedData></encryption>"""
BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)


def test_scrambled_fonts_are_no_hindrance(tmp_path: Path) -> None:
    more: dict[str, str | bytes] = {"META-INF/encryption.xml": OBFUSCATED.format("OEBPS/font.otf")}
    (tmp_path / "a.epub").write_bytes(make_epub(more=more))
    assert texts(read("epub", tmp_path))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", "empty-text", "the file is empty"),
        (b"no zip", "bad-epub", "the archive is damaged: File is not a zip"),
        (make_epub(container="<container/>"), "bad-epub", "points to ''"),
        (make_epub(container="no XML"), "bad-epub", "META-INF/container.xml"),
        (make_epub(opf="<package/>"), "bad-epub", "names no chapters"),
        (make_epub({"../../x.xhtml": "<p>Outside.</p>"}), "bad-epub", "1 of 1 chapters are missing"),
        (make_epub({"a.xhtml": " "}), "empty-text", "none of 1 chapters holds text"),
        (make_epub(more={"META-INF/encryption.xml": OBFUSCATED.format("OEBPS/b.xhtml")}), "encrypted-file", "chapters"),
        (make_epub()[:-60], "bad-epub", "the archive is damaged: File is not a zip"),
    ],
)
def test_what_is_no_readable_epub_is_put_aside(tmp_path: Path, data: bytes, error: str, message: str) -> None:
    (tmp_path / "a.epub").write_bytes(data)
    found = bad(read("epub", tmp_path))
    assert (found.error, message in found.message) == (error, True), found


def test_entities_of_a_book_do_not_grow(tmp_path: Path) -> None:
    opf = f"{BOMB}]><package><metadata><title>&k;</title></metadata><manifest/></package>"
    (tmp_path / "a.epub").write_bytes(make_epub(opf=opf))
    assert bad(read("epub", tmp_path)).error == "bad-epub"


def test_a_book_that_inflates_beyond_its_memory_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "a.epub").write_bytes(make_epub({"a.xhtml": "a" * (200 << 20)}))
    (tmp_path / "b.epub").write_bytes(make_epub())
    assert kinds(read("epub", tmp_path, page_memory_bytes=64 << 20)) == ["extraction-memory", ""]


def test_cut_and_damaged_books_end_as_documents_or_put_aside(tmp_path: Path) -> None:
    whole, chance = make_epub(), random.Random(2)
    for number in range(60):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        (tmp_path / f"{number:02}.epub").write_bytes(data[: chance.randrange(len(data))] if number % 3 == 2 else data)
    found = read("epub", tmp_path)
    assert len(found) == 60
    assert set(kinds(found)) <= {"", "bad-epub", "encrypted-file", "empty-text"}
