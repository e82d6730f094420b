"""Small corpora as complete outputs of ingest, deduplicate and select, for stages that read them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from corpus.documents import document_id
from storage.filesystem import Store
from storage.fingerprint import hash_of
from storage.manifests import Counts
from storage.outputs import Output, PartWriter, complete, output_folder
from storage.schemas import DECISIONS, DOCUMENTS

Parts = dict[str, list[str]]
"""Stem -> texts; the source is what the stem begins with."""


def inputs(store: Store, parts: Parts, dropped: frozenset[str] = frozenset()) -> dict[str, Output]:
    """Complete outputs that hold these documents; those that are kept are selected for training, once."""
    made: dict[str, Output] = {}
    name = hash_of({"parts": parts, "dropped": sorted(dropped)})[:16]
    for stage in ("ingest", "deduplicate", "select"):
        writer = PartWriter(store, output_folder(stage, name), "all")
        for stem, texts in parts.items():
            ids = pa.array([document_id(text) for text in texts], DOCUMENTS.field("id").type)
            columns: dict[str, Any] = {"id": ids, "text": texts, "source": [stem.partition("-")[0]] * len(texts)}
            columns |= {"uri": ["u"] * len(texts), "record": list(range(len(texts)))}
            reasons = [["near-duplicate"] if text in dropped else [] for text in texts]
            decisions = {"id": ids, "hits": reasons, "dropped_by": [hits[0] if hits else None for hits in reasons]}
            decisions |= {"split": [None if hits else "train" for hits in reasons], "repeats": [1] * len(texts)}
            schema, values = (DOCUMENTS, columns) if stage == "ingest" else (DECISIONS, decisions)
            arrays = [pa.array(values.get(field.name, [None] * len(texts)), field.type) for field in schema]
            kind = "documents" if stage == "ingest" else "decisions"
            writer.parquet(f"{kind}/{stem}", pa.table(arrays, schema=schema), schema)
        made[stage] = complete(
            store, writer.folder, stage=stage, version=1, fingerprint=name, parameters={}, inputs={},
            parts=writer.parts, counts=Counts(), numerics={}, timings={}, software={}, git={},
        )  # fmt: skip
    return made
