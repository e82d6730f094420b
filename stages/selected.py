"""Documents joined with what was found and decided about them; the selected ones as they leave the house."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.base import Inputs, Stage
from stages.config import RunConfig
from storage.outputs import PartWriter

EMPTIED = "empty after cuts"
"""Why a selected document is in no shard and no export: all of its text was cut."""


CUTTERS = ("quality", "repeats")
"""The stages whose cuts are applied; `repeats` is run only where it is configured."""


def with_cuts(stage: Stage[Any], config: RunConfig) -> Stage[Any]:
    """A stage that reads selected documents, which are cut by `repeats` too where a run has it."""
    if config.repeats is not None:
        stage.needs = (*stage.needs, "repeats")
    return stage


def evidence(inputs: Inputs) -> tuple[str, ...]:
    """What, beside documents, decides which text of a part leaves: for `part_units`."""
    cuts = [f"{name}:cuts" for name in CUTTERS if name in inputs and inputs[name].parts("cuts")]
    return ("select:decisions", *cuts)


def selected_part(inputs: Inputs, stem: str, split: str | None, columns: Sequence[str]) -> Any:
    """Selected documents of one part, in order; `text`, if asked for, may be empty where all of it was cut.

    Parameters
    ----------
    inputs
        Must hold ingest, quality and select, and repeats where the run has it.
    split
        "train", "validation", or None for both.
    columns
        Of DOCUMENTS; `text` comes with cuts applied. `split` and `repeats` are added.
    """
    import polars as pl
    import pyarrow as pa

    from corpus.cuts import apply_cuts
    from corpus.joined_cuts import join_cuts

    decisions = inputs["select"].read(f"decisions/{stem}", ["dropped_by", "split", "repeats"])
    frame = pl.from_arrow(decisions)
    assert isinstance(frame, pl.DataFrame)
    keep = frame["dropped_by"].is_null()
    if split is not None:
        keep &= frame["split"] == split
    rows = pa.array(keep.arg_true().to_numpy())
    table = inputs["ingest"].read(f"documents/{stem}", list(columns)).take(rows)
    cutters = [inputs[name] for name in CUTTERS if name in inputs and inputs[name].has(f"cuts/{stem}")]
    if "text" in columns and cutters:
        spans = [cutter.read(f"cuts/{stem}", ["spans"]).column("spans").take(rows) for cutter in cutters]
        texts = apply_cuts(table.column("text"), join_cuts(spans))
        table = table.set_column(table.column_names.index("text"), "text", texts)
    chosen = decisions.take(rows)
    return table.append_column("split", chosen.column("split")).append_column("repeats", chosen.column("repeats"))


def count_emptied(documents: Any, writer: PartWriter) -> Any:
    """The documents whose text is not empty; all are counted as read, the empty ones as dropped."""
    import pyarrow.compute as pc

    left = documents.filter(pc.greater(pc.binary_length(documents.column("text")), 0))
    emptied = documents.num_rows - left.num_rows
    writer.count(read=documents.num_rows, kept=left.num_rows, dropped={EMPTIED: emptied} if emptied else {})
    return left


def side_by_side(inputs: Inputs, *sides: tuple[str, str, list[str]]) -> Any:
    """Columns of co-partitioned parts as one Polars frame, row for row.

    Parameters
    ----------
    sides
        Stage, part name and columns of each; no column may come from two of them.
    """
    import polars as pl

    columns: dict[str, Any] = {}
    for stage, name, wanted in sides:
        table = inputs[stage].read(name, wanted)
        columns |= {column: pl.from_arrow(table.column(column)) for column in wanted}
    return pl.DataFrame(columns)
