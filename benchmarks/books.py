"""How much of a book's text comes out of its PDF and EPUB files, and how fast?

The environment variable BOOKS names a folder of NAME.pdf and NAME.epub with their text in NAME.txt. Manuals of Debian
have all three, in several languages (packages debian-policy, developers-reference and its translations, debmake-doc,
maint-guide, debian-faq).
"""

from __future__ import annotations

import os
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.timing import Benchmark, Result, Work, main

_DECORATION = re.compile(r"[-=~*_.+|^\"`]{3,}")
# A word, or a character of Chinese or Japanese.
_WORD = re.compile(r"[^\W_\u2e80-\u9fff\uf900-\uffef]+|[\u2e80-\u9fff\uf900-\uffef]")
_SHINGLE = 5


def prepare(documents: pa.Table, folder: Path) -> None:
    """Nothing: the books are read where they lie."""


def peer(folder: Path, ending: str, make: Callable[[], Callable[[bytes], str]]) -> Work:
    """Reads every book; one before the clock starts."""
    read = make()
    place = Path(os.environ["BOOKS"])
    files = [file for file in sorted(place.glob(f"*.{ending}")) if file.with_suffix(".txt").exists()]
    books = {file.stem: file.read_bytes() for file in files}
    truth = {name: words((place / f"{name}.txt").read_text("utf-8", "replace")) for name in books}
    read(next(iter(books.values())))

    def work() -> Result:
        texts = {name: read(data) for name, data in books.items()}
        characters = sum(map(len, texts.values())) / 1e6
        return Result({"M characters": characters}, lambda: {name: compare(texts[name], truth[name]) for name in texts})

    return work


def words(text: str) -> list[str]:
    """Words in their order, without rules and leaders."""
    return _WORD.findall(_DECORATION.sub(" ", text))


def compare(text: str, truth: list[str]) -> list[float]:
    """Precision and recall of words, and of runs of five words, which tell whether they come in their order."""
    found, scores = words(text), []
    for size in (1, _SHINGLE):
        some, all_ = (Counter(zip(*(part[at:] for at in range(size)), strict=False)) for part in (found, truth))
        common = sum((some & all_).values())
        scores += [common / max(1, sum(some.values())), common / max(1, sum(all_.values()))]
    return scores


def gristmill(kind: Any) -> Callable[[bytes], str]:
    """`PageReader`, as formats use it."""
    from corpus.config import SourceConfig
    from corpus.extraction.books import parse_book
    from corpus.extraction.pages import Page, PageReader

    reader = PageReader(SourceConfig(name="books", kind=kind, path="."))

    def read(data: bytes) -> str:
        found = reader.read(data)
        return parse_book(found.text).text if isinstance(found, Page) else ""

    return read


def mupdf() -> Callable[[bytes], str]:
    """`get_text` of every page."""
    import pymupdf

    return lambda data: "\n".join(page.get_text() for page in pymupdf.open(stream=data, filetype="pdf"))


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """Medians over the books."""
    names = ("words: precision", "recall", "runs of five words: precision", "recall")
    return {
        name: ", ".join(
            f"{what} {statistics.median(column):.3f}"
            for what, column in zip(names, zip(*scores.values(), strict=True), strict=True)
        )
        + f" (medians of {len(scores)} books)"
        for name, scores in outcomes.items()
    }


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, starting the process, reading the files, one book.",
            prepare,
            {
                "gristmill pdf": partial(peer, ending="pdf", make=partial(gristmill, "pdf")),
                "pymupdf": partial(peer, ending="pdf", make=mupdf),
                "gristmill epub": partial(peer, ending="epub", make=partial(gristmill, "epub")),
            },
            judge,
            documents=1,
            repetitions=3,
            packages=("pypdfium2", "pymupdf"),
        )
    )
