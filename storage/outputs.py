"""Stage outputs: immutable folders `outputs/<stage>/<fingerprint>` that a manifest completes.

A unit of work writes its files through a `PartWriter`; its receipt, created when it is done, is what an interrupted
stage resumes from and what a later generation finds unchanged work by.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from storage import arrow_files, manifests
from storage.filesystem import Store, digest_stream, json_bytes
from storage.fingerprint import hash_of
from storage.manifests import Counts, ManifestError, Part

OUTPUTS = "outputs"
RECEIPTS = "receipts"
SCRATCH = "scratch"
"""The kind of files that only carry from one round of units to the next.

They may be lost with the machine (not with a process): who takes over a receipt compares their digests.
"""


def output_folder(stage: str, name: str) -> str:
    """The path of an output relative to the workspace; `name` is the fingerprint, or "<fingerprint>-2" and so on."""
    return f"{OUTPUTS}/{stage}/{name}"


@dataclass(frozen=True)
class Output:
    """A complete stage output, for reading."""

    store: Store
    folder: str
    manifest: dict[str, Any] = field(repr=False)
    digest: str

    @classmethod
    def open(cls, store: Store, folder: str) -> Output:
        """Read and check the manifest in `folder`.

        Raises
        ------
        FileNotFoundError
            If the output has no manifest: it is not complete.
        ManifestError
            If the manifest is malformed or does not add up.
        """
        manifest = manifests.read(store, folder)
        return cls(store, folder, manifest, manifests.content_digest(manifests.parts_of(manifest)))

    @property
    def stage(self) -> str:
        """The stage that made it."""
        return str(self.manifest["stage"])

    @property
    def fingerprint(self) -> str:
        """The fingerprint of what made it (without the number of a forced rerun)."""
        return str(self.manifest["fingerprint"])

    @property
    def name(self) -> str:
        """The name of its folder."""
        return PurePosixPath(self.folder).name

    @property
    def counts(self) -> dict[str, Any]:
        """read, kept, dropped by reason, quarantined by error."""
        return dict(self.manifest["counts"])

    @cached_property
    def _by_name(self) -> dict[str, Part]:
        return {part.name: part for part in manifests.parts_of(self.manifest)}

    def parts(self, kind: str | None = None) -> list[Part]:
        """All parts, or those of one kind, in manifest order."""
        return [part for part in self._by_name.values() if kind is None or part.kind == kind]

    def part(self, name: str) -> Part:
        """The part called `name`; KeyError naming output and part if there is none."""
        try:
            return self._by_name[name]
        except KeyError:
            raise KeyError(f"{self.folder} has no part {name!r}") from None

    def has(self, name: str) -> bool:
        """Whether there is a part called `name`."""
        return name in self._by_name

    def read(self, part: Part | str, columns: Sequence[str] | None = None) -> pa.Table:
        """A Parquet part as a table."""
        found = self.part(part) if isinstance(part, str) else part
        return arrow_files.read_parquet(self.store, found.path, columns)

    def read_json(self, name: str) -> Any:
        """A JSON part's value."""
        return self.store.read_json(self.part(name).path)

    def local_file(self, part: Part | str) -> Path:
        """The part as a file on this machine's disk; parts of remote stores are copied once into a local folder."""
        return local_file(self.store, self.part(part) if isinstance(part, str) else part)

    def local_folder(self, parts: Sequence[Part]) -> Path:
        """A folder on this machine's disk that holds these parts under their file names, as a checkpoint is read.

        Raises
        ------
        ValueError
            If they lie in several folders of the store.
        """
        folders = {PurePosixPath(part.path).parent for part in parts}
        if len(folders) != 1:
            raise ValueError(f"{self.folder}: these parts do not lie in one folder: {[part.path for part in parts]}")
        if self.store.is_local:
            return self.store.local(str(folders.pop()))
        name = hash_of([part.digest for part in parts])
        copies = [_fetch(self.store, part, name) for part in parts]
        return copies[0].parent

    def problems(self, parts: Sequence[Part] | None = None, *, digests: bool = False) -> list[str]:
        """What is wrong with the files of some parts, or all: missing, of another size or, on request, digest."""
        parts = self.parts() if parts is None else parts
        found = file_problems(self.store, parts)
        if digests:
            for part in parts:
                if part.path not in found and not self.store.has_digest(part.path, part.digest):
                    found[part.path] = f"{part.path} has other content than its digest says"
        return list(found.values())


