"""Duplicates as the report shows them: how similar the removed ones are, and the largest clusters with their texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stages.duplicate_decisions import DUPLICATED
from storage.outputs import Output

Row = dict[str, Any]
Check = Callable[[], None]

CLUSTERS_SHOWN = 4
MEMBERS_SHOWN = 2
CHARACTERS_SHOWN = 700
CHARACTERS_BEFORE = 150
"""Of a text that agrees with its keeper at first: how much is shown before the first difference."""
STEPS = 40
"""Bins of the histogram of similarities, from 0 to 1."""


def similarities(output: Output, check: Check) -> list[int]:
    """Numbers of near-duplicates by similarity to their keeper, in STEPS bins from 0 to 1 (1 in the last)."""
    import numpy as np
    import polars as pl

    total = np.zeros(STEPS, dtype=np.int64)
    for part in output.parts("decisions"):
        check()
        decided = pl.from_arrow(output.read(part, ["method", "similarity"]))
        assert isinstance(decided, pl.DataFrame)
        near = decided.filter(pl.col("method") == "near")["similarity"].drop_nulls().to_numpy()
        # The hair: a similarity on the border of two bins, as the threshold often is, belongs to the upper one.
        steps = np.minimum((near * STEPS + 1e-9).astype(np.int64), STEPS - 1)
        total += np.bincount(steps, minlength=STEPS)
    return [int(number) for number in total]


def largest_clusters(outputs: Mapping[str, Output], check: Check) -> list[Row]:
    """The keepers with most duplicates: `keeper`, `size` (duplicates) and a few `members`, least similar first.

    A member brings excerpts of its own text and of its keeper's from the same place on, so that they differ in it.
    """
    import polars as pl

    output = outputs["deduplicate"]
    counted = []
    for part in output.parts("decisions"):
        check()
        decided = pl.from_arrow(output.read(part, ["keeper"]))
        assert isinstance(decided, pl.DataFrame)
        counted.append(decided.drop_nulls().group_by("keeper").agg(size=pl.len().cast(pl.Int64)))
    if not counted:
        return []
    sizes = pl.concat(counted).group_by("keeper").agg(pl.col("size").sum())
    top = sizes.sort(["size", "keeper"], descending=[True, False]).head(CLUSTERS_SHOWN)
    if not top.height:
        return []
    keepers, members = _places(outputs, top["keeper"].to_list(), check)
    clusters = []
    for identity, size in top.iter_rows():
        if identity not in keepers:
            continue
        keeper = _document(outputs["ingest"], keepers[identity])
        text = keeper.pop("text")
        shown = []
        for place in members.get(identity, []):
            member = _document(outputs["ingest"], place)
            start = _first_difference(text, member["text"])
            end = start + CHARACTERS_SHOWN
            excerpts = {"start": start, "text": member["text"][start:end], "keeper_text": text[start:end]}
            shown.append({**member, **excerpts, "identical": text == member["text"]})
        clusters.append({"size": size, "keeper": keeper, "members": shown})
    return clusters


def _places(
    outputs: Mapping[str, Output], wanted: list[bytes], check: Check
) -> tuple[dict[bytes, Row], dict[bytes, list[Row]]]:
    """Where the keepers stand, and the members of each to show."""
    import polars as pl

    keepers: dict[bytes, Row] = {}
    frames = []
    columns = ["id", "keeper", "similarity", "method", "dropped_by"]
    for part in outputs["deduplicate"].parts("decisions"):
        check()
        decided = pl.from_arrow(outputs["deduplicate"].read(part, columns))
        assert isinstance(decided, pl.DataFrame)
        decided = decided.with_columns(stem=pl.lit(part.stem), row=pl.int_range(pl.len()))
        # Exact copies bear the id of their keeper; the keeper itself has none.
        dropped_by = pl.col("dropped_by").fill_null(DUPLICATED)  # in the mode drop-all the keeper goes too
        stays = decided.filter(pl.col("id").is_in(wanted) & pl.col("keeper").is_null() & (dropped_by == DUPLICATED))
        for place in stays.to_dicts():
            keepers.setdefault(place["id"], place)
        frames.append(_least_similar(decided.filter(pl.col("keeper").is_in(wanted))))
    chosen = _least_similar(pl.concat(frames))
    members: dict[bytes, list[Row]] = {}
    for place in chosen.to_dicts():
        members.setdefault(place["keeper"], []).append(place)
    return keepers, members


def _least_similar(members: Any) -> Any:
    """A few members of every cluster, each text once."""
    ordered = members.sort(["similarity", "id", "stem", "row"]).unique(
        ["keeper", "id"], keep="first", maintain_order=True
    )
    return ordered.group_by("keeper", maintain_order=True).head(MEMBERS_SHOWN)


def _document(ingest: Output, place: Row) -> Row:
    columns = ["source", "uri", "record", "text"]
    document = ingest.read(f"documents/{place['stem']}", columns).slice(place["row"], 1).to_pylist()[0]
    return {
        **document,
        "id": place["id"].hex(),
        "similarity": place["similarity"],
        "method": place["method"],
    }


def _first_difference(one: str, other: str) -> int:
    """Where to begin an excerpt so that the first difference of two texts is in it."""
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return 0 if at < CHARACTERS_SHOWN - CHARACTERS_BEFORE or one == other else at - CHARACTERS_BEFORE
