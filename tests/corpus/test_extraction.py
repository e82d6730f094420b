"""Extraction of pages: as good as measured, a function of the page alone, and no page stops a run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.extract import load_articles, load_strings, score_articles, score_strings
from corpus.config import MEBIBYTE, SourceConfig
from corpus.extraction.pages import Page, PageProblem, PageReader

EXTRACTORS = ("quality", "precise", "fast")
ARTICLE = """<!DOCTYPE html><html><head><title>
 A guide &amp; more</title></head><body><nav><a href="/">Home</a> <a href="/x">About us</a></nav>
<article><h1>How to bake bread</h1>
<p>Bread is made of flour, water, salt and <b>yeast</b>, and it takes <a href="/t">time</a> to rise, as every baker
will tell you again and again.<br>Second line after a break.</p>
<h2>What it takes</h2><p>There is a list of what has to be in the house before anything is begun:</p>
<ul><li>500 g of flour, which may be white or not</li><li>300 ml of water, which has to be warm</li></ul>
<table><tr><th>Step</th><th>Minutes</th></tr><tr><td>Kneading</td><td>10</td></tr></table>
<p>The programme below does the sums, and prints them so that you can follow the whole thing in the kitchen.</p>
<pre><code>def bread(flour):
    return flour * 0.6 &lt; 3
</code></pre><p>Some more words at the end of this text, so that it is long enough for everybody.</p></article>
<footer>Copyright 2024 by nobody</footer></body></html>"""
SMALL = f"<html><body><article><p>{'Hello world, this is a small page. ' * 20}</p></article></body></html>".encode()


Make = Callable[..., PageReader]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes page readers, and closes them."""
    made: list[PageReader] = []

    def open_reader(**settings: Any) -> PageReader:
        made.append(PageReader(SourceConfig(name="web", kind="html", path=".", **settings)))
        return made[-1]

    yield open_reader
    for reader in made:
        reader.close()


def text_of(found: Page | PageProblem) -> str:
    return found.text if isinstance(found, Page) else ""


def error_of(found: Page | PageProblem) -> str:
    return found.error if isinstance(found, PageProblem) else ""