def local_file(store: Store, part: Part) -> Path:
    """A part as a file on this machine's disk, as `Output.local_file` finds it, of an output still in work too."""
    if store.is_local:
        return store.local(part.path)
    # Under its digest: the same path may hold other bytes once the workspace was cleared and filled again.
    return _fetch(store, part, part.digest.partition(":")[2])


def _fetch(store: Store, part: Part, folder: str) -> Path:
    target = store.scratch() / "cache" / folder / PurePosixPath(part.path).name
    if not (target.exists() and target.stat().st_size == part.bytes):
        store.fetch(part.path, target)
    return target


def file_problems(store: Store, parts: Sequence[Part], sizes: dict[str, int] | None = None) -> dict[str, str]:
    """Files of parts that are missing or of the wrong size, by path; scratch files of other content too.

    `sizes` are those of files that were listed before; it is added to.
    """
    sizes = {} if sizes is None else sizes
    for folder in sorted({str(PurePosixPath(part.path).parent) for part in parts if part.path not in sizes}):
        sizes.update(store.listing(folder))
    found = {}
    for part in parts:
        size = sizes.get(part.path)
        if size is None:
            found[part.path] = f"{part.path} is missing"
        elif size != part.bytes:
            found[part.path] = f"{part.path} has {size} bytes where {part.bytes} were written"
        elif part.kind == SCRATCH and not store.has_digest(part.path, part.digest):
            found[part.path] = f"{part.path} has other content than was written"
    return found


def names_of(store: Store, stage: str, fingerprint: str) -> list[str]:
    """The folder names under which a fingerprint has been tried, oldest first: fp, fp-2, fp-3 …"""
    found = []
    for name in store.folders(f"{OUTPUTS}/{stage}"):
        base, _, number = name.partition("-")
        if base == fingerprint and (not number or number.isdigit()):
            found.append((int(number or 1), name))
    return [name for _, name in sorted(found)]


def numbered(fingerprint: str, number: int) -> str:
    """The folder name of the n-th output of a fingerprint."""
    return fingerprint if number == 1 else f"{fingerprint}-{number}"


@dataclass(frozen=True)
class Receipt:
    """What one unit of work made: its files, its counts, notes for the stage, and the seconds it took."""

    key: str
    parts: tuple[Part, ...]
    counts: dict[str, Any]
    notes: dict[str, Any]
    seconds: float

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Receipt:
        """The receipt a JSON object describes; KeyError, TypeError or ValueError if it is malformed."""
        return cls(
            str(value["key"]),
            tuple(Part.from_json(part, "the receipt") for part in value["parts"]),
            Counts.from_json(value["counts"], "the receipt").as_dict(),
            dict(value["notes"]),
            float(value["seconds"]),
        )


def receipt_path(folder: str, key: str) -> str:
    """Where the receipt of the unit `key` lies in an output folder."""
    return f"{folder}/{RECEIPTS}/{key}.json"


def read_receipt(store: Store, path: str) -> Receipt:
    """The receipt at `path`; ValueError naming the file if it cannot be understood."""
    try:
        return Receipt.from_json(store.read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{store.url}/{path} is not a receipt: {error!r}; remove this file to have its unit of work done again"
        ) from error


