"""Real processes for tests: what they run is a line of Python given the store's URL; they can be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start `python -c code arguments` in the repository; its output can be read line by line."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    """Wait until a process prints `line`."""
    assert process.stdout is not None
    for said in process.stdout:
        if said.strip() == line:
            return
    raise AssertionError(f"the process ended with {process.wait()} before it said {line!r}")


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL, and wait until it is gone."""
    process.kill()
    assert process.wait(timeout=30) == -signal.SIGKILL
    for stream in (process.stdout, process.stdin):
        if stream is not None:
            stream.close()
