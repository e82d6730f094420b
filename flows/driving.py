"""One attempt at a run under Prefect: what all flows share. Its worker pool, its progress, its place in the history.

The pipeline opens a `Drive` for all its stages; a stage flow run by itself opens one of its own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    TaskRunFilterId,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Crashed

from flows.config import ConfigError, from_values, load_config
from stages.config import RunConfig
from stages.plan import Selection
from stages.pool import WorkerPool
from stages.progress import PlainProgress
from stages.runner import PlainBatches, Reporter, StageResult
from stages.session import Session
from storage.fingerprint import canonical, hash_of
from tasks.artifacts import PrefectProgress
from tasks.batches import PrefectBatches

FLUSH_SECONDS = 30.0
"""How long to wait at the end for the server to record everything; it takes some 34 task runs a second."""
_PAGE = 200


@dataclass(frozen=True)
class Request:
    """What the command line wants of the flows it calls: who shows progress, and what every flow sets up anew."""

    reporter: Reporter
    on_enter: Callable[[], None] = lambda: None
    """Called at the beginning of every flow, after Prefect has installed signal handlers of its own."""


_request: ContextVar[Request | None] = ContextVar("request", default=None)


@contextlib.contextmanager
def requested(request: Request) -> Iterator[None]:
    """Flows called in this block report to whoever called them."""
    token = _request.set(request)
    try:
        yield
    finally:
        _request.reset(token)


def enter_flow() -> None:
    """What every flow does first."""
    request = _request.get()
    if request is not None:
        request.on_enter()


def read_config(config: RunConfig | None, config_file: str | None, overrides: Sequence[str]) -> RunConfig:
    """The configuration a flow was given: whole, or as a file; changes apply to either. ConfigError if neither."""
    if config is None:
        if not config_file:
            raise ConfigError("give either config or config_file")
        return load_config(config_file, overrides)
    if config_file:
        raise ConfigError("config and config_file cannot be given together")
    # Prefect's own validation turns "5" into 5; this one does not.
    return from_values(canonical(config, "config"), "the parameter config", overrides=overrides)


class Drive:
    """Runs the stages of a session under Prefect.

    Parameters
    ----------
    session
        The run.
    pool
        Its workers.
    reporter
        Who shows progress beside Prefect.
    """

    def __init__(self, session: Session, pool: WorkerPool, reporter: Reporter) -> None:
        self.session = session
        self.plan = session.plan()
        self.reporter = reporter
        self.progress = PrefectProgress(reporter)
        self.batches = PrefectBatches(pool, session.config.how.retries)
        self.plain = PlainBatches(pool, 0)

    def run(self, stage: str) -> StageResult:
        """Bring one stage to completion in the flow run this is called in."""
        return self.session.run(stage, self.batches, self.progress)

    def take(self, stage: str) -> StageResult:
        """Note a stage that is complete already, without task runs."""
        return self.session.run(stage, self.plain, self.reporter)


@contextlib.contextmanager
def driving(config: RunConfig, selection: Selection) -> Iterator[Drive]:
    """Open one attempt at a run inside a flow run; closes its record and waits until Prefect's history is complete."""
    session = Session(config, selection)
    request = _request.get()
    reporter = request.reporter if request is not None else PlainProgress()
    with get_client(sync_client=True) as client:
        reconcile(client, config.workspace)
        with WorkerPool(config.how.worker_count()) as pool:
            drive = Drive(session, pool, reporter)
            try:
                with session.attempt():
                    _label(client, session)
                    yield drive
            finally:
                pool.close()
                _flush(client, drive.batches.submitted)


def reference(result: StageResult) -> dict[str, str]:
    """What a flow returns of a stage: names, never data."""
    return {"stage": result.output.stage, "output": result.output.name, "digest": result.output.digest}


# -------------------------------------------------------------------- the history


def workspace_tag(workspace: str) -> str:
    """The tag of all flow runs of one workspace."""
    place = workspace if "://" in workspace else os.path.realpath(workspace)
    return f"workspace:{hash_of(place, 12)}"


