"""Document parts that were made elsewhere: checked, and taken as they are."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.config import IngestConfig
from corpus.inventory import IngestUnit
from corpus.parts import ledger_row
from corpus.sources import open_source
from corpus.sources.reader import FileSource
from storage.manifests import Counts
from storage.schemas import DOCUMENTS, ID_BYTES

_BATCH_ROWS = 1024


def adopt(config: IngestConfig, unit: IngestUnit) -> tuple[Path, dict[str, Any]] | None:
    """The local file of a unit that can be taken as it is, and its line in the ledger; None if it must be read."""
    source_config = next(source for source in config.sources if source.name == unit.source)
    if not source_config.adopt or len(unit.files) != 1 or unit.span is not None or config.redact.kinds:
        return None
    [file] = unit.files
    if any((down.source, down.uri) == (unit.source, file.uri) or down.id for down in config.takedown):
        return None  # every text must be looked at
    source = open_source(source_config)
    path = source.local_path(file) if isinstance(source, FileSource) else None
    rows = adoptable(path, unit.source, config.part_bytes) if path is not None else None
    if path is None or rows is None:
        return None
    checksum = source.checksum(file) if config.checksums else None
    return path, ledger_row(file, Counts(rows, rows), checksum, "adopted")


def adoptable(file: Path, source: str, part_bytes: int) -> int | None:
    """The number of documents of a Parquet file that can be a document part as it is; None if it cannot.

    Its schema must be `DOCUMENTS`, `source` the same name throughout, no text empty, every id the hash of its text, and
    it must hold at most twice `part_bytes` of text.
    """
    try:
        parquet = pq.ParquetFile(file)
        if not parquet.schema_arrow.equals(DOCUMENTS) or not parquet.metadata.num_rows:
            return None
        size = 0
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=["id", "text", "source", "uri", "record"]):
            if any(column.null_count for column in batch.columns):
                return None
            if pc.unique(batch.column("source")).to_pylist() != [source]:
                return None
            texts = batch.column("text")
            texts.validate(full=True)
            size += pc.sum(pc.binary_length(texts)).as_py()
            if size > 2 * part_bytes or _ids(texts) != batch.column("id").to_pylist():
                return None
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        return None  # a damaged file is read record by record, which says what is wrong with it
    return int(parquet.metadata.num_rows)


def _ids(texts: pa.Array) -> list[bytes]:
    offsets = texts.buffers()[1]
    ends = memoryview(offsets).cast("q")[texts.offset : texts.offset + len(texts) + 1]
    data = memoryview(texts.buffers()[2] or b"")
    return [
        hashlib.blake2b(data[begin:end], digest_size=ID_BYTES).digest() if end > begin else b""
        for begin, end in itertools.pairwise(ends)
    ]
