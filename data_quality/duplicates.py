"""Who is kept for whom: exact copies and near-duplicates, every removal verified on the text.

Documents are ordered by π = (generation, survivor priority, id, source, uri, record) and decided in that
order. Exact copies come first: of one text, the first in π stands for all. It is then compared with the
earlier *kept* documents that share an LSH band with it, and removed if and only if the Jaccard similarity of
their shingle sets reaches the threshold for one of them; its keeper is the most similar, ties by π. So every
removed document is similar to the one that stays, never through a chain; the result does not depend on the
order of rows and parts; and a new generation changes no older decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from data_quality import duplicates_kernels
from data_quality.duplicates_config import DeduplicateConfig, SketchConfig
from data_quality.identifiers import id_words
from data_quality.sketch import text_buffers, unsorted_shingle_sets

ReadTexts = Callable[[int, npt.NDArray[np.int64]], pa.LargeStringArray]
"""read_texts(part, rows): the texts of these rows (ascending) of a part."""

Integers = npt.NDArray[np.int64]
SHINGLES_IN_MEMORY = 1 << 26


def deduplicate(
    documents: pl.DataFrame,
    read_texts: ReadTexts,
    config: DeduplicateConfig,
    sketch: SketchConfig,
    *,
    shingles_in_memory: int = SHINGLES_IN_MEMORY,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Decides for every eligible document whether it is kept.

    Parameters
    ----------
    documents
        One row an eligible document: `id` (16 bytes), `part` (integer), `row` (integer), `source`, `uri`,
        `record`, `signature` (uint32 list or array, null without words), `shingles`, and what the priority
        rules need (`bytes`, `date`). `generation` (integer, 0 if absent): later ones never change earlier ones.
    read_texts
        `read_texts(part, rows)` gives the texts of ascending rows. A part is asked once for exact copies and
        once a round for candidates; only rows that have to be compared are asked for.
    sketch
        What the signatures were made with; the shingles of verification are the same n-grams.
    shingles_in_memory
        How many shingle hashes (8 bytes each) a round may hold. Changes the number of rounds, never the result.

    Returns
    -------
    decisions
        A row a document, in the order of `documents`: `id`, `dropped`, `method` ("exact", "near" or null),
        `keeper` (id of the document that stays, null if it is this one; its own id for an exact copy of a kept
        text), `similarity` (exact Jaccard, float64, 1.0 for exact copies). Under `only-report` nothing is
        dropped and the other columns say what would be.
    statistics
        `documents`, `without_words`, `exact` and `near` (removed by each method), `candidates` (pairs that
        share a bucket), `verified` (of these, pairs whose sizes allow the threshold, compared exactly),
        `capped` (kept documents that were not compared with all kept ones of a bucket), `buckets` (how many
        have 2, 3-4, 5-8 … members).

    Raises
    ------
    ValueError
        If signatures do not fit the bands, or the texts read are not those that were sketched or named.
    """
    order = _order(documents, config)
    ordered = documents.select(pl.col("id", "part", "row", "shingles").gather(order))
    first = _first_copies(ordered, read_texts)
    has_words = documents["signature"].is_not_null().to_numpy()[order]
    unique = np.flatnonzero((first == np.arange(first.size)) & has_words)

    signatures = _signatures(documents["signature"].gather(order[unique]), config)
    near = _near_duplicates(
        ordered.select(pl.all().gather(unique)), signatures, read_texts, config, sketch, shingles_in_memory
    )
    near_keeper = np.full(first.size, -1, dtype=np.int64)
    near_keeper[unique] = np.where(near.keeper >= 0, unique[near.keeper] if unique.size else -1, -1)
    similarity = np.zeros(first.size)
    similarity[unique] = near.intersection / near.union

    # A copy of a removed text shares the fate of the first copy, keeper and similarity included.
    is_near = near_keeper[first] >= 0
    is_exact = ~is_near & (first != np.arange(first.size))
    keeper = np.where(is_near, near_keeper[first], first)
    similarity = np.where(is_near, similarity[first], 1.0)
    decided = pl.DataFrame(
        {
            "id": ordered["id"],
            "removed": is_near | is_exact,
            "method": pl.Series(np.where(is_near, "near", "exact"), dtype=pl.String),
            "keeper": ordered["id"].gather(keeper),
            "similarity": similarity,
        }
    )
    removed = pl.col("removed")
    decided = decided.select(
        "id",
        dropped=removed & pl.lit(config.mode != "only-report"),
        method=pl.when(removed).then("method"),
        keeper=pl.when(removed).then("keeper"),
        similarity=pl.when(removed).then("similarity"),
    )
    statistics = {
        "documents": len(documents),
        "without_words": int(documents["signature"].null_count()),
        "exact": int(is_exact.sum()),
        "near": int(is_near.sum()),
        **near.statistics,
    }
    back = np.empty_like(order)
    back[order] = np.arange(order.size)
    return decided.select(pl.all().gather(back)), statistics


