"""sketch: a MinHash signature of every document, the evidence `deduplicate` finds candidates by.

Parts: `signatures/<stem>`, row for row with `documents/<stem>`, and `permutations/<scheme>` (seed, coefficients).
"""

from __future__ import annotations

from data_quality.duplicates_config import SketchConfig
from stages.base import Context, Inputs, Stage, Unit, part_units
from stages.config import RunConfig
from storage.outputs import PartWriter, Receipt
from storage.schemas import signature_schema


class Sketch(Stage[SketchConfig]):
    """MinHash over sets of word n-grams."""

    name = "sketch"
    version = 2
    needs = ("ingest",)

    def start(self, inputs: Inputs, writer: PartWriter) -> None:
        from data_quality.sketch import permutation_facts

        writer.json(f"permutations/{self.config.scheme}", permutation_facts(self.config))

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        return part_units(self, inputs)

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        from data_quality.sketch import sketch

        stem = unit.payload["stem"]
        documents = inputs["ingest"].read(f"documents/{stem}", ["id", "text"])
        schema = signature_schema(self.config.permutations, self.config.scheme)
        signatures = sketch(documents.column("text").combine_chunks(), self.config)
        table = signatures.add_column(0, schema.field("id"), documents.column("id").combine_chunks())
        writer.parquet(f"signatures/{stem}", table, schema)
        writer.count(read=table.num_rows, kept=table.num_rows)


def make(config: RunConfig) -> Sketch:
    """The stage of a run."""
    return Sketch(config.sketch)
