"""Child process trees: training runs as its own processes, followed through files, and ends with whoever started it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

GRACE_SECONDS = 25.0
"""How long a tree may take to save after SIGTERM; below the 30 s after which Prefect's worker kills its group."""


class ChildFailedError(RuntimeError):
    """A child process ended with an error; the message holds the end of its log, `code` its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def _die_with_parent() -> None:
    """In the child before exec: have Linux send SIGTERM when the parent dies, so that devices become free."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def run_child(
    command: Sequence[str],
    log: Path,
    *,
    check: Callable[[], None],
    poll: Callable[[], None],
    environment: dict[str, str] | None = None,
    interval: float = 0.3,
) -> None:
    """Run a command to its end, its output appended to `log`.

    Parameters
    ----------
    check
        Called every `interval` seconds; if it raises, the whole tree is stopped (SIGTERM, up to 25 s to save, SIGKILL).
    poll
        Called every `interval` seconds to follow what the child writes.

    Raises
    ------
    ChildFailedError
        If it ends with another code than 0; the last 30 lines of its log are in the message.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            preexec_fn=_die_with_parent,
        )
    tree = _Tree(process)
    try:
        while process.poll() is None:
            tree.look()
            check()
            poll()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(interval)
        poll()
    finally:
        tree.stop(GRACE_SECONDS if process.poll() is None else 0.0)
    if process.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise ChildFailedError(
            f"{' '.join(command[:4])} … ended with code {process.returncode}. Its last lines:\n{tail}",
            process.returncode,
        )


class _Tree:
    """A process and all it started, ranks in sessions of their own included."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.known: dict[int, psutil.Process] = {}

    def look(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self.known.setdefault(child.pid, child)

    def stop(self, grace: float) -> None:
        """End everything: leaves first by SIGTERM, after `grace` seconds by SIGKILL."""
        self.look()
        children = [p for p in self.known.values() if p.is_running()]
        if self.process.poll() is None:
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.terminate()
            self.process.terminate()
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and (self.process.poll() is None or any(_alive(p) for p in children)):
            time.sleep(0.1)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                if _alive(child):
                    child.kill()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        psutil.wait_procs(children, timeout=5)


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
