"""Where text comes from: listing, opening, decompression, archives. `open_source` finds a configuration's reader."""

from __future__ import annotations

from corpus.config import SourceConfig
from corpus.sources.base import BadRecord, Cursor, Found, InputFile, Record, Skipped, Source, SourceError

__all__ = ["BadRecord", "Cursor", "Found", "InputFile", "Record", "Skipped", "Source", "SourceError", "open_source"]

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
    if config.kind == "python-docs":
        from corpus.sources.python_docs import PythonDocs

        return PythonDocs(config, max_record_bytes)
    from corpus.formats import open_format
    from corpus.sources.reader import FileSource

    return FileSource(config, open_format(config, max_record_bytes))
