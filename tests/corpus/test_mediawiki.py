"""MediaWiki dumps: articles as their readers see them, all other pages counted, damage kept to its page."""

from __future__ import annotations

import bz2
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.extraction.wikitext import plain_text
from corpus.sources import BadRecord, Record
from tests.corpus.reading import check_resuming, kinds, read, texts

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <base>https://de.wikipedia.example/wiki/Hauptseite</base>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="1" case="first-letter">Diskussion</namespace>
      <namespace key="6" case="first-letter">Datei</namespace>
      <namespace key="14" case="first-letter">Kategorie</namespace>
    </namespaces>
  </siteinfo>
"""
TAIL = "</mediawiki>\n"


def page(title: str, text: str, ns: int = 0, more: str = "", model: str = "wikitext", attributes: str = "") -> str:
    return f"""  <page>
    <title>{escape(title)}</title>
    <ns>{ns}</ns>
    <id>12</id>{more}
    <revision>
      <id>345</id>
      <timestamp>2024-05-06T07:08:09Z</timestamp>
      <model>{model}</model>
      <format>text/x-wiki</format>
      <text bytes="1" xml:space="preserve"{attributes}>{escape(text)}</text>
    </revision>
  </page>
"""


ARTICLE = """{{Infobox|name=Mühle|bild=x.jpg}}
[[Datei:Bild.jpg|mini|Ein ''Bild'' mit [[Link]]]]
'''Mühlen''' ({{lang|en|mills}}) sind [[Maschine|Maschinen]] zum [[Mahlen]].<ref>Ein Beleg</ref> Sie haben {{convert|5|km}} Weg.

