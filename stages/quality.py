"""quality: features of every document, and the passages to cut. Evidence only: nothing is dropped here.

Parts: `features/<stem>` and, where cuts are configured, `cuts/<stem>`, row for row with `documents/<stem>`.
"""

from __future__ import annotations

from stages.base import Context, Inputs, Stage, Unit, part_units
from stages.config import QualityStageConfig, RunConfig
from storage.outputs import PartWriter, Receipt
from storage.schemas import CUTS


class Quality(Stage[QualityStageConfig]):
    """One scan of the text for all features."""

    name = "quality"
    version = 1
    needs = ("ingest",)

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        return part_units(self, inputs)

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
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


def make(config: RunConfig) -> Quality:
    """The stage of a run."""
    return Quality(config.quality)
