"""MediaWiki dumps: articles as their readers see them, all other pages counted, damage kept to its page."""

from __future__ import annotations

import bz2
import gzip
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import SourceConfig
from corpus.extraction.wikitext import GONE, Names, plain_text, read_answer, read_wikitext, write_request
from corpus.formats.mediawiki import page_address
from corpus.formats.mediawiki_pages import Piece, cut_pages
from corpus.sources import BadRecord, Found, Record, open_source
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
      <contributor><username>Jemand</username><id>99</id></contributor>
      <model>{model}</model>
      <format>text/x-wiki</format>
      <text bytes="1" xml:space="preserve"{attributes}>{escape(text)}</text>
    </revision>
  </page>
"""


def revision(time: str, text: str, number: int = 1) -> str:
    return f"<revision><id>{number}</id><timestamp>{time}</timestamp><text>{escape(text)}</text></revision>"


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


def dump(folder: Path, *pages: str, head: str = HEAD, tail: str = TAIL) -> Path:
    (folder / "dump.xml").write_text(head + "".join(pages) + tail)
    return folder


# --- what becomes a document -----------------------------------------------------------------------------------------


def test_an_article_is_what_its_readers_see(tmp_path: Path) -> None:
    fields = ("title", "page_id", "revision_id", "namespace", "categories")
    [record] = read("mediawiki", dump(tmp_path, page("Die Mühle", ARTICLE)), meta_fields=fields)
    assert isinstance(record, Record)
    assert record.text == (
        "Die Mühle\n\nMühlen (mills) sind Maschinen zum Mahlen. Sie haben 5 km Weg.\n\nGeschichte\n\n"
        "Seit dem Altertum – bekannt.\n- erstens\n- zweitens"
    )
    assert record.url == "https://de.wikipedia.example/wiki/Die_M%C3%BChle"
    assert record.date == "2024-05-06T07:08:09Z"
    assert record.meta == {
        "title": "Die Mühle", "page_id": 12, "revision_id": 345, "namespace": 0, "categories": ["Technik", "Mühlen"],
    }  # fmt: skip


def test_other_pages_are_skipped_by_what_they_are(tmp_path: Path) -> None:
    two = page("Alt und neu", "neuer Text").replace(
        "<revision>", revision("2001-01-01T00:00:00Z", "alter Text") + "<revision>"
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
    assert kinds(found) == ["redirect", "namespace", "not-wikitext", "deleted", "empty-text", "empty-text", ""]
    assert texts(found) == ["Alt und neu\n\nneuer Text"]
    assert kinds(read("mediawiki", tmp_path, namespaces=(0, 1)))[1] == ""
    check_resuming("mediawiki", tmp_path)


def test_dumps_of_old_schemas_name_redirects_and_namespaces_in_the_text_alone(tmp_path: Path) -> None:
    head = HEAD.replace("0.11", "0.3")
    pages = [
        "<page><title>Diskussion:A</title><id>1</id>" + revision("2004-01-01T00:00:00Z", "Hallo") + "</page>",
        "<page><title>B: c</title><id>2</id>" + revision("2004-01-01T00:00:00Z", "Ein Text.") + "</page>",
        "<page><title>D</title><id>3</id>" + revision("2004-01-01T00:00:00Z", "#redirect [[B: c]]") + "</page>",
    ]
    found = read("mediawiki", dump(tmp_path, *pages, head=head), meta_fields=("namespace", "revision_id"))
    assert kinds(found) == ["namespace", "", "redirect"]
    assert found[1] == Record(
        1, "B: c\n\nEin Text.", "https://de.wikipedia.example/wiki/B:_c", "2004-01-01T00:00:00Z",
        {"namespace": 0, "revision_id": 1},
    )  # fmt: skip


def test_pages_without_site_information_have_no_address(tmp_path: Path) -> None:
    found = read("mediawiki", dump(tmp_path, page("A", "Text [[Category:B]]"), head="<mediawiki>"))
    assert found == [Record(0, "A\n\nText", None, "2024-05-06T07:08:09Z")]


def test_namespace_aliases_hide_files_and_categories_too(tmp_path: Path) -> None:
    aliases = (
        '<namespacealiases><namespacealias key="6">Bild</namespacealias></namespacealiases></siteinfo>'  # schema 0.11
    )
    [record] = read(
        "mediawiki",
        dump(tmp_path, page("A", "x [[Bild:a.jpg|mini|b]] y"), head=HEAD.replace("</siteinfo>", aliases)),
    )
    assert isinstance(record, Record)
    assert record.text == "A\n\nx y"


def test_the_newest_revision_counts_wherever_it_stands(tmp_path: Path) -> None:
    revisions = [
        revision("2003-01-01T00:00:00Z", "mittlerer", 2),
        revision("2024-01-01T00:00:00Z", "neuester", 3),
        revision("2001-01-01T00:00:00Z", "ältester", 1),
    ]
    for order in itertools.permutations(revisions):
        pages = f"<page><title>A</title><ns>0</ns><id>1</id>{''.join(order)}</page>"
        [record] = read("mediawiki", dump(tmp_path, pages), meta_fields=("revision_id",))
        assert isinstance(record, Record)
        assert (record.text, record.date) == ("A\n\nneuester", "2024-01-01T00:00:00Z")
        assert record.meta == {"revision_id": 3}


def test_a_history_longer_than_a_record_may_be_is_read(tmp_path: Path) -> None:
    history = [revision(f"20{year:02d}-01-01T00:00:00Z", f"Stand {year} " + "x " * 10_000) for year in range(60)]
    pages = [
        f"<page><title>A</title><ns>0</ns><id>1</id>{''.join(history)}</page>",
        page("B", "Text"),
        f"<page><title>C</title><ns>0</ns><id>1</id>{''.join(history[:30])}"
        f"{revision('2099-01-01T00:00:00Z', 'y' * 200_000)}{''.join(history[30:])}</page>",
        page("D", "Text"),
    ]
    found = read("mediawiki", dump(tmp_path, *pages), max_record_bytes=100_000)
    assert kinds(found) == ["", "", "too-long", ""]
    assert texts(found)[0].startswith("A\n\nStand 59 ")


def test_a_stub_dump_says_that_it_has_no_text(tmp_path: Path) -> None:
    [bad] = read("mediawiki", dump(tmp_path, page("A", "", attributes=' id="7"').replace('bytes="1"', 'bytes="120"')))
    assert isinstance(bad, BadRecord)
    assert (bad.error, "stub" in bad.message) == ("missing-text", True)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValueError, match=r"source 's', meta_fields: pages of MediaWiki have no 'author', only title"):
        open_source(SourceConfig(name="s", kind="mediawiki", path="x", meta_fields=("author",)))


@pytest.mark.parametrize(
    ("base", "title", "address"),
    [
        ("https://x.example/wiki/Main_Page", "AC/DC", "https://x.example/wiki/AC/DC"),
        ("https://x.example/wiki/Main_Page", "What's (a) 50%?", "https://x.example/wiki/What%27s_(a)_50%25%3F"),
        ("https://x.example/wiki/Main_Page", 'C++ & "D"', "https://x.example/wiki/C%2B%2B_%26_%22D%22"),
        ("https://x.example/wiki/Wikipedia:A/B", "Ä", "https://x.example/wiki/%C3%84"),
        ("http://x.example/w/index.php?title=Main", "A b", "http://x.example/w/index.php?title=A_b"),
        ("http://x.example/index.php/Main", "A:b", "http://x.example/index.php/A:b"),
    ],
)
def test_addresses_are_those_of_the_wiki(base: str, title: str, address: str) -> None:
    assert page_address(base, title) == address


# --- streams and damage ----------------------------------------------------------------------------------------------


def test_packed_dumps_of_several_streams(tmp_path: Path) -> None:
    parts = [HEAD, *(page(f"Seite {n}", f"Text der Seite {n}.") for n in range(20)), TAIL]
    data = b"".join(bz2.compress(part.encode()) for part in parts)
    (tmp_path / "dump-multistream.xml.bz2").write_bytes(data)
    assert texts(read("mediawiki", tmp_path)) == [f"Seite {n}\n\nText der Seite {n}." for n in range(20)]
    (tmp_path / "dump-multistream.xml.bz2").write_bytes(data[: len(data) // 2])
    found = read("mediawiki", tmp_path)
    assert kinds(found)[-1] == "broken-stream"
    assert set(kinds(found)[:-1]) == {""}


def test_a_damaged_stream_of_bzip2_costs_its_own_pages(tmp_path: Path) -> None:
    packed = [
        bytearray(bz2.compress(part.encode())) for part in (HEAD, *(page(f"S{n}", "Text") for n in range(6)), TAIL)
    ]
    packed[3][60:80] = b"\xff" * 20
    (tmp_path / "dump.xml.bz2").write_bytes(b"".join(packed))
    found = read("mediawiki", tmp_path)
    assert kinds(found) == ["", "", "broken-stream", "", "", ""]
    assert texts(found) == [f"S{n}\n\nText" for n in (0, 1, 3, 4, 5)]


def test_a_damaged_gzip_member_costs_its_own_pages(tmp_path: Path) -> None:
    parts = [HEAD + page("A", "eins"), page("B", "zwei") * 50, page("C", "drei"), page("D", "vier") + TAIL]
    packed = [bytearray(gzip.compress(part.encode())) for part in parts]
    packed[1][40:60] = b"\xff" * 20
    (tmp_path / "dump.xml.gz").write_bytes(b"".join(packed))
    found = read("mediawiki", tmp_path)
    assert texts(found)[0] == "A\n\neins"
    assert texts(found)[-2:] == ["C\n\ndrei", "D\n\nvier"]
    assert kinds(found).count("broken-stream") == 1
    assert set(kinds(found)) == {"", "broken-stream"}
    assert [r.record for r in found] == list(range(len(found)))


def test_damage_and_hostile_pages_cost_themselves(tmp_path: Path) -> None:
    entity = page("Böse", "&lol;").replace("&amp;lol;", "&lol;")
    open_page = page("Offen", "Text").replace("</page>", "</pag")
    long = page("Lang", "x " * 300_000)
    nested = page("Tief", "x").replace("<ns>", "<a>" * 10_000 + "<ns>")
    found = read(
        "mediawiki",
        dump(tmp_path, page("A", "eins"), entity, open_page, page("B", "zwei"), long, nested, page("C", "drei")),
        max_record_bytes=100_000,
    )
    assert kinds(found) == ["", "bad-xml", "bad-xml", "", "too-long", "bad-xml", ""]
    assert [r.record for r in found] == list(range(7))
    undecodable = page("Bytes", "caf\xe9").encode("latin-1")
    (tmp_path / "dump.xml").write_bytes(HEAD.encode() + undecodable + page("C", "drei").encode() + TAIL.encode())
    assert kinds(read("mediawiki", tmp_path)) == ["bad-utf8", ""]


def test_nothing_that_a_document_type_declares_is_known(tmp_path: Path) -> None:
    declared = (
        '<!DOCTYPE x [<!ENTITY a "aaa"><!ENTITY b SYSTEM "file:///etc/passwd">'
        + "".join(f'<!ENTITY l{n} "&l{n - 1};&l{n - 1};">' for n in range(1, 40))
        + "]>\n"
    )
    pages = [page(entity, "Text").replace("Text", f"&{entity};") for entity in ("a", "b", "l39")]
    found = read("mediawiki", dump(tmp_path, *pages, page("C", "drei"), head=declared + HEAD))
    assert kinds(found) == ["bad-xml"] * 3 + [""]
    in_page = page("D", "Text").replace("<page>", f"<page>{declared}")
    assert kinds(read("mediawiki", dump(tmp_path, in_page, page("C", "drei")))) == ["bad-xml", ""]


def test_a_page_whose_start_is_lost_is_not_lost_in_silence(tmp_path: Path) -> None:
    lost = page("B", "zwei").replace("<page>", "<qage>")
    found = read("mediawiki", dump(tmp_path, page("A", "eins"), lost, "Müll <b>", page("C", "drei")))
    assert kinds(found) == ["", "bad-xml", ""]
    assert kinds(read("mediawiki", dump(tmp_path, page("A", "eins"), "Müll"))) == ["", "bad-xml"]
    (tmp_path / "dump.xml").write_text("<rss><channel>no wiki</channel></rss>")
    assert kinds(read("mediawiki", tmp_path)) == ["bad-xml"]
    assert kinds(read("mediawiki", dump(tmp_path))) == []
    assert kinds(read("mediawiki", dump(tmp_path, page("A", "eins"), tail=""))) == ["", "broken-stream"]


@pytest.fixture(scope="module")
def reread(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], list[Found]]:
    """Reads bytes as a dump, with one helper process for all."""
    folder = tmp_path_factory.mktemp("dump")
    source = open_source(SourceConfig(name="s", kind="mediawiki", path=str(folder)))

    def again(data: bytes) -> list[Found]:
        (folder / "dump.xml").write_bytes(data)
        [file] = source.inventory()
        return list(source.records(file))

    return again


PAGES = [page(f"Seite {n}", f"Text der Seite {n}.").encode() for n in range(12)]
WHOLE = HEAD.encode() + b"".join(PAGES) + TAIL.encode()


def places(number: int) -> range:
    """Where a page's element lies in the whole."""
    begin = WHOLE.index(PAGES[number])
    return range(begin + PAGES[number].index(b"<page>"), begin + PAGES[number].index(b"</page>") + len(b"</page>"))


