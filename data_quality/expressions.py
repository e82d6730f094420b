"""Conditions that people write as text: read by Polars' SQL, allowed only what looks at one document at a time.

A decision may not depend on which documents share a part with this one, nor on the day it is made: sums and averages
over documents, windows, sub-queries and clocks are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import polars as pl
import polars.exceptions as errors

from data_quality.columns import META, column

# Nodes of Polars' expressions that look at several rows, as `Expr.meta.serialize` calls them.
_SEVERAL_ROWS = {
    "Agg": "a sum, count or average over documents",
    "Len": "a count of documents",
    "Over": "a window over documents",
    "Rolling": "a window over documents",
    "Correlation": "a correlation over documents",
    "Quantile": "a quantile over documents",
    "Range": "a number of the row",
    "Explode": "a list with several rows for one document",
    "SubPlan": "a sub-query",
    "Shift": "a neighbouring document",
    "Sort": "an order of documents",
    "SortBy": "an order of documents",
    "Filter": "a choice of documents",
    "Slice": "a choice of documents",
    "Gather": "a choice of documents",
    "Selector": "several columns at once",
}
_PIECES = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|\bmeta(?:\.[A-Za-z_]\w*)+|\b[A-Za-z_]\w*""")
_CLOCKS = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "now", "random"}


@lru_cache(maxsize=256)
def parse(text: str) -> pl.Expr:
    """The condition that a text describes, as a Polars expression over `numbers as Float64, words as String`.

    Columns are named as they are; fields of metadata as meta.licence, or "meta.some-field" in double quotes. A value
    that is missing makes a comparison unknown, and what is unknown drops nothing.

    Raises
    ------
    ValueError
        If it cannot be read, names a column there is not, is no condition, or looks at more than one document.
    """
    quoted = _PIECES.sub(_quote_meta, text)
    try:
        expression = pl.sql_expr(quoted)
    except (errors.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError(f"it cannot be read: {_first_line(error)}") from None
    for node in _nodes(json.loads(expression.meta.serialize(format="json"))):
        if node in _SEVERAL_ROWS:
            raise ValueError(f"it looks at more than one document ({_SEVERAL_ROWS[node]})")
    roots = expression.meta.root_names()
    if not roots:
        raise ValueError("it names no column")
    if META.rstrip(".") in roots:
        raise ValueError('it names `meta` as a whole; name a field, as meta.licence or "meta.some-field"')
    for name in roots:
        if column(name) is None:
            raise UnknownColumnError(name)
    try:
        kind = empty_frame(roots).select(expression).schema.dtypes()[0]
    except errors.PolarsError as error:
        raise ValueError(f"it cannot be computed: {_first_line(error)}") from None
    if kind != pl.Boolean:
        raise ValueError(f"it is no condition: its result is {kind}, not true or false")
    return expression


class UnknownColumnError(ValueError):
    """An expression names a column there is not."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no column {name!r}")
        self.name = name


def roots(text: str) -> list[str]:
    """The names of the columns an expression looks at, sorted."""
    return sorted(set(parse(text).meta.root_names()))


def empty_frame(wanted: list[str]) -> pl.DataFrame:
    """A frame without rows that has these columns, as rules see them."""
    types = {}
    for name in wanted:
        known = column(name)
        types[name] = pl.Float64 if known is not None and known.type == "number" else pl.String
    return pl.DataFrame(schema=types)


def _quote_meta(found: re.Match[str]) -> str:
    piece = found.group()
    if piece.lower() in _CLOCKS:
        raise ValueError(f"it asks for {piece}, which differs from one run to the next")
    return f'"{piece}"' if piece.startswith(META) else piece


def _nodes(value: Any) -> Iterator[str]:
    """The names of all nodes of a serialised expression; texts it compares with are none."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            if name not in ("String", "Column"):
                yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)
    elif isinstance(value, str):
        yield value


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
