"""What decisions came to, small enough for a receipt: documents and bytes by source, language, reason; what rules hit.

A tally is a dictionary of plain values:

read
    documents.
groups
    rows of (source, language or None, reason or None for what is kept, documents, bytes).
hits
    rule -> documents it would drop, whether or not it is their first reason.
alone
    rule -> documents that no other rule would drop: what switching it off would bring back.
pairs
    rows of (rule, rule, documents that both would drop), without empty ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Tally = Mapping[str, Any]
GROUP = ("source", "language", "reason", "documents", "bytes")


def tally(frame: pl.DataFrame, names: tuple[str, ...] = (), fired: npt.NDArray[np.bool_] | None = None) -> Tally:
    """The tally of some documents.

    Parameters
    ----------
    frame
        `source`, `language` (or null), `reason` (null for what is kept), `bytes`, one row a document.
    names, fired
        The rules and bool[documents, names]: whether each would drop the document.
    """
    groups = frame.group_by("source", "language", "reason").agg(
        documents=pl.len().cast(pl.Int64), bytes=pl.col("bytes").sum().cast(pl.Int64)
    )
    found: dict[str, Any] = {"read": frame.height, "groups": _sorted(groups), "hits": {}, "alone": {}, "pairs": []}
    if fired is not None:
        # Few sets of rules fire together: each is looked at once, as often as it counts.
        packed = np.ascontiguousarray(np.packbits(fired, axis=1))
        _, first, times = np.unique(packed.view(f"V{packed.shape[1]}"), return_index=True, return_counts=True)
        sets, weights = fired[first].astype(np.float64), times.astype(np.float64)  # exact up to 2^53 documents
        both = sets.T @ (sets * weights[:, None])
        only = weights[sets.sum(axis=1) == 1] @ sets[sets.sum(axis=1) == 1]
        found["hits"] = {name: int(both[i, i]) for i, name in enumerate(names)}
        found["alone"] = {name: int(number) for name, number in zip(names, only, strict=True)}
        found["pairs"] = [[names[i], names[j], int(both[i, j])] for i, j in np.argwhere(np.triu(both, 1)).tolist()]
    return found


def total(tallies: Iterable[Tally]) -> Tally:
    """The tally of all documents of several tallies of the same rules."""
    some = list(tallies)
    hits: dict[str, int] = {}
    alone: dict[str, int] = {}
    pairs: dict[tuple[str, str], int] = {}
    for one in some:
        for sums, numbers in ((hits, one["hits"]), (alone, one["alone"])):
            for name, number in numbers.items():
                sums[name] = sums.get(name, 0) + number
        for a, b, number in one["pairs"]:
            pairs[a, b] = pairs.get((a, b), 0) + number
    groups = frame_of(row for one in some for row in one["groups"])
    summed = groups.group_by(GROUP[:3]).agg(pl.col("documents", "bytes").sum())
    return {
        "read": sum(one["read"] for one in some),
        "groups": _sorted(summed),
        "hits": hits,
        "alone": alone,
        "pairs": [[*pair, number] for pair, number in sorted(pairs.items())],
    }


def frame_of(groups: Iterable[Any]) -> pl.DataFrame:
    """The groups of a tally as a frame with the columns of GROUP."""
    types = (pl.String, pl.String, pl.String, pl.Int64, pl.Int64)
    return pl.DataFrame(list(groups), schema=dict(zip(GROUP, types, strict=True)), orient="row")


def by(found: Tally, what: str, unit: str = "documents") -> dict[str | None, tuple[int, int]]:
    """What was read and what of it was kept, by `source` or `language`: {name: (read, kept)}, the largest first."""
    kept = pl.col(unit).filter(pl.col("reason").is_null()).sum()
    summed = frame_of(found["groups"]).group_by(what).agg(read=pl.col(unit).sum(), kept=kept)
    ordered = summed.sort(["read", what], descending=[True, False], nulls_last=True)
    return {name: (read, kept) for name, read, kept in ordered.iter_rows()}


def _sorted(groups: pl.DataFrame) -> list[list[Any]]:
    return [list(row) for row in groups.select(GROUP).sort(GROUP[:3], nulls_last=True).iter_rows()]
