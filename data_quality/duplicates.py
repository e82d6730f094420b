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

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from data_quality import duplicates_kernels
from data_quality.bands import Buckets, Groups, band_entries, joined
from data_quality.duplicates_config import DeduplicateConfig, SketchConfig
from data_quality.duplicates_statistics import add_statistics, count_fates, summary
from data_quality.identifiers import id_bytes, id_words
from data_quality.sketch import signature_matrix, text_buffers, unsorted_shingle_sets
from storage.schemas import ID_BYTES

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


def survivor_priority(documents: pl.DataFrame, config: DeduplicateConfig) -> pl.DataFrame:
    """The survivor priority as columns of int64, one a rule of `config.priority`; the smallest stays.

    Sources that are not listed come after all that are, unknown scores, lengths and dates after known ones. Dates
    are ISO 8601 and compared to the second, without regard to time zones.
    """
    last = np.iinfo(np.int64).max
    columns = []
    for number, rule in enumerate(config.priority):
        if rule == "source-order":
            place = {source: at for at, source in enumerate(config.source_order)}
            values = documents["source"].replace_strict(place, default=len(place), return_dtype=pl.Int64)
        elif rule in ("longest", "shortest"):
            values = documents["bytes"].cast(pl.Int64)
        elif rule in ("newest", "oldest"):
            digits = documents["date"].cast(pl.String).str.replace_all(r"\D", "").str.slice(0, 14)
            values = digits.str.pad_end(14, "0").cast(pl.Int64, strict=False)
            values = values.set(digits.fill_null("").str.len_bytes() < 4, None)
        else:
            values = pl.Series(_sortable(documents["score"])).set(
                ~documents["score"].is_finite().fill_null(False), None
            )
        sign = -1 if rule in ("longest", "newest", "highest-score") else 1
        columns.append((sign * values).fill_null(last).alias(f"priority_{number}"))
    return pl.DataFrame(columns)


def survivor_order(config: DeduplicateConfig) -> list[str]:
    """The columns that π goes by among documents of different texts."""
    return ["generation", *(f"priority_{number}" for number in range(len(config.priority))), "id"]


def _order(documents: pl.DataFrame, by: list[str]) -> Integers:
    return documents.select(by).with_row_index("at").sort(by)["at"].to_numpy().astype(np.int64)


def _sortable(scores: pl.Series) -> Integers:
    """Integers in the order of floats: the bits of an IEEE 754 number sort as its magnitude does."""
    bits = (scores.fill_null(0.0).cast(pl.Float64).to_numpy() + 0.0).view(np.int64)  # -0.0 is 0.0
    return np.where(bits < 0, -(bits & np.iinfo(np.int64).max), bits)


def member_schema(config: DeduplicateConfig) -> pa.Schema:
    """Documents to be decided together, of each text one: number, π, how often the text stands, and its shingles."""
    return pa.schema(
        [
            pa.field("group", pa.int32()),
            pa.field("number", pa.int64()),
            pa.field("generation", pa.int32()),
            *(pa.field(f"priority_{number}", pa.int64()) for number in range(len(config.priority))),
            pa.field("id", pa.binary(ID_BYTES)),
            pa.field("copies", pa.int64()),
            pa.field("shingles", pa.large_list(pa.field("item", pa.uint64(), nullable=False))),
        ]
    )


def members(
    documents: pl.DataFrame, texts: pa.LargeStringArray, config: DeduplicateConfig, sketch: SketchConfig, where: str
) -> pa.Table:
    """The documents with what decides about them (`member_schema`), sorted by group and π.

    Parameters
    ----------
    documents
        `group`, `number`, `generation`, `id`, `copies`, `row`, `shingles` (how many), `place` (of its text among
        `texts`), and what the priority rules need.
    where
        Where the texts come from, for messages.

    Raises
    ------
    ValueError
        If a text has another number of shingles than its signature says.
    """
    documents = documents.hstack(survivor_priority(documents, config))
    order = _order(documents, ["group", *survivor_order(config)])
    documents = documents.select(pl.all().gather(order))
    values, offsets = unsorted_shingle_sets(
        texts, sketch, documents["place"].to_numpy(), int(documents["shingles"].sum())
    )
    counts = np.diff(offsets)
    wrong = np.flatnonzero(counts != documents["shingles"].to_numpy())
    if wrong.size:
        at = int(wrong[0])
        raise ValueError(
            f"{where}, row {documents['row'][at]}: the text has {counts[at]} shingles, its signature says "
            f"{documents['shingles'][at]}: signatures and documents are not of the same parts"
        )
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
    schema = member_schema(config)
    table = documents.select(schema.names[:-1]).to_arrow().append_column("shingles", lists)
    return pa.Table.from_arrays([table.column(f.name).cast(f.type) for f in schema], schema=schema)


def check_ids(ids: pl.Series, texts: pa.LargeStringArray, rows: pl.Series, where: str) -> None:
    """Raises ValueError unless every id is the digest of its text: texts of one id are then equal byte for byte."""
    data, offsets = text_buffers(texts)
    view, digest = data.data, partial(hashlib.blake2b, digest_size=ID_BYTES)
    digests = b"".join([digest(view[start:end]).digest() for start, end in pairwise(offsets.tolist())])
    said = np.frombuffer(digests, dtype=np.uint8).reshape(-1, ID_BYTES)
    wrong = np.flatnonzero((said != id_bytes(ids)).any(axis=1))
    if wrong.size:
        at = int(wrong[0])
        raise ValueError(
            f"{where}, row {rows[at]}: the text is not that of its id {ids[at].hex()}, which is a digest of the text: "
            "the document parts are damaged, check them with `gristmill verify`"
        )


