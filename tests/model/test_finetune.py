"""Fine-tuning: what is read, in which order, resumed to the bit, and beside its baselines."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import model.finetune
from model.checkpoint import CheckpointError
from model.classifier import Classifier, load_classifier
from model.config import ModelConfig
from model.finetune import (
    Examples,
    choose_classes,
    epoch_batches,
    finetune,
    make_examples,
    make_optimiser,
    parse_job,
    predict,
    schedule,
)
from model.finetune_config import FinetuneConfig
from model.metrics import read_metrics
from model.train import TrainingDiverged
from tests.conftest import REPOSITORY
from tests.model.tiny import CAUSAL, END, tiny_model, tiny_tokenizer, write_checkpoint

torch.set_num_threads(1)


def identity(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


@given(st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=2, max_size=40), st.integers(2, 4))
def test_classes_are_the_most_frequent_labels_ties_by_name(labels: list[str | None], limit: int) -> None:
    counts = Counter(label for label in labels if label)
    if len(counts) < 2:
        with pytest.raises(ValueError, match="two labels or more"):
            choose_classes(labels, limit)
        return
    classes = choose_classes(labels, limit)
    assert len(classes) == min(limit, len(counts))
    ranks = [(-counts[name], name) for name in classes]
    assert ranks == sorted(ranks)
    assert all((-counts[name], name) > ranks[-1] for name in set(counts) - set(classes))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_takes_every_document_once_whatever_order_they_came_in(count: int, size: int, epoch: int) -> None:
    ids = [identity(str(i)) for i in range(count)]
    lengths = [1 + ids[i][0] % 30 for i in range(count)]
    examples = Examples(ids, [[0] * length for length in lengths], [""] * count, [0] * count)
    batches = epoch_batches(examples, size, seed=5, epoch=epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(count))
    assert len(batches) == -(-count // size)
    turned = Examples(ids[::-1], [[0] * length for length in lengths[::-1]], [""] * count, [0] * count)
    again = epoch_batches(turned, size, seed=5, epoch=epoch)
    assert [sorted(ids[i] for i in batch) for batch in batches] == [
        sorted(ids[count - 1 - i] for i in b) for b in again
    ]


def test_batches_differ_between_epochs_and_hold_documents_of_similar_length() -> None:
    ids = [identity(str(i)) for i in range(400)]
    examples = Examples(ids, [[0] * (1 + i % 97) for i in range(400)], [""] * 400, [0] * 400)
    first, second = (epoch_batches(examples, 8, seed=5, epoch=epoch) for epoch in (0, 1))
    assert first != second
    padded = sum(len(batch) * max(len(examples.tokens[i]) for i in batch) for batch in first)
    assert padded < 1.1 * sum(map(len, examples.tokens))


def test_texts_are_cut_where_the_model_stops_reading() -> None:
    tokenizer = tiny_tokenizer()
    texts = ["naïve 🙂 café " * 5, "short", ""]
    labelled = ([identity(text) for text in texts], texts, ["x", "y", "y"])
    examples = make_examples(labelled, ("y", "x"), tokenizer, end=0, max_length=9, limit=0, seed=1)
    assert examples.ids == sorted(examples.ids)
    for number, tokens, text, label in zip(examples.ids, examples.tokens, examples.texts, examples.labels, strict=True):
        original = texts[labelled[0].index(number)]
        assert tokens == [0, *tokenizer.encode(original).ids[:8]]
        assert original.startswith(text)
        assert tokenizer.encode(text).ids[: len(tokens) - 1] == tokens[1:] or "🙂" in text
        assert label == (1 if original == texts[0] else 0)
    assert len(examples.texts[examples.labels.index(1)]) < len(texts[0])


def test_samples_depend_on_seed_and_ids_only() -> None:
    tokenizer = tiny_tokenizer()
    texts = [f"text {i}" for i in range(50)]
    ids = [identity(text) for text in texts]
    labels: list[str | None] = [None if i % 10 == 0 else "ab"[i % 2] for i in range(50)]
    how: dict[str, Any] = {"end": 0, "max_length": 8, "limit": 20}
    chosen = make_examples((ids, texts, labels), ("a", "b"), tokenizer, seed=1, **how)
    turned = make_examples((ids[::-1], texts[::-1], labels[::-1]), ("a", "b"), tokenizer, seed=1, **how)
    other = make_examples((ids, texts, labels), ("a", "b"), tokenizer, seed=2, **how)
    assert chosen == turned
    assert len(chosen.ids) == 20
    assert chosen.ids != other.ids


@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_no_prediction(causal: bool) -> None:
    tokenizer = tiny_tokenizer()
    shape = ModelConfig(layers=2, width=32, heads=4, kv_heads=2, max_positions=32, causal=causal)
    classifier = Classifier(shape, 400, 3)
    classifier.initialise(1)
    classifier.initialise_head(1)
    rows = [tokenizer.encode(text).ids[:20] for text in ("a", "the quick brown fox jumps", "over")]
    tokens = torch.full((3, 25), 7)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    with torch.no_grad():
        together = classifier.class_logits(tokens, torch.tensor([len(row) for row in rows]))
        for i, row in enumerate(rows):
            alone = classifier.class_logits(torch.tensor([row]), torch.tensor([len(row)]))
            torch.testing.assert_close(together[i], alone[0], rtol=1e-5, atol=1e-6)


def test_the_schedule_warms_up_and_ends_near_zero() -> None:
    shares = [schedule(step, 100, 0.1) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == shares[9] == shares[10] == 1.0
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert 0 < shares[-1] < 0.001
    assert schedule(0, 1, 0.0) == 1.0


# ---------------------------------------------------------------------------------------------------- whole jobs


def labelled_file(path: Path, count: int, offset: int = 0) -> str:
    """Documents whose label is a word in them, some with a rare label and some with none."""
    words = {"cats": "purr softly at night", "dogs": "bark loudly in the yard", "fish": "swim in the lake"}
    texts, labels = [], []
    for i in range(offset, offset + count):
        label = list(words)[i % 3]
        texts.append(f"Number {i % 97}: they {words[label]}, {'and again ' * (i % 4)}as number {i * 7 % 13} does.")
        labels.append("rare" if i % 20 == 7 else None if i % 20 == 8 else label)
    table = {
        "id": pa.array([identity(text) for text in texts], pa.binary(16)),
        "text": pa.array(texts, pa.large_string()),
        "label": pa.array(labels, pa.string()),
    }
    pq.write_table(pa.table(table), path)
    return str(path)


AUGMENT = {
    "token_noise": 0.05, "token_dropout": 0.05, "span_masking": 0.1, "mask_token": END, "sentence_shuffle": 0.5,
    "synonym_rate": 0.5, "seed": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A job without output and attempt: a pretrained checkpoint and labelled documents."""
    folder = tmp_path_factory.mktemp("finetune")
    tokenizer = tiny_tokenizer()
    pretrained = write_checkpoint(folder / "pretrain", tiny_model(tokenizer, max_positions=64), tokenizer)
    return {
        "task": "finetune",
        "checkpoint": str(pretrained),
        "tokenizer": str(pretrained / "tokenizer.json"),
        "train": labelled_file(folder / "train.parquet", 120),
        "test": labelled_file(folder / "test.parquet", 60, offset=1000),
        "finetune": {
            "classes": 3,
            "max_length": 64,
            "epochs": 8,
            "batch_size": 8,
            "learning_rate": 3e-3,
            "head_learning_rate": 1e-2,
            "checkpoint_every": 7,
        },
        "resources": {"threads": 1, "device": "cpu"},
    }


