"""Shows people how a run goes: a live table on a terminal, a few lines in a log. Knows nothing of how work is done."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any

from stages.runner import StageResult

SECONDS_BETWEEN_LINES = 5.0
_WINDOW = 20.0
"""Rates are those of about the last so many seconds."""


@dataclass
class StageProgress:
    """How far one stage is. Rates come from what was done in this attempt only."""

    stage: str
    state: str = "waiting"
    units: int = 0
    finished: int = 0
    weight: int = 0
    weight_finished: int = 0
    documents: int = 0
    under_way: dict[str, int] = field(default_factory=dict)
    """Unit -> how much of its weight is done, of units that are at work and tell."""
    values: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    began: float = 0.0
    seconds: float | None = None
    marks: list[tuple[float, float, int, int]] = field(default_factory=list)
    """(time, share, documents, bytes) of the last moments, from which the rates are taken."""

    def share(self) -> float:
        """The share of the work that is done, from 0 to 1."""
        steps, step = self.values.get("steps"), self.values.get("step")
        if steps and step is not None and self.finished < self.units:
            return min(1.0, (self.finished + min(1.0, float(step) / float(steps))) / max(1, self.units))
        if self.weight:
            return min(1.0, self.weight_done() / self.weight)
        return self.finished / self.units if self.units else 0.0

    def weight_done(self) -> int:
        """Bytes of finished units, and what is done of those at work."""
        return self.weight_finished + sum(self.under_way.values())

    def mark(self, now: float) -> None:
        """Remember this moment for the rates."""
        self.marks.append((now, self.share(), self.documents, self.weight_done()))
        while len(self.marks) > 2 and self.marks[1][0] < now - _WINDOW:
            del self.marks[0]

    def rates(self) -> tuple[float, float, float]:
        """Share, documents and bytes a second; zeros until two moments are known."""
        if len(self.marks) < 2:
            return 0.0, 0.0, 0.0
        (then, share, documents, weight), (now, share2, documents2, weight2) = self.marks[0], self.marks[-1]
        span = max(now - then, 1e-9)
        return (share2 - share) / span, (documents2 - documents) / span, (weight2 - weight) / span

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the stage is done at the present rate; None if nothing can be said yet."""
        rate = self.rates()[0]
        if rate <= 0 or now - self.began < 1.0:
            return None
        return max(0.0, (1.0 - self.share()) / rate - (now - self.marks[-1][0]))

    def pieces(self, now: float) -> list[str]:
        """What can be said now: parts, rates, training values, time left."""
        said = []
        if self.units > 1 or not self.values:
            said.append(f"{self.finished}/{self.units} {'part' if self.units == 1 else 'parts'}")
        _, documents, weight = self.rates()
        if documents > 0:
            said.append(f"{documents:,.0f} documents/s")
        if weight > 0:
            said.append(f"{readable_bytes(weight)}/s")
        said += training_pieces(self.values)
        left = self.seconds_left(now) if self.state == "running" else None
        if left is not None and self.share() < 1:
            said.append(f"{readable_seconds(left)} left")
        return said


