"""Metrics of a training as JSON lines, one file an attempt, and what they amount to when attempts are put together."""

from __future__ import annotations

import json
import time
from typing import IO, Any

from storage.filesystem import Store

FOLDER = "metrics"
FLUSH_SECONDS = 0.5
REMOTE_SECONDS = 30.0
"""Object stores cannot append: there the whole file is written again, and not as often."""


class MetricsFile:
    """The lines of one attempt.

    The first line says which step the attempt went on from; lines of earlier attempts after that step no longer count.
    """

    def __init__(self, store: Store, attempt: str, resumed_step: int) -> None:
        self.store = store
        self.path = f"{FOLDER}/{attempt}.jsonl"
        self.flushed = time.monotonic()
        self.file: IO[str] | None = None
        self.lines: list[str] = []
        if store.is_local:
            store.local(FOLDER).mkdir(parents=True, exist_ok=True)
            self.file = store.local(self.path).open("a", encoding="utf-8")
            if self.file.tell():
                self.file.write("\n")  # an attempt that was killed may have left half a line
        elif store.exists(self.path):
            self.lines = store.read_bytes(self.path).decode().splitlines(keepends=True)
        self.write({"attempt": attempt, "resumed_step": resumed_step, "started": time.time()})
        self.flush()

    def write(self, line: dict[str, Any]) -> None:
        """Add one line; it is on disk half a second later at the latest."""
        text = json.dumps(line, allow_nan=False) + "\n"
        if self.file is not None:
            self.file.write(text)
        else:
            self.lines.append(text)
        if time.monotonic() - self.flushed > (FLUSH_SECONDS if self.file is not None else REMOTE_SECONDS):
            self.flush()

    def flush(self) -> None:
        """Write out what is buffered: before a checkpoint, so that no step it holds lacks its line."""
        if self.file is not None:
            self.file.flush()
        else:
            self.store.replace(self.path, "".join(self.lines).encode())
        self.flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        if self.file is not None:
            self.file.close()


def read_metrics(output: str | Store) -> list[dict[str, Any]]:
    """The lines of all attempts in the order of steps, as one undisturbed run would have written them.

    Where attempts overlap, the later one counts from the step it resumed at. Lines about attempts are left out, and so
    is a last line that was cut short. A validation line follows the line of its step.

    Parameters
    ----------
    output
        The output of a training: a folder, a URL or a `Store`.
    """
    store = output if isinstance(output, Store) else Store(output)
    attempts: list[tuple[float, int, list[dict[str, Any]]]] = []
    for path in store.listing(FOLDER):
        if path.endswith(".jsonl"):
            attempts += _attempts(store.read_bytes(path))
    merged: list[dict[str, Any]] = []
    for _, resumed_step, lines in sorted(attempts, key=lambda attempt: attempt[0]):
        merged = [line for line in merged if line["step"] <= resumed_step] + lines
    return merged


def _attempts(data: bytes) -> list[tuple[float, int, list[dict[str, Any]]]]:
    """(start time, resumed step, lines) of the attempts in one file."""
    attempts: list[tuple[float, int, list[dict[str, Any]]]] = []
    for text in data.decode(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # cut short by a kill; the step is done again by the next attempt
        if "attempt" in line:
            attempts.append((line["started"], line["resumed_step"], []))
        elif attempts:
            attempts[-1][2].append(line)
    return attempts
