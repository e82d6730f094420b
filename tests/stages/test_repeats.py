"""Repeats over parts: the same cuts for any workers, files and interruptions; only what changed is done again."""

from __future__ import annotations

import random
import secrets
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from corpus.config import ExportConfig, IngestConfig, SourceConfig
from corpus.cuts import apply_cuts
from corpus.documents import document_id
from data_quality.quality_config import CutsConfig
from data_quality.repeats import CANDIDATES, FRAGMENTS, PLACES, REPEATED, merge
from data_quality.repeats_config import RepeatsConfig
from stages.base import Resources, StageError
from stages.config import QualityStageConfig, RunConfig
from stages.graph import make_stage, make_stages
from stages.pool import WorkerPool
from stages.repeats import ROW_BYTES, Repeats
from stages.runner import PlainBatches, StageResult, run_stage
from storage.arrow_files import open_parquet
from storage.filesystem import Store
from storage.outputs import Output, PartWriter
from tests.stages.corpora import Parts, inputs
from tests.stages.toys import Silent
from tests.storage import processes

MEMORY = 512 << 20
CONFIG = RepeatsConfig(line_documents=2, paragraph_documents=2, substring_words=8)
BOILERPLATE = "Subscribe to our newsletter today"
QUOTED = "it was the best of times it was the worst of times it was the age of wisdom"


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as found:
        yield found


def corpus(parts: int = 4, documents: int = 6) -> Parts:
    """Texts of their own words, some of them with lines, and with a quotation, that others have too."""
    chance = random.Random(1)
    found: Parts = {}
    for part in range(parts):
        texts = []
        for document in range(documents):
            words = [f"w{chance.randrange(10**6)}" for _ in range(30)]
            if document % 2:
                words[10:10] = QUOTED.split() if document % 3 else QUOTED.upper().replace(" ", ", ").split(" ")
            texts.append(" ".join(words) + ("\n" + BOILERPLATE if document % 3 == 0 else "") + "\n")
        found[f"web-{part}"] = texts
    return found


def run(
    store: Store,
    pool: WorkerPool,
    parts: Parts,
    config: RepeatsConfig = CONFIG,
    memory: int = MEMORY,
    **options: Any,
) -> StageResult:
    read = inputs(store, parts, **options)
    return run_stage(Repeats(config, memory), store, read, Resources(workers=2), PlainBatches(pool, 0), Silent())


def cuts(output: Output) -> dict[str, list[dict[str, Any]]]:
    return {
        row["id"].hex(): row["spans"] for part in output.parts("cuts") for row in output.read(part).to_pylist()
    }  # fmt: skip


def left(output: Output, parts: Parts) -> list[str]:
    """The texts with cuts applied."""
    found = []
    for stem, texts in parts.items():
        spans = output.read(f"cuts/{stem}", ["spans"]).column("spans")
        found += apply_cuts(pa.array(texts, pa.large_string()), spans).to_pylist()
    return found


def test_lines_go_everywhere_and_a_quotation_stays_in_one_document(local_store: Store, pool: WorkerPool) -> None:
    parts = corpus()
    output = run(local_store, pool, parts).output
    texts = left(output, parts)
    assert output.counts["read"] == output.counts["kept"] == len(texts) == 24
    assert not any(BOILERPLATE in text for text in texts)
    assert sum("best" in text or "BEST" in text for text in texts) == 1
    holders = [text for texts in parts.values() for text in texts if "best" in text.lower()]
    smallest = min(document_id(text).hex() for text in holders)
    assert "repeated-words" not in {span["reason"] for span in cuts(output)[smallest]}
    about = output.read_json("about/repeats")
    assert about["totals"]["line"]["spans"] == sum(text.count(BOILERPLATE) for t in parts.values() for text in t)
    assert about["totals"]["words"]["documents"] == len(holders) - 1
    assert about["most"][0] == {"kind": "line", "text": BOILERPLATE, "documents": 8}
    assert about["hash_collisions"] == 0


def test_the_cuts_do_not_depend_on_workers_files_and_rows(tmp_path: Path, pool: WorkerPool) -> None:
    parts = corpus()
    texts = [text for some in parts.values() for text in some]
    random.Random(2).shuffle(texts)
    whole = run(Store(tmp_path / "a"), pool, parts).output
    for workers in (1, 3):
        with WorkerPool(workers) as other:
            assert run(Store(tmp_path / f"b{workers}"), other, parts).output.digest == whole.digest
    divided = {"web-0": texts[:1], "web-1": [], "web-2": texts[1:20], "web-3": texts[20:]}
    assert cuts(run(Store(tmp_path / "c"), pool, divided).output) == cuts(whole)
    assert len({str(spans) for spans in cuts(whole).values()}) > 5


