"""How fast is model-based quality? A classifier trained and used, beside scikit-learn and fastText, one thread each.

Two kinds of documents are told apart: every 20th word is one of 50 made-up words, two thirds of them from the half that
belongs to the document's kind, so that long documents can be told and short ones hardly. Words and pairs of words in
2^20 buckets, 5 epochs. scikit-learn: HashingVectorizer
(binary, l2) and SGDClassifier (log loss); fastText: supervised, 16 dimensions, on text in lower case, read from a file.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.documents import amounts, load_texts, save_documents
from benchmarks.timing import Benchmark, Peer, Result, Work, main

BUCKET_BITS = 20
EPOCHS = 5


def sides(folder: Path) -> tuple[list[str], list[int]]:
    """Texts and labels."""
    strings = load_texts(folder).to_pylist()
    labels = [int(hashlib.blake2b(text.encode(), digest_size=4).hexdigest(), 16) % 2 for text in strings]
    return [marked(text, label) for text, label in zip(strings, labels, strict=True)], labels


def marked(text: str, label: int) -> str:
    """The text with words that tell its label, more or less."""
    words = text.split(" ")
    for i in range(0, len(words), 20):
        draw = int(hashlib.blake2b(f"{i} {text[:40]}".encode(), digest_size=4).hexdigest(), 16)
        words[i] = f"mark{draw % 25 + 25 * (label if draw // 25 % 3 else 1 - label)}"
    return " ".join(words)


def gristmill(folder: Path, train: bool) -> Work:
    """`train_classifier`, or `Classifier.scores`."""
    import pyarrow as pa

    from data_quality.classifier import train_classifier
    from data_quality.judges_config import ClassifierConfig

    strings, labels = sides(folder)
    size, texts = amounts(load_texts(folder)), pa.array(strings, pa.large_string())
    ids = pa.array([hashlib.blake2b(text.encode(), digest_size=16).digest() for text in strings], pa.binary(16))
    table, mask = pa.table({"id": ids, "text": texts}), pa.array([label == 1 for label in labels])
    positive, negative = table.filter(mask), table.filter(pa.array([label == 0 for label in labels]))
    config = ClassifierConfig(bucket_bits=BUCKET_BITS, epochs=EPOCHS, max_documents=10_000_000, held_out=0.02)
    train_classifier(positive.slice(0, 300), negative.slice(0, 300), config)  # compiles
    model = None if train else train_classifier(positive.slice(0, 3000), negative.slice(0, 3000), config)[0]

    def work() -> Result:
        if model is None:
            train_classifier(positive, negative, config)
            return Result(size)
        found = model.scores(texts)
        return Result(size, lambda: accuracy([(score or 0) >= 0.5 for score in found.to_pylist()], labels))

    return work


def scikit_learn(folder: Path, train: bool) -> Work:
    """The vectoriser and the classifier, fitted or used."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier

    strings, labels = sides(folder)
    size = amounts(load_texts(folder))
    vectorise = HashingVectorizer(
        ngram_range=(1, 2), n_features=1 << BUCKET_BITS, binary=True, alternate_sign=False, token_pattern=r"(?u)\w+"
    )
    model = SGDClassifier(loss="log_loss", max_iter=EPOCHS, tol=None, random_state=0)
    if not train:
        model.fit(vectorise.transform(strings[:6000]), labels[:6000])

    def work() -> Result:
        if train:
            model.fit(vectorise.transform(strings), labels)
            return Result(size)
        found = model.predict(vectorise.transform(strings))
        return Result(size, lambda: accuracy(found.tolist(), labels))

    return work


def fasttext(folder: Path, train: bool) -> Work:
    """`train_supervised` on a file, or `predict` line by line."""
    import fasttext as library

    strings, labels = sides(folder)
    size = amounts(load_texts(folder))
    lines = [" ".join(text.lower().split()) for text in strings]
    file = tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8")  # noqa: SIM115 (lives as long as `work`)

    def fit(number: int) -> Any:
        file.seek(0)
        file.truncate()
        pairs = zip(lines[:number], labels[:number], strict=True)
        file.writelines(f"__label__{label} {line}\n" for line, label in pairs)
        file.flush()
        return library.train_supervised(
            file.name, wordNgrams=2, epoch=EPOCHS, lr=0.5, dim=16, bucket=1 << BUCKET_BITS, thread=1, verbose=0
        )

    model = None if train else fit(6000)

    def work() -> Result:
        if model is None:
            fit(len(lines))
            return Result(size)
        found = [model.f.predict(f"{line}\n", 1, 0.0, "strict")[0][1] == "__label__1" for line in lines]
        return Result(size, lambda: accuracy(found, labels))

    return work


def accuracy(found: list[Any], labels: list[int]) -> float:
    """Share of documents that are called what they are."""
    return math.fsum(bool(one) == bool(label) for one, label in zip(found, labels, strict=True)) / len(labels)


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """How often each is right."""
    return {peer: f"accuracy {found:.2%}" for peer, found in outcomes.items() if found is not None}


def peers() -> dict[str, Peer]:
    """Those that are installed, twice: training and scoring."""
    known = {"gristmill": gristmill, "scikit-learn": scikit_learn, "fastText": fasttext}
    packages = {"gristmill": "gristmill", "scikit-learn": "scikit-learn", "fastText": "fasttext-wheel"}
    there = {
        name: peer
        for name, peer in known.items()
        if list(importlib.metadata.Distribution.discover(name=packages[name]))
    }
    return {
        f"{name}, {what}": partial(peer, train=what == "training")
        for what in ("scoring", "training")
        for name, peer in there.items()
    }


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, reading and marking the texts, compiling, for fastText lower case and white space; for scoring, "
            "training on 6,000 documents.",
            save_documents,
            peers(),
            judge,
            documents=20_000,
            repetitions=3,
            packages=("numba", "numpy", "pyarrow"),
            environment={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    )
