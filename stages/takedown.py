"""Takedowns: text that must go on request. They lie in the workspace, apply to all its runs, and are never undone by
a new copy: records are named by source, file and number and by the id of their text.

A takedown changes nothing that is written. The next run makes what it touches anew, and `gc` then removes the old.
"""

from __future__ import annotations

import dataclasses
import getpass
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from corpus.config import IngestConfig, Takedown
from stages import explain
from stages.base import StageError
from storage import runs
from storage.filesystem import Store
from storage.manifests import MANIFEST
from storage.outputs import OUTPUTS, Output, output_folder

FOLDER = "takedowns"


@dataclass(frozen=True)
class Affected:
    """What a takedown came to.

    Attributes
    ----------
    entries
        What will be left out from now on.
    shards
        Files that hold the text or its tokens: document parts, token shards, exported files.
    outputs
        Output folders that were computed from it: checkpoints, evaluations, releases.
    """

    entries: tuple[Takedown, ...]
    shards: tuple[str, ...]
    outputs: tuple[str, ...]


def apply(store: Store, config: IngestConfig) -> IngestConfig:
    """The configuration with all takedowns of the workspace added."""
    entries = set(config.takedown)
    for path in store.listing(FOLDER):
        for entry in store.read_json(path)["entries"]:
            entries.add(Takedown(**entry))
    ordered = sorted(entries, key=lambda down: (down.source, down.uri, -1 if down.record is None else down.record))
    return dataclasses.replace(config, takedown=tuple(ordered))


def find(store: Store, ids: Iterable[str], uris: Iterable[str], sources: Iterable[str]) -> Affected:
    """What a takedown would touch, over the newest ingest output of every run.

    Parameters
    ----------
    ids
        Documents, 32 hex digits each: all their copies.
    uris
        Records (`URI#RECORD`) or whole files (`URI`), with `source:` before them where it is needed.
    sources
        Names of whole sources.

    Raises
    ------
    StageError
        If one of them is found in no run; nothing is taken down then.
    """
    ingests = _ingests(store)
    if not ingests:
        raise StageError(f"there is no finished ingest in {store.url}: nothing to take down")
    entries: dict[Takedown, None] = {}
    places: dict[str, set[tuple[str, int]]] = {output.folder: set() for output in ingests}
    for kind, query in [*(("id", i) for i in ids), *(("uri", u) for u in uris), *(("source", s) for s in sources)]:
        found = False
        for output in ingests:
            for entry, stem, row in _look_up(output, kind, query):
                entries[entry] = None
                found = True
                if stem:
                    places[output.folder].add((stem, row))
        if not found:
            raise StageError(f"takedown: no run of {store.url} has the {kind} {query!r}")
    shards: dict[str, None] = {}
    outputs: dict[str, None] = {}
    for output in ingests:
        if places[output.folder]:
            for path in _shards(store, output, places[output.folder], outputs):
                shards[path] = None
    return Affected(tuple(entries), tuple(shards), tuple(outputs))


def write(store: Store, affected: Affected, reason: str) -> str:
    """Record a takedown; returns the path of its file."""
    value = {
        "schema_version": 1,
        "created": runs.now(),
        "by": getpass.getuser(),
        "reason": reason,
        "entries": [dataclasses.asdict(entry) for entry in affected.entries],
    }
    number = len(store.listing(FOLDER)) + 1
    while True:
        path = f"{FOLDER}/{number:06d}.json"
        try:
            store.create_json(path, value)
            return path
        except FileExistsError:
            number += 1


def _ingests(store: Store) -> list[Output]:
    found: dict[str, Output] = {}
    for name in runs.names(store):
        entry = (runs.load(store, name) or {}).get("stages", {}).get("ingest", {})
        if entry.get("output"):
            folder = output_folder("ingest", str(entry["output"]))
            if folder not in found and store.exists(f"{folder}/{MANIFEST}"):
                found[folder] = Output.open(store, folder)
    return list(found.values())