@settings(max_examples=60, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_pages_that_are_not_touched_by_damage_survive_it(
    reread: Callable[[bytes], list[Found]], edits: list[tuple[int, int]]
) -> None:
    data = bytearray(WHOLE)
    for place, value in edits:
        data[place] = value
    touched = {place for place, _ in edits}
    found = reread(bytes(data))
    assert [r.record for r in found] == list(range(len(found)))
    whole = {f"Seite {n}\n\nText der Seite {n}." for n in range(12) if not touched.intersection(places(n))}
    assert whole <= set(texts(found))


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, len(WHOLE)))
def test_a_dump_that_is_cut_gives_the_pages_before_the_cut(reread: Callable[[bytes], list[Found]], cut: int) -> None:
    found = reread(WHOLE[:cut])
    whole = [f"Seite {n}\n\nText der Seite {n}." for n in range(12) if places(n).stop <= cut]
    assert texts(found) == whole
    complete = cut >= WHOLE.index(b"</mediawiki>") + len(b"</mediawiki>")
    # In the head there is nothing to lose yet that a word could be said of.
    assert complete or len(found) > len(whole) or cut == 0


@settings(max_examples=40, deadline=None)
@given(garbage=st.lists(st.binary(min_size=1, max_size=80), min_size=13, max_size=13))
def test_garbage_between_pages_is_counted_and_costs_no_page(
    reread: Callable[[bytes], list[Found]], garbage: list[bytes]
) -> None:
    data = HEAD.encode() + b"".join(itertools.chain(*zip(garbage, PAGES, strict=False))) + garbage[12] + TAIL.encode()
    found = reread(data)
    assert texts(found) == [f"Seite {n}\n\nText der Seite {n}." for n in range(12)]
    assert set(kinds(found)) <= {"", "bad-xml"}
    assert [r.record for r in found] == list(range(len(found)))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=20),
    pages=st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 300)), max_size=8), max_size=5),
    unclosed=st.booleans(),
)
def test_pieces_are_the_same_wherever_chunks_end(
    sizes: list[int], pages: list[list[tuple[int, int]]], unclosed: bool
) -> None:
    elements = [
        "<page><title>A</title>"
        + "".join(revision(f"200{year}-01-01T00:00:00Z", "x" * length) for year, length in revisions)
        + "</page>"
        for revisions in pages
    ]
    data = f"{HEAD}{'<page> '.join(elements) if unclosed else ' '.join(elements)}{TAIL}".encode()
    ends = itertools.accumulate(itertools.cycle(sizes))
    borders = [0, *itertools.takewhile(lambda end: end < len(data), ends), len(data)]
    chunks = [data[begin:end] for begin, end in itertools.pairwise(borders)]
    assert list(map(essence, cut_pages(chunks, 300))) == list(map(essence, cut_pages([data], 300)))


