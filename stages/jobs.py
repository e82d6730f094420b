"""Training jobs: a job file, a child process that reads it, its metrics followed, its result taken up as parts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stages.base import Context, StageError, usable_cores
from stages.child import ChildFailedError, run_child
from storage.filesystem import Store
from storage.fingerprint import hash_of
from storage.outputs import PartWriter

ROOT = Path(__file__).resolve().parent.parent


def run_job(
    module: str, job: Mapping[str, Any], writer: PartWriter, context: Context, *, ranks: int = 1
) -> dict[str, Any]:
    """Run `python -m <module> job.json`, or under torchrun for more than one rank, to its end.

    The job gets `output` (the stage's output folder, where checkpoints and metrics of earlier attempts lie),
    `attempt` and `resources`.

    Returns
    -------
    dict
        The job's `final.json`.

    Raises
    ------
    StageError
        If the job cannot work as it is (exit code 2), with what it said.
    ChildFailedError
        If it fails in another way.
    """
    store = writer.store
    output = str(store.local(writer.folder)) if store.is_local else f"{store.url}/{writer.folder}"
    folder = context.scratch / f"job-{context.attempt}"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{module.rpartition('.')[2]}.json"
    resources = replace(context.resources.training, processes=ranks)
    values = {**job, "resources": asdict(resources), "output": output, "attempt": context.attempt}
    file.write_text(json.dumps(values, indent=1, sort_keys=True))
    log = file.with_suffix(".log")
    follower = _Follower(store, writer.folder, context)
    try:
        run_child(
            _command(module, file, ranks),
            log,
            check=context.check,
            poll=follower.look,
            environment=_environment(resources.threads, ranks),
        )
    except ChildFailedError as error:
        if error.code == 2:
            raise StageError(f"{module}: {log.read_text(errors='replace').strip()[-2000:]}") from error
        if error.code == 128 + signal.SIGTERM:
            raise KeyboardInterrupt from error
        raise
    writer.bytes("about/log", log.read_bytes(), f"-{context.attempt}.txt")
    result = store.read_json(f"{writer.folder}/final.json")
    shutil.rmtree(folder)
    return dict(result)


def _command(module: str, file: Path, ranks: int) -> list[str]:
    if ranks == 1:
        return [sys.executable, "-m", module, str(file)]
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=0",
        f"--nproc-per-node={ranks}", "-m", module, str(file),
    ]  # fmt: skip


def _environment(threads: int, ranks: int) -> dict[str, str]:
    number = threads or max(1, usable_cores() // ranks)
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    return {"PYTHONPATH": path, "OMP_NUM_THREADS": str(number), "TOKENIZERS_PARALLELISM": "false"}


class _Follower:
    """Reads what a training appends to its metrics, and passes it on."""

    def __init__(self, store: Store, folder: str, context: Context) -> None:
        self.path = store.local(f"{folder}/metrics/{context.attempt}.jsonl") if store.is_local else None
        self.context = context
        self.position = 0

    def look(self) -> None:
        if self.path is None or not self.path.exists():
            return
        with self.path.open("rb") as stream:
            stream.seek(self.position)
            data = stream.read()
        whole = data.rpartition(b"\n")[0]
        self.position += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            if line.strip():
                self.context.report(json.loads(line))


class Synonyms:
    """The table of synonyms that a stage's training asks for, read once, so that it is what the output is named by.

    Parameters
    ----------
    path
        Where it lies; empty: there is none.
    where
        The section that names it, for errors.
    """

    def __init__(self, path: str, where: str) -> None:
        self.path, self.where = path, where

    @cached_property
    def _table(self) -> dict[str, list[str]]:
        from model.augment_text import SynonymError, read_synonyms

        try:
            return {word: list(synonyms) for word, synonyms in read_synonyms(self.path).items()}
        except SynonymError as error:
            raise StageError(f"{self.where}.augment.synonyms: {error}") from error

    def name(self, parameters: dict[str, Any]) -> None:
        """In the parameters of a training, put what the table says in place of where it lies."""
        if self.path:
            parameters["augment"]["synonyms"] = hash_of(self._table)

    def keep(self, training: dict[str, Any], writer: PartWriter, context: Context) -> None:
        """Write the table as the part `data/synonyms`, and have a job's training read that."""
        if self.path:
            table = json.dumps(self._table, indent=1, ensure_ascii=False, sort_keys=True)
            part = writer.bytes("data/synonyms", table.encode(), ".json")
            training["augment"]["synonyms"] = str(local_part(writer.store, part.path, context))


def local_part(store: Store, path: str, context: Context) -> Path:
    """A part that was just written as a file of this machine; of remote stores a copy is made."""
    if store.is_local:
        return store.local(path)
    target = context.scratch / f"job-{context.attempt}" / path.rpartition("/")[2]
    store.fetch(path, target)
    return target


def adopt_checkpoint(writer: PartWriter, folder: str) -> dict[str, Any]:
    """Take a finished training's last checkpoint as parts; returns its manifest."""
    base = f"{writer.folder}/{folder}"
    for name in ("model.safetensors", "optimizer.safetensors", "state.json", "config.json"):
        writer.adopt(f"checkpoint/{name.partition('.')[0]}", f"{base}/{name}")
    writer.adopt("about/checkpoint", f"{base}/manifest.json")
    return dict(writer.store.read_json(f"{base}/manifest.json"))


def write_metrics(writer: PartWriter) -> list[dict[str, Any]]:
    """The merged metrics of all attempts: what is the same for every undisturbed run as a part, times beside it."""
    from model.metrics import read_metrics

    store = writer.store
    location = str(store.local(writer.folder)) if store.is_local else f"{store.url}/{writer.folder}"
    lines = read_metrics(location)
    exact = [{k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")} for line in lines]
    writer.bytes("metrics/steps", _json_lines(exact), ".jsonl", len(exact))
    writer.bytes("about/metrics", _json_lines(lines), ".jsonl", len(lines))
    return lines


def _json_lines(lines: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()
