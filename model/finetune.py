"""A pretrained model taught to classify documents: one linear head on its hidden states, all of it trained.

A causal model is read at the last token of the document, a bidirectional one as the mean over its tokens. The order of
batches is a pure function of (seed, epoch, index), so a stopped run resumes to the same bits on one device. The result
stands beside what a majority vote and a bag of words reach on the same documents.

Run as `python -m model.finetune job.json`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from model import checkpoint
from model.augment import Augmenter, make_augmenter
from model.augment_text import named_by_content
from model.baselines import baselines, classification_scores
from model.checkpoint import CheckpointError, TrainingState
from model.classifier import Classifier, load_pretrained
from model.config import ModelConfig, TrainingConfig, TrainingResources, from_mapping
from model.finetune_config import FinetuneConfig
from model.generate import end_token_id, load_tokenizer, vocabulary_rows
from model.metrics import MetricsFile
from model.numerics import numerics
from model.optimisers import clip_gradients, gradient_norm
from model.parallel import Ranks, start_ranks
from model.train import StepTaken, TrainingDiverged, after_step, is_due, step_line, stop_signals
from storage.filesystem import Store, digest_stream

WINDOW_BATCHES = 16
"""Documents are sorted by length within a window of so many batches: little padding, and still well shuffled."""

NONFINITE_LIMIT = 5
"""Steps with a non-finite loss or gradient in a row that stop a run."""

KEEP_CHECKPOINTS = 2

logger = logging.getLogger("model.finetune")


@dataclass(frozen=True)
class Examples:
    """Labelled documents ready for a model: ids, token ids (context token first), the text that they cover, classes."""

    ids: list[bytes]
    tokens: list[list[int]]
    texts: list[str]
    labels: list[int]


def choose_classes(labels: Sequence[str | None], limit: int) -> tuple[str, ...]:
    """The `limit` most frequent labels (ties by name), most frequent first. Raises ValueError for fewer than two."""
    counts = Counter(label for label in labels if label is not None)
    names = tuple(sorted(counts, key=lambda name: (-counts[name], name))[:limit])
    if len(names) < 2:
        raise ValueError(f"classification needs two labels or more; the training documents have {len(names)}")
    return names


def read_labelled(path: str) -> tuple[list[bytes], list[str], list[str | None]]:
    """Ids, texts and labels of a Parquet file. Raises ValueError naming the file and the column it lacks."""
    names = pq.read_schema(path).names
    if missing := [name for name in ("id", "text", "label") if name not in names]:
        raise ValueError(f"{path}: labelled documents need the column {missing[0]!r}, there are {', '.join(names)}")
    table = pq.read_table(path, columns=["id", "text", "label"])
    return table["id"].to_pylist(), table["text"].to_pylist(), table["label"].to_pylist()


def keyed_order(ids: Sequence[bytes], *key: int | str) -> list[int]:
    """Indices of `ids` in an order drawn from `key` and the ids alone: whatever order they came in, it is the same."""
    secret = "/".join(map(str, key)).encode()
    return sorted(range(len(ids)), key=lambda i: (hashlib.blake2b(ids[i], key=secret, digest_size=8).digest(), ids[i]))


def make_examples(
    labelled: tuple[list[bytes], list[str], list[str | None]],
    classes: Sequence[str],
    tokenizer: Tokenizer,
    *,
    end: int,
    max_length: int,
    limit: int,
    seed: int,
) -> Examples:
    """The documents of known classes, at most `limit` (0: all) drawn by seed and id, cut at `max_length` tokens.

    A document is read as it was in pretraining: the end token, then its text. The texts are cut at the character where
    the last token ends, so that baselines see what the model sees.
    """
    ids, texts, labels = labelled
    number = {name: i for i, name in enumerate(classes)}
    rows = [i for i, label in enumerate(labels) if label in number]
    if limit and limit < len(rows):
        rows = [rows[i] for i in keyed_order([ids[row] for row in rows], "sample", seed)[:limit]]
    rows.sort(key=lambda row: (ids[row], row))
    encodings = tokenizer.encode_batch([texts[row] for row in rows], add_special_tokens=False)
    kept = max_length - 1
    return Examples(
        ids=[ids[row] for row in rows],
        tokens=[[end, *encoding.ids[:kept]] for encoding in encodings],
        texts=[
            texts[row] if len(encoding.ids) <= kept else texts[row][: encoding.offsets[kept - 1][1]]
            for row, encoding in zip(rows, encodings, strict=True)
        ],
        labels=[number[str(labels[row])] for row in rows],
    )


def epoch_batches(examples: Examples, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of an epoch, as indices: every document once, of similar length, in an order drawn by seed and epoch.

    A pure function of its arguments: nothing of it is saved, and a resumed run takes up at any index.
    """
    order = keyed_order(examples.ids, "epoch", seed, epoch)
    size = batch_size * WINDOW_BATCHES
    batches = []
    for start in range(0, len(order), size):
        window = sorted(order[start : start + size], key=lambda i: len(examples.tokens[i]))
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    return [batches[i] for i in keyed_order([str(i).encode() for i in range(len(batches))], "batches", seed, epoch)]


