"""The classifier against a plain-Python one on the same hashes, and what it promises about order, copies and errors."""

from __future__ import annotations

import gzip
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from data_quality import classifier as module
from data_quality import classifier_kernels as kernels
from data_quality.classifier import (
    CALIBRATION,
    TEST,
    TRAINING,
    Classifier,
    TooFewDocumentsError,
    area_under_curve,
    choose_examples,
    example_keys,
    join_examples,
    measure,
    platt_scaling,
    train_classifier,
)
from data_quality.judges_config import ClassifierConfig
from data_quality.sketch import text_buffers
from data_quality.words import split_words

MASK = (1 << 64) - 1
SEED, STEP, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
CHARACTERS = 0xA24BAED4963EE407
TEXTS = st.text(st.sampled_from("aAbZé'_ \n.-3ÉſK東京ไทยกำ한글Ω🙂\u0301\u200d"), max_size=40)


# ------------------------------------------------------------------------------------------------ plain Python


def plain_mix(value: int) -> int:
    for factor in (FIRST, SECOND):
        value = ((value ^ value >> 33) * factor) & MASK
    return value ^ value >> 33


def plain_word(word: str) -> int:
    value, encoded = SEED, word.encode()
    for i in range(0, len(encoded), 8):
        value = plain_mix(value ^ int.from_bytes(encoded[i : i + 8], "little"))
    return value


def plain_buckets(text: str, orders: tuple[int, int, int], bits: int) -> list[int]:
    """The buckets of a text by definition: folded words and their n-grams, characters of words with their edges."""
    longest, shortest_characters, longest_characters = orders
    grams = []
    words = split_words(text)
    for i in range(len(words)):
        for n in range(1, min(longest, len(words) - i) + 1):
            grams.append((SEED, [plain_word(word) for word in words[i : i + n]]))
    for word in words if longest_characters else []:
        codes = [0, *map(ord, word), 0]
        for i in range(len(codes) - 1):
            for n in range(shortest_characters, longest_characters + 1):
                window = codes[i : i + n]
                if len(window) == n and window != [0]:
                    grams.append((CHARACTERS, window))
    found = []
    for seed, values in grams:
        value = seed
        for one in values:
            value = ((value ^ one) * STEP) & MASK
            value ^= value >> 33
        found.append(((value * FIRST) & MASK) >> (64 - bits))
    return list(dict.fromkeys(found))


def plain_train(
    documents: list[list[int]], labels: list[int], orders: list[list[int]], config: ClassifierConfig
) -> tuple[dict[int, np.float32], float]:
    """Logistic regression by AdaGrad in a loop over dictionaries, weights rounded to float32 after every step."""
    sizes = [labels.count(0), labels.count(1)]
    class_weights = [len(labels) / (2.0 * size) for size in sizes] if config.balance else [1.0, 1.0]
    weights: dict[int, np.float32] = {}
    squares: dict[int, np.float32] = {}
    bias, bias_square = 0.0, module._FIRST_SQUARE
    steps = config.epochs * len(labels)
    for epoch, order in enumerate(orders):
        for step, d in enumerate(order):
            buckets = documents[d]
            if not buckets:
                continue
            pace = config.learning_rate * (1.0 - (epoch * len(order) + step) / steps)
            value = 1.0 / math.sqrt(len(buckets))
            total = 0.0
            for bucket in buckets:
                total += float(weights.get(bucket, 0.0))
            error = kernels.sigmoid(bias + total * value, module._POWERS) - labels[d]
            error *= class_weights[labels[d]]
            pull = error * value
            for bucket in buckets:
                weight = float(weights.get(bucket, 0.0))
                gradient = pull + config.l2 * weight
                square = float(squares.get(bucket, np.float32(module._FIRST_SQUARE))) + gradient * gradient
                squares[bucket] = np.float32(square)
                weights[bucket] = np.float32(weight - pace * gradient / math.sqrt(square + 1e-12))
            bias_square += error * error
            bias -= pace * error / math.sqrt(bias_square + 1e-12)
    return weights, bias


# ------------------------------------------------------------------------------------------------ helpers


def table(texts: list[str]) -> pa.Table:
    ids = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
    return pa.table({"id": pa.array(ids, pa.binary(16)), "text": pa.array(texts, pa.large_string())})


def extracted(texts: list[str], orders: tuple[int, int, int], bits: int) -> list[list[int]]:
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    counts = np.zeros(len(texts), dtype=np.int64)
    buckets = np.empty(0, dtype=np.uint32)
    total = kernels.extract(data, offsets, module._tables(), orders, bits, counts, buckets)
    buckets = np.empty(total, dtype=np.uint32)
    kernels.extract(data, offsets, module._tables(), orders, bits, counts, buckets)
    return [part.tolist() for part in np.split(buckets, np.cumsum(counts)[:-1])] if texts else []