def essence(piece: Piece) -> tuple[Any, ...]:
    """What of a piece others rely on: of what is too long that is its kind and its size."""
    return (piece.kind, piece.size, piece.data if piece.kind in ("page", "around", "after") else b"")


def test_a_page_that_would_take_for_ever_is_put_aside(tmp_path: Path) -> None:
    hostile = ["{{a|b " * 20_000, "<ref>x " * 20_000]
    pages = [piece for n, text in enumerate(hostile) for piece in (page(f"Tief {n}", text), page(f"Gut {n}", "Text"))]
    found = read("mediawiki", dump(tmp_path, *pages), page_seconds=0.5)
    assert kinds(found)[0::2] == ["extraction-timeout"] * 2
    assert kinds(found)[1::2] == [""] * 2
    deep = page("Tief", "{{" * 50_000 + "[[" * 50_000 + "<b>" * 20_000 + "{|\n" * 1000)
    assert kinds(read("mediawiki", dump(tmp_path, deep, page("C", "drei")), page_seconds=1))[1] == ""


# --- wikitext --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        # links
        ("a [[b]]s [[c|d]] [[Category:E]] [[:Category:E]]", "a bs d Category:E"),
        ("[[a (b)|]] [[#c|d]] [[ e_f ]] [[:fr:g]]", "a (b) d e_f fr:g"),
        ("a\n[[fr:b]]\n[[zh-min-nan:c]]\nd", "a\nd"),
        ("[[wikt:a|b]] [[mw:c]] [[simple:d]]e", "b mw:c e"),
        ("[http://a.example b ''c''] [http://a.example] d", "b c d"),
        ("see http://example.org/a''b now", "see http://example.org/ab now"),
        ("a [[File:b.jpg|thumb|[[c]] d]] e [[image:f.png]]", "a e"),
        ("[[a|b {{nowrap|c}}]]", "b c"),
        # letters and quotes
        ("'''a''' ''b'' '''''c''''' d''e''", "a b c de"),
        ("l'''amour'' l''''or'''", "l'amour l'or"),
        ("it's ''the'' boys' '''''both'' bold'''", "it's the boys' both bold"),
        ("&lt;b&gt; &amp;amp; &#65;&#x42;&nbsp;c &bogus; &ndash;", "<b> &amp; AB c &bogus; –"),
        ("10<sup>6</sup> m<sup>−2</sup> 1<sup>st</sup> H<sub>2</sub>O", "10^6 m^−2 1st H2O"),
        # what is set off
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<p>a</p><blockquote>b</blockquote>c", "a\n\nb\nc"),
        ("<nowiki>[[x]] ''y'' {{z}}</nowiki> <code>a = 1</code>", "[[x]] ''y'' {{z}} a = 1"),
        ("a\n<pre>\n b''c\n\n* d\n</pre>\ne", "a\n\n b''c\n\n* d\n\ne"),
        ('<syntaxhighlight lang="c">\nif (a < b) {{ c[[0]]; }}\n</syntaxhighlight>', "if (a < b) {{ c[[0]]; }}"),
        ("<math>\\frac{a}{{b}}\n < c''</math> <ce>H2O</ce>", "$\\frac{a}{{b}} < c''$ $\\ce{H2O}$"),
        ("* a\n** b\n* c\n# d\n# e\n#: f\n# g\n; h : i\n: j", "- a\n  - b\n- c\n1. d\n2. e\nf\n3. g\nh: i\nj"),
        ("<ul><li>a</li><li>b</li></ul>", "- a\n\n- b"),
        # what is no text
        ("a<ref>b</ref> c<ref name=d /> {{e}}.", "a c."),
        ("a <!-- b --> c<!-- d\n\ne -->f", "a cf"),
        ("a <gallery>\nb.jpg|c\n</gallery> <div style='display: none'>d</div> e", "a e"),
        ("__NOTOC__a __KEIN_INHALTSVERZEICHNIS__ __БЕЗ_ОГЛАВЛЕНИЯ__ __init__", "a __init__"),
        ("{|\n! a\n|-\n| b\n{|\n| c\n|}\n|}\nd", "d"),
        ("a ({{IPA|b}}) c ({{IPA|d}}; e) f (g, {{h}}) i", "a c (e) f (g) i"),
        ("* {{cite|a}}\n* b{{cite|c}}\n* {{d}}, {{e}}.", "- b"),
        ("f() and ( ) stay", "f() and ( ) stay"),
        # sections
        ("== A ==\n== B ==\ntext", "B\n\ntext"),
        ("== A ==\n=== B ===\ntext\n=== C ===\n{{d}}\n== E ==\n", "A\n\nB\n\ntext"),
        ("a\n== ''B'' <ref>c</ref> ==\nd", "a\n\nB\n\nd"),
        # templates
        ("{{unknown|text}}words", "words"),
        ("{{lang|fr|mot}} {{lang-de|Wort}} {{Nihongo|A|あ}} {{small| b }}", "mot Wort A (あ) b"),
        ("{{convert|5|to|10|km|mi}}, {{cvt|3|-|4|ft}}, {{convert|1,300|mi}}", "5 to 10 km, 3–4 ft, 1,300 mi"),
        ("{{frac|1|2}} {{frac|3}} {{frac|4|5|6}} {{formatnum:1234}} {{uc:ab}}", "1/2 1/3 4 5/6 1234 AB"),
        ("a{{!}}b {{PAGENAME}} {{ndash}} {{#if:x|y}}{{DEFAULTSORT:z}}", "a|b Title –"),
        ("{{as of|2020}} {{ill|a|fr|b|lt=c}} {{subst:nowrap|d}}", "As of 2020 c d"),
        ("{{{1|default}}} {{{2}}}a", "default a"),
        ("a -{zh-hans:甲; zh-hant:乙}- -{丙}- -{H|zh-cn:丁}-b", "a 甲 丙 b"),
        # what is not closed
        ("", ""),
        ("[[unclosed and {{open", "unclosed and open"),
        ("{{Infobox\n| a = b\n\ntext", "text"),
        ("a\n{|\n! b\n|-\n| c\n== D ==\ntext ! yes", "a\n\nD\n\ntext ! yes"),
        ("a <b>c </i> d < e", "a c d < e"),
    ],
)
def test_wikitext(wikitext: str, expected: str) -> None:
    assert read_wikitext(wikitext, "Title").text == expected