def process_tag() -> str:
    """The tag that says which process a flow run lives in; the time tells a process id from a later same one."""
    return f"process:{socket.gethostname()}:{os.getpid()}:{int(psutil.Process().create_time())}"


def is_dead(tags: Sequence[str]) -> bool:
    """Whether the process that the tags name is of this machine and gone."""
    for tag in tags:
        if tag.startswith("process:"):
            host, pid, created = tag.removeprefix("process:").rsplit(":", 2)
            if host != socket.gethostname():
                return False
            try:
                process = psutil.Process(int(pid))
                gone = process.status() == psutil.STATUS_ZOMBIE
                return gone or abs(int(process.create_time()) - int(created)) > 1
            except psutil.NoSuchProcess:
                return True
    return False


def tag_run(workspace: str, run: str, attempt: int) -> list[str]:
    """The tags of a flow run."""
    return ["gristmill", workspace_tag(workspace), f"run:{run}", f"attempt:{attempt}", process_tag()]


def _label(client: SyncPrefectClient, session: Session) -> None:
    """Name the flow run after run and attempt, and tag it."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    assert session.record is not None
    attempt = int(session.record["attempts"][-1]["number"])
    name = session.config.name
    tags = {*context.flow_run.tags, *tag_run(session.config.workspace, name, attempt)}
    flow_name = context.flow.name if context.flow is not None else ""
    title = f"{name} #{attempt}" if flow_name == "pipeline" else f"{name} #{attempt} {flow_name}"
    client.update_flow_run(context.flow_run.id, tags=sorted(tags), name=title)


def reconcile(client: SyncPrefectClient, workspace: str) -> list[UUID]:
    """Set flow runs of this workspace whose process is dead, their subflows and task runs, to Crashed; returns ids."""
    tagged = FlowRunFilterTags(all_=["gristmill", workspace_tag(workspace)])
    dead = [run for run in _unfinished(client, tags=tagged) if is_dead(run.tags)]
    if dead:
        parents = FlowRunFilterParentFlowRunId(any_=[run.id for run in dead])
        dead += _unfinished(client, parent_flow_run_id=parents)
    crashed: State[Any] = Crashed(message="The process of this run is gone; the next attempt found it so.")
    for run in dead:
        client.set_flow_run_state(run.id, crashed, force=True)
        for task_run in _task_runs(client, TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.id]))):
            if task_run.state is None or not task_run.state.is_final():
                client.set_task_run_state(task_run.id, crashed, force=True)
    if dead:
        get_run_logger().info("%s runs of a dead process are set to Crashed", len(dead))
    return [run.id for run in dead]


def _unfinished(client: SyncPrefectClient, **wanted: Any) -> list[FlowRun]:
    types = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=types))
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=state, **wanted), sort=FlowRunSort.START_TIME_DESC, limit=_PAGE
    )


def _task_runs(client: SyncPrefectClient, wanted: TaskRunFilter) -> list[TaskRun]:
    found: list[TaskRun] = []
    while True:
        page = client.read_task_runs(task_run_filter=wanted, sort=TaskRunSort.ID_DESC, limit=_PAGE, offset=len(found))
        found += page
        if len(page) < _PAGE:
            return found


def _flush(client: SyncPrefectClient, submitted: Sequence[UUID], seconds: float = FLUSH_SECONDS) -> None:
    """Wait until every task run is recorded in a final state, so that the history is complete when we leave."""
    missing = list(submitted)
    deadline = time.monotonic() + seconds
    while missing:
        final: set[UUID] = set()
        for start in range(0, len(missing), _PAGE):
            page = missing[start : start + _PAGE]
            runs = _task_runs(client, TaskRunFilter(id=TaskRunFilterId(any_=page)))
            final.update(run.id for run in runs if run.state is not None and run.state.is_final())
        missing = [identity for identity in missing if identity not in final]
        if not missing:
            return
        if time.monotonic() > deadline:
            get_run_logger().warning("%s task runs are not recorded completely", len(missing))
            return
        time.sleep(0.2)
