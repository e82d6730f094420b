"""Runs one stage to a complete output: lease, what is done already, the rest over the workers, counts, manifest.

The same code serves plain processes, Prefect and tests. What differs between them is handed in: how batches of orders
are executed, and who is told about progress.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from stages import provenance
from stages.base import GateError, Inputs, Resources, Stage, Unit
from stages.pool import Order, WorkerPool
from stages.retry import backoff_seconds, is_transient
from storage import leases, outputs
from storage.filesystem import Store
from storage.fingerprint import fingerprint
from storage.manifests import MANIFEST, Counts, ManifestError
from storage.outputs import (
    SCRATCH,
    Output,
    PartWriter,
    Receipt,
    file_problems,
    names_of,
    numbered,
    output_folder,
    read_receipt,
)

Done = Callable[[Unit, Receipt], None]
Check = Callable[[], None]
Report = Callable[[Any], None]


class BatchRunner(Protocol):
    """Executes batches of orders in any order and at any width; calls `done` once for each order."""

    def __call__(
        self, stage: str, batches: Sequence[Sequence[Order]], done: Done, check: Check, report: Report
    ) -> None: ...


class Reporter(Protocol):
    """Whoever shows progress."""

    def started(self, stage: str, units: int, finished: int, weight: int, weight_finished: int) -> None: ...
    def advanced(self, stage: str, units: int, weight: int, documents: int) -> None: ...
    def measured(self, stage: str, values: Any) -> None: ...
    def said(self, stage: str, message: str) -> None: ...
    def ended(self, stage: str, result: StageResult) -> None: ...


@dataclass(frozen=True)
class StageResult:
    """What running a stage came to."""

    output: Output
    worked: bool
    """False if a complete output was found and nothing had to be done."""
    units: int = 0
    units_done_here: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Standing:
    """How a fingerprint stands on disk."""

    name: str
    """The folder name to use: that of the complete output, of the one in work, or the next free one."""
    output: Output | None = None
    problems: tuple[str, ...] = field(default=())
    """Why the newest complete output cannot be used (files missing or of the wrong size)."""


def stage_fingerprint(stage: Stage[Any], inputs: Inputs) -> str:
    """The fingerprint of a stage with these inputs."""
    stage.meet(inputs)
    return fingerprint(stage.name, stage.version, stage.parameters(), {n: inputs[n].digest for n in stage.needs})


def standing(store: Store, stage: str, name: str, *, force: bool = False) -> Standing:
    """Look a fingerprint up: the newest complete and undamaged output, else where to go on or begin."""
    tried = names_of(store, stage, name)
    incomplete: str | None = None
    problems: list[str] = []
    for folder_name in reversed(tried):
        folder = output_folder(stage, folder_name)
        if not store.exists(f"{folder}/{MANIFEST}"):
            incomplete = incomplete or folder_name
            continue
        if force:
            break
        try:
            output = Output.open(store, folder)
        except ManifestError as error:
            problems.append(str(error))
            continue
        found = output.problems()
        if not found:
            return Standing(folder_name, output)
        problems += found
    if incomplete is not None:
        return Standing(incomplete, None, tuple(problems))
    last = int(tried[-1].partition("-")[2] or 1) if tried else 0
    return Standing(numbered(name, last + 1), None, tuple(problems))


def receipts_in(store: Store, folder: str) -> dict[str, str]:
    """The finished units of an output folder: key to the path of the receipt."""
    found = {}
    prefix = f"{folder}/{outputs.RECEIPTS}/"
    for path in store.listing(f"{folder}/{outputs.RECEIPTS}"):
        rest = path.removeprefix(prefix)
        if "/" not in rest:
            found[rest.removesuffix(".json")] = path
    return found


def reusable_receipts(store: Store, stage: str, folder: str, *, others: bool) -> dict[str, str]:
    """Receipts this folder may take over: its own and, if `others`, those of all other outputs of the stage."""
    found: dict[str, str] = {}
    if others:
        for name in store.folders(f"{outputs.OUTPUTS}/{stage}"):
            if output_folder(stage, name) != folder:
                found.update(receipts_in(store, output_folder(stage, name)))
    found.update(receipts_in(store, folder))
    return found


def usable(store: Store, path: str, sizes: dict[str, int]) -> Receipt | None:
    """The receipt at `path` if its files have no problems (`file_problems`)."""
    receipt = read_receipt(store, path)
    return None if file_problems(store, receipt.parts, sizes) else receipt


def run_stage(
    stage: Stage[Any],
    store: Store,
    inputs: Inputs,
    resources: Resources,
    run_batches: BatchRunner,
    reporter: Reporter,
    *,
    force: bool = False,
    check: Check = lambda: None,
) -> StageResult:
    """Bring a stage to a complete output, doing only what is not done yet.

    Raises
    ------
    GateError
        If the output's numbers are outside what the configuration expects (the output itself is complete).
    StageError
        For configuration and data that cannot work.
    LeaseLostError
        If another process took the stage over.
    """
    began = time.monotonic()
    name = stage_fingerprint(stage, inputs)
    found = standing(store, stage.name, name, force=force)
    if found.output is not None:
        return _gated(stage, StageResult(found.output, worked=False))
    for problem in found.problems[:5]:
        reporter.said(stage.name, f"an earlier output is damaged and is made again: {problem}")
    with _lease(store, f"{stage.name}-{name}", resources.lease_seconds, stage.name, reporter, check) as lease:
        found = standing(store, stage.name, name, force=force)
        if found.output is not None:
            return _gated(stage, StageResult(found.output, worked=False))

        def watch() -> None:
            lease.check()
            check()

        result = _work(stage, store, inputs, resources, run_batches, reporter, name, found.name, force, watch, began)
    reporter.ended(stage.name, result)
    return _gated(stage, result)


def _gated(stage: Stage[Any], result: StageResult) -> StageResult:
    reasons = stage.gate(result.output)
    if reasons:
        error = GateError(f"{stage.name}: " + "\n".join(reasons))
        error.output = result.output.name
        raise error
    return result


def _lease(store: Store, name: str, seconds: float, stage: str, reporter: Reporter, check: Check) -> leases.Lease:
    said = False
    while True:
        try:
            return leases.Lease(store, name, seconds).acquire()
        except leases.LeaseHeldError as held:
            if not said:
                reporter.said(stage, f"waiting: {held}")
                said = True
        check()
        time.sleep(min(1.0, seconds / 3))


def _work(
    stage: Stage[Any],
    store: Store,
    inputs: Inputs,
    resources: Resources,
    run_batches: BatchRunner,
    reporter: Reporter,
    name: str,
    folder_name: str,
    force: bool,
    check: Check,
    began: float,
) -> StageResult:
    folder = output_folder(stage.name, folder_name)
    earlier = reusable_receipts(store, stage.name, folder, others=not force)
    sizes: dict[str, int] = {}

    first = PartWriter(store, folder, f"start-{name}")
    stage.start(inputs, first)
    started = first.finish()

    def found(key: str) -> Receipt | None:
        receipt = usable(store, earlier[key], sizes) if key in earlier else None
        # Scratch files of other outputs may be removed at any time.
        passing = (part.path for part in receipt.parts if part.kind == SCRATCH) if receipt else ()
        return receipt if all(path.startswith(f"{folder}/") for path in passing) else None

    attempt = secrets.token_hex(4)
    folders = {stage_name: inputs[stage_name].folder for stage_name in stage.needs}
    ordered: list[Receipt] = []
    reused = weight = 0
    rounds = stage.rounds(inputs, started, lambda key: found(key) is not None)
    units = next(rounds, None)
    while units is not None:
        receipts = {unit.key: receipt for unit in units if (receipt := found(unit.key)) is not None}
        todo = [unit for unit in units if unit.key not in receipts]
        reused += len(receipts)
        weight += sum(unit.weight for unit in units)
        left = sum(unit.weight for unit in todo)
        reporter.started(stage.name, len(ordered) + len(units), len(ordered) + len(receipts), weight, weight - left)

        def done(unit: Unit, receipt: Receipt, receipts: dict[str, Receipt] = receipts) -> None:
            receipts[unit.key] = receipt
            reporter.advanced(stage.name, 1, unit.weight, int(receipt.counts["read"]))

        orders = [Order(stage, unit, store.url, folder, folders, resources, attempt) for unit in todo]
        if orders:
            batches = split_batches(orders, resources.batches)
            run_batches(stage.name, batches, done, check, lambda values: reporter.measured(stage.name, values))
        check()
        these = [receipts[unit.key] for unit in units]
        ordered += these
        try:
            units = rounds.send(these)
        except StopIteration:
            units = None

    last = PartWriter(store, folder, f"finish-{name}")
    stage.finish(inputs, ordered, last)
    finished = last.finish()
    counts = Counts()
    for receipt in (started, *ordered, finished):
        counts.add(receipt.counts)
    seconds = time.monotonic() - began
    output = outputs.complete(
        store,
        folder,
        stage=stage.name,
        version=stage.version,
        fingerprint=name,
        parameters=stage.parameters(),
        inputs={stage_name: inputs[stage_name] for stage_name in stage.needs},
        parts=[part for receipt in (started, *ordered, finished) for part in receipt.parts if part.kind != SCRATCH],
        counts=counts,
        numerics=stage.numerics(ordered),
        timings={
            "seconds": round(seconds, 3),
            "unit_seconds": round(sum(receipt.seconds for receipt in ordered), 3),
            "units": len(ordered),
            "units_reused": reused,
            "workers": resources.worker_count(),
        },
        software=provenance.software(),
        git=provenance.git(),
    )
    store.remove_tree(f"{folder}/{SCRATCH}")
    return StageResult(output, True, len(ordered), len(ordered) - reused, seconds)


def split_batches(orders: Sequence[Order], most: int) -> list[list[Order]]:
    """Divide orders, in order, into at most `most` batches of nearly equal number."""
    size = -(-len(orders) // most)
    return [list(orders[i : i + size]) for i in range(0, len(orders), size)]


class PlainBatches:
    """Runs batches in the pool without Prefect; owns the retries."""

    def __init__(self, pool: WorkerPool, retries: int) -> None:
        self.pool = pool
        self.retries = retries

    def __call__(
        self, stage: str, batches: Sequence[Sequence[Order]], done: Done, check: Check, report: Report
    ) -> None:
        remaining = {order.unit.key: order for batch in batches for order in batch}

        def tick(unit: Unit, receipt: Receipt) -> None:
            remaining.pop(unit.key, None)
            done(unit, receipt)

        for attempt in range(1, self.retries + 2):
            try:
                self.pool.run(list(remaining.values()), tick, check, report)
                return
            except Exception as error:
                if attempt > self.retries or not is_transient(error):
                    raise
                report({"retry": f"{type(error).__name__}: {error}", "attempt": attempt})
                _sleep(backoff_seconds(attempt), check)


def _sleep(seconds: float, check: Check) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        check()
        time.sleep(min(0.2, seconds))
