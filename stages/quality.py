"""quality: features of every document, the passages to cut, and what judges say. Evidence only: nothing is dropped here.

Parts: `features/<stem>` and, where they are configured, `cuts/<stem>` and `judgements/<stem>`, row for row with
`documents/<stem>`; those that judges share are named in `stages/judges.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from corpus.config import IngestConfig
from stages.base import Context, Inputs, Stage, Unit, part_units
from stages.config import QualityStageConfig, RunConfig
from stages.judges import JUDGEMENTS, Judges, judge, needed_columns
from storage.fingerprint import canonical
from storage.outputs import PartWriter, Receipt
from storage.schemas import CUTS


class Quality(Stage[QualityStageConfig]):
    """One scan of the text for all features, and one for the judges, each with a key of its own.

    `reading` says how ingest treats text; the examples of classifiers are treated alike.
    """

    name = "quality"
    version = 2
    needs = ("ingest",)

    def __init__(self, config: QualityStageConfig, reading: IngestConfig) -> None:
        super().__init__(config)
        self.reading = reading
        self.judges = Judges(config, reading)

    def __reduce__(self) -> tuple[Any, ...]:
        return Quality, (self.config, self.reading)

    def parameters(self) -> Any:
        return {**self._measured(), **self.judges.parameters()}

    def _measured(self) -> dict[str, Any]:
        return {"features": canonical(self.config.features), "cuts": canonical(self.config.cuts)}

    def starts(self) -> bool:
        return bool(self.config.classifiers or self.config.blocklists)

    def start(self, inputs: Inputs, writer: PartWriter) -> None:
        self.judges.prepare(inputs, writer)

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        units = part_units(self, inputs, parameters=self._measured())
        if self.config.judged:
            payload = self.judges.payload(started)
            judged = part_units(self, inputs, parameters=self.judges.keys(started))
            units += [
                replace(unit, name=f"{JUDGEMENTS}/{unit.name}", payload={**unit.payload, **payload}) for unit in judged
            ]
        return units

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        if unit.name.startswith(f"{JUDGEMENTS}/"):
            self._judge(unit, inputs, writer)
            return
        import pyarrow as pa

        from corpus.cuts import find_cuts
        from data_quality.features import FEATURE_SCHEMA, compute_features

        stem = unit.payload["stem"]
        documents = inputs["ingest"].read(f"documents/{stem}", ["id", "text"])
        ids = documents.column("id").combine_chunks()
        texts = documents.column("text").combine_chunks()
        features = compute_features(texts, self.config.features)
        writer.parquet(f"features/{stem}", features.add_column(0, FEATURE_SCHEMA.field("id"), ids), FEATURE_SCHEMA)
        if self.config.cuts.producers:
            writer.parquet(f"cuts/{stem}", pa.table({"id": ids, "spans": find_cuts(texts, self.config.cuts)}), CUTS)
        writer.count(read=len(ids), kept=len(ids))

    def _judge(self, unit: Unit, inputs: Inputs, writer: PartWriter) -> None:
        # The documents are counted where they are measured.
        stem = unit.payload["stem"]
        documents = inputs["ingest"].read(f"documents/{stem}", needed_columns(self.config))
        judgements = judge(documents, stem, self.config, writer.store, unit.payload)
        writer.parquet(f"{JUDGEMENTS}/{stem}", judgements, judgements.schema)


def make(config: RunConfig) -> Quality:
    """The stage of a run."""
    return Quality(config.quality, config.ingest)
