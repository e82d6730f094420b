"""What Prefect shows of a run is complete and true, and its failures are those of the stages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from tests.flows.conftest import REPOSITORY, TestServer

BATCHES = 10


def flow_runs(server: TestServer, name: str) -> list[dict[str, Any]]:
    """The runs of the pipeline flow that are called `name`, the first one first."""
    found = server.ask("flow_runs/filter", {"flow_runs": {"name": {"like_": name}}, "limit": 200})
    return sorted((run for run in found if run["parent_task_run_id"] is None), key=lambda run: str(run["created"]))


def stage_run(server: TestServer, parent: str) -> dict[str, Any]:
    """The only subflow of a pipeline run."""
    filters = {"parent_flow_run_id": {"any_": [parent]}}
    (found,) = server.ask("flow_runs/filter", {"flow_runs": filters, "limit": 200})
    return dict(found)


def task_runs(server: TestServer, flow_run: str) -> list[dict[str, Any]]:
    """All task runs of a flow run."""
    return list(server.ask("task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": 200}))


def test_every_task_run_is_recorded_when_the_run_ends(prefect_server: TestServer) -> None:
    done = prefect_server.python("-m", "tests.flows.toy", str(prefect_server.workspace), "good")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout.splitlines()[-1])
    assert set(made["ingest"]) == {"stage", "output", "digest"}
    (run,) = flow_runs(prefect_server, "toy-good #1")
    assert run["state_type"] == "COMPLETED"
    assert "gristmill" in run["tags"]
    subflow = stage_run(prefect_server, run["id"])
    assert subflow["state_type"] == "COMPLETED"
    tasks = task_runs(prefect_server, subflow["id"])
    assert len(tasks) == BATCHES
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}
    assert {task["name"] for task in tasks} == {f"ingest {n + 1}/{BATCHES} (3 parts)" for n in range(BATCHES)}
    artifacts = prefect_server.ask("artifacts/filter", {"limit": 100})
    mine = {a["key"] for a in artifacts if a["flow_run_id"] in (run["id"], subflow["id"])}
    assert {"plan", "funnel", "progress-ingest", "counts-ingest"} <= mine
    progress = next(a for a in artifacts if a["flow_run_id"] == subflow["id"] and a["key"] == "progress-ingest")
    assert progress["data"] == 100.0
    # The flow and each batch have a line or two in the log, the parts have none.
    logs = prefect_server.ask("logs/filter", {"logs": {"flow_run_id": {"any_": [subflow["id"]]}}, "limit": 200})
    assert len(logs) <= BATCHES + 6


def test_a_fault_that_may_pass_is_retried_by_prefect_alone(prefect_server: TestServer) -> None:
    done = prefect_server.python("-m", "tests.flows.toy", str(prefect_server.workspace), "flaky")
    assert done.returncode == 0, done.stderr
    (run,) = flow_runs(prefect_server, "toy-flaky #1")
    tasks = task_runs(prefect_server, stage_run(prefect_server, run["id"])["id"])
    assert sorted(task["run_count"] for task in tasks) == [1] * (BATCHES - 1) + [2]
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}
    assert "trying again: OSError: the disk was away" in done.stderr


def test_bad_data_is_not_retried_and_stops_the_stage(prefect_server: TestServer) -> None:
    done = prefect_server.python("-m", "tests.flows.toy", str(prefect_server.workspace), "bad")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "stage: unit 7 holds bad data"
    assert "Traceback" not in done.stderr
    (run,) = flow_runs(prefect_server, "toy-bad #1")
    assert run["state_type"] == "FAILED"
    tasks = task_runs(prefect_server, stage_run(prefect_server, run["id"])["id"])
    assert len(tasks) == BATCHES
    states = [task["state_type"] for task in tasks]
    assert states.count("FAILED") == 1
    assert set(states) <= {"FAILED", "COMPLETED", "CANCELLED"}
    assert max(task["run_count"] for task in tasks) == 1
    record = json.loads((prefect_server.workspace / "runs/toy-bad.json").read_text())
    assert record["status"] == "failed"


def test_a_gate_stops_the_run(prefect_server: TestServer) -> None:
    done = prefect_server.python("-m", "tests.flows.toy", str(prefect_server.workspace), "gate")
    assert done.returncode == 3, done.stderr
    assert "kept_share is absurd" in done.stdout
    record = json.loads((prefect_server.workspace / "runs/toy-gate.json").read_text())
    assert record["status"] == "stopped"


def test_a_killed_run_is_set_to_crashed_by_the_next_one_which_resumes(prefect_server: TestServer) -> None:
    command = [sys.executable, "-m", "tests.flows.toy", str(prefect_server.workspace), "slow"]
    receipts = prefect_server.workspace / "outputs/ingest"
    before = set(receipts.glob("*/receipts/*.json"))
    with subprocess.Popen(
        command, env=prefect_server.environment(), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while len(set(receipts.glob("*/receipts/*.json")) - before) < 4:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
        finally:
            os.kill(process.pid, signal.SIGKILL)
    (first,) = flow_runs(prefect_server, "toy-slow #1")
    assert first["state_type"] == "RUNNING"
    done = prefect_server.python(*command[1:])
    assert done.returncode == 0, done.stderr
    assert "done already" in done.stderr
    (first,) = flow_runs(prefect_server, "toy-slow #1")
    (second,) = flow_runs(prefect_server, "toy-slow #2")
    assert first["state_type"] == "CRASHED"
    assert second["state_type"] == "COMPLETED"
    subflow = stage_run(prefect_server, first["id"])
    assert subflow["state_type"] == "CRASHED"
    assert not [t for t in task_runs(prefect_server, subflow["id"]) if t["state_type"] in ("RUNNING", "PENDING")]


def test_sigterm_ends_the_flow_and_its_workers_and_leaves_no_task_run_open(prefect_server: TestServer) -> None:
    command = [sys.executable, "-m", "tests.flows.toy", str(prefect_server.workspace / "term"), "slow"]
    with subprocess.Popen(
        command, env=prefect_server.environment(), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 60
        # The receipt of the stage's start is there before its batches are submitted.
        while len(list((prefect_server.workspace / "term/outputs").glob("ingest/*/receipts/*.json"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        began = time.monotonic()
        process.terminate()
        _, said = process.communicate(timeout=30)
        assert time.monotonic() - began < 20
    record = json.loads((prefect_server.workspace / "term/runs/toy-slow.json").read_text())
    assert record["status"] == "interrupted"
    run = flow_runs(prefect_server, "toy-slow #1")[-1]
    assert run["state_type"] == "CRASHED"
    tasks = task_runs(prefect_server, stage_run(prefect_server, run["id"])["id"])
    assert len(tasks) == BATCHES, said.decode()
    assert {task["state_type"] for task in tasks} <= {"COMPLETED", "CANCELLED"}