class PartWriter:
    """What a unit of work writes its files and counts with.

    Every file is published under its final name at once, or not at all. If the same file is there already (from an
    attempt that was killed before its receipt), it is taken over; if another one is there, the new file gets the next
    free name, and the manifest says which counts.

    Parameters
    ----------
    store, folder
        The workspace and the output folder in it.
    key
        The key of the unit of work.
    """

    def __init__(self, store: Store, folder: str, key: str) -> None:
        self.store = store
        self.folder = folder
        self.key = key
        self.parts: list[Part] = []
        self.counts = Counts()
        self.notes: dict[str, Any] = {}
        self._started = time.monotonic()
        self._section_start = (0, Counts())

    # ---------------------------------------------------------------- files

    def parquet(self, name: str, table: pa.Table, schema: pa.Schema) -> Part:
        """Write a table as the Parquet file `<name>.parquet`."""
        return self._write(name, ".parquet", table.num_rows, lambda f: arrow_files.write_parquet(f, table, schema))

    def ipc(self, name: str, table: pa.Table, schema: pa.Schema) -> Part:
        """Write a table as the Arrow IPC file `<name>.arrow`."""
        return self._write(name, ".arrow", table.num_rows, lambda f: arrow_files.write_ipc(f, table, schema))

    def json(self, name: str, value: Any, rows: int = 0) -> Part:
        """Write a JSON file `<name>.json` with sorted keys."""
        data = json_bytes(value, f"{self.folder}/{name}.json")
        return self._write(name, ".json", rows, lambda f: f.write_bytes(data))

    def bytes(self, name: str, data: bytes, suffix: str, rows: int = 0) -> Part:
        """Write any bytes as the file `<name><suffix>`."""
        return self._write(name, suffix, rows, lambda f: f.write_bytes(data))

    def file(self, name: str, source: Path, rows: int = 0, suffix: str | None = None) -> Part:
        """Publish a copy of a finished local file as `<name><its suffix>`."""
        suffix = source.suffix if suffix is None else suffix
        if not self.store.is_local:
            return self._publish(name, suffix, rows, source)
        # A hard link would let whoever still writes to the source change what is published.
        return self._write(name, suffix, rows, lambda f: shutil.copyfile(source, f))

    def link(self, name: str, source: Path, rows: int = 0) -> Part:
        """Publish a finished local file itself, without a copy where the store lies on the same disk.

        It must never be written to again: `gristmill verify` would find that its digest differs.
        """
        return self._publish(name, source.suffix, rows, source)

    def adopt(self, name: str, path: str, rows: int = 0) -> Part:
        """Take a file that already lies in the store (a checkpoint's, say) as a part."""
        part = Part(name, path, self.key, rows, self.store.size(path), self.store.digest(path))
        self.parts.append(part)
        return part

    def _write(self, name: str, suffix: str, rows: int, write: Any) -> Part:
        with self.store.temporary(f"{self.folder}/{name}{suffix}") as temporary:
            write(temporary)
            return self._publish(name, suffix, rows, temporary)

    def _publish(self, name: str, suffix: str, rows: int, file: Path) -> Part:
        with file.open("rb") as stream:
            digest = digest_stream(stream)
        size = file.stat().st_size
        number = 1
        while True:
            path = f"{self.folder}/{name}{'' if number == 1 else f'~{number}'}{suffix}"
            try:
                self.store.publish(file, path, durable=not name.startswith(f"{SCRATCH}/"))
                break
            except FileExistsError:
                # If it is removed in this moment, its name is free again.
                with contextlib.suppress(FileNotFoundError):
                    if self.store.size(path) == size and self.store.digest(path) == digest:
                        break
                    number += 1
        part = Part(name, path, self.key, rows, size, digest)
        self.parts.append(part)
        return part

    # ---------------------------------------------------------------- counts

    def count(
        self,
        *,
        read: int = 0,
        kept: int = 0,
        dropped: Mapping[str, int] | None = None,
        quarantined: Mapping[str, int] | None = None,
    ) -> None:
        """Add to what this unit read, kept, dropped (by reason) and quarantined (by error)."""
        self.counts.add(Counts(read, kept, dict(dropped or {}), dict(quarantined or {})))

    # ---------------------------------------------------------------- sections of a long unit

    def _section_path(self, section: int) -> str:
        return f"{self.folder}/{RECEIPTS}/{self.key}/{section:06d}.json"

    def committed(self, section: int) -> bool:
        """Take over section number `section` of this unit if an earlier attempt finished it; says whether it did."""
        path = self._section_path(section)
        if not self.store.exists(path):
            return False
        receipt = read_receipt(self.store, path)
        if file_problems(self.store, receipt.parts):
            return False
        self.parts.extend(receipt.parts)
        self.counts.add(receipt.counts)
        self._merge_notes(receipt.notes)
        self._begin_section()
        return True

    def _begin_section(self) -> None:
        before = Counts()
        before.add(self.counts)
        self._section_start = (len(self.parts), before)

    def commit(self, section: int, notes: Mapping[str, Any] | None = None) -> None:
        """Record everything written since the last section, so that another attempt need not do it again.

        `notes` are values the stage wants back in `finish`; lists of several sections are joined.
        """
        start, before = self._section_start
        counts = Counts(self.counts.read - before.read, self.counts.kept - before.kept)
        for mine, now, then in (
            (counts.dropped, self.counts.dropped, before.dropped),
            (counts.quarantined, self.counts.quarantined, before.quarantined),
        ):
            mine.update({k: n - then.get(k, 0) for k, n in now.items() if n - then.get(k, 0)})
        path = self._section_path(section)
        kept = json.loads(json_bytes(dict(notes or {}), f"{self.store.url}/{path}, notes", indent=None))
        self._create_receipt(path, self.parts[start:], counts, kept, seconds=0.0)
        self._merge_notes(kept)
        self._begin_section()

    def _merge_notes(self, notes: Mapping[str, Any]) -> None:
        for name, value in notes.items():
            if isinstance(value, list):
                self.notes.setdefault(name, []).extend(value)
            else:
                self.notes[name] = value

    def finish(self) -> Receipt:
        """Create the receipt of the whole unit; ManifestError if its counts do not add up."""
        self.counts.check(f"{self.folder}, unit {self.key}")
        seconds = time.monotonic() - self._started
        return self._create_receipt(receipt_path(self.folder, self.key), self.parts, self.counts, self.notes, seconds)

    def _create_receipt(
        self, path: str, parts: Iterable[Part], counts: Counts, notes: dict[str, Any], seconds: float
    ) -> Receipt:
        receipt = Receipt(self.key, tuple(parts), counts.as_dict(), notes, seconds)
        # Written once a unit, so without what takes longer than the rest: an indent, and a deep copy of the notes.
        value = {**vars(receipt), "parts": [vars(part) for part in receipt.parts]}
        data = json_bytes(value, path, indent=None)
        try:
            self.store.create(path, data)
        except FileExistsError:
            # Another attempt was first. What it recorded counts if its files are still there, else this one's.
            other = read_receipt(self.store, path)
            if not file_problems(self.store, other.parts):
                return other
            self.store.replace(path, data)
        # As it will be read back (tuples are lists, keys are sorted), so that resuming makes no difference.
        return Receipt.from_json(json.loads(data))


