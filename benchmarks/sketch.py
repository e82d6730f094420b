"""How fast are MinHash signatures? `data_quality.sketch` beside `datasketch.MinHash.bulk`, one thread each.

108 permutations over sets of word 5-grams, from an Arrow column to an Arrow column (gristmill), from a list of Python
strings to a numpy matrix (datasketch).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.documents import amounts, load_texts, save_documents
from benchmarks.plain import word_ngrams
from benchmarks.timing import Benchmark, Result, Work, main
from data_quality.duplicates_config import SketchConfig

CONFIG = SketchConfig()


def gristmill(folder: Path) -> Work:
    """From an Arrow column to Arrow signatures."""
    from data_quality.sketch import sketch

    texts = load_texts(folder)
    sketch(texts.slice(0, 10), CONFIG)

    def work() -> Result:
        table = sketch(texts, CONFIG)
        return Result(amounts(texts), lambda: table.column("shingles").to_pylist())

    return work


def datasketch(folder: Path, hash_function: Callable[[bytes], int] | None = None, ready: bool = False) -> Work:
    """From Python strings (or, `ready`, from sets of n-grams as bytes) to a numpy matrix of signatures."""
    import numpy as np
    from datasketch import MinHash

    texts = load_texts(folder)
    strings = texts.to_pylist()
    sets = [word_ngrams(text) for text in strings] if ready else []
    options: dict[str, Any] = {"num_perm": CONFIG.permutations, "seed": CONFIG.seed, "scheme": CONFIG.scheme}
    if hash_function is not None:
        options["hashfunc"] = hash_function

    def work() -> Result:
        found = MinHash.bulk(sets if ready else map(word_ngrams, strings), **options)
        matrix = np.array([signature.hashvalues for signature in found])
        return Result(amounts(texts), lambda: list(matrix.shape))

    return work


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """On how many documents both count as many distinct n-grams."""
    counts = [len(word_ngrams(text)) for text in load_texts(folder).to_pylist()]
    same = sum(mine == theirs for mine, theirs in zip(outcomes["gristmill"], counts, strict=True)) / len(counts)
    return {
        "gristmill": f"as many n-grams as datasketch is given on {same:.2%} of the documents",
        "datasketch": "SHA-1, its default",
        "datasketch crc32": "a faster hash of the standard library",
        "datasketch, n-grams ready": "crc32; splitting and joining words not timed",
    }


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, reading the texts and turning them into Python strings for datasketch, compiling.",
            save_documents,
            {
                "gristmill": gristmill,
                "datasketch": datasketch,
                "datasketch crc32": partial(datasketch, hash_function=zlib.crc32),
                "datasketch, n-grams ready": partial(datasketch, hash_function=zlib.crc32, ready=True),
            },
            judge,
            packages=("datasketch", "numba", "numpy", "pyarrow"),
        )
    )
