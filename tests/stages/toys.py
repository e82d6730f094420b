"""Small stages for tests: importable, so that spawned workers can run them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.base import Context, Inputs, Stage, Unit
from storage.outputs import Output, PartWriter, Receipt

SCHEMA = pa.schema([("value", pa.int64())])


@dataclass(frozen=True, kw_only=True)
class NumbersConfig:
    """`names` become units; `trap` is a folder whose files make units misbehave, once each."""

    names: tuple[str, ...] = ("a", "b", "c", "d", "e")
    factor: int = 1
    limit: int | None = None


class Numbers(Stage[NumbersConfig]):
    """Every unit writes its name's code times `factor`."""

    name = "ingest"
    version = 1

    def __init__(self, config: NumbersConfig, trap: str = "") -> None:
        super().__init__(config)
        self.trap = trap

    def parameters(self) -> Any:
        return {"factor": self.config.factor, "names": list(self.config.names)}

    def start(self, inputs: Inputs, writer: PartWriter) -> None:
        writer.json("facts/factor", {"factor": self.config.factor})

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        return [
            Unit(name, self.unit_key(name=name, factor=self.config.factor), {"name": name}, 1)
            for name in self.config.names
        ]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        name = unit.payload["name"]
        self._spring(name)
        values = [ord(letter) * self.config.factor for letter in name]
        writer.parquet(f"documents/{name}", pa.table({"value": values}), SCHEMA)
        writer.count(read=len(values), kept=len(values))
        (Path(self.trap) / f"done-{name}-{os.getpid()}").touch() if self.trap else None

    def _spring(self, name: str) -> None:
        if not self.trap:
            return
        for kind in ("die", "io", "bad", "always-die"):
            file = Path(self.trap) / f"{kind}-{name}"
            if file.exists():
                if kind != "always-die":
                    file.unlink()
                if kind.endswith("die"):
                    os.kill(os.getpid(), signal.SIGKILL)
                if kind == "io":
                    raise OSError("the network blinked")
                raise ValueError(f"{name} is bad data")

    def finish(self, inputs: Inputs, receipts: Sequence[Receipt], writer: PartWriter) -> None:
        writer.json("about/total", {"rows": sum(part.rows for r in receipts for part in r.parts)})

    def gate(self, output: Output) -> list[str]:
        kept = output.counts["kept"]
        return [f"kept {kept}"] if self.config.limit is not None and kept > self.config.limit else []


class Doubles(Stage[NumbersConfig]):
    """Reads Numbers, part by part."""

    name = "quality"
    version = 1
    needs = ("ingest",)

    def parameters(self) -> Any:
        return {"factor": self.config.factor}

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        return [
            Unit(part.stem, self.unit_key(parameters=self.parameters(), digest=part.digest, name=part.stem))
            for part in inputs["ingest"].parts("documents")
        ]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        values = inputs["ingest"].read(f"documents/{unit.name}").column("value").to_pylist()
        table = pa.table({"value": [2 * value * self.config.factor for value in values]})
        writer.parquet(f"features/{unit.name}", table, SCHEMA)
        writer.count(read=len(values), kept=len(values))


class Rounds(Stage[NumbersConfig]):
    """Writes numbers in a first round, their sum in a second one that reads what the first wrote."""

    name = "quality"
    version = 1

    def __init__(self, trap: str = "") -> None:
        super().__init__(NumbersConfig())
        self.trap = trap

    def parameters(self) -> Any:
        return {}

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        return [Unit("sum", self.unit_key(name="sum"))]

    def rounds(self, inputs: Inputs, started: Receipt, done: Callable[[str], bool]) -> Any:
        (last,) = self.units(inputs, started)
        if not done(last.key):
            receipts = yield [Unit(name, self.unit_key(name=name), {"value": ord(name)}) for name in "abc"]
            paths = [part.path for receipt in receipts for part in receipt.parts]
            last = Unit(last.name, last.key, {"paths": paths})
        yield [last]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        if unit.name == "sum":
            if self.trap and Path(self.trap).exists():
                raise ValueError("not yet")
            total = sum(writer.store.read_json(path) for path in unit.payload["paths"])
            writer.json("features/sum", total, 1)
        else:
            writer.json(f"scratch/{unit.name}", unit.payload["value"], 1)
        writer.count(read=1, kept=1)


class Silent:
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def started(self, stage: str, units: int, finished: int, weight: int, weight_finished: int) -> None:
        self.events.append(("started", stage, units, finished))

    def advanced(self, stage: str, units: int, weight: int, documents: int) -> None:
        self.events.append(("advanced", stage, units, documents))

    def measured(self, stage: str, values: Any) -> None:
        self.events.append(("measured", stage, values))

    def said(self, stage: str, message: str) -> None:
        self.events.append(("said", stage, message))

    def ended(self, stage: str, result: Any) -> None:
        self.events.append(("ended", stage, result.worked))
