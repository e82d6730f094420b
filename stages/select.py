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
