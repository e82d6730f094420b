"""datatrove as a peer of benchmarks: a process of the interpreter that has it, which waits until it is measured.

It lives in an environment of its own, whose interpreter `GRISTMILL_DATATROVE` names:

    python -m venv datatrove && datatrove/bin/pip install "datatrove[io,processing]" spacy
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.documents import REPOSITORY, amounts, load_texts
from benchmarks.timing import Peer, Result, Work

VARIABLE = "GRISTMILL_DATATROVE"


def peers(task: str, options: Mapping[str, Mapping[str, Any]]) -> dict[str, Peer]:
    """A peer for every name and its options of a task of `benchmarks.datatrove_peer`; none where that is missing."""
    if version() is None:
        if "--peer" not in sys.argv:
            print(f"datatrove is left out: {VARIABLE} names no Python that has it", file=sys.stderr)
        return {}
    return {name: partial(_peer, task=task, options=some) for name, some in options.items()}


def version() -> str | None:
    """What is measured, for the result; None where datatrove is missing."""
    python = os.environ.get(VARIABLE)
    asked = ask_version(python) if python else None
    return asked.stdout.strip() if asked and asked.returncode == 0 else None


def ask_version(python: str) -> subprocess.CompletedProcess[str]:
    """An interpreter's answer to what datatrove and spaCy it has; it fails where one is missing."""
    return subprocess.run(
        [python, "-c", "from importlib.metadata import version as v; import datatrove, spacy; "
         "print('datatrove', v('datatrove') + ', spaCy', v('spacy'))"],
        capture_output=True, text=True,
    )  # fmt: skip


def _peer(folder: Path, task: str, options: Mapping[str, Any]) -> Work:
    process = subprocess.Popen(
        [os.environ[VARIABLE], "-m", "benchmarks.datatrove_peer", task, str(folder), json.dumps(options)],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TQDM_DISABLE": "1"}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    total = amounts(load_texts(folder))

    def answer() -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"datatrove ended with {process.wait()} at {task} {dict(options)}")
        return line

    answer()

    def work() -> Result:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        outcome = json.loads(answer())
        return Result(total, lambda: outcome)

    return work
