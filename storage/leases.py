"""Leases: who works on an output now. Numbered, so that taking over never depends on deleting anything.

Lease n is the file `leases/<name>/<n>.json`, created exclusively. Its holder renews it by writing `<n>.renewed.json`;
taking over an expired or released lease n is the exclusive creation of n+1. On a local disk a lock file besides frees
the lease of a dead process at once. Correctness never rests on a lease: manifests and parts are create-only anyway.
Expiry compares the clocks of two machines, which must agree to well within the seconds a lease stands.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from storage.filesystem import Store, json_bytes

LEASES = "leases"
LOCK_WAIT = 0.5
"""Seconds to wait for a lock file: somebody may be looking whether it is free, which takes a moment."""


class LeaseHeldError(RuntimeError):
    """Somebody else holds the lease; `holder` says who."""

    def __init__(self, name: str, holder: dict[str, Any]) -> None:
        self.name = name
        self.holder = holder
        who = f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('acquired')}"
        super().__init__(f"{name} is held by {who}")

    def __reduce__(self) -> tuple[type[LeaseHeldError], tuple[str, dict[str, Any]]]:
        return LeaseHeldError, (self.name, self.holder)


class LeaseLostError(RuntimeError):
    """The lease was taken over while its holder worked; the work must stop."""


@dataclass(frozen=True)
class _State:
    number: int
    holder: dict[str, Any]
    free: bool


class Lease:
    """A held lease; a context manager that renews it in a thread until it is left.

    Parameters
    ----------
    store
        The workspace.
    name
        What is leased, e.g. "ingest-1a2b3c4d".
    seconds
        How long the lease stands without renewal. It is renewed every third of that.
    """

    def __init__(self, store: Store, name: str, seconds: float = 60.0) -> None:
        self.store = store
        self.name = name
        self.seconds = seconds
        self.number = 0
        self._held = False
        self._renewed = 0.0
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock: Any = None

    def _path(self, number: int, suffix: str = "") -> str:
        return f"{LEASES}/{self.name}/{number:06d}{suffix}.json"

    # ---------------------------------------------------------------- taking and giving back

    def acquire(self) -> Lease:
        """Take the lease; LeaseHeldError if it is somebody else's."""
        if self._held:
            raise RuntimeError(f"the lease {self.name} is held by this object already")
        if self.store.is_local:
            self._lock = take_lock(self.store.local(f"{LEASES}/{self.name}.lock"), LOCK_WAIT)
        try:
            self._take_number()
        except BaseException:
            self._unlock()
            raise
        self._held = True
        self._lost, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, name=f"lease-{self.name}", daemon=True)
        self._thread.start()
        return self

    def _take_number(self) -> None:
        """Create the next number. The lock file only tells whether a holder lives; the number decides who holds."""
        state = _state(self.store, self.name)
        if state is not None and not state.free:
            # Whoever has the lock of a holder on this machine knows that this holder is dead.
            dead = self._lock is not None and _shares_locks(state.holder)
            if not dead:
                raise LeaseHeldError(self.name, state.holder)
        self.number = 1 if state is None else state.number + 1
        record = {
            "token": secrets.token_hex(8),
            **_machine(),
            "pid": os.getpid(),
            "acquired": now(),
            "seconds": self.seconds,
            "locked": self._lock is not None,
        }
        self._renewed = time.time()
        try:
            self.store.create_json(self._path(self.number), record)
        except FileExistsError:
            other = self.store.read_json(self._path(self.number))
            # Our own file may be in the way if the answer to its creation was lost and the library tried again.
            if other.get("token") != record["token"]:
                raise LeaseHeldError(self.name, other) from None

    def release(self) -> None:
        """Give the lease back. A store that is out of reach is no error here: the lease expires by itself."""
        if not self._held:
            return
        self._held = False
        self._stop.set()
        try:
            if self._thread is not None:
                self._thread.join(timeout=self.seconds)
            if not self.lost:
                with contextlib.suppress(OSError):
                    self.store.create_json(self._path(self.number, ".released"), {"released": now()})
        finally:
            self._thread = None
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Lease:
        return self if self._held else self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    # ---------------------------------------------------------------- while it is held

    def _keep_renewing(self) -> None:
        while not self._stop.wait(self.seconds / 3) and not self.lost:
            # The store may be out of reach for a moment; if it stays so, the lease expires by itself.
            with contextlib.suppress(OSError):
                self._renew()

    def _renew(self) -> None:
        if self.store.exists(self._path(self.number + 1)):
            self._lost.set()
            return
        now = time.time()
        self.store.replace(self._path(self.number, ".renewed"), json_bytes({"renewed": now}, self.name))
        self._renewed = now

    @property
    def lost(self) -> bool:
        """Whether somebody is known to have taken the lease over."""
        return self._lost.is_set()

    def check(self) -> None:
        """Raise LeaseLostError if somebody took the lease over."""
        if self._held and not self.lost and time.time() - self._renewed > self.seconds:
            # The renewing thread is late (the machine slept, the process was stopped): look before going on.
            with contextlib.suppress(OSError):
                self._renew()
        if self.lost:
            raise LeaseLostError(
                f"the lease {self.name} number {self.number} was taken over by another process; this one stops"
            )


