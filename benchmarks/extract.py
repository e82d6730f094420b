"""What does it cost to extract pages in a bounded process, and how good is what comes out?

The extractors as `corpus` runs them (bytes in; encoding, bounds, title) beside the libraries called in process, on the
same bytes (decoded by the same detection) or on text that is decoded already. Two public sets of real pages: whole
articles (scrapinghub's article-extraction-benchmark) and strings that must and must not come out (trafilatura's
evaluation set).
"""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from benchmarks.documents import REPOSITORY
from benchmarks.timing import Benchmark, Peer, Result, Work, main

DATA = REPOSITORY.parent / "shared" / "data" / "html"
_SHINGLE = 4
_TOKEN = re.compile(r"\w+")


class Score(NamedTuple):
    """F1, precision and recall."""

    f1: float
    precision: float
    recall: float


def load_articles(data: Path = DATA) -> tuple[dict[str, bytes], dict[str, str]]:
    """Pages of article_extraction_101, and the text of the article on each."""
    files = _unpack(data / "article_extraction_101.tar.gz")
    truth = {name: found["articleBody"] for name, found in json.loads(files["ground-truth.json"]).items()}
    return {name: files[f"html/{name}.html"] for name in truth}, truth


def load_strings(data: Path = DATA) -> tuple[dict[str, bytes], dict[str, dict[str, list[str]]]]:
    """Pages of trafilatura_eval_131, and the strings `with` and `without` for each."""
    files = _unpack(data / "trafilatura_eval_131.tar.gz")
    truth = json.loads(files["evaldata.json"])
    return {url: files[f"html/{found['file']}"] for url, found in truth.items()}, truth


def _unpack(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as members:  # in their order: going back would inflate all before again
        return {member.name: found.read() for member in members if (found := members.extractfile(member)) is not None}


def score_articles(texts: Mapping[str, str], truth: Mapping[str, str]) -> Score:
    """As article-extraction-benchmark scores.

    Multisets of shingles of 4 words; true and false positives and false negatives as shares of a page, summed over
    the pages.
    """
    totals = [0.0, 0.0, 0.0]
    for name, article in truth.items():
        expected, found = _shingles(article), _shingles(texts[name])
        counts = [sum(some.values()) for some in (expected & found, found - expected, expected - found)]
        for position, count in enumerate(counts):
            totals[position] += count / max(1, sum(counts))
    return _score(*totals)


def _shingles(text: str) -> Counter[tuple[str, ...]]:
    words = _TOKEN.findall(text)
    return Counter(tuple(words[at : at + _SHINGLE]) for at in range(max(min(len(words), 1), len(words) - _SHINGLE + 1)))


def score_strings(texts: Mapping[str, str], truth: Mapping[str, Mapping[str, list[str]]]) -> Score:
    """As trafilatura's evaluation scores: strings that must come out and do, and those that must not and do."""
    hits = Counter[bool]()
    expected = 0
    for name, found in truth.items():
        for wanted, strings in ((True, found["with"]), (False, found["without"])):
            hits[wanted] += sum(string in texts[name] for string in strings)
        expected += len(found["with"])
    return _score(hits[True], hits[False], expected - hits[True])


def _score(true_positives: float, false_positives: float, false_negatives: float) -> Score:
    precision = true_positives / (true_positives + false_positives)
    recall = true_positives / (true_positives + false_negatives)
    return Score(2 * precision * recall / (precision + recall), precision, recall)


def prepare(documents: pa.Table, folder: Path) -> None:
    """Nothing: the pages are read where they lie."""


def peer(folder: Path, make: Callable[[], tuple[Callable[[Any], str], Callable[[bytes], Any]]]) -> Work:
    """Extracts every page; what a page has to be turned into first is not on the clock, nor one page to warm up."""
    extract, turn = make()
    (articles, whole), (mixed, strings) = load_articles(), load_strings()
    pages = {name: turn(page) for name, page in [*articles.items(), *mixed.items()]}
    extract(next(iter(pages.values())))

    def work() -> Result:
        texts = {name: extract(page) for name, page in pages.items()}
        size = sum(map(len, articles.values())) + sum(map(len, mixed.values()))
        amounts = {"pages": len(pages), "MB": size / 1e6}
        return Result(amounts, lambda: [score_articles(texts, whole), score_strings(texts, strings)])

    return work


def gristmill(extractor: Any) -> tuple[Callable[[bytes], str], Callable[[bytes], bytes]]:
    """`PageReader`, as formats use it."""
    from corpus.config import SourceConfig
    from corpus.extraction.pages import Page, PageReader

    reader = PageReader(SourceConfig(name="web", kind="html", path=".", extractor=extractor))

    def extract(page: bytes) -> str:
        found = reader.read(page)
        return found.text if isinstance(found, Page) else ""

    return extract, lambda page: page


def trafilatura_bare(**options: Any) -> tuple[Callable[[str], str], Callable[[bytes], str]]:
    """`trafilatura.extract` in this process."""
    import trafilatura

    return lambda page: trafilatura.extract(page, **options) or "", _decode


def decoding(make: Callable[[], tuple[Callable[[str], str], Any]]) -> tuple[Callable[[bytes], str], Any]:
    """The same from bytes, with decoding on the clock."""
    extract, _ = make()
    return lambda page: extract(_decode(page)), lambda page: page


def resiliparse_bare(**options: Any) -> tuple[Callable[[str], str], Callable[[bytes], str]]:
    """`extract_plain_text` of resiliparse in this process."""
    from resiliparse.extract.html2text import extract_plain_text

    return lambda page: extract_plain_text(page, main_content=True, **options), _decode


def _decode(page: bytes) -> str:
    from corpus.extraction.encodings import decode_text

    return decode_text(page, html=True)[0]


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """Scores on both sets."""
    return {
        name: "; ".join(
            f"{kind} F1 {score[0]:.3f} (P {score[1]:.3f}, R {score[2]:.3f})"
            for kind, score in zip(("articles", "strings"), scores, strict=True)
        )
        for name, scores in outcomes.items()
    }


_AS_QUALITY = partial(trafilatura_bare, fast=True, include_comments=False)
_AS_PRECISE = partial(trafilatura_bare, favor_precision=True, include_comments=False)
_AS_FAST = partial(resiliparse_bare, alt_texts=False, comments=False, post_meta=False)
_MAKERS: Mapping[str, Callable[[], Any]] = {
    "gristmill quality": partial(gristmill, "quality"),
    "trafilatura, fast, no comments, bytes": partial(decoding, _AS_QUALITY),
    "trafilatura, fast, no comments": _AS_QUALITY,
    "trafilatura, fast": partial(trafilatura_bare, fast=True),
    "gristmill precise": partial(gristmill, "precise"),
    "trafilatura, precision, no comments, bytes": partial(decoding, _AS_PRECISE),
    "trafilatura, precision, no comments": _AS_PRECISE,
    "trafilatura, default": trafilatura_bare,
    "gristmill fast": partial(gristmill, "fast"),
    "resiliparse, as gristmill, bytes": partial(decoding, _AS_FAST),
    "resiliparse, as gristmill": _AS_FAST,
    "resiliparse, default": resiliparse_bare,
}
PEERS: Mapping[str, Peer] = {name: partial(peer, make=make) for name, make in _MAKERS.items()}

if __name__ == "__main__":
    main(
        Benchmark(
            "imports, starting the process, reading the archives, one page; for the bare libraries, decoding.",
            prepare,
            PEERS,
            judge,
            documents=1,
            packages=("trafilatura", "resiliparse", "lxml"),
        )
    )
