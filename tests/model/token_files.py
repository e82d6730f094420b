"""Small token shards and job files for the tests of the training room."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from storage.arrow_files import write_ipc
from storage.schemas import token_schema

REPOSITORY = Path(__file__).resolve().parents[2]
VOCABULARY = 64
END = 0


def write_shard(file: Path, documents: Sequence[Sequence[int]]) -> Path:
    """A token shard; the id of a document is made of the file's name and its row."""
    schema = token_schema(pa.uint16())
    ids = [hashlib.blake2b(f"{file.name} {row}".encode(), digest_size=16).digest() for row in range(len(documents))]
    tokens = pa.array([list(d) for d in documents], schema.field("tokens").type)
    write_ipc(file, pa.table({"id": pa.array(ids, pa.binary(16)), "tokens": tokens}), schema)
    return file


def documents(count: int, seed: int, longest: int = 120) -> list[list[int]]:
    """Documents that are easy to learn: arithmetic progressions, each with an end token."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        length, first = int(random.integers(5, longest)), int(random.integers(1, VOCABULARY))
        made.append([(first + 3 * i) % (VOCABULARY - 1) + 1 for i in range(length)] + [END])
    return made


def job_values(folder: Path, *, attempt: str = "one", processes: int = 1, **training: Any) -> dict[str, Any]:
    """A job over small shards in `folder`, its output in `folder/output`."""
    for name, count, seed in (("a", 120, 1), ("b", 80, 2), ("v", 30, 3)):
        if not (file := folder / f"{name}.arrow").exists():
            write_shard(file, documents(count, seed))
    sizes = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "max_positions": 64}
    plan = {
        "sequence_length": 32, "batch_sequences": 8, "steps": 24, "warmup_steps": 4, "learning_rate": 1e-2,
        "checkpoint_every": 5, "validate_every": 6, "validation_sequences": 9,
    }  # fmt: skip
    return {
        "task": "pretrain",
        "model": {**sizes, "vocabulary_size": VOCABULARY},
        "training": {**plan, **training},
        "resources": {"device": "cpu", "processes": processes, "threads": 1, "micro_batch_sequences": 2},
        "tokens": {
            "train": [str(folder / "a.arrow"), str(folder / "b.arrow")],
            "validation": [str(folder / "v.arrow")],
            "digest": "blake2b:0123",
            "end_id": END,
        },
        "output": str(folder / "output"),
        "attempt": attempt,
    }


def write_job(values: dict[str, Any], file: Path) -> Path:
    """The job as a file."""
    file.write_text(json.dumps(values), encoding="utf-8")
    return file


def command(job: Path, processes: int = 0) -> list[str]:
    """The command that runs a job: a process alone, or torchrun with `processes` ranks if it is not 0."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes else []
    return [sys.executable, *launcher, "-m", "model.train", str(job)]


def environment() -> dict[str, str]:
    """The environment of such a process: few threads, quiet, the rooms importable."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
