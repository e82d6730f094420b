"""The ledger: one row an input file, what became of its records, and which files of the generation before are gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from corpus.config import IngestConfig, Takedown
from corpus.inventory import Inventory
from corpus.parts import canonical_meta
from corpus.sources import open_source
from storage.schemas import ID_BYTES, LEDGER

LEDGER_WITH_UNITS = LEDGER.append(pa.field("unit", pa.string(), nullable=False))
"""The unit says which parts hold a file (their stems begin with it), so that a record is found without a search."""

Row = dict[str, Any]
_SINCE_ADDED = {"sha256": None, "duplicates": 0, "skipped": 0, "reasons": "{}"}
"""Columns that ledgers of version 1 of ingest did not have."""
_SUMS = ("records", "written", "skipped", "quarantined")


class LedgerError(ValueError):
    """The ledger does not add up."""


def join_rows(rows: Iterable[Row]) -> dict[tuple[str, str], Row]:
    """(source, uri) -> its row: rows of files that were read in several units are added up.

    Raises
    ------
    LedgerError
        If a row does not add up.
    """
    joined: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row["records"] != row["written"] + row["skipped"] + row["quarantined"]:
            raise LedgerError(
                f"{row['source']}:{row['uri']} does not add up: read {row['records']}, written {row['written']}, "
                f"skipped {row['skipped']}, quarantined {row['quarantined']}"
            )
        known = joined.setdefault((row["source"], row["uri"]), dict(row))
        if known["unit"] != row["unit"]:
            known |= {name: known[name] + row[name] for name in _SUMS}
            known["sha256"] = known["sha256"] or row["sha256"]
            reasons = json.loads(known["reasons"])
            for reason, number in json.loads(row["reasons"]).items():
                reasons[reason] = reasons.get(reason, 0) + number
            known["reasons"] = canonical_meta(reasons)
            # Units of one file are called STEM-0000, STEM-0001 …
            known["unit"] = row["unit"].rpartition("-")[0]
    return joined


def count_duplicates(
    rows: Mapping[tuple[str, str], Row], index: pa.Table, places: Mapping[str, Callable[[], pa.Table]]
) -> None:
    """Fills in `duplicates`: documents that are not the first of their text in the order of part names and rows.

    Parameters
    ----------
    index
        Schema `ID_INDEX`.
    places
        Part name -> a function that reads its columns `source` and `uri`; asked for parts of several files only.
    """
    of_unit: dict[str, list[Row]] = {}
    for row in rows.values():
        of_unit.setdefault(row["unit"], []).append(row)
    ids = index.column("id").combine_chunks()
    words = np.frombuffer(ids.buffers()[1], np.uint64, 2 * len(ids), ids.offset * ID_BYTES).reshape(-1, 2)
    again = np.zeros(len(ids), np.bool_)
    np.all(words[1:] == words[:-1], axis=1, out=again[1:])
    copies = index.select(["part", "row"]).filter(pa.array(again))
    parts = copies.column("part").dictionary_encode().unify_dictionaries().combine_chunks()
    codes, numbers = parts.indices.to_numpy(), copies.column("row").to_numpy()
    by_part = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(parts.dictionary)))
    for part, end, number in zip(parts.dictionary.to_pylist(), ends, np.diff(ends, prepend=0), strict=True):
        unit = part.partition("/")[2].rpartition("-")[0]
        files = of_unit.get(unit) or of_unit[unit.rpartition("-")[0]]
        if len(files) == 1:
            files[0]["duplicates"] += int(number)
            continue
        table = places[part]().take(pa.array(numbers[by_part[end - number : end]]))
        for source, uri, found in zip(*table.group_by(["source", "uri"]).aggregate([([], "count_all")]), strict=True):
            _file_of(rows, source.as_py(), uri.as_py())["duplicates"] += found.as_py()


def _file_of(rows: Mapping[tuple[str, str], Row], source: str, uri: str) -> Row:
    """The input file of a document: what stands before `!/` in a document from an archive."""
    name = uri
    while (source, name) not in rows:
        name, mark, _ = name.rpartition("!/")
        if not mark:
            raise LedgerError(f"no line for {source}:{uri}")
    return rows[source, name]


def gone_since(rows: Mapping[tuple[str, str], Row], before: Sequence[Row], takedown: Sequence[Takedown]) -> list[Row]:
    """Rows of files that an earlier ledger has and this one does not: tombstones, and what was taken down."""
    files = {(down.source, down.uri) for down in takedown if down.record is None}
    gone = []
    for row in before:
        if (row["source"], row["uri"]) not in rows:
            wanted = (row["source"], row["uri"]) in files or (row["source"], "") in files
            gone.append({**_SINCE_ADDED, **row, "status": "takedown" if wanted else "tombstone", "unit": ""})
    return gone


def verify_inventory(inventory: Inventory, config: IngestConfig, before: Sequence[Row]) -> Inventory:
    """The inventory as the content of the files says, by their SHA-256 in an earlier ledger.

    A file whose content is the same is given the etag it had; one whose content differs under the same size and etag
    is given another.
    """
    known = {(row["source"], row["uri"]): row for row in before if row["unit"] and row.get("sha256")}
    readers = {source.name: open_source(source) for source in config.sources}
    files = []
    for file in inventory.files:
        row = known.get((file.source, file.uri))
        digest = readers[file.source].checksum(file) if row is not None else None
        if row is not None and digest is not None:
            if digest == row["sha256"]:
                file = replace(file, etag=row["etag"], seen=file.seen or file.etag)
            elif (file.bytes, file.etag) == (row["bytes"], row["etag"]):
                file = replace(file, etag=f"{file.etag}+{digest[7:23]}", seen=file.seen or file.etag)
        files.append(file)
    return Inventory(tuple(files))
