"""The runner finishes what was begun, does again only what changed, survives dying workers, and obeys gates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.base import GateError, Resources
from stages.pool import WorkerPool
from stages.retry import WorkerDiedError, is_transient
from stages.runner import PlainBatches, StageResult, run_stage, split_batches
from storage.filesystem import Store
from storage.leases import LeaseLostError
from storage.outputs import Output
from tests.stages.toys import Doubles, Numbers, NumbersConfig, Rounds, Silent


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as found:
        yield found


@pytest.fixture
def store(local_store: Store) -> Store:
    return local_store


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    (tmp_path / "trap").mkdir()
    return tmp_path / "trap"


def run(stage, store, pool, inputs=None, *, reporter=None, retries=2, **options) -> StageResult:
    resources = Resources(workers=2)
    return run_stage(
        stage, store, inputs or {}, resources, PlainBatches(pool, retries), reporter or Silent(), **options
    )


def done_units(trap: Path) -> list[str]:
    return sorted(file.name.split("-")[1] for file in trap.glob("done-*"))


def test_a_finished_stage_is_not_done_again(store: Store, pool: WorkerPool) -> None:
    first = run(Numbers(NumbersConfig()), store, pool)
    second = run(Numbers(NumbersConfig()), store, pool)
    assert first.worked
    assert not second.worked
    assert second.output.digest == first.output.digest
    assert first.output.counts == {"read": 5, "kept": 5, "dropped": {}, "quarantined": {}}


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    digests = set()
    for workers in (1, 2, 3):
        with WorkerPool(workers) as pool:
            digests.add(run(Numbers(NumbersConfig()), Store(tmp_path / str(workers)), pool).output.digest)
    assert len(digests) == 1


def test_memory_stores_run_in_this_process() -> None:
    with WorkerPool(2) as pool:
        result = run(Numbers(NumbersConfig()), Store("memory://toy-runner"), pool)
        assert result.output.counts["kept"] == 5
        assert pool._executor is None


def test_a_stopped_stage_goes_on_with_what_is_left(shared_store: Store, trap: Path) -> None:
    (trap / "bad-d").touch()
    with WorkerPool(2) as pool:  # its workers see the environment the store needs
        with pytest.raises(ValueError, match="d is bad data"):
            run(Numbers(NumbersConfig(), str(trap)), shared_store, pool)
        before = done_units(trap)
        assert "d" not in before
        result = run(Numbers(NumbersConfig(), str(trap)), shared_store, pool)
        assert done_units(trap) == ["a", "b", "c", "d", "e"], "every unit was done exactly once"
        undisturbed = run(Numbers(NumbersConfig()), Store("memory://undisturbed"), pool)
    assert result.output.digest == undisturbed.output.digest


def test_a_new_unit_costs_one_unit(store: Store, pool: WorkerPool, trap: Path) -> None:
    first = run(Numbers(NumbersConfig(), str(trap)), store, pool)
    grown = NumbersConfig(names=("a", "b", "bb", "c", "d", "e"))
    reporter = Silent()
    second = run(Numbers(grown, str(trap)), store, pool, reporter=reporter)
    assert done_units(trap) == ["a", "b", "bb", "c", "d", "e"]
    assert ("started", "ingest", 6, 5) in reporter.events
    reused = [part for part in second.output.parts("documents") if part.path.startswith(first.output.folder + "/")]
    assert len(reused) == 5
    assert second.output.problems(digests=True) == []
    # What follows works on the new part alone, too.
    doubled = run(Doubles(NumbersConfig()), store, pool, {"ingest": first.output})
    again = run(Doubles(NumbersConfig()), store, pool, {"ingest": second.output})
    assert (doubled.units_done_here, again.units_done_here) == (5, 1)


def test_a_dying_worker_loses_nothing(store: Store, pool: WorkerPool, trap: Path) -> None:
    for name in ("a", "c"):
        (trap / f"die-{name}").touch()
    result = run(Numbers(NumbersConfig(), str(trap)), store, pool)
    assert result.output.counts["kept"] == 5


def test_a_unit_that_always_kills_its_worker_is_named(store: Store, pool: WorkerPool, trap: Path) -> None:
    (trap / "always-die-b").touch()
    with pytest.raises(WorkerDiedError, match="on b "):
        run(Numbers(NumbersConfig(), str(trap)), store, pool, retries=0)


def test_io_faults_are_tried_again_and_bad_data_is_not(store: Store, pool: WorkerPool, trap: Path) -> None:
    (trap / "io-b").touch()
    reporter = Silent()
    run(Numbers(NumbersConfig(), str(trap)), store, pool, reporter=reporter)
    retries = [event for event in reporter.events if event[0] == "measured" and "retry" in event[2]]
    assert len(retries) == 1
    assert "the network blinked" in retries[0][2]["retry"]
    assert is_transient(OSError("x"))
    assert not is_transient(FileNotFoundError("x"))
    assert not is_transient(ValueError("x"))


def test_a_forced_stage_writes_beside_the_old_output(store: Store, pool: WorkerPool) -> None:
    first = run(Numbers(NumbersConfig()), store, pool)
    second = run(Numbers(NumbersConfig()), store, pool, force=True)
    assert second.output.name == f"{first.output.name}-2"
    assert second.units_done_here == 5
    assert second.output.digest == first.output.digest
    assert run(Numbers(NumbersConfig()), store, pool).output.name == second.output.name


@pytest.mark.parametrize("damage", ["delete", "truncate", "manifest"])
def test_a_damaged_output_is_made_again_beside_it(store: Store, pool: WorkerPool, damage: str) -> None:
    first = run(Numbers(NumbersConfig()), store, pool)
    file = store.local(first.output.part("documents/c").path)
    if damage == "delete":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        store.local(f"{first.output.folder}/manifest.json").write_text("{}")
    reporter = Silent()
    second = run(Numbers(NumbersConfig()), store, pool, reporter=reporter)
    assert second.output.name == f"{first.output.name}-2"
    assert second.output.digest == first.output.digest
    assert second.output.problems(digests=True) == []
    assert any(event[0] == "said" and "damaged" in event[2] for event in reporter.events)


def test_a_gate_stops_the_run_and_keeps_the_output(store: Store, pool: WorkerPool) -> None:
    for _ in range(2):  # also when the output is found finished
        with pytest.raises(GateError, match="kept 5"):
            run(Numbers(NumbersConfig(limit=3)), store, pool)
    assert run(Numbers(NumbersConfig(limit=9)), store, pool).worked is False


def test_a_lost_lease_stops_the_work(store: Store, pool: WorkerPool) -> None:
    def check() -> None:
        raise LeaseLostError("gone")

    with pytest.raises(LeaseLostError):
        run(Numbers(NumbersConfig()), store, pool, check=check)
    assert not [path for path in store.listing() if path.endswith("manifest.json")]


def test_batches_keep_order_and_number() -> None:
    orders = list(range(10))
    assert split_batches(orders, 3) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]  # type: ignore[arg-type,comparison-overlap]
    assert len(split_batches(orders, 100)) == 10  # type: ignore[arg-type]


def test_manifests_name_their_inputs(store: Store, pool: WorkerPool) -> None:
    first = run(Numbers(NumbersConfig()), store, pool)
    second = run(Doubles(NumbersConfig()), store, pool, {"ingest": first.output})
    found = Output.open(store, second.output.folder).manifest["inputs"]
    assert found == {"ingest": {"fingerprint": first.output.name, "digest": first.output.digest}}


@pytest.mark.parametrize("lost", [False, True])
def test_rounds_follow_each_other_and_resume_inside_and_leave_no_scratch_files(
    store: Store, pool: WorkerPool, trap: Path, lost: bool
) -> None:
    (trap / "wait").touch()
    with pytest.raises(ValueError, match="not yet"):
        run(Rounds(str(trap / "wait")), store, pool, retries=0)
    (folder,) = store.folders("outputs/quality")
    assert len(store.listing(f"outputs/quality/{folder}/scratch")) == 3
    (trap / "wait").unlink()
    if lost:  # what a machine that loses power may leave of a file that was not forced to its disk
        store.local(f"outputs/quality/{folder}/scratch/b.json").write_bytes(bytes(3))
    result = run(Rounds(), store, pool)
    assert (result.units, result.units_done_here) == (4, 1 + lost), "the first round was not done again"
    assert result.output.read_json("features/sum") == sum(map(ord, "abc"))
    assert [part.name for part in result.output.parts()] == ["features/sum"]
    assert not store.listing(f"{result.output.folder}/scratch")
    (store.local(f"{result.output.folder}/manifest.json")).unlink()
    again = run(Rounds(), store, pool)
    assert (again.units, again.units_done_here) == (1, 0), "what only leads to finished units is left out"
    assert again.output.digest == result.output.digest
