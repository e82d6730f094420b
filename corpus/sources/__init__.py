"""Where text comes from: listing, opening, decompression, archives. `open_source` finds a configuration's reader."""

from __future__ import annotations

from corpus.config import RedactConfig, SourceConfig
from corpus.sources.base import BadRecord, Cursor, Found, InputFile, Record, Skipped, Source, SourceError

__all__ = ["BadRecord", "Cursor", "Found", "InputFile", "Record", "Skipped", "Source", "SourceError", "open_source"]

DEFAULT_MAX_RECORD_BYTES = 16 << 20


def open_source(
    config: SourceConfig, *, max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES, redact: RedactConfig | None = None
) -> Source:
    """The reader for a source.

    Parameters
    ----------
    config
        What to read.
    max_record_bytes
        Longest record that is read, in bytes as it stands in its file; longer ones become `too-long` bad records.
    redact
        Personal data that must not stand in the names of files and members either (`Redactor.name`).
    """
    if config.kind == "python-docs":
        from corpus.sources.python_docs import PythonDocs

        return PythonDocs(config, max_record_bytes)
    from corpus.formats import open_format
    from corpus.sources.reader import FileSource

    if redact is None or not redact.kinds:
        return FileSource(config, open_format(config, max_record_bytes))
    from corpus.redaction import Redactor

    return FileSource(config, open_format(config, max_record_bytes), Redactor(redact).name)