def survivor_priority(documents: pl.DataFrame, config: DeduplicateConfig) -> pl.DataFrame:
    """The priority tuple of every document as int64 columns `priority_0`, `priority_1` …; the smallest stays.

    Sources that are not listed come after all that are, unknown lengths and dates after known ones. Dates are
    ISO 8601 and compared to the second, without regard to time zones.
    """
    last = pl.lit(np.iinfo(np.int64).max)
    digits = pl.col("date").cast(pl.String).str.replace_all(r"\D", "").str.slice(0, 14)
    moment = digits.str.pad_end(14, "0").cast(pl.Int64, strict=False)
    place = {source: number for number, source in enumerate(config.source_order)}
    rules = {
        "source-order": pl.col("source").replace_strict(place, default=len(place), return_dtype=pl.Int64),
        "longest": -pl.col("bytes").cast(pl.Int64),
        "shortest": pl.col("bytes").cast(pl.Int64),
        "newest": pl.when(digits.str.len_bytes() >= 4).then(-moment),
        "oldest": pl.when(digits.str.len_bytes() >= 4).then(moment),
    }
    return documents.select(
        rules[rule].fill_null(last).alias(f"priority_{number}") for number, rule in enumerate(config.priority)
    )


def _order(documents: pl.DataFrame, config: DeduplicateConfig) -> Integers:
    """The row numbers of `documents` in π."""
    generation = pl.col("generation") if "generation" in documents.columns else pl.lit(0, dtype=pl.Int64)
    priority = survivor_priority(documents, config)
    keys = documents.select(generation.alias("generation"), "id", "source", "uri", "record").hstack(priority)
    by = ["generation", *priority.columns, "id", "source", "uri", "record"]
    return keys.with_row_index("number").sort(by)["number"].to_numpy().astype(np.int64)


def _first_copies(ordered: pl.DataFrame, read_texts: ReadTexts) -> Integers:
    """For every document the number of the first one of the same id, after comparing their texts."""
    high, low = id_words(ordered["id"])
    by_id = np.lexsort((low, high))  # stable: π within an id
    starts = np.ones(by_id.size, dtype=bool)
    starts[1:] = (high[by_id[1:]] != high[by_id[:-1]]) | (low[by_id[1:]] != low[by_id[:-1]])
    group = np.empty(by_id.size, dtype=np.int64)
    group[by_id] = np.cumsum(starts) - 1
    first = by_id[starts][group]
    sizes = np.bincount(group, minlength=1)
    _compare_copies(ordered, np.flatnonzero(sizes[group] > 1), group, read_texts)
    return first


def _compare_copies(ordered: pl.DataFrame, copies: Integers, group: Integers, read_texts: ReadTexts) -> None:
    """Checks that documents of one id have one text; holds each repeated text once.

    Ids are cryptographic digests of the texts, so a difference means damaged parts, not a collision.
    """
    known = np.empty(1 << 16, dtype=np.uint8)
    used = 0
    starts = np.full(int(group.max(initial=-1)) + 1, -1, dtype=np.int64)
    ends = np.zeros_like(starts)
    for part, numbers, rows in _by_part(ordered, copies):
        data, offsets = text_buffers(_checked_texts(read_texts, part, rows))
        groups, places = np.unique(group[numbers], return_index=True)
        for new, place in zip(groups[starts[groups] < 0], places[starts[groups] < 0], strict=True):
            text = data[offsets[place] : offsets[place + 1]]
            if used + text.size > known.size:
                known = np.resize(known, 2 * (used + text.size))
            known[used : used + text.size] = text
            starts[new], ends[new] = used, used + text.size
            used += text.size
        wrong = duplicates_kernels.texts_differ(data, offsets, known, starts[group[numbers]], ends[group[numbers]])
        if wrong >= 0:
            name = ordered["id"][int(numbers[wrong])].hex()
            raise ValueError(
                f"part {part}, row {rows[wrong]}: the text differs from another one of the same id {name}, "
                "which is a digest of the text: the document parts are damaged, check them with `gristmill verify`"
            )


