"""A stage of thirty tiny units in place of ingest, run through the pipeline flow in a process of its own.

`python -m tests.flows.toy WORKSPACE MODE` with MODE one of: good, flaky (one unit fails once with an I/O error), bad
(one unit has bad data), slow (units take half a second), gate (the numbers are absurd).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from corpus.config import IngestConfig, SourceConfig
from stages.base import Context, GateError, Inputs, Resources, Stage, StageError, Unit
from stages.config import RunConfig
from storage.outputs import Output, PartWriter, Receipt

UNITS = 30


class Toy(Stage[Any]):
    """Thirty units that write a number each."""

    name = "ingest"
    version = 1

    def __init__(self, mode: str) -> None:
        super().__init__({"mode": mode})
        self.mode = mode

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        return [Unit(f"{n:02d}", self.unit_key(n=n, mode=self.mode), {"n": n}, 1000) for n in range(UNITS)]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        number = int(unit.payload["n"])
        if self.mode == "slow":
            time.sleep(0.5)
        if self.mode == "bad" and number == 7:
            raise StageError("unit 7 holds bad data")
        if self.mode == "flaky" and number == 11:
            marker = context.scratch / "tried"
            if not marker.exists():
                marker.touch()
                raise OSError("the disk was away for a moment")
        writer.json(f"numbers/{unit.name}", {"n": number}, rows=1)
        writer.count(read=1, kept=1)

    def gate(self, output: Output) -> list[str]:
        return ["kept_share is absurd"] if self.mode == "gate" else []


def config(workspace: str, mode: str) -> RunConfig:
    """A configuration whose only stage is the toy."""
    source = SourceConfig(name="toy", kind="text", path=mode)
    return RunConfig(
        name=f"toy-{mode}",
        workspace=workspace,
        ingest=IngestConfig(sources=(source,)),
        how=Resources(workers=2, batches=10),
    )


def toy_stages(settings: RunConfig) -> Mapping[str, Stage[Any]]:
    """In place of `stages.graph.make_stages`."""
    return {"ingest": Toy(settings.ingest.sources[0].path)}


def main(workspace: str, mode: str) -> int:
    """Run the toy and print what the flow returned."""
    from flows import server

    server.set_environment(Path(workspace) / ".prefect")
    import stages.session
    from flows.pipeline import pipeline

    try:
        with mock.patch.object(stages.session, "make_stages", toy_stages):
            print(json.dumps(pipeline(config=config(workspace, mode))))
    except GateError as error:
        print(f"gate: {error}")
        return 3
    except StageError as error:
        print(f"stage: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
