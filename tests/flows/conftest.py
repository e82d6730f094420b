"""One Prefect server for all tests here, in a home of their own; a command line in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows import server

REPOSITORY = Path(__file__).resolve().parents[2]


def clean_environment(**values: str) -> dict[str, str]:
    """The environment without anything that points at somebody's Prefect or workspace."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "GRISTMILL_"))}
    path = os.pathsep.join(p for p in (str(REPOSITORY), kept.get("PYTHONPATH", "")) if p)
    quiet = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    return {**kept, **quiet, "PYTHONPATH": path, **values}


@dataclass(frozen=True)
class TestServer:
    """A running server and its workspace."""

    __test__ = False
    workspace: Path
    api_url: str

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """A request to its API."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api_url}/{path}", data, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.loads(answer.read())

    def environment(self) -> dict[str, str]:
        """The environment of a process that uses it."""
        return clean_environment(PREFECT_API_URL=self.api_url, PREFECT_HOME=str(self.workspace / ".prefect"))

    def python(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments against this server."""
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment(),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout,
        )


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    workspace = tmp_path_factory.mktemp("prefect") / "workspace"
    workspace.mkdir()
    ensure = "import sys; from flows import server; print(server.ensure(sys.argv[1]).api_url)"
    done = subprocess.run(
        [sys.executable, "-c", ensure, str(workspace)],
        env=clean_environment(),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    try:
        yield TestServer(workspace, done.stdout.strip())
    finally:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("PREFECT_HOME", raising=False)
            server.stop(str(workspace))


@pytest.fixture
def gristmill(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call the command line in an empty folder."""

    def call(*arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from flows.cli import main; raise SystemExit(main())", *arguments],
            env=clean_environment(**environment),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return call
