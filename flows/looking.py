"""What the command line reads of a workspace without a configuration: records, outputs, digests, a model."""

from __future__ import annotations

import contextlib
import difflib
import socket
from collections.abc import Mapping
from typing import Any

from flows.cli import UsageError
from stages import explain, report_data
from stages.graph import ORDER
from stages.samples import by_reason
from storage import runs
from storage.filesystem import Store
from storage.manifests import ManifestError
from storage.outputs import OUTPUTS, Output, output_folder

_LEDGER_ROWS = 1000


def open_store(workspace: str) -> Store:
    """The store of a workspace; UsageError if a local one is not there."""
    store = Store(workspace)
    if store.is_local and not store.root.is_dir():
        raise UsageError(f"there is no workspace {store.root}: give --workspace, or run a configuration first")
    return store


def is_stage(name: str) -> bool:
    """Whether a name is that of a stage."""
    return name in ORDER


def no_stage(name: str) -> str:
    """The message for a name that is no stage."""
    near = difflib.get_close_matches(name, ORDER, 1)
    return f"there is no stage {name!r}" + (f"; did you mean {near[0]!r}?" if near else f": {', '.join(ORDER)}")


def record(store: Store, name: str | None, *, or_stage: bool = False) -> dict[str, Any]:
    """The record of a run, the last written if no name is given; UsageError with near matches if there is none."""
    known = runs.names(store)
    if not known:
        raise UsageError(f"there are no runs in {store.url} yet")
    if name is None:
        name = known[-1]
    found = runs.load(store, name) if name in known else None
    if found is None:
        candidates = [*known, *(ORDER if or_stage else ())]
        near = difflib.get_close_matches(name, candidates, 2, 0.5)
        hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else f"; runs are: {', '.join(known)}"
        raise UsageError(f"there is no {'stage or ' if or_stage else ''}run {name!r} in {store.url}{hint}")
    return seen_now(found)


def all_records(store: Store) -> list[dict[str, Any]]:
    """All run records, the last written first."""
    found = [runs.load(store, name) for name in reversed(runs.names(store))]
    return [seen_now(one) for one in found if one is not None]


def seen_now(found: dict[str, Any]) -> dict[str, Any]:
    """A record as it stands: what says "running" in a process that is gone was interrupted."""
    attempt = found["attempts"][-1]
    if found["status"] == "running" and attempt["host"] == socket.gethostname() and not _lives(attempt["pid"]):
        found["status"] = attempt["status"] = "interrupted"
        for entry in found["stages"].values():
            if entry.get("status") == "running":
                entry["status"] = "interrupted"
    return found


def _lives(pid: int) -> bool:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def stage_output(store: Store, found: Mapping[str, Any], stage: str, samples: int) -> dict[str, Any]:
    """The manifest of a stage's output in a run, samples of documents and, for ingest, the ledger."""
    outputs = explain.outputs_of(store, found)
    if stage not in outputs:
        have = ", ".join(outputs) or "none"
        raise UsageError(f"the run {found['name']} has no complete output of {stage} (complete are: {have})")
    output = outputs[stage]
    answer: dict[str, Any] = {
        "run": found["name"],
        "folder": explain.location(store, output.folder),
        "digest": output.digest,
        "manifest": output.manifest,
    }
    if stage in explain.DECISIONS or stage == "ingest":
        until = {name: outputs[name] for name in outputs if ORDER.index(name) <= ORDER.index(stage)}
        answer["samples"] = by_reason(until, samples) or _first_documents(output, samples)
    if stage == "ingest":
        answer["ledger"] = output.read("about/ledger").slice(0, _LEDGER_ROWS).to_pylist()
        answer["quarantine"] = [row for part in output.parts("quarantine") for row in output.read(part).to_pylist()][
            :_LEDGER_ROWS
        ]
    if stage == "quality":
        answer["judges"] = report_data.judges_of(output)
    return answer


def _first_documents(ingest: Output, number: int) -> dict[str, list[dict[str, Any]]]:
    for part in ingest.parts("documents"):
        rows = ingest.read(part, ["id", "source", "uri", "record", "text"]).slice(0, number).to_pylist()
        if rows:
            return {
                "read": [
                    {
                        **{name: row[name] for name in ("source", "uri", "record")},
                        "id": row["id"].hex(),
                        "excerpt": row["text"][: explain.EXCERPT],
                    }
                    for row in rows
                ]
            }
    return {}


def summary_of(store: Store, found: Mapping[str, Any]) -> dict[str, Any]:
    """What a run came to."""
    return explain.summary(explain.outputs_of(store, found))


def verify(store: Store, found: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Every output of a run, or on disk, with what is wrong with it: sums, missing files, sizes, digests."""
    if found is not None:
        names = [(s, str(e["output"])) for s, e in found["stages"].items() if e.get("output")]
    else:
        names = [(stage, name) for stage in store.folders(OUTPUTS) for name in store.folders(f"{OUTPUTS}/{stage}")]
    order = {stage: number for number, stage in enumerate(ORDER)}
    results = []
    for stage, name in sorted(names, key=lambda item: (order.get(item[0], len(order)), item)):
        folder = output_folder(stage, name)
        result: dict[str, Any] = {"stage": stage, "output": name, "complete": True, "parts": 0, "bytes": 0}
        try:
            output = Output.open(store, folder)
        except FileNotFoundError:
            result.update(complete=False, problems=[f"{folder} has no manifest"] if found is not None else [])
        except (ManifestError, ValueError) as error:
            result["problems"] = [str(error)]
        else:
            parts = output.parts()
            result.update(parts=len(parts), bytes=sum(p.bytes for p in parts), problems=output.problems(digests=True))
        results.append(result)
    return results


def generate(store: Store, found: Mapping[str, Any], prompt: str, **settings: Any) -> str:
    """Text that a run's pretrained model writes after a prompt."""
    outputs = explain.outputs_of(store, found)
    missing = [stage for stage in ("tokenizer", "pretrain") if stage not in outputs]
    if missing:
        raise UsageError(f"the run {found['name']} has no complete {missing[0]} yet: there is no model to write with")
    from model.finetune_config import GenerateConfig
    from model.generate import generate as write
    from model.generate import load_model
    from stages.pretrain import checkpoint_folder

    tokenizer = outputs["tokenizer"].local_file("tokenizer/tokenizer")
    end = outputs["tokenizer"].read_json("tokenizer/facts")["end_id"]
    model, loaded, _ = load_model(checkpoint_folder(outputs["pretrain"]), tokenizer)
    return write(model, loaded, prompt, GenerateConfig(**settings), end_id=end)
