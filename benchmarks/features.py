"""How fast are quality features? From a part of documents to a file of features, and what each step takes; beside the
features of the Gopher rules (Rae et al. 2021) in plain Python on words between white space. One thread each.

"gristmill" reads Parquet, measures all features but the language and those on request, and writes; "all on request"
adds unigrams (a table of 100,000 words), datatrove's formulas and the features of cut texts; "in memory" neither reads
nor writes. "first call" is what a process spends on 10 documents with the machine code in the cache, "compiling"
without.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.documents import amounts, load_texts
from benchmarks.plain import QUALITY, REPETITION, quality, repetition
from benchmarks.timing import Benchmark, Result, Work, main
from data_quality.quality_config import QualityConfig

CONFIG = QualityConfig(identify_language=False)
ON_REQUEST = replace(CONFIG, unigram_table="corpus", datatrove_words="separate", measure_cut=True)


def prepare(documents: Any, folder: Path) -> None:
    """Write the documents as ingest writes a part."""
    from storage.arrow_files import write_parquet
    from storage.schemas import DOCUMENTS

    write_parquet(folder / "documents.parquet", documents, DOCUMENTS)


def part_to_file(folder: Path, config: QualityConfig = CONFIG) -> Work:
    """What the stage does with a part."""
    import pyarrow.parquet as pq

    from corpus.cuts import apply_cuts
    from data_quality.cuts import c4_lines
    from data_quality.features import compute_features, feature_schema
    from data_quality.unigrams import UnigramCounter, load_unigrams
    from storage.arrow_files import write_parquet

    unigrams = None
    if config.unigram_table:
        counter = UnigramCounter()
        counter.add(load_texts(folder))
        unigrams = load_unigrams(counter.table(100_000))

    def measure(rows: int | None) -> Any:
        part = pq.read_table(folder / "documents.parquet", columns=["id", "text", "url"])[:rows].combine_chunks()
        texts = part.column("text").combine_chunks()
        cut = apply_cuts(texts, c4_lines(texts)) if config.measure_cut else None
        table = compute_features(texts, config, urls=part.column("url"), cut_texts=cut, unigrams=unigrams)
        schema = feature_schema(config)
        write_parquet(folder / "features.parquet", table.add_column(0, schema.field("id"), part.column("id")), schema)
        return texts, table

    measure(10)

    def work() -> Result:
        texts, table = measure(None)
        size = (folder / "features.parquet").stat().st_size
        return Result(amounts(texts), lambda: {"columns": table.num_columns, "file": size})

    return work


def in_memory(folder: Path) -> Work:
    """The features alone."""
    from data_quality.features import compute_features

    texts = load_texts(folder)
    compute_features(texts.slice(0, 10), CONFIG)

    def work() -> Result:
        table = compute_features(texts, CONFIG)
        return Result(amounts(texts), lambda: table.to_pydict())

    return work


def language(folder: Path) -> Work:
    """Identifying the language of every document."""
    from data_quality.language import identify

    texts = load_texts(folder)
    identify(texts.slice(0, 10))

    def work() -> Result:
        identify(texts)
        return Result(amounts(texts))

    return work


def first_call(folder: Path, compiling: bool) -> Work:
    """Ten documents in a process that has measured none."""
    import numba

    texts = load_texts(folder).slice(0, 10)
    if compiling:
        numba.config.CACHE_DIR = tempfile.mkdtemp(dir=folder)  # type: ignore[attr-defined]

    def work() -> Result:
        from data_quality.features import compute_features

        compute_features(texts, CONFIG)
        return Result(amounts(texts))

    return work


def plain(folder: Path, repetitive: bool) -> Work:
    """The features in a loop over Python strings, into an Arrow table."""
    import pyarrow as pa

    texts = load_texts(folder)
    strings = texts.to_pylist()
    names = QUALITY + REPETITION if repetitive else QUALITY

    def work() -> Result:
        rows = [quality(text) + (repetition(text) if repetitive else ()) for text in strings]
        table = pa.table(dict(zip(names, zip(*rows, strict=True), strict=True)))
        return Result(amounts(texts), lambda: table.to_pydict())

    return work


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """On how many documents all features of a peer are those of Gristmill."""
    import numpy as np

    mine = outcomes["in memory"]
    notes = {
        peer: f"{outcomes[peer]['columns']} features, a file of {outcomes[peer]['file'] / 1e6:.1f} MB"
        for peer in ("gristmill", "all on request")
    }
    for peer, theirs in outcomes.items():
        if not peer.startswith("Python"):
            continue
        same = np.logical_and.reduce([np.isclose(mine[name], theirs[name], atol=1e-9) for name in theirs])
        notes[peer] = f"{len(theirs)} features, all equal to Gristmill's on {same.mean():.2%} of the documents"
    return notes


if __name__ == "__main__":
    main(
        Benchmark(
            "imports; compiling, but for the two that say so; except for the first two, reading the texts and turning "
            "them into Python strings for the plain loops.",
            prepare,
            {
                "gristmill": part_to_file,
                "all on request": partial(part_to_file, config=ON_REQUEST),
                "in memory": in_memory,
                "language": language,
                "first call": partial(first_call, compiling=False),
                "compiling": partial(first_call, compiling=True),
                "Python, quality": partial(plain, repetitive=False),
                "Python, quality and repetition": partial(plain, repetitive=True),
            },
            judge,
            documents=20_000,
            packages=("numba", "numpy", "pyarrow"),
        )
    )
