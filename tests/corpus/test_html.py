"""HTML files: one file, one record, whatever is in it."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.extract import load_articles, load_strings
from corpus.config import SourceConfig
from corpus.formats.html import RIGHTS_FIELDS, HtmlFiles, page_rights, read_head
from corpus.sources import BadRecord, Record, open_source
from corpus.sources.base import Cursor, Selection
from corpus.sources.streams import Content
from tests.corpus.reading import kinds, read

HEAD = """<!DOCTYPE html><html><head><title>Bread &amp; butter</title>
<meta content="2024-05-06T07:08:09+02:00" property="article:published_time">
<LINK HREF='https://example.com/bread?a=1&amp;b=2' REL=canonical><meta property="og:url" content="https://other.com/">
</head>"""
FAST = SourceConfig(name="web", kind="html", path=".", extractor="fast")
BODY = f"<body><article><p>{'Bread is made of flour and water. ' * 20}</p></article></body></html>"


def test_a_page_is_a_record_with_what_its_head_states(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(HEAD + BODY)
    [found] = read("html", tmp_path, meta_fields=("title", "encoding", "author"))
    assert isinstance(found, Record)
    assert found.record == 0
    assert found.text.startswith("Bread is made of flour and water. Bread is")
    assert found.url == "https://example.com/bread?a=1&b=2"
    assert found.date == "2024-05-06T07:08:09+02:00"
    assert found.meta == {"title": "Bread & butter", "encoding": "utf-8"}


def test_nothing_is_guessed_where_the_head_is_silent(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(f"<html><head></head>{BODY}")
    [found] = read("html", tmp_path)
    assert isinstance(found, Record)
    assert (found.url, found.date, found.meta) == (None, None, None)
    assert [record.meta for record in read("html", tmp_path, meta_fields=("title",)) if isinstance(record, Record)] == [
        None
    ]


@pytest.mark.parametrize(
    ("head", "end", "stated"),
    [
        ('<meta name="Robots" content="noai, noindex">', "", {"robots": "noai, noindex"}),
        ("<meta name=robots content=all><meta name=robots content=noai>", "", {"robots": "all, noai"}),
        ('<meta name="tdm-reservation" content="1">', "", {"tdm-reservation": "1"}),
        ("", '<p><a href="https://creativecommons.org/licenses/by/4.0/" rel="nofollow License">CC</a>', "by"),
        ('<link rel="license" href="https://creativecommons.org/licenses/by/4.0/">', "", "by"),
        ("", '<a href="/license">our license</a>', None),
        ("", "<a rel=license>without an address</a>", None),
        ('<meta name="author" content="robots">', "", None),
    ],
)
def test_what_a_page_says_of_its_use_is_kept_where_asked_for(
    tmp_path: Path, head: str, end: str, stated: dict[str, str] | str | None
) -> None:
    if stated == "by":
        stated = {"license": "https://creativecommons.org/licenses/by/4.0/"}
    page = f"<html><head>{head}</head>{BODY.replace('</body>', end + '</body>')}"
    (tmp_path / "a.html").write_text(page)
    [found] = read("html", tmp_path, meta_fields=RIGHTS_FIELDS)
    assert isinstance(found, Record)
    assert found.meta == stated
    [silent] = read("html", tmp_path)
    assert isinstance(silent, Record)
    assert silent.meta is None


def test_looking_for_a_licence_takes_no_longer_than_the_page(tmp_path: Path) -> None:
    hostile = "<a license " * 200_000 + "<a " + "license=" * 200_000
    assert page_rights(hostile.encode(), "utf-8", RIGHTS_FIELDS) == {}


@pytest.mark.parametrize(
    ("head", "url", "date"),
    [
        ('<link rel="canonical" href="/only/a/path">', None, None),
        ('<link rel="canonical" href="/a"><meta property="og:url" content="http://a.b/c">', "http://a.b/c", None),
        ('<meta property="og:url" content="javascript:alert(1)">', None, None),
        ('<meta name="date" content="last Tuesday">', None, None),
        ('<meta name="DC.date" content="2020-01-02"><meta itemprop="datePublished" content="2019-01-02">', None, None),
        ("<meta name=date content=2020-01-02>", None, "2020-01-02"),
        ("<link" + " a" * 30_000 + ">", None, None),
        ("<meta " + 'a="' * 20_000, None, None),
    ],
)
def test_addresses_are_absolute_and_dates_are_iso(head: str, url: str | None, date: str | None) -> None:
    if "DC.date" in head:
        date = "2019-01-02"  # the day of publication is surer than a date
    assert read_head(head) == (url, date)


def test_addresses_and_dates_of_real_pages(shared_data: Path) -> None:
    pages, truth = load_strings(shared_data / "html")
    right = wrong = addresses = 0
    for name, page in pages.items():
        url, date = read_head(page[: 1 << 16].decode("utf-8", "ignore"))
        addresses += url is not None and url.startswith("http")
        known = truth[name].get("date")
        if date is not None and known:
            right += date[:10] == known
            wrong += date[:10] != known
    assert addresses > 90
    assert right > 30
    assert wrong <= right / 5


def test_what_gives_no_text_is_quarantined_by_its_kind(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<html><head><title>x</title></head><body><script>a()</script></body></html>")
    (tmp_path / "b.htm").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20)
    (tmp_path / "c.xhtml").write_text(HEAD + BODY * 100)
    (tmp_path / "d.html.gz").write_bytes(gzip.compress((HEAD + BODY).encode())[:-9])
    (tmp_path / "e.html.gz").write_bytes(gzip.compress((HEAD + BODY).encode()))
    (tmp_path / "f.html").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not this")
    found = read("html", tmp_path, max_record_bytes=10_000)
    assert kinds(found) == ["no-main-content", "bad-encoding", "too-long", "broken-stream", "", "no-main-content"]
    assert isinstance(found[0], BadRecord)
    assert found[0].excerpt.startswith("<html><head><title>x")
    assert {record.record for record in found} == {0}


def test_a_named_encoding_is_used_and_an_unknown_one_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes((HEAD + BODY.replace("Bread", "Хлеб")).encode("cp1251"))
    [found] = read("html", tmp_path, encoding="cp1251", meta_fields=("encoding",))
    assert isinstance(found, Record)
    assert found.text.startswith("Хлеб is made")
    assert found.meta == {"encoding": "cp1251"}
    assert kinds(read("html", tmp_path, encoding="utf-8")) == ["bad-encoding"]
    with pytest.raises(ValueError, match="no encoding 'utf-9'"):
        read("html", tmp_path, encoding="utf-9")


def test_only_what_is_wanted_is_extracted_and_one_process_serves_all_files(shared_data: Path, tmp_path: Path) -> None:
    pages = [*load_articles(shared_data / "html")[0].values()][:12]
    for number, page in enumerate(pages):
        (tmp_path / f"{number:02d}.html").write_bytes(page)
    before = {child.pid for child in psutil.Process().children()}
    source = open_source(SourceConfig(name="web", kind="html", path=str(tmp_path), extractor="fast"))
    processes = set()
    for file in source.inventory():
        assert [type(found) for found in source.records(file)] == [Record]
        processes |= {child.pid for child in psutil.Process().children()} - before
    assert len(processes) == 1
    del source
    assert not processes & {child.pid for child in psutil.Process().children()}
    some = read("html", tmp_path, fraction=0.4, extractor="fast")
    assert 0 < len(some) < len(pages)
    skipped = open_source(SourceConfig(name="web", kind="html", path=str(tmp_path), extractor="fast"))
    assert list(skipped.records(skipped.inventory()[0], start=1)) == []


@pytest.fixture(scope="module")
def fast() -> HtmlFiles:
    return HtmlFiles(FAST, 1 << 20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    junk=st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from(
                [b"<", b"<!--", b"</p>", b"<script>", b"&#0;", b"<meta charset=utf-16>", b"\xff\xfe", b"]]>"]
            ),
        ),
        max_size=8,
    ),
    places=st.lists(st.integers(0, 2000), min_size=8, max_size=8),
    cut=st.integers(0, 2000),
)
def test_any_damage_gives_exactly_one_record(fast: HtmlFiles, junk: list[bytes], places: list[int], cut: int) -> None:
    page = (HEAD + BODY + BODY).encode()[: cut or None]
    for piece, place in zip(junk, places, strict=False):
        page = page[:place] + piece + page[place:]
    selection = Selection(FAST, "a.html", Cursor(), resumable=False)
    found = list(fast.records(Content(io.BytesIO(page)), selection))
    assert [record.record for record in found] == [0]
    assert kinds(found)[0] in ("", "no-main-content", "bad-encoding", "broken-stream")
    assert selection.cursor.record == 1
