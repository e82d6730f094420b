"""Readers, one small module a format. `open_source` finds the one for a configuration."""

from __future__ import annotations

from corpus.config import SourceConfig
from corpus.sources.base import BadRecord, InputFile, Record, Source, SourceError

__all__ = ["BadRecord", "InputFile", "Record", "Source", "SourceError", "open_source"]

DEFAULT_MAX_RECORD_BYTES = 16 << 20


def open_source(config: SourceConfig, *, max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES) -> Source:
    """The reader for a source.

    Parameters
    ----------
    config
        What to read.
    max_record_bytes
        Longest record that is read, in bytes as it stands in its file; longer ones become `too-long` bad records.
    """
    match config.kind:
        case "jsonl":
            from corpus.sources.jsonl import JsonLines

            return JsonLines(config, max_record_bytes)
        case "parquet":
            from corpus.sources.parquet import ParquetFiles

            return ParquetFiles(config, max_record_bytes)
        case "text":
            from corpus.sources.text import TextFiles

            return TextFiles(config, max_record_bytes)
        case "python-docs":
            from corpus.sources.python_docs import PythonDocs

            return PythonDocs(config, max_record_bytes)
