"""One Prefect server a workspace: shared by runs that start at once, replaced when dead, ended on request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows import server
from tests.flows.conftest import REPOSITORY, clean_environment

ENSURE = "import sys; from flows import server; s = server.ensure(sys.argv[1]); print(s.pid, s.api_url)"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("PREFECT_HOME", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path / "workspace"
    server.stop(str(tmp_path / "workspace"))


def ensuring(workspace: Path) -> subprocess.Popen[str]:
    """A process that finds or starts the workspace's server and tells which."""
    return subprocess.Popen(
        [sys.executable, "-c", ENSURE, str(workspace)],
        env=clean_environment(),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


def servers_of(workspace: Path) -> list[int]:
    """The processes that serve a workspace's home."""
    home = str((workspace / ".prefect").resolve())
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if "prefect" in (process.info["cmdline"] or []) and process.environ().get("PREFECT_HOME") == home:
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_a_server_is_shared_survives_its_starter_and_is_replaced_when_dead(workspace: Path) -> None:
    # Two processes at once on a fresh home: one server.
    answers = []
    with ensuring(workspace) as one, ensuring(workspace) as two:
        for process in (one, two):
            answers.append(process.communicate(timeout=180)[0])
            assert process.returncode == 0
    assert answers[0] == answers[1]
    pid = int(answers[0].split()[0])
    assert servers_of(workspace) == [pid]
    state = json.loads((workspace / ".prefect/server.json").read_text())
    assert answers[0].split()[1] == state["url"] == f"http://127.0.0.1:{state['port']}/api"

    # The server is killed: the next one starts anew. Its starter is killed before it is healthy: it is used anyway.
    os.kill(pid, signal.SIGKILL)
    with ensuring(workspace) as starter:
        deadline = time.monotonic() + 60
        while json.loads((workspace / ".prefect/server.json").read_text())["pid"] == pid:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        starter.kill()
    with ensuring(workspace) as third:
        answer = third.communicate(timeout=180)[0]
    (second,) = servers_of(workspace)
    assert int(answer.split()[0]) == second != pid

    # Its UI talks to its own port.
    found = server.running(server.home_of(str(workspace)))
    assert found is not None
    settings = server._get(f"{found.ui_url}/ui-settings")
    assert settings is not None
    assert json.loads(settings)["api_url"] == found.api_url

    assert server.stop(str(workspace))
    assert servers_of(workspace) == []
    assert server.running(server.home_of(str(workspace))) is None
    assert not server.stop(str(workspace))


def test_a_state_file_of_another_process_is_not_believed(workspace: Path) -> None:
    home = workspace / ".prefect"
    home.mkdir(parents=True)
    for text in ("", "[]", json.dumps({"pid": os.getpid(), "port": 1, "created": 0.0})):
        (home / "server.json").write_text(text)
        assert server.running(home) is None
    assert not server.stop(str(workspace))
    assert psutil.pid_exists(os.getpid())


def test_the_home_lies_in_a_local_workspace_or_a_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert server.home_of(str(tmp_path / "w")) == tmp_path / "w/.prefect"
    remote = server.home_of("s3://bucket/w")
    assert remote.is_relative_to(tmp_path / "state/gristmill")
    assert remote == server.home_of("s3://bucket/w/") != server.home_of("s3://bucket/v")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "mine"))
    assert server.home_of("s3://bucket/w") == tmp_path / "mine"


def test_a_server_of_the_users_that_does_not_answer_is_said(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"})
    with pytest.raises(server.ServerError, match="no Prefect server answers there"):
        server.ensure(str(workspace))
    assert not (workspace / ".prefect/server.json").exists()
