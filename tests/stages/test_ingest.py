"""Generations of ingest: what grew is read, what is gone leaves a mark, what must go goes, nothing is read twice."""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.config import IngestConfig, RedactConfig, SourceConfig
from corpus.texts import document_id
from stages import explain, takedown
from stages.base import Context, GateError, Resources, StageError
from stages.config import RunConfig
from stages.ingest import Ingest
from stages.plan import Selection
from stages.pool import WorkerPool
from stages.runner import PlainBatches, StageResult
from stages.session import Session
from storage import garbage
from storage.outputs import Output, PartWriter
from tests.stages.toys import Silent


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as found:
        yield found


class Corpus:
    """A folder of JSON lines and the runs over it."""

    def __init__(self, folder: Path, pool: WorkerPool, kind: str = "jsonl", **source: Any) -> None:
        self.folder = folder / "in"
        self.folder.mkdir()
        self.workspace = folder / "ws"
        self.pool = pool
        self.source = SourceConfig(name="web", kind=kind, path=str(self.folder), **source)  # type: ignore[arg-type]

    def write(self, name: str, *texts: str) -> None:
        data = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
        (self.folder / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)

    def session(self, verify: bool = False, **settings: Any) -> Session:
        config = RunConfig(
            ingest=IngestConfig(sources=(self.source,), **settings),
            workspace=str(self.workspace),
            how=Resources(workers=2, verify_inputs=verify),
        )
        return Session(config, Selection(until="ingest"))

    def run(self, verify: bool = False, **settings: Any) -> StageResult:
        session = self.session(verify, **settings)
        with session.attempt():
            return session.run("ingest", PlainBatches(self.pool, 0), Silent())


@pytest.fixture
def corpus(tmp_path: Path, pool: WorkerPool) -> Corpus:
    return Corpus(tmp_path, pool)


def texts(output: Output) -> list[str]:
    return [text for part in output.parts("documents") for text in output.read(part, ["text"])["text"].to_pylist()]


def ledger(output: Output) -> dict[str, dict[str, Any]]:
    return {row["uri"]: row for row in output.read("about/ledger").to_pylist()}


def test_growth_reads_what_is_new_and_a_deleted_file_leaves_a_tombstone(corpus: Corpus) -> None:
    corpus.write("a.jsonl", "one", "two")
    corpus.write("b.jsonl.gz", "two", "three")
    first = corpus.run()
    assert ledger(first.output)["b.jsonl.gz"]["duplicates"] + ledger(first.output)["a.jsonl"]["duplicates"] == 1
    corpus.write("c.jsonl", "four")
    (corpus.folder / "a.jsonl").unlink()
    second = corpus.run()
    assert (second.units, second.units_done_here) == (2, 1)
    assert sorted(texts(second.output)) == ["four", "three", "two"]
    rows = ledger(second.output)
    assert {uri: row["status"] for uri, row in rows.items()} == {
        "a.jsonl": "tombstone", "b.jsonl.gz": "read", "c.jsonl": "read",
    }  # fmt: skip
    assert rows["a.jsonl"]["written"] == 2
    assert sum(row["written"] for row in rows.values() if row["status"] == "read") == second.output.counts["kept"] == 3
    corpus.write("d.jsonl", "five")
    assert ledger(corpus.run().output)["a.jsonl"]["status"] == "tombstone", "a mark stays for later generations"
    corpus.write("a.jsonl", "back")
    assert ledger(corpus.run().output)["a.jsonl"]["status"] == "read"


def test_what_differs_by_history_only_is_not_in_the_content(corpus: Corpus, tmp_path: Path, pool: WorkerPool) -> None:
    corpus.write("a.jsonl", "one")
    corpus.write("b.jsonl", "two")
    corpus.run()
    (corpus.folder / "a.jsonl").unlink()
    with_history = corpus.run().output
    corpus.workspace = tmp_path / "other"
    assert corpus.run().output.digest == with_history.digest


