"""The contract of a stage.

A stage is a frozen configuration plus four steps: `start` (once, before), `units` (what there is to do), `run_unit`
(one piece, in a worker process, a pure function of its inputs) and `finish` (once, after). Where pieces need what
other pieces made, `rounds` says what is done after what. `stages/runner.py` does the rest: fingerprints, leases,
receipts, reuse, retries, counts, the manifest.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from model.config import TrainingResources
from storage.fingerprint import canonical, hash_of
from storage.outputs import Output, PartWriter, Receipt
from storage.settings import STRICT, setting

Inputs = Mapping[str, Output]
Config = TypeVar("Config")


class StageError(RuntimeError):
    """Something that trying again cannot heal: bad configuration, bad data. The message says what to do."""


class SettingError(StageError):
    """A setting that a look at the world shows to be wrong: a path where nothing is, a package that is not installed.

    Its exit code is 2, as for settings that are wrong in themselves.
    """


class GateError(StageError):
    """Numbers outside what the configuration expects; the run stops before anything expensive (exit code 3).

    `output` is the folder name of the output they belong to, which is complete.
    """

    output: str | None = None


def usable_cores() -> int:
    """The cores this process may use, where the system tells, else all of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Resources:
    """How the work is run. Nothing here changes results, so nothing here is fingerprinted."""

    __pydantic_config__ = STRICT

    workers: int = setting("Worker processes for stages that work part by part; 0: one a core.", 0, ge=0, le=4096)
    training: TrainingResources = setting("Where and how models are trained.", default_factory=TrainingResources)
    memory_megabytes: int = setting(
        "Memory a worker plans with where the whole corpus is sorted or compared (deduplicate, repeats).", 512, ge=1
    )
    retries: int = setting("How often a batch of parts is tried again after a fault that may pass.", 3, ge=0, le=100)
    lease_seconds: float = setting("How long a lease stands without renewal.", 60.0, ge=3.0, le=3600.0)
    verify_inputs: bool = setting(
        "Hash every input file and compare it with the ledger of the run before, instead of trusting size and time "
        "stamp: a file that was only touched is not read again, one that was changed behind its time stamp is.",
        False,
    )
    batches: int = setting("Task runs a stage is divided into at most, for the Prefect UI.", 24, ge=1, le=100)

    def worker_count(self) -> int:
        """`workers`, or the number of cores this process may use."""
        return self.workers or usable_cores()


@dataclass(frozen=True)
class Unit:
    """One piece of a stage's work.

    `key` names everything its result depends on; `payload` is what `run_unit` needs beside the inputs; `weight` is
    its share of the work in bytes, for progress.
    """

    name: str
    key: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    weight: int = 0


@dataclass(frozen=True)
class Context:
    """What a unit may ask of whoever runs it: resources, a scratch folder, a way to report, whether to stop."""

    resources: Resources
    scratch: Path
    folder: str
    attempt: str
    report: Callable[[Mapping[str, Any]], None]
    check: Callable[[], None]
    """Raises if the work must stop (the lease was lost, the run cancelled)."""
    advanced: Callable[[Unit, int], None] = lambda unit, weight: None
    """Tells how much of a unit's weight is done; called as often as one likes."""


class Stage(ABC, Generic[Config]):
    """One stage of the graph.

    Class attributes
    ----------------
    name
        As on the command line.
    version
        Raised by hand whenever the same inputs and parameters give other results.
    needs
        The stages whose outputs it reads.
    in_process
        Whether its units run in the runner's own process (because they start processes themselves).
    """

    name: ClassVar[str]
    version: ClassVar[int]
    needs: tuple[str, ...] = ()
    in_process: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config

    def parameters(self) -> Any:
        """The canonical payload of the fingerprint: all that determines the result beside the inputs."""
        return canonical(self.config, self.name)

    def follow(self, previous: Callable[[], Output | None]) -> None:
        """Called first, with a way to find the output of the run before, for what tells people how things changed.

        Nothing that is in the content digest may depend on it, unless `parameters` names it.
        """

    def meet(self, inputs: Inputs) -> None:
        """Called when the inputs are known, before `parameters` is asked for what may depend on them."""

    def starts(self) -> bool:
        """Whether `start` does anything for this configuration."""
        return type(self).start is not Stage.start

    def start(self, inputs: Inputs, writer: PartWriter) -> None:
        """Prepare what all units share, in the runner's process; files written here are parts like all others."""

    @abstractmethod
    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        """All pieces of work in the order of the manifest; a pure function of inputs and parameters."""

    def rounds(
        self, inputs: Inputs, started: Receipt, done: Callable[[str], bool]
    ) -> Generator[list[Unit], list[Receipt], None]:
        """The units in the order of the manifest, in rounds: each is given when all before it are done.

        It yields units and is sent their receipts. `done(key)` says whether a unit need not be done again, so that
        what only leads to it can be left out. Files of the kind `SCRATCH` are for later rounds: they are no parts of
        the output, and removed when it is complete.
        """
        yield self.units(inputs, started)

    @abstractmethod
    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        """Do one piece of work. Its counts must add up."""

    def finish(self, inputs: Inputs, receipts: Sequence[Receipt], writer: PartWriter) -> None:
        """Write what describes the whole output, in the runner's process; must give the same bytes when repeated."""

    def numerics(self, receipts: Sequence[Receipt]) -> dict[str, Any]:
        """What floating-point results depended on beside the parameters; empty where results are exact."""
        return dict(receipts[0].notes.get("numerics", {})) if receipts else {}

    def gate(self, output: Output) -> list[str]:
        """Reasons to stop the run after this stage, if any. Asked again whenever a finished output is used."""
        return []

    def unit_key(self, **material: Any) -> str:
        """The key of a unit: a hash of stage, version and all it depends on."""
        return hash_of({"stage": self.name, "version": self.version, **material})


def part_units(
    stage: Stage[Any], inputs: Inputs, shared: Any = None, extra: Sequence[str] = (), *, parameters: Any = None
) -> list[Unit]:
    """One unit for every part of the documents, keyed by the parts of all inputs that describe the same rows.

    Parameters
    ----------
    shared
        What all units depend on beside the parameters.
    extra
        "stage:kind" of further co-partitioned inputs, e.g. "filter:decisions". A part missing there is an error.
    parameters
        What of the parameters a unit depends on; all of them by default.
    """
    sides = []
    for name in extra:
        stage_name, _, kind = name.partition(":")
        sides.append((kind, {part.stem: part for part in inputs[stage_name].parts(kind)}))
    whole = stage.parameters() if parameters is None else canonical(parameters)
    units = []
    for part in inputs["ingest"].parts("documents"):
        digests = {"documents": part.digest}
        for kind, by_stem in sides:
            if part.stem not in by_stem:
                raise StageError(f"{stage.name}: there are no {kind} for the documents part {part.name}")
            digests[kind] = by_stem[part.stem].digest
        key = stage.unit_key(parameters=whole, name=part.stem, digests=digests, shared=canonical(shared))
        units.append(Unit(part.stem, key, {"stem": part.stem}, part.bytes))
    return units
