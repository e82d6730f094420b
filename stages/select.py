"""select: which of the kept documents are taken, how often, and on which side of the split they stand.

Parts: `decisions/<stem>`, row for row with `documents/<stem>`: the last word on every document. Documents dropped
before have the stage that dropped them as their reason.
"""

from __future__ import annotations

from data_quality.duplicates_config import SelectConfig
from stages.base import Context, Inputs, Stage, Unit
from stages.config import RunConfig
from stages.deduplicate import EARLIER
from stages.selected import side_by_side
from storage.outputs import PartWriter, Receipt
from storage.schemas import DECISIONS


class Select(Stage[SelectConfig]):
    """Caps, repeats and the split, by hashes of ids."""

    name = "select"
    version = 1
    needs = ("ingest", "quality", "deduplicate")

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        digests = {name: inputs[name].digest for name in self.needs}
        weight = sum(part.bytes for part in inputs["deduplicate"].parts("decisions"))
        return [Unit("all", self.unit_key(parameters=self.parameters(), inputs=digests), {}, weight)]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        import polars as pl

        from data_quality.rules import count_reasons
        from data_quality.selection import select

        parts = inputs["ingest"].parts("documents")
        frames = []
        for part in parts:
            frames.append(
                side_by_side(
                    inputs,
                    ("ingest", f"documents/{part.stem}", ["id", "source"]),
                    ("quality", f"features/{part.stem}", ["language", "bytes"]),
                    ("deduplicate", f"decisions/{part.stem}", ["dropped_by", "keeper", "similarity", "method"]),
                )
            )
        documents = pl.concat(frames) if frames else pl.DataFrame()
        documents = documents.with_columns(kept=pl.col("dropped_by").is_null())
        chosen = select(documents, self.config)
        # Who was dropped by rules carries "filter" from deduplicate; whom deduplicate itself dropped gets its name.
        before = (
            pl.when(documents["kept"])
            .then(None)
            .when(documents["dropped_by"] == EARLIER)
            .then(pl.lit(EARLIER))
            .otherwise(pl.lit("deduplicate"))
        )
        reason = pl.coalesce(before, chosen["dropped_by"])
        table = documents.select(
            "id",
            dropped_by=reason,
            hits=pl.concat_list(reason).list.drop_nulls(),
            keeper="keeper",
            similarity="similarity",
            method="method",
            split=chosen["split"],
            repeats=chosen["repeats"].cast(pl.Int32),
        )
        start = 0
        for part in parts:
            rows = table.slice(start, part.rows).to_arrow()
            start += part.rows
            writer.parquet(f"decisions/{part.stem}", rows, DECISIONS)
            dropped = count_reasons(rows)
            writer.count(read=part.rows, kept=part.rows - sum(dropped.values()), dropped=dropped)


def make(config: RunConfig) -> Select:
    """The stage of a run."""
    return Select(config.select)
