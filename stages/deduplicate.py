"""deduplicate: among the eligible documents, who is kept for whom. Every removal is verified on the text.

Parts: `decisions/<stem>`, row for row with `documents/<stem>` (documents dropped before have the reason "filter"), and
`about/duplicates`: what was compared.
"""

from __future__ import annotations

from typing import Any

from data_quality.duplicates_config import DeduplicateConfig, SketchConfig
from stages.base import Context, Inputs, Stage, Unit
from stages.config import RunConfig
from stages.selected import side_by_side
from storage.fingerprint import canonical
from storage.outputs import PartWriter, Receipt
from storage.schemas import DECISIONS

EARLIER = "filter"
REASONS = {"exact": "exact-duplicate", "near": "near-duplicate"}


class Deduplicate(Stage[DeduplicateConfig]):
    """The definition stands in `data_quality/duplicates.py`."""

    name = "deduplicate"
    version = 1
    needs = ("ingest", "quality", "sketch", "filter")

    def __init__(self, config: DeduplicateConfig, sketch: SketchConfig) -> None:
        super().__init__(config)
        self.sketch = sketch

    def parameters(self) -> Any:
        return {**canonical(self.config, self.name), "ngram": self.sketch.ngram}

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        digests = {name: inputs[name].digest for name in self.needs}
        weight = sum(part.bytes for part in inputs["sketch"].parts("signatures"))
        return [Unit("all", self.unit_key(parameters=self.parameters(), inputs=digests), {}, weight)]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        import numpy as np
        import numpy.typing as npt
        import polars as pl
        import pyarrow as pa

        from data_quality.duplicates import deduplicate
        from data_quality.rules import count_reasons

        parts = inputs["ingest"].parts("documents")
        frames = []
        for number, part in enumerate(parts):
            frame = side_by_side(
                inputs,
                ("ingest", f"documents/{part.stem}", ["id", "source", "uri", "record", "date"]),
                ("sketch", f"signatures/{part.stem}", ["signature", "shingles"]),
                ("quality", f"features/{part.stem}", ["bytes"]),
                ("filter", f"decisions/{part.stem}", ["dropped_by"]),
            )
            frame = frame.with_columns(part=pl.lit(number, pl.Int32), row=pl.int_range(pl.len(), dtype=pl.Int64))
            frames.append(frame.filter(pl.col("dropped_by").is_null()).drop("dropped_by"))
        documents = pl.concat(frames) if frames else pl.DataFrame()

        def read_texts(part: int, rows: npt.NDArray[np.int64]) -> pa.LargeStringArray:
            context.check()
            texts = inputs["ingest"].read(parts[part], ["text"]).column("text")
            return texts.take(pa.array(rows)).combine_chunks()

        decided, statistics = deduplicate(documents, read_texts, self.config, self.sketch)
        decided = decided.with_columns(documents["part"], documents["row"])
        by_part = decided.partition_by("part", as_dict=True)
        for number, part in enumerate(parts):
            table = _decisions(inputs["ingest"].read(part, ["id"]).column("id"), by_part.get((number,)))
            writer.parquet(f"decisions/{part.stem}", table, DECISIONS)
            dropped = count_reasons(table)
            writer.count(read=part.rows, kept=part.rows - sum(dropped.values()), dropped=dropped)
        writer.json("about/duplicates", statistics)


def _decisions(ids: Any, decided: Any) -> Any:
    """The decisions of one part: what `deduplicate` said of eligible rows, "filter" for all others."""
    import polars as pl

    rows = pl.DataFrame({"row": pl.int_range(len(ids), eager=True, dtype=pl.Int64)})
    if decided is None:
        decided = pl.DataFrame(
            schema={
                "row": pl.Int64, "dropped": pl.Boolean, "method": pl.String, "keeper": pl.Binary,
                "similarity": pl.Float64,
            }
        )  # fmt: skip
    joined = rows.join(decided.drop("id", "part", strict=False), on="row", how="left", maintain_order="left")
    reason = pl.col("method").replace_strict(REASONS, default=None, return_dtype=pl.String)
    hit = pl.when(pl.col("dropped").is_null()).then(pl.lit(EARLIER)).otherwise(reason)
    table = joined.select(
        dropped_by=pl.when(pl.col("dropped").fill_null(True)).then(hit),
        hits=pl.concat_list(hit).list.drop_nulls(),
        keeper=pl.col("keeper"),
        similarity=pl.col("similarity"),
        method=pl.col("method"),
        split=pl.lit(None, pl.String),
        repeats=pl.lit(None, pl.Int32),
    ).to_arrow()
    return table.add_column(0, DECISIONS.field("id"), ids)


def make(config: RunConfig) -> Deduplicate:
    """The stage of a run."""
    return Deduplicate(config.deduplicate, config.sketch)