def test_verify_tells_touched_from_changed(corpus: Corpus) -> None:
    corpus.write("a.jsonl", "one")
    corpus.write("b.jsonl", "two")
    first = corpus.run()
    stamps = {name: (corpus.folder / name).stat() for name in ("a.jsonl", "b.jsonl")}
    os.utime(corpus.folder / "a.jsonl", ns=(1, 1))
    corpus.write("b.jsonl", "six")  # as long as before
    os.utime(corpus.folder / "b.jsonl", ns=(stamps["b.jsonl"].st_atime_ns, stamps["b.jsonl"].st_mtime_ns))
    assert corpus.run(verify=True).units_done_here == 1
    again = corpus.run()
    assert not again.worked, "what was found by reading is remembered"
    assert sorted(texts(again.output)) == ["one", "six"]
    assert again.output.name != first.output.name


def test_verify_works_for_python_documentation_too(tmp_path: Path, pool: WorkerPool) -> None:
    corpus = Corpus(tmp_path, pool, kind="python-docs")
    module = corpus.folder / "package" / "module.py"
    module.parent.mkdir()
    module.write_text('"""Tells what a package is for."""\n')
    corpus.run()
    os.utime(module, ns=(1, 1))
    assert not corpus.run(verify=True).worked
    module.write_text('"""Tells what a package was for."""\n')
    assert texts(corpus.run(verify=True).output) == ["Tells what a package was for."]
    os.utime(module, ns=(2, 2))
    corpus.run(verify=True)
    second = module.with_name("second.py")
    second.write_text('"""Another one, read in the same unit."""\n')
    assert len(texts(corpus.run(verify=True).output)) == 2, "a file whose etag was replaced is opened by what was seen"


def test_a_takedown_removes_every_copy_names_what_held_it_and_gc_removes_the_text(corpus: Corpus) -> None:
    corpus.write("a.jsonl", "keep a", "secret")
    corpus.write("b.jsonl", "secret", "keep b")
    corpus.write("c.jsonl", "keep c")
    first = corpus.run()
    store = first.output.store
    found = takedown.find(store, [document_id("secret").hex()], [], [])
    assert {(entry.uri, entry.record) for entry in found.entries} == {("a.jsonl", 1), ("b.jsonl", 0)}
    assert len(found.shards) == 2
    assert takedown.find(store, [], ["a.jsonl#1"], []).entries[0] in found.entries
    takedown.write(store, found, "asked for")
    second = corpus.run()
    assert second.units_done_here == 2, "the third file is not read again"
    assert sorted(texts(second.output)) == ["keep a", "keep b", "keep c"]
    assert second.output.counts["dropped"] == {"takedown": 2}
    garbage.collect(store, garbage.find(store))
    left = b"".join(path.read_bytes() for path in corpus.workspace.rglob("*.parquet"))
    assert b"secret" not in left
    assert not corpus.run().worked
    assert sorted(texts(corpus.run().output)) == ["keep a", "keep b", "keep c"]
    corpus.write("d.jsonl", "new", "secret")
    assert "secret" not in texts(corpus.run().output), "a new copy does not get in either"


def test_takedowns_of_files_and_sources(corpus: Corpus) -> None:
    corpus.write("a.jsonl", "one")
    corpus.write("b.jsonl", "two")
    store = corpus.run().output.store
    with pytest.raises(StageError, match=r"no run of .* has the uri 'x.jsonl'"):
        takedown.find(store, [], ["x.jsonl"], [])
    with pytest.raises(StageError, match="has the source 'nobody'"):
        takedown.find(store, [], [], ["nobody"])
    assert len(takedown.find(store, [], [], ["web"]).shards) == 2
    takedown.write(store, takedown.find(store, [], ["web:a.jsonl"], []), "")
    second = corpus.run().output
    assert texts(second) == ["two"]
    assert ledger(second)["a.jsonl"]["status"] == "takedown"
    assert ledger(second)["a.jsonl"]["written"] == 1


