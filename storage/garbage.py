"""What may be removed: outputs no run record names, apart from parts that kept outputs refer to, and leftovers."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from storage import leases, manifests, runs
from storage.filesystem import TEMPORARY_PREFIX, Store
from storage.manifests import MANIFEST
from storage.outputs import OUTPUTS, RECEIPTS, SCRATCH, output_folder


@dataclass(frozen=True)
class Garbage:
    """What `collect` found, each with its bytes."""

    folders: dict[str, int]
    """Outputs nothing needs."""
    emptied: dict[str, dict[str, int]]
    """Outputs that are there only for parts others take from them, with the files that go."""
    files: dict[str, int]
    """Temporary files of dead attempts, and scratch files of complete outputs."""
    kept: dict[str, str]
    """Every output folder that stays, and why."""

    @property
    def bytes(self) -> int:
        """All that would be freed."""
        emptied = sum(sum(files.values()) for files in self.emptied.values())
        return sum(self.folders.values()) + emptied + sum(self.files.values())


def find(store: Store, *, temporary_age: float = 3600.0) -> Garbage:
    """Look for what may be removed; nothing is touched.

    An output stays if a run record names it or somebody holds a lease of its stage. Of other outputs those parts stay
    that a kept output takes from them (`path`). Temporary files go when they are older than `temporary_age` seconds.
    """
    kept: dict[str, str] = {}
    for name in runs.names(store):
        record = runs.load(store, name)
        for stage, entry in (record or {}).get("stages", {}).items():
            for folder in (entry.get("output"), entry.get("stopped")):
                if folder:
                    kept.setdefault(output_folder(stage, str(folder)), f"run {name}")
    everything = [
        output_folder(stage, name) for stage in store.folders(OUTPUTS) for name in store.folders(f"{OUTPUTS}/{stage}")
    ]
    at_work = {name.rpartition("-")[0] for name in store.folders(leases.LEASES) if leases.holder_of(store, name)}
    for folder in everything:
        if folder.split("/")[1] in at_work:
            kept.setdefault(folder, "its stage is being worked on, which may go on with it or take parts from it")
    needed: dict[str, set[str]] = {}
    for folder in [folder for folder in kept if store.exists(f"{folder}/{MANIFEST}")]:
        for part in manifests.parts_of(manifests.read(store, folder)):
            other = "/".join(PurePosixPath(part.path).parts[:3])
            if other not in kept or other in needed:
                kept.setdefault(other, f"holds parts of {folder}")
                needed.setdefault(other, set()).add(part.path)
    emptied = {}
    for folder, paths in needed.items():
        # Receipts stay: by them a later generation finds the parts that stay.
        files = {
            path: size
            for path, size in store.listing(folder).items()
            if path not in paths and not path.startswith(f"{folder}/{RECEIPTS}/")
        }
        if files:
            emptied[folder] = files
    leftover = _old_temporaries(store, temporary_age)
    for folder in kept.keys() - emptied.keys():
        if store.exists(f"{folder}/{MANIFEST}"):  # complete: nothing reads its scratch files any more
            leftover.update(store.listing(f"{folder}/{SCRATCH}"))
    doomed = {folder: sum(store.listing(folder).values()) for folder in everything if folder not in kept}
    return Garbage(doomed, emptied, leftover, kept)


def _old_temporaries(store: Store, age: float) -> dict[str, int]:
    found: dict[str, int] = {}
    if store.is_local and store.root.is_dir():
        limit = time.time() - age
        for folder in (OUTPUTS, "runs", "leases", "tmp"):
            for directory, _, files in os.walk(store.local(folder)):
                for file in files:
                    path = Path(directory) / file
                    if not file.startswith(TEMPORARY_PREFIX):
                        continue
                    with contextlib.suppress(FileNotFoundError):  # its writer has just finished
                        status = path.stat()
                        if status.st_mtime < limit:
                            found[path.relative_to(store.root).as_posix()] = status.st_size
    return found


def collect(store: Store, garbage: Garbage) -> None:
    """Remove what `find` found, each output's manifest first, so that half an output never looks complete.

    Each output is leased while it goes; one that somebody has begun to work on since stays.
    """
    for folder in garbage.folders:
        stage, name = folder.split("/")[1:3]
        with contextlib.suppress(leases.LeaseHeldError), leases.Lease(store, f"{stage}-{name.partition('-')[0]}"):
            store.remove(f"{folder}/{MANIFEST}")
            store.remove_tree(folder)
    for folder, files in garbage.emptied.items():
        stage, name = folder.split("/")[1:3]
        with contextlib.suppress(leases.LeaseHeldError), leases.Lease(store, f"{stage}-{name.partition('-')[0]}"):
            # Without its manifest, which goes first, it is an output somebody began: no run takes it for complete.
            for path in sorted(files, key=lambda path: not path.endswith(f"/{MANIFEST}")):
                store.remove(path)
    for path in garbage.files:
        store.remove(path)
