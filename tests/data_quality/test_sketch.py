"""Signatures are datasketch's, shingle sets are those of the plain definition, whatever the text or the slicing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from data_quality import sketch_kernels
from data_quality.duplicates_config import DeduplicateConfig, SketchConfig
from data_quality.sketch import (
    coefficients,
    permutation_facts,
    shingle_sets,
    signature_matrix,
    sketch,
    text_buffers,
    unsorted_shingle_sets,
    word_tables,
)
from data_quality.word_kernels import hash_words
from data_quality.words import split_words

CONFIG = SketchConfig()
FIRST_SHINGLES = [6098405213948573113, 423256871717485683]
FIRST_SIGNATURE = [900791782, 599838548, 109044990]
WORDS = ["a", "B", "b", "the", "The", "wörter", "ΣΑΣ", "日", "本", "ไ", "x1", "_", "!", " ", "\n", "é", "🙂", "\0"]
texts_strategy = st.lists(
    st.one_of(
        st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join),
        st.text(max_size=40),
    ),
    max_size=8,
)


def strings(texts: list[str | None]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def string_shingles(text: str, ngram: int) -> set[tuple[str, ...]]:
    words = split_words(text)
    if not words:
        return set()
    width = min(ngram, len(words))
    return {tuple(words[i : i + width]) for i in range(len(words) - width + 1)}


def datasketch_signature(hashes: npt.NDArray[np.uint64], config: SketchConfig) -> npt.NDArray[Any]:
    oracle = MinHash(num_perm=config.permutations, seed=config.seed, hashfunc=int, scheme=config.scheme)
    mask = 0xFFFFFFFF if config.scheme == "affine32" else 0xFFFFFFFFFFFFFFFF
    oracle.update_batch([int(value) & mask for value in hashes])
    return oracle.hashvalues


@settings(deadline=None, max_examples=60)
@given(
    texts=texts_strategy,
    ngram=st.integers(1, 7),
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 40),
    scheme=st.sampled_from(["affine32", "affine64"]),
)
def test_signatures_are_those_of_datasketch(texts: list[str], ngram: int, seed: int, size: int, scheme: Any) -> None:
    config = SketchConfig(ngram=ngram, permutations=size, seed=seed, scheme=scheme)
    table = sketch(strings(texts), config)
    values, offsets = shingle_sets(strings(texts), config)
    for row, (signature, count) in enumerate(
        zip(table["signature"].to_pylist(), table["shingles"].to_pylist(), strict=True)
    ):
        hashes = values[offsets[row] : offsets[row + 1]]
        assert count == len(hashes)
        assert (signature is None) == (count == 0)
        if signature is not None:
            assert signature == datasketch_signature(hashes, config).tobytes()


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.one_of(st.sampled_from(WORDS), st.text(max_size=9), st.sampled_from("aB_ ,").map(lambda c: c * 70),
                  st.lists(st.sampled_from(["plain", "English", "a", "isn't", ", "]), max_size=40).map(" ".join)),
        max_size=12,
    ).map("".join),
    st.integers(0, 9),
)  # fmt: skip
def test_long_stretches_of_ascii_have_the_words_they_have_without(text: str, start: int) -> None:
    encoded = text.encode()
    data = np.frombuffer(b"a" * start + encoded + b"z" * 9, dtype=np.uint8)
    end = start + len(encoded)
    words, found, other = (np.empty((len(encoded) + 1) // 2 + 1, dtype=np.uint64) for _ in range(3))
    count = hash_words(data, start, end, *word_tables(), words)
    assert sketch_kernels.hash_stretches(data, start, end, *word_tables(), found, other) == count
    assert found[:count].tolist() == words[:count].tolist()


@settings(deadline=None, max_examples=100)
@given(texts=texts_strategy, ngram=st.integers(1, 7))
def test_shingle_sets_are_the_word_ngrams_of_the_definition(texts: list[str], ngram: int) -> None:
    values, offsets = shingle_sets(strings(texts), SketchConfig(ngram=ngram))
    names: dict[int, tuple[str, ...]] = {}
    for row, text in enumerate(texts):
        hashes = values[offsets[row] : offsets[row + 1]].tolist()
        expected = string_shingles(text, ngram)
        assert hashes == sorted(set(hashes))
        assert len(hashes) == len(expected)
        one_by_one = [
            int(shingle_sets(strings([" ".join(shingle)]), SketchConfig(ngram=len(shingle)))[0][0])
            for shingle in expected
        ]
        assert sorted(one_by_one) == hashes
        for value, shingle in zip(one_by_one, expected, strict=True):
            assert names.setdefault(value, shingle) == shingle


@pytest.mark.parametrize("scheme", ["affine32", "affine64"])
def test_coefficients_are_those_of_datasketch(scheme: Any) -> None:
    config = replace(CONFIG, scheme=scheme)
    a, b = coefficients(config)
    oracle = MinHash(num_perm=config.permutations, seed=config.seed, scheme=config.scheme)
    assert np.array_equal(np.array([a, b]), oracle.permutations)
    facts = permutation_facts(config)
    assert facts["a"] == a.tolist()
    assert facts["b"] == b.tolist()
    assert facts["scheme"] == scheme


@pytest.mark.parametrize("scheme", ["affine32", "affine64"])
def test_signatures_load_into_datasketch_and_its_index(scheme: Any) -> None:
    config = replace(CONFIG, scheme=scheme)
    words = [f"w{number}" for number in range(200)]
    texts = [" ".join(words), " ".join([*words[:199], "other"]), " ".join(reversed(words))]
    loaded = [
        MinHash(hashvalues=values, seed=config.seed, scheme=scheme)
        for values in signature_matrix(sketch(strings(texts), config)["signature"].chunk(0), config)
    ]
    index = MinHashLSH(num_perm=config.permutations, params=(18, 6))
    for name, signature in enumerate(loaded[1:], 1):
        index.insert(name, signature)
    assert index.query(loaded[0]) == [1]
    assert loaded[0].jaccard(loaded[1]) > 0.9
    assert loaded[0].jaccard(loaded[2]) < 0.1


def test_hashes_and_signatures_never_change() -> None:
    """Stored signatures are compared with those of later versions: these numbers may only change with
    SHINGLE_HASH_VERSION or UNICODE_TABLE_VERSION."""
    text = strings(["The quick brown fox jumps over the lazy dog. 東京 Straße"])
    values, _ = unsorted_shingle_sets(text, CONFIG)
    assert values[:2].tolist() == FIRST_SHINGLES
    signatures = signature_matrix(sketch(text, CONFIG)["signature"].chunk(0), CONFIG)
    assert signatures[0, :3].tolist() == FIRST_SIGNATURE


def test_texts_that_differ_in_case_punctuation_and_space_only_have_one_signature() -> None:
    table = sketch(strings(["Hello, big WIDE World: again!", "hello big\nwide (world) again"]), CONFIG)
    assert table["signature"][0] == table["signature"][1]


def test_signatures_of_other_permutations_are_refused() -> None:
    column = sketch(strings(["one", "two"]), CONFIG)["signature"].chunk(0)
    whole = signature_matrix(column, CONFIG)
    assert (signature_matrix(column.slice(1), CONFIG) == whole[1:]).all()
    assert (signature_matrix(column.cast(pa.large_binary()), CONFIG) == whole).all()
    with pytest.raises(ValueError, match="not signatures of 107 permutations"):
        signature_matrix(column, replace(CONFIG, permutations=107))


def test_texts_without_words_have_no_signature() -> None:
    table = sketch(strings(["", " \n", "...!?", None, "🙂", "word"]), CONFIG)
    assert table["signature"].null_count == 5
    assert table["shingles"].to_pylist() == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("column", [strings([]), pa.chunked_array([], pa.large_string())])
def test_no_texts_give_an_empty_table(column: Any) -> None:
    table = sketch(column, CONFIG)
    assert table.num_rows == 0
    assert table.column_names == ["signature", "shingles"]
    values, offsets = shingle_sets(column, CONFIG)
    assert values.size == 0
    assert offsets.tolist() == [0]


def test_slices_chunks_and_small_strings_are_read_like_whole_columns() -> None:
    texts = [f"text number {i} of many words in a row" for i in range(20)] + ["日本語の文章です。"]
    whole = sketch(strings(texts), CONFIG)
    chunks = pa.chunked_array([strings(texts[:7]), strings(texts[7:])])
    assert sketch(strings(["x", *texts, "y"]).slice(1, len(texts)), CONFIG).equals(whole)
    assert sketch(chunks, CONFIG).equals(whole)
    assert sketch(pa.array(texts), CONFIG).equals(whole)
    data, offsets = text_buffers(strings(["x", *texts]).slice(1))
    assert bytes(data[offsets[0] : offsets[1]]).decode() == texts[0]


def test_cut_utf8_is_not_read_past_its_end() -> None:
    damaged = pa.Array.from_buffers(
        pa.large_string(),
        2,
        [None, pa.py_buffer(np.array([0, 3, 6], dtype=np.int64)), pa.py_buffer(b"a \xf0b c")],
    )
    assert sketch(damaged, CONFIG)["shingles"].to_pylist() == [1, 1]


def test_estimates_are_unbiased() -> None:
    """The mean of 200 estimates of a known similarity lies within 4 standard errors (Broder 1997)."""
    generator = np.random.default_rng(7)
    shared, own = 60, 20
    true = shared / (shared + 2 * own)
    config = SketchConfig(ngram=1)
    estimates = []
    for _ in range(200):
        names = [f"w{value}" for value in generator.integers(0, 2**60, shared + 2 * own)]
        pair = [" ".join(names[:shared] + names[shared:][side * own : (side + 1) * own]) for side in (0, 1)]
        signatures = signature_matrix(sketch(strings(pair), config)["signature"].chunk(0), config)
        estimates.append(np.mean(np.equal(*signatures)))
    error = np.sqrt(true * (1 - true) / config.permutations / len(estimates))
    assert abs(np.mean(estimates) - true) < 4 * error


def test_the_default_bands_find_similar_documents() -> None:
    deduplicate = DeduplicateConfig().banded(CONFIG.permutations)
    assert deduplicate.bands * deduplicate.rows == CONFIG.permutations
    assert 1 - (1 - deduplicate.threshold**deduplicate.rows) ** deduplicate.bands >= 0.99


def test_a_long_document_is_sketched() -> None:
    words = np.random.default_rng(1).integers(0, 10**6, 300_000)
    text = " ".join(map(str, words))
    assert sketch(strings([text, "x"]), CONFIG)["shingles"][0].as_py() == len(string_shingles(text, 5))
