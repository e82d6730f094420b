"""One local Prefect server for a workspace: found if it runs, else started, shared by all runs, left running.

Prefect is the view and the trigger. Its home lies in the workspace unless the user has set one, so nothing is ever
written to anybody's own Prefect. Nothing here imports Prefect: everything must be set before that happens.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.filesystem import Store

START_SECONDS = 120.0
"""How long a server may take to become healthy: usually 4 s, 10 s with a new database, more on a busy machine."""
STATE_FILE = "server.json"
LOCK_FILE = "server.lock"
LOG_FILE = "server.log"
_LOCAL = "127.0.0.1"


class ServerError(RuntimeError):
    """The Prefect server cannot be reached or started; the message says what to do."""


@dataclass(frozen=True)
class Server:
    """A Prefect server: where its API is and, if it is one of ours, its process and home."""

    api_url: str
    home: Path | None = None
    pid: int | None = None

    @property
    def ui_url(self) -> str:
        """The address people open."""
        return self.api_url.removesuffix("/").removesuffix("/api")


def home_of(workspace: str) -> Path:
    """Prefect's home: PREFECT_HOME if set, else inside a local workspace, or in this user's state folder."""
    if given := os.environ.get("PREFECT_HOME"):
        return Path(given).expanduser().resolve()
    store = Store(workspace) if "://" not in workspace or workspace.startswith(("file://", "local://")) else None
    if store is not None:
        return store.local(".prefect")
    name = hashlib.blake2b(workspace.rstrip("/").encode(), digest_size=8).hexdigest()
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "gristmill" / name / "prefect"


def set_environment(home: Path, *, console: str = "CRITICAL") -> None:
    """Set what Prefect reads when it is imported; what the user has set stays.

    Parameters
    ----------
    console
        From which level Prefect's own log lines are shown on the terminal; all of them are kept for the UI.
    """
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_HOME", str(home))
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", console)
    for name, value in _quiet().items():
        os.environ.setdefault(name, value)
    _reach_localhost_directly()


def _quiet() -> dict[str, str]:
    return {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
    }


def _reach_localhost_directly() -> None:
    # A proxy in the environment would otherwise be asked for 127.0.0.1 too.
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        missing = [host for host in (_LOCAL, "localhost") if host not in hosts]
        if missing and "*" not in hosts:
            os.environ[name] = ",".join([*hosts, *missing])


# -------------------------------------------------------------------- finding and starting


class Starting:
    """A server on its way: `begin` returns at once, `wait` when it is healthy.

    While it is on its way this process holds the lock, so that others wait and then use the same server.
    """

    def __init__(self, workspace: str) -> None:
        self.home = home_of(workspace)
        self.server: Server | None = None
        self._lock: Any = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def begin(self) -> Starting:
        """Use the user's server, or find ours, or start it. PREFECT_API_URL is set, so Prefect may be imported.

        Raises ServerError if another process never finishes starting one.
        """
        if url := os.environ.get("PREFECT_API_URL"):
            set_environment(self.home)
            self.server = Server(url)
            return self
        set_environment(self.home)
        if (found := running(self.home)) is not None:
            self.server = found
            os.environ["PREFECT_API_URL"] = found.api_url
            return self
        self._lock = _locked(self.home)
        try:
            # Somebody else may have started it while we waited, or been killed while doing so.
            self.server = running(self.home) or _half_started(self.home)
            if self.server is None:
                self._process, self._port = _start(self.home)
        except BaseException:
            self._unlock()
            raise
        if self.server is not None:
            self._unlock()
        os.environ["PREFECT_API_URL"] = self.server.api_url if self.server is not None else _api_url(self._port)
        return self

    def wait(self) -> Server:
        """The healthy server; ServerError if it does not come up."""
        if self.server is None:
            assert self._process is not None
            try:
                self._await_health(self._process)
            except BaseException:
                _end(self._process.pid)
                del os.environ["PREFECT_API_URL"]
                (self.home / STATE_FILE).unlink(missing_ok=True)
                raise
            finally:
                self._unlock()
            self.server = Server(_api_url(self._port), self.home, self._process.pid)
        elif self.server.home is None and _get(f"{self.server.api_url}/health") is None:
            raise ServerError(
                f"PREFECT_API_URL is {self.server.api_url}, but no Prefect server answers there: start it, "
                "unset PREFECT_API_URL to use a local one, or run with --no-prefect"
            )
        return self.server

    def _await_health(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not _is_ours(self._port, self.home):
            if process.poll() is not None or time.monotonic() > deadline:
                how = f"ended with code {process.returncode}" if process.returncode is not None else "is not healthy"
                raise ServerError(
                    f"the local Prefect server {how} after being started; the end of {self.home / LOG_FILE}:\n"
                    f"{_tail(self.home / LOG_FILE)}\nRun with --no-prefect to do without it."
                )
            time.sleep(0.1)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def ensure(workspace: str) -> Server:
    """A healthy server for a workspace, found or started; PREFECT_API_URL is set for this process."""
    return Starting(workspace).begin().wait()


def running(home: Path) -> Server | None:
    """The healthy server of a home, if there is one."""
    state = _state(home)
    if state is None or not _alive(state) or not _is_ours(state["port"], home):
        return None
    return Server(_api_url(state["port"]), home, state["pid"])


def stop(workspace: str) -> bool:
    """End the local server of a workspace and all it started; whether there was one."""
    home = home_of(workspace)
    if not (home / STATE_FILE).exists():
        return False
    with _locked(home):
        state = _state(home)
        (home / STATE_FILE).unlink(missing_ok=True)
        if state is None or not _alive(state):
            return False
        _end(int(state["pid"]))
        return True


def _locked(home: Path) -> Any:
    from filelock import FileLock, Timeout

    lock = FileLock(home / LOCK_FILE, timeout=START_SECONDS + 30)
    try:
        lock.acquire()
    except Timeout:
        raise ServerError(f"another process has been starting the Prefect server of {home} for too long") from None
    return lock


def _half_started(home: Path) -> Server | None:
    """Wait for a server whose starter was killed before it was healthy; end it if it never becomes healthy."""
    state = _state(home)
    if state is None or not _alive(state):
        return None
    deadline = time.monotonic() + START_SECONDS
    while _alive(state) and time.monotonic() < deadline:
        if (found := running(home)) is not None:
            return found
        time.sleep(0.2)
    if _alive(state):
        _end(int(state["pid"]))
    return None


# The child writes its own state before it becomes the server, so there is no moment at which a server runs unknown.
_LAUNCH = """
import json, os, pathlib, sys, time
import psutil
file, port, arguments = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
state = {"pid": os.getpid(), "created": psutil.Process().create_time(), "port": port, "started": time.time(),
         "url": f"http://127.0.0.1:{port}/api"}