class Progress:
    """The reporter all others are made of: keeps the numbers, thread-safe, and says when something changed.

    Parameters
    ----------
    stages
        All stages of the run, in order.
    done
        Those that are complete already.
    """

    def __init__(self, stages: Sequence[str] = (), done: Sequence[str] = ()) -> None:
        self.stages = {name: StageProgress(name, "done before" if name in done else "waiting") for name in stages}
        self._lock = threading.RLock()

    def started(self, stage: str, units: int, finished: int, weight: int, weight_finished: int) -> None:
        """A stage begins, or goes on to a further round, with some of its parts done already."""
        with self._lock:
            now = time.monotonic()
            if (progress := self.stages.get(stage)) is not None and progress.state == "running":
                progress.units, progress.finished = units, finished
                progress.weight, progress.weight_finished = weight, weight_finished
                self.changed(progress, "advanced")
                return
            progress = StageProgress(stage, "running", units, finished, weight, weight_finished, began=now)
            progress.mark(now)
            self.stages[stage] = progress
            self.changed(progress, "started")

    def advanced(self, stage: str, units: int, weight: int, documents: int) -> None:
        """Some parts are done."""
        with self._lock:
            progress = self._of(stage)
            progress.finished += units
            progress.weight_finished += weight
            progress.documents += documents
            progress.message = ""
            progress.mark(time.monotonic())
            self.changed(progress, "advanced")

    def measured(self, stage: str, values: Any) -> None:
        """A training or a retry tells something."""
        with self._lock:
            progress = self._of(stage)
            if not isinstance(values, Mapping):
                return
            if "under_way" in values:
                progress.under_way.update(values["under_way"])
                progress.mark(time.monotonic())
                self.changed(progress, "measured")
                return
            if "retry" in values:
                progress.message = f"try {values.get('attempt', '?')} failed, trying again: {values['retry']}"
                self.changed(progress, "said")
                return
            if values.get("step", 0) is not None and values.get("step", 0) < progress.values.get("step", 0):
                progress.marks.clear()  # another attempt goes on from an earlier checkpoint
            progress.values.update({name: value for name, value in values.items() if value is not None})
            progress.message = ""
            progress.mark(time.monotonic())
            self.changed(progress, "measured")

    def said(self, stage: str, message: str) -> None:
        """A stage waits, or something else people should know."""
        with self._lock:
            progress = self._of(stage)
            progress.message = message
            self.changed(progress, "said")

    def ended(self, stage: str, result: StageResult) -> None:
        """A stage is complete."""
        with self._lock:
            progress = self._of(stage)
            progress.state, progress.seconds, progress.message = "done", result.seconds, ""
            counts = result.output.counts
            progress.values["counts"] = counts_text(counts)
            self.changed(progress, "ended")

    def _of(self, stage: str) -> StageProgress:
        return self.stages.setdefault(stage, StageProgress(stage))

    def changed(self, progress: StageProgress, what: str) -> None:
        """What happened to a stage; called with the lock held."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class PlainProgress(Progress):
    """Lines for logs: when a stage begins and ends, what people should know, and at most one every 5 s between."""

    def __init__(
        self,
        stages: Sequence[str] = (),
        done: Sequence[str] = (),
        stream: IO[str] | None = None,
        seconds: float = SECONDS_BETWEEN_LINES,
    ) -> None:
        super().__init__(stages, done)
        self.stream = stream or sys.stderr
        self.seconds = seconds
        self._last = 0.0

    def changed(self, progress: StageProgress, what: str) -> None:
        """Write a line if there is something to say and the last one is old enough."""
        now = time.monotonic()
        if what == "started":
            text = f"{progress.units:,} {'part' if progress.units == 1 else 'parts'}"
            if progress.finished:
                text += f", {progress.finished:,} done already"
        elif what == "ended":
            text = f"done in {readable_seconds(progress.seconds or 0.0)}: {progress.values['counts']}"
            text += "".join(f", {piece}" for piece in training_pieces(progress.values))
        elif what == "said":
            text = progress.message
        elif now - self._last < self.seconds:
            return
        else:
            text = ", ".join(progress.pieces(now))
        self._last = now
        print(f"{time.strftime('%H:%M:%S')} {progress.stage:<14} {text}", file=self.stream, flush=True)


class LiveProgress(Progress):
    """A table on the terminal that is redrawn a few times a second: one line a stage."""

    def __init__(self, stages: Sequence[str] = (), done: Sequence[str] = (), console: Any = None) -> None:
        super().__init__(stages, done)
        from rich.console import Console
        from rich.live import Live

        self.console = console or Console(stderr=True)
        self._live = Live(get_renderable=self.table, console=self.console, refresh_per_second=4, redirect_stdout=True)

    def changed(self, progress: StageProgress, what: str) -> None:
        """Messages stay on the screen above the table."""
        if what == "said":
            self.console.print(f"{progress.stage}: {progress.message}", style="yellow", markup=False)

    def __enter__(self) -> LiveProgress:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with self._lock:
                for progress in self.stages.values():
                    if progress.state == "running":
                        progress.state = "stopped"
        self._live.stop()

    def table(self) -> Any:
        """The stages as a rich table."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        styles = {"running": "bold cyan", "done": "green", "done before": "dim green", "stopped": "bold red"}
        grid = Table.grid(padding=(0, 1), expand=True)
        for width in (14, 11, 16):
            grid.add_column(min_width=width, max_width=width, no_wrap=True)
        grid.add_column(min_width=8, justify="right", no_wrap=True)
        grid.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
        now = time.monotonic()
        with self._lock:
            for progress in self.stages.values():
                style = styles.get(progress.state, "dim")
                bar: Any = ""
                text, clock = "", ""
                if progress.state in ("running", "stopped"):
                    bar = ProgressBar(total=1.0, completed=progress.share(), width=16)
                    clock = readable_seconds(now - progress.began)
                    text = progress.message or ", ".join(progress.pieces(now))
                elif progress.state == "done":
                    bar = ProgressBar(total=1.0, completed=1.0, width=16)
                    clock = readable_seconds(progress.seconds or 0.0)
                    text = ", ".join([progress.values["counts"], *training_pieces(progress.values)])
                elif progress.message:
                    text = progress.message
                grid.add_row(Text(progress.stage, style), Text(progress.state, style), bar, clock, Text(text))
        return grid


def training_pieces(values: Mapping[str, Any]) -> list[str]:
    """Steps, losses and tokens a second, as far as they are known."""
    said = []
    if "step" in values:
        said.append(f"step {values['step']:,}" + (f"/{values['steps']:,}" if "steps" in values else ""))
    if "loss" in values:
        said.append(f"loss {values['loss']:.3f}")
    if "validation_loss" in values:
        said.append(f"validation {values['validation_loss']:.3f}")
    if "tokens_per_second" in values:
        said.append(f"{values['tokens_per_second']:,.0f} tokens/s")
    return said


def counts_text(counts: Mapping[str, Any]) -> str:
    """Counts in words: read, kept, and what was dropped and quarantined if anything was."""
    text = f"read {counts['read']:,}, kept {counts['kept']:,}"
    for name in ("dropped", "quarantined"):
        if number := sum(counts[name].values()):
            text += f", {name} {number:,}"
    return text


def readable_seconds(seconds: float) -> str:
    """3.2 s, 1:05 or 2:03:04."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def readable_bytes(number: float) -> str:
    """Bytes with a decimal unit: 512 B, 3.2 MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError("the last unit takes everything")


def reporter_for(stages: Sequence[str], done: Sequence[str], stream: IO[str] | None = None) -> Progress:
    """The live table on a terminal, plain lines elsewhere."""
    import os

    stream = stream or sys.stderr
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return LiveProgress(stages, done)
    return PlainProgress(stages, done, stream)