# -------------------------------------------------------------------- looking


def holder_of(store: Store, name: str) -> dict[str, Any] | None:
    """Who holds the lease `name` now, or None. A dead process of this machine holds nothing on a local store."""
    state = _state(store, name)
    if state is None or state.free:
        return None
    if store.is_local and _shares_locks(state.holder) and not _is_locked(store.local(f"{LEASES}/{name}.lock")):
        return None
    return state.holder


def _state(store: Store, name: str) -> _State | None:
    files = store.listing(f"{LEASES}/{name}")
    stems = [path.rpartition("/")[2].removesuffix(".json") for path in files]
    numbers = [int(stem) for stem in stems if stem.isdigit()]
    if not numbers:
        return None
    number = max(numbers)
    base = f"{LEASES}/{name}/{number:06d}"
    try:
        holder = dict(store.read_json(f"{base}.json"))
        until = datetime.fromisoformat(holder["acquired"]).timestamp() + float(holder["seconds"])
    except (ValueError, KeyError, TypeError):
        # A damaged lease says nothing about anybody and must not stand for ever.
        return _State(number, {}, free=True)
    if f"{base}.released.json" in files:
        return _State(number, holder, free=True)
    if f"{base}.renewed.json" in files:
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            until = float(store.read_json(f"{base}.renewed.json")["renewed"]) + float(holder["seconds"])
    return _State(number, holder, free=time.time() > until)


@functools.cache
def _machine() -> dict[str, str]:
    """This machine's name and, on Linux, the id of its boot: processes under one kernel see each other's locks."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {"host": socket.gethostname(), "boot": boot.read_text().strip() if boot.exists() else ""}


def _shares_locks(holder: dict[str, Any]) -> bool:
    """Whether a holder took a lock file that this machine's kernel would free at its death."""
    here = _machine()
    same = holder.get("boot") == here["boot"] if here["boot"] else holder.get("host") == here["host"]
    return bool(same and holder.get("locked"))


def now() -> str:
    """The time as ISO 8601 in UTC, to the millisecond."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


# -------------------------------------------------------------------- lock files


def _filelock() -> Any:
    """The filelock library, or None: without it leases of dead processes are freed by expiry alone."""
    try:
        import filelock
    except ImportError:
        return None
    return filelock


def take_lock(path: Path, wait: float) -> Any:
    """A held lock file that the kernel frees when this process dies; None if it is taken or filelock is missing.

    The lock does not belong to a thread: whoever has it may call `release()`.
    """
    if (library := _filelock()) is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = library.FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=wait, poll_interval=0.02)
    except library.Timeout:
        return None
    return lock


@contextlib.contextmanager
def locked(path: Path, wait: float = 30.0) -> Iterator[None]:
    """Hold a lock file for a short change; TimeoutError naming it if somebody holds it longer than `wait` seconds."""
    lock = take_lock(path, wait)
    if lock is None and _filelock() is not None:
        raise TimeoutError(f"{path} has been locked by another process for {wait:.0f} seconds")
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        lock = take_lock(path, 0)
    except PermissionError:
        return True
    if lock is None:
        return True
    lock.release()
    return False


__all__ = ["LEASES", "Lease", "LeaseHeldError", "LeaseLostError", "holder_of", "locked", "now", "take_lock"]
