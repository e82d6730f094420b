"""Leases: who works on an output now. Numbered, so that taking over never depends on deleting anything.

Lease n is the file `leases/<name>/<n>.json`, created exclusively. Its holder renews it by writing `<n>.renewed.json`;
taking over an expired or released lease n is the exclusive creation of n+1. On a local disk a lock file besides frees
the lease of a dead process at once. Correctness never rests on a lease: manifests and parts are create-only anyway.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from storage.filesystem import Store

LEASES = "leases"


class LeaseHeldError(RuntimeError):
    """Somebody else holds the lease; `holder` says who."""

    def __init__(self, name: str, holder: dict[str, Any]) -> None:
        self.name = name
        self.holder = holder
        who = f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('acquired')}"
        super().__init__(f"{name} is held by {who}")


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
        self._token = secrets.token_hex(8)
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock: Any = None

    def _path(self, number: int, suffix: str = "") -> str:
        return f"{LEASES}/{self.name}/{number:06d}{suffix}.json"

    def acquire(self) -> Lease:
        """Take the lease; LeaseHeldError if it is somebody else's."""
        locked = self._lock_file()
        state = _state(self.store, self.name, self.seconds)
        if state is not None and not state.free and not (locked and _is_here(state.holder)):
            self._unlock_file()
            raise LeaseHeldError(self.name, state.holder)
        self.number = 1 if state is None else state.number + 1
        record = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "acquired": _now(),
            "seconds": self.seconds,
        }
        try:
            self.store.create_json(self._path(self.number), record)
        except FileExistsError:
            self._unlock_file()
            other = _state(self.store, self.name, self.seconds)
            raise LeaseHeldError(self.name, other.holder if other else {}) from None
        self._thread = threading.Thread(target=self._renew, name=f"lease-{self.name}", daemon=True)
        self._thread.start()
        return self

    def _lock_file(self) -> bool:
        """Take the lock file beside a local lease, which the kernel frees when its holder dies."""
        if not self.store.is_local:
            return False
        from filelock import FileLock, Timeout

        path = self.store.local(f"{LEASES}/{self.name}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path, timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            self._lock = None
            state = _state(self.store, self.name, self.seconds)
            raise LeaseHeldError(self.name, state.holder if state else {}) from None
        return True

    def _unlock_file(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _renew(self) -> None:
        while not self._stop.wait(self.seconds / 3):
            try:
                if self.store.exists(self._path(self.number + 1)):
                    self._lost.set()
                    return
                self.store.replace(self._path(self.number, ".renewed"), json.dumps({"renewed": time.time()}).encode())
            except OSError:
                # The store may be out of reach for a moment; if it stays so, the lease expires by itself.
                continue

    def check(self) -> None:
        """Raise LeaseLostError if somebody took the lease over."""
        if self._lost.is_set():
            raise LeaseLostError(
                f"the lease {self.name} number {self.number} was taken over by another process; this one stops"
            )

    def release(self) -> None:
        """Give the lease back."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if not self._lost.is_set():
            with contextlib.suppress(FileExistsError):
                self.store.create_json(self._path(self.number, ".released"), {"released": _now()})
        self._unlock_file()

    def __enter__(self) -> Lease:
        return self if self.number else self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _state(store: Store, name: str, seconds: float) -> _State | None:
    files = store.listing(f"{LEASES}/{name}")
    numbers = [int(f.rsplit("/", 1)[1][:6]) for f in files if f.rsplit("/", 1)[1][6:] == ".json"]
    if not numbers:
        return None
    number = max(numbers)
    base = f"{LEASES}/{name}/{number:06d}"
    holder = store.read_json(f"{base}.json")
    if f"{base}.released.json" in files:
        return _State(number, holder, free=True)
    renewed = _parse(holder["acquired"])
    if f"{base}.renewed.json" in files:
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            renewed = float(store.read_json(f"{base}.renewed.json")["renewed"])
    expired = time.time() > renewed + float(holder.get("seconds", seconds))
    return _State(number, holder, free=expired)


def holder_of(store: Store, name: str, seconds: float = 60.0) -> dict[str, Any] | None:
    """Who holds the lease `name` now, or None. A dead process of this machine holds nothing on a local store."""
    state = _state(store, name, seconds)
    if state is None or state.free:
        return None
    if store.is_local and _is_here(state.holder) and not _lock_is_taken(store, name):
        return None
    return state.holder


def _lock_is_taken(store: Store, name: str) -> bool:
    from filelock import FileLock, Timeout

    lock = FileLock(store.local(f"{LEASES}/{name}.lock"), timeout=0)
    try:
        with lock:
            return False
    except Timeout:
        return True


def _is_here(holder: dict[str, Any]) -> bool:
    return bool(holder.get("host") == socket.gethostname())


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _parse(stamp: str) -> float:
    import calendar

    return float(calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")))
