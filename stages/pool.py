"""The worker pool: spawned processes that each do one unit at a time.

A worker that dies (killed, out of memory) does not take the stage with it: the pool is made anew and what was lost is
tried again, one unit at a time at the end, so that the unit that kills its worker can be named.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.base import Context, Resources, Stage, Unit
from stages.retry import WorkerDiedError
from storage.filesystem import Store
from storage.outputs import Output, PartWriter, Receipt

TRIES_ALONE = 2
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Order:
    """A unit of work with all a process needs to do it."""

    stage: Stage[Any]
    unit: Unit
    store_url: str
    folder: str
    inputs: dict[str, str]
    """Stage name to output folder."""
    resources: Resources
    attempt: str


_opened: dict[tuple[str, str], Output] = {}


def _open(store: Store, folder: str) -> Output:
    # Completed outputs never change, so a worker reads each manifest once.
    key = (store.url, folder)
    if key not in _opened:
        _opened[key] = Output.open(store, folder)
    return _opened[key]


# What the units at work have done so far, for progress: for each worker (unit, weight) in memory it shares with the
# parent. Nothing is locked, so a killed worker leaves nothing locked; a torn reading shows for half a second.
_SLOTS = 1024
_slots: Any = None


def _unit_number(unit: Unit) -> int:
    return zlib.crc32(unit.key.encode()) + 1


def _tell(unit: Unit, weight: int) -> None:
    if _slots is not None:
        slot = os.getpid() % _SLOTS
        _slots[2 * slot], _slots[2 * slot + 1] = _unit_number(unit), weight


def execute(
    order: Order,
    report: Callable[[Any], None] | None = None,
    check: Callable[[], None] | None = None,
) -> Receipt:
    """Do one unit of work in this process and create its receipt."""
    store = Store(order.store_url)
    inputs = {name: _open(store, folder) for name, folder in order.inputs.items()}
    writer = PartWriter(store, order.folder, order.unit.key)
    scratch = store.scratch()
    context = Context(
        order.resources,
        Path(scratch),
        order.folder,
        order.attempt,
        report or (lambda _: None),
        check or (lambda: None),
        _tell,
    )
    order.stage.run_unit(order.unit, inputs, writer, context)
    return writer.finish()


def _start_worker(threads: int, parent: int, slots: Any) -> None:
    """Runs first in every worker: leave interrupts to the parent, die with it, keep libraries from using all cores."""
    global _slots
    _slots = slots
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


class WorkerPool:
    """Processes that do orders; started on first use and kept for all stages of a run.

    Parameters
    ----------
    workers
        Number of processes. With a store that other processes cannot see (`memory://`) the work is done here.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._executor: ProcessPoolExecutor | None = None
        self._slots = _SPAWN.RawArray("q", 2 * _SLOTS)
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="worker-start")
        self._lock = threading.Lock()

    def _processes(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._executor = ProcessPoolExecutor(
                    self.workers, _SPAWN, initializer=_start_worker, initargs=(1, os.getpid(), self._slots)
                )
            return self._executor

    def _discard(self, broken: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._executor is broken:
                self._executor = None
        broken.shutdown(wait=False, cancel_futures=True)

    def run(
        self,
        orders: Sequence[Order],
        done: Callable[[Unit, Receipt], None],
        check: Callable[[], None],
        report: Callable[[Any], None] | None = None,
    ) -> None:
        """Do all orders; `done` is called for each as it ends, `check` often, and may raise to stop.

        Raises
        ------
        WorkerDiedError
            If a unit's worker died again and again, with no other unit of this call beside it.
        Exception
            Whatever a unit raised first; units already running are waited for, the others are not begun.
        """
        if not orders:
            return
        here = orders[0].stage.in_process or orders[0].store_url.startswith("memory://")
        if here:
            for order in orders:
                check()
                done(order.unit, execute(order, report, check))
            return
        report = report or (lambda _: None)
        for order in self._run_together(orders, done, check, report):
            for _ in range(TRIES_ALONE):
                if not self._run_together([order], done, check, report):
                    break
            else:
                raise WorkerDiedError(
                    f"{order.stage.name}: the worker process died {TRIES_ALONE + 1} times on {order.unit.name} "
                    "(killed, or out of memory: fewer workers or smaller parts may help)"
                )

    def _run_together(
        self,
        orders: Sequence[Order],
        done: Callable[[Unit, Receipt], None],
        check: Callable[[], None],
        report: Callable[[Any], None],
    ) -> list[Order]:
        """Do orders side by side; returns those that a dying worker took with it."""
        executor = self._processes()
        pending: dict[Future[Receipt], Order] = {}
        waiting = list(reversed(orders))
        lost: list[Order] = []
        try:
            while waiting or pending:
                # Few at a time, so that a stop does not leave a long queue behind.
                while waiting and len(pending) < 2 * self.workers:
                    order = waiting.pop()
                    try:
                        # In a thread of its own: an interrupt of this one would leave a process half started.
                        pending[self._starter.submit(executor.submit, execute, order).result()] = order
                    except BrokenProcessPool:
                        lost.append(order)
                finished, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                check()
                if under_way := self._under_way(pending.values()):
                    report({"under_way": under_way})
                for future in finished:
                    order = pending.pop(future)
                    report({"under_way": {order.unit.name: 0}})
                    try:
                        done(order.unit, future.result())
                    except BrokenProcessPool:
                        lost.append(order)
                if lost:
                    lost += list(pending.values()) + waiting
                    self._discard(executor)
                    return lost
        except Exception:
            for future in pending:
                future.cancel()
            wait(pending, timeout=30)
            raise
        except BaseException:
            # An interrupt does not wait for units to end: what they have not published is done again next time.
            self.close()
            raise
        return []

    def _under_way(self, orders: Iterable[Order]) -> dict[str, int]:
        """Unit -> how much of its weight is done, of units that tell."""
        said = dict(zip(self._slots[::2], self._slots[1::2], strict=True))
        found = {order.unit.name: said.get(_unit_number(order.unit), 0) for order in orders}
        return {name: weight for name, weight in found.items() if weight}

    def close(self) -> None:
        """End all workers now."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            known = executor._processes or {}
            # Nothing is cancelled: ending the processes breaks whatever is pending, for whoever waits for it.
            executor.shutdown(wait=False)
            processes = list(known.values())
            for process in processes:
                with contextlib.suppress(OSError, ValueError):
                    process.terminate()
            for process in processes:
                with contextlib.suppress(OSError, ValueError, AssertionError):
                    process.join(5)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