def test_a_source_of_which_nothing_could_be_read_stops_the_run_until_that_is_allowed(corpus: Corpus) -> None:
    (corpus.folder / "a.jsonl").write_text('{"txt": "one"}\n{"txt": "two"}\nnothing\n', encoding="utf-8")
    reason = r"source 'web': not one of its 3 records became a document \((missing-text 2, bad-json 1)\)"
    for _ in range(2):  # a finished output is judged again
        with pytest.raises(GateError, match=reason):
            corpus.run()
    allowed = corpus.run(empty_sources="allow")
    assert not allowed.worked
    assert allowed.output.counts["quarantined"] == {"bad-json": 1, "missing-text": 2}
    corpus.write("b.jsonl", "one that is right")
    assert corpus.run().output.counts["kept"] == 1
    (corpus.folder / "a.jsonl").write_text("", encoding="utf-8")
    (corpus.folder / "b.jsonl").write_text("", encoding="utf-8")
    assert corpus.run().output.counts["read"] == 0  # nothing was there to be read: no setting is wrong


def test_a_large_file_is_several_units_under_one_line_of_the_ledger(corpus: Corpus) -> None:
    corpus.write("a.jsonl", *(f"document {number}" for number in range(3000)))
    first = corpus.run(part_bytes=2000)
    assert first.units > 3
    [row] = first.output.read("about/ledger").to_pylist()
    assert (row["records"], row["written"]) == (3000, 3000)
    assert row["sha256"] is not None
    record = {"stages": {"ingest": {"output": first.output.name}}}
    answer = explain.why(first.output.store, record, "a.jsonl#2345")
    assert answer["documents"][0]["excerpt"] == "document 2345"
    with pytest.raises(StageError, match="has 3,000 records"):
        explain.why(first.output.store, record, "a.jsonl#3000")


def test_an_interrupted_unit_goes_on_where_it_stopped(corpus: Corpus) -> None:
    corpus.write("a.jsonl.gz", *(f"document {number} " + "word " * 50 for number in range(400)))
    session = corpus.session(part_bytes=10_000)
    stage = session.stages["ingest"]
    assert isinstance(stage, Ingest)
    start = PartWriter(session.store, "outputs/ingest/x", "start").finish()
    [unit] = stage.units({}, start)
    checks = 0

    def stop() -> None:
        nonlocal checks
        checks += 1
        if checks == 5:
            raise KeyboardInterrupt

    def context(check: Any) -> Context:
        return Context(Resources(), corpus.workspace, "", "", lambda _: None, check)

    whole = PartWriter(session.store, "outputs/ingest/whole", unit.key)
    stage.run_unit(unit, {}, whole, context(lambda: None))
    with pytest.raises(KeyboardInterrupt):
        stage.run_unit(unit, {}, PartWriter(session.store, "outputs/ingest/x", unit.key), context(stop))
    told: list[int] = []
    again = PartWriter(session.store, "outputs/ingest/x", unit.key)
    stage.run_unit(unit, {}, again, context(lambda: told.append(1)))
    assert [(p.name, p.digest) for p in again.parts] == [(p.name, p.digest) for p in whole.parts]
    assert again.counts == whole.counts
    assert again.notes == whole.notes
    assert len(whole.parts) > 8


def test_document_parts_of_elsewhere_are_adopted_without_a_copy(tmp_path: Path, pool: WorkerPool) -> None:
    (tmp_path / "first").mkdir()
    first = Corpus(tmp_path / "first", pool)
    first.write("a.jsonl", "one", "two")
    made = first.run().output
    (tmp_path / "second").mkdir()
    second = Corpus(tmp_path / "second", pool, kind="parquet", adopt=True)
    [part] = made.parts("documents")
    os.link(made.store.local(part.path), second.folder / "part.parquet")
    pq.write_table(pa.table({"text": ["three"]}), second.folder / "other.parquet")
    wrong = made.read(part)
    wrong = wrong.set_column(1, wrong.schema.field("text"), pa.array(["one", "forged"], pa.large_string()))
    pq.write_table(wrong, second.folder / "wrong.parquet")
    output = second.run().output
    rows = ledger(output)
    assert {uri: row["status"] for uri, row in rows.items()} == {
        "other.parquet": "read", "part.parquet": "adopted", "wrong.parquet": "read",
    }  # fmt: skip
    assert sorted(texts(output)) == ["forged", "one", "one", "three", "two"]
    assert sum(row["duplicates"] for row in rows.values()) == 1
    adopted = next(p for p in output.parts("documents") if p.digest == part.digest)
    assert os.path.samefile(output.store.local(adopted.path), second.folder / "part.parquet")
    record = {"stages": {"ingest": {"output": output.name}}}
    assert explain.why(output.store, record, "part.parquet#1")["documents"][0]["excerpt"] == "two"
    found = takedown.find(output.store, [], ["part.parquet#1"], [])
    takedown.write(output.store, found, "")
    after = second.run().output
    assert sorted(texts(after)) == ["forged", "one", "one", "three"]