def with_leaders(claims: pl.DataFrame, config: DeduplicateConfig) -> pl.DataFrame:
    """Of every text the number of the document that is first in π (`leader`), and how often it stands (`copies`).

    Parameters
    ----------
    claims
        `number`, `id`, `generation`, `survivor_priority`, `source`, `uri`, `record`, and `copies`, for how many
        documents of its text a row stands. They are given sorted by text and π.
    """
    by = [*survivor_order(config)[:-1], "source", "uri", "record"]
    return claims.sort("id", *by).with_columns(
        leader=pl.col("number").first().over("id"), copies=pl.col("copies").sum().over("id")
    )


def fates(documents: pl.DataFrame, decided: pl.DataFrame) -> pl.DataFrame:
    """`DECIDED` for all documents: `documents` with what was decided of their leaders.

    A copy of a removed text shares the fate of the leader, keeper and similarity included; copies of a kept one are
    removed for it. What is not in `decided` shares no bucket.

    Parameters
    ----------
    documents
        `number`, `id`, `leader`, and `copies`, how often the text stands in all.
    decided
        `DECIDED` by `number`.
    """
    joined = documents.join(decided, left_on="leader", right_on="number", how="left", maintain_order="left")
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
    documents: pa.Table,
    buckets: Buckets,
    config: DeduplicateConfig,
    generation: int,
    scratch: Path | None,
    settled: Integers,
    earlier: pl.DataFrame | None,
    already: Integers | None,
    inserts: bool,
) -> _Compared:
    frame = pl.DataFrame(pl.from_arrow(documents.drop_columns(["shingles"]))).rechunk()
    order = _order(frame, survivor_order(config))
    ordered = frame.select("number", "generation", "id", "copies").select(pl.all().gather(order))
    is_settled = np.isin(ordered["number"].to_numpy(), settled)
    old = (ordered["generation"] < generation).to_numpy() | is_settled
    values, offsets = _shingles(documents.column("shingles"), scratch)

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
        old, already, inserts, order, values, offsets, of_document, bucket[by_member], starts, config.bucket_limit,
        config.threshold, keeper, intersection, union, container, contained, capped, counted,
    )  # fmt: skip
    statistics = {
        "candidates": int(counted[duplicates_kernels.CANDIDATES]),
        "verified": int(counted[duplicates_kernels.VERIFIED]),
    }
    sizes = np.diff(offsets)[order]
    return _Compared(
        ordered, is_settled, old, at, keeper, intersection, union, container, contained, sizes, capped, statistics
    )


def compare_with_settled(
    documents: pa.Table, buckets: Buckets, config: DeduplicateConfig, *, settled: Integers, scratch: Path | None = None
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
    found = _compare(documents, buckets, config, 0, scratch, settled, None, None, False)
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
    documents: pa.Table,
    buckets: Buckets,
    config: DeduplicateConfig,
    *,
    generation: int,
    scratch: Path | None = None,
    settled: Integers | None = None,
    earlier: pl.DataFrame | None = None,
    already: Integers | None = None,
    before: int | None = None,
) -> Decided:
    """Decides the documents of one generation that share buckets with each other or with kept ones of earlier ones.

    Parameters
    ----------
    documents
        `member_schema`: documents of this generation, and kept ones of earlier generations.
    buckets
        Of their bands.
    scratch
        A file for the shingles, if they are not to be held in memory.
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
        documents, buckets, config, generation, scratch, none if settled is None else settled, earlier, already, True
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


def _shingles(column: pa.ChunkedArray, scratch: Path | None) -> tuple[npt.NDArray[np.uint64], Integers]:
    """All shingles and where each document's begin: in memory, or in a file the system reads as it is asked for."""
    chunks = [(chunk.flatten().to_numpy(), np.diff(chunk.offsets.to_numpy())) for chunk in column.chunks]
    offsets = np.append(0, np.cumsum(np.concatenate([np.empty(0, dtype=np.int64), *(sizes for _, sizes in chunks)])))
    if scratch is None or not offsets[-1]:
        values = np.empty(offsets[-1], dtype=np.uint64)
    else:
        values = np.memmap(scratch, dtype=np.uint64, mode="w+", shape=(int(offsets[-1]),))
    done = 0
    for found, _ in chunks:
        values[done : done + found.size] = found
        done += found.size
    return np.asarray(values), offsets.astype(np.int64)


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
    signatures = documents["signature"].gather(wanted).to_arrow()
    total: dict[str, Any] = {"documents": len(documents), "without_words": without_words}
    bands = []
    if wanted.size:
        hashes, rows = band_entries(signature_matrix(signatures, sketch), wanted.astype(np.uint32), config)
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
            tables.append(members(its, texts, config, sketch, f"part {part}"))
        inside = group_of[buckets.members] == group
        theirs = Buckets(buckets.members[inside], buckets.first[inside])
        decided, _, _, statistics = decide(pa.concat_tables(tables), theirs, config, generation=0)
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
