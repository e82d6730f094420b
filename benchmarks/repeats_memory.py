"""How much memory does `repeats` take, by `how.memory_megabytes`? The whole stage, one worker, text that is all hashes.

10,000 documents of a thousand lines of ten random letters, in ten parts; one line in fifty stands in many documents,
one in ten is part of a copied passage of thirty lines. So there is a hash for every eleven bytes of text, three to five
times as many as in prose. "spans" looks for runs of 13 words too. What a part takes is in all of the figures.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.outputs import run, save_outputs
from benchmarks.timing import Benchmark, Result, Work, main
from data_quality.repeats_config import RepeatsConfig

LINES, LETTERS, PARTS = 1000, 10, 10
POOL, RUN = 3000, 30
"""Lines that stand in many documents, and how many of them stand one behind the other in a copied passage."""
SMALL = 10


def documents(number: int, seed: int) -> pa.Table:
    """So many documents (`storage.schemas.DOCUMENTS`)."""
    import numpy as np

    from corpus.texts import content_ids
    from storage.schemas import DOCUMENTS

    chance = np.random.default_rng(seed)
    lines = np.full((number * LINES, LETTERS + 1), ord("\n"), np.uint8)
    lines[:, :LETTERS] = chance.integers(ord("a"), ord("z") + 1, (lines.shape[0], LETTERS), np.uint8)
    pool = np.random.default_rng(0).integers(ord("a"), ord("z") + 1, (POOL, LETTERS), np.uint8)
    some = chance.integers(0, lines.shape[0], lines.shape[0] // 50)
    lines[some, :LETTERS] = pool[chance.integers(0, POOL, some.size)]
    passages = chance.integers(0, lines.shape[0] - RUN, lines.shape[0] // (10 * RUN))
    beginnings = chance.integers(0, POOL // RUN, passages.size) * RUN
    for line in range(RUN):
        lines[passages + line, :LETTERS] = pool[beginnings + line]
    offsets = np.arange(number + 1, dtype=np.int64) * LINES * (LETTERS + 1)
    texts = pa.LargeStringArray.from_buffers(number, pa.py_buffer(offsets), pa.py_buffer(lines))
    columns = {
        "id": content_ids(texts), "text": texts, "source": pa.array(["lines"] * number),
        "uri": pa.array(["lines"] * number), "record": pa.array(range(number)),
    }  # fmt: skip
    return pa.table([columns.get(field.name, pa.nulls(number, field.type)) for field in DOCUMENTS], schema=DOCUMENTS)


def prepare(given: pa.Table, folder: Path) -> None:
    """As many documents as are asked for, and a few to warm up with."""
    for name, number in (("small", SMALL), ("whole", given.num_rows)):
        store, _ = save_outputs(folder, documents(number, 1), PARTS)
        Path(store.local("")).rename(folder / name)


def gristmill(folder: Path, memory: int, config: RepeatsConfig) -> Work:
    """The stage with so many MiB."""
    from stages.repeats import Repeats
    from storage.filesystem import Store
    from storage.outputs import Output

    def opened(name: str) -> tuple[Store, dict[str, Output]]:
        own = tempfile.mkdtemp(dir=folder)
        shutil.copytree(folder / name, own, copy_function=os.link, dirs_exist_ok=True)
        store = Store(own)
        return store, {stage: Output.open(store, f"outputs/{stage}/{stage}") for stage in ("ingest", "deduplicate")}

    run(Repeats(config, memory << 20), *opened("small"))
    store, outputs = opened("whole")
    total = outputs["ingest"].counts["read"]

    def work() -> Result:
        output = run(Repeats(config, memory << 20), store, outputs)
        return Result({"documents": total, "MB": total * LINES * (LETTERS + 1) / 1e6}, lambda: outcome(output))

    def outcome(output: Output) -> dict[str, Any]:
        rows = {kind: sum(part.rows for part in output.parts(kind)) for kind in ("fragments", "places")}
        return {"digest": output.digest, **rows}

    return work


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """What was merged, and whether the outputs are the same bytes."""
    notes = {}
    for name, found in outcomes.items():
        same = {other["digest"] for key, other in outcomes.items() if key.split(",")[0] == name.split(",")[0]}
        notes[name] = (
            f"{found['fragments'] / 1e6:.1f} million hashes, {found['places'] / 1e6:.1f} million places; "
            f"{'same bytes' if len(same) == 1 else 'OTHER BYTES'}"
        )
    return notes


CONFIGS = {"lines": RepeatsConfig(), "spans": RepeatsConfig(substring_words=13)}

if __name__ == "__main__":
    main(
        Benchmark(
            "imports, compiling, ten documents to warm up.",
            prepare,
            {
                f"{name}, {memory} MiB": partial(gristmill, memory=memory, config=config)
                for name, config in CONFIGS.items()
                for memory in (64, 512, 4096)
            },
            judge,
            documents=10_000,
            packages=("numba", "numpy", "pyarrow"),
            repetitions=1,
        )
    )
