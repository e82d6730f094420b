"""How the command line runs: signals, the session of a configuration, with Prefect or without."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from flows.cli import INTERRUPTED, UsageError
from flows.config import from_values, load_config
from stages.base import StageError
from stages.config import RunConfig
from stages.plan import PlanRow, Selection
from stages.pool import WorkerPool
from stages.progress import reporter_for
from stages.runner import PlainBatches, Reporter
from stages.session import Session
from storage.filesystem import Store
from storage.outputs import Output, output_folder

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_interrupts: list[int] = []


def catch_signals() -> None:
    """Let SIGINT, SIGTERM and SIGHUP stop the run cleanly; a second one ends it and its children at once."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    _interrupts.append(number)
    if len(_interrupts) == 1:
        print("stopping (once more to stop at once)", file=sys.stderr, flush=True)
        raise KeyboardInterrupt
    _end_children()
    os._exit(INTERRUPTED)


def _end_children() -> None:
    """Kill all processes below this one, except a Prefect server, which lives in a session of its own for others."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        if not _serves(child):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def _serves(process: Any) -> bool:
    import psutil

    try:
        return "prefect server start" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def open_session(
    config: str,
    overrides: Sequence[str] | None,
    name: str | None,
    workspace: str | None,
    workers: int | None,
    selected: tuple[str | None, str | None, str | None, Sequence[str]],
    *,
    verify: bool = False,
) -> Session:
    """The session that a command line asks for; ConfigError or UsageError if it cannot be."""
    changes = [*(overrides or []), *([f"how.workers={workers}"] if workers is not None else [])]
    changes += ["how.verify_inputs=true"] if verify else []
    settings = load_config(config, changes, name=name, workspace=workspace)
    start, until, only, force = selected
    try:
        return Session(settings, Selection(start, until, only, tuple(force)))
    except StageError as error:
        raise UsageError(str(error)) from error


def follow(session: Session, rows: Sequence[PlanRow], *, prefect: bool) -> Mapping[str, Output]:
    """Do what the plan says and return the outputs; a run with nothing to do imports neither Prefect nor torch."""
    selected = session.selected()
    states = {row.stage: row.state for row in rows}
    work = [stage for stage in selected if states[stage] != "done"]
    if not work:
        print("Nothing to do: everything that was asked for is complete.", file=sys.stderr)
        with WorkerPool(1) as pool, session.attempt():
            for stage in selected:
                session.run(stage, PlainBatches(pool, 0), reporter_for((), ()))
        return session.outputs
    reporter = reporter_for(selected, [stage for stage in selected if stage not in work])
    if prefect:
        return _under_prefect(session, reporter)
    with WorkerPool(session.config.how.worker_count()) as pool, session.attempt(), reporter:
        for stage in selected:
            session.run(stage, PlainBatches(pool, session.config.how.retries), reporter)
    return session.outputs


def _under_prefect(session: Session, reporter: Any) -> Mapping[str, Output]:
    from flows import server

    if os.environ.get("GRISTMILL_DEBUG"):
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO")
    starting = server.Starting(session.config.workspace).begin()
    if starting.server is None:
        print("Starting the local Prefect server …", file=sys.stderr, flush=True)
    # Importing Prefect takes as long as a server needs to start; the environment it reads is set by now.
    from flows.driving import Request, requested
    from flows.pipeline import pipeline

    found = starting.wait()
    print(f"Prefect UI: {found.ui_url}", file=sys.stderr, flush=True)
    selection: Any = session.selection
    with requested(Request(reporter, catch_signals)), reporter:
        made = pipeline(
            config=session.config,
            from_stage=selection.start,
            until_stage=selection.until,
            only_stage=selection.only,
            force=list(selection.force),
        )
    for stage, reference in made.items():
        session.outputs[stage] = Output.open(session.store, output_folder(stage, reference["output"]))
    return {stage: session.outputs[stage] for stage in session.stages if stage in session.outputs}


def draw_report(store: Store, record: Mapping[str, Any], *, force: bool) -> str:
    """The path of a run's report, drawn from its complete outputs if it is not there yet."""
    from stages import explain

    settings = record_config(store, record)
    session = Session(settings, Selection(only="report", force=("report",) if force else ()))
    session.plan()
    reporter: Reporter = reporter_for(["report"], [])
    with WorkerPool(1) as pool:
        result = session.run("report", PlainBatches(pool, 0), reporter)
    return str(explain.summary({"report": result.output})["report"])


def record_config(store: Store, record: Mapping[str, Any]) -> RunConfig:
    """The configuration a run was started with, in the workspace it is looked at now."""
    return from_values(record["config"], f"the record of run {record['name']}", workspace=store.url)
