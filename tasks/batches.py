"""Batches of parts as Prefect task runs: at most a hundred a stage, each driving the shared worker pool.

Prefect owns the retries here. The workers know nothing of Prefect, so no run context travels to them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Cancelled
from prefect.task_runners import ThreadPoolTaskRunner

from stages.base import Unit
from stages.pool import Order, WorkerPool
from stages.retry import backoff_seconds, is_transient
from stages.runner import Check, Done, Report
from storage.outputs import Receipt

_DELAYS = 50
"""Prefect takes at most so many retry delays; further retries wait as long as the last one."""


class _StoppedError(Exception):
    """Raised inside a batch when the stage must stop because of something else."""


class PrefectBatches:
    """Runs every batch as one task run of the flow it is called in.

    Parameters
    ----------
    pool
        The worker pool of the whole run.
    retries
        How often a batch is tried again after a fault that may pass. What it has done by then is not done again.
    """

    def __init__(self, pool: WorkerPool, retries: int) -> None:
        self.pool = pool
        self.retries = retries
        self.submitted: list[UUID] = []
        """The ids of all task runs so far."""

    def __call__(
        self, stage: str, batches: Sequence[Sequence[Order]], done: Done, check: Check, report: Report
    ) -> None:
        remaining = [{order.unit.key: order for order in batch} for batch in batches]
        errors: list[BaseException] = []
        stop = threading.Event()
        lock = threading.Lock()

        def watch() -> None:
            if stop.is_set():
                raise _StoppedError
            check()

        def run_batch(number: int) -> State[Any] | None:
            def tick(unit: Unit, receipt: Receipt) -> None:
                with lock:
                    remaining[number].pop(unit.key, None)
                    done(unit, receipt)

            if stop.is_set():
                return Cancelled(message=f"{stage} was stopped before this batch began")
            try:
                self.pool.run(list(remaining[number].values()), tick, watch, report)
            except BaseException as error:
                if stop.is_set():
                    return Cancelled(message=f"{stage} was stopped")
                if not is_transient(error):
                    errors.append(error)
                    stop.set()
                raise
            return None

        def may_pass(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
            error = state.data
            if stop.is_set() or not isinstance(error, BaseException) or not is_transient(error):
                return False
            report({"retry": f"{type(error).__name__}: {error}", "attempt": task_run.run_count})
            return True

        def task_named(number: int) -> Task[[int], State[Any] | None]:
            parts = len(batches[number])
            return Task(
                run_batch,
                name=stage,
                task_run_name=f"{stage} {number + 1}/{len(batches)} ({parts} {'part' if parts == 1 else 'parts'})",
                cache_policy=NO_CACHE,
                persist_result=False,
                retries=self.retries,
                retry_delay_seconds=[backoff_seconds(n + 1) for n in range(min(self.retries, _DELAYS))] or 0,
                retry_condition_fn=may_pass,
            )

        task_runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(width(batches, self.pool.workers))
        with task_runner as runner:
            futures = []
            try:
                for number in range(len(batches)):
                    futures.append(runner.submit(task_named(number), parameters={"number": number}))
                    self.submitted.append(futures[-1].task_run_id)
                for number, future in enumerate(futures):
                    future.wait()
                    if remaining[number] and not stop.is_set():
                        stop.set()
                        future.result()
            except BaseException as error:
                stop.set()
                if not isinstance(error, Exception):
                    self.pool.close()
                # Batches that have not begun end as Cancelled at once; left alone they would stay Pending for ever.
                for future in futures:
                    future.wait()
                raise
        if errors:
            raise errors[0]


def width(batches: Sequence[Sequence[Order]], workers: int) -> int:
    """How many batches are open at once so that no worker waits at a batch's end; one for stages in this process."""
    if batches[0][0].stage.in_process:
        return 1
    return min(len(batches), 1 + -(-workers // len(batches[0])))
