"""A linear classifier on hashed n-grams: how much a document is like the good examples and unlike the bad ones.

Logistic regression by stochastic gradient descent, in the manner of fastText (Joulin et al. 2017, arXiv 1607.01759)
and of GPT-3's quality filter (Brown et al. 2020, arXiv 2005.14165, appendix A), but binary and exactly repeatable: one
thread, order by hash of id, arithmetic that is the same on every machine.

Terms:

words
    Those of `words.split_words`: folded, punctuation only separates, scripts without spaces give single characters.
n-grams
    Up to `word_ngrams` words in a row; with `character_ngrams` also sequences of characters of a word, its edges
    counted as characters.
a document's value of an n-gram
    1 / √(number of its different n-grams) if it has it, else 0: how often counts nothing, length is levelled.
score
    Probability of the positive side after Platt scaling (Platt 1999), null for a text without n-grams.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_quality import classifier_kernels as kernels
from data_quality.judges_config import ClassifierConfig
from data_quality.sketch import text_buffers, word_forms
from data_quality.words import UNICODE_TABLE_VERSION, character_classes, fold_table

MODEL_VERSION = 2
"""Raised when the same n-grams, documents or settings give other weights or scores."""

MODEL_SCHEMA = pa.schema(
    [pa.field("bucket", pa.uint32(), nullable=False), pa.field("weight", pa.float32(), nullable=False)]
)
"""A model: the weights that are not zero, by bucket. Everything else stands as JSON in the metadata `model`."""

EXAMPLES = pa.schema(
    [
        pa.field("id", pa.binary(16), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
    ]
)
RELIABILITY_BINS = 10
_FIRST_SQUARE = 1e-3
_POWERS = np.ldexp(1.0, np.arange(-64, 65))
_POWERS.setflags(write=False)


class TooFewDocumentsError(ValueError):
    """Sets that no classifier can be trained on; the message says which and what is missing."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained model.

    Attributes
    ----------
    orders
        Longest word n-gram, shortest and longest character n-gram; 0 for none.
    bits
        There are 2^bits weights.
    weights
        float32[2^bits].
    bias
        Added to every document's sum.
    slope, intercept
        Of Platt scaling: probability = sigmoid(slope · margin + intercept).
    """

    orders: tuple[int, int, int]
    bits: int
    weights: npt.NDArray[np.float32]
    bias: float
    slope: float = 1.0
    intercept: float = 0.0

    def margins(self, texts: pa.LargeStringArray | pa.ChunkedArray) -> npt.NDArray[np.float64]:
        """The linear score of every text before calibration; NaN for one without n-grams."""
        data, offsets = text_buffers(texts)
        found = np.empty(offsets.size - 1, dtype=np.float64)
        kernels.score(data, offsets, _tables(), self.orders, self.bits, self.weights, self.bias, found)
        return found

    def scores(self, texts: pa.LargeStringArray | pa.ChunkedArray) -> pa.FloatArray:
        """The probability of the positive side, float32; null for a text without n-grams."""
        found = probabilities(self.margins(texts), self.slope, self.intercept)
        return pa.array(found.astype(np.float32), mask=np.isnan(found))

    def to_table(self) -> pa.Table:
        """The model as a table of schema MODEL_SCHEMA; the same model gives the same table."""
        buckets = np.flatnonzero(self.weights).astype(np.uint32)
        facts = {
            "version": MODEL_VERSION,
            "unicode_table": UNICODE_TABLE_VERSION,
            "orders": list(self.orders),
            "bits": self.bits,
            **{name: getattr(self, name).hex() for name in ("bias", "slope", "intercept")},
        }
        schema = MODEL_SCHEMA.with_metadata({"model": json.dumps(facts, sort_keys=True)})
        return pa.table([buckets, self.weights[buckets]], schema=schema)

    @classmethod
    def from_table(cls, table: pa.Table) -> Classifier:
        """Read what `to_table` made.

        Raises
        ------
        ValueError
            If the table is no model, or one of another version of the model or of the word table.
        """
        described = (table.schema.metadata or {}).get(b"model")
        if described is None or not table.schema.equals(MODEL_SCHEMA):
            raise ValueError("this is no model of a classifier: it lacks its columns or the metadata `model`")
        facts = json.loads(described)
        for name, expected in (("version", MODEL_VERSION), ("unicode_table", UNICODE_TABLE_VERSION)):
            if facts.get(name) != expected:
                raise ValueError(
                    f"the classifier has {name} {facts.get(name)}, this code needs {expected}: train it again"
                )
        weights = np.zeros(1 << facts["bits"], dtype=np.float32)
        weights[table.column("bucket").to_numpy()] = table.column("weight").to_numpy()
        numbers = (float.fromhex(facts[name]) for name in ("bias", "slope", "intercept"))
        return cls(tuple(facts["orders"]), facts["bits"], weights, *numbers)


def _tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """The tables that the kernels take."""
    return character_classes(), fold_table(), word_forms()


def probabilities(margins: npt.NDArray[np.float64], slope: float, intercept: float) -> npt.NDArray[np.float64]:
    """sigmoid(slope · margin + intercept)."""
    found = np.empty_like(margins)
    kernels.probabilities(margins, slope, intercept, _POWERS, found)
    return found


# ------------------------------------------------------------------------------------------------ examples


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """MurmurHash3's finaliser of every value."""
    values = values.copy()
    for factor in (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)):
        values = (values ^ (values >> np.uint64(33))) * factor
    found: npt.NDArray[np.uint64] = values ^ (values >> np.uint64(33))
    return found