def sentences(number: int, word: str, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    common = ["the", "house", "of", "river", "東", "京", "green", "and", "tall"]
    return [
        " ".join([*draw.choice(common, 12), *([word] if draw.random() < 0.8 else []), str(i)]) for i in range(number)
    ]


GOOD, BAD = sentences(300, "careful", 1), sentences(200, "viagra", 2)
SMALL = ClassifierConfig(bucket_bits=12, epochs=3)


# ------------------------------------------------------------------------------------------------ n-grams


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(0, 3), st.sampled_from([(0, 0), (1, 1), (2, 4), (3, 5)]))
@example(["", " ", "a"], 2, (1, 3))
@example(["ab" * 60 + "東" * 30], 3, (2, 5))
def test_ngrams_are_those_of_the_definition(texts: list[str], words: int, characters: tuple[int, int]) -> None:
    orders = (words, *characters)
    for text, found in zip(texts, extracted(texts, orders, 18), strict=True):
        assert found == plain_buckets(text, orders, 18)


def test_slices_of_an_array_are_read_where_they_begin() -> None:
    model, _ = train_classifier(table(GOOD), table(BAD), SMALL)
    texts = pa.array(GOOD[:10] + BAD[:10], pa.large_string())
    assert model.scores(texts).slice(7, 9).equals(model.scores(texts.slice(7, 9)))
    assert model.scores(pa.chunked_array([texts.slice(0, 3), texts.slice(3)])).equals(model.scores(texts))


@given(st.floats(-50, 50))
@example(0.0)
@example(-40.0)
def test_the_sigmoid_is_that_of_mathematics(value: float) -> None:
    exact = 1.0 / (1.0 + math.exp(-max(-40.0, min(40.0, value))))
    assert kernels.sigmoid(value, module._POWERS) == pytest.approx(exact, rel=1e-14)


# ------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        ClassifierConfig(bucket_bits=10, epochs=2, balance=False, l2=1e-3, seed=5),
        ClassifierConfig(bucket_bits=14, epochs=2, word_ngrams=0, character_ngrams=(2, 4)),
    ],
)
def test_weights_are_bit_for_bit_those_of_plain_python(config: ClassifierConfig) -> None:
    model, _ = train_classifier(table(GOOD), table(BAD), config)
    examples = join_examples(table(GOOD), table(BAD), config)
    rows = np.flatnonzero(examples.part == TRAINING)
    texts = examples.texts.take(pa.array(rows)).to_pylist()
    documents = extracted(texts, model.orders, config.bucket_bits)
    orders = [
        np.argsort(module.mix(examples.keys[rows] + np.uint64(epoch + 1)), kind="stable").tolist()
        for epoch in range(config.epochs)
    ]
    weights, bias = plain_train(documents, examples.labels[rows].tolist(), orders, config)
    expected = np.zeros(1 << config.bucket_bits, dtype=np.float32)
    expected[list(weights)] = list(weights.values())
    assert np.array_equal(model.weights, expected)
    assert model.bias == bias


def test_the_model_does_not_depend_on_the_order_or_the_pieces_of_its_examples() -> None:
    config = ClassifierConfig(bucket_bits=12, epochs=2, max_documents=100)
    once, report = train_classifier(table(GOOD), table(BAD), config)
    chosen = choose_examples(table(GOOD[:150]), config)
    chosen = choose_examples(pa.concat_tables([chosen, table(GOOD[150:])]), config)
    again, other = train_classifier(chosen, table(BAD[::-1]), config)
    assert once.to_table().equals(again.to_table(), check_metadata=True)
    assert report["test"] == other["test"]
    assert report["documents"]["positive"]["used"] == 100


def test_the_seed_changes_the_model_and_nothing_else_does() -> None:
    one, _ = train_classifier(table(GOOD), table(BAD), SMALL)
    same, _ = train_classifier(table(GOOD), table(BAD), SMALL)
    other, _ = train_classifier(table(GOOD), table(BAD), ClassifierConfig(bucket_bits=12, epochs=3, seed=1))
    assert np.array_equal(one.weights, same.weights)
    assert not np.array_equal(one.weights, other.weights)


def test_it_tells_the_sides_apart_and_says_how_well() -> None:
    model, report = train_classifier(table(GOOD), table(BAD), ClassifierConfig(bucket_bits=16))
    good, bad = model.scores(pa.array(["a careful house"])), model.scores(pa.array(["viagra of the river"]))
    assert good[0].as_py() > 0.8 > 0.2 > bad[0].as_py()
    assert report["test"]["accuracy"] > report["test"]["majority"]
    counts = report["documents"]
    for side, number in (("positive", 300), ("negative", 200)):
        parts = [counts[side][name] for name in ("train", "calibration", "test")]
        assert sum(parts) == counts[side]["used"] == number
    assert report["test"]["documents"] == counts["positive"]["test"] + counts["negative"]["test"]