@pytest.mark.parametrize(
    ("files", "categories", "wikitext", "text", "found"),
    [
        (
            "fichier", "catégorie", "Le '''pain'''. [[Fichier:P.jpg|vignette|Un pain]][[Catégorie:Pain|*]]",
            "Le pain.", ["Pain"],
        ),
        ("файл", "категория", "'''Хлеб''' — еда. [[Файл:Х.jpg]]\n[[категория:Хлеб]]", "Хлеб — еда.", ["Хлеб"]),
        (
            "ファイル", "カテゴリ", "'''パン'''は[[小麦|麦]]で作る。[[ファイル:パン.jpg|パン]]\n[[Category:パン]]",
            "パンは麦で作る。", ["パン"],
        ),
        ("ملف", "تصنيف", "'''خبز''' [[طعام]].\n[[تصنيف:خبز]] [[ملف:خ.jpg]]", "خبز طعام.", ["خبز"]),
        (
            "bild", "kategori", "Bröd.\n[[Kategori:Bröd_och kakor]]\n[[Kategori:Bröd_och kakor]]",
            "Bröd.", ["Bröd och kakor"],
        ),
    ],
)  # fmt: skip
def test_wikis_of_other_languages(files: str, categories: str, wikitext: str, text: str, found: list[str]) -> None:
    names = Names(frozenset([files]), frozenset([categories]))
    page = read_wikitext(wikitext, names=names)
    assert (page.text, page.categories) == (text, found)
    assert read_answer(plain_text(write_request(wikitext, "A\tb", names))) == page