def test_hashes_that_do_not_fit_in_memory_are_merged_by_ranges(tmp_path: Path) -> None:
    results = {}
    for workers in (1, 2, 3):
        with WorkerPool(workers) as other:
            for memory in (4_000, MEMORY):
                results[workers, memory] = run(Store(tmp_path / f"{workers}-{memory}"), other, corpus(), memory=memory)
    assert len({result.output.digest for result in results.values()}) == 1
    assert results[1, MEMORY].units == 16
    assert results[1, 4_000].units > 30


@pytest.mark.parametrize(
    ("kind", "given", "schema"), [("candidates", FRAGMENTS, CANDIDATES), ("repeated", PLACES, REPEATED)]
)
def test_a_merge_takes_no_more_memory_than_is_planned_for_a_row(kind: str, given: pa.Schema, schema: pa.Schema) -> None:
    def held(rows: int) -> list[dict[str, Any]]:
        hashes = np.sort(np.random.default_rng(1).integers(0, 2**62, rows // 4, np.uint64)) << np.uint64(2)
        return [
            {field.name: np.ones(rows // 4, field.type.to_pandas_dtype()) for field in given} | {"hash": hashes.copy()}
            for _ in range(4)
        ]

    config = RepeatsConfig(line_documents=1)
    merge(held(400), [True] * 4, schema, config)  # compiled
    rows = 400_000
    tracemalloc.start()
    parts = held(rows)
    tracemalloc.reset_peak()
    table = merge(parts, [True] * 4, schema, config)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table.num_rows == rows, "all of them are repeated"
    assert peak <= rows * ROW_BYTES[kind]


def test_ranges_of_hashes_are_read_by_row_groups(
    local_store: Store, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {**corpus(), "web-4": []}
    whole = run(local_store, pool, parts).output
    monkeypatch.setattr("storage.arrow_files.ROW_GROUP_ROWS", 3)
    # The units of a store in memory run in this process, where row groups are small now.
    store = Store(f"memory://{secrets.token_hex(4)}")
    divided = run(store, pool, parts, memory=4_000).output
    assert cuts(divided) == cuts(whole)
    with open_parquet(store, divided.part("fragments/web-0").path) as file:
        assert file.num_row_groups > 10


def test_documents_that_were_dropped_are_neither_counted_nor_cut(local_store: Store, pool: WorkerPool) -> None:
    texts = [f"{BOILERPLATE}\nbody number {number}" for number in range(3)]
    assert all(cuts(run(local_store, pool, {"web-0": texts}).output).values())
    output = run(local_store, pool, {"web-0": texts}, dropped=frozenset(texts[:1])).output
    assert output.counts["read"] == 3
    assert not any(cuts(output).values())


def test_text_leaves_the_house_without_the_cuts_of_quality_and_repeats(local_store: Store, pool: WorkerPool) -> None:
    boilerplate = f"{BOILERPLATE}\nPlease read our privacy policy.\n"
    parts = {"web-0": [*(f"{boilerplate}body number {number}" for number in range(3)), boilerplate]}
    read = inputs(local_store, parts)
    config = RunConfig(
        ingest=IngestConfig(sources=(SourceConfig(name="web", kind="jsonl", path="in"),)),
        quality=QualityStageConfig(cuts=CutsConfig(producers=("policy-lines",))),
        repeats=replace(CONFIG, substring_words=None),
        export_corpus=ExportConfig(jsonl=False),
    )
    for name in ("quality", "repeats", "export-corpus"):
        stage = make_stage(name, config)
        assert stage is not None
        needs = {need: read[need] for need in stage.needs}
        read[name] = run_stage(stage, local_store, needs, Resources(), PlainBatches(pool, 0), Silent()).output
    exported = read["export-corpus"]
    assert exported.counts == {"read": 4, "kept": 3, "dropped": {"empty after cuts": 1}, "quarantined": {}}
    texts = exported.read("parquet/train-web-0", ["text"]).column("text").to_pylist()
    assert texts == [f"body number {number}" for number in range(3)]


def test_growth_does_again_only_parts_in_which_the_repeats_change(local_store: Store, pool: WorkerPool) -> None:
    parts = corpus()
    first = run(local_store, pool, parts)
    assert (first.units, first.units_done_here) == (16, 16)  # two more a round between those of the parts
    unrelated = run(local_store, pool, {**parts, "web-9": ["nothing that anybody else has said before now"]})
    assert (unrelated.units, unrelated.units_done_here) == (19, 3 + 4)
    one = {**parts, "web-a": ["one line of its own, twice"], "web-b": ["one line of its own, twice\nmore"]}
    second = run(local_store, pool, one)
    third = run(local_store, pool, {**one, "web-c": ["one line of its own, twice\nagain"]})
    assert second.units_done_here == 6 + 4
    assert third.units_done_here == 3 + 4 + 2 + 2, "the new part, and the last rounds of the two that share its line"


def test_counts_of_named_sources_are_frozen(local_store: Store, pool: WorkerPool) -> None:
    parts = corpus()
    first = run(local_store, pool, parts)
    frozen = replace(CONFIG, counted_sources=("web",))
    assert run(local_store, pool, parts, frozen).units_done_here == 0
    new = {"new-0": [f"{BOILERPLATE}\nnew line of all\n{number}" for number in range(5)]}
    grown = run(local_store, pool, {**new, **parts}, frozen)
    assert grown.units_done_here == 3 + 4
    found, before = cuts(grown.output), cuts(first.output)
    assert {name: spans for name, spans in found.items() if name in before} == before
    assert [left(grown.output, new)[0], len(found)] == ["new line of all\n0", 29]


_RUN = """
import sys
from stages.base import Resources
from stages.pool import WorkerPool
from stages.repeats import ROW_BYTES, Repeats
from stages.runner import PlainBatches, run_stage
from storage.filesystem import Store
from tests.stages.corpora import inputs
from tests.stages.test_repeats import CONFIG, corpus
from tests.stages.toys import Silent

class Says(Silent):
    rounds = 0
    def started(self, *values):
        self.rounds += 1
    def advanced(self, *values):
        print(f"round {self.rounds}", flush=True)

if __name__ == "__main__":
    store = Store(sys.argv[1])
    with WorkerPool(1) as pool:
        run_stage(Repeats(CONFIG, 10_000), store, inputs(store, corpus()), Resources(), PlainBatches(pool, 0), Says())
"""


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6, 7])
def test_a_stage_killed_in_any_round_goes_on_to_the_same_bytes(tmp_path: Path, pool: WorkerPool, number: int) -> None:
    script = tmp_path / "run.py"
    script.write_text(_RUN)
    process = processes.start(
        f"import runpy, sys; sys.argv = ['run', sys.argv[1]]; sys.path.insert(0, '.'); "
        f"runpy.run_path({str(script)!r}, run_name='__main__')",
        str(tmp_path / "killed"),
    )
    processes.wait_for(process, f"round {number}")
    processes.kill(process)
    resumed = run(Store(tmp_path / "killed"), pool, corpus(), memory=10_000)
    assert 0 < resumed.units - resumed.units_done_here < resumed.units
    assert resumed.output.digest == run(Store(tmp_path / "whole"), pool, corpus()).output.digest


def test_passages_whose_hashes_collide_stop_the_stage(local_store: Store) -> None:
    stage = Repeats(CONFIG, MEMORY)
    receipts = [PartWriter(local_store, "outputs/repeats/x", str(number)) for number in range(2)]
    for writer in receipts:
        writer.notes["collisions"] = [["77", 4, 0, 1]]
    made = [writer.finish() for writer in receipts]
    with pytest.raises(StageError, match=r"hash 77.* set repeats\.seed to another number than 0"):
        stage.finish({}, made, PartWriter(local_store, "outputs/repeats/x", "finish"))
    stage.finish({}, made[:1], PartWriter(local_store, "outputs/repeats/x", "finish"))  # 3 documents are enough


def test_memory_is_what_the_run_gives_a_worker() -> None:
    source = SourceConfig(name="web", kind="jsonl", path="in")
    config = RunConfig(
        ingest=IngestConfig(sources=(source,)), repeats=RepeatsConfig(), how=Resources(memory_megabytes=3)
    )
    stage = make_stage("repeats", config)
    assert isinstance(stage, Repeats)
    assert stage.memory == 3 << 20


def test_wrong_settings_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="repeats compares nothing"):
        RepeatsConfig(line_documents=None)
    source = SourceConfig(name="web", kind="jsonl", path="in")
    with pytest.raises(ValueError, match=r"repeats\.counted_sources: there is no source 'wbe'"):
        RunConfig(ingest=IngestConfig(sources=(source,)), repeats=RepeatsConfig(counted_sources=("wbe",)))


def test_only_stages_of_a_run_with_repeats_read_them() -> None:
    config = RunConfig(ingest=IngestConfig(sources=(SourceConfig(name="web", kind="jsonl", path="in"),)))
    without, with_repeats = make_stages(config), make_stages(replace(config, repeats=RepeatsConfig()))
    users = {name for name, stage in with_repeats.items() if "repeats" in stage.needs}
    assert users == {"export-corpus", "tokenizer", "tokenize", "evaluate", "report"}
    assert not any("repeats" in stage.needs for stage in without.values())
