"""What would happen, and why: for every stage one row, found by looking at the workspace and never by working."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from stages.base import Stage, StageError
from stages.graph import ORDER, above, check_name
from stages.runner import receipts_in, reusable_receipts, stage_fingerprint, standing
from storage import leases, outputs
from storage.filesystem import Store
from storage.fingerprint import canonical, differences
from storage.manifests import ManifestError
from storage.outputs import Output, output_folder

State = Literal["done", "resume", "run", "changed", "locked", "damaged", "unknown yet", "left out"]


@dataclass(frozen=True)
class Selection:
    """Which stages a run may work on. `start` and `until` are inclusive; `only` is both at once."""

    start: str | None = None
    until: str | None = None
    only: str | None = None
    force: tuple[str, ...] = ()

    def check(self, stages: Mapping[str, Stage[Any]]) -> None:
        """Raise StageError for names that are no stages, or that contradict each other."""
        for name in (self.start, self.until, self.only, *self.force):
            if name is not None:
                check_name(name, dict(stages))
        if self.only and (self.start or self.until):
            raise StageError("--only cannot be given together with --from or --until")
        if self.start and self.until and ORDER.index(self.start) > ORDER.index(self.until):
            raise StageError(f"--from {self.start} comes after --until {self.until}")
        for name in self.force:
            if not self.includes(name, stages):
                raise StageError(f"--force {name}: that stage is not among those to run")

    def includes(self, name: str, stages: Mapping[str, Stage[Any]]) -> bool:
        """Whether the run may work on `name`."""
        if self.only:
            return name == self.only
        if self.start and ORDER.index(name) < ORDER.index(self.start):
            return False
        if self.until:
            # What the last stage reads, and itself; side branches before it are left alone.
            return name == self.until or name in above(self.until, dict(stages))
        return True


@dataclass(frozen=True)
class PlanRow:
    """What would happen to one stage, and why."""

    stage: str
    state: State
    why: str
    output: str | None = None
    """Name of the output folder, where it is known."""
    units_done: int | None = None
    units: int | None = None
    changes: tuple[str, ...] = field(default=())
    bytes: int | None = None
    """Disk it takes: of the finished output, else of the last run's."""
    seconds: float | None = None
    """Time it took when it last ran."""

    def as_dict(self) -> dict[str, Any]:
        """The row for `--json`."""
        return asdict(self)


def look(
    stages: Mapping[str, Stage[Any]],
    store: Store,
    record: Mapping[str, Any] | None,
    selection: Selection | None = None,
) -> tuple[list[PlanRow], dict[str, Output]]:
    """The plan, and the complete outputs it found.

    Parameters
    ----------
    record
        The last run's record, if there is one: what a stage is compared with to say what changed.
    """
    selection = selection or Selection()
    selection.check(stages)
    rows: list[PlanRow] = []
    found: dict[str, Output] = {}
    for name, stage in stages.items():
        before = before_of(store, record, name)
        wanted = selection.includes(name, stages)
        missing = [need for need in stage.needs if need not in found]
        if missing:
            state: State = "unknown yet" if wanted else "left out"
            rows.append(PlanRow(name, state, f"follows {', '.join(missing)}", **_costs(before)))
            continue
        row, output = _look_at(stage, store, found, before, force=name in selection.force)
        if output is not None:
            found[name] = output
        elif not wanted:
            row = PlanRow(name, "left out", f"not among the stages to run; {row.state}: {row.why}", row.output)
        rows.append(row)
    return rows, found


def _look_at(
    stage: Stage[Any], store: Store, found: Mapping[str, Output], before: Output | None, *, force: bool
) -> tuple[PlanRow, Output | None]:
    fingerprint = stage_fingerprint(stage, found)
    stands = standing(store, stage.name, fingerprint, force=force)
    if stands.output is not None:
        return (
            PlanRow(stage.name, "done", _summary(stands.output), stands.name, **_costs(stands.output)),
            stands.output,
        )
    costs = _costs(before)
    holder = leases.holder_of(store, f"{stage.name}-{fingerprint}")
    if holder is not None:
        why = f"process {holder.get('pid')} on {holder.get('host')} works on it since {holder.get('acquired')}"
        return PlanRow(stage.name, "locked", why, stands.name, **costs), None
    if force:
        return PlanRow(stage.name, "run", "forced: a new output beside the old one", stands.name, **costs), None
    if stands.problems:
        why = f"made again, because {stands.problems[0]}"
        if len(stands.problems) > 1:
            why += f" (and {len(stands.problems) - 1} more)"
        return PlanRow(stage.name, "damaged", why, stands.name, **costs), None
    done, units = _progress(stage, store, found, output_folder(stage.name, stands.name), fingerprint)
    changes = _changes(stage, found, before)
    if done and not (changes and not receipts_in(store, output_folder(stage.name, stands.name))):
        of = f" of {units}" if units is not None else ""
        return PlanRow(stage.name, "resume", f"parts {done}{of} done", stands.name, done, units, **costs), None
    if changes:
        why = "; ".join(changes[:3]) + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")
        row = PlanRow(stage.name, "changed", why, stands.name, done, units, tuple(changes), **costs)
        return row, None
    return PlanRow(stage.name, "run", "not done yet", stands.name, done, units, **costs), None


def _progress(
    stage: Stage[Any], store: Store, found: Mapping[str, Output], folder: str, fingerprint: str
) -> tuple[int, int | None]:
    """Units that need not be done again, and all units where that is known without working."""
    receipts = reusable_receipts(store, stage.name, folder, others=True)
    start = receipts.get(f"start-{fingerprint}")
    if start is None and stage.starts():
        return sum(1 for key in receipts if not key.startswith(("start-", "finish-", "round-"))), None
    started = outputs.Receipt("", (), {}, {}, 0.0) if start is None else outputs.read_receipt(store, start)
    units = stage.units(found, started)
    return sum(1 for unit in units if unit.key in receipts), len(units)


def before_of(store: Store, record: Mapping[str, Any] | None, stage: str) -> Output | None:
    entry = (record or {}).get("stages", {}).get(stage, {})
    if not entry.get("output"):
        return None
    try:
        return Output.open(store, output_folder(stage, str(entry["output"])))
    except (FileNotFoundError, ManifestError):
        return None


def _changes(stage: Stage[Any], found: Mapping[str, Output], before: Output | None) -> list[str]:
    if before is None:
        return []
    rows = differences(before.manifest["parameters"], canonical(stage.parameters()))
    said = [f"{path}: {_short(a)} → {_short(b)}" for path, a, b in rows]
    if before.manifest["version"] != stage.version:
        said.append(f"version of the stage: {before.manifest['version']} → {stage.version}")
    for name in stage.needs:
        digest = before.manifest["inputs"].get(name, {}).get("digest")
        if digest != found[name].digest:
            said.append(f"{name} has other content" if digest else f"{name} is a new input")
    return said


def _short(value: Any) -> str:
    text = "absent" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _summary(output: Output) -> str:
    counts = output.counts
    return f"read {counts['read']:,}, kept {counts['kept']:,}"


def _costs(output: Output | None) -> dict[str, Any]:
    if output is None:
        return {}
    own = [part.bytes for part in output.parts() if part.path.startswith(output.folder + "/")]
    return {"bytes": sum(own), "seconds": output.manifest["timings"].get("seconds")}
