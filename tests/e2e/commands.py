"""Running the installed command in processes of its own, and killing it as a power cut would."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from storage.filesystem import Store
from storage.manifests import ManifestError
from storage.outputs import OUTPUTS, Output

GRISTMILL = str(Path(sys.executable).parent / "gristmill")
ROOT = Path(__file__).resolve().parents[2]


def environment(home: Path) -> dict[str, str]:
    """This environment without anybody's Prefect settings, telemetry off."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "GRISTMILL_"))}
    return {**kept, "HOME": str(home), "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def gristmill(
    *arguments: str, cwd: Path, code: int | None = 0, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; `code` is the exit code it must have, None for any."""
    done = subprocess.run(
        [GRISTMILL, *arguments], cwd=cwd, env=environment(cwd), capture_output=True, text=True, timeout=timeout
    )
    if code is not None:
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def answer(*arguments: str, cwd: Path) -> Any:
    """What the command says with `--json`."""
    return json.loads(gristmill(*arguments, "--json", cwd=cwd).stdout)


def run_until(
    arguments: Sequence[str], cwd: Path, reached: Callable[[], bool], log: Path, timeout: float = 300
) -> bool:
    """Start the command and SIGKILL all its processes, the Prefect server aside, as soon as `reached()`.

    Returns whether it was killed (False if it ended by itself before that).
    """
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [GRISTMILL, *arguments], cwd=cwd, env=environment(cwd), stdout=sink, stderr=subprocess.STDOUT
        )
    end = time.monotonic() + timeout
    while process.poll() is None:
        if reached():
            kill_tree(process.pid)
            process.wait()
            return True
        assert time.monotonic() < end, f"not reached in {timeout} s; the log ends:\n{log.read_text()[-3000:]}"
        time.sleep(0.02)
    assert process.returncode == 0, log.read_text()[-3000:]
    return False


def kill_tree(pid: int) -> None:
    """SIGKILL a process and everything it started but the Prefect server."""
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            line = " ".join(process.cmdline())
            if "prefect" in line and "server" in line:
                continue
            process.kill()


def digests(workspace: Path) -> dict[str, str]:
    """Content digests of all complete outputs by "stage/name", each verified file by file and count by count."""
    store = Store(workspace)
    found = {}
    for stage in store.folders(OUTPUTS):
        for name in store.folders(f"{OUTPUTS}/{stage}"):
            with contextlib.suppress(FileNotFoundError, ManifestError):
                output = Output.open(store, f"{OUTPUTS}/{stage}/{name}")
                assert output.problems(digests=True) == []
                found[f"{stage}/{name}"] = output.digest
    return found


def stage_has(workspace: Path, stage: str, what: str) -> Callable[[], bool]:
    """Whether any output of a stage has a file that matches the glob pattern `what`."""
    folder = workspace / OUTPUTS / stage
    return lambda: next(iter(folder.glob(f"*/{what}")), None) is not None
