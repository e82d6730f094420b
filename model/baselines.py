"""What a classifier has to beat: always saying the commonest class, and a bag of words.

Both see the documents that the fine-tuned model sees, cut at the same token. No score of a model means
anything without them. The scores themselves (accuracy, macro-F1) are computed here, once, for all three.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

BUCKETS = 1 << 18
"""Hash buckets of the bag of words: with 2^18 few of the n-grams of 10,000 documents collide."""

INVERSE_PENALTY = 10.0
"""The C of a logistic regression as LIBLINEAR counts it: loss = C * sum of log losses + |W|^2 / 2."""

WORD = re.compile(r"\w+")


def classification_scores(gold: Sequence[int], predicted: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro-F1, the confusion matrix and the scores of each class.

    Parameters
    ----------
    gold, predicted
        Class numbers, one a document.
    classes
        The name of every class number.

    Returns
    -------
    dict
        `accuracy`; `macro_f1`, the plain mean of F1 over the classes that occur in `gold` or `predicted` (as
        scikit-learn does: a class that occurs in neither has no F1); `confusion`, rows gold and columns
        predicted; `per_class`, name to precision, recall, f1 (0 where undefined) and support.

    Raises
    ------
    ValueError
        When the lengths differ, no document is given or a number has no class.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold labels but {len(predicted)} predictions")
    if not len(gold):
        raise ValueError("no documents to score")
    count = len(classes)
    rows, columns = np.asarray(gold, np.int64), np.asarray(predicted, np.int64)
    if min(rows.min(), columns.min()) < 0 or max(rows.max(), columns.max()) >= count:
        raise ValueError(f"a label lies outside of the {count} classes")
    confusion = np.bincount(rows * count + columns, minlength=count * count).reshape(count, count)
    hits, support, guesses = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    occurring = support + guesses
    f1 = 2 * hits / np.maximum(occurring, 1)  # = 2PR / (P + R), and 0 where P + R is 0
    return {
        "accuracy": float(hits.sum() / len(rows)),
        "macro_f1": float(f1[occurring > 0].mean()),
        "confusion": confusion.tolist(),
        "per_class": {
            name: {
                "precision": float(hits[i] / max(guesses[i], 1)),
                "recall": float(hits[i] / max(support[i], 1)),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(classes)
        },
    }


def majority(train_labels: Sequence[int], test_count: int) -> list[int]:
    """The commonest training class for every test document (of several, the smallest number)."""
    return [int(np.bincount(np.asarray(train_labels)).argmax())] * test_count


@dataclass(frozen=True)
class Bags:
    """Sparse rows: document i has features `buckets[offsets[i]:offsets[i+1]]` with those `weights`."""

    buckets: torch.Tensor  # int64 [features]
    weights: torch.Tensor  # float64 [features]
    offsets: torch.Tensor  # int64 [documents + 1]

    def times(self, matrix: torch.Tensor) -> torch.Tensor:
        """[documents, columns] = these rows @ matrix [buckets, columns]."""
        return functional.embedding_bag(
            self.buckets,
            matrix,
            self.offsets,
            mode="sum",
            per_sample_weights=self.weights,
            include_last_offset=True,
        )

    def transposed(self, columns: int) -> Bags:
        """The same matrix by columns, so that a gradient is a second `times` and needs no scatter."""
        documents = torch.repeat_interleave(torch.arange(len(self.offsets) - 1), self.offsets.diff())
        order = torch.argsort(self.buckets, stable=True)
        offsets = torch.zeros(columns + 1, dtype=torch.int64)
        offsets[1:] = torch.bincount(self.buckets, minlength=columns).cumsum(0)
        return Bags(documents[order], self.weights[order], offsets)


def word_hashes(texts: Sequence[str]) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """For every text the bucket of each word (lower case) and of each pair of neighbouring words."""
    known: dict[str, int] = {}
    result = []
    for text in texts:
        words = WORD.findall(text.lower())
        for word in words:
            if word not in known:
                known[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        single = np.fromiter((known[word] for word in words), np.uint64, len(words))
        # 2^64 / golden ratio (Knuth's multiplicative hashing) on the first: the order of a pair matters
        pairs = (single[:-1] * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(13)) ^ single[1:]
        result.append((np.concatenate([single, pairs]) % np.uint64(BUCKETS)).astype(np.int64))
    return result


class BagOfWords:
    """Hashed word uni- and bigrams, log-tf-idf, multinomial logistic regression.

    Weights are (1 + ln tf) * (1 + ln((1 + n) / (1 + df))), each document scaled to length 1 (Manning, Raghavan
    and Schütze, Introduction to Information Retrieval, section 6.4; the smooth idf is scikit-learn's). The
    regression is convex and solved in float64 by L-BFGS from zero, so there is no seed and one answer.

    Example
    -------
    >>> model = BagOfWords().fit(["red apple", "green pear", "red cherry"], [0, 1, 0], 2)
    >>> model.predict(["a red plum"])
    [0]
    """

    def __init__(self, inverse_penalty: float = INVERSE_PENALTY, iterations: int = 100) -> None:
        self.inverse_penalty = inverse_penalty
        self.iterations = iterations

    def fit(self, texts: Sequence[str], labels: Sequence[int], class_count: int) -> BagOfWords:
        """Learn from labelled texts; `labels` are below `class_count`. Raises ValueError without texts."""
        if not texts:
            raise ValueError("the bag-of-words baseline needs at least one training document")
        rows = [np.unique(hashes, return_counts=True) for hashes in word_hashes(texts)]
        seen = np.bincount(np.concatenate([buckets for buckets, _ in rows]), minlength=BUCKETS)
        # Only buckets of the training documents get a column: the others would keep weight zero
        self._columns = np.where(seen > 0, np.cumsum(seen > 0) - 1, -1)
        self._idf = 1 + np.log((1 + len(texts)) / (1 + seen))
        bags = self._bags(rows)
        by_column = bags.transposed(int((seen > 0).sum()))
        gold = torch.as_tensor(np.asarray(labels, np.int64))
        target = functional.one_hot(gold, class_count).double()
        weights = torch.zeros(int((seen > 0).sum()), class_count, dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(class_count, dtype=torch.float64, requires_grad=True)
        penalty = 1 / (self.inverse_penalty * len(texts))
        optimiser = torch.optim.LBFGS(
            [weights, bias],
            max_iter=self.iterations,
            tolerance_grad=1e-6,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        @torch.no_grad()
        def closure() -> torch.Tensor:
            scores = bags.times(weights) + bias
            difference = (scores.softmax(dim=1) - target) / len(texts)
            weights.grad = by_column.times(difference) + penalty * weights
            bias.grad = difference.sum(dim=0)
            return functional.cross_entropy(scores, gold) + penalty / 2 * weights.square().sum()

        optimiser.step(closure)  # type: ignore[no-untyped-call]
        self._weights, self._bias = weights.detach(), bias.detach()
        return self

    def predict(self, texts: Sequence[str]) -> list[int]:
        """The likeliest class of each text; a text without a known word gets the likeliest class of all."""
        return [int(i) for i in self.scores(texts).argmax(dim=1)]

    def scores(self, texts: Sequence[str]) -> torch.Tensor:
        """float64 [texts, classes]: logits."""
        rows = [np.unique(hashes, return_counts=True) for hashes in word_hashes(texts)]
        return self._bags(rows).times(self._weights) + self._bias

    def _bags(self, rows: list[tuple[Any, Any]]) -> Bags:
        buckets = np.concatenate([row for row, _ in rows] or [np.empty(0, np.int64)])
        counts = np.concatenate([count for _, count in rows] or [np.empty(0, np.int64)])
        document = np.repeat(np.arange(len(rows)), [len(row) for row, _ in rows])
        known = self._columns[buckets] >= 0
        buckets, counts, document = buckets[known], counts[known], document[known]
        weights = (1 + np.log(counts)) * self._idf[buckets]
        norms = np.sqrt(np.bincount(document, weights=weights**2, minlength=len(rows)))
        offsets = np.zeros(len(rows) + 1, np.int64)
        offsets[1:] = np.bincount(document, minlength=len(rows)).cumsum()
        return Bags(
            torch.from_numpy(self._columns[buckets]),
            torch.from_numpy(weights / norms[document]),
            torch.from_numpy(offsets),
        )


def baselines(
    train_texts: Sequence[str],
    train_labels: Sequence[int],
    test_texts: Sequence[str],
    test_labels: Sequence[int],
    classes: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """`{"majority": ..., "bag_of_words": ...}`, each with accuracy and macro_f1 on the test documents."""
    predictions = {
        "majority": majority(train_labels, len(test_labels)),
        "bag_of_words": BagOfWords().fit(train_texts, train_labels, len(classes)).predict(test_texts),
    }
    scores = {name: classification_scores(test_labels, guess, classes) for name, guess in predictions.items()}
    return {name: {"accuracy": score["accuracy"], "macro_f1": score["macro_f1"]} for name, score in scores.items()}
