"""The cleaned documents as files for others: JSON lines (Parquet files are written by the stage itself)."""

from __future__ import annotations

import orjson
import pyarrow as pa

from storage.schemas import DOCUMENTS

# On docstrings a tenth smaller than level 3 at four fifths of its speed: files for others are moved more
# often than written.
_ZSTD_LEVEL = 6


def jsonl_zst(documents: pa.Table) -> bytes:
    """Documents as Zstandard-compressed JSON lines: one frame with a checksum, one thread, the same bytes every time.

    `documents` has schema `DOCUMENTS`, its texts with their cuts applied. Ids stay those of the texts as written.
    Keys in the order of the schema; `id` as 32 hex digits, `meta` as an object, nulls left out.
    """
    import zstandard

    lines = bytearray()
    for batch in documents.select(DOCUMENTS.names).to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            row["id"] = row["id"].hex()
            if row["meta"] is not None:
                row["meta"] = orjson.Fragment(row["meta"])
            lines += orjson.dumps({key: value for key, value in row.items() if value is not None})
            lines += b"\n"
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True, threads=0).compress(lines)