def example_keys(ids: pa.Array | pa.ChunkedArray, seed: int) -> npt.NDArray[np.uint64]:
    """A hash of every id (16 bytes) and the seed: it says which documents are taken, held out, and when they come."""
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    data = np.frombuffer(array.buffers()[1] or b"", dtype=np.uint8)[
        16 * array.offset : 16 * (array.offset + len(array))
    ]
    halves = data.view("<u8").reshape(-1, 2).astype(np.uint64)
    return mix(halves[:, 0] ^ mix(halves[:, 1] + np.uint64(seed)))


def choose_examples(documents: pa.Table, config: ClassifierConfig) -> pa.Table:
    """At most `max_documents` of `documents` (columns id and text), those of the smallest keys, each id once.

    The result is in the order of the keys and is the same whatever the order of the rows: choosing among those chosen
    from pieces is choosing among all.
    """
    documents = documents.select(EXAMPLES.names)
    keys = example_keys(documents.column("id"), config.seed)
    _, first = np.unique(keys, return_index=True)
    return documents.take(pa.array(first[: config.max_documents]))


@dataclass(frozen=True)
class Examples:
    """Documents of both sides in the order of their keys.

    Attributes
    ----------
    texts
        large_string.
    labels
        uint8: 1 for the positive side.
    part
        uint8: 0 trains, 1 sets the calibration, 2 measures.
    overlap
        Documents that stood in both sides and were left out of both.
    """

    texts: pa.LargeStringArray
    labels: npt.NDArray[np.uint8]
    part: npt.NDArray[np.uint8]
    keys: npt.NDArray[np.uint64]
    overlap: int


TRAINING, CALIBRATION, TEST = 0, 1, 2
_PARTS = ("train on", "calibrate on", "measure on")


