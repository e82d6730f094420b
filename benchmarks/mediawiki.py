"""How fast does a MediaWiki dump become text? `corpus` beside iterparse and mwparserfromhell's own `strip_code`.

Documents as articles with templates, links, footnotes, lists, a table and categories, in one file that is not
compressed (bzip2 alone takes longer than all of cutting and parsing XML). The tree's `strip_code` leaves captions and
categories in the text, and nothing bounds what a page may take.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pyarrow as pa

from benchmarks.timing import Benchmark, Result, Work, main
from corpus.config import SourceConfig

_HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">
<siteinfo><base>https://wiki.example/wiki/Main_Page</base></siteinfo>
"""
_PAGE = """<page><title>Article {number}</title><ns>0</ns><id>{number}</id><revision><id>{number}</id>
<timestamp>2024-01-02T03:04:05Z</timestamp><contributor><username>A</username><id>1</id></contributor>
<model>wikitext</model><format>text/x-wiki</format><text bytes="1" xml:space="preserve">{text}</text>
<sha1>x</sha1></revision></page>
"""

_NOT_IN_XML = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

Read = Callable[[Path], Iterator[int]]


def prepare(documents: pa.Table, folder: Path) -> None:
    """The dump, and a small one to warm up with."""
    for name, some in (("all", documents), ("warm", documents.slice(0, 50))):
        (folder / name).mkdir()
        with (folder / name / "dump.xml").open("w", encoding="utf-8") as file:
            file.write(_HEAD)
            for number, text in enumerate(some.column("text").to_pylist()):
                file.write(_PAGE.format(number=number, text=escape(_article(text))))
            file.write("</mediawiki>\n")


def _article(text: str) -> str:
    """Wikitext of about the mixture of markup that encyclopedias have: a half of it is no text."""
    lines = [
        "{{Infobox thing\n| name = Thing\n| image = Thing.jpg\n| area = {{convert|5|km2}}\n}}",
        "[[File:Thing.jpg|thumb|A [[thing]] in its ''place''.]]",
    ]
    words = itertools.count()
    for number, line in enumerate(text.split("\n")):
        marked = [
            _mark(word, next(words) % 23) if word.isalnum() and word.isascii() else word for word in line.split(" ")
        ]
        lines.append(" ".join(marked))
        if number % 12 == 11:
            lines.append(f"== Section {number} ==\n* ''first''\n* [[second]]\n")
    lines += ["{| class=wikitable\n! a !! b\n|-\n| 1 || 2\n|}", "== References ==\n{{reflist}}", "[[Category:Things]]"]
    return _NOT_IN_XML.sub("", "\n".join(lines))


def _mark(word: str, kind: int) -> str:
    cite = "{{cite web|url=https://a.example/b|title=A title|date=2020|access-date=2021-02-03|publisher=Somebody}}"
    marked = {
        0: f"[[{word}]]", 5: f"[[{word} (thing)|{word}]]", 9: f"''{word}''", 13: f"{word}<ref>{cite}</ref>",
        17: f"{{{{lang|la|{word}}}}}", 21: f"{word}&nbsp;{{{{convert|12|km|mi}}}}",
    }  # fmt: skip
    return marked.get(kind, word)


def gristmill(folder: Path, namespace: int) -> Iterator[int]:
    """Characters of every document; with a namespace that nothing is in, pages are cut, parsed and skipped."""
    from corpus.sources import Record, open_source

    source = open_source(SourceConfig(name="wiki", kind="mediawiki", path=str(folder), namespaces=(namespace,)))
    for file in source.inventory():
        for found in source.records(file):
            yield len(found.text) if isinstance(found, Record) else 0


def cut(folder: Path) -> Iterator[int]:
    """Pages as bytes."""
    from corpus.formats.mediawiki_pages import cut_pages
    from corpus.sources.streams import Content

    with (folder / "dump.xml").open("rb") as file:
        for piece in cut_pages(Content(file), 1 << 24):
            if piece.kind == "page":
                yield 0


def tree(folder: Path, strip: bool) -> Iterator[int]:
    """What one writes in ten lines."""
    from xml.etree import ElementTree

    import mwparserfromhell

    for _, element in ElementTree.iterparse(folder / "dump.xml"):
        if element.tag.endswith("}text"):
            yield len(mwparserfromhell.parse(element.text or "").strip_code()) if strip else 0
        elif element.tag.endswith("}page"):
            element.clear()


def peer(folder: Path, read: Read) -> Work:
    """Reads the small dump, then, on the clock, the large one."""
    for _ in read(folder / "warm"):
        pass

    def work() -> Result:
        pages = characters = 0
        for found in read(folder / "all"):
            pages += 1
            characters += found
        megabytes = (folder / "all" / "dump.xml").stat().st_size / 1e6
        return Result({"pages": pages, "MB": megabytes}, lambda: [pages, characters])

    return work


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """How much came out."""
    return {name: f"{pages:,} pages, {size / 1e6:.2f} M characters" for name, (pages, size) in outcomes.items()}


if __name__ == "__main__":
    main(
        Benchmark(
            "a first small dump (imports, starting the process that extracts).",
            prepare,
            {
                "gristmill": partial(peer, read=partial(gristmill, namespace=0)),
                "gristmill, all skipped": partial(peer, read=partial(gristmill, namespace=99)),
                "gristmill, cut alone": partial(peer, read=cut),
                "iterparse alone": partial(peer, read=partial(tree, strip=False)),
                "iterparse, strip_code": partial(peer, read=partial(tree, strip=True)),
            },
            judge,
            documents=3000,
            repetitions=3,
            packages=("mwparserfromhell",),
        )
    )
