"""Who is kept for whom: exact copies and near-duplicates, every removal verified on the text.

Documents are ordered by π = (generation, survivor priority, id, source, uri, record) and decided in that
order. Exact copies come first: of one text, the first in π stands for all. It is then compared with the
earlier *kept* documents that share an LSH band with it, and removed if and only if the Jaccard similarity of
their shingle sets reaches the threshold for one of them; its keeper is the most similar, ties by π. So every
removed document is similar to the one that stays, never through a chain; the result does not depend on the
order of rows and parts; and a new generation changes no older decision.

`deduplicate` does all of it in memory; the stage does the same steps part by part (`docs/duplicates.md`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from data_quality import duplicates_kernels
from data_quality.bands import Buckets, Groups, band_entries, first_of_equal, joined
from data_quality.duplicate_members import (
    Members,
    check_ids,
    members,
    survivor_order,
    survivor_priority,
    survivors,
)
from data_quality.duplicates_config import DeduplicateConfig, SketchConfig
from data_quality.duplicates_statistics import add_statistics, count_fates, summary
from data_quality.identifiers import id_words
from data_quality.sketch import signature_matrix

ReadTexts = Callable[[int, npt.NDArray[np.int64]], pa.LargeStringArray]
"""read_texts(part, rows): the texts of these rows (ascending) of a part."""

Integers = npt.NDArray[np.int64]
Decided = tuple[pl.DataFrame, pl.DataFrame, Integers, dict[str, Any]]
SHINGLES_IN_MEMORY = 1 << 26
DECIDED = {
    "number": pl.Int64, "keeper": pl.Binary, "similarity": pl.Float64, "method": pl.String, "cluster_size": pl.Int64,
    "containment": pl.Float64, "container": pl.Binary, "capped": pl.Boolean, "order": pl.Int32,
}  # fmt: skip
"""What is said of a document: see `decide`."""


def with_leaders(claims: pl.DataFrame, config: DeduplicateConfig) -> pl.DataFrame:
    """Of every text the number of the document that is first in π (`leader`), and how often it stands (`copies`).

    Parameters
    ----------
    claims
        `number`, `id`, `generation`, `survivor_priority`, `source`, `uri`, `record`, and `copies`, for how many
        documents of its text a row stands. They are given sorted by text and π.
    """
    by = [*survivor_order(config)[:-1], "source", "uri", "record"]
    ordered = claims.sort("id", *by)
    first = first_of_equal(id_words(ordered["id"]))
    begins, text = np.flatnonzero(first), np.cumsum(first) - 1
    leader = ordered["number"].to_numpy()[begins][text]
    copies = np.add.reduceat(ordered["copies"].to_numpy(), begins)[text] if begins.size else leader
    return ordered.with_columns(leader=pl.Series(leader), copies=pl.Series(copies))


def fates(documents: pl.DataFrame, decided: pl.DataFrame) -> pl.DataFrame:
    """`DECIDED` for all documents: `documents` with what was decided of their leaders.

    A copy of a removed text shares the fate of the leader, keeper and similarity included; copies of a kept one are
    removed for it. What is not in `decided` shares no bucket.

    Parameters
    ----------
    documents
        `number`, `id`, `leader`, and `copies`, how often the text stands in all.
    decided
        `DECIDED`, each number once.
    """
    numbers, leader = decided["number"].to_numpy(), documents["leader"].to_numpy()
    ascending = np.argsort(numbers)
    at = np.append(ascending, -1)[np.searchsorted(numbers, leader, sorter=ascending)]
    there = np.append(numbers, -1)[at] == leader
    of_leader = pl.Series(at).set(pl.Series(~there), None)
    joined = documents.hstack(decided.drop("number").select(pl.all().gather(of_leader)))
    later = pl.col("number") != pl.col("leader")
    exact = later & pl.col("keeper").is_null()
    return joined.with_columns(
        keeper=pl.when(exact).then("id").otherwise("keeper"),
        similarity=pl.when(exact).then(1.0).otherwise("similarity"),
        method=pl.when(exact).then(pl.lit("exact")).otherwise("method"),
        cluster_size=pl.when(later).then(0).otherwise(pl.coalesce("cluster_size", "copies")),
        capped=pl.col("capped").fill_null(False) & ~later,
        order=pl.when(later).then(0).otherwise(pl.col("order").fill_null(0)),
    )


@dataclass(frozen=True)
class _Compared:
    """Documents in π, and what the kernel says of each: see `duplicates_kernels.decide`."""

    ordered: pl.DataFrame
    settled: npt.NDArray[np.bool_]
    old: npt.NDArray[np.bool_]
    at: Integers
    keeper: Integers
    intersection: Integers
    union: Integers
    container: Integers
    contained: Integers
    sizes: Integers
    capped: npt.NDArray[np.bool_]
    statistics: dict[str, Any]


def _compare(
    documents: Members,
    buckets: Buckets,
    config: DeduplicateConfig,
    generation: int,
    settled: Integers,
    earlier: pl.DataFrame | None,
    already: Integers | None,
    inserts: bool,
) -> _Compared:
    frame = pl.DataFrame(pl.from_arrow(documents.facts)).rechunk()
    order = survivors(frame, survivor_order(config))
    ordered = frame.select("number", "generation", "id", "copies").select(pl.all().gather(order))
    is_settled = np.isin(ordered["number"].to_numpy(), settled)
    old = (ordered["generation"] < generation).to_numpy() | is_settled
    addresses, sizes = documents.addresses[order], documents.sizes[order]

    numbers = ordered["number"].to_numpy()
    by_number = np.argsort(numbers)
    at = by_number[np.searchsorted(numbers, buckets.members, sorter=by_number)]
    starts = buckets.starts
    bucket = np.repeat(np.arange(starts.size - 1), np.diff(starts))
    by_member = np.argsort(at, kind="stable")
    number = order.size
    of_document = np.append(0, np.cumsum(np.bincount(at, minlength=number)))

    keeper, container = (np.full(number, -1, dtype=np.int64) for _ in range(2))
    intersection, contained = (np.zeros(number, dtype=np.int64) for _ in range(2))
    union = np.ones(number, dtype=np.int64)
    if earlier is not None:
        mine = by_number[np.searchsorted(numbers, earlier["number"].to_numpy(), sorter=by_number)]
        for name, found in (("keeper", keeper), ("container", container)):
            other = earlier[name].to_numpy()
            there = other >= 0
            found[mine[there]] = by_number[np.searchsorted(numbers, other[there], sorter=by_number)]
        for name, found in (("intersection", intersection), ("union", union), ("contained", contained)):
            found[mine] = earlier[name].to_numpy()
    capped = np.zeros(number, dtype=np.bool_)
    counted = np.zeros(2, dtype=np.int64)
    already = np.zeros(starts.size - 1, dtype=np.int64) if already is None else already
    duplicates_kernels.decide(
        old, already, inserts, addresses, sizes, of_document, bucket[by_member], starts, config.bucket_limit,
        config.threshold, keeper, intersection, union, container, contained, capped, counted,
    )  # fmt: skip
    statistics = {
        "candidates": int(counted[duplicates_kernels.CANDIDATES]),
        "verified": int(counted[duplicates_kernels.VERIFIED]),
    }
    return _Compared(
        ordered, is_settled, old, at, keeper, intersection, union, container, contained, sizes, capped, statistics
    )


def compare_with_settled(
    documents: Members, buckets: Buckets, config: DeduplicateConfig, *, settled: Integers
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Compares documents of a block with kept ones of earlier blocks (`settled`), and not with each other.

    Returns
    -------
    earlier
        For `decide`, a row a document that is not settled: `number`, `keeper` and `container` (numbers, -1: none),
        `intersection` and `union` with the keeper, `contained`.
    statistics
        As those of `decide`.
    """
    found = _compare(documents, buckets, config, 0, settled, None, None, False)
    numbers = found.ordered["number"].to_numpy()
    earlier = pl.DataFrame(
        {
            "number": numbers,
            "keeper": np.where(found.keeper >= 0, numbers[found.keeper], -1),
            "container": np.where(found.container >= 0, numbers[found.container], -1),
            "intersection": found.intersection,
            "union": found.union,
            "contained": found.contained,
        }
    )
    return earlier.filter(pl.Series(~found.settled)), found.statistics