def join_examples(positive: pa.Table, negative: pa.Table, config: ClassifierConfig) -> Examples:
    """Both sides as one, without documents that stand in both, divided by hash of id.

    Exact copies have one id, so they are on one side of every division.

    Raises
    ------
    TooFewDocumentsError
        If a side is empty, or has none to train on, to calibrate on or to measure on.
    """
    for side, table in (("positive", positive), ("negative", negative)):
        if not table.num_rows:
            raise TooFewDocumentsError(f"the {side} side has no documents")
    tables = [choose_examples(side, config) for side in (negative, positive)]
    keys = np.concatenate([example_keys(table.column("id"), config.seed) for table in tables])
    labels = np.repeat(np.array([0, 1], dtype=np.uint8), [table.num_rows for table in tables])
    order = np.argsort(keys, kind="stable")
    twice = np.zeros(len(keys), dtype=bool)
    same = keys[order][1:] == keys[order][:-1]
    twice[order[1:][same]] = twice[order[:-1][same]] = True
    order = order[~twice[order]]
    texts = pa.concat_tables(tables).column("text").combine_chunks().take(pa.array(order))
    # Not the keys themselves: of those that were taken all may be small.
    place = mix(keys[order]) / 2.0**64
    part = np.where(place >= config.held_out, TRAINING, np.where(place < config.held_out / 2, TEST, CALIBRATION))
    found = Examples(texts, labels[order], part.astype(np.uint8), keys[order], int(twice.sum()) // 2)
    for label, side in enumerate(("negative", "positive")):
        for number, purpose in enumerate(_PARTS):
            if not np.any((found.labels == label) & (found.part == number)):
                total = int(np.sum(found.labels == label))
                raise TooFewDocumentsError(
                    f"of the {side} side's {total} documents ({found.overlap} stand in both sides and are left out) "
                    f"there is none to {purpose}: give more documents, or another held_out"
                )
    return found


# ------------------------------------------------------------------------------------------------ training


def train_classifier(
    positive: pa.Table, negative: pa.Table, config: ClassifierConfig, check: Callable[[], None] = lambda: None
) -> tuple[Classifier, dict[str, Any]]:
    """Train, calibrate and measure a classifier.

    Parameters
    ----------
    positive, negative
        Columns `id` and `text`, in any order; of each side at most `max_documents` are used.
    config
        How.
    check
        Called after every epoch; raises if the work must stop.

    Returns
    -------
    Classifier, dict
        The model, and what was measured on the held-out documents as plain values (`measure`), with the numbers of
        documents.

    Raises
    ------
    TooFewDocumentsError
        See `join_examples`.
    """
    examples = join_examples(positive, negative, config)
    shortest, longest = config.character_ngrams or (0, 0)
    orders = (config.word_ngrams, shortest, longest)
    model = _fit(examples, orders, config, check)
    margins = model.margins(examples.texts)
    usable = ~np.isnan(margins)

    def of(part: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
        rows = usable & (examples.part == part)
        return margins[rows], examples.labels[rows]

    slope, intercept = platt_scaling(*of(CALIBRATION))
    model = Classifier(orders, config.bucket_bits, model.weights, model.bias, slope, intercept)
    held_out, labels = of(TEST)
    counts = {
        side: {
            "given": table.num_rows,
            "used": int(np.sum(examples.labels == label)),
            **{
                name: int(np.sum((examples.labels == label) & (examples.part == part)))
                for name, part in (("train", TRAINING), ("calibration", CALIBRATION), ("test", TEST))
            },
        }
        for side, label, table in (("negative", 0, negative), ("positive", 1, positive))
    }
    report = {
        "config": asdict(config),
        "documents": {**counts, "in_both_sides": examples.overlap, "without_ngrams": int(np.sum(~usable))},
        "weights": int(np.count_nonzero(model.weights)),
        "platt": {"slope": _rounded(slope), "intercept": _rounded(intercept)},
        "test": measure(probabilities(held_out, slope, intercept), labels),
        "test_uncalibrated": measure(probabilities(held_out, 1.0, 0.0), labels),
    }
    return model, report


def _fit(
    examples: Examples, orders: tuple[int, int, int], config: ClassifierConfig, check: Callable[[], None]
) -> Classifier:
    rows = np.flatnonzero(examples.part == TRAINING)
    labels = examples.labels[rows]
    data, offsets = text_buffers(examples.texts.take(pa.array(rows)))
    counts = np.zeros(rows.size, dtype=np.int64)
    buckets = np.empty(int(offsets[-1] - offsets[0]) // 4, dtype=np.uint32)  # enough for most texts
    for _ in range(2):
        total = kernels.extract(data, offsets, _tables(), orders, config.bucket_bits, counts, buckets)
        if total <= buckets.size:
            break
        buckets = np.empty(total, dtype=np.uint32)
    bounds = np.concatenate(([0], np.cumsum(counts)))
    sizes = np.bincount(labels, minlength=2)
    class_weights = rows.size / (2.0 * sizes) if config.balance else np.ones(2)
    weights = np.zeros(1 << config.bucket_bits, dtype=np.float32)
    squares = np.full(weights.size, _FIRST_SQUARE, dtype=np.float32)
    bias = np.array([0.0, _FIRST_SQUARE])
    keys = examples.keys[rows]
    for epoch in range(config.epochs):
        check()
        order = np.argsort(mix(keys + np.uint64(epoch + 1)), kind="stable")
        kernels.train(
            buckets, bounds, labels, class_weights, order, epoch, config.epochs, config.learning_rate, config.l2,
            _POWERS, weights, squares, bias,
        )  # fmt: skip
    return Classifier(orders, config.bucket_bits, weights, float(bias[0]))


def platt_scaling(
    margins: npt.NDArray[np.float64], labels: npt.NDArray[np.uint8], iterations: int = 100
) -> tuple[float, float]:
    """The slope and the intercept of the sigmoid that fits the labels best, by damped Newton steps.

    With Platt's targets, (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2) in place of 1 and 0, which keep a perfect separation
    finite. A classifier that puts the negative side first has learnt nothing: its slope is 0, so that all documents
    have one score.
    """
    positive = int(labels.sum())
    high, low = (positive + 1.0) / (positive + 2.0), 1.0 / (labels.size - positive + 2.0)
    targets = np.where(labels == 1, high, low)
    slope, intercept = _newton(margins, targets, iterations)
    if slope > 0.0:
        return slope, intercept
    return 0.0, _newton(np.zeros_like(margins), targets, iterations)[1]


def _newton(margins: npt.NDArray[np.float64], targets: npt.NDArray[np.float64], iterations: int) -> tuple[float, float]:
    """Where the gradient of the log loss is zero. math.fsum rounds once, so how NumPy adds up does not matter."""
    slope, intercept = 1.0, 0.0
    p = probabilities(margins, slope, intercept)
    gradient = math.fsum((p - targets) * margins), math.fsum(p - targets)
    for _ in range(iterations):
        spread = p * (1.0 - p)
        ss = math.fsum(spread * margins * margins) + 1e-9
        si, ii = math.fsum(spread * margins), math.fsum(spread) + 1e-9
        determinant = ss * ii - si * si
        if determinant <= 0.0:
            break
        step_slope = (ii * gradient[0] - si * gradient[1]) / determinant
        step_intercept = (ss * gradient[1] - si * gradient[0]) / determinant
        size = gradient[0] * gradient[0] + gradient[1] * gradient[1]
        pace = 1.0
        while pace > 1e-6:
            tried = slope - pace * step_slope, intercept - pace * step_intercept
            p = probabilities(margins, *tried)
            gradient = math.fsum((p - targets) * margins), math.fsum(p - targets)
            if gradient[0] * gradient[0] + gradient[1] * gradient[1] < size:
                break
            pace /= 2.0
        else:
            break
        slope, intercept = tried
    return slope, intercept


# ------------------------------------------------------------------------------------------------ measuring


def measure(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """How good scores are as a judgement and as probabilities, as plain values.

    Parameters
    ----------
    scores
        float64[documents], probabilities of the label 1.
    labels
        uint8[documents], 0 or 1.

    Returns
    -------
    dict
        documents, positive; accuracy (score ≥ 0.5 means 1), majority (accuracy of always saying the commoner one);
        auc: the chance that a positive document scores above a negative one, ties half, null with one class;
        log_loss (natural logarithm), brier; expected_calibration_error: mean over documents of the distance between
        score and share of positives in their bin (Naeini et al. 2015, ten equal bins); reliability: a row a bin that
        is not empty.
    """
    total, positive = labels.size, int(labels.sum())
    if not total:
        return {"documents": 0}
    right = int(np.sum((scores >= 0.5) == (labels == 1)))
    bins = np.minimum((scores * RELIABILITY_BINS).astype(np.int64), RELIABILITY_BINS - 1)
    reliability, error = [], 0.0
    for number in range(RELIABILITY_BINS):
        inside = bins == number
        documents = int(inside.sum())
        if documents:
            mean, share = math.fsum(scores[inside]) / documents, int(labels[inside].sum()) / documents
            error += abs(mean - share) * documents / total
            reliability.append(
                {
                    "from": number / RELIABILITY_BINS,
                    "to": (number + 1) / RELIABILITY_BINS,
                    "documents": documents,
                    "mean_score": _rounded(mean),
                    "positive_share": _rounded(share),
                }
            )
    chance = np.clip(np.where(labels == 1, scores, 1.0 - scores), 1e-15, 1.0)
    return {
        "documents": total,
        "positive": positive,
        "accuracy": _rounded(right / total),
        "majority": _rounded(max(positive, total - positive) / total),
        "auc": area_under_curve(scores, labels),
        "log_loss": _rounded(-math.fsum(math.log(one) for one in chance.tolist()) / total),
        "brier": _rounded(math.fsum((scores - labels) ** 2) / total),
        "expected_calibration_error": _rounded(error),
        "reliability": reliability,
    }


def area_under_curve(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.uint8]) -> float | None:
    """Area under the ROC curve by counting pairs; None where one class is missing."""
    _, rank, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    positive = np.bincount(rank, weights=labels, minlength=sizes.size).astype(np.int64)
    negative = sizes - positive
    pairs = int(positive.sum()) * int(negative.sum())
    if not pairs:
        return None
    below = np.cumsum(negative) - negative
    return _rounded(int(np.sum(positive * (2 * below + negative))) / (2 * pairs))


def _rounded(value: float) -> float:
    """Six digits: what a person reads, and free of the last bits of logarithms."""
    return round(float(value), 6)
