"""Stages in this process, from outputs that hold given documents: what they cost with files, receipts and manifests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.workers import Silent
from stages.base import Resources, Stage
from stages.pool import execute
from stages.runner import run_stage
from storage.filesystem import Store
from storage.manifests import Counts
from storage.outputs import Output, PartWriter, complete
from storage.schemas import DECISIONS, DOCUMENTS, ID_FIELD

_FEATURES = pa.schema([ID_FIELD, pa.field("bytes", pa.int64())])


def save_outputs(folder: Path, documents: pa.Table, parts: int) -> tuple[Store, dict[str, Output]]:
    """A new workspace: `write_outputs` of these documents in so many parts."""
    store = Store(tempfile.mkdtemp(dir=folder))
    size = max(1, -(-documents.num_rows // parts))
    some = (documents.slice(start, size).combine_chunks() for start in range(0, documents.num_rows, size))
    return store, write_outputs(store, some)


def write_outputs(store: Store, parts: Iterable[pa.Table]) -> dict[str, Output]:
    """Outputs of ingest, quality (bytes alone), filter and deduplicate of documents, part by part; none is dropped."""
    import pyarrow.compute as pc

    writers = {
        name: PartWriter(store, f"outputs/{name}/{name}", "unit")
        for name in ("ingest", "quality", "filter", "deduplicate")
    }
    rows = 0
    for number, some in enumerate(parts):
        stem, ids = f"data-{number:05d}", some.column("id").combine_chunks()
        sizes = pc.binary_length(some.column("text")).cast(pa.int64()).combine_chunks()
        columns = {"id": ids, "hits": pa.array([[]] * len(ids), DECISIONS.field("hits").type)}
        decided = pa.table(
            [columns.get(field.name, pa.nulls(len(ids), field.type)) for field in DECISIONS], names=DECISIONS.names
        )
        writers["ingest"].parquet(f"documents/{stem}", some, DOCUMENTS)
        writers["quality"].parquet(f"features/{stem}", pa.table([ids, sizes], schema=_FEATURES), _FEATURES)
        for name in ("filter", "deduplicate"):
            writers[name].parquet(f"decisions/{stem}", decided, DECISIONS)
        rows += len(ids)
    return {
        name: complete(
            store, writer.folder, stage=name, version=1, fingerprint=name, parameters={}, inputs={},
            parts=writer.parts, counts=Counts(rows, rows), numerics={}, timings={}, software={}, git={},
        )
        for name, writer in writers.items()
    }  # fmt: skip


def run(stage: Stage[Any], store: Store, inputs: dict[str, Output]) -> Output:
    """The complete output of a stage, its units one after the other."""

    def in_turn(stage: str, batches: Any, done: Any, check: Any, report: Any) -> None:
        for batch in batches:
            for order in batch:
                done(order.unit, execute(order, report, check))

    return run_stage(stage, store, inputs, Resources(), in_turn, Silent()).output
