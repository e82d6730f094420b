"""The text to measure on: the documentation of this Python installation, or JSON lines of one's own."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

REPOSITORY = Path(__file__).resolve().parents[1]
BUILD = REPOSITORY / "build" / "benchmarks"
_AT_LEAST = 40_000


def read_documents(data: str | None, number: int) -> pa.Table:
    """The first `number` documents (schema `DOCUMENTS`), their text as it was found, not normalised.

    `data` is a folder of .jsonl or .jsonl.gz; None takes the docstrings, READMEs and licences of this interpreter's
    installation, files in the order of a hash. What was read is kept under `build/benchmarks` for the next script.
    """
    from corpus.config import IngestConfig, NormaliseConfig, SourceConfig
    from corpus.documents import read_unit
    from corpus.inventory import plan_units, take_inventory

    as_found = NormaliseConfig(**{step.name: False for step in fields(NormaliseConfig)})
    source = SourceConfig(name="data", kind="jsonl", path=os.path.abspath(data)) if data else None
    config = IngestConfig(sources=(source or SourceConfig(name="python-docs", kind="python-docs"),), normalise=as_found)
    inventory = take_inventory(config)
    kept = max(number, _AT_LEAST)
    key = hashlib.blake2b(f"{inventory.digest} {kept}".encode(), digest_size=8).hexdigest()
    file = BUILD / f"documents-{key}.parquet"
    if not file.exists():
        tables, rows = [], 0
        for unit in sorted(plan_units(inventory, config), key=lambda unit: unit.stem):
            for batch in read_unit(config, unit):
                tables.append(batch.documents)
                rows += batch.documents.num_rows
            if rows >= kept:
                break
        partial = file.with_suffix(f".{os.getpid()}")
        pq.write_table(pa.concat_tables(tables).slice(0, kept), partial)
        partial.replace(file)
    return pq.read_table(file).slice(0, number).combine_chunks()


def load_texts(folder: Path) -> pa.LargeStringArray:
    """The texts of `folder/documents.parquet`, where `prepare` of most benchmarks has put them."""
    return pq.read_table(folder / "documents.parquet", columns=["text"]).column("text").combine_chunks()


def save_documents(documents: pa.Table, folder: Path) -> None:
    """Write `folder/documents.parquet`."""
    pq.write_table(documents, folder / "documents.parquet")


def numbered(documents: pa.Table) -> pa.Table:
    """The documents with their numbers as ids, so that what is said of an id is said of a row, copies included."""
    ids = pa.array([row.to_bytes(16, "big") for row in range(documents.num_rows)], documents.field("id").type)
    return documents.set_column(documents.column_names.index("id"), documents.field("id"), ids)


def amounts(texts: pa.LargeStringArray) -> Mapping[str, float]:
    """How many documents and how much UTF-8 text there is."""
    offsets = texts.buffers()[1]
    first, last = (
        int.from_bytes(offsets[8 * row : 8 * row + 8], "little") for row in (texts.offset, texts.offset + len(texts))
    )
    return {"documents": len(texts), "MB": (last - first) / 1e6}


def write_json_lines(texts: list[str], urls: list[str], file: Path, level: int = 6) -> None:
    """A .jsonl.gz with the fields `text` and `url`."""
    import gzip

    with gzip.open(file, "wt", encoding="utf-8", compresslevel=level) as lines:
        for text, url in zip(texts, urls, strict=True):
            lines.write(json.dumps({"text": text, "url": url}, ensure_ascii=False) + "\n")
