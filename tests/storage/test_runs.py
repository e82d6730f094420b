"""A run record keeps every attempt and every stage, whoever writes at the same time."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import pytest

from storage import runs
from storage.filesystem import Store
from tests.storage import processes


def begin(store: Store, name: str = "demo", **config: Any) -> runs.RunRecord:
    return runs.start(store, name, config, {"revision": "abc", "dirty": False}, {"python": "3.11"})


def test_a_record_is_written_when_a_run_starts_and_as_it_goes(store: Store) -> None:
    assert runs.load(store, "demo") is None
    record = begin(store, seed=1)
    written = runs.load(store, "demo")
    assert written == record
    assert written is not None
    assert (written["status"], written["config"], written["stages"]) == ("running", {"seed": 1}, {})
    assert written["attempts"][0]["ended"] is None
    runs.set_stage(store, record, "ingest", status="running")
    runs.set_stage(store, record, "ingest", status="done", output="f00", digest="blake2b:00")
    runs.end(store, record, "done")
    written = runs.load(store, "demo")
    assert written == record
    assert written is not None
    assert written["status"] == "done"
    assert written["stages"] == {"ingest": {"status": "done", "output": "f00", "digest": "blake2b:00"}}
    attempt = written["attempts"][0]
    assert attempt["status"] == "done"
    assert attempt["started"] <= attempt["ended"] <= written["updated"]


def test_later_attempts_keep_the_stages_and_note_what_was_interrupted(store: Store) -> None:
    first = begin(store, seed=1)
    runs.set_stage(store, first, "ingest", status="done", output="f00")
    second = begin(store, seed=2)
    assert [attempt["status"] for attempt in second["attempts"]] == ["interrupted", "running"]
    assert [attempt["number"] for attempt in second["attempts"]] == [1, 2]
    assert second["stages"]["ingest"]["output"] == "f00"
    assert second["config"] == {"seed": 2}
    runs.end(store, second, "failed", "it broke")
    written = runs.load(store, "demo")
    assert written is not None
    assert (written["status"], written["attempts"][1]["message"]) == ("failed", "it broke")


def test_two_attempts_at_the_same_time_write_each_their_own(store: Store) -> None:
    first = begin(store, seed=1)
    second = begin(store, seed=2)
    runs.set_stage(store, first, "ingest", status="done")
    runs.set_stage(store, second, "quality", status="done")
    runs.end(store, first, "done")
    written = runs.load(store, "demo")
    assert written is not None
    assert [attempt["status"] for attempt in written["attempts"]] == ["done", "running"]
    assert (written["status"], written["config"]) == ("running", {"seed": 2}), "the newest attempt speaks for the run"
    assert set(written["stages"]) == {"ingest", "quality"}
    runs.end(store, second, "stopped")
    written = runs.load(store, "demo")
    assert written is not None
    assert [attempt["status"] for attempt in written["attempts"]] == ["done", "stopped"]
    assert written["status"] == "stopped"


def test_an_attempt_wrongly_taken_for_dead_says_so_itself(store: Store) -> None:
    first = begin(store)
    second = begin(store)
    assert second["attempts"][0]["status"] == "interrupted"
    runs.set_stage(store, first, "ingest", status="running")
    written = runs.load(store, "demo")
    assert written is not None
    assert [attempt["status"] for attempt in written["attempts"]] == ["running", "running"]


ATTEMPT = """
import sys
from storage import runs
from storage.filesystem import Store
store = Store(sys.argv[1])
record = runs.start(store, "demo", {}, {}, {})
print("started", flush=True)
for number in range(20):
    runs.set_stage(store, record, f"stage-{sys.argv[2]}-{number}", status="done")
if sys.argv[3] == "end":
    runs.end(store, record, "done")
    print("ended", flush=True)
sys.stdin.readline()
"""


def test_no_attempt_and_no_stage_is_lost_when_processes_write_at_once(local_store: Store) -> None:
    children = [processes.start(ATTEMPT, local_store.url, str(number), "end") for number in range(3)]
    for child in children:
        child.communicate("\n", timeout=60)
        assert child.returncode == 0
    written = runs.load(local_store, "demo")
    assert written is not None
    assert [attempt["number"] for attempt in written["attempts"]] == [1, 2, 3]
    assert [attempt["status"] for attempt in written["attempts"]] == ["done"] * 3
    assert len({attempt["pid"] for attempt in written["attempts"]}) == 3
    assert len(written["stages"]) == 60


def test_a_living_attempt_is_not_called_interrupted_and_a_killed_one_is(local_store: Store) -> None:
    child = processes.start(ATTEMPT, local_store.url, "0", "wait")
    processes.wait_for(child, "started")
    assert [attempt["status"] for attempt in begin(local_store)["attempts"]] == ["running", "running"]
    processes.kill(child)
    statuses = [attempt["status"] for attempt in begin(local_store)["attempts"]]
    assert statuses == ["interrupted", "interrupted", "running"]


def test_saving_other_values_keeps_the_attempts_of_others(store: Store) -> None:
    first = begin(store)
    begin(store)
    first["note"] = "seen"
    runs.save(store, first)
    written = runs.load(store, "demo")
    assert written is not None
    assert (written["note"], len(written["attempts"])) == ("seen", 2)


def test_runs_are_named_the_last_written_last(store: Store) -> None:
    assert runs.names(store) == []
    for name in ("b", "a", "c"):
        begin(store, name)
    record = runs.load(store, "b")
    assert record is not None
    time.sleep(0.002)  # time stamps are in milliseconds
    runs.end(store, record, "done")
    assert runs.names(store)[-1] == "b"
    assert sorted(runs.names(store)) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 101])
def test_names_that_cannot_be_files_are_refused(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="run name"):
        begin(store, name)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"schema_version": 99}', b'{"schema_version": 1, "name": "demo"}'])
def test_a_damaged_record_is_an_error_that_names_it(store: Store, content: bytes) -> None:
    store.replace("runs/demo.json", content)
    for call in (runs.load, begin):
        with pytest.raises(ValueError, match=r"runs/demo\.json"):
            call(store, "demo")
    with pytest.raises(ValueError, match=r"runs/demo\.json"):
        runs.names(store)


def test_an_attempt_says_where_it_runs(store: Store) -> None:
    attempt = begin(store)["attempts"][0]
    assert (attempt["host"], attempt["pid"]) == (socket.gethostname(), os.getpid())
