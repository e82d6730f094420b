"""Documents that have to be decided together: what π goes by, and the shingles that their similarity is counted on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from data_quality import passage_kernels
from data_quality.bands import runs
from data_quality.duplicates_config import DeduplicateConfig, SketchConfig
from data_quality.identifiers import id_bytes, id_words
from data_quality.sketch import text_buffers, unsorted_shingle_sets
from storage.schemas import ID_BYTES

Integers = npt.NDArray[np.int64]
DATE = (
    r"^\s*(\d{4}(?:[-/.]?(?:0[1-9]|1[0-2])(?:[-/.]?(?:0[1-9]|[12]\d|3[01])"
    r"(?:[T ]?\d{2}(?::?\d{2}(?::?\d{2})?)?)?)?)?)(?:\D|$)"
)
"""A year, or more of a date and a time, from the beginning on."""


def survivor_priority(documents: pl.DataFrame, config: DeduplicateConfig) -> pl.DataFrame:
    """The survivor priority as columns of int64, one a rule of `config.priority`; the smallest stays.

    Sources that are not listed come after all that are, unknown scores, lengths and dates after known ones. Dates
    are ISO 8601, from the year alone to the second, without regard to time zones; any other is unknown.
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
            digits = documents["date"].cast(pl.String).str.extract(DATE, 1).str.replace_all(r"\D", "")
            values = digits.str.pad_end(14, "0").cast(pl.Int64)
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


def survivors(documents: pl.DataFrame, by: list[str]) -> Integers:
    """The rows of documents in the order of some columns."""
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
    order = survivors(documents, ["group", *survivor_order(config)])
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


@dataclass(frozen=True)
class Members:
    """Documents and where their shingles lie in memory: they are never copied, so mapped files stay on the disk.

    Attributes
    ----------
    facts
        `member_schema` without the shingles.
    addresses, sizes
        Where the shingles (uint64) of each document begin, and how many they are.
    tables
        What the memory belongs to.
    """

    facts: pa.Table
    addresses: Integers
    sizes: Integers
    tables: tuple[pa.Table, ...]

    @classmethod
    def of(cls, table: pa.Table) -> Members:
        """All documents of a table (`member_schema`)."""
        column = table.column("shingles")
        addresses, sizes = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for chunk in column.chunks:
            offsets = chunk.offsets.to_numpy()
            begin = chunk.values.buffers()[1].address + 8 * chunk.values.offset if len(chunk.values) else 0
            addresses.append(begin + 8 * offsets[:-1])
            sizes.append(np.diff(offsets))
        facts = table.drop_columns(["shingles"])
        return cls(facts, np.concatenate(addresses), np.concatenate(sizes), (table,))

    @classmethod
    def joined(cls, several: Sequence[Members]) -> Members:
        """Those of all (one at least), one after the other."""
        return cls(
            pa.concat_tables([some.facts for some in several]),
            np.concatenate([some.addresses for some in several]),
            np.concatenate([some.sizes for some in several]),
            tuple(table for some in several for table in some.tables),
        )

    def __len__(self) -> int:
        return int(self.facts.num_rows)

    def some(self, rows: Integers) -> Members:
        """Those of these rows."""
        return replace(
            self, facts=self.facts.take(pa.array(rows)), addresses=self.addresses[rows], sizes=self.sizes[rows]
        )

    def without_shingles(self) -> Members:
        """The same documents with no shingles: they are named, and compared with none."""
        return replace(self, sizes=np.zeros_like(self.sizes), tables=())


def check_ids(ids: pl.Series, texts: pa.LargeStringArray, rows: pl.Series, where: str) -> None:
    """Raises ValueError unless every id is the digest of its text: texts of one id are then equal byte for byte.

    Of every id one text is hashed, and the others are compared with it.
    """
    data, offsets = text_buffers(texts)
    said = id_bytes(ids)
    order, begins = runs(id_words(ids))
    one, others = order[begins], np.delete(order, begins)
    hashed = np.repeat(one, np.diff(begins, append=order.size) - 1)
    view, digest = data.data, partial(hashlib.blake2b, digest_size=ID_BYTES)
    bounds = zip(offsets[one].tolist(), offsets[one + 1].tolist(), strict=True)
    digests = b"".join([digest(view[start:end]).digest() for start, end in bounds])
    wrong = one[(np.frombuffer(digests, dtype=np.uint8).reshape(-1, ID_BYTES) != said[one]).any(axis=1)]
    same = np.empty(others.size, dtype=np.bool_)
    passage_kernels.same_bytes(
        data, offsets[others], offsets[others + 1], data, offsets[hashed], offsets[hashed + 1], same
    )
    wrong = np.append(wrong, others[~same])
    if wrong.size:
        at = int(wrong.min())
        raise ValueError(
            f"{where}, row {rows[at]}: the text is not that of its id {ids[at].hex()}, which is a digest of the text: "
            "the document parts are damaged, check them with `gristmill verify`"
        )