def test_a_text_without_words_has_no_score() -> None:
    model, report = train_classifier(table([*GOOD, "!!"]), table(BAD), SMALL)
    assert model.scores(pa.array(["", "  \n", "🙂…", "word"])).is_null().to_pylist() == [True, True, True, False]
    assert report["documents"]["without_ngrams"] == 1


# ------------------------------------------------------------------------------------------------ examples


def test_documents_of_both_sides_teach_neither() -> None:
    shared = GOOD[:7]
    examples = join_examples(table(GOOD), table([*BAD, *shared]), SMALL)
    assert examples.overlap == 7
    assert not set(examples.texts.to_pylist()) & set(shared)
    _, report = train_classifier(table(GOOD), table([*BAD, *shared]), SMALL)
    assert report["documents"]["in_both_sides"] == 7
    assert report["documents"]["positive"]["used"] == len(GOOD) - 7


def test_exact_copies_are_one_document_on_one_side_of_the_split() -> None:
    once = join_examples(table(GOOD), table(BAD), SMALL)
    copied = join_examples(table(GOOD * 3), table([*BAD, *BAD[:50]]), SMALL)
    assert copied.texts.equals(once.texts)
    assert np.array_equal(copied.part, once.part)


def test_the_split_is_by_id_alone_and_of_the_size_asked_for() -> None:
    config = ClassifierConfig(held_out=0.3)
    whole = join_examples(table(GOOD), table(BAD), config)
    part = join_examples(table(GOOD[::2]), table(BAD), config)
    places = dict(zip(whole.texts.to_pylist(), whole.part.tolist(), strict=True))
    assert all(places[text] == at for text, at in zip(part.texts.to_pylist(), part.part.tolist(), strict=True))
    shares = [np.mean(whole.part == at) for at in (TRAINING, CALIBRATION, TEST)]
    assert shares == pytest.approx([0.7, 0.15, 0.15], abs=0.05)


def test_keys_of_a_slice_are_those_of_the_whole() -> None:
    ids = table(GOOD).column("id").combine_chunks()
    assert np.array_equal(example_keys(ids, 3)[10:20], example_keys(ids.slice(10, 10), 3))
    assert len(set(example_keys(ids, 3).tolist())) == len(GOOD)


@pytest.mark.parametrize(
    ("positive", "negative", "message"),
    [
        ([], BAD, "the positive side has no documents"),
        (GOOD, [], "the negative side has no documents"),
        (GOOD, GOOD, "300 stand in both sides"),
        (GOOD, BAD[:2], "of the negative side's 2 documents"),
    ],
)
def test_sets_that_cannot_teach_are_refused(positive: list[str], negative: list[str], message: str) -> None:
    with pytest.raises(TooFewDocumentsError, match=message):
        train_classifier(table(positive), table(negative), SMALL)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"word_ngrams": 0}, "would see nothing"),
        ({"character_ngrams": (5, 3)}, "shortest and the longest"),
        ({"character_ngrams": (3,)}, "shortest and the longest"),
        ({"character_ngrams": (3, 11)}, "from 1 to 10"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassifierConfig(**settings_)


# ------------------------------------------------------------------------------------------------ calibration


def test_platt_scaling_finds_the_optimum() -> None:
    draw = np.random.default_rng(0)
    margins = draw.normal(size=400) * 8
    labels = (draw.random(400) < 1 / (1 + np.exp(-(0.3 * margins - 1)))).astype(np.uint8)
    high, low = (labels.sum() + 1) / (labels.sum() + 2), 1 / ((labels == 0).sum() + 2)
    targets = np.where(labels == 1, high, low)

    def loss(values: Any) -> float:
        z = values[0] * margins + values[1]
        return float(np.sum(np.logaddexp(0, z) - targets * z))

    best = minimize(loss, [1.0, 0.0], tol=1e-12)
    assert platt_scaling(margins, labels) == pytest.approx(tuple(best.x), abs=1e-4)


def test_platt_scaling_of_what_separates_and_of_what_misleads() -> None:
    labels = np.array([0] * 20 + [1] * 20, dtype=np.uint8)
    margins = np.where(labels == 1, 5.0, -5.0)
    slope, intercept = platt_scaling(margins, labels)
    assert 0 < slope < 10
    assert intercept == pytest.approx(0, abs=1e-6)
    assert platt_scaling(-margins, labels) == (0.0, pytest.approx(0, abs=1e-6))
    assert all(math.isfinite(value) for value in platt_scaling(margins * 1e3, labels))


def test_scaling_changes_no_order() -> None:
    model, _ = train_classifier(table(GOOD), table(BAD), SMALL)
    texts = pa.array(GOOD + BAD, pa.large_string())
    margins, scores = model.margins(texts), module.probabilities(model.margins(texts), model.slope, model.intercept)
    assert np.all(np.diff(scores[np.argsort(margins)]) >= 0)


# ------------------------------------------------------------------------------------------------ measuring


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.50001, 0.9, 1.0]), st.integers(0, 1)), max_size=30))
def test_the_area_under_the_curve_is_the_share_of_pairs_in_order(rows: list[tuple[float, int]]) -> None:
    pairs = [(a, b) for a, one in rows if one for b, other in rows if not other]
    expected = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs) if pairs else None
    scores, labels = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], dtype=np.uint8)
    found = area_under_curve(scores, labels)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-6))