== Geschichte ==
Seit dem [http://example.org Altertum] &ndash; bekannt.<!-- Notiz -->
* erstens
* zweitens
{| class="wikitable"
| Zelle
|}
=== Leer ===
{{Navigationsleiste}}

== Weblinks ==
{{Commons}}
[[Kategorie:Technik]]
[[Kategorie:Mühlen| ]]
[[en:Mill]]
__NOTOC__
"""  # noqa: E501


def dump(folder: Path, *pages: str, tail: str = TAIL) -> Path:
    (folder / "dump.xml").write_text(HEAD + "".join(pages) + tail)
    return folder


def test_an_article_is_what_its_readers_see(tmp_path: Path) -> None:
    fields = ("title", "page_id", "revision_id", "namespace", "categories")
    [record] = read("mediawiki", dump(tmp_path, page("Die Mühle", ARTICLE)), meta_fields=fields)
    assert isinstance(record, Record)
    assert record.text == (
        "Die Mühle\n\nMühlen (mills) sind Maschinen zum Mahlen. Sie haben 5 km Weg.\n\nGeschichte\n"
        "Seit dem Altertum – bekannt.\n- erstens\n- zweitens"
    )
    assert record.url == "https://de.wikipedia.example/wiki/Die_M%C3%BChle"
    assert record.date == "2024-05-06T07:08:09Z"
    assert record.meta == {
        "title": "Die Mühle", "page_id": 12, "revision_id": 345, "namespace": 0, "categories": ["Technik", "Mühlen"],
    }  # fmt: skip


def test_other_pages_are_skipped_by_what_they_are(tmp_path: Path) -> None:
    two = page("Alt und neu", "neuer Text").replace(
        "<revision>",
        "<revision><id>1</id><timestamp>2001-01-01T00:00:00Z</timestamp><text>alter Text</text></revision><revision>",
    )
    pages = [
        page("Weiter", "#REDIRECT [[Ziel]]", more='\n    <redirect title="Ziel" />'),
        page("Diskussion:Mühle", "Hallo", ns=1),
        page("Stil", "{}", model="css"),
        page("Weg", "", attributes=' deleted="deleted"'),
        page("Nichts", "  "),
        page("Nur Kasten", "{{Infobox|a=b}}"),
        two,
    ]
    found = read("mediawiki", dump(tmp_path, *pages))
    expected = ["redirect", "namespace", "not-wikitext", "deleted", "empty-text", "empty-text", ""]
    assert kinds(found) == expected
    assert texts(found) == ["Alt und neu\n\nneuer Text"]
    assert kinds(read("mediawiki", tmp_path, namespaces=(0, 1)))[1] == ""
    check_resuming("mediawiki", tmp_path)


def test_packed_dumps_of_several_streams(tmp_path: Path) -> None:
    parts = [HEAD, *(page(f"Seite {n}", f"Text der Seite {n}.") for n in range(20)), TAIL]
    data = b"".join(bz2.compress(part.encode()) for part in parts)
    (tmp_path / "dump-multistream.xml.bz2").write_bytes(data)
    assert texts(read("mediawiki", tmp_path)) == [f"Seite {n}\n\nText der Seite {n}." for n in range(20)]
    (tmp_path / "dump-multistream.xml.bz2").write_bytes(data[: len(data) // 2])
    found = read("mediawiki", tmp_path)
    assert kinds(found)[-1] == "broken-stream"
    assert set(kinds(found)[:-1]) == {""}


def test_damage_and_hostile_pages_cost_themselves(tmp_path: Path) -> None:
    entity = page("Böse", "&lol;").replace("&amp;lol;", "&lol;")
    open_page = page("Offen", "Text").replace("</page>", "</pag")
    long = page("Lang", "x " * 300_000)
    found = read(
        "mediawiki",
        dump(tmp_path, page("A", "eins"), entity, "Müll <b>", open_page, page("B", "zwei"), long, page("C", "drei")),
        max_record_bytes=100_000,
    )
    assert kinds(found) == ["", "bad-xml", "bad-xml", "", "too-long", ""]
    assert [r.record for r in found] == list(range(6))
    deep = page("Tief", "{{" * 50_000 + "[[" * 50_000 + "<b>" * 20_000)
    found = read("mediawiki", dump(tmp_path, deep, page("C", "drei")), page_seconds=5)
    assert kinds(found)[1] == ""
    declared = '<!DOCTYPE x [<!ENTITY a "aaa"><!ENTITY b SYSTEM "file:///etc/passwd">]>\n'
    (tmp_path / "dump.xml").write_text(declared + HEAD + page("X", "&b;").replace("&amp;b;", "&b;") + TAIL)
    [bad] = read("mediawiki", tmp_path)
    assert isinstance(bad, BadRecord)


@settings(max_examples=12, deadline=None)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3),
    cut=st.floats(0.2, 1),
)
def test_damaged_dumps_never_raise_and_undamaged_pages_survive(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[float, int]], cut: float
) -> None:
    folder = dump(tmp_path_factory.mktemp("dump"), *(page(f"Seite {n}", f"Text der Seite {n}.") for n in range(12)))
    data = bytearray((folder / "dump.xml").read_bytes())
    for place, value in edits:
        data[int(place * len(data))] = value
    (folder / "dump.xml").write_bytes(data[: int(cut * len(data))])
    found = read("mediawiki", folder)
    assert [r.record for r in found] == list(range(len(found)))
    if int(cut * len(data)) == len(data):
        whole = {f"Seite {n}\n\nText der Seite {n}." for n in range(12)}
        assert len(whole - set(texts(found))) <= 2 * len(edits)


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("a [[b]]s [[c|d]] [[Category:E]] [[:Category:E]]", "a bs d  Category:E"),
        ("<nowiki>[[x]]</nowiki> <code>a = 1</code>", "[[x]] a = 1"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("{{unknown|text}}words", "words"),
        ("see http://example.org now", "see http://example.org now"),
        ("== A ==\n== B ==\ntext", "B\ntext"),
        ("== A ==\n=== B ===\ntext", "A\nB\ntext"),
        ("", ""),
        ("[[unclosed and {{open", "[[unclosed and {{open"),
    ],
)
def test_wikitext(wikitext: str, expected: str) -> None:
    assert " ".join(plain_text(f"\n{wikitext}").split("  ")) == " ".join(expected.split("  "))
