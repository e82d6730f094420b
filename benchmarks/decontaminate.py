"""How fast are documents compared with evaluation sets? `data_quality.contamination` beside plain Python and datatrove.

One thread each; 13-grams of words; the items are every 200th of the documents themselves, so that some are hit, or
their beginnings of 5 to 30 words (short items). From an Arrow column to the table of overlaps; "from a part" reads
Parquet and writes that table. The plain peer lower-cases strings, finds words by a regular expression, joins 13 of them
and looks them up in a dictionary. datatrove's `NGramsDecontFilter` reads Parquet and drops a document at its first
13-gram of an item, by hash; "our words" replaces spaCy's words on that side by the definition of this side.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.datatrove import peers, version
from benchmarks.documents import amounts, load_texts, numbered, save_documents
from benchmarks.timing import Benchmark, Result, Work, main
from data_quality.quality_config import DecontaminateConfig

CONFIG = DecontaminateConfig(minimum_overlap=0.5)
EVERY = 200


def prepare(documents: Any, folder: Path) -> None:
    """Documents, and items: whole documents, or their beginnings of 5 to 30 words."""
    save_documents(numbered(documents), folder)
    items = documents.column("text")[::EVERY].to_pylist()
    short = [" ".join(text.split()[: 5 + number % 26]) for number, text in enumerate(items)]
    for name, some in (("items", items), ("short", short)):
        (folder / f"{name}.json").write_text(json.dumps(some), encoding="utf-8")


def _split(folder: Path, short: bool) -> tuple[Any, list[str]]:
    name = "short" if short else "items"
    return load_texts(folder), json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


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


def from_part(folder: Path) -> Work:
    """From a Parquet file to a Parquet file, as the stage does with a part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from data_quality.contamination import build_index, find_overlaps
    from storage.arrow_files import write_parquet
    from storage.schemas import OVERLAPS

    texts, items = _split(folder, short=False)
    names = [str(number) for number in range(len(items))]
    index = build_index(pa.table({"eval_set": ["held-out"] * len(items), "eval_item": names, "text": items}), CONFIG)
    total = amounts(texts)

    def compare(rows: int | None) -> Any:
        part = pq.read_table(folder / "documents.parquet", columns=["id", "text"])[:rows].combine_chunks()
        ids, texts = (part.column(name).combine_chunks() for name in ("id", "text"))
        table = find_overlaps(ids, texts, index, CONFIG)
        write_parquet(folder / "overlaps.parquet", table, OVERLAPS)
        return table

    compare(10)

    def work() -> Result:
        table = compare(None)
        return Result(total, lambda: table.num_rows)

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
    notes = {"gristmill, from a part": f"{outcomes['gristmill, from a part']:,} pairs"}
    for kind in ("", ", short items"):
        mine, theirs = ({tuple(pair) for pair in outcomes[name + kind]} for name in ("gristmill", "plain"))
        notes["gristmill" + kind] = f"{len(mine):,} pairs, compared word by word, with the shared text"
        notes["plain" + kind] = f"{len(theirs):,} pairs, {len(mine & theirs):,} of them the same"
    ours = {document for document, _ in outcomes["gristmill"]}
    for name in outcomes.keys() - notes.keys():
        hit = set(outcomes[name])
        notes[name] = f"{version()}; {len(hit):,} documents with a 13-gram; of our {len(ours):,} {len(ours & hit):,}"
    return notes


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, indexing the items, compiling, loading spaCy; for those without files, reading the texts and "
            "turning them into Python strings.",
            prepare,
            {
                "gristmill": gristmill,
                "gristmill, from a part": from_part,
                "plain": plain,
                "gristmill, short items": partial(gristmill, short=True),
                "plain, short items": partial(plain, short=True),
                **peers(
                    "contamination",
                    {
                        "datatrove": {"words": "own", "items": "items.json"},
                        "datatrove, our words": {"words": "given", "items": "items.json"},
                    },
                ),
            },
            judge,
            packages=("numba", "numpy", "pyarrow"),
            repetitions=3,
        )
    )