def _look_up(output: Output, kind: str, query: str) -> list[tuple[Takedown, str, int]]:
    """Entries with the part (stem) and row that hold the document; for whole files and sources, of each document."""
    ledger = output.read("about/ledger").to_pylist()
    if kind == "id":
        places = explain.find_id(output, bytes.fromhex(query))
        return [(_entry(output, ledger, stem, row), stem, row) for stem, row in places]
    if kind == "source":
        units = {row["unit"] for row in ledger if row["source"] == query and row["unit"]}
        entry = Takedown(source=query, uri="")
        return [(entry, stem, row) for stem, row in _rows_of(output, units)] if units else []
    uri, mark, number = query.rpartition("#")
    if mark and number.isdigit():
        try:
            held = explain.find_record(output, uri, int(number))
        except StageError:
            return []
        return [(_entry(output, ledger, stem, row), stem, row) for sort, stem, row in held if sort == "documents"]
    query = explain.stored_uri(output, query)
    source, colon, bare = query.partition(":")
    named = [row for row in ledger if row["uri"] == query or (colon and (row["source"], row["uri"]) == (source, bare))]
    found: list[tuple[Takedown, str, int]] = []
    for row in named:
        entry = Takedown(source=row["source"], uri=row["uri"])
        rows = _rows_of(output, {row["unit"]}, None if row["status"] == "adopted" else row["uri"])
        found += [(entry, stem, at) for stem, at in rows or [("", 0)]]
    return found


def _entry(output: Output, ledger: list[dict[str, Any]], stem: str, row: int) -> Takedown:
    found = output.read(f"documents/{stem}", ["id", "source", "uri", "record"]).slice(row, 1).to_pylist()[0]
    uri, record = found["uri"], found["record"]
    for file in ledger:
        if file["status"] == "adopted" and explain.is_of_unit(stem, file["unit"]):
            uri, record = file["uri"], row  # its documents name the files they were first read from
    return Takedown(source=found["source"], uri=uri, record=record, id=found["id"].hex())


def _rows_of(output: Output, units: set[str], uri: str | None = None) -> list[tuple[str, int]]:
    found = []
    for part in output.parts("documents"):
        if any(explain.is_of_unit(part.stem, unit) for unit in units):
            names = output.read(part, ["uri"]).column("uri").to_pylist()
            found += [
                (part.stem, row)
                for row, name in enumerate(names)
                if uri is None or name == uri or name.startswith(f"{uri}!/")
            ]
    return found


def _shards(store: Store, ingest: Output, places: set[tuple[str, int]], outputs: dict[str, None]) -> list[str]:
    """Files made from documents of an ingest output; outputs computed from their tokens are added to `outputs`."""
    stems = {stem for stem, _ in places}
    ids: dict[str, set[bytes]] = {}
    for stem in stems:
        column = ingest.read(f"documents/{stem}", ["id"]).column("id").to_pylist()
        ids[stem] = {column[row] for of, row in places if of == stem}
    found = [ingest.part(f"documents/{stem}").path for stem in sorted(stems)]
    reached = {ingest.digest}
    for stage in (
        "decontaminate",
        "repeats",
        "export-corpus",
        "tokenize",
        "pretrain",
        "finetune",
        "evaluate",
        "release",
        "report",
    ):
        for name in store.folders(f"{OUTPUTS}/{stage}"):
            folder = output_folder(stage, name)
            if not store.exists(f"{folder}/{MANIFEST}"):
                continue
            output = Output.open(store, folder)
            inputs = {value["digest"] for value in output.manifest["inputs"].values()}
            if stage in ("export-corpus", "tokenize"):
                if ingest.digest in inputs and (held := [p.path for p in output.parts() if _holds(output, p, ids)]):
                    found += held
                    reached.add(output.digest)
            elif inputs & (reached if stage in ("decontaminate", "repeats", "report") else reached - {ingest.digest}):
                # Reports, overlaps and repeats quote documents.
                reached.add(output.digest)
                outputs[folder] = None
    return found


def _holds(output: Output, part: Any, ids: Mapping[str, set[bytes]]) -> bool:
    """Whether a token shard or an exported file has one of these documents."""
    # Shards are called STEM-0000, exported files train-STEM.
    named = (part.stem.rpartition("-")[0], part.stem.partition("-")[2])
    stem = next((stem for stem in named if stem in ids), None)
    if stem is None:
        return False
    if not part.path.endswith((".arrow", ".parquet")):
        return True  # JSON lines of that part: not looked into
    table = explain.read_shard(output, part)
    return not ids[stem].isdisjoint(table.column("id").to_pylist())
