"""select: which of the kept documents are taken, how often, and on which side of the split they stand.

Parts: `decisions/<stem>`, row for row with `documents/<stem>`: the last word on every document. Documents dropped
before have the stage that dropped them as their reason. `about/tally`: what it came to by source and language.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_quality.select_config import SelectConfig
from stages.base import Context, Inputs, Stage, StageError, Unit
from stages.config import RunConfig
from stages.deduplicate import EARLIER
from stages.selected import side_by_side
from storage.outputs import PartWriter, Receipt
from storage.schemas import DECISIONS

if TYPE_CHECKING:
    import polars as pl

DEDUPLICATE = "deduplicate"


class Select(Stage[SelectConfig]):
    """Samples, caps, shares, repeats and the split, by hashes of ids."""

    name = "select"
    version = 2
    needs = ("ingest", "quality", "deduplicate")

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        digests = {name: inputs[name].digest for name in self.needs}
        weight = sum(part.bytes for part in inputs["deduplicate"].parts("decisions"))
        return [Unit("all", self.unit_key(parameters=self.parameters(), inputs=digests), {}, weight)]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        import polars as pl

        from data_quality.rules import count_reasons
        from data_quality.selection import Candidates, choose
        from data_quality.tally import tally, total

        stems = [part.stem for part in inputs["ingest"].parts("documents")]
        candidates = Candidates(inputs["deduplicate"].counts["kept"], self.config.seed)
        for stem in stems:
            context.check()
            candidates.add(_part(inputs, stem).filter(pl.col("dropped_by").is_null()))
        try:
            chosen = choose(candidates, self.config, lambda rows: _by_place(inputs, stems, rows))
        except ValueError as error:
            raise StageError(str(error)) from error
        growth = _growth(inputs, self.config)
        start, tallies = 0, []
        for stem in stems:
            context.check()
            documents = _part(inputs, stem)
            kept = documents["dropped_by"].is_null()
            of_kept = chosen.frame(start, start + int(kept.sum())).with_columns(row=kept.arg_true())
            start += of_kept.height
            rows = documents.with_columns(pl.Series("kept", kept)).with_row_index("row")
            placed = rows.join(of_kept, on="row", how="left", maintain_order="left", suffix="_here")
            # Who was dropped by rules carries "filter" from deduplicate; whom deduplicate itself dropped gets its name.
            before = pl.when(pl.col("dropped_by") == EARLIER).then(pl.lit(EARLIER)).otherwise(pl.lit(DEDUPLICATE))
            if self.config.cluster_repeats:
                placed = placed.with_columns(_by_cluster(inputs, stem, growth, self.config))
            placed = placed.with_columns(reason=pl.when("kept").then("dropped_by_here").otherwise(before))
            table = placed.select(
                "id",
                dropped_by="reason",
                hits=pl.concat_list("reason").list.drop_nulls(),
                keeper="keeper",
                similarity="similarity",
                method="method",
                split="split",
                repeats="repeats",
            ).to_arrow()
            writer.parquet(f"decisions/{stem}", table, DECISIONS)
            dropped = count_reasons(table)
            writer.count(read=len(table), kept=len(table) - sum(dropped.values()), dropped=dropped)
            tallies.append(tally(placed.select("source", "language", "bytes", "reason")))
        writer.json("about/tally", total(tallies))


def _part(inputs: Inputs, stem: str) -> pl.DataFrame:
    """What there is to know of the documents of a part, row for row."""
    found: Any = side_by_side(
        inputs,
        ("ingest", f"documents/{stem}", ["id", "source"]),
        ("quality", f"features/{stem}", ["language", "bytes"]),
        ("deduplicate", f"decisions/{stem}", ["dropped_by", "keeper", "similarity", "method"]),
    )
    return found  # type: ignore[no-any-return]


def _growth(inputs: Inputs, config: SelectConfig) -> pl.DataFrame:
    """How many duplicates later generations added to the clusters of earlier ones, by id."""
    import polars as pl

    output = inputs[DEDUPLICATE]
    if config.cluster_repeats and output.manifest["parameters"].get("mode") == "only-report":
        raise StageError(
            "select.cluster_repeats repeats what stays for dropped duplicates: deduplicate.mode only-report drops none"
        )
    frames: list[Any] = [pl.from_arrow(output.read(part)) for part in output.parts("growth")]
    if not frames:
        return pl.DataFrame(schema={"id": pl.Binary, "added": pl.Int64})
    total: pl.DataFrame = pl.concat(frames)
    return total.group_by("id").agg(pl.col("added").sum())


def _by_cluster(inputs: Inputs, stem: str, growth: pl.DataFrame, config: SelectConfig) -> pl.Expr:
    """The repeats of a part's training documents, multiplied as the sizes of their clusters say."""
    import polars as pl

    found: Any = side_by_side(inputs, (DEDUPLICATE, f"neighbours/{stem}", ["id", "cluster_size"]))
    grown = found.join(growth, on="id", how="left", maintain_order="left")
    sizes = grown["cluster_size"] + grown["added"].fill_null(0)
    times = pl.lit(1, pl.Int32)
    for size, number in config.cluster_repeats:
        times = pl.when(pl.lit(sizes) >= size).then(pl.lit(number, pl.Int32)).otherwise(times)
    return pl.when(pl.col("split") == "train").then(pl.col("repeats") * times).otherwise("repeats").alias("repeats")


def _by_place(inputs: Inputs, stems: list[str], rows: Any) -> Any:
    """Rows of kept documents ordered by id and by where they come from, wherever their parts lie."""
    import polars as pl

    start, frames = 0, []
    for stem in stems:
        places = side_by_side(
            inputs,
            ("ingest", f"documents/{stem}", ["id", "source", "uri", "record"]),
            ("deduplicate", f"decisions/{stem}", ["dropped_by"]),
        )
        kept = places.filter(pl.col("dropped_by").is_null()).with_columns(at=start + pl.int_range(pl.len()))
        start += kept.height
        frames.append(kept.filter(pl.col("at").is_in(rows)))
    return pl.concat(frames).sort("id", "source", "uri", "record")["at"].to_numpy()


def make(config: RunConfig) -> Select:
    """The stage of a run."""
    return Select(config.select)
