"""Reading a source whole, for tests of formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corpus.config import SourceConfig
from corpus.sources import BadRecord, Cursor, Found, Record, Skipped, open_source


def read(kind: str, path: Path | str, max_record_bytes: int = 16 << 20, **settings: Any) -> list[Found]:
    """Everything a source gives, in order."""
    config = SourceConfig(name="s", kind=kind, path=str(path), **settings)  # type: ignore[arg-type]
    source = open_source(config, max_record_bytes=max_record_bytes)
    return [found for file in source.inventory() for found in source.records(file)]


def texts(found: list[Found]) -> list[str]:
    return [record.text for record in found if isinstance(record, Record)]


def kinds(found: list[Found]) -> list[str]:
    """Of every record its error or the reason it was skipped, "" for documents."""
    return [
        record.error if isinstance(record, BadRecord) else record.reason if isinstance(record, Skipped) else ""
        for record in found
    ]


def check_resuming(kind: str, path: Path, every: int = 1, **settings: Any) -> None:
    """Reading goes on after any record as if it had not stopped, and numbers never slip."""
    config = SourceConfig(name="s", kind=kind, path=str(path), **settings)  # type: ignore[arg-type]
    source = open_source(config)
    for file in source.inventory():
        cursor = Cursor()
        places, whole = [], []
        for found in source.records(file, cursor=cursor):
            whole.append(found)
            places.append(Cursor(cursor.member, cursor.record, cursor.offset))
        for number in range(0, len(whole) - 1, every):
            assert list(source.records(file, cursor=places[number])) == whole[number + 1 :]
