"""Work that was killed anywhere is taken over, what is complete is immutable, and its files can be held against it."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from storage import manifests, outputs
from storage.arrow_files import write_parquet
from storage.filesystem import Store
from storage.manifests import MANIFEST, Counts, ManifestError, Part
from storage.outputs import Output, PartWriter, Receipt, complete, read_receipt, receipt_path
from tests.storage import processes

FOLDER = "outputs/filter/0123456789abcdef"
SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False)])


def table(*numbers: int) -> pa.Table:
    return pa.table({"n": pa.array(numbers, pa.int64())})


def finish(store: Store, receipts: list[Receipt], folder: str = FOLDER, **changes: Any) -> Output:
    counts = Counts()
    for receipt in receipts:
        counts.add(receipt.counts)
    values: dict[str, Any] = {
        "stage": "filter", "version": 1, "fingerprint": "0123456789abcdef", "parameters": {"seed": 1}, "inputs": {},
        "parts": [part for receipt in receipts for part in receipt.parts], "counts": counts, "numerics": {},
        "timings": {"seconds": 1.0}, "software": {"python": "3.11"}, "git": {},
    }  # fmt: skip
    return complete(store, folder, **(values | changes))


def unit(store: Store, key: str, *numbers: int, folder: str = FOLDER) -> Receipt:
    """A whole unit of work: one table, one JSON file."""
    writer = PartWriter(store, folder, key)
    writer.parquet(f"decisions/{key}", table(*numbers), SCHEMA)
    writer.json(f"about/{key}", {"b": 1, "a": [1, 2]})
    writer.count(read=len(numbers) + 3, kept=len(numbers), dropped={"short": 2}, quarantined={"bad-json": 1})
    writer.notes["seen"] = (1, 2)
    return writer.finish()


# ---------------------------------------------------------------- writing and reading


def test_what_a_unit_wrote_is_read_back(store: Store, tmp_path: Path) -> None:
    writer = PartWriter(store, FOLDER, "k")
    part = writer.parquet("decisions/web-0", table(1, 2), SCHEMA)
    assert part == Part("decisions/web-0", f"{FOLDER}/decisions/web-0.parquet", "k", 2, part.bytes, part.digest)
    assert (part.kind, part.stem) == ("decisions", "web-0")
    assert store.digest(part.path) == part.digest
    assert store.size(part.path) == part.bytes
    writer.ipc("tokens/web-0", table(1, 2, 3), SCHEMA)
    writer.json("scores/all", {"b": 1.5, "a": None}, rows=1)
    writer.bytes("text/readme", b"hello", ".md")
    (tmp_path / "x.bin").write_bytes(b"data")
    writer.file("raw/x", tmp_path / "x.bin", rows=7)
    writer.count(read=3, kept=1, dropped={"a": 1})
    writer.count(read=1, dropped={"a": 1, "b": 0})
    writer.count(quarantined={"bad": 1})
    receipt = writer.finish()
    assert receipt.counts == {"read": 4, "kept": 1, "dropped": {"a": 2}, "quarantined": {"bad": 1}}
    assert read_receipt(store, receipt_path(FOLDER, "k")) == receipt
    output = finish(store, [receipt])
    assert [p.path.removeprefix(f"{FOLDER}/") for p in output.parts()] == [
        "decisions/web-0.parquet", "tokens/web-0.arrow", "scores/all.json", "text/readme.md", "raw/x.bin"
    ]  # fmt: skip
    assert output.parts("decisions") == [part]
    assert output.part("raw/x").rows == 7
    assert output.has("raw/x")
    assert not output.has("raw/y")
    with pytest.raises(KeyError, match=f"{FOLDER} has no part 'raw/y'"):
        output.part("raw/y")
    assert output.read("decisions/web-0").to_pydict() == {"n": [1, 2]}
    assert output.read(part, ["n"]).num_rows == 2
    assert output.read_json("scores/all") == {"a": None, "b": 1.5}
    assert output.local_file("text/readme").read_bytes() == b"hello"
    assert output.local_file("text/readme") == output.local_file("text/readme")
    assert (output.stage, output.fingerprint, output.name) == ("filter", "0123456789abcdef", "0123456789abcdef")
    assert output.counts == receipt.counts
    assert output.problems(digests=True) == []
    assert Output.open(store, FOLDER) == output


def test_a_published_file_does_not_change_with_its_source(local_store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"data")
    part = PartWriter(local_store, FOLDER, "k").file("raw/x", source)
    with source.open("r+b") as stream:
        stream.write(b"XXXX")
    assert local_store.digest(part.path) == part.digest
    assert local_store.read_bytes(part.path) == b"data"


def test_json_that_others_could_not_read_is_refused(store: Store) -> None:
    writer = PartWriter(store, FOLDER, "k")
    with pytest.raises(ValueError, match=r"metrics/loss\.json cannot be written as JSON"):
        writer.json("metrics/loss", {"loss": float("nan")})
    writer.notes["loss"] = float("inf")
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        writer.finish()


def test_a_unit_whose_counts_do_not_add_up_gets_no_receipt(store: Store) -> None:
    writer = PartWriter(store, FOLDER, "k")
    writer.count(read=2, kept=1)
    with pytest.raises(ManifestError, match=f"{FOLDER}, unit k: the counts do not add up"):
        writer.finish()
    assert store.listing() == {}


def test_a_receipt_is_the_same_fresh_and_read_back(store: Store) -> None:
    receipt = unit(store, "k", 1, 2)
    assert receipt.notes == {"seen": [1, 2]}, "as JSON will give it back"
    assert read_receipt(store, receipt_path(FOLDER, "k")) == receipt
    assert json.dumps(read_receipt(store, receipt_path(FOLDER, "k")).notes) == json.dumps(receipt.notes)


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"key": 1, "parts": [{}], "counts": {}}'])
def test_a_damaged_receipt_is_named_with_what_to_do(store: Store, content: bytes) -> None:
    store.create(receipt_path(FOLDER, "k"), content)
    with pytest.raises(ValueError, match=r"receipts/k\.json is not a receipt: .*; remove this file"):
        read_receipt(store, receipt_path(FOLDER, "k"))


# ---------------------------------------------------------------- taking over

WRITE_AND_WAIT = """
import sys, pyarrow as pa
from storage.filesystem import Store
from storage.outputs import PartWriter
schema = pa.schema([pa.field("n", pa.int64(), nullable=False)])
writer = PartWriter(Store(sys.argv[1]), sys.argv[2], "k")
writer.parquet("decisions/0", pa.table({"n": pa.array([1, 2], pa.int64())}), schema)
writer.count(read=2, kept=2)
if sys.argv[3] == "section":
    writer.commit(0, {"lines": [1]})
    writer.parquet("decisions/1", pa.table({"n": pa.array([3], pa.int64())}), schema)
