"""How fast are documents compared with evaluation sets? `data_quality.contamination` beside plain Python, one thread.

13-grams of words; the items are every 200th of the documents themselves, so that some are hit, or their beginnings of 5
to 30 words (short items). From an Arrow column to the table of overlaps; the plain peer lower-cases strings, finds
words by a regular expression, joins 13 of them and looks them up in a dictionary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.documents import amounts, load_texts, save_documents
from benchmarks.timing import Benchmark, Result, Work, main
from data_quality.quality_config import DecontaminateConfig

CONFIG = DecontaminateConfig(minimum_overlap=0.5)
EVERY = 200


def _split(folder: Path, short: bool) -> tuple[Any, list[str]]:
    """Documents, and items: whole documents, or their beginnings of 5 to 30 words."""
    import pyarrow as pa

    texts = load_texts(folder)
    items = texts.take(pa.array(range(0, len(texts), EVERY))).to_pylist()
    if short:
        items = [" ".join(text.split()[: 5 + number % 26]) for number, text in enumerate(items)]
    return texts, items


def gristmill(folder: Path, short: bool = False) -> Work:
    """From an Arrow column to an Arrow table."""
    import pyarrow as pa

    from data_quality.contamination import build_index, find_overlaps

    texts, items = _split(folder, short)
    names = [str(number) for number in range(len(items))]
    index = build_index(pa.table({"eval_set": ["held-out"] * len(items), "eval_item": names, "text": items}), CONFIG)
    ids = pa.array([number.to_bytes(16, "big") for number in range(len(texts))], pa.binary(16))
    find_overlaps(ids.slice(0, 10), texts.slice(0, 10), index, CONFIG)

    def work() -> Result:
        table = find_overlaps(ids, texts, index, CONFIG)
        pairs = zip(table.column("id").to_pylist(), table.column("eval_item").to_pylist(), strict=True)
        return Result(amounts(texts), lambda: [(int.from_bytes(id_, "big"), int(item)) for id_, item in pairs])

    return work


def plain(folder: Path, short: bool = False) -> Work:
    """From Python strings to pairs of document and item."""
    import re

    word = re.compile(r"\w+")
    texts, items = _split(folder, short)
    strings = texts.to_pylist()
    holders: dict[str, set[int]] = defaultdict(set)
    sizes = set()
    for number, item in enumerate(items):
        words = word.findall(item.lower())
        size = min(CONFIG.ngram, len(words))
        if size >= CONFIG.shortest_item:
            sizes.add(size)
            for i in range(len(words) - size + 1):
                holders[" ".join(words[i : i + size])].add(number)
    for gram in [gram for gram, numbers in holders.items() if len(numbers) > CONFIG.stock_phrase_items]:
        del holders[gram]
    grams: dict[int, int] = defaultdict(int)
    for numbers in holders.values():
        for number in numbers:
            grams[number] += 1

    def work() -> Result:
        pairs = []
        for document, text in enumerate(strings):
            words = word.findall(text.lower())
            hits: dict[int, set[str]] = defaultdict(set)
            for size in sizes:
                for i in range(len(words) - size + 1):
                    gram = " ".join(words[i : i + size])
                    for number in holders.get(gram, ()):
                        hits[number].add(gram)
            pairs += [
                (document, number)
                for number, found in hits.items()
                if len(found) >= CONFIG.minimum_overlap * grams[number]
            ]
        return Result(amounts(texts), lambda: pairs)

    return work


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """How many pairs of document and item with half of the item's n-grams were found by both."""
    notes = {}
    for kind in ("", ", short items"):
        mine, theirs = ({tuple(pair) for pair in outcomes[name + kind]} for name in ("gristmill", "plain"))
        notes["gristmill" + kind] = f"{len(mine):,} pairs, compared word by word, with the shared text"
        notes["plain" + kind] = f"{len(theirs):,} pairs, {len(mine & theirs):,} of them the same"
    return notes


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, indexing the items, reading the texts and turning them into Python strings, compiling.",
            save_documents,
            {
                "gristmill": gristmill,
                "plain": plain,
                "gristmill, short items": partial(gristmill, short=True),
                "plain, short items": partial(plain, short=True),
            },
            judge,
            packages=("numba", "numpy", "pyarrow"),
            repetitions=3,
        )
    )