def test_personal_data_in_names_is_not_written_down_and_why_and_takedown_still_find_it(
    corpus: Corpus, tmp_path: Path
) -> None:
    (corpus.folder / "ann@example.org").mkdir()
    corpus.write("ann@example.org/1.jsonl", "one", "two")
    corpus.write("carl@example.org.jsonl", "three")
    with zipfile.ZipFile(corpus.folder / "z.zip", "w") as archive:
        archive.writestr("dora@example.org/x.jsonl", '{"text": "four"}\n{}\n')
        archive.writestr("plain.jsonl", '{"text": "five"}')
    redact = RedactConfig(kinds=("email",))
    output = corpus.run(redact=redact).output
    assert sorted(texts(output)) == ["five", "four", "one", "three", "two"]
    for table in (output.read("about/ledger"), *map(output.read, output.parts("documents"))):
        assert not any("example.org" in uri for uri in table["uri"].to_pylist())
    assert not any(b"example.org" in file.read_bytes() for file in corpus.workspace.rglob("*.json"))
    for query, stored in (
        ("ann@example.org/1.jsonl", "<EMAIL>/1.jsonl~pibekhigpnke"),
        ("web:ann@example.org/1.jsonl", "<EMAIL>/1.jsonl~pibekhigpnke"),
        ("<EMAIL>/1.jsonl~pibekhigpnke", "<EMAIL>/1.jsonl~pibekhigpnke"),
        ("z.zip!/dora@example.org/x.jsonl", "z.zip!/<EMAIL>/x.jsonl~bckpbcbbdbke"),
        ("z.zip!/plain.jsonl", "z.zip!/plain.jsonl"),
    ):
        [(kind, stem, row)] = explain.find_record(output, query, 0)
        assert kind == "documents"
        assert output.read(f"documents/{stem}")["uri"][row].as_py() == stored
    [(kind, _, _)] = explain.find_record(output, "z.zip!/dora@example.org/x.jsonl", 1)
    assert kind == "quarantine"
    again = corpus.run(redact=redact, verify=True)
    assert not again.worked
    corpus.write("b.jsonl", "six")
    assert corpus.run(redact=redact).units_done_here == 1, "names stay the same from one generation to the next"
    found = takedown.find(output.store, [], ["ann@example.org/1.jsonl#1"], [])
    assert [(entry.uri, entry.record) for entry in found.entries] == [("<EMAIL>/1.jsonl~pibekhigpnke", 1)]
    assert sorted(texts(corpus.run(redact=redact, takedown=found.entries).output)) == [
        "five", "four", "one", "six", "three",
    ]  # fmt: skip


def test_why_says_that_an_archive_has_members_and_that_a_record_was_skipped(corpus: Corpus) -> None:
    with zipfile.ZipFile(corpus.folder / "z.zip", "w") as archive:
        archive.writestr("plain.jsonl", '{"text": "five"}')
        archive.writestr("other.bin", "x")
    output = corpus.run().output
    with pytest.raises(StageError, match=r"z\.zip is an archive; .* e\.g\. z\.zip!/plain\.jsonl#0"):
        explain.find_record(output, "z.zip", 0)
    with pytest.raises(StageError, match="this record was skipped, or is not there"):
        explain.find_record(output, "z.zip!/other.bin", 0)
