"""One attempt at a run: its configuration, its record, and the outputs found or made so far.

The command line without Prefect, the Prefect flows and the tests all drive a run through this.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

from stages import provenance, takedown
from stages.base import GateError, Stage, StageError
from stages.config import RunConfig
from stages.graph import make_stages
from stages.plan import PlanRow, Selection, before_of, look
from stages.runner import BatchRunner, Reporter, StageResult, run_stage
from storage import runs
from storage.filesystem import Store
from storage.fingerprint import canonical
from storage.outputs import Output


class Session:
    """Drives the stages of one run.

    Parameters
    ----------
    config
        What to do and how.
    selection
        Which stages may be worked on; the others must be complete already.
    """

    def __init__(self, config: RunConfig, selection: Selection | None = None) -> None:
        self.store = Store(config.workspace)
        self.config = dataclasses.replace(config, ingest=takedown.apply(self.store, config.ingest))
        self.selection = selection or Selection()
        self.stages: dict[str, Stage[Any]] = make_stages(self.config)
        self.selection.check(self.stages)
        self.outputs: dict[str, Output] = {}
        self.record: dict[str, Any] | None = runs.load(self.store, config.name)
        for name, stage in self.stages.items():
            stage.follow(functools.partial(self._output_before, name))

    def plan(self) -> list[PlanRow]:
        """The plan; complete outputs are taken note of on the way."""
        rows, found = look(self.stages, self.store, self.record, self.selection)
        self.outputs.update(found)
        return rows

    def begin(self) -> None:
        """Write the run record with `status: running`."""
        self.record = runs.start(
            self.store,
            self.config.name,
            canonical(self.config, "config"),
            provenance.git(),
            provenance.software(),
        )
        # What is complete already and not asked for belongs to the run too: its record says what it was made of.
        for name in self.outputs.keys() - set(self.selected()):
            output = self.outputs[name]
            self._note(name, status="done", output=output.name, digest=output.digest)

    def end(self, status: str, message: str = "") -> None:
        """Close the attempt in the run record."""
        if self.record is not None:
            runs.end(self.store, self.record, status, message)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """`begin`, then `end` with the status that fits how the block was left."""
        self.begin()
        try:
            yield
        except GateError as error:
            self.end("stopped", str(error))
            raise
        except Exception as error:
            self.end("failed", f"{type(error).__name__}: {error}"[:2000])
            raise
        except BaseException:
            # Signals, Prefect's own included, are no faults of the run.
            self.end("interrupted")
            raise
        self.end("done")

    def selected(self) -> list[str]:
        """The stages this run may work on, in order."""
        return [name for name in self.stages if self.selection.includes(name, self.stages)]

    def inputs_of(self, name: str) -> dict[str, Output]:
        """The outputs a stage reads; StageError naming what is missing and how to get it."""
        stage = self.stages[name]
        missing = [need for need in stage.needs if need not in self.outputs]
        if missing:
            raise StageError(
                f"{name} needs {', '.join(missing)}, which this configuration has not completed yet: "
                f"run without --only/--from, or with --from {missing[0]}"
            )
        return {need: self.outputs[need] for need in stage.needs}

    def run(
        self,
        name: str,
        run_batches: BatchRunner,
        reporter: Reporter,
        check: Callable[[], None] = lambda: None,
    ) -> StageResult:
        """Bring one stage to completion and note it in the run record."""
        stage = self.stages[name]
        inputs = self.inputs_of(name)
        self._note(name, status="running")
        try:
            result = run_stage(
                stage,
                self.store,
                inputs,
                self.config.how,
                run_batches,
                reporter,
                force=name in self.selection.force,
                check=check,
            )
        except BaseException as error:
            status = "stopped" if isinstance(error, GateError) else "failed"
            if not isinstance(error, Exception):
                status = "interrupted"
            # What a gate stopped can be looked at, but does not take the place of the last output that passed.
            self._note(name, status=status, **({"stopped": error.output} if isinstance(error, GateError) else {}))
            raise
        self.outputs[name] = result.output
        self._note(
            name,
            status="done",
            output=result.output.name,
            digest=result.output.digest,
            worked=result.worked,
            **({"seconds": round(result.seconds, 3)} if result.worked else {}),
        )
        return result

    def _output_before(self, name: str) -> Output | None:
        return before_of(self.store, self.record, name)

    def _note(self, name: str, **values: Any) -> None:
        if self.record is not None:
            runs.set_stage(self.store, self.record, name, **values)
