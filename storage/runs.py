"""Run records: `runs/<name>.json` says what a run was asked to do, every attempt at it, and which outputs it made.

A record is written when a run starts and again as it goes. It is the only file of a workspace that changes. Two
attempts that run at the same time write each their own attempt and stages into what the other wrote; on a local disk a
lock file makes that exact, in an object store a write in the same instant may be lost until the next one.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable
from typing import Any

from storage.filesystem import Store, json_bytes
from storage.leases import locked, now

RUNS = "runs"
SCHEMA_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RunRecord(dict[str, Any]):
    """A run record that knows which of its attempts is the one being made here (`attempt`, counted from 1)."""

    attempt: int = 0


def run_path(name: str) -> str:
    """Where the record of a run lies; ValueError if the name cannot be a file name."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"the run name {name!r} may hold letters, digits, '.', '_' and '-' only after a letter or digit"
        )
    return f"{RUNS}/{name}.json"


def load(store: Store, name: str) -> dict[str, Any] | None:
    """The record of a run, or None if there is none; ValueError naming the file if it is damaged."""
    try:
        record = store.read_json(run_path(name))
    except FileNotFoundError:
        return None
    where = f"{store.url}/{run_path(name)}"
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"{where} is not a run record of version {SCHEMA_VERSION}")
    if not isinstance(record.get("attempts"), list) or not isinstance(record.get("stages"), dict):
        raise ValueError(f"{where} is damaged: it lacks its attempts or its stages")
    return record


def names(store: Store) -> list[str]:
    """The names of all runs, the last written last."""
    found = [path.removeprefix(f"{RUNS}/") for path in store.listing(RUNS) if path.endswith(".json")]
    records = [load(store, file.removesuffix(".json")) for file in found]
    dated = sorted((str(record["updated"]), str(record["name"])) for record in records if record is not None)
    return [name for _, name in dated]


def _change(store: Store, name: str, change: Callable[[dict[str, Any] | None], dict[str, Any]]) -> dict[str, Any]:
    """Read a record, change it and write it back, with nobody between on a local disk."""
    lock = locked(store.local(f"{RUNS}/.{name}.lock")) if store.is_local else contextlib.nullcontext()
    path = run_path(name)
    with lock:
        record = change(load(store, name))
        record["updated"] = now()
        store.replace(path, json_bytes(record, f"{store.url}/{path}"))
    return record


def _attempt_of(record: dict[str, Any]) -> dict[str, Any]:
    """The attempt being made here; of a record that was only loaded, the last."""
    number = record.attempt if isinstance(record, RunRecord) else 0
    found = [attempt for attempt in record["attempts"] if attempt["number"] == number]
    attempt: dict[str, Any] = (found or record["attempts"])[-1]
    return attempt


def _merged(record: dict[str, Any], written: dict[str, Any] | None) -> dict[str, Any]:
    """What is written, brought up to date with the attempt made here and with stages that are missing there."""
    written = written or record
    attempts = {attempt["number"]: attempt for attempt in (*record["attempts"], *written["attempts"])}
    if attempts:
        own = _attempt_of(record)
        attempts[own["number"]] = own
    ordered = [attempts[number] for number in sorted(attempts)]
    merged = {**record, **written, "attempts": ordered, "stages": {**record["stages"], **written["stages"]}}
    if ordered:
        merged["status"] = ordered[-1]["status"]
    return merged


def save(store: Store, record: dict[str, Any]) -> None:
    """Write a record over its older state; attempts and stages that others have added since stay."""

    def change(written: dict[str, Any] | None) -> dict[str, Any]:
        merged = _merged(record, written)
        stages = {**merged["stages"], **record["stages"]}
        return {**merged, **record, "attempts": merged["attempts"], "status": merged.get("status"), "stages": stages}

    record.update(_change(store, str(record["name"]), change))


def start(store: Store, name: str, config: Any, git: dict[str, Any], software: dict[str, str]) -> RunRecord:
    """Open a new attempt of a run and write its record with `status: running`.

    The stages of earlier attempts stay in the record until this attempt replaces them one by one. An attempt whose
    process is gone is noted as interrupted.
    """
    number = 0

    def change(written: dict[str, Any] | None) -> dict[str, Any]:
        nonlocal number
        record = written or {"schema_version": SCHEMA_VERSION, "name": name, "attempts": [], "stages": {}}
        for attempt in record["attempts"]:
            if attempt["status"] == "running" and not _lives(attempt):
                attempt["status"] = "interrupted"
        number = max((attempt["number"] for attempt in record["attempts"]), default=0) + 1
        attempt = {"number": number, "started": now(), "ended": None, "status": "running"}
        attempt |= {"host": socket.gethostname(), "pid": os.getpid()}
        record["attempts"].append(attempt)
        return {**record, "status": "running", "config": config, "git": git, "software": software}

    record = RunRecord(_change(store, name, change))
    record.attempt = number
    return record


def _lives(attempt: dict[str, Any]) -> bool:
    """Whether another process of this machine may still be making an attempt.

    Of other machines nothing is known: an attempt noted as interrupted that was not says so itself when it next writes.
    """
    if attempt.get("host") != socket.gethostname() or attempt.get("pid") == os.getpid():
        return False
    try:
        os.kill(int(attempt["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def set_stage(store: Store, record: dict[str, Any], stage: str, **values: Any) -> None:
    """Note what is known of a stage: its output's folder name and digest, its status, its seconds."""

    def change(written: dict[str, Any] | None) -> dict[str, Any]:
        merged = _merged(record, written)
        merged["stages"] = {**merged["stages"], stage: {**merged["stages"].get(stage, {}), **values}}
        return merged

    record.update(_change(store, str(record["name"]), change))


def end(store: Store, record: dict[str, Any], status: str, message: str = "") -> None:
    """Close the attempt made here with `status` ("done", "failed", "stopped" by a gate, "interrupted")."""
    attempt = _attempt_of(record)
    attempt.update(ended=now(), status=status)
    if message:
        attempt["message"] = message

    record.update(_change(store, str(record["name"]), lambda written: _merged(record, written)))


__all__ = ["RUNS", "RunRecord", "end", "load", "names", "now", "run_path", "save", "set_stage", "start"]