@dataclass(frozen=True)
class _Near:
    keeper: Integers
    intersection: Integers
    union: Integers
    statistics: dict[str, Any]


def _near_duplicates(
    unique: pl.DataFrame,
    signatures: npt.NDArray[np.uint32],
    read_texts: ReadTexts,
    config: DeduplicateConfig,
    sketch: SketchConfig,
    budget: int,
) -> _Near:
    """Decides documents of different texts, given in π; the numbers of the result are rows of `unique`."""
    number = len(unique)
    keeper = np.full(number, -1, dtype=np.int64)
    intersection = np.zeros(number, dtype=np.int64)
    union = np.ones(number, dtype=np.int64)
    statistics = np.zeros(3, dtype=np.int64)
    buckets = _Buckets.of(signatures, config)
    if buckets.members.size:
        document_starts, document_buckets = buckets.by_document(number)
        kept_in_bucket = np.empty_like(buckets.members)
        kept_count = np.zeros(buckets.starts.size - 1, dtype=np.int64)
        seen = np.full(number, -1, dtype=np.int64)
        position = np.full(number, -1, dtype=np.int64)
        sizes = unique["shingles"].to_numpy().astype(np.int64)
        for together in buckets.rounds(sizes, budget):
            shingles, offsets = _shingles(unique, together, sizes, position, read_texts, sketch)
            duplicates_kernels.decide(
                together,
                position,
                shingles,
                offsets,
                document_starts,
                document_buckets,
                buckets.starts,
                kept_in_bucket,
                kept_count,
                config.bucket_limit,
                config.threshold,
                seen,
                keeper,
                intersection,
                union,
                statistics,
            )
    facts = {
        "candidates": int(statistics[duplicates_kernels.CANDIDATES]),
        "verified": int(statistics[duplicates_kernels.VERIFIED]),
        "capped": int(statistics[duplicates_kernels.CAPPED]),
        "buckets": buckets.histogram(),
    }
    return _Near(keeper, intersection, union, facts)


@dataclass(frozen=True)
class _Buckets:
    """Documents that agree in a band: bucket b is members[starts[b]:starts[b + 1]], two at least, in no order.

    The order in a bucket plays no part, since `decide` goes through the documents in π and notes whom it kept.
    """

    members: Integers
    starts: Integers

    @classmethod
    def of(cls, signatures: npt.NDArray[np.uint32], config: DeduplicateConfig) -> _Buckets:
        members = [np.empty(0, dtype=np.int64)]
        sizes = [np.empty(0, dtype=np.int64)]
        keys = np.empty(signatures.shape[0], dtype=np.uint64)
        for band in range(config.bands if keys.size else 0):
            duplicates_kernels.band_keys(signatures, band, config.rows, keys)
            by_key = np.argsort(keys)
            changes = np.flatnonzero(np.diff(keys[by_key], prepend=~keys[by_key[:1]]))
            runs = np.diff(changes, append=keys.size)
            several = np.repeat(runs > 1, runs)
            members.append(by_key[several])
            sizes.append(runs[runs > 1])
        starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(sizes))])
        return cls(np.concatenate(members), starts)

    def by_document(self, number: int) -> tuple[Integers, Integers]:
        """starts, buckets: document d stands in buckets[starts[d]:starts[d + 1]]."""
        bucket = np.repeat(np.arange(self.starts.size - 1), np.diff(self.starts))
        by_member = np.argsort(self.members, kind="stable")
        counts = np.bincount(self.members, minlength=number)
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)]), bucket[by_member]

    def rounds(self, sizes: Integers, budget: int) -> list[Integers]:
        """The documents of all buckets in groups that no bucket crosses, each of about `budget` shingles at most.

        Connected components are put together until the budget is full; a larger one is a round of its own.
        """
        inside = np.ones(self.members.size, dtype=bool)
        inside[self.starts[:-1]] = False
        later = np.flatnonzero(inside)
        edges = (np.ones(later.size, dtype=np.int8), (self.members[later - 1], self.members[later]))
        _, component = connected_components(coo_matrix(edges, shape=(sizes.size, sizes.size)), directed=False)
        involved = np.unique(self.members)
        involved = involved[np.argsort(component[involved], kind="stable")]
        weights = np.bincount(component[involved], weights=sizes[involved])
        weights = weights[np.unique(component[involved])].astype(np.int64)
        lengths = np.unique(component[involved], return_counts=True)[1]
        ends = np.cumsum(lengths)
        cuts, held = [], 0
        for weight, end, length in zip(weights.tolist(), ends.tolist(), lengths.tolist(), strict=True):
            if held and held + weight > budget:
                cuts.append(end - length)
                held = 0
            held += weight
        return [np.sort(together) for together in np.split(involved, cuts)]

    def histogram(self) -> dict[str, int]:
        """How many buckets have 2, 3-4, 5-8, 9-16 … members; documents alone in a bucket are not counted."""
        powers, counts = np.unique(np.ceil(np.log2(np.diff(self.starts))).astype(int), return_counts=True)
        names = ["2" if power == 1 else f"{2 ** (power - 1) + 1}-{2**power}" for power in powers.tolist()]
        return dict(zip(names, counts.tolist(), strict=True))


