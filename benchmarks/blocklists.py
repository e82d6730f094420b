"""How fast are lists of words? `Blocklist.columns` beside Aho-Corasick libraries, one thread each.

10,000 entries: every 40th different word of 4 letters or more of the documents, and made-up words, none in the text.
gristmill counts hits and the words they touch, folded, from an Arrow column; the libraries count occurrences in Python
strings in lower case (`str.lower`), anywhere, without a look at the words' edges.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.documents import amounts, load_texts, save_documents
from benchmarks.timing import Benchmark, Peer, Result, Work, main

ENTRIES = 10_000


def entries(folder: Path) -> list[str]:
    """A list that is found here and there."""
    words = sorted({word for text in load_texts(folder).to_pylist() for word in re.findall(r"[a-z]{4,}", text)})
    found = words[::40][: ENTRIES // 2]
    return found + [f"q{number:x}zx" for number in range(ENTRIES - len(found))]


def gristmill(folder: Path, kind: Literal["words", "text"]) -> Work:
    """The columns of a list."""
    import pyarrow as pa

    from data_quality.blocklists import Blocklist, parse_list
    from data_quality.judges_config import BlocklistConfig

    config = BlocklistConfig(name="list", kind=kind, path="list.txt")
    blocklist = Blocklist(config, parse_list("\n".join(entries(folder)).encode(), config))
    table = pa.table({"text": load_texts(folder)})
    blocklist.columns(table.slice(0, 10))

    def work() -> Result:
        columns = blocklist.columns(table)
        return Result(amounts(load_texts(folder)), lambda: sum(columns["list_hits"].to_pylist()))

    return work


def ahocorasick_rs(folder: Path) -> Work:
    """BurntSushi's automaton, called text by text."""
    import ahocorasick_rs as library

    automaton = library.AhoCorasick(entries(folder))
    texts = load_texts(folder)
    strings = texts.to_pylist()

    def work() -> Result:
        found = sum(len(automaton.find_matches_as_indexes(text.lower(), overlapping=True)) for text in strings)
        return Result(amounts(texts), lambda: found)

    return work


def pyahocorasick(folder: Path) -> Work:
    """A C automaton, called text by text."""
    import ahocorasick

    automaton: Any = ahocorasick.Automaton()
    for number, entry in enumerate(entries(folder)):
        automaton.add_word(entry, number)
    automaton.make_automaton()
    texts = load_texts(folder)
    strings = texts.to_pylist()

    def work() -> Result:
        found = sum(1 for text in strings for _ in automaton.iter(text.lower()))
        return Result(amounts(texts), lambda: found)

    return work


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """How many occurrences each found."""
    return {peer: f"{found:,} hits" for peer, found in outcomes.items()}


def peers() -> dict[str, Peer]:
    """Those that are installed."""
    found: dict[str, Peer] = {"gristmill, text": partial(gristmill, kind="text")}
    found["gristmill, words"] = partial(gristmill, kind="words")
    if importlib.util.find_spec("ahocorasick_rs"):
        found["ahocorasick_rs"] = ahocorasick_rs
    if importlib.util.find_spec("ahocorasick"):
        found["pyahocorasick"] = pyahocorasick
    return found


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, reading the texts, turning them into Python strings for the libraries, building the automaton.",
            save_documents,
            peers(),
            judge,
            documents=20_000,
            packages=("numba", "numpy", "pyarrow"),
        )
    )
