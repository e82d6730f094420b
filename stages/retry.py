"""Which faults may pass. Whoever owns the retries (Prefect, or the runner without it) asks here."""

from __future__ import annotations

from stages.base import StageError
from stages.child import ChildFailedError
from storage.leases import LeaseLostError

_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


class WorkerDiedError(RuntimeError):
    """A worker process ended without an answer (killed, out of memory)."""


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: I/O faults, dead workers, killed children; never bad input or configuration."""
    if isinstance(error, (StageError, LeaseLostError, *_PERMANENT)):
        return False
    if isinstance(error, ChildFailedError):
        return error.code < 0
    return isinstance(error, OSError | WorkerDiedError | ConnectionError | TimeoutError)


def backoff_seconds(attempt: int) -> float:
    """Seconds to wait before try number `attempt` + 1: 1, 2, 4 … at most 30."""
    return float(min(30, 2 ** (attempt - 1)))