def _signatures(signatures: pl.Series, config: DeduplicateConfig) -> npt.NDArray[np.uint32]:
    """A column of signatures without nulls as uint32[documents, permutations]."""
    needed = config.bands * config.rows
    number = len(signatures)
    if not number:
        return np.empty((0, needed), dtype=np.uint32)
    flat = signatures.explode().to_numpy().astype(np.uint32, copy=False)
    width, rest = divmod(flat.size, number)
    if rest or width < needed:
        raise ValueError(
            f"signatures have {width} numbers, {config.bands} bands of {config.rows} rows need {needed}: "
            "raise sketch.permutations or lower deduplicate.bands or deduplicate.rows"
        )
    return np.ascontiguousarray(flat.reshape(number, width))


def _shingles(
    unique: pl.DataFrame,
    together: Integers,
    sizes: Integers,
    position: Integers,
    read_texts: ReadTexts,
    sketch: SketchConfig,
) -> tuple[npt.NDArray[np.uint64], Integers]:
    """The shingle sets of the documents `together`; writes where each one's set stands to `position`."""
    values, counts, done = [], [np.zeros(1, dtype=np.int64)], 0
    for part, numbers, rows in _by_part(unique, together):
        found, offsets = unsorted_shingle_sets(_checked_texts(read_texts, part, rows), sketch)
        different = np.flatnonzero(np.diff(offsets) != sizes[numbers])
        if different.size:
            row = rows[different[0]]
            raise ValueError(
                f"part {part}, row {row}: the text has {np.diff(offsets)[different[0]]} shingles, its signature "
                f"says {sizes[numbers[different[0]]]}: signatures and documents are not of the same parts"
            )
        values.append(found)
        counts.append(np.diff(offsets))
        position[numbers] = np.arange(done, done + numbers.size)
        done += numbers.size
    return np.concatenate(values), np.cumsum(np.concatenate(counts))


def _by_part(documents: pl.DataFrame, numbers: Integers) -> list[tuple[int, Integers, Integers]]:
    """(part, numbers, rows) of the documents `numbers`, a part each, ordered by part and row."""
    if not numbers.size:
        return []
    parts = documents["part"].to_numpy()[numbers].astype(np.int64)
    rows = documents["row"].to_numpy()[numbers].astype(np.int64)
    by_place = np.lexsort((rows, parts))
    cuts = np.flatnonzero(np.diff(parts[by_place])) + 1
    return [(int(parts[some[0]]), numbers[some], rows[some]) for some in np.split(by_place, cuts)]


def _checked_texts(read_texts: ReadTexts, part: int, rows: Integers) -> pa.LargeStringArray:
    texts = read_texts(part, rows)
    if len(texts) != rows.size:
        raise ValueError(f"part {part}: asked for the texts of {rows.size} rows, got {len(texts)}")
    return texts
