"""A child process tree ends when it should: by itself, on a stop, and with the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from stages import child
from stages.child import ChildFailedError, run_child


def nothing() -> None:
    """No check, no poll."""


def test_the_output_goes_to_the_log(tmp_path: Path) -> None:
    run_child([sys.executable, "-c", "print('hello')"], tmp_path / "log", check=nothing, poll=nothing)
    assert (tmp_path / "log").read_text() == "hello\n"


def test_a_failure_says_how_the_log_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('ran out of flour'); raise SystemExit(7)"]
    with pytest.raises(ChildFailedError, match="ran out of flour") as caught:
        run_child(command, tmp_path / "log", check=nothing, poll=nothing)
    assert caught.value.code == 7


def test_a_stop_ends_children_in_sessions_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "GRACE_SECONDS", 1.0)
    script = textwrap.dedent(
        f"""
        import signal, subprocess, sys, time
        stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        p = subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
        open({str(tmp_path / "pid")!r}, "w").write(str(p.pid))
        time.sleep(600)
        """
    )
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        pid = tmp_path / "pid"
        if pid.exists() and pid.read_text() and calls > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child([sys.executable, "-c", script], tmp_path / "log", check=check, poll=nothing, interval=0.1)
    grandchild = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is signalled on Linux only")
def test_a_killed_parent_takes_its_child_along(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from stages.child import run_child
        child = "import os, time; open({str(tmp_path / "pid")!r}, 'w').write(str(os.getpid())); time.sleep(600)"
        run_child([sys.executable, "-c", child], Path({str(tmp_path / "log")!r}), check=lambda: None, poll=lambda: None)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    pid = tmp_path / "pid"
    deadline = time.monotonic() + 30
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    running = int(pid.read_text())
    while psutil.pid_exists(running) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(running)
