"""Run records: `runs/<name>.json` says what a run was asked to do, every attempt at it, and which outputs it made.

A record is written when a run starts and again as it goes. It is the only file of a workspace that changes.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from typing import Any

from storage.filesystem import Store

RUNS = "runs"
SCHEMA_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def now() -> str:
    """The time as ISO 8601 in UTC, to the millisecond."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


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
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"{store.url}/{run_path(name)} is not a run record of version {SCHEMA_VERSION}")
    return record


def names(store: Store) -> list[str]:
    """The names of all runs, the last written last."""
    records = [(load(store, p.removeprefix(f"{RUNS}/").removesuffix(".json")), p) for p in store.listing(RUNS)]
    dated = sorted((str(r["updated"]), str(r["name"])) for r, _ in records if r is not None)
    return [name for _, name in dated]


def save(store: Store, record: dict[str, Any]) -> None:
    """Write a record over its older state."""
    record["updated"] = now()
    data = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    store.replace(run_path(str(record["name"])), data.encode())


def start(store: Store, name: str, config: Any, git: dict[str, Any], software: dict[str, str]) -> dict[str, Any]:
    """Open a new attempt of a run and write its record with `status: running`.

    The stages of earlier attempts stay in the record until this attempt replaces them one by one.
    """
    record = load(store, name) or {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "attempts": [],
        "stages": {},
    }
    for attempt in record["attempts"]:
        if attempt["status"] == "running":
            attempt["status"] = "interrupted"
    record["attempts"].append(
        {
            "number": len(record["attempts"]) + 1,
            "started": now(),
            "ended": None,
            "status": "running",
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
    )
    record.update(status="running", config=config, git=git, software=software)
    save(store, record)
    return record


def set_stage(store: Store, record: dict[str, Any], stage: str, **values: Any) -> None:
    """Note what is known of a stage: its output's folder name and digest, its status, its seconds."""
    record["stages"][stage] = {**record["stages"].get(stage, {}), **values}
    save(store, record)


def end(store: Store, record: dict[str, Any], status: str, message: str = "") -> None:
    """Close the running attempt with `status` ("done", "failed", "stopped" by a gate, "interrupted")."""
    record["attempts"][-1].update(ended=now(), status=status)
    if message:
        record["attempts"][-1]["message"] = message
    record["status"] = status
    save(store, record)
