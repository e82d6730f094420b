"""Progress is told in few, readable lines, with rates and the time left; messages are never lost."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stages import progress
from stages.progress import LiveProgress, PlainProgress, StageProgress, readable_bytes, readable_seconds, reporter_for
from stages.runner import StageResult

COUNTS = {"read": 1000, "kept": 900, "dropped": {"short": 90}, "quarantined": {"bad-json": 10}}


def result() -> StageResult:
    """A result as the runner gives it, as far as reporters look at it."""
    return cast(StageResult, SimpleNamespace(output=SimpleNamespace(counts=COUNTS), seconds=65.2, worked=True))


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def strftime(self, form: str) -> str:
        return "12:00:00"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_log_gets_a_line_at_both_ends_and_one_every_five_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    reporter = PlainProgress(["quality"], stream=stream)
    reporter.started("quality", 100, 10, 1_000_000, 100_000)
    for _ in range(90):
        clock.now += 0.2
        reporter.advanced("quality", 1, 10_000, 50)
    reporter.ended("quality", result())
    lines = stream.getvalue().splitlines()
    assert lines[0] == "12:00:00 quality        100 parts, 10 done already"
    assert lines[-1].endswith("done in 1:05: read 1,000, kept 900, dropped 90, quarantined 10")
    assert len(lines) == 2 + 3
    assert "35/100 parts, 250 documents/s, 50.0 kB/s, 13 s left" in lines[1]


def test_training_shows_steps_losses_tokens_and_time_left(clock: Clock) -> None:
    stream = io.StringIO()
    reporter = PlainProgress(stream=stream, seconds=0.0)
    reporter.started("pretrain", 1, 0, 0, 0)
    reporter.measured("pretrain", {"steps": 100})
    for step in range(1, 11):
        clock.now += 1.0
        reporter.measured("pretrain", {"step": step, "loss": 5.0 - step / 10, "tokens_per_second": 12_345.6})
    reporter.measured("pretrain", {"step": 10, "validation_loss": 4.25, "loss": None})
    line = stream.getvalue().splitlines()[-1]
    assert "step 10/100, loss 4.000, validation 4.250, 12,346 tokens/s, 1:30 left" in line


def test_waiting_and_retries_are_always_said(clock: Clock) -> None:
    stream = io.StringIO()
    reporter = PlainProgress(stream=stream)
    reporter.started("ingest", 3, 0, 0, 0)
    reporter.said("ingest", "waiting: held by process 7")
    reporter.measured("ingest", {"retry": "OSError: away", "attempt": 1})
    assert "waiting: held by process 7" in stream.getvalue()
    assert "try 1 failed, trying again: OSError: away" in stream.getvalue()


def test_the_live_table_shows_every_stage_and_keeps_messages(clock: Clock) -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None)
    reporter = LiveProgress(["ingest", "quality", "filter"], ["ingest"], console)

    def shown() -> str:
        with console.capture() as capture:
            console.print(reporter.table())
        return capture.get()

    reporter.started("quality", 4, 1, 400, 100)
    clock.now += 2.0
    reporter.advanced("quality", 1, 100, 500)
    text = shown()
    assert "done before" in text
    assert "running" in text
    assert "2/4 parts, 250 documents/s, 50 B/s, 4.0 s left" in text
    assert "waiting" in text
    reporter.measured("quality", {"retry": "OSError: away", "attempt": 2})
    assert "try 2 failed" in shown()
    assert "OSError: away" in cast(io.StringIO, console.file).getvalue()
    reporter.ended("quality", result())
    assert "read 1,000, kept 900" in shown()


def test_an_error_leaves_the_running_stage_stopped() -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True, width=140)
    reporter = LiveProgress(["ingest"], [], console)

    def run() -> None:
        with reporter:
            reporter.started("ingest", 1, 0, 0, 0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()
    assert reporter.stages["ingest"].state == "stopped"


def test_files_get_lines_and_terminals_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(reporter_for([], [], io.StringIO()), PlainProgress)
    monkeypatch.setenv("TERM", "xterm")
    terminal: Any = SimpleNamespace(isatty=lambda: True)
    assert isinstance(reporter_for([], [], terminal), LiveProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(reporter_for([], [], terminal), PlainProgress)


def test_a_restart_from_a_checkpoint_does_not_make_rates_negative() -> None:
    one = StageProgress("pretrain", "running", units=1, began=0.0)
    one.values = {"steps": 100, "step": 50}
    one.mark(1.0)
    one.values["step"] = 40
    one.mark(2.0)
    assert one.seconds_left(10.0) is None


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (59.9, "60 s"), (61, "1:01"), (7384, "2:03:04")])
def test_seconds_are_readable(seconds: float, text: str) -> None:
    assert readable_seconds(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456_789, "123 MB"), (5e15, "5000 TB")]
)
def test_bytes_are_readable(number: float, text: str) -> None:
    assert readable_bytes(number) == text