MARKUP = st.lists(
    st.sampled_from(
        [
            "{{", "}}", "{{{", "}}}", "[[", "]]", "[", "]", "|", "=", "==", "'''", "''", "''''", "*", "#", ":", ";",
            "\n", "\n\n", " ", "{|", "|}", "|-", "!", "<ref>", "</ref>", "<b>", "</b>", "<math>", "</math>", "<nowiki>",
            "</nowiki>", "<!--", "-->", "&amp;", "&#0;", "&#1;", "&lt;", "http://a.b/", "__TOC__", "-{", "}-", "a", "b",
            "\0", "\1", "\2", "\3", "File:", "Category:", "lang", "frac", "nihongo", "<li>", "<br>", "<sup>", "2",
            "</sup>", "<pre>", "</pre>", "(", ")", ",", ".",
        ]
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(pieces=MARKUP)
def test_any_wikitext_becomes_text_without_marks(pieces: list[str]) -> None:
    text = read_wikitext("".join(pieces), "Title").text
    assert not set(text) & {GONE, "\1", "\2", "\3"}
    assert text == text.strip("\n")


WORD = st.text("abcdefghijäöüжλ", min_size=1, max_size=8)
READ_AS = st.one_of(
    WORD.map(lambda word: (word, word)),
    WORD.map(lambda word: (f"'''{word}'''", word)),
    WORD.map(lambda word: (f"[[{word}]]", word)),
    st.tuples(WORD, WORD).map(lambda words: (f"[[{words[0]}|''{words[1]}'']]", words[1])),
    st.tuples(WORD, WORD).map(lambda words: (f"{words[0]}<ref name=x>{words[1]}</ref>", words[0])),
    st.tuples(WORD, WORD).map(lambda words: (f"{{{{lang|{words[0]}|{words[1]}}}}}", words[1])),
    st.tuples(WORD, WORD).map(lambda words: (f"[http://example.org/{words[0]} {words[1]}]", words[1])),
    WORD.map(lambda word: (f"{word}<!-- {word} -->", word)),
)


@settings(max_examples=200, deadline=None)
@given(paragraphs=st.lists(st.lists(READ_AS, min_size=1, max_size=12), min_size=1, max_size=5))
def test_text_is_what_its_markup_shows(paragraphs: list[list[tuple[str, str]]]) -> None:
    wikitext = "\n\n".join(" ".join(source for source, _ in pieces) for pieces in paragraphs)
    expected = "\n\n".join(" ".join(shown for _, shown in pieces) for pieces in paragraphs)
    assert read_wikitext(wikitext).text == expected
