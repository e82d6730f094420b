"""Selection adds up, keeps its caps exactly, never splits similar documents, and depends on ids only."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_quality.duplicates_config import SelectConfig
from data_quality.selection import select

SCHEMA = {
    "id": pl.Binary,
    "source": pl.String,
    "language": pl.String,
    "bytes": pl.Int64,
    "kept": pl.Boolean,
    "keeper": pl.Binary,
}


def identifier(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def corpus(number: int) -> pl.DataFrame:
    rows = [(identifier(i), "abc"[i % 3], "en", 100 + i % 50, True, None) for i in range(number)]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


@st.composite
def corpora(draw: st.DrawFn) -> pl.DataFrame:
    number = draw(st.integers(0, 40))
    rows = []
    for i in range(number):
        keeper = draw(st.one_of(st.none(), st.integers(0, 5)))
        source, size, kept = draw(st.sampled_from("abc")), draw(st.integers(0, 50)), draw(st.booleans())
        rows.append((identifier(i), source, "en", size, kept, None if keeper is None else identifier(keeper)))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


counts = st.one_of(st.none(), st.integers(0, 40))
configs = st.builds(
    SelectConfig,
    validation_share=st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    validation_documents=st.one_of(st.none(), st.integers(0, 10)),
    max_documents=counts,
    max_bytes=st.one_of(st.none(), st.integers(0, 600)),
    source_documents=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 10)),
    repeats=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 4)),
    seed=st.integers(0, 5),
)


@settings(deadline=None, max_examples=200)
@given(documents=corpora(), config=configs, shuffle=st.integers(0, 99))
def test_laws_of_selection(documents: pl.DataFrame, config: SelectConfig, shuffle: int) -> None:
    result = select(documents, config)
    assert result.schema == {"split": pl.String, "repeats": pl.Int32, "dropped_by": pl.String}
    whole = documents.hstack(result)
    taken = whole.filter(pl.col("split").is_not_null())

    # Counts add up: what was kept is taken or dropped by one cap, what was not kept is neither.
    assert len(taken) + whole["dropped_by"].count() == documents["kept"].sum()
    assert taken["kept"].all()
    assert taken["dropped_by"].null_count() == len(taken)
    assert whole["repeats"].is_null().equals(whole["split"].is_null())

    # Caps hold, and are used up before anything is dropped.
    by_source = dict(taken.group_by("source").len().iter_rows())
    for source, most in config.source_documents.items():
        kept = documents.filter(pl.col("kept") & (pl.col("source") == source))
        dropped = whole.filter((pl.col("source") == source) & (pl.col("dropped_by") == "source-cap"))
        assert by_source.get(source, 0) <= most
        assert len(dropped) == max(0, len(kept) - most)
    after_sources = documents["kept"].sum() - (whole["dropped_by"] == "source-cap").sum()
    if config.max_documents is not None:
        assert (whole["dropped_by"] == "document-cap").sum() == max(0, after_sources - config.max_documents)
    if config.max_bytes is not None:
        assert taken["bytes"].sum() <= config.max_bytes
        if (whole["dropped_by"] == "byte-cap").any():
            largest = max(whole.filter(pl.col("dropped_by") == "byte-cap")["bytes"])
            assert taken["bytes"].sum() + largest > config.max_bytes
    assert set(whole["dropped_by"].drop_nulls()) <= {"source-cap", "document-cap", "byte-cap"}

    # Documents of one keeper never straddle the splits, and the held-out stay within their number.
    groups = taken.group_by(pl.coalesce("keeper", "id").alias("group")).agg(pl.col("split").n_unique())
    assert (groups["split"] == 1).all()
    held_out = taken.filter(pl.col("split") == "validation")
    if config.validation_documents is not None:
        assert len(held_out) <= config.validation_documents
    if config.validation_share == 0:
        assert len(held_out) == 0

    # Repeats are the source's, once for validation.
    for source, split, repeats in taken.select("source", "split", "repeats").iter_rows():
        assert repeats == (1 if split == "validation" else config.repeats.get(source, 1))

    # The order of rows plays no part.
    moved = documents.sample(fraction=1, shuffle=True, seed=shuffle)
    assert moved.hstack(select(moved, config)).sort("id").equals(whole.sort("id"))


def test_shares_and_seeds_are_as_asked() -> None:
    documents = corpus(20_000)
    one = select(documents, SelectConfig(validation_share=0.1, seed=1))
    other = select(documents, SelectConfig(validation_share=0.1, seed=2))
    first, second = one["split"] == "validation", other["split"] == "validation"
    assert abs(first.sum() - 2_000) < 4 * (20_000 * 0.1 * 0.9) ** 0.5
    assert abs((first & second).sum() - 200) < 60
    capped = select(documents, SelectConfig(max_documents=10_000, validation_share=0.1, seed=1))
    assert abs((capped["split"] == "validation").sum() - 1_000) < 130  # the cap and the split are independent


def test_a_growing_corpus_keeps_its_splits_and_most_of_its_choices() -> None:
    config = SelectConfig(validation_share=0.1, max_documents=500)
    before = select(corpus(1_000), config)
    after = select(corpus(1_100), config).head(1_000)
    both = before["split"].is_not_null() & after["split"].is_not_null()
    assert before["split"].filter(both).equals(after["split"].filter(both))
    assert both.sum() > 430


def test_the_byte_cap_takes_documents_until_it_is_nearly_full() -> None:
    documents = corpus(1_000)
    taken = documents.filter(select(documents, SelectConfig(max_bytes=10_000))["split"].is_not_null())
    assert 10_000 - 149 <= taken["bytes"].sum() <= 10_000
    exactly = int(documents["bytes"].to_numpy().sum())
    assert select(documents, SelectConfig(max_bytes=exactly))["dropped_by"].null_count() == len(documents)
    with_a_giant = pl.concat([documents, corpus(1_001).tail(1).with_columns(bytes=pl.lit(10**9, dtype=pl.Int64))])
    assert select(with_a_giant, SelectConfig(max_bytes=10_000))["split"].count() == len(taken)


@pytest.mark.parametrize("change", [{"repeats": {"web": 0}}, {"source_documents": {"web": -1}}])
def test_values_out_of_bounds_are_named(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"select\.\w+\.web is"):
        select(corpus(3), replace(SelectConfig(), **change))