def pad(sequences: Sequence[Sequence[int]], padding: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens int64 (B, T) padded on the right, and lengths int64 (B,)."""
    lengths = [len(sequence) for sequence in sequences]
    tokens = torch.full((len(sequences), max(lengths)), padding, dtype=torch.int64)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = torch.as_tensor(sequence)
    return tokens.to(device), torch.tensor(lengths, device=device)


def schedule(step: int, steps: int, warmup: float) -> float:
    """The share of the peak learning rate at a step counted from 0: linear warm-up, then half a cosine to zero."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def make_optimiser(classifier: Classifier, config: FinetuneConfig) -> torch.optim.AdamW:
    """AdamW with a learning rate of its own for the head; no decay on norms and embedding, no step for what is frozen.

    `freeze_layers` takes the embedding and the lowest blocks out of training. Each group remembers its peak rate as
    `peak`. Raises ValueError when more blocks are to be frozen than there are.
    """
    trunk = classifier.model
    if config.freeze_layers > len(trunk.layers):
        raise ValueError(
            f"finetune.freeze_layers = {config.freeze_layers}, but the model has {len(trunk.layers)} layers"
        )
    if config.freeze_layers:
        trunk.embed_tokens.requires_grad_(False)
        for block in list(trunk.layers)[: config.freeze_layers]:
            block.requires_grad_(False)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad:
            peak = config.head_learning_rate if name.startswith("score.") else config.learning_rate
            decay = config.weight_decay if parameter.ndim > 1 and "embed_tokens" not in name else 0.0
            groups.setdefault((peak, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay}
            for (peak, decay), parameters in groups.items()
        ],
        fused=True,
    )


