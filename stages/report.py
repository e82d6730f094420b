"""report: one HTML file that tells what a run did, for people: no network, no other files.

Part: `about/report` (report.html). What it shows is read from the outputs of all stages by `stages/report_data.py`,
drawn by `stages/report_charts.py` and laid out by `stages/report_page.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from stages import provenance
from stages.base import Context, Inputs, Stage, Unit
from stages.config import ReportConfig, RunConfig
from stages.graph import ORDER, module_name
from storage.fingerprint import canonical
from storage.outputs import PartWriter, Receipt


class Report(Stage[ReportConfig]):
    """Reads every output of the run; what a run leaves out is left out of the page."""

    name = "report"
    version = 3

    def __init__(self, config: ReportConfig, *, run: str, workspace: str, needs: tuple[str, ...]) -> None:
        super().__init__(config)
        self.run = run
        self.workspace = workspace
        self.needs = needs

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.config, self.run, self.workspace, self.needs)

    def parameters(self) -> Any:
        # The page bears the name of its run. Where the workspace lies changes only the commands it recommends.
        return {**canonical(self.config, self.name), "run": self.run}

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        digests = {name: inputs[name].digest for name in self.needs}
        return [Unit("page", self.unit_key(parameters=self.parameters(), inputs=digests))]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        from stages.report_data import gather
        from stages.report_page import Occasion, page

        occasion = Occasion(
            run=self.run,
            workspace=self.workspace,
            written=datetime.now(UTC).replace(microsecond=0),
            git=provenance.git(),
        )
        data = gather(inputs, self.config.samples, check=context.check)
        writer.bytes("about/report", page(data, occasion).encode(), ".html")


def _restore(config: ReportConfig, run: str, workspace: str, needs: tuple[str, ...]) -> Report:
    return Report(config, run=run, workspace=workspace, needs=needs)


def make(config: RunConfig) -> Report:
    """The stage of a run: it reads all other stages the run has."""
    assert config.report is not None
    others = [stage for stage in ORDER if stage != Report.name and getattr(config, module_name(stage)) is not None]
    return Report(config.report, run=config.name, workspace=config.workspace, needs=tuple(others))