def test_what_is_measured_by_hand() -> None:
    scores = np.array([0.05, 0.15, 0.15, 0.85, 0.85, 1.0])
    labels = np.array([0, 1, 0, 1, 0, 1], dtype=np.uint8)
    found = measure(scores, labels)
    assert found["accuracy"] == pytest.approx(4 / 6, abs=1e-6)
    assert found["majority"] == 0.5
    bins = {row["from"]: (row["documents"], row["mean_score"], row["positive_share"]) for row in found["reliability"]}
    assert bins == {0.0: (1, 0.05, 0.0), 0.1: (2, 0.15, 0.5), 0.8: (2, 0.85, 0.5), 0.9: (1, 1.0, 1.0)}
    expected = (0.05 + 2 * 0.35 + 2 * 0.35 + 0.0) / 6
    assert found["expected_calibration_error"] == pytest.approx(expected, abs=1e-6)
    assert found["brier"] == pytest.approx(np.mean((scores - labels) ** 2), abs=1e-6)
    right = np.where(labels == 1, scores, 1 - scores)
    assert found["log_loss"] == pytest.approx(-np.mean(np.log(right)), abs=1e-6)
    assert measure(np.empty(0), np.empty(0, np.uint8)) == {"documents": 0}


# ------------------------------------------------------------------------------------------------ the file


def test_a_model_is_read_as_it_was_written() -> None:
    model, _ = train_classifier(table(GOOD), table(BAD), SMALL)
    again = Classifier.from_table(model.to_table())
    texts = pa.array(GOOD[:20], pa.large_string())
    assert again.scores(texts).equals(model.scores(texts))
    assert (again.bias, again.slope, again.intercept) == (model.bias, model.slope, model.intercept)
    assert again.to_table().equals(model.to_table(), check_metadata=True)


def test_what_is_no_model_is_refused() -> None:
    model, _ = train_classifier(table(GOOD), table(BAD), SMALL)
    written = model.to_table()
    with pytest.raises(ValueError, match="no model of a classifier"):
        Classifier.from_table(written.replace_schema_metadata(None))
    with pytest.raises(ValueError, match="no model of a classifier"):
        Classifier.from_table(pa.table({"a": [1]}))
    old = written.schema.metadata[b"model"].replace(b'"version": 2', b'"version": 1')
    with pytest.raises(ValueError, match="has version 1, this code needs 2: train it again"):
        Classifier.from_table(written.replace_schema_metadata({"model": old}))


# ------------------------------------------------------------------------------------------------ real text


def test_film_reviews_are_judged_about_as_well_as_by_others(shared_data: Path) -> None:
    """SST-2: scikit-learn's logistic regression on the same kind of n-grams has .766 to .811, fastText .813 to .820."""

    def read(split: str) -> tuple[list[str], np.ndarray[Any, Any]]:
        with gzip.open(shared_data / f"classification/sst2/{split}.tsv.gz", "rt", encoding="utf-8") as lines:
            rows = [line.rstrip("\n").split("\t") for line in lines]
        return [row[0] for row in rows], np.array([int(row[1]) for row in rows], dtype=np.uint8)

    texts, labels = read("train")
    sides = [table([text for text, one in zip(texts, labels, strict=True) if one == label]) for label in (1, 0)]
    model, report = train_classifier(sides[0], sides[1], ClassifierConfig(held_out=0.05))
    texts, labels = read("test")
    scores = model.scores(pa.array(texts, pa.large_string())).to_numpy()
    found = measure(scores.astype(np.float64), labels)
    assert found["accuracy"] > 0.80
    assert found["auc"] > 0.88
    assert found["expected_calibration_error"] < 0.08
    assert report["documents"]["in_both_sides"] == 0
