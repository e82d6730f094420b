"""The plan says what would happen and why, without doing any of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.base import Resources, Stage, StageError
from stages.plan import PlanRow, Selection, look
from stages.pool import WorkerPool
from stages.runner import PlainBatches, run_stage
from storage import leases
from storage.filesystem import Store
from storage.outputs import Output
from tests.stages.toys import Doubles, Numbers, NumbersConfig, Silent


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "workspace")


def stages(factor: int = 1, names: tuple[str, ...] = ("a", "b"), trap: str = "") -> dict[str, Stage[Any]]:
    return {
        "ingest": Numbers(NumbersConfig(names=names), trap),
        "quality": Doubles(NumbersConfig(factor=factor)),
    }


def run_all(graph: dict[str, Stage[Any]], store: Store, pool: WorkerPool) -> dict[str, Any]:
    outputs: dict[str, Output] = {}
    for name, stage in graph.items():
        inputs = {need: outputs[need] for need in stage.needs}
        result = run_stage(stage, store, inputs, Resources(workers=1), PlainBatches(pool, 0), Silent())
        outputs[name] = result.output
    return {"stages": {name: {"output": output.name} for name, output in outputs.items()}}


def states(rows: list[PlanRow]) -> list[str]:
    return [row.state for row in rows]


def test_nothing_done_yet(store: Store) -> None:
    rows, found = look(stages(), store, None)
    assert states(rows) == ["run", "unknown yet"]
    assert rows[1].why == "follows ingest"
    assert not found
    assert not store.listing(), "a plan leaves no trace"


def test_all_done(store: Store, pool: WorkerPool) -> None:
    record = run_all(stages(), store, pool)
    rows, found = look(stages(), store, record)
    assert states(rows) == ["done", "done"]
    assert set(found) == {"ingest", "quality"}
    assert rows[0].bytes
    assert rows[0].seconds is not None


def test_a_changed_parameter_is_shown_field_by_field(store: Store, pool: WorkerPool) -> None:
    record = run_all(stages(), store, pool)
    rows, _ = look(stages(factor=3), store, record)
    assert states(rows) == ["done", "changed"]
    assert rows[1].changes == ("factor: 1 → 3",)


def test_grown_input_counts_the_parts_that_stay(store: Store, pool: WorkerPool) -> None:
    record = run_all(stages(), store, pool)
    rows, _ = look(stages(names=("a", "b", "c")), store, record)
    assert states(rows) == ["changed", "unknown yet"]
    assert rows[0].units_done == 2


def test_an_interrupted_stage_says_how_far_it_came(store: Store, pool: WorkerPool, tmp_path: Path) -> None:
    (tmp_path / "bad-b").touch()
    with pytest.raises(ValueError, match="b is bad data"):
        run_all(stages(trap=str(tmp_path)), store, pool)
    rows, _ = look(stages(), store, None)
    assert (rows[0].state, rows[0].units_done, rows[0].units) == ("resume", 1, 2)


def test_a_damaged_output_is_named(store: Store, pool: WorkerPool) -> None:
    record = run_all(stages(), store, pool)
    output = Output.open(store, f"outputs/ingest/{record['stages']['ingest']['output']}")
    store.remove(output.part("documents/b").path)
    rows, _ = look(stages(), store, record)
    assert states(rows) == ["damaged", "unknown yet"]
    assert "documents/b.parquet is missing" in rows[0].why


def test_a_stage_somebody_works_on_is_locked(store: Store, pool: WorkerPool) -> None:
    record = run_all(stages(), store, pool)
    rows, _ = look(stages(factor=3), store, record)
    with leases.Lease(store, f"quality-{rows[1].output}"):
        rows, _ = look(stages(factor=3), store, record)
        assert rows[1].state == "locked"
        assert "process" in rows[1].why


def test_selections(store: Store, pool: WorkerPool) -> None:
    record = run_all(stages(), store, pool)
    graph = stages(factor=2)
    assert states(look(graph, store, record, Selection(only="ingest"))[0]) == ["done", "left out"]
    assert states(look(graph, store, record, Selection(start="quality"))[0]) == ["done", "changed"]
    assert states(look(graph, store, record, Selection(until="ingest"))[0]) == ["done", "left out"]
    assert states(look(graph, store, record, Selection(force=("ingest",)))[0]) == ["run", "unknown yet"]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(only="qualty"), "did you mean 'quality'"),
        (Selection(only="quality", start="ingest"), "cannot be given together"),
        (Selection(start="quality", until="ingest"), "comes after"),
        (Selection(only="ingest", force=("quality",)), "not among those to run"),
        (Selection(start="pretrain"), "switched off"),
    ],
)
def test_selections_that_make_no_sense(store: Store, selection: Selection, message: str) -> None:
    with pytest.raises(StageError, match=message):
        look(stages(), store, None, selection)
