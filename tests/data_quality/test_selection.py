"""Selection adds up, keeps its limits exactly, never splits similar documents, and depends on ids only."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from data_quality.select_config import GroupLimits, SelectConfig
from data_quality.selection import REASONS, Candidates, choose

SCHEMA = {
    "id": pl.Binary,
    "source": pl.String,
    "language": pl.String,
    "bytes": pl.Int64,
    "keeper": pl.Binary,
    "record": pl.Int64,
}


def identifier(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def corpus(number: int) -> pl.DataFrame:
    rows = [(identifier(i), "abc"[i % 3], ("en", "de")[i % 7 == 0], 100 + i % 50, None, i) for i in range(number)]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def select(documents: pl.DataFrame, config: SelectConfig, parts: int = 1) -> pl.DataFrame:
    """The documents with split, repeats and dropped_by, gathered in so many parts."""
    candidates = Candidates(documents.height, config.seed)
    size = -(-documents.height // parts) or 1
    for start in range(0, documents.height, size):
        candidates.add(documents.slice(start, size))

    def ties(rows: Any) -> Any:
        chosen = documents.with_row_index("at").filter(pl.col("at").is_in(rows.tolist()))
        return chosen.sort("id", "source", "record")["at"].to_numpy().astype(np.int64)

    chosen = choose(candidates, config, ties).frame()
    assert chosen.schema == {"split": pl.String, "repeats": pl.Int32, "dropped_by": pl.String}
    return documents.hstack(chosen)


@st.composite
def corpora(draw: st.DrawFn) -> pl.DataFrame:
    rows = []
    for i in range(draw(st.integers(0, 40))):
        keeper = draw(st.one_of(st.none(), st.integers(0, 5)))
        source, language, size = (
            draw(st.sampled_from("abc")),
            draw(st.sampled_from(["en", "de", None])),
            draw(st.integers(0, 50)),
        )
        copy = draw(st.sampled_from([i, i, i, 0]))  # copies of one text stay where duplicates are only reported
        rows.append((identifier(copy), source, language, size, None if keeper is None else identifier(keeper), i))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


counts = st.one_of(st.none(), st.integers(0, 40))
limits = st.builds(
    GroupLimits,
    sample=st.sampled_from([None, 0.0, 0.5, 1.0]),
    max_documents=st.one_of(st.none(), st.integers(0, 10)),
    max_bytes=st.one_of(st.none(), st.integers(0, 300)),
    repeats=st.integers(1, 4),
)
configs = st.builds(
    SelectConfig,
    validation_share=st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    validation_documents=st.one_of(st.none(), st.integers(0, 10)),
    max_documents=counts,
    max_bytes=st.one_of(st.none(), st.integers(0, 600)),
    sources=st.dictionaries(st.sampled_from("abcd"), limits, max_size=3),
    languages=st.dictionaries(st.sampled_from(["en", "de", "none", "fr"]), limits, max_size=2),
    seed=st.integers(0, 5),
)


@settings(deadline=None, max_examples=200)
@given(documents=corpora(), config=configs, shuffle=st.integers(0, 99), parts=st.integers(1, 5))
def test_laws_of_selection(documents: pl.DataFrame, config: SelectConfig, shuffle: int, parts: int) -> None:
    whole = select(documents, config)
    taken = whole.filter(pl.col("split").is_not_null())

    # Counts add up: every document is taken or dropped by one reason.
    assert len(taken) + whole["dropped_by"].count() == len(documents)
    assert taken["dropped_by"].null_count() == len(taken)
    assert whole["repeats"].is_null().equals(whole["split"].is_null())
    assert set(whole["dropped_by"].drop_nulls()) <= set(REASONS)

    # Limits hold, and are used up before anything is dropped for them.
    for column, named in (("source", config.sources), ("language", config.languages)):
        for name, limit in named.items():
            of_name = pl.col(column).is_null() if name == "none" else pl.col(column) == name
            here, capped = taken.filter(of_name), whole.filter(of_name & (pl.col("dropped_by") == f"{column}-cap"))
            if limit.max_documents is not None:
                assert len(here) <= limit.max_documents
            if limit.max_bytes is not None:
                assert here["bytes"].sum() <= limit.max_bytes
            if limit.max_documents is None and limit.max_bytes is None:
                assert capped.is_empty()
            if limit.sample == 0:
                assert here.is_empty()
            if limit.sample in (None, 1.0):
                assert whole.filter(of_name & (pl.col("dropped_by") == f"{column}-sample")).is_empty()
    if config.max_documents is not None:
        assert len(taken) <= config.max_documents
        capped = whole.filter(pl.col("dropped_by").is_in(["document-cap", "byte-cap"]))
        if (capped["dropped_by"] == "document-cap").any():
            assert len(taken) + (capped["dropped_by"] == "byte-cap").sum() == config.max_documents
    if config.max_bytes is not None:
        assert taken["bytes"].sum() <= config.max_bytes
        capped = whole.filter(pl.col("dropped_by") == "byte-cap")
        if len(capped):
            assert taken["bytes"].sum() + max(capped["bytes"]) > config.max_bytes

    # Documents of one keeper never straddle the splits, and the held-out stay within their number.
    groups = taken.group_by(pl.coalesce("keeper", "id").alias("group")).agg(pl.col("split").n_unique())
    assert (groups["split"] == 1).all()
    held_out = taken.filter(pl.col("split") == "validation")
    if config.validation_documents is not None:
        assert len(held_out) <= config.validation_documents
    if config.validation_share == 0:
        assert len(held_out) == 0

    # Repeats are the source's times the language's, once for validation.
    for source, language, split, repeats in taken.select("source", "language", "split", "repeats").iter_rows():
        times = [
            group.repeats for group in (config.sources.get(source), config.languages.get(language or "none")) if group
        ]
        assert repeats == (1 if split == "validation" else int(np.prod(times)))

    # Neither the order of rows nor how they are cut into parts plays a part.
    moved = documents.sample(fraction=1, shuffle=True, seed=shuffle)
    assert select(moved, config, parts).sort("record").equals(whole.sort("record"))


@settings(deadline=None, max_examples=200)
@given(
    documents=corpora(),
    sources=st.dictionaries(st.sampled_from("ab"), st.sampled_from([0.1, 0.3, 0.5, 0.8]), max_size=2),
    languages=st.dictionaries(st.sampled_from(["en"]), st.sampled_from([0.2, 0.5, 0.9])),
    unit=st.sampled_from(["bytes", "documents"]),
    most=counts,
)
def test_shares_hold_of_what_is_taken_at_last(
    documents: pl.DataFrame, sources: dict[str, float], languages: dict[str, float], unit: Any, most: int | None
) -> None:
    config = SelectConfig(
        sources={name: GroupLimits(max_share=share) for name, share in sources.items()},
        languages={name: GroupLimits(max_share=share) for name, share in languages.items()},
        shares_of=unit,
        max_documents=most,
    )
    try:
        whole = select(documents, config)
    except ValueError:  # the shares leave nothing; see the test of that below
        return
    taken = whole.filter(pl.col("split").is_not_null())
    weight = pl.col("bytes") if unit == "bytes" else pl.lit(1)
    total = taken.select(weight.cast(pl.Int64).sum() if unit == "bytes" else pl.len()).item()
    for column, shares in (("source", sources), ("language", languages)):
        for name, share in shares.items():
            here = taken.filter(pl.col(column) == name)
            size = here["bytes"].sum() if unit == "bytes" else len(here)
            assert size <= share * total * (1 + 1e-9)
    moved = documents.sample(fraction=1, shuffle=True, seed=3)
    assert select(moved, config, 3).sort("record").equals(whole.sort("record"))


def test_a_share_is_used_up() -> None:
    documents = corpus(30_000)
    config = SelectConfig(
        sources={"a": GroupLimits(max_share=0.2), "b": GroupLimits(max_share=0.3)}, shares_of="documents"
    )
    taken = select(documents, config).filter(pl.col("dropped_by").is_null())
    assert dict(taken["source"].value_counts().iter_rows()) == {"a": 4_000, "b": 6_000, "c": 10_000}
    both = SelectConfig(
        sources={"a": GroupLimits(max_share=0.2)}, languages={"de": GroupLimits(max_share=0.1)}, max_documents=9_000
    )
    taken = select(documents, both).filter(pl.col("dropped_by").is_null())
    assert len(taken) > 0.97 * 9_000 * 0.8  # what the cap leaves of a and de is about right already
    by_bytes = taken.select("bytes", "source", "language")
    assert by_bytes.filter(pl.col("source") == "a")["bytes"].sum() <= 0.2 * by_bytes["bytes"].sum()
    assert 0.098 < by_bytes.filter(pl.col("language") == "de")["bytes"].sum() / by_bytes["bytes"].sum() <= 0.1


def test_shares_that_leave_nothing_are_refused() -> None:
    shares = {name: GroupLimits(max_share=0.3) for name in "abc"}
    with pytest.raises(
        ValueError, match=r"select\.sources: the max_share of a, b, c leave nothing: they add up to 0\.9"
    ):
        select(corpus(30), SelectConfig(sources=shares))
    alone = SelectConfig(sources={"a": GroupLimits(max_share=0.0), "b": GroupLimits(max_documents=1)})
    assert set(select(corpus(30), alone).filter(pl.col("split").is_not_null())["source"]) == {"b", "c"}


def test_samples_and_seeds_are_as_asked() -> None:
    documents = corpus(20_000)
    one = select(documents, SelectConfig(validation_share=0.1, seed=1))
    other = select(documents, SelectConfig(validation_share=0.1, seed=2))
    first, second = one["split"] == "validation", other["split"] == "validation"
    assert abs(first.sum() - 2_000) < 4 * (20_000 * 0.1 * 0.9) ** 0.5
    assert abs((first & second).sum() - 200) < 60
    capped = select(documents, SelectConfig(max_documents=10_000, validation_share=0.1, seed=1))
    assert abs((capped["split"] == "validation").sum() - 1_000) < 130  # the cap and the split are independent
    sampled = select(documents, SelectConfig(sources={"a": GroupLimits(sample=0.25)}))
    left = sampled.filter(pl.col("dropped_by").is_null())["source"].value_counts()
    assert abs(dict(left.iter_rows())["a"] - 6_667 * 0.25) < 150
    more = select(documents, SelectConfig(sources={"a": GroupLimits(sample=0.5)}))
    assert sampled["split"].is_not_null().sum() < more["split"].is_not_null().sum()
    assert more.filter(sampled["split"].is_not_null())["split"].null_count() == 0  # a larger sample holds the smaller


def test_a_growing_corpus_keeps_its_splits_and_most_of_its_choices() -> None:
    config = SelectConfig(validation_share=0.1, max_documents=500)
    before = select(corpus(1_000), config)
    after = select(corpus(1_100), config).head(1_000)
    both = before["split"].is_not_null() & after["split"].is_not_null()
    assert before["split"].filter(both).equals(after["split"].filter(both))
    assert both.sum() > 430


def test_the_byte_cap_takes_documents_until_it_is_nearly_full() -> None:
    documents = corpus(1_000)
    taken = select(documents, SelectConfig(max_bytes=10_000)).filter(pl.col("split").is_not_null())
    assert 10_000 - 149 <= taken["bytes"].sum() <= 10_000
    exactly = int(documents["bytes"].sum())
    assert select(documents, SelectConfig(max_bytes=exactly))["dropped_by"].null_count() == len(documents)
    with_a_giant = pl.concat([documents, corpus(1_001).tail(1).with_columns(bytes=pl.lit(10**9, dtype=pl.Int64))])
    assert select(with_a_giant, SelectConfig(max_bytes=10_000))["split"].count() == len(taken)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sources": {"web": {"repeats": 0}}},
        {"sources": {"web": {"max_documents": -1}}},
        {"languages": {"de": {"max_share": 1.1}}},
        {"sources": {"web": {"documents": 3}}},
        {"shares_of": "tokens"},
    ],
)
def test_values_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(SelectConfig).validate_python(wrong)