print("written", flush=True)
sys.stdin.readline()
"""


def test_a_file_of_an_attempt_killed_before_its_receipt_is_taken_over(shared_store: Store) -> None:
    child = processes.start(WRITE_AND_WAIT, shared_store.url, FOLDER, "whole")
    processes.wait_for(child, "written")
    processes.kill(child)
    assert list(shared_store.listing()) == [f"{FOLDER}/decisions/0.parquet"]
    writer = PartWriter(shared_store, FOLDER, "k")
    part = writer.parquet("decisions/0", table(1, 2), SCHEMA)
    assert part.path == f"{FOLDER}/decisions/0.parquet"
    writer.count(read=2, kept=2)
    output = finish(shared_store, [writer.finish()])
    assert output.problems(digests=True) == []
    assert len(shared_store.listing(f"{FOLDER}/decisions")) == 1


def test_other_bytes_under_a_name_are_left_alone_and_do_not_change_the_content(store: Store) -> None:
    clean = Store(f"memory://clean-{id(store)}")
    expected = finish(clean, [unit(clean, "0", 1, 2)]).digest
    for _ in range(2):
        writer = PartWriter(store, FOLDER, "dead")
        writer.parquet("decisions/0", table(9), SCHEMA)
    PartWriter(store, FOLDER, "dead").parquet("decisions/0", table(8), SCHEMA)
    receipt = unit(store, "0", 1, 2)
    assert receipt.parts[0].path == f"{FOLDER}/decisions/0~3.parquet"
    assert receipt.parts[0].name == "decisions/0"
    output = finish(store, [receipt])
    assert output.read("decisions/0").to_pydict() == {"n": [1, 2]}
    assert output.digest == expected


def test_a_finished_unit_done_again_gets_its_first_receipt(store: Store) -> None:
    first = unit(store, "k", 1, 2)
    again = unit(store, "k", 1, 2)
    assert again == first
    assert len(store.listing(f"{FOLDER}/decisions")) == 1


def test_a_receipt_whose_files_are_gone_does_not_count(store: Store) -> None:
    first = unit(store, "k", 1, 2)
    store.remove(first.parts[0].path)
    again = unit(store, "k", 1, 2)
    assert again.parts == first.parts
    assert store.digest(first.parts[0].path) == first.parts[0].digest
    store.remove(first.parts[0].path)
    store.create(first.parts[0].path, b"damaged")
    third = unit(store, "k", 1, 2)
    assert third.parts[0].path.endswith("~2.parquet")
    assert read_receipt(store, receipt_path(FOLDER, "k")).parts == third.parts


def test_units_written_by_two_attempts_at_once_come_to_one_output(shared_store: Store) -> None:
    found: list[Receipt] = []
    barrier = threading.Barrier(3)

    def work() -> None:
        barrier.wait()
        found.append(unit(Store(shared_store.url), "k", 1, 2))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({receipt.parts for receipt in found}) == 1
    assert len(shared_store.listing(f"{FOLDER}/decisions")) == 1


# ---------------------------------------------------------------- sections


def write_sections(store: Store, until: int = 3) -> PartWriter:
    """A unit of three sections; those committed by an earlier attempt are not written again."""
    writer = PartWriter(store, FOLDER, "k")
    for section in range(until):
        if not writer.committed(section):
            writer.parquet(f"decisions/{section}", table(section, section), SCHEMA)
            writer.count(read=3, kept=2, dropped={f"rule-{section % 2}": 1})
            writer.commit(section, {"lines": [section], "last": section, "pair": (1, section)})
    return writer


def test_sections_of_an_interrupted_unit_are_taken_over(store: Store) -> None:
    other = Store(f"memory://other-{id(store)}")
    undisturbed = write_sections(other).finish()
    write_sections(store, until=2)
    before = set(store.listing())
    writer = write_sections(store)
    resumed = writer.finish()
    assert set(store.listing()) - before == {
        f"{FOLDER}/decisions/2.parquet", f"{FOLDER}/receipts/k/000002.json", f"{FOLDER}/receipts/k.json"
    }  # fmt: skip
    assert resumed.parts == undisturbed.parts
    assert resumed.counts == undisturbed.counts == {
        "read": 9, "kept": 6, "dropped": {"rule-0": 2, "rule-1": 1}, "quarantined": {}
    }  # fmt: skip
    assert json.dumps(resumed.notes) == json.dumps(undisturbed.notes)
    assert resumed.notes == {"lines": [0, 1, 2], "last": 2, "pair": [1, 0, 1, 1, 1, 2]}


def test_a_section_whose_file_is_gone_or_cut_is_not_taken_over(store: Store) -> None:
    parts = write_sections(store).parts
    store.remove(parts[1].path)
    assert PartWriter(store, FOLDER, "k").committed(0)
    assert not PartWriter(store, FOLDER, "k").committed(1)
    store.create(parts[1].path, b"cut")
    assert not PartWriter(store, FOLDER, "k").committed(1)
    assert not PartWriter(store, FOLDER, "k").committed(7)
    again = write_sections(store)
    assert [p.path.rpartition("/")[2] for p in again.parts] == ["0.parquet", "1~2.parquet", "2.parquet"]
    assert PartWriter(store, FOLDER, "k").committed(1)


def test_a_unit_killed_between_sections_goes_on_at_the_last(shared_store: Store) -> None:
    child = processes.start(WRITE_AND_WAIT, shared_store.url, FOLDER, "section")
    processes.wait_for(child, "written")
    processes.kill(child)
    writer = PartWriter(shared_store, FOLDER, "k")
    assert writer.committed(0)
    assert not writer.committed(1)
    writer.parquet("decisions/1", table(3), SCHEMA)
    writer.count(read=1, kept=1)
    writer.commit(1, {"lines": [2]})
    receipt = writer.finish()
    assert [part.path.rpartition("/")[2] for part in receipt.parts] == ["0.parquet", "1.parquet"]
    assert receipt.counts["read"] == 3
    assert receipt.notes == {"lines": [1, 2]}


# ---------------------------------------------------------------- completing


def test_a_folder_without_a_manifest_is_no_output(store: Store) -> None:
    receipt = unit(store, "k", 1)
    with pytest.raises(FileNotFoundError):
        Output.open(store, FOLDER)
    output = finish(store, [receipt])
    assert Output.open(store, FOLDER).digest == output.digest


def test_the_manifest_is_the_last_file(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[str] = []
    real = Store.publish

    def publish(store: Store, file: Path, path: str, *, durable: bool = True) -> None:
        real(store, file, path, durable=durable)
        published.append(path.removeprefix(f"{FOLDER}/"))

    monkeypatch.setattr(Store, "publish", publish)
    finish(local_store, [unit(local_store, "k", 1)])
    assert published == ["decisions/k.parquet", "about/k.json", "receipts/k.json", MANIFEST]


def test_all_but_scratch_files_are_forced_to_the_disk(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(os.fstat(number).st_ino), real(number))[1])
    writer = PartWriter(local_store, FOLDER, "k")
    parts = [writer.json("scratch/k", 1), writer.json("decisions/k", 1)]
    forced = [local_store.local(part.path).stat().st_ino in synced for part in parts]
    assert forced == [False, True]


def test_completing_twice_keeps_the_first_manifest(store: Store) -> None:
    receipt = unit(store, "k", 1)
    first = finish(store, [receipt])
    second = finish(store, [receipt], timings={"seconds": 99.0})
    assert second.manifest == first.manifest
    other = unit(store, "other", 2)
    with pytest.raises(ManifestError, match=r"completed by another attempt with other content; .*--force"):
        finish(store, [receipt, other])


def test_an_output_cannot_be_completed_without_its_files(store: Store) -> None:
    receipt = unit(store, "k", 1)
    store.remove(receipt.parts[0].path)
    with pytest.raises(ManifestError, match=r"cannot be completed: .*decisions/k\.parquet is missing"):
        finish(store, [receipt])
    assert not store.exists(f"{FOLDER}/{MANIFEST}")


def test_an_output_that_does_not_add_up_cannot_be_completed(store: Store) -> None:
    receipt = unit(store, "k", 1)
    with pytest.raises(ManifestError, match="do not add up"):
        finish(store, [receipt], counts=Counts(1, 0))
    assert not store.exists(f"{FOLDER}/{MANIFEST}")


def test_the_manifest_names_the_content_of_its_inputs(store: Store) -> None:
    source = finish(store, [unit(store, "k", 1)])
    folder = "outputs/select/f-2"
    output = finish(store, [unit(store, "k", 1, folder=folder)], folder, stage="select", inputs={"filter": source})
    assert output.manifest["inputs"] == {"filter": {"fingerprint": source.name, "digest": source.digest}}
    assert output.name == "f-2"


def test_files_about_an_output_are_no_part_of_its_content(store: Store) -> None:
    receipts = []
    for number in (1, 2):
        folder = f"{FOLDER}-{number}"
        writer = PartWriter(store, folder, "k")
        writer.parquet("decisions/0", table(1), SCHEMA)
        writer.json("about/log", {"seconds": number})
        writer.count(read=1, kept=1)
        receipts.append((folder, writer.finish()))
    one, two = (finish(store, [receipt], folder) for folder, receipt in receipts)
    assert one.part("about/log").digest != two.part("about/log").digest
    assert one.digest == two.digest


def test_parts_of_an_older_output_keep_their_name_and_path(store: Store) -> None:
    older = unit(store, "old", 1)
    newer = unit(store, "new", 2, folder="outputs/filter/next")
    output = finish(store, [older, newer], "outputs/filter/next")
    assert output.part("decisions/old").path.startswith(f"{FOLDER}/")
    assert output.read("decisions/old").to_pydict() == {"n": [1]}
    assert output.problems(digests=True) == []


def test_problems_name_what_is_missing_cut_or_changed(store: Store) -> None:
    output = finish(store, [unit(store, "a", 1), unit(store, "b", 2), unit(store, "c", 3), unit(store, "d", 4)])
    assert output.problems() == []
    a, b, c = (output.part(f"decisions/{key}") for key in "abc")
    store.remove(a.path)
    store.replace(b.path, b"short")
    store.replace(c.path, bytes(c.bytes))
    assert output.problems() == [f"{a.path} is missing", f"{b.path} has 5 bytes where {b.bytes} were written"]
    assert output.problems(digests=True)[2:] == [f"{c.path} has other content than its digest says"]


def test_a_local_copy_of_a_remote_part_is_not_taken_for_later_bytes(s3_store: Store) -> None:
    output = finish(s3_store, [unit(s3_store, "k", 1)])
    part = output.part("decisions/k")
    first = output.local_file(part)
    assert first.suffix == ".parquet"
    write_parquet(first.with_name("new"), table(2), SCHEMA)
    other = first.with_name("new").read_bytes()
    s3_store.replace(part.path, other)
    writer = PartWriter(s3_store, FOLDER, "k")
    changed = writer.bytes("decisions/k", other, ".parquet", rows=1)
    assert changed.path == part.path
    assert output.local_file(changed).read_bytes() == other


# ---------------------------------------------------------------- names


def test_outputs_of_a_fingerprint_are_numbered(store: Store) -> None:
    assert outputs.names_of(store, "filter", "f0") == []
    for name in ("f0", "f0-2", "f0-10", "f0-x", "f01"):
        store.create(f"outputs/filter/{name}/x", b"")
    assert outputs.names_of(store, "filter", "f0") == ["f0", "f0-2", "f0-10"]
    assert [outputs.numbered("f0", n) for n in (1, 2)] == ["f0", "f0-2"]


def test_manifest_order_is_kept(store: Store) -> None:
    receipts = [unit(store, key, 1) for key in ("z", "a", "m")]
    output = finish(store, receipts)
    assert [part.stem for part in output.parts("decisions")] == ["z", "a", "m"]
    assert output.digest == manifests.content_digest(output.parts())
