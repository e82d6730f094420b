"""What does near-deduplication cost beside datatrove? From one Parquet part to who stays, one worker.

"gristmill" runs its stages `sketch` and `deduplicate` (word 5-grams, 108 permutations, Jaccard .8, every removal
verified on the text) with all their files, receipts and manifests. datatrove runs its four steps (signature, buckets,
cluster, filter; 5-grams, 14 bands of 8, nothing verified) without an executor and with its fast reading of signatures
(`lines_to_buffer=-1`). Neither writes the kept text. "our words" replaces spaCy's words on that side by the definition
of this side.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.datatrove import peers, version
from benchmarks.deduplicate import judge as judge_pairs
from benchmarks.documents import amounts, load_texts, numbered, save_documents
from benchmarks.timing import Benchmark, Result, Work, main


def prepare(documents: pa.Table, folder: Path) -> None:
    """The documents as they are, and named by their number for the peers and the judge."""
    pq.write_table(documents, folder / "original.parquet")
    save_documents(numbered(documents), folder)


def gristmill(folder: Path) -> Work:
    """Both stages."""
    import pyarrow.compute as pc

    from benchmarks.outputs import run, save_outputs
    from data_quality.duplicates_config import DeduplicateConfig, SketchConfig
    from stages.deduplicate import Deduplicate
    from stages.sketch import Sketch

    documents = pq.read_table(folder / "original.parquet").combine_chunks()
    total = amounts(load_texts(folder))

    def stages(store: Any, outputs: dict[str, Any]) -> Any:
        outputs["sketch"] = run(Sketch(SketchConfig()), store, outputs)
        return run(Deduplicate(DeduplicateConfig(), SketchConfig(), 512 << 20), store, outputs)

    stages(*save_outputs(folder, documents.slice(0, 200), 1))
    store, outputs = save_outputs(folder, documents, 1)

    def work() -> Result:
        output = stages(store, outputs)

        def dropped() -> list[int]:
            reasons = output.read("decisions/data-00000", ["dropped_by"]).column("dropped_by")
            rows: list[int] = pc.indices_nonzero(pc.is_valid(reasons)).to_pylist()
            return rows

        return Result(total, dropped)

    return work


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """As `benchmarks.deduplicate` judges: right removals, and similar pairs that are left, found exactly."""
    rows = range(len(load_texts(folder)))
    dropped = {
        name: found if name == "gristmill" else sorted(set(rows).difference(found)) for name, found in outcomes.items()
    }
    notes = dict(judge_pairs(folder, dropped))
    return {name: note if name == "gristmill" else f"{version()}; {note}" for name, note in notes.items()}


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, compiling, loading spaCy, a few texts to warm up.",
            prepare,
            {
                "gristmill": gristmill,
                **peers("dedup", {"datatrove": {"words": "own"}, "datatrove, our words": {"words": "given"}}),
            },
            judge,
            packages=("numba", "numpy", "polars", "pyarrow"),
            repetitions=3,
        )
    )
