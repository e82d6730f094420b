"""The yardsticks of fine-tuning: scores against a count by hand, and a bag of words that learns."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.baselines import BUCKETS, BagOfWords, Bags, baselines, classification_scores, majority, word_hashes

torch.set_num_threads(1)

CLASSES = ("a", "b", "c")


def macro_f1_by_hand(gold: list[int], predicted: list[int]) -> float:
    """One class at a time, from the definitions of precision and recall."""
    scores = []
    for name in sorted(set(gold) | set(predicted)):
        true = sum(g == p == name for g, p in zip(gold, predicted, strict=True))
        precision = true / predicted.count(name) if name in predicted else 0.0
        recall = true / gold.count(name) if name in gold else 0.0
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return sum(scores) / len(scores)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_scores_agree_with_a_count_by_hand(pairs: list[tuple[int, int]]) -> None:
    gold, predicted = [g for g, _ in pairs], [p for _, p in pairs]
    scores = classification_scores(gold, predicted, CLASSES)
    assert scores["accuracy"] == pytest.approx(sum(g == p for g, p in pairs) / len(pairs))
    assert scores["macro_f1"] == pytest.approx(macro_f1_by_hand(gold, predicted))
    for row in range(3):
        for column in range(3):
            assert scores["confusion"][row][column] == pairs.count((row, column))
    assert sum(score["support"] for score in scores["per_class"].values()) == len(pairs)


def test_scores_refuse_what_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="2 gold labels but 1 predictions"):
        classification_scores([0, 1], [0], CLASSES)
    with pytest.raises(ValueError, match="no documents"):
        classification_scores([], [], CLASSES)
    with pytest.raises(ValueError, match="outside of the 3 classes"):
        classification_scores([0], [3], CLASSES)


def test_majority_takes_the_smallest_class_of_a_tie() -> None:
    assert majority([2, 1, 1, 2], 3) == [1, 1, 1]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.floats(-2, 2)), max_size=5), min_size=1, max_size=5))
def test_sparse_products_are_dense_products(rows: list[list[tuple[int, float]]]) -> None:
    dense = torch.zeros(len(rows), 5, dtype=torch.float64)
    for i, row in enumerate(rows):
        for column, weight in row:
            dense[i, column] += weight
    cells = [cell for row in rows for cell in row]
    bags = Bags(
        torch.tensor([column for column, _ in cells], dtype=torch.int64),
        torch.tensor([weight for _, weight in cells], dtype=torch.float64),
        torch.tensor(np.cumsum([0] + [len(row) for row in rows])),
    )
    right = torch.randn(5, 2, dtype=torch.float64)
    left = torch.randn(len(rows), 2, dtype=torch.float64)
    torch.testing.assert_close(bags.times(right), dense @ right)
    torch.testing.assert_close(bags.transposed(5).times(left), dense.T @ left)


def test_the_order_of_two_words_matters_and_case_does_not() -> None:
    forward, backward, shouted = word_hashes(["red apple", "apple red", "RED Apple"])
    assert sorted(forward[:2]) == sorted(backward[:2])
    assert forward[2] != backward[2]
    assert forward.tolist() == shouted.tolist()
    assert forward.min() >= 0
    assert forward.max() < BUCKETS


def test_the_bag_of_words_finds_the_minimum_of_its_loss() -> None:
    texts = [f"{'good fine' if i % 3 else 'bad'} word{i % 5} thing{i % 7}" for i in range(40)]
    labels = [int(i % 3 == 0) for i in range(40)]
    model = BagOfWords(iterations=500).fit(texts, labels, 2)
    again = BagOfWords(iterations=500).fit(texts, labels, 2)
    assert model.predict(texts) == labels
    torch.testing.assert_close(model.scores(texts), again.scores(texts), rtol=0, atol=0)
    # The gradient of a convex loss vanishes at its only minimum, and the bias has no penalty:
    # predicted class shares then equal the shares of the labels
    shares = model.scores(texts).softmax(dim=1).mean(dim=0)
    assert shares[1].item() == pytest.approx(sum(labels) / 40, abs=1e-4)


def test_texts_without_known_words_get_the_commonest_class() -> None:
    model = BagOfWords().fit(["red", "crimson", "green"], [0, 0, 1], 2)
    assert model.predict(["", "unheard"]) == [0, 0]


def test_the_bag_of_words_beats_the_majority_on_news(shared_data: Path) -> None:
    folder = shared_data / "classification" / "ag_news"
    with gzip.open(folder / "train_5k.csv.gz", "rt", encoding="utf-8") as file:
        train = [(row[0], int(row[1])) for row in csv.reader(file) if row[1].isdigit()][:1000]
    with gzip.open(folder / "test.csv.gz", "rt", encoding="utf-8") as file:
        test = [(f"{row[1]} {row[2]}", int(row[0]) - 1) for row in csv.reader(file)][:1000]
    result = baselines(
        [text for text, _ in train],
        [label for _, label in train],
        [text for text, _ in test],
        [label for _, label in test],
        ("world", "sports", "business", "technology"),
    )
    assert result["majority"]["accuracy"] < 0.4
    assert result["bag_of_words"]["accuracy"] > 0.78
    assert result["bag_of_words"]["macro_f1"] > 0.78
