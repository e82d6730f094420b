"""What people see of a run in the Prefect UI: the plan, progress, the funnel, losses, samples, the report's address."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from stages.plan import PlanRow
from stages.progress import Progress, StageProgress, counts_text, readable_bytes, readable_seconds
from stages.runner import Reporter, StageResult

SECONDS_BETWEEN_UPDATES = 3.0
_UNREACHABLE = (httpx.HTTPError, PrefectException, OSError)


def publish_plan(rows: Sequence[PlanRow]) -> None:
    """The plan as a table."""
    table = [
        {
            "stage": row.stage,
            "state": row.state,
            "why": row.why,
            "disk": readable_bytes(row.bytes) if row.bytes is not None else "",
            "time": readable_seconds(row.seconds) if row.seconds is not None else "",
        }
        for row in rows
    ]
    create_table_artifact(table, key="plan", description="What each stage of this run will do, and why.")


def publish_stage(stage: str, result: StageResult) -> None:
    """What one stage read, kept, dropped by rule and quarantined by error."""
    counts = result.output.counts
    table = [{"what": "read", "documents": counts["read"]}, {"what": "kept", "documents": counts["kept"]}]
    for name in ("dropped", "quarantined"):
        ranked = sorted(counts[name].items(), key=lambda item: (-item[1], item[0]))
        table += [{"what": f"{name}: {reason}", "documents": number} for reason, number in ranked]
    create_table_artifact(table, key=f"counts-{stage}", description=f"{stage}, output {result.output.name}")


def publish_summary(summary: Mapping[str, Any], samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """The funnel, losses and scores, samples kept and dropped, and a link to the HTML report.

    Parameters
    ----------
    summary
        As `stages.explain.summary` gives it.
    samples
        As `stages.explain.samples` gives them: documents by reason.
    """
    funnel = [
        {
            "stage": row["stage"],
            "read": row["read"],
            "kept": row["kept"],
            "dropped": sum(row["dropped"].values()),
            "quarantined": sum(row["quarantined"].values()),
            "by rule": ", ".join(f"{reason} {number:,}" for reason, number in _ranked(row)),
        }
        for row in summary.get("funnel", [])
    ]
    if funnel:
        create_table_artifact(funnel, key="funnel", description="What every stage read, kept and dropped.")
    scores = _scores(summary)
    if scores:
        create_table_artifact(scores, key="scores", description="Losses and scores beside their baselines.")
    if samples:
        create_markdown_artifact(_samples(samples), key="samples", description="Documents kept and dropped.")
    if summary.get("report"):
        path = str(summary["report"])
        link = path if "://" in path else f"file://{path}"
        create_link_artifact(link, "The HTML report", key="report", description=path)


def _ranked(row: Mapping[str, Any]) -> list[tuple[str, int]]:
    reasons = {**row["dropped"], **row["quarantined"]}
    return sorted(reasons.items(), key=lambda item: (-item[1], item[0]))


def _scores(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    table = []
    for name, value in (summary.get("losses") or {}).items():
        if isinstance(value, int | float):
            table.append({"of": "pretraining", "what": str(name), "value": round(float(value), 4)})
    for name, values in (summary.get("evaluation") or {}).items():
        for what in ("perplexity", "bits_per_byte"):
            table.append({"of": f"evaluation, {name}", "what": what, "value": round(float(values[what]), 4)})
    tuned = summary.get("finetuning")
    if tuned:
        rows = {"fine-tuned": tuned, **tuned["baselines"]}
        for name, values in rows.items():
            table.append({"of": f"classification, {name}", "what": "accuracy", "value": round(values["accuracy"], 4)})
    return table


def _samples(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    lines = []
    for reason, documents in samples.items():
        lines.append(f"## {reason}")
        for document in documents:
            # An indented block, so that nothing in the text is taken for markdown.
            text = "\n".join("    " + line for line in str(document["excerpt"]).splitlines())
            lines += [f"**{document['source']}** `{document['uri']}#{document['record']}`", text]
    return "\n\n".join(lines)


class PrefectProgress:
    """A reporter that passes everything on and keeps a progress artifact a stage, updated every few seconds.

    The server is only a view: if it cannot be reached the run goes on, and the log says so once.
    """

    def __init__(self, inner: Reporter, seconds: float = SECONDS_BETWEEN_UPDATES) -> None:
        self.inner = inner
        self.seconds = seconds
        self._numbers = Progress()
        self._artifacts: dict[str, UUID] = {}
        self._last = 0.0
        self._lock = threading.Lock()
        self._complained = False

    def started(self, stage: str, units: int, finished: int, weight: int, weight_finished: int) -> None:
        """A stage begins, or goes on to a further round, with some of its parts done already."""
        self.inner.started(stage, units, finished, weight, weight_finished)
        self._numbers.started(stage, units, finished, weight, weight_finished)
        if stage in self._artifacts:
            self._show(stage)
            return
        get_run_logger().info("%s: %s parts, %s done already", stage, units, finished)
        progress = self._numbers.stages[stage]
        try:
            artifact = create_progress_artifact(
                100 * progress.share(), key=f"progress-{stage}", description=_line(progress)
            )
            # Only in a running event loop, which there is none of here, does Prefect return a coroutine.
            assert isinstance(artifact, UUID)
            self._artifacts[stage] = artifact
        except _UNREACHABLE as error:
            self._complain(error)
        self._last = time.monotonic()

    def advanced(self, stage: str, units: int, weight: int, documents: int) -> None:
        """Some parts are done."""
        self.inner.advanced(stage, units, weight, documents)
        self._numbers.advanced(stage, units, weight, documents)
        self._show(stage)

    def measured(self, stage: str, values: Any) -> None:
        """A training or a retry tells something."""
        self.inner.measured(stage, values)
        self._numbers.measured(stage, values)
        self._show(stage)

    def said(self, stage: str, message: str) -> None:
        """A stage waits, or something else people should know."""
        self.inner.said(stage, message)
        self._numbers.said(stage, message)
        get_run_logger().warning("%s: %s", stage, message)

    def ended(self, stage: str, result: StageResult) -> None:
        """A stage is complete."""
        self.inner.ended(stage, result)
        self._numbers.ended(stage, result)
        get_run_logger().info(
            "%s: done in %s: %s", stage, readable_seconds(result.seconds), counts_text(result.output.counts)
        )
        self._show(stage, final=True)
        try:
            publish_stage(stage, result)
        except _UNREACHABLE as error:
            self._complain(error)

    def _show(self, stage: str, *, final: bool = False) -> None:
        artifact = self._artifacts.get(stage)
        with self._lock:
            now = time.monotonic()
            if artifact is None or (now - self._last < self.seconds and not final):
                return
            self._last = now
            progress = self._numbers.stages[stage]
            share = 1.0 if final else progress.share()
            try:
                update_progress_artifact(artifact, round(100 * share, 1), _line(progress))
            except _UNREACHABLE as error:
                self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            self.inner.said("prefect", f"the Prefect server cannot be told about progress: {error}")


def _line(progress: StageProgress) -> str:
    return f"{progress.stage}: {', '.join(progress.pieces(time.monotonic()))}"
