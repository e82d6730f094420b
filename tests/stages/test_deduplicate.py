"""deduplicate part by part is the definition: for any workers, memory and division, after kills, by generations."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from data_quality.duplicates import deduplicate
from data_quality.duplicates_config import DeduplicateConfig, SketchConfig
from data_quality.select_config import GroupLimits, SelectConfig
from stages.base import Resources, StageError, Unit
from stages.deduplicate import Deduplicate
from stages.pool import WorkerPool
from stages.runner import PlainBatches, run_stage
from stages.select import Select
from stages.sketch import Sketch
from storage.filesystem import Store
from storage.manifests import Counts
from storage.outputs import Output, PartWriter, complete
from storage.schemas import DECISIONS, DOCUMENTS
from tests.stages.toys import Silent

SKETCH = SketchConfig(ngram=2)
CONFIG = DeduplicateConfig(priority=("source-order", "longest"), source_order=("a", "b")).banded(108)
COLUMNS = ("id", "keeper", "similarity", "method", "cluster_size", "containment", "container", "capped")
FEATURES = pa.schema([("id", pa.binary(16)), ("bytes", pa.int64()), ("grade", pa.float64()), ("language", pa.string())])

SMALL, LARGE, BASE = 1 << 20, 1 << 25, 1_300_000
"""Two memories for units, and what a unit holds of Python's own whatever its memory."""

Document = tuple[str, str, float | None, str | None]
"""Text, source, grade, what filter dropped it by."""