new = file.with_name(file.name + f".{os.getpid()}")
new.write_text(json.dumps(state))
new.replace(file)
os.execv(sys.executable, [sys.executable, *arguments])
"""


def _start(home: Path) -> tuple[subprocess.Popen[bytes], int]:
    port = _free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
        **_quiet(),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_API_HOST": _LOCAL,
        "PREFECT_SERVER_API_PORT": str(port),
        # Without it the UI would look for its API on port 4200.
        "PREFECT_UI_API_URL": _api_url(port),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
    }
    with (home / LOG_FILE).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(home / STATE_FILE), str(port), "-m", "prefect", "server", "start"],
            env=environment,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOCAL, 0))
        return int(probe.getsockname()[1])


def _api_url(port: int) -> str:
    return f"http://{_LOCAL}:{port}/api"


# -------------------------------------------------------------------- looking


def _state(home: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((home / STATE_FILE).read_text())
        return {"pid": int(state["pid"]), "port": int(state["port"]), "created": float(state["created"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _alive(state: dict[str, Any]) -> bool:
    """Whether the process that wrote the state still lives (a process id alone may have been given out again)."""
    import psutil

    try:
        process = psutil.Process(state["pid"])
        same = abs(process.create_time() - state["created"]) < 1.0
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_ours(port: int, home: Path) -> bool:
    """Whether a healthy server with this home answers on a port."""
    settings = _get(f"{_api_url(port)}/admin/settings")
    if settings is None:
        return False
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return Path(json.loads(settings)["home"]).resolve() == home.resolve()
    return False


def _get(url: str) -> bytes | None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return None


def _end(pid: int) -> None:
    """End a process and everything it started, at last by force."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.terminate()
    _, left = psutil.wait_procs(family, timeout=10)
    for member in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(left, timeout=5)


def _tail(file: Path, lines: int = 15) -> str:
    try:
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
