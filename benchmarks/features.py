"""How fast are quality features? `compute_features` beside the same definitions in plain Python, one thread each.

The features of the Gopher rules (Rae et al. 2021) on words between white space, from an Arrow column (gristmill) or a
list of Python strings to an Arrow table. The language is not identified.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.documents import amounts, load_texts, save_documents
from benchmarks.plain import QUALITY, REPETITION, quality, repetition
from benchmarks.timing import Benchmark, Result, Work, main
from data_quality.quality_config import QualityConfig

CONFIG = QualityConfig(identify_language=False)


def gristmill(folder: Path) -> Work:
    """All features of `compute_features` but the language: quality and repetition."""
    from data_quality.features import compute_features

    texts = load_texts(folder)
    compute_features(texts.slice(0, 10), CONFIG)

    def work() -> Result:
        table = compute_features(texts, CONFIG)
        return Result(amounts(texts), lambda: table.to_pydict())

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

    mine = outcomes["gristmill"]
    notes = {}
    for peer, theirs in list(outcomes.items())[1:]:
        same = np.logical_and.reduce([np.isclose(mine[name], theirs[name], atol=1e-9) for name in theirs])
        notes[peer] = f"{len(theirs)} features, all equal to Gristmill's on {same.mean():.2%} of the documents"
    return {**notes, "gristmill": f"{len(mine) - 2} features, those of the others among them"}


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, reading the texts and turning them into Python strings for the plain loops, compiling.",
            save_documents,
            {
                "gristmill": gristmill,
                "Python, quality": partial(plain, repetitive=False),
                "Python, quality and repetition": partial(plain, repetitive=True),
            },
            judge,
            documents=20_000,
            packages=("numba", "numpy", "pyarrow"),
        )
    )