def children() -> list[psutil.Process]:
    """The processes of extraction that live."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            found += [child] if "corpus.extraction.worker" in child.cmdline() else []
    return found


@pytest.mark.parametrize(("extractor", "floor"), [("quality", 0.95), ("precise", 0.95), ("fast", 0.91)])
def test_articles_of_real_pages_come_out_whole_and_alone(
    shared_data: Path, make: Make, extractor: str, floor: float
) -> None:
    pages, truth = load_articles(shared_data / "html")
    assert len(pages) == 101
    reader = make(extractor=extractor)
    some = list(pages)[::3]
    texts = {name: text_of(reader.read(pages[name])) for name in some}
    score = score_articles(texts, {name: truth[name] for name in some})
    assert score.f1 >= floor
    assert len(children()) == 1  # real pages do not make the process grow, so it is never replaced


@pytest.mark.parametrize(("extractor", "floor"), [("quality", 0.88), ("fast", 0.80)])
def test_pages_in_many_languages_and_encodings_give_what_must_come_out(
    shared_data: Path, make: Make, extractor: str, floor: float
) -> None:
    pages, truth = load_strings(shared_data / "html")
    assert len(pages) == 131
    reader = make(extractor=extractor)
    some = list(pages)[::2]
    texts = {name: text_of(reader.read(pages[name])) for name in some}
    score = score_strings(texts, {name: truth[name] for name in some})
    assert score.f1 >= floor


@pytest.mark.parametrize("extractor", ["quality", "fast"])
def test_a_text_is_a_function_of_its_page_alone(shared_data: Path, make: Make, extractor: str) -> None:
    pages = [*load_strings(shared_data / "html")[0].values()][::40]
    reader = make(extractor=extractor)
    first = [reader.read(page) for page in pages]
    assert [reader.read(page) for page in reversed(pages)] == first[::-1]
    repeated = [reader.read(pages[0]) for _ in range(5)]  # a deduplicating extractor would lose it now
    assert repeated == [first[0]] * 5
    for number in (0, len(pages) - 1):
        assert make(extractor=extractor).read(pages[number]) == first[number]


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_what_kind_of_text_comes_out(make: Make, extractor: str) -> None:
    page = make(extractor=extractor).read(ARTICLE.encode())
    assert isinstance(page, Page)
    assert page.title == "A guide & more"
    assert page.encoding == "utf-8"
    lines = page.text.splitlines()
    assert "How to bake bread" in lines
    assert "Second line after a break." in lines
    assert "Some more words at the end of this text, so that it is long enough for everybody." in lines
    assert "    return flour * 0.6 < 3" in lines
    assert any("Kneading" in line and "10" in line for line in lines)
    if extractor != "fast":  # which takes most lists for navigation
        assert "- 300 ml of water, which has to be warm" in lines
    for boilerplate in ("About us", "Copyright", "**", "# ", "](", "&amp;", "<"):
        assert boilerplate not in page.text.replace("0.6 < 3", "")


def test_encodings_are_told_detected_or_named(make: Make) -> None:
    russian = ARTICLE.replace("Bread is made", "Хлеб пекут из муки, воды, соли и дрожжей. Bread is made")
    reader = make(extractor="fast")
    found = reader.read(russian.encode("koi8-r"), content_type="text/html; charset=KOI8-R")
    assert isinstance(found, Page)
    assert found.encoding == "koi8-r"
    assert "Хлеб пекут" in found.text
    assert error_of(reader.read(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 100)) == "bad-encoding"
    named = make(extractor="fast", encoding="cp1251")
    assert "Хлеб пекут" in text_of(named.read(russian.encode("cp1251"), content_type="text/html; charset=utf-8"))
    problem = named.read(b"<p>\x98</p>", url="http://a/b")
    assert isinstance(problem, PageProblem)
    assert problem.error == "bad-encoding"
    assert problem.message.startswith("http://a/b: 'charmap' codec can't decode byte 0x98 in position 3")
    with pytest.raises(ValueError, match="no encoding 'utf-9'"):
        make(encoding="utf-9")


# --- pages that are not nice -----------------------------------------------------------------------------------------

NESTED = b"<html><body>" + b"<div>" * 100_000 + b"some words here " * 50 + b"</div>" * 100_000
ATTRIBUTES = b"<html><body><p " + b" ".join(b"a%d=1" % n for n in range(1_000_000)) + b">words</p></body></html>"
ENTITIES = (
    b'<?xml version="1.0"?><!DOCTYPE html [<!ENTITY e0 "lol">'
    + b"".join(b'<!ENTITY e%d "%s">' % (n, b"&e%d;" % (n - 1) * 10) for n in range(1, 10))
    + b']><html xmlns="http://www.w3.org/1999/xhtml"><body><p>&e9;</p></body></html>'
)
NASTY = {
    "a tag of 5 MB": b"<html><body><p " + b"a" * 5_000_000 + b">words</p></body></html>",
    "100,000 nested elements": NESTED,
    "a million attributes": ATTRIBUTES,
    "a billion laughs": ENTITIES,
    "2 million open comments": b"<html><body>" + b"<!-- x " * 2_000_000,
    "15 MB without a space": b"<html><body><p>" + b"x" * 15_000_000,
    "15 MB of paragraphs": b"<html><body><article>" + b"<p>Words of a <b>paragraph</b>, again.</p>\n" * 350_000,
    "20,000 nested tables": b"<html><body>" + b"<table><tr><td>" * 20_000 + b"words " * 100,
    "nothing": b"",
    "only NULs": bytes(100_000),
}


@pytest.mark.parametrize("extractor", ["quality", "fast"])
def test_no_page_takes_much_more_than_its_seconds_or_stops_those_after_it(make: Make, extractor: str) -> None:
    reader = make(extractor=extractor, page_seconds=0.4, page_memory_bytes=512 * MEBIBYTE)
    before = reader.read(SMALL)
    assert isinstance(before, Page)
    found = {}
    for name, page in NASTY.items():
        used = os.times()
        found[name] = reader.read(page)
        spent = os.times()
        # Of every process that has ended: at most twice the bound and what starting one takes.
        assert spent.children_user + spent.children_system - used.children_user - used.children_system < 10, name
        assert reader.read(SMALL) == before, name
    assert error_of(found["a million attributes"]) == "extraction-timeout"
    assert "0.4 CPU seconds" in getattr(found["a million attributes"], "message", "")
    assert error_of(found["nothing"]) == error_of(found["2 million open comments"]) == "no-main-content"
    assert "lol" * 100 not in text_of(found["a billion laughs"])


def test_what_the_parser_gives_up_on_is_an_error_not_half_a_text(make: Make) -> None:
    """libxml2 ends at 256 levels (here: 2,048) without an error that anybody sees."""
    some = b"<html><body><article>" + b"<p>" + b"The beginning, which is found. " * 20 + b"</p>"
    reader = make()

    def nested(depth: int) -> Page | PageProblem:
        inside = b"<p>" + b"What is deep inside. " * 20 + b"</p>"
        return reader.read(some + b"<div>" * depth + inside + b"</div>" * depth)

    assert "What is deep inside." in text_of(nested(300))
    assert "What is deep inside." in text_of(nested(1500))
    problem = nested(3000)
    assert isinstance(problem, PageProblem)
    assert problem.error == "extraction-crashed"
    assert "Excessive depth" in problem.message


def test_nul_bytes_are_passed_over(make: Make) -> None:
    reader = make()
    damaged = ARTICLE.replace("flour", "fl\0our").replace("<p>", "<p\0>").encode()
    assert reader.read(damaged) == reader.read(ARTICLE.encode())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds address space")
@pytest.mark.parametrize("extractor", ["quality", "fast"])
def test_short_memory_gives_the_whole_text_or_an_error_and_never_less(make: Make, extractor: str) -> None:
    line = "<p>Line {} stands on a page of some length, and has words enough to be kept.</p>"
    pages = [
        "".join(map(line.format, range(150))) + "<i></i>" * size + "".join(map(line.format, range(150)))
        for size in (50_000, 700_000)
    ]
    much, little = (make(extractor=extractor, page_memory_bytes=size * MEBIBYTE) for size in (8192, 64))
    seen = set()
    for page in pages:
        data = f"<html><body><article>{page}</article></body></html>".encode()
        found = little.read(data)
        if isinstance(found, PageProblem):
            assert found.error == "extraction-memory"
            assert "67108864 bytes" in found.message
        else:
            assert found == much.read(data)
        # The order of pages changes nothing: this one was read after others that filled the process.
        assert make(extractor=extractor, page_memory_bytes=64 * MEBIBYTE).read(data) == found
        seen.add(type(found))
    assert seen == {Page, PageProblem}


# --- the process -----------------------------------------------------------------------------------------------------


def test_a_process_that_was_killed_between_pages_or_on_one_is_replaced(make: Make, shared_data: Path) -> None:
    page = max(load_articles(shared_data / "html")[0].values(), key=len)
    reader = make()
    expected = reader.read(page)
    assert isinstance(expected, Page)
    [child] = children()
    child.kill()
    assert reader.read(page) == expected
    [child] = children()
    busy = child.cpu_times().user

    def kill_when_busy() -> None:
        while child.cpu_times().user - busy < 0.05:
            time.sleep(0.005)
        child.kill()

    thread = threading.Thread(target=kill_when_busy)
    thread.start()
    results = [reader.read(page) for _ in range(3)]
    thread.join()
    assert results == [expected] * 3
    assert child.pid not in [other.pid for other in children()]


def test_a_page_that_every_process_dies_on_is_named_and_the_next_is_read(make: Make) -> None:
    reader = make(extractor="fast")
    assert isinstance(reader.read(SMALL), Page)
    done = threading.Event()
    killer = threading.Thread(target=_kill_when_busy, args=(done,))
    killer.start()
    try:
        found = reader.read(NESTED, url="http://a/b")
    finally:
        done.set()
        killer.join()
    assert isinstance(found, PageProblem)
    assert found.error == "extraction-crashed"
    assert found.message == "http://a/b: the extraction process ended by SIGSEGV on this page"
    assert isinstance(reader.read(SMALL), Page)


def _kill_when_busy(done: threading.Event) -> None:
    """End every process that has used more than it takes to start one."""
    while not done.is_set():
        for child in children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.cpu_times().user > 1:
                    child.send_signal(signal.SIGSEGV)
        time.sleep(0.02)


def test_time_is_cpu_time_so_a_process_that_waits_loses_nothing(make: Make) -> None:
    reader = make(page_seconds=0.5)
    expected = reader.read(SMALL)
    [child] = children()
    child.suspend()
    timer = threading.Timer(1.5, child.resume)
    timer.start()
    began = time.monotonic()
    assert reader.read(SMALL) == expected
    assert time.monotonic() - began > 1
    assert children() == [child]


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "sys.exit()", "reader.close()\ntime.sleep(600)"])
def test_no_process_stays_behind(end: str) -> None:
    script = f"""
