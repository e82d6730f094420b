"""Only what nothing refers to is removed."""

from __future__ import annotations

import os
import time

import pyarrow as pa
import pytest

from storage import garbage, leases, runs
from storage.filesystem import TEMPORARY_PREFIX, Store
from storage.manifests import MANIFEST, Counts, ManifestError, Part
from storage.outputs import Output, PartWriter, complete

SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False)])


def write(store: Store, stage: str, name: str, *, older: tuple[Part, ...] = (), whole: bool = True) -> Output | None:
    """An output of one file, with parts of older outputs, with or without its manifest."""
    folder = f"outputs/{stage}/{name}"
    writer = PartWriter(store, folder, f"key-{name}")
    part = writer.parquet(f"documents/{name}", pa.table({"n": pa.array([1], pa.int64())}), SCHEMA)
    writer.count(read=1, kept=1)
    writer.finish()
    if not whole:
        return None
    return complete(
        store, folder, stage=stage, version=1, fingerprint=name.partition("-")[0], parameters={}, inputs={},
        parts=[*older, part], counts=Counts(1, 1), numerics={}, timings={}, software={}, git={},
    )  # fmt: skip


def record(store: Store, run: str, **stages: str) -> None:
    found = runs.start(store, run, {}, {}, {})
    for stage, name in stages.items():
        runs.set_stage(store, found, stage, output=name)


def swept(store: Store) -> set[str]:
    """The output folders that are left after a collection."""
    garbage.collect(store, garbage.find(store))
    return {"/".join(path.split("/")[1:3]) for path in store.listing("outputs")}


def test_outputs_that_runs_name_stay_and_others_go(store: Store) -> None:
    for stage, name in [("ingest", "aa"), ("ingest", "bb"), ("filter", "cc"), ("filter", "cc-2")]:
        write(store, stage, name)
    record(store, "one", ingest="aa")
    record(store, "two", filter="cc-2")
    found = garbage.find(store)
    assert set(found.folders) == {"outputs/ingest/bb", "outputs/filter/cc"}
    assert found.kept == {"outputs/ingest/aa": "run one", "outputs/filter/cc-2": "run two"}
    assert found.bytes == sum(sum(store.listing(folder).values()) for folder in found.folders) > 0
    assert "outputs/ingest/bb/manifest.json" in store.listing(), "finding touches nothing"
    assert swept(store) == {"ingest/aa", "filter/cc-2"}
    assert garbage.find(store).folders == {}


def test_scratch_files_of_complete_outputs_go_and_those_of_work_stay(store: Store) -> None:
    write(store, "deduplicate", "aa")
    write(store, "select", "bb", whole=False)
    for folder in ("outputs/deduplicate/aa", "outputs/select/bb"):
        store.create(f"{folder}/scratch/buckets-0.arrow", b"left by a killed process")
    record(store, "one", deduplicate="aa", select="bb")
    assert garbage.find(store).files == {"outputs/deduplicate/aa/scratch/buckets-0.arrow": 24}
    assert swept(store) == {"deduplicate/aa", "select/bb"}
    assert not store.listing("outputs/deduplicate/aa/scratch")
    assert store.listing("outputs/select/bb/scratch")


def test_outputs_that_hold_parts_of_kept_ones_stay(store: Store) -> None:
    first = write(store, "ingest", "aa")
    assert first is not None
    second = write(store, "ingest", "bb", older=tuple(first.parts()))
    assert second is not None
    write(store, "ingest", "cc", older=tuple(second.parts()))
    write(store, "ingest", "dd")
    record(store, "one", ingest="cc")
    assert garbage.find(store).kept["outputs/ingest/aa"] == "holds parts of outputs/ingest/cc"
    assert swept(store) == {"ingest/aa", "ingest/bb", "ingest/cc"}
    assert Output.open(store, "outputs/ingest/cc").problems(digests=True) == []


def test_work_in_progress_stays_while_somebody_works_on_its_stage(store: Store) -> None:
    write(store, "ingest", "aa", whole=False)
    write(store, "ingest", "bb")
    write(store, "export-corpus", "cc", whole=False)
    with leases.Lease(store, "ingest-aa"), leases.Lease(store, "export-corpus-dd"):
        assert swept(store) == {"ingest/aa", "ingest/bb", "export-corpus/cc"}, "its units may be taken over"
    assert swept(store) == set()


def test_an_output_somebody_has_begun_to_work_on_since_stays(store: Store) -> None:
    write(store, "ingest", "aa")
    found = garbage.find(store)
    assert list(found.folders) == ["outputs/ingest/aa"]
    with leases.Lease(store, "ingest-aa"):
        garbage.collect(store, found)
        assert store.exists(f"outputs/ingest/aa/{MANIFEST}")


def test_the_manifest_goes_first(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(local_store, "ingest", "aa")

    def fail(store: Store, prefix: str) -> None:
        raise OSError("interrupted")

    monkeypatch.setattr(Store, "remove_tree", fail)
    with pytest.raises(OSError, match="interrupted"):
        garbage.collect(local_store, garbage.find(local_store))
    assert local_store.listing("outputs")
    with pytest.raises(FileNotFoundError):
        Output.open(local_store, "outputs/ingest/aa")


def test_nothing_is_removed_while_a_record_or_a_kept_manifest_cannot_be_read(store: Store) -> None:
    write(store, "ingest", "aa")
    write(store, "ingest", "bb")
    record(store, "one", ingest="aa")
    manifest = store.read_bytes(f"outputs/ingest/aa/{MANIFEST}")
    store.replace(f"outputs/ingest/aa/{MANIFEST}", manifest[:-20])
    with pytest.raises(ManifestError, match="ingest/aa"):
        garbage.find(store)
    store.replace("runs/one.json", b"{")
    with pytest.raises(ValueError, match=r"runs/one\.json"):
        garbage.find(store)


def test_a_run_that_names_an_output_that_is_gone_is_no_trouble(store: Store) -> None:
    record(store, "one", ingest="aa", filter="bb")
    write(store, "filter", "bb", whole=False)
    assert swept(store) == {"filter/bb"}


def test_old_temporary_files_go_and_fresh_ones_stay(local_store: Store) -> None:
    write(local_store, "ingest", "aa")
    record(local_store, "one", ingest="aa")
    folder = local_store.local("outputs/ingest/aa/documents")
    old, fresh = folder / f"{TEMPORARY_PREFIX}1-old", folder / f"{TEMPORARY_PREFIX}1-fresh"
    for file in (old, fresh):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    found = garbage.find(local_store)
    assert found.files == {f"outputs/ingest/aa/documents/{old.name}": 4}
    garbage.collect(local_store, found)
    assert not old.exists()
    assert fresh.exists()


def test_an_empty_workspace_has_no_garbage(store: Store) -> None:
    found = garbage.find(store)
    assert (found.folders, found.files, found.kept, found.bytes) == ({}, {}, {}, 0)
