"""filter: rules over features and metadata, and contamination, decide which documents are eligible: a query, no scan.

Parts: `decisions/<stem>`, row for row with `documents/<stem>`; `about/rules`: the rules in force; `about/tally`: what
they came to by source and language, what they hit, and what they have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from data_quality.filter_config import FilterConfig
from stages.base import Context, Inputs, Stage, Unit, part_units
from stages.config import RunConfig
from stages.decided import kinds_of, part_frame, rules_of, verdict
from storage.fingerprint import canonical
from storage.outputs import Output, PartWriter, Receipt
from storage.schemas import DECISIONS


class Filter(Stage[FilterConfig]):
    """The first rule that drops a document is its reason; all that would are kept beside it."""

    name = "filter"
    version = 2
    needs = ("ingest", "quality", "decontaminate")

    def __init__(self, config: FilterConfig) -> None:
        super().__init__(config)
        self.previous: Callable[[], Output | None] = lambda: None

    def __reduce__(self) -> tuple[Any, ...]:
        return Filter, (self.config,)  # the run before is for the runner's process only

    def parameters(self) -> Any:
        # The rules themselves, however they were written down. Gates judge the result, they do not make it, and words
        # for people change nothing either.
        rules = rules_of(self.config)
        return {
            "order": [rule.name for rule in rules],
            "rules": {
                rule.name: {
                    name: canonical(getattr(rule, name))
                    for name in ("feature", "comparison", "threshold", "expression")
                }
                for rule in rules
            },
            "contamination_overlap": self.config.contamination_overlap,
        }

    def follow(self, previous: Callable[[], Output | None]) -> None:
        self.previous = previous

    def start(self, inputs: Inputs, writer: PartWriter) -> None:
        rules = rules_of(self.config)
        writer.json("about/rules", [{**canonical(rule), "condition": rule.condition} for rule in rules])

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        kinds = [f"quality:{kind}" for kind in kinds_of(rules_of(self.config))]
        return part_units(self, inputs, None, (*kinds, "decontaminate:overlaps"))

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        import polars as pl

        from data_quality.rules import count_reasons
        from data_quality.tally import tally

        stem = unit.payload["stem"]
        ids, frame = part_frame(inputs, stem, rules_of(self.config))
        found = verdict(inputs, stem, ids, frame, self.config)
        decisions = found.table(ids)
        writer.parquet(f"decisions/{stem}", decisions, DECISIONS)
        dropped = count_reasons(decisions)
        writer.count(read=len(ids), kept=len(ids) - sum(dropped.values()), dropped=dropped)
        reasons = pl.Series(pl.from_arrow(found.reasons))
        described = frame.select("source", "language", "bytes").with_columns(reason=reasons)
        writer.notes["tally"] = tally(described, found.names, found.fired)

    def finish(self, inputs: Inputs, receipts: Sequence[Receipt], writer: PartWriter) -> None:
        from data_quality.tally import total

        writer.json("about/tally", total(receipt.notes["tally"] for receipt in receipts))

    def gate(self, output: Output) -> list[str]:
        from data_quality.gates import check_gates

        before = self.previous()
        earlier = before.read_json("about/tally") if before is not None and before.has("about/tally") else None
        table = check_gates(output.read_json("about/tally"), earlier, self.config.expect)
        return [table] if table else []


def make(config: RunConfig) -> Filter:
    """The stage of a run."""
    return Filter(config.filter)