def decide(
    documents: Members,
    buckets: Buckets,
    config: DeduplicateConfig,
    *,
    generation: int,
    settled: Integers | None = None,
    earlier: pl.DataFrame | None = None,
    already: Integers | None = None,
    before: int | None = None,
) -> Decided:
    """Decides the documents of one generation that share buckets with each other or with kept ones of earlier ones.

    Parameters
    ----------
    documents
        Of this generation, and kept ones of earlier generations.
    buckets
        Of their bands.
    settled, earlier, already, before
        Of a group that is decided in blocks: the numbers of documents of earlier blocks (without shingles, in no
        bucket) that `earlier` names, which is what `compare_with_settled` found; how many kept ones of earlier blocks
        stand in each bucket, and how many documents of the group come before this block.

    Returns
    -------
    decided
        `DECIDED`, one row a document of this generation: `keeper`, `similarity` and `method` ("near") are null if
        it is kept; `cluster_size`, documents of this generation that it stands for, copies and itself counted, 0 if
        removed; `containment`, the largest share of its shingles that stand in one document it was compared with,
        `container`, and that one's id (null where nothing was shared); `capped`; `order`, how many documents come
        before it in π of those it is connected with through buckets.
    growth
        `number`, `generation`, `id`, `added`: how many were removed for kept ones of earlier generations or blocks.
    stays
        The numbers of the documents that stay, in π, without settled ones.
    statistics
        Whole numbers that add up over groups: `candidates`, and `verified`, those that could be similar going by how
        many shingles they have.
    """
    none = np.empty(0, dtype=np.int64)
    found = _compare(
        documents, buckets, config, generation, none if settled is None else settled, earlier, already, True
    )
    ordered, old, keeper = found.ordered, found.old, found.keeper
    number = keeper.size
    if before is None:
        parents = np.arange(number)
        duplicates_kernels.connect(found.at, buckets.first, parents)
        duplicates_kernels.flatten(parents)
        place = _count_before(parents)
    else:
        place = before + np.cumsum(~found.settled) - 1

    removed, held = keeper >= 0, found.container >= 0
    kept_by = np.where(removed, keeper, np.arange(number))
    cluster = np.bincount(kept_by[~old], weights=ordered["copies"].to_numpy()[~old], minlength=number).astype(np.int64)
    decided = pl.DataFrame(
        {
            "number": ordered["number"],
            "removed": removed,
            "keeper": ordered["id"].gather(kept_by),
            "similarity": found.intersection / found.union,
            "held": held,
            "containment": found.contained / np.maximum(1, found.sizes),
            "container": ordered["id"].gather(np.where(held, found.container, 0)),
            "capped": found.capped & ~removed,
            "cluster_size": np.where(removed, 0, cluster),
            "order": place,
        }
    )
    gone = pl.col("removed")
    decided = decided.select(
        "number",
        keeper=pl.when(gone).then("keeper"),
        similarity=pl.when(gone).then("similarity"),
        method=pl.when(gone).then(pl.lit("near")),
        cluster_size="cluster_size",
        containment=pl.when("held").then("containment"),
        container=pl.when("held").then("container"),
        capped="capped",
        order=pl.col("order").cast(pl.Int32),
    )
    grown = np.flatnonzero(old & (cluster > 0))
    growth = ordered.select("number", "generation", "id").select(pl.all().gather(grown))
    growth = growth.with_columns(added=pl.Series(cluster[grown]))
    stays = ordered["number"].to_numpy()[~removed & ~found.settled]
    decided = decided.filter(pl.Series(~old)).sort("number")
    return decided, growth, stays, found.statistics