def test_fine_tuning_learns_and_stands_beside_its_baselines(inputs: dict[str, Any], tmp_path: Path) -> None:
    result = finetune(parse_job({**inputs, "output": str(tmp_path), "attempt": "one"}))
    assert result == json.loads((tmp_path / "final.json").read_text())
    assert result["classes"] == ["cats", "dogs", "fish"]
    assert result["examples"]["train"] == 108
    assert result["examples"]["train_labelled"] == 120
    assert result["accuracy"] > 0.9
    assert result["baselines"]["bag_of_words"]["accuracy"] > 0.9
    assert result["baselines"]["majority"]["accuracy"] < 0.5
    assert sum(map(sum, result["confusion"])) == result["examples"]["test"]
    lines = read_metrics(str(tmp_path))
    assert [line["step"] for line in lines] == list(range(1, 8 * 14 + 1))
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert {"learning_rate", "seconds", "tokens_per_second"} <= set(lines[0])
    classifier, classes = load_classifier(tmp_path)
    assert list(classes) == result["classes"]
    assert classifier.config == tiny_model(tiny_tokenizer(), max_positions=64).config
    done_again = finetune(parse_job({**inputs, "output": str(tmp_path), "attempt": "two"}))
    assert done_again == result


@pytest.mark.parametrize("augmented", [False, True])
def test_a_stopped_and_killed_fine_tuning_resumes_to_the_same_bits(
    inputs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augmented: bool
) -> None:
    inputs = {**inputs, "finetune": {**inputs["finetune"], "epochs": 3}}
    if augmented:
        (tmp_path / "synonyms.tsv").write_text("softly\tquietly\tgently\nloudly\tnoisily\n")
        inputs["finetune"]["augment"] = {**AUGMENT, "synonyms": str(tmp_path / "synonyms.tsv")}
    whole = finetune(parse_job({**inputs, "output": str(tmp_path / "whole"), "attempt": "undisturbed"}))
    broken = tmp_path / "broken"

    # Stopped in the middle of step 5: that step is finished and saved
    steps = itertools.count(1)

    def interrupted(*arguments: Any) -> Any:
        if next(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    step = model.finetune._step
    with monkeypatch.context() as patch:
        patch.setattr("model.finetune._step", interrupted)
        stopped = finetune(parse_job({**inputs, "output": str(broken), "attempt": "stopped"}))
    assert stopped == {"checkpoint": "checkpoints/00000005-stopped", "step": 5, "stopped": signal.SIGTERM}

    # Killed some steps after the next checkpoint: those steps are done again
    job = tmp_path / "job.json"
    job.write_text(json.dumps({**inputs, "output": str(broken), "attempt": "killed"}))
    process = subprocess.Popen(
        [sys.executable, "-m", "model.finetune", str(job)], cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    while process.poll() is None and not list(broken.glob("checkpoints/*-killed/manifest.json")):
        time.sleep(0.005)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL

    resumed = finetune(parse_job({**inputs, "output": str(broken), "attempt": "resumed"}))
    assert {**resumed, "checkpoint": ""} == {**whole, "checkpoint": ""}
    losses = [[line["loss"] for line in read_metrics(str(output))] for output in (broken, tmp_path / "whole")]
    assert losses[0] == losses[1]


def test_an_output_of_other_settings_is_not_gone_on_with(inputs: dict[str, Any], tmp_path: Path) -> None:
    settings_of = {**inputs["finetune"], "steps": 2}
    finetune(parse_job({**inputs, "finetune": settings_of, "output": str(tmp_path), "attempt": "one"}))
    other = {**inputs, "finetune": {**settings_of, "learning_rate": 1.0}, "output": str(tmp_path), "attempt": "two"}
    with pytest.raises(CheckpointError, match="another training"):
        finetune(parse_job(other))


def test_documents_are_shown_otherwise_in_every_epoch_and_scored_as_they_are(
    inputs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[bool, list[tuple[tuple[int, ...], ...]]] = {False: [], True: []}
    scored: dict[bool, list[list[list[int]]]] = {False: [], True: []}
    step, score = model.finetune._step, model.finetune.predict
    for augmented in (False, True):

        def watched(classifier: Any, optimiser: Any, documents: Any, *rest: Any, on: bool = augmented) -> Any:
            shown[on].append(tuple(tuple(document) for document in documents))
            return step(classifier, optimiser, documents, *rest)

        def counted(classifier: Any, examples: Any, on: bool = augmented, **settings: Any) -> Any:
            scored[on].append(examples.tokens)
            return score(classifier, examples, **settings)

        monkeypatch.setattr("model.finetune._step", watched)
        monkeypatch.setattr("model.finetune.predict", counted)
        settings_of = {**inputs["finetune"], "epochs": 2, "augment": {"token_noise": 0.2} if augmented else {}}
        output = {"output": str(tmp_path / str(augmented)), "attempt": "one"}
        finetune(parse_job({**inputs, "finetune": settings_of, **output}))
    assert scored[True] == scored[False]
    plain, changed = ([document for batch in shown[on] for document in batch] for on in (False, True))
    assert len(plain) == len(changed) == 2 * 108
    assert sorted(plain[:108]) == sorted(plain[108:])
    assert not set(changed[:108]) & set(changed[108:])
    for before, after in zip(plain, changed, strict=True):
        assert len(before) == len(after)
        assert before[0] == after[0]
        assert before != after


def test_a_run_that_diverges_stops_and_says_so(inputs: dict[str, Any], tmp_path: Path) -> None:
    wild = {**inputs["finetune"], "head_learning_rate": 1e38, "learning_rate": 1e38}
    with pytest.raises(
        TrainingDiverged, match=r"5 steps in a row had a non-finite loss.*lower finetune\.learning_rate"
    ):
        finetune(parse_job({**inputs, "finetune": wild, "output": str(tmp_path), "attempt": "one"}))
    assert [line.get("skipped") for line in read_metrics(str(tmp_path))][-5:] == ["non-finite loss"] * 5


def test_frozen_layers_do_not_move(inputs: dict[str, Any], tmp_path: Path) -> None:
    frozen = {**inputs["finetune"], "freeze_layers": 1, "steps": 3}
    finetune(parse_job({**inputs, "finetune": frozen, "output": str(tmp_path), "attempt": "one"}))
    before = tiny_model(tiny_tokenizer(), max_positions=64).state_dict()
    for name, value in load_classifier(tmp_path)[0].state_dict().items():
        if name in before:
            moved = not torch.equal(value, before[name])
            assert moved == (not name.startswith(("model.embed_tokens", "model.layers.0."))), name
    with pytest.raises(ValueError, match="freeze_layers = 3, but the model has 2"):
        make_optimiser(Classifier(CAUSAL, 10, 2), FinetuneConfig(freeze_layers=3))


def test_a_bidirectional_model_is_fine_tuned_too(inputs: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    bidirectional = tiny_model(tokenizer, max_positions=64, causal=False, tie_embeddings=False)
    pretrained = write_checkpoint(tmp_path / "pretrain", bidirectional, tokenizer)
    job = {**inputs, "checkpoint": str(pretrained), "output": str(tmp_path / "output"), "attempt": "one"}
    assert finetune(parse_job(job))["accuracy"] > 0.9


def test_predictions_do_not_depend_on_the_batch_size(inputs: dict[str, Any]) -> None:
    tokenizer = tiny_tokenizer()
    table = pq.read_table(inputs["test"])
    labelled = (table["id"].to_pylist(), table["text"].to_pylist(), table["label"].to_pylist())
    examples = make_examples(labelled, ("cats", "dogs", "fish"), tokenizer, end=0, max_length=30, limit=0, seed=1)
    classifier = Classifier(CAUSAL, tokenizer.get_vocab_size(), 3)
    classifier.initialise(1)
    classifier.initialise_head(1)
    one, many = (predict(classifier, examples, batch_size=size) for size in (1, 64))
    assert one[0] == many[0]
    assert one[1] == pytest.approx(many[1], rel=1e-5)


def test_wrong_jobs_are_refused_by_name(inputs: dict[str, Any], tmp_path: Path) -> None:
    job = {**inputs, "output": str(tmp_path), "attempt": "one"}
    with pytest.raises(ValueError, match="unknown field epoch"):
        parse_job({**job, "finetune": {"epoch": 3}})
    with pytest.raises(ValueError, match="'test' is missing"):
        parse_job({name: value for name, value in job.items() if name != "test"})
    with pytest.raises(ValueError, match="knows only 'finetune'"):
        parse_job({**job, "task": "pretrain"})
    with pytest.raises(ValueError, match=r"max_length = 65 is more than model\.max_positions = 64"):
        finetune(parse_job({**job, "finetune": {"max_length": 65}}))
    pq.write_table(pa.table({"id": [b"1"], "text": ["a"]}), tmp_path / "unlabelled.parquet")
    with pytest.raises(ValueError, match=r"unlabelled\.parquet: labelled documents need the column 'label'"):
        finetune(parse_job({**job, "train": str(tmp_path / "unlabelled.parquet")}))
