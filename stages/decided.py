"""What rules look at, read part by part, and what they say of it: for `filter`, and for questions about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data_quality.filter_config import FilterConfig
from data_quality.presets import Rule
from stages.base import Inputs, StageError

if TYPE_CHECKING:
    import polars as pl

    from data_quality.rules import Verdict

ALWAYS = ("source", "language", "bytes")
"""What every tally is made by, beside what the rules look at."""


def rules_of(config: FilterConfig) -> tuple[Rule, ...]:
    """The rules in force, in the order in which they give their reason; StageError if one is wrong."""
    from data_quality.rules import resolve_rules

    try:
        return resolve_rules(config)
    except ValueError as error:
        raise StageError(str(error)) from error


def kinds_of(rules: Sequence[Rule]) -> list[str]:
    """The kinds of quality's parts that the rules look at."""
    from data_quality.columns import DOCUMENTS, where_stored
    from data_quality.rules import columns_of

    return sorted({*where_stored([*columns_of(rules), *ALWAYS])} - {DOCUMENTS})


def part_frame(inputs: Inputs, stem: str, rules: Sequence[Rule]) -> tuple[Any, pl.DataFrame]:
    """The ids of a part, and what its documents' rules look at beside ALWAYS, row for row.

    Raises
    ------
    StageError
        If the stored features lack a column: naming it and what to set.
    """
    import polars as pl

    from data_quality.columns import DOCUMENTS, where_stored
    from data_quality.rules import columns_of

    columns: dict[str, Any] = {}
    wanted = where_stored([*columns_of(rules), *ALWAYS])
    ids = None
    for kind, names in wanted.items():
        output = inputs["ingest" if kind == DOCUMENTS else "quality"]
        table = output.read(f"{kind}/{stem}", names if kind == DOCUMENTS else ["id", *names])
        lacking = [name for name in names if name not in table.column_names]
        if lacking:
            raise StageError(f"{output.folder}, {kind}/{stem}: there is no {', '.join(lacking)}, which rules look at")
        columns |= {name: pl.from_arrow(table.column(name)) for name in names}
        if kind != DOCUMENTS:
            ids = table.column("id").combine_chunks()
    return ids, pl.DataFrame(columns)


def verdict(inputs: Inputs, stem: str, ids: Any, frame: pl.DataFrame, config: FilterConfig) -> Verdict:
    """What the rules of a configuration say of a part; StageError if one of them cannot be computed."""
    import polars as pl

    from data_quality.rules import judge

    overlaps = pl.from_arrow(inputs["decontaminate"].read(f"overlaps/{stem}", ["id", "overlap"]))
    assert isinstance(overlaps, pl.DataFrame)
    try:
        return judge(ids, frame, overlaps, config)
    except ValueError as error:
        raise StageError(str(error)) from error