def complete(
    store: Store,
    folder: str,
    *,
    stage: str,
    version: int,
    fingerprint: str,
    parameters: Any,
    inputs: Mapping[str, Output],
    parts: Sequence[Part],
    counts: Counts,
    numerics: Mapping[str, Any],
    timings: Mapping[str, Any],
    software: Mapping[str, str],
    git: Mapping[str, Any],
) -> Output:
    """Create the manifest of `folder`, the last file of an output, and open it.

    If another attempt completed the folder first, its manifest stands: it is opened, and ManifestError is raised if
    its content differs from this one's. ManifestError too if the counts do not add up or a file is not there.
    """
    if missing := list(file_problems(store, parts).values()):
        raise ManifestError(f"{store.url}/{folder} cannot be completed: {'; '.join(missing[:5])}")
    manifest = manifests.build(
        stage=stage,
        version=version,
        fingerprint=fingerprint,
        parameters=parameters,
        inputs={name: {"fingerprint": o.name, "digest": o.digest} for name, o in inputs.items()},
        parts=parts,
        counts=counts,
        numerics=numerics,
        timings=timings,
        software=software,
        git=git,
    )
    try:
        store.create_json(f"{folder}/{manifests.MANIFEST}", manifest)
    except FileExistsError:
        other = Output.open(store, folder)
        if other.digest != manifests.content_digest(parts):
            raise ManifestError(
                f"{store.url}/{folder} was completed by another attempt with other content; "
                "rerun the stage with --force to keep both and compare them"
            ) from None
        return other
    return Output.open(store, folder)