def _count_before(labels: Integers) -> Integers:
    """For every entry how many before it have the same label."""
    by_label = np.argsort(labels, kind="stable")
    begins = np.flatnonzero(np.diff(labels[by_label], prepend=-1))
    found = np.empty(labels.size, dtype=np.int64)
    found[by_label] = np.arange(labels.size) - np.repeat(begins, np.diff(begins, append=labels.size))
    return found


def deduplicate(
    documents: pl.DataFrame,
    read_texts: ReadTexts,
    config: DeduplicateConfig,
    sketch: SketchConfig,
    *,
    shingles_in_memory: int = SHINGLES_IN_MEMORY,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Decides for every eligible document whether it is kept, all in memory but the texts.

    Parameters
    ----------
    documents
        One row an eligible document: `id` (16 bytes), `part` (integer), `row` (integer), `source`, `uri`,
        `record`, `signature` (bytes, null without words), `shingles`, and what the priority
        rules need (`bytes`, `date`, `score`). `generation` (integer, 0 if absent): later ones never change earlier
        ones.
    read_texts
        `read_texts(part, rows)` gives the texts of ascending rows. A part is asked once a group of documents that
        have to be compared, and only for those.
    sketch
        What the signatures were made with; the shingles of verification are the same n-grams.
    shingles_in_memory
        How many shingle hashes (8 bytes each) a group may hold. Changes the number of groups, never the result.

    Returns
    -------
    decisions
        A row a document, in the order of `documents`: `id`, `dropped` and the columns of `decide` (`number` is the
        row number). Under `only-report` nothing is dropped, under `drop-all` what others are removed for is too.
    statistics
        See `summary`; also `documents` and `without_words`.

    Raises
    ------
    ValueError
        If signatures do not fit the bands, or the texts read are not those that were sketched or named.
    """
    config = config.banded(sketch.permutations)
    documents = documents.with_row_index("number").with_columns(pl.col("number").cast(pl.Int64))
    if "generation" not in documents.columns:
        documents = documents.with_columns(generation=pl.lit(0, pl.Int32))
    copies = Buckets.of(id_words(documents["id"]), np.arange(len(documents)))
    compared = documents["signature"].is_not_null().to_numpy().copy()
    without_words = int((~compared).sum())
    repeated = np.zeros(len(documents), dtype=np.bool_)
    repeated[copies.members] = True
    leader, often = np.arange(len(documents)), np.ones(len(documents), dtype=np.int64)
    copied = documents.select(pl.all().gather(copies.members))
    claims = copied.select("number", "id", "generation", "source", "uri", "record", copies=1)
    claims = with_leaders(claims.hstack(survivor_priority(copied, config)), config)
    leader[claims["number"]], often[claims["number"]] = claims["leader"], claims["copies"]
    compared &= leader == np.arange(len(documents))
    documents = documents.with_columns(leader=pl.Series(leader), copies=pl.Series(often))
    wanted = np.flatnonzero(compared)
    total: dict[str, Any] = {"documents": len(documents), "without_words": without_words}
    bands = []
    if wanted.size:
        signatures = signature_matrix(documents["signature"].to_arrow(), sketch)
        hashes, rows = band_entries(signatures, wanted.astype(np.uint32), config)
        for band in range(config.bands):
            some = slice(band * wanted.size, (band + 1) * wanted.size)
            bands.append(Buckets.of((hashes[some],), rows[some].astype(np.int64)))
            add_statistics(total, {"buckets": bands[-1].histogram().tolist()})
    buckets = joined(bands).distinct_pairs()
    sizes = documents["shingles"].to_numpy().astype(np.int64)
    groups = Groups.of([copies, buckets], lambda numbers: sizes[numbers] * compared[numbers], shingles_in_memory)
    documents = documents.with_columns(compared=pl.Series(compared), repeated=pl.Series(repeated))

    frames = [pl.DataFrame(schema=DECIDED)]
    group_of = np.full(len(documents), -1, dtype=np.int32)
    group_of[groups.numbers] = groups.group
    for group in range(groups.count):
        together = groups.numbers[groups.group == group]
        inside_group = documents.select(pl.all().gather(together)).with_columns(group=pl.lit(group, pl.Int32))
        tables = []
        for (part,), of_part in inside_group.sort("part", "row").group_by("part", maintain_order=True):
            texts = read_texts(int(str(part)), of_part["row"].to_numpy())
            if len(texts) != len(of_part):
                raise ValueError(f"part {part}: asked for the texts of {len(of_part)} rows, got {len(texts)}")
            again, chosen = of_part["repeated"], of_part["compared"]
            of_copies = of_part.filter(again)
            check_ids(of_copies["id"], texts.filter(again.to_arrow()), of_copies["row"], f"part {part}")
            its = of_part.with_row_index("place").filter(chosen)
            tables.append(Members.of(members(its, texts, config, sketch, f"part {part}")))
        inside = group_of[buckets.members] == group
        theirs = Buckets(buckets.members[inside], buckets.first[inside])
        decided, _, _, statistics = decide(Members.joined(tables), theirs, config, generation=0)
        add_statistics(total, statistics)
        frames.append(decided)
    for name in ("candidates", "verified"):
        total.setdefault(name, 0)
    result = fates(documents.select("number", "id", "leader", "copies"), pl.concat(frames))
    add_statistics(total, count_fates(result, np.empty(0, dtype=np.int64)))
    return with_dropped(result.drop("leader", "copies"), config), summary(total, config)


def with_dropped(decided: pl.DataFrame, config: DeduplicateConfig) -> pl.DataFrame:
    """`dropped`, as the mode says, beside what was decided of all documents (`fates`)."""
    removed = pl.col("keeper").is_not_null()
    dropped = {
        "keep-one": removed,
        "only-report": pl.lit(False),
        "drop-all": removed | (pl.col("cluster_size") > 1),
    }[config.mode]
    return decided.with_columns(dropped=dropped)
