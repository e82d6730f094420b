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

from data_quality.duplicates_config import DeduplicateConfig, SketchConfig
from data_quality.sketch import (
    coefficients,
    permutation_facts,
    shingle_sets,
    signature_matrix,
    sketch,
    text_buffers,
    unsorted_shingle_sets,
    word_forms,
)
from data_quality.word_kernels import OWN
from data_quality.words import OWN_WORD, WORD, character_classes, fold_table, split_words

CONFIG = SketchConfig()
MASK = (1 << 64) - 1
FIRST_SHINGLES = [14276081020828942345, 11158478718731499933]
FIRST_SIGNATURE = [199048933, 182033661, 329081441]
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


def plain_mix(value: int) -> int:
    """MurmurHash3's finaliser of 64 bits."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = ((value ^ value >> 33) * factor) & MASK
    return value ^ value >> 33


def plain_word(word: str) -> int:
    value, encoded = 0x9E3779B97F4A7C15, word.encode()
    for i in range(0, len(encoded), 8):
        value = plain_mix(value ^ int.from_bytes(encoded[i : i + 8], "little"))
    return value


def plain_shingles(text: str, ngram: int) -> list[int]:
    """The hashes of the different n-grams of a text in their order, by definition."""
    words = [plain_word(word) for word in split_words(text)]
    width = min(ngram, len(words))
    found = []
    for i in range(len(words) - width + 1 if words else 0):
        value = 0
        for word in words[i : i + width]:
            value = (value * 0xA24BAED4963EE407 + word) & MASK
        found.append(plain_mix(value))
    return list(dict.fromkeys(found))


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
        st.one_of(st.sampled_from(WORDS), st.text(max_size=9), st.sampled_from("aB_ ,й本").map(lambda c: c * 70),
                  st.lists(st.sampled_from(["plain", "English", "a", "isn't", ", "]), max_size=40).map(" ".join)),
        max_size=12,
    ).map("".join),
    st.integers(1, 7),
    st.integers(0, 9),
    st.sampled_from([0, 1, 70]),
)  # fmt: skip
def test_shingles_are_those_of_the_definition_wherever_a_text_lies(
    text: str, ngram: int, start: int, rest: int
) -> None:
    encoded = text.encode()
    offsets = np.array([start, start + len(encoded)], dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"a" * start + encoded + b"z" * rest)]
    column = pa.Array.from_buffers(pa.large_string(), 1, buffers)
    found, _ = unsorted_shingle_sets(column, SketchConfig(ngram=ngram))
    assert found.tolist() == plain_shingles(text, ngram)


@pytest.mark.parametrize("size", [7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("letter", ["a", "Й", "ก", "\U00010400"])
def test_words_of_any_length_are_hashed_wherever_they_begin_and_end(size: int, letter: str) -> None:
    texts = [f"{' ' * before}{letter * size}{after}" for before in (0, 1, 62, 63) for after in ("", " ", " b", "x")]
    values, offsets = unsorted_shingle_sets(strings(texts), SketchConfig(ngram=1))
    for row, text in enumerate(texts):
        assert values[offsets[row] : offsets[row + 1]].tolist() == plain_shingles(text, 1)


def test_all_characters_of_ascii_are_folded_as_the_table_says_with_vectors_and_without() -> None:
    texts = [f"{pad}a{chr(code)}b{pad}" for code in range(128) for pad in ("", " " * 64)]
    values, offsets = unsorted_shingle_sets(strings(texts), SketchConfig(ngram=1))
    for row, text in enumerate(texts):
        assert values[offsets[row] : offsets[row + 1]].tolist() == plain_shingles(text, 1)


def test_forms_are_the_folded_characters_of_words() -> None:
    classes, folds, forms = character_classes(), fold_table(), word_forms()
    assert np.array_equal(forms != 0, (classes == WORD) | (classes == OWN_WORD))
    assert np.array_equal(forms & OWN != 0, classes == OWN_WORD)
    for code in np.flatnonzero(forms):
        assert (int(forms[code]) & ~OWN) == int.from_bytes(chr(folds[code]).encode(), "little")


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (b"a\xf4\x90\x80\x80b", ["a", "b"]),  # above U+10FFFF
        (b"a\xff\xbf\xbf\xbfb", ["a", "b"]),
        (b"a\xed\xa0\x80b", ["a", "b"]),  # half of a pair
        (b"a\xc1\x81b", ["aab"]),  # ASCII in two bytes
        (b"a\xe0\x80\x80b", ["a", "b"]),  # NUL in three
        (b"a\x80\x80b", ["a", "b"]),
        (b"a \xf0b c", ["a", "\U00022823"]),  # bytes that go on with no character
        (b"a \xf0b ", ["a"]),  # cut
        (b"a\xe6\x9c", ["a"]),
        (b"\xc3", []),
    ],
)
@pytest.mark.parametrize("rest", [b"", b"z" * 80])
def test_damaged_utf8_has_the_words_of_its_code_points(damaged: bytes, words: list[str], rest: bytes) -> None:
    offsets = np.array([0, len(damaged)], dtype=np.int64)
    column = pa.Array.from_buffers(pa.large_string(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(damaged + rest)])
    assert shingle_sets(column, SketchConfig(ngram=1))[0].tolist() == sorted({plain_mix(plain_word(w)) for w in words})


def test_a_word_of_growing_letters_has_room() -> None:
    """Folded it takes three bytes a letter where it had two, and zeros stand around words of one character."""
    for text in ("\u023a" * 5000, "\u0e01a" * 5000, "a\u0e01" * 5000, "\u0e01\u023a" * 5000):
        values, _ = unsorted_shingle_sets(strings([text]), CONFIG)
        assert values.tolist() == plain_shingles(text, CONFIG.ngram)


def test_structured_words_have_hashes_as_if_drawn() -> None:
    """Numbers that differ in one digit, words that differ in one letter, and n-grams of them: no two hashes are equal,
    and their low, middle and high bits fall evenly (chi-square of 255 degrees, six standard deviations)."""
    numbers = [f"{number:08d}" for number in range(40_000)]
    texts = [
        " ".join(numbers),
        " ".join(number[:4] + "0000" + number[4:] + "00000000" for number in numbers),
        " ".join(letters + number for letters in ("abcdefgh", "abcdefgi", "abcdefgha") for number in numbers),
        " ".join("a" * size for size in range(1, 700)),
        " ".join("0" * before + "1" + "0" * (300 - before) for before in range(300)),
    ]
    for ngram in (1, 5):
        values, _ = shingle_sets(strings(texts), SketchConfig(ngram=ngram))
        expected = sum(len(text.split()) - ngram + 1 for text in texts)
        assert values.size == expected
        assert np.unique(values).size == expected
        for shift in (0, 24, 56):
            counts = np.bincount((values >> np.uint64(shift) & np.uint64(255)).astype(np.int64), minlength=256)
            chi_square = float(np.sum((counts - values.size / 256) ** 2) / (values.size / 256))
            assert abs(chi_square - 255) < 6 * (2 * 255) ** 0.5


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