import os, sys, time
from corpus.config import SourceConfig
from corpus.extraction.pages import PageReader
reader = PageReader(SourceConfig(name="web", kind="html", path=".", extractor="fast"))
reader.read(b"<p>words</p>")
print(reader._process._popen.pid, flush=True)
{end}
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        deadline = time.monotonic() + 20
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the process of extraction is still there"
            time.sleep(0.02)
    finally:
        parent.kill()
        parent.communicate()


def test_a_process_that_cannot_be_started_is_an_error_of_the_run_not_of_a_page(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="cannot be started"):
        make().read(SMALL)


def test_damaged_pages_give_a_text_or_a_named_problem(make: Make, shared_data: Path) -> None:
    chance = random.Random(7)
    pages = [*load_strings(shared_data / "html")[0].values()]
    reader = make(extractor="fast")
    for _ in range(40):
        page = bytearray(chance.choice(pages))
        for _ in range(chance.randrange(1, 30)):
            at = chance.randrange(len(page))
            match chance.randrange(4):
                case 0:
                    page[at] ^= 1 << chance.randrange(8)
                case 1:
                    del page[at : at + chance.randrange(500)]
                case 2:
                    page[at:at] = chance.randbytes(chance.randrange(50))
                case _:
                    page[at:at] = chance.choice([b"<", b"<!--", b"</", b"<script>", b"&#x110000;", b"<svg>", b"\0"])
            page = page or bytearray(b"x")
        found = reader.read(bytes(page))
        assert error_of(found) in ("", "no-main-content", "bad-encoding")
        assert reader.read(bytes(page)) == found
