"""filter: rules over features, and contamination, decide which documents are eligible. A query, not a scan.

Parts: `decisions/<stem>`, row for row with `documents/<stem>`, and `rules/table`: the rules in force.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from data_quality.quality_config import FilterConfig
from stages.base import Context, Inputs, Stage, StageError, Unit, part_units
from stages.config import RunConfig
from storage.fingerprint import canonical
from storage.outputs import Output, PartWriter, Receipt
from storage.schemas import DECISIONS


class Filter(Stage[FilterConfig]):
    """The first rule that drops a document is its reason; all that would are kept beside it."""

    name = "filter"
    version = 1
    needs = ("ingest", "quality", "decontaminate")

    def parameters(self) -> Any:
        # Gates judge the result, they do not make it: a wider gate is no reason to decide anew.
        found = canonical(replace(self.config, expect={}), self.name)
        del found["expect"]
        return found

    def start(self, inputs: Inputs, writer: PartWriter) -> None:
        writer.json("rules/table", self._rules())

    def _rules(self) -> list[Any]:
        """The rules in force as plain values, in the order in which they give their reason."""
        from data_quality.rules import resolve_rules

        try:
            return [canonical(rule) for rule in resolve_rules(self.config)]
        except ValueError as error:
            raise StageError(str(error)) from error

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        return part_units(self, inputs, self._rules(), ("quality:features", "decontaminate:overlaps"))

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        import polars as pl

        from data_quality.rules import count_reasons, decide

        stem = unit.payload["stem"]
        features = inputs["quality"].read(f"features/{stem}")
        overlaps = inputs["decontaminate"].read(f"overlaps/{stem}", ["id", "overlap"])
        ids = features.column("id").combine_chunks()
        frame, hits = pl.from_arrow(features), pl.from_arrow(overlaps)
        assert isinstance(frame, pl.DataFrame)
        assert isinstance(hits, pl.DataFrame)
        decisions = decide(ids, frame, hits, self.config)
        writer.parquet(f"decisions/{stem}", decisions, DECISIONS)
        dropped = count_reasons(decisions)
        writer.count(read=len(ids), kept=len(ids) - sum(dropped.values()), dropped=dropped)

    def gate(self, output: Output) -> list[str]:
        from data_quality.rules import check_gates

        counts = output.counts
        return check_gates(counts["kept"], counts["dropped"], self.config)


def make(config: RunConfig) -> Filter:
    """The stage of a run."""
    return Filter(config.filter)
