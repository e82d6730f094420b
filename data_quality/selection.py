"""What is taken of the kept documents: held-out documents, caps, repeats. Drops by count, never by content.

All choices are made by hashes of (seed, id), so that they do not depend on the order of rows or parts, and a
corpus that grows keeps most of its earlier choices.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from data_quality.duplicates_config import SelectConfig
from data_quality.identifiers import seeded_hash

TRAIN, VALIDATION = "train", "validation"
SOURCE_CAP, DOCUMENT_CAP, BYTE_CAP = 1, 2, 3
CAP_NAMES = {SOURCE_CAP: "source-cap", DOCUMENT_CAP: "document-cap", BYTE_CAP: "byte-cap"}


def select(documents: pl.DataFrame, config: SelectConfig) -> pl.DataFrame:
    """Split, repeats and caps of every document.

    Caps take kept documents in the order of a hash: first at most `source_documents` of each source, of these
    at most `max_documents`, of these the first whose sizes add up to at most `max_bytes` (a document larger
    than that is passed over). A document is held out if the hash of its keeper's id (of its own where it has
    none) lies in the lowest `validation_share`, so similar documents of one keeper never straddle the splits;
    of more than `validation_documents` held out, the groups of the lowest hashes stay so, the rest trains.

    Parameters
    ----------
    documents
        `id` (16 bytes), `source`, `bytes` (of the text), `kept` (boolean: neither filtered nor a duplicate),
        `keeper` (16 bytes or null). `uri` and `record`, if there, order documents of one id and source.

    Returns
    -------
    pl.DataFrame
        A row a document, in the same order: `split` ("train", "validation"; null if not taken), `repeats`
        (int32; 1 for validation, null if not taken), `dropped_by` ("source-cap", "document-cap", "byte-cap";
        null if taken or not kept before).

    Raises
    ------
    ValueError
        If a cap is negative or a number of repeats is below 1.
    """
    _check(config)
    taken = documents["kept"].to_numpy().astype(bool)  # a copy: the caps change it
    cap = np.zeros(len(documents), dtype=np.int8)
    order = _order(documents, config.seed)

    def drop(rows: npt.NDArray[np.int64], by: int) -> None:
        taken[rows] = False
        cap[rows] = by

    for source, most in sorted(config.source_documents.items()):
        of_source = (documents["source"] == source).to_numpy()
        drop(order[(taken & of_source)[order]][most:], SOURCE_CAP)
    if config.max_documents is not None:
        drop(order[taken[order]][config.max_documents :], DOCUMENT_CAP)
    if config.max_bytes is not None:
        sizes = documents["bytes"].to_numpy().astype(np.int64)
        drop(np.flatnonzero(taken & (sizes > config.max_bytes)), BYTE_CAP)
        left = order[taken[order]]
        drop(left[np.cumsum(sizes[left]) > config.max_bytes], BYTE_CAP)

    held_out = _held_out(documents, taken, config)
    repeats = pl.col("source").replace_strict(config.repeats, default=1, return_dtype=pl.Int32)
    return (
        documents.select("source")
        .with_columns(
            taken=pl.Series(taken, dtype=pl.Boolean),
            held_out=pl.Series(held_out, dtype=pl.Boolean),
            cap=pl.Series(cap),
        )
        .select(
            split=pl.when(pl.col("taken")).then(
                pl.when(pl.col("held_out")).then(pl.lit(VALIDATION)).otherwise(pl.lit(TRAIN))
            ),
            repeats=pl.when(pl.col("taken")).then(
                pl.when(pl.col("held_out")).then(pl.lit(1, dtype=pl.Int32)).otherwise(repeats)
            ),
            dropped_by=pl.col("cap").replace_strict(CAP_NAMES, default=None, return_dtype=pl.String),
        )
    )


def _order(documents: pl.DataFrame, seed: int) -> npt.NDArray[np.int64]:
    """Row numbers in the order in which the caps take documents."""
    ties = [name for name in ("id", "source", "uri", "record") if name in documents.columns]
    keys = documents.select(ties).with_columns(hash=pl.Series(seeded_hash(documents["id"], seed, "cap")))
    return keys.with_row_index("number").sort(["hash", *ties])["number"].to_numpy().astype(np.int64)


def _held_out(documents: pl.DataFrame, taken: npt.NDArray[np.bool_], config: SelectConfig) -> npt.NDArray[np.bool_]:
    """Which of the taken documents are validation documents."""
    group = seeded_hash(documents.select(pl.coalesce("keeper", "id"))["keeper"], config.seed, "split")
    # 53 bits: a share is a float, and a hash below it is compared without rounding.
    held_out = taken & ((group >> np.uint64(11)) < config.validation_share * float(1 << 53))
    if config.validation_documents is None:
        return held_out
    hashes, counts = np.unique(group[held_out], return_counts=True)
    fitting = hashes[np.cumsum(counts) <= config.validation_documents]
    return held_out & np.isin(group, fitting)


def _check(config: SelectConfig) -> None:
    """The bounds of the values of dictionaries, which field metadata cannot say."""
    for name, values, least in (
        ("source_documents", config.source_documents, 0),
        ("repeats", config.repeats, 1),
    ):
        for source, value in values.items():
            if value < least:
                raise ValueError(f"select.{name}.{source} is {value}, at least {least} is allowed")