def identity(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def corpus(seed: int, number: int, parts: Sequence[str]) -> dict[str, list[Document]]:
    """Families of texts: copies, some with words changed or cut off, some without words, spread over the parts."""
    generator = np.random.default_rng(seed)
    found: dict[str, list[Document]] = {part: [] for part in parts}
    for _ in range(number):
        family = int(generator.integers(0, max(2, number // 6)))
        words = [f"f{family}w{place}" for place in range(5 + family % 40)]
        for place in generator.integers(0, len(words), generator.integers(0, 4)).tolist():
            words[place] = f"x{generator.integers(0, 3)}"
        words = words[: len(words) - int(generator.integers(0, 1 + len(words) // 4))]
        text = " ".join(words) if generator.random() > 0.03 else "…" * int(generator.integers(0, 3))
        grade = None if generator.random() < 0.2 else round(float(generator.normal()), 1)
        dropped = "short" if generator.random() < 0.1 else None
        found[str(generator.choice(list(parts)))].append((text, str(generator.choice(list("abc"))), grade, dropped))
    return found


class Corpus:
    """Outputs of ingest, quality and filter as those stages write them, and a real `sketch`."""

    def __init__(self, store: Store, parts: dict[str, list[Document]], sketch: SketchConfig = SKETCH) -> None:
        self.store, self.parts, self.inputs = store, parts, dict[str, Output]()
        self._write("ingest", self._documents)
        self._write("quality", self._features)
        self._write("filter", self._decisions)
        with WorkerPool(1) as pool:
            stage = Sketch(sketch)
            ingest = {"ingest": self.inputs["ingest"]}
            self.inputs["sketch"] = run_stage(
                stage, store, ingest, Resources(), InThisProcess(pool, 0), Silent()
            ).output

    def _write(self, stage: str, fill: Any) -> None:
        name = hashlib.blake2b(repr((stage, self.parts)).encode(), digest_size=8).hexdigest()
        writer = PartWriter(self.store, f"outputs/{stage}/{name}", "unit")
        for stem, documents in self.parts.items():
            fill(writer, stem, documents)
        number = sum(map(len, self.parts.values()))
        self.inputs[stage] = complete(
            self.store, writer.folder, stage=stage, version=1, fingerprint=name, parameters={}, inputs={},
            parts=writer.parts, counts=Counts(number, number), numerics={}, timings={}, software={}, git={},
        )  # fmt: skip

    def _documents(self, writer: PartWriter, stem: str, documents: list[Document]) -> None:
        rows = [
            {"id": identity(text), "text": text, "source": source, "uri": stem, "record": row}
            for row, (text, source, _, _) in enumerate(documents)
        ]
        kinds = {"id": pl.Binary, "text": pl.String, "source": pl.String, "uri": pl.String, "record": pl.Int64}
        table = pl.DataFrame(rows, schema=kinds)
        table = table.with_columns(
            url=pl.lit(None, pl.String), date=pl.lit(None, pl.String), meta=pl.lit(None, pl.String)
        )
        writer.parquet(f"documents/{stem}", table.to_arrow(), DOCUMENTS)

    def _features(self, writer: PartWriter, stem: str, documents: list[Document]) -> None:
        columns = [
            [identity(text) for text, *_ in documents],
            [len(text.encode()) for text, *_ in documents],
            [grade for _, _, grade, _ in documents],
            [None] * len(documents),
        ]
        writer.parquet(f"features/{stem}", pa.table(columns, schema=FEATURES), FEATURES)

    def _decisions(self, writer: PartWriter, stem: str, documents: list[Document]) -> None:
        rows = [
            {"id": identity(text), "dropped_by": dropped, "hits": [dropped] if dropped else []}
            for text, _, _, dropped in documents
        ]
        writer.parquet(f"decisions/{stem}", pa.Table.from_pylist(rows, DECISIONS), DECISIONS)

    def frame(self, generation_of: dict[str, int]) -> pl.DataFrame:
        """The eligible documents as `data_quality.duplicates.deduplicate` takes them."""
        frames = []
        for number, (stem, documents) in enumerate(self.parts.items()):
            signatures = self.inputs["sketch"].read(f"signatures/{stem}", ["signature", "shingles"])
            frame = pl.DataFrame(pl.from_arrow(self.inputs["ingest"].read(f"documents/{stem}"))).hstack(
                pl.DataFrame(pl.from_arrow(signatures))
            )
            frame = frame.with_columns(
                part=pl.lit(number),
                row=pl.int_range(pl.len(), dtype=pl.Int64),
                bytes=pl.col("text").str.len_bytes(),
                score=pl.Series([grade for _, _, grade, _ in documents], dtype=pl.Float64),
                generation=pl.lit(generation_of.get(stem, 0), pl.Int32),
                eligible=pl.Series([dropped is None for *_, dropped in documents], dtype=pl.Boolean),
            )
            frames.append(frame.filter("eligible"))
        return pl.concat(frames)


class InThisProcess(PlainBatches):
    """Runs every order here: what tests change in this process holds for it."""

    def __call__(self, stage: str, batches: Any, done: Any, check: Any, report: Any) -> None:
        from stages.pool import execute

        for batch in batches:
            for order in batch:
                done(order.unit, execute(order, report, check))


def run(
    corpus: Corpus,
    config: DeduplicateConfig = CONFIG,
    *,
    memory: int = 1 << 20,
    workers: int = 0,
    previous: Output | None = None,
    sketch: SketchConfig = SKETCH,
) -> Output:
    stage = Deduplicate(config, sketch, memory)
    stage.follow(lambda: previous)
    with WorkerPool(max(1, workers)) as pool:
        batches = (PlainBatches if workers else InThisProcess)(pool, 0)
        return run_stage(stage, corpus.store, corpus.inputs, Resources(), batches, Silent()).output


def steps_done(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many units of every step `run` does in this process from now on."""
    done: Counter[str] = Counter()
    original = Deduplicate.run_unit

    def run_unit(self: Deduplicate, unit: Unit, *others: Any) -> None:
        done[unit.payload["step"]] += 1
        original(self, unit, *others)

    monkeypatch.setattr(Deduplicate, "run_unit", run_unit)
    return done


def told(corpus: Corpus, output: Output) -> pl.DataFrame:
    """What the output says of every eligible document: stem, row and COLUMNS."""
    frames = []
    for stem in corpus.parts:
        decided = pl.DataFrame(pl.from_arrow(output.read(f"decisions/{stem}")))
        beside = pl.DataFrame(pl.from_arrow(output.read(f"neighbours/{stem}"))).drop("id")
        frame = decided.hstack(beside).with_columns(stem=pl.lit(stem), row=pl.int_range(pl.len(), dtype=pl.Int64))
        eligible = pl.Series([dropped is None for *_, dropped in corpus.parts[stem]], dtype=pl.Boolean)
        assert frame.filter(~eligible).select((pl.col("dropped_by") == "filter").all()).item()
        frames.append(frame.filter(eligible))
    return pl.concat(frames)


def expected(corpus: Corpus, config: DeduplicateConfig, generation_of: dict[str, int] | None = None) -> pl.DataFrame:
    documents = corpus.frame(generation_of or {})
    texts = {key[0]: dict(group.select("row", "text").iter_rows()) for key, group in documents.group_by("part")}

    def read(part: int, rows: Any) -> pa.LargeStringArray:
        return pa.array([texts[part][row] for row in rows.tolist()], pa.large_string())

    result, _ = deduplicate(documents, read, config, SKETCH)
    stems = dict(enumerate(corpus.parts))
    return result.with_columns(
        stem=documents["part"].replace_strict(stems, return_dtype=pl.String), row=documents["row"]
    )


def assert_same(found: pl.DataFrame, wanted: pl.DataFrame, columns: Sequence[str] = COLUMNS) -> None:
    order = ["stem", "row"]
    a, b = found.sort(order).select(*order, *columns), wanted.sort(order).select(*order, *columns)
    assert a["row"].to_list() == b["row"].to_list()
    for name in columns:
        assert a[name].to_list() == b[name].to_list(), name


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("memory", [1_500, 1 << 24])
def test_the_stage_decides_as_the_definition_does_whatever_the_memory(
    local_store: Store, seed: int, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.deduplicate.PIECE_BYTES", 8_000)
    monkeypatch.setattr("stages.deduplicate.SORTING_BYTES", 40)
    monkeypatch.setattr("stages.duplicate_blocks.SAMPLES", 3)
    steps = steps_done(monkeypatch)
    found = Corpus(local_store, corpus(seed, 110, ["a-0", "b-0"]))
    config = replace(
        CONFIG, threshold=0.6, bucket_limit=2, priority=("lowest-score", "shortest") if seed % 2 else CONFIG.priority,
        score="grade",
    )  # fmt: skip
    output = run(found, config, memory=memory)
    wanted = expected(found, config)
    assert wanted["method"].n_unique() == 3
    assert_same(told(found, output), wanted)
    statistics = output.read_json("about/duplicates")
    assert statistics["near"] == (wanted["method"] == "near").sum()
    assert statistics["exact"] == (wanted["method"] == "exact").sum()
    assert statistics["documents"] == len(wanted)
    in_blocks = memory == 1_500
    assert (steps["jump"] > 0, steps["decide_block"] > 1, steps["against"] > 0) == (in_blocks, in_blocks, in_blocks)
    assert not any(part.kind == "scratch" for part in output.parts())
    assert not local_store.listing(f"{output.folder}/scratch")


def test_the_bytes_do_not_depend_on_workers_memory_or_the_order_of_rows(tmp_path: Path) -> None:
    parts = corpus(5, 120, ["a-0", "b-0", "c-0"])
    digests, fates = set(), []
    for number, (workers, memory) in enumerate([(1, 1 << 20), (2, 6_000), (3, 1 << 24)]):
        found = Corpus(Store(str(tmp_path / str(number))), parts)
        output = run(found, memory=memory, workers=workers)
        digests.add(output.digest)
        fates.append(told(found, output))
    assert len(digests) == 1
    turned = {stem: parts[stem][::-1] for stem in reversed(parts)}
    found = Corpus(Store(str(tmp_path / "turned")), turned)
    places = {  # a copy's uri and record are part of π: only texts of one place can be compared by text
        stem: {text for text, *_ in documents} for stem, documents in turned.items()
    }
    assert places == {stem: {text for text, *_ in documents} for stem, documents in parts.items()}
    kept = [frame.filter(pl.col("keeper").is_null())["id"].sort() for frame in (fates[0], told(found, run(found)))]
    assert kept[0].equals(kept[1])


def test_what_a_unit_holds_is_bounded_by_the_memory_it_is_given(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays of numpy, of all units whose input is not one part: 800 documents of one template, 2,000 in families."""
    monkeypatch.setattr("stages.deduplicate.PIECE_BYTES", 1 << 14)
    monkeypatch.setattr("stages.duplicate_groups.EDGES_AT_ONCE", 1 << 10)
    template = [f"t{number}" for number in range(120)]
    parts: dict[str, list[Document]] = {f"a-{part}": [] for part in range(4)}
    for number in range(2_800):
        family = [f"f{number // 4}w{place}" for place in range(140)]
        words = [*template, *(f"x{number}y{place}" for place in range(20))] if number < 800 else [*family, f"{number}"]
        parts[f"a-{number % 4}"].append((" ".join(words), "a", None, None))
    found = Corpus(local_store, parts)
    runs: list[Counter[str]] = []
    original = Deduplicate.run_unit

    def run_unit(self: Deduplicate, unit: Unit, *others: Any) -> None:
        tracemalloc.start()
        original(self, unit, *others)
        step, peak = unit.payload["step"], tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        runs[-1][step] = max(runs[-1][step], peak)

    run(found, memory=SMALL)  # what is compiled and imported once is not counted
    monkeypatch.setattr(Deduplicate, "run_unit", run_unit)
    digests = set()
    for memory in (SMALL, SMALL, LARGE):
        runs.append(Counter())
        local_store.remove_tree("outputs/deduplicate")
        digests.add(run(found, memory=memory).digest)
    assert len(digests) == 1
    across = {"copies", "leaders", "buckets", "components", "weigh", "pack", "regroup", "decide", "decide_block"}
    *twice, large = runs
    assert across - {"decide_block"} < large.keys()
    # The least of two: once in a while the interpreter's table of interned strings doubles inside a unit.
    small = {step: min(held[step] for held in twice) for step in across | {"spread", "against"}}
    assert min(small[step] for step in across) > 0
    assert max(small.values()) < SMALL + BASE, sorted(small.items())
    assert large["decide"] > SMALL + BASE


@pytest.mark.parametrize("seed", range(3))
def test_a_new_generation_is_what_a_full_run_gives_and_changes_nothing_old(
    local_store: Store, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.duplicate_blocks.SAMPLES", 3)
    monkeypatch.setattr("stages.deduplicate.SORTING_BYTES", 20)
    steps = steps_done(monkeypatch)
    stems = ["a-0", "b-0", "c-0", "d-0", "e-0"]
    parts = corpus(seed, 260, stems)
    config = replace(CONFIG, threshold=0.6, bucket_limit=2, incremental=True)
    output = None
    generation_of: dict[str, int] = {}
    for generation, some in enumerate((["b-0", "d-0"], ["a-0"], ["c-0", "e-0"])):
        generation_of |= dict.fromkeys(some, generation)
        found = Corpus(local_store, {stem: parts[stem] for stem in stems if stem in generation_of})
        before = output
        output = run(found, config, previous=before, memory=1_500)
        assert len(output.read_json("about/generations")) == generation + 1
        wanted = expected(found, config, generation_of)
        # A cluster's size counts its own generation; what later ones add stands in `growth`.
        assert_same(told(found, output), wanted, [name for name in COLUMNS if name != "cluster_size"])
        sizes = dict(told(found, output).filter(pl.col("cluster_size") > 0).select("id", "cluster_size").iter_rows())
        for number in range(generation + 1):
            for part in (part for part in output.parts("growth") if part.stem.startswith(f"{number}-")):
                for row in output.read(part).to_pylist():
                    sizes[row["id"]] += row["added"]
        kept = wanted.filter(pl.col("keeper").is_null())
        assert sizes == dict(kept.select("id", "cluster_size").iter_rows())
        if before is not None:
            for part in before.parts():
                if part.kind in ("decisions", "neighbours", "growth", "index", "bands", "ids"):
                    assert output.part(part.name) == part, "older parts are taken over as they lie"
    assert output is not None
    assert min(steps["jump"], steps["against"], steps["decide"]) > 0
    again = run(found, config, previous=output)
    assert again.folder == output.folder, "without anything new the output is found"
    whole = run(found, replace(config, incremental=False), previous=output)
    assert whole.read_json("about/generations") != output.read_json("about/generations")


def test_a_changed_or_vanished_part_is_not_taken_for_an_old_one(local_store: Store) -> None:
    parts = corpus(1, 120, ["a-0", "b-0"])
    config = replace(CONFIG, threshold=0.6, incremental=True)
    first = run(Corpus(local_store, parts), config)
    changed = Corpus(
        local_store, {"a-0": [("an entirely new text", "a", None, None), *parts["a-0"]], "b-0": parts["b-0"]}
    )
    second = run(changed, config, previous=first)
    assert [[stem for stem, _ in some] for some in second.read_json("about/generations")] == [["b-0"], ["a-0"]]
    assert_same(told(changed, second), expected(changed, config, {"b-0": 0, "a-0": 1}), COLUMNS[:4])
    alone = Corpus(local_store, {"a-0": parts["a-0"]})
    third = run(alone, config, previous=first)
    assert_same(told(alone, third), expected(alone, config), COLUMNS[:4])


def test_modes(local_store: Store) -> None:
    found = Corpus(local_store, corpus(2, 150, ["a-0", "b-0"]))
    config = replace(CONFIG, threshold=0.6)
    modes: tuple[Any, ...] = ("keep-one", "only-report", "drop-all")
    kept, reported, none = (told(found, run(found, replace(config, mode=mode))) for mode in modes)
    assert_same(kept, reported)
    assert_same(kept, none)
    assert kept["dropped_by"].equals(
        kept["method"].replace_strict({"exact": "exact-duplicate", "near": "near-duplicate"}, default=None)
    )
    assert reported["dropped_by"].null_count() == len(reported)
    assert reported["hits"].list.first().equals(kept["dropped_by"].rename("hits"))
    lone = none.filter(pl.col("dropped_by").is_null())
    assert (lone["cluster_size"] == 1).all()
    assert (none["dropped_by"] == "duplicated").sum() == (kept["cluster_size"] > 1).sum() > 0


def test_select_repeats_by_the_size_of_clusters(local_store: Store) -> None:
    parts = corpus(4, 200, ["a-0", "b-0"])
    config = replace(CONFIG, threshold=0.6, incremental=True)
    first = run(Corpus(local_store, {"a-0": parts["a-0"]}), config)
    found = Corpus(local_store, parts)
    output = run(found, config, previous=first)
    selecting = SelectConfig(
        cluster_repeats=((1, 1), (2, 2), (4, 5)), sources={"b": GroupLimits(repeats=3)}, validation_share=0.2
    )
    with WorkerPool(1) as pool:
        inputs = {**found.inputs, "deduplicate": output}
        select = Select(selecting)
        chosen = run_stage(select, local_store, inputs, Resources(), InThisProcess(pool, 0), Silent()).output
        reported = run(found, replace(config, mode="only-report"))
        with pytest.raises(StageError, match="only-report drops none"):
            run_stage(
                select, local_store, {**inputs, "deduplicate": reported}, Resources(), InThisProcess(pool, 0), Silent()
            )
    wanted = expected(found, config, {"a-0": 0, "b-0": 1})
    sizes = {(row["stem"], row["row"]): row["cluster_size"] for row in wanted.to_dicts()}
    sides = set()
    for stem, documents in parts.items():
        for row, decision in enumerate(chosen.read(f"decisions/{stem}").to_pylist()):
            if decision["dropped_by"] is None:
                size = sizes[stem, row]
                times = (1 if size < 2 else 2 if size < 4 else 5) * (3 if documents[row][1] == "b" else 1)
                assert decision["repeats"] == (times if decision["split"] == "train" else 1)
                sides.add((decision["split"], size > 1))
    assert len(sides) == 4
    for pairs in (((2, 1), (1, 1)), ((0, 1),), ((1, 0),), ((1, 1), (1, 2))):
        with pytest.raises(ValueError, match="sizes must ascend"):
            SelectConfig(cluster_repeats=pairs)


def test_a_score_that_is_no_feature_is_refused_by_name(local_store: Store) -> None:
    found = Corpus(local_store, corpus(2, 60, ["a-0"]))
    with pytest.raises(StageError, match=r"deduplicate\.score: the feature 'id' is no number but fixed_size_binary"):
        run(found, replace(CONFIG, priority=("highest-score",), score="id"))
    with pytest.raises(StageError, match="there is no feature 'grad'; did you mean 'grade'"):
        run(found, replace(CONFIG, priority=("highest-score",), score="grad"))
    with pytest.raises(ValueError, match=r"name the feature in deduplicate\.score"):
        replace(CONFIG, priority=("highest-score",))


def test_no_documents_and_only_dropped_ones(local_store: Store) -> None:
    assert run(Corpus(local_store, {})).counts["read"] == 0
    found = Corpus(local_store, {"a-0": [("text", "a", None, "short"), ("text", "a", None, "short")], "b-0": []})
    output = run(found, replace(CONFIG, incremental=True))
    assert output.counts == {"read": 2, "kept": 0, "dropped": {"filter": 2}, "quarantined": {}}


def test_a_remote_workspace_gives_the_same_bytes(s3_store: Store, tmp_path: Path) -> None:
    parts = corpus(3, 60, ["a-0", "b-0"])
    here = run(Corpus(Store(str(tmp_path)), parts))
    there = run(Corpus(s3_store, parts))
    assert there.digest == here.digest
    assert not s3_store.listing(f"{there.folder}/scratch")


def test_damaged_text_is_noticed(local_store: Store) -> None:
    found = Corpus(local_store, {"a-0": [("one and the same text", "a", None, None)] * 2})
    path = local_store.local(found.inputs["ingest"].part("documents/a-0").path)
    table = pl.read_parquet(path).with_columns(text=pl.Series(["one and the same text", "another text"]))
    path.unlink()
    with path.open("wb") as stream:
        table.write_parquet(stream)
    with pytest.raises(ValueError, match="documents/a-0, row 1: the text is not that of its id"):
        run(found)


SCRIPT = """
import sys
from tests.stages.test_deduplicate import CONFIG, Corpus, Store, corpus, run
import stages.duplicate_blocks

if __name__ == "__main__":
    stages.duplicate_blocks.SAMPLES = 3
    run(Corpus(Store(sys.argv[1]), corpus(7, 300, ["a-0", "b-0"])), memory=4_000, workers=2)
"""


def test_killed_in_the_middle_of_any_round_it_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.duplicate_blocks.SAMPLES", 3)
    parts = corpus(7, 300, ["a-0", "b-0"])
    undisturbed = run(Corpus(Store(str(tmp_path / "whole")), parts), memory=4_000)
    script, workspace = tmp_path / "script.py", tmp_path / "killed"
    script.write_text(SCRIPT)
    kills = 0
    rounds = ("leaders-00001", "buckets-00003", "roots-0001-00002", "decided-000004", "earlier-*-00001", "kept-*-00002")
    for wanted in rounds:
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        child = subprocess.Popen([sys.executable, str(script), str(workspace)], env=environment, start_new_session=True)
        while child.poll() is None:
            if any(workspace.glob(f"outputs/deduplicate/*/scratch/{wanted}*.arrow")):
                os.killpg(child.pid, signal.SIGKILL)
                kills += child.wait() == -signal.SIGKILL
                break
            time.sleep(0.005)
        time.sleep(0.7)  # workers notice that their parent is gone
    assert kills == len(rounds)
    folder = Store(str(workspace)).folders("outputs/deduplicate")
    assert folder
    assert not list(workspace.glob("outputs/deduplicate/*/manifest.json"))
    resumed = run(Corpus(Store(str(workspace)), parts), memory=4_000)
    assert resumed.manifest["timings"]["units_reused"] > 10
    assert resumed.digest == undisturbed.digest
