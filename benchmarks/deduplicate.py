"""How fast and how right is deduplication? `sketch` and `deduplicate` beside datasketch's MinHashLSH.

Jaccard similarity .8 of word 5-grams, 108 permutations, from texts to who is dropped. Judged by all similar pairs of
different n-gram sets, found exactly; copies (documents of one n-gram set) are counted apart.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.documents import amounts, load_texts, save_documents
from benchmarks.plain import similar_pairs, word_ngrams
from benchmarks.timing import Benchmark, Result, Work, main
from data_quality.duplicates_config import DeduplicateConfig, SketchConfig

SKETCH = SketchConfig()
CONFIG = DeduplicateConfig().banded(SKETCH.permutations)


def gristmill(folder: Path) -> Work:
    """Signatures, bands, and every removal verified on the text; `texts` stay in memory."""
    import polars as pl
    import pyarrow.parquet as pq

    from data_quality.duplicates import deduplicate
    from data_quality.sketch import sketch

    documents = pq.read_table(folder / "documents.parquet").combine_chunks()
    texts = documents.column("text").combine_chunks()

    def run(number: int) -> pl.DataFrame:
        some = texts.slice(0, number)
        signatures = sketch(some, SKETCH)
        frame = pl.DataFrame(documents.slice(0, number).select(["id", "source", "uri", "record", "date"])).with_columns(
            pl.Series("signature", signatures.column("signature")),
            pl.Series("shingles", signatures.column("shingles")),
            bytes=pl.Series(pl.Series(some).str.len_bytes()),
            part=pl.lit(0, pl.Int32),
            row=pl.int_range(number, dtype=pl.Int64),
        )
        return deduplicate(frame, lambda part, rows: texts.take(rows), CONFIG, SKETCH)[0]

    run(200)

    def work() -> Result:
        dropped = run(len(texts))["dropped"]
        return Result(amounts(texts), lambda: dropped.arg_true().to_list())

    return work


def datasketch(folder: Path, **bands: Any) -> Work:
    """One document after another: query, accept every match, insert what has none."""
    from datasketch import MinHash, MinHashLSH

    texts = load_texts(folder)
    strings = texts.to_pylist()
    index = MinHashLSH(num_perm=SKETCH.permutations, **bands)

    def work() -> Result:
        dropped = []
        sets = map(word_ngrams, strings)
        for row, found in enumerate(MinHash.generator(sets, num_perm=SKETCH.permutations, hashfunc=zlib.crc32)):
            if found.is_empty():
                continue
            if index.query(found):
                dropped.append(row)
            else:
                index.insert(row, found, check_duplication=False)
        return Result(amounts(texts), lambda: dropped)

    return work


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """Precision and recall against all pairs of similarity `threshold`, found exactly on sets of strings."""
    sets = [frozenset(word_ngrams(text)) for text in load_texts(folder).to_pylist()]
    groups: dict[frozenset[bytes], list[int]] = defaultdict(list)
    for row, grams in enumerate(sets):
        if grams:
            groups[grams].append(row)
    distinct, members = list(groups), list(groups.values())
    pairs = similar_pairs(distinct, CONFIG.threshold)
    number = sum(len(members[a]) * len(members[b]) for a, b in pairs)
    notes = {}
    for peer, rows_dropped in outcomes.items():
        dropped = set(rows_dropped)
        kept = [sum(row not in dropped for row in rows) for rows in members]
        similar = [left > 0 for left in kept]
        for a, b in pairs:
            similar[a] |= kept[b] > 0
            similar[b] |= kept[a] > 0
        found: Counter[str] = Counter()
        for rows, left, right in zip(members, kept, similar, strict=True):
            gone = len(rows) - left
            found.update({"removed": gone, "rightly": gone * right})
            if not left:
                found.update({"without copies": gone, "without copies, rightly": gone * right})
        share = found["rightly"] / found["removed"] if found["removed"] else 1.0
        missed = sum(kept[a] * kept[b] for a, b in pairs)
        notes[peer] = (
            f"removed {found['removed']:,}, {share:.2%} of them equal or similar "
            f"to a kept text (without copies {found['without copies, rightly']:,} of {found['without copies']:,}); of "
            f"{number:,} similar pairs {missed:,} still both stand"
        )
    return notes


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, reading the texts and turning them into Python strings for datasketch, compiling.",
            save_documents,
            {
                "gristmill": gristmill,
                "datasketch, same bands": partial(datasketch, params=(CONFIG.bands, CONFIG.rows)),
                "datasketch, its bands for .8": partial(datasketch, threshold=CONFIG.threshold),
            },
            judge,
            packages=("datasketch", "numba", "polars", "pyarrow"),
        )
    )