@torch.no_grad()
def predict(
    classifier: Classifier, examples: Examples, *, batch_size: int, precision: str = "fp32"
) -> tuple[list[int], float]:
    """The likeliest class of every document, and the mean cross-entropy in nats. Batched by length."""
    device = classifier.score.weight.device
    padding = examples.tokens[0][0]
    predicted = [0] * len(examples.tokens)
    losses = [0.0] * len(examples.tokens)
    was_training = classifier.training
    classifier.eval()
    order = sorted(range(len(examples.tokens)), key=lambda i: len(examples.tokens[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        tokens, lengths = pad([examples.tokens[i] for i in rows], padding, device)
        gold = torch.tensor([examples.labels[i] for i in rows], device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = classifier.class_logits(tokens, lengths)
        nats = F.cross_entropy(logits.float(), gold, reduction="none")
        for i, choice, loss in zip(rows, logits.argmax(dim=1).tolist(), nats.tolist(), strict=True):
            predicted[i], losses[i] = choice, loss
    classifier.train(was_training)
    return predicted, math.fsum(losses) / len(losses)


# -------------------------------------------------------------------------------------------------------- the run


@dataclass(frozen=True)
class Job:
    """What a job file says. `output` is a folder or store URL, `attempt` a word no other attempt uses."""

    checkpoint: str
    tokenizer: str
    train: str
    test: str
    finetune: FinetuneConfig
    resources: TrainingResources
    output: str
    attempt: str
    end_id: int | None

    def identity(self, config: ModelConfig, vocabulary_size: int, classes: Sequence[str]) -> dict[str, Any]:
        """What a checkpoint belongs to: the model, the settings, and the data by digest, without the paths."""
        inputs = {"train": self.train, "test": self.test, "tokenizer": self.tokenizer}
        digests = {}
        for name, path in inputs.items():
            with Path(path).open("rb") as stream:
                digests[name] = digest_stream(stream)
        return {
            "model": {**asdict(config), "vocabulary_size": vocabulary_size},
            "training": named_by_content(asdict(self.finetune)),
            "tokens": digests,
            "classes": list(classes),
        }


def parse_job(values: Mapping[str, Any], name: str = "job") -> Job:
    """The job of a decoded job file. Raises ValueError naming the field that is missing, unknown or wrong."""
    try:
        if values["task"] != "finetune":
            raise ValueError(f"{name}: task = {values['task']!r}, but model.finetune knows only 'finetune'")
        return Job(
            checkpoint=values["checkpoint"],
            tokenizer=values["tokenizer"],
            train=values["train"],
            test=values["test"],
            finetune=from_mapping(FinetuneConfig, values["finetune"], f"{name}: finetune"),
            resources=from_mapping(TrainingResources, values.get("resources", {}), f"{name}: resources"),
            output=values["output"],
            attempt=values["attempt"],
            end_id=values.get("end_id"),
        )
    except KeyError as missing:
        raise ValueError(f"{name}: the field {missing} is missing") from None


def finetune(job: Job) -> dict[str, Any]:
    """Train to the last step, or until told to stop, and score the result.

    Returns
    -------
    dict
        `accuracy`, `macro_f1`, `loss`, `confusion`, `per_class` on the test documents; `baselines` on the same;
        `classes`, `examples`, `checkpoint` (folder in the output), `tensor_digest`, `step`; written to `final.json`
        as well. Stopped by a signal, it holds `checkpoint`, `step` and `stopped` (the signal's number) only.

    Raises
    ------
    TrainingDiverged
        when the loss or the gradient is not finite several steps in a row.
    """
    config = job.finetune
    ranks = start_ranks(job.resources)
    if ranks.count > 1:
        raise ValueError(f"fine-tuning runs in one process, resources.processes = {job.resources.processes}")
    torch.manual_seed(config.seed)
    store = Store(job.output)
    tokenizer = load_tokenizer(job.tokenizer)
    end = end_token_id(tokenizer) if job.end_id is None else job.end_id
    labelled, tested = read_labelled(job.train), read_labelled(job.test)
    classes = choose_classes(labelled[2], config.classes)
    train, test = (
        make_examples(
            documents, classes, tokenizer, end=end, max_length=config.max_length, limit=limit, seed=config.seed
        )
        for documents, limit in ((labelled, config.max_documents), (tested, config.max_test_documents))
    )
    if not test.ids:
        raise ValueError(f"{job.test}: none of its documents has one of the classes {', '.join(classes)}")

    classifier = load_pretrained(job.checkpoint, len(classes), config.seed)
    if config.max_length > classifier.config.max_positions:
        raise ValueError(
            f"finetune.max_length = {config.max_length} is more than model.max_positions = "
            f"{classifier.config.max_positions}"
        )
    if vocabulary_rows(tokenizer) > classifier.vocabulary_size:
        raise ValueError(f"{job.tokenizer} has more tokens than the model in {job.checkpoint} was made for")
    augmenter = make_augmenter(config.augment, job.tokenizer, classifier.vocabulary_size, end)
    classifier.to(ranks.device)
    optimiser = make_optimiser(classifier, config)
    identity = job.identity(classifier.config, classifier.vocabulary_size, classes)
    state, folder = _resume(store, classifier, optimiser, identity, ranks)
    state, folder, stopped = _train(job, classifier, optimiser, train, augmenter, state, folder, identity, store, ranks)
    if stopped:
        return {"checkpoint": folder, "step": state.step, "stopped": stopped}

    predicted, loss = predict(classifier, test, batch_size=4 * config.batch_size, precision=config.precision)
    scores = classification_scores(test.labels, predicted, classes)
    result = {
        **scores,
        "loss": loss,
        "classes": list(classes),
        "baselines": baselines(train.texts, train.labels, test.texts, test.labels, classes),
        "examples": {
            "train": len(train.ids),
            "test": len(test.ids),
            "train_labelled": len(labelled[0]),
            "test_labelled": len(tested[0]),
            "train_truncated": sum(len(ids) == config.max_length for ids in train.tokens),
        },
        "step": state.step,
        "checkpoint": folder,
        "tensor_digest": store.read_json(f"{folder}/manifest.json")["tensor_digest"],
    }
    store.replace("final.json", (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    return result


def _resume(
    store: Store, classifier: Classifier, optimiser: torch.optim.Optimizer, identity: dict[str, Any], ranks: Ranks
) -> tuple[TrainingState, str | None]:
    """Put the newest valid checkpoint of this output, if there is one, into the classifier."""
    folder = checkpoint.newest_valid(store)
    if folder is None:
        return TrainingState(), None
    stored = store.read_json(f"{folder}/config.json")
    if different := sorted(part for part in identity if stored.get(part) != identity[part]):
        raise CheckpointError(
            f"checkpoint {store.url}/{folder} was made with another {' and another '.join(different)} than the job "
            "has; fine-tune into another output folder"
        )
    return checkpoint.load(store, folder, classifier, optimiser, identity, ranks), folder


def _train(
    job: Job,
    classifier: Classifier,
    optimiser: torch.optim.Optimizer,
    examples: Examples,
    augmenter: Augmenter | None,
    state: TrainingState,
    folder: str | None,
    identity: dict[str, Any],
    store: Store,
    ranks: Ranks,
) -> tuple[TrainingState, str, int]:
    """The loop: the state and the checkpoint at its end, and the signal that stopped it (0: none, it is finished)."""
    config = job.finetune
    an_epoch = -(-len(examples.ids) // config.batch_size)
    steps = config.steps or config.epochs * an_epoch
    standing = TrainingConfig(batch_sequences=config.batch_size, precision=config.precision)
    lineage = {
        "numerics": numerics(standing, replace(job.resources, micro_batch_sequences=0, compile=False), ranks),
        "parent": folder,
    }
    epoch, batches = -1, list[list[int]]()
    classifier.train()
    with stop_signals() as stop:
        metrics = MetricsFile(store, job.attempt, state.step)
        while state.step < steps:
            started = time.perf_counter()
            if epoch != state.step // an_epoch:
                epoch = state.step // an_epoch
                batches = epoch_batches(examples, config.batch_size, config.seed, epoch)
            share = schedule(state.step, steps, config.warmup)
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * share
            rows = batches[state.step % an_epoch]
            shown = [examples.tokens[i] for i in rows]
            if augmenter is not None:  # the epoch and the document say which showing of it this is
                places = [epoch * len(examples.ids) + i for i in rows]
                shown = [
                    augmenter.sequence(tokens, place, config.max_length)
                    for tokens, place in zip(shown, places, strict=True)
                ]
            taken = _step(classifier, optimiser, shown, [examples.labels[i] for i in rows], config, ranks)
            state = after_step(state, taken, len(rows))
            metrics.write(step_line(state, taken, config.learning_rate * share, time.perf_counter() - started))
            if state.skipped_in_row >= NONFINITE_LIMIT:
                metrics.close()
                raise TrainingDiverged(
                    f"{state.skipped_in_row} steps in a row had a {taken.problem} (the last is step {state.step}); "
                    "lower finetune.learning_rate"
                )
            last = state.step == steps
            if last or stop or is_due(state.step, config.checkpoint_every):
                metrics.flush()
                folder = checkpoint.save(
                    store, job.attempt, classifier, optimiser, state, identity, {**lineage, "parent": folder}, ranks
                )
                checkpoint.retain(store, KEEP_CHECKPOINTS)
            if stop:
                break
        metrics.close()
    assert folder is not None  # at least one step was done or loaded
    return state, folder, stop[0] if stop and state.step < steps else 0


def _step(
    classifier: Classifier,
    optimiser: torch.optim.Optimizer,
    documents: Sequence[Sequence[int]],
    labels: Sequence[int],
    config: FinetuneConfig,
    ranks: Ranks,
) -> StepTaken:
    """One optimiser step on some documents; a non-finite loss or gradient leaves weights and moments alone."""
    tokens, lengths = pad(documents, documents[0][0], ranks.device)
    gold = torch.tensor(labels, device=ranks.device)
    optimiser.zero_grad()
    with torch.autocast(ranks.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        logits = classifier.class_logits(tokens, lengths)
    loss = F.cross_entropy(logits.float(), gold)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = gradient_norm(classifier.parameters())
    loss_value, norm_value = float(loss.detach()), float(norm)
    problem = None
    if not math.isfinite(loss_value):
        problem = "non-finite loss"
    elif not math.isfinite(norm_value):
        problem = "non-finite gradient"
    else:
        if config.clip_norm:
            clip_gradients(classifier.parameters(), config.clip_norm, norm)
        optimiser.step()
    return StepTaken(loss_value, norm_value, sum(map(len, documents)), problem, False)


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code (128 + the signal's number if a signal stopped it)."""
    if len(arguments) != 1:
        print("usage: python -m model.finetune job.json", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        job = parse_job(json.loads(Path(arguments[0]).read_text(encoding="utf-8")), arguments[0])
    except (ValueError, OSError) as reason:
        print(reason, file=sys.stderr)
        return 2
    result = finetune(job)
    if "stopped" in result:
        logger.info("stopped by signal %d after step %d", result["stopped"], result["step"])
        return 128 + int(result["stopped"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
