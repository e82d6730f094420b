"""Pretraining: `python -m model.train job.json`, or `torchrun --nproc-per-node N -m model.train job.json`.

Reads a job file, trains, and writes checkpoints, metrics (JSON lines) and `final.json` into the job's output. It draws
nothing and knows no user interface. Starting it again goes on from the newest valid checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model import checkpoint
from model.augment import Augmenter, make_augmenter
from model.augment_text import named_by_content
from model.checkpoint import TrainingState
from model.config import ModelConfig, TrainingConfig, TrainingResources, from_mapping
from model.curriculum import in_parts
from model.data import IGNORED, Ahead, Batch, Loader, TokenShardError
from model.lanes import deal_lanes, positions_of_rank
from model.metrics import MetricsFile, read_metrics
from model.numerics import numerics
from model.optimisers import adamw, clip_gradients, gradient_norm, learning_rate, set_learning_rate
from model.order import PlanError
from model.packing import packing_report
from model.parallel import Ranks, place, start_ranks, stop_ranks
from model.shard_cache import ShardCache
from model.token_data import TokenData, read_token_data
from model.transformer import Transformer
from storage.filesystem import Store

RECENT = 128
"""Losses kept in a checkpoint, so that guards that look back see the same past after a resume."""

logger = logging.getLogger("model.train")


class JobError(ValueError):
    """A job file that is malformed or whose sizes do not fit each other; the message names the field."""


class TrainingDiverged(RuntimeError):
    """Too many steps in a row had a non-finite loss or gradient."""


@dataclass(frozen=True)
class Job:
    """What a job file says. `output` is a folder or store URL, `attempt` a word no other attempt uses.

    `tokenizer`: path of the tokenizer.json, needed only where `training.augment` changes texts.
    """

    model: ModelConfig
    vocabulary_size: int
    training: TrainingConfig
    resources: TrainingResources
    tokens: TokenData
    output: str
    attempt: str
    tokenizer: str

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint belongs to: model, training and data, without the paths."""
        return {
            "model": {**dataclasses.asdict(self.model), "vocabulary_size": self.vocabulary_size},
            "training": named_by_content(dataclasses.asdict(self.training)),
            "tokens": self.tokens.identity(),
        }


def read_job(path: str | Path) -> Job:
    """The job of a JSON file.

    Raises
    ------
    JobError
        naming the file and the field that is missing, unknown or wrong.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as reason:
        raise JobError(f"job file {path} cannot be read: {reason}") from reason
    except ValueError as reason:
        raise JobError(f"job file {path} is not valid JSON: {reason}") from reason
    return parse_job(values, str(path))


def parse_job(values: Mapping[str, Any], name: str = "job") -> Job:
    """The job of an already decoded job file; see `read_job`."""
    try:
        if values["task"] != "pretrain":
            raise JobError(f"{name}: task = {values['task']!r}, but model.train knows only 'pretrain'")
        shape, tokens = dict(values["model"]), values["tokens"]
        vocabulary_size = int(shape.pop("vocabulary_size"))
        training = from_mapping(TrainingConfig, values["training"], f"{name}: training")
        return Job(
            vocabulary_size=vocabulary_size,
            model=from_mapping(ModelConfig, shape, f"{name}: model"),
            training=training,
            resources=from_mapping(TrainingResources, values.get("resources", {}), f"{name}: resources"),
            tokens=read_token_data(tokens, vocabulary_size, f"{name}: tokens"),
            output=values["output"],
            attempt=values["attempt"],
            tokenizer=values["tokenizer"] if training.augment.is_on else "",
        )
    except KeyError as missing:
        raise JobError(f"{name}: the field {missing} is missing") from None
    except (TypeError, ValueError) as reason:
        raise reason if isinstance(reason, JobError) else JobError(str(reason)) from None


# -------------------------------------------------------------------------------------------------------- the run


def pretrain(job: Job) -> dict[str, Any]:
    """Train to the last step, or until told to stop.

    Returns
    -------
    dict
        `checkpoint` (folder in the output), `step`, `losses` ({"first", "last", "validation"}), `tensor_digest`,
        `tokens` (targets) and `tokens_read` (padding and context included), `packing` (`packing_report`), and, where
        several sources are validated, `validation_sources` (source -> loss); written to `final.json` as well if the
        training is finished. Stopped by a signal, it holds `stopped` (the signal's number) instead of losses.

    Raises
    ------
    TrainingDiverged
        after `nonfinite_limit` non-finite steps in a row.
    """
    training, resources = job.training, job.resources
    ranks = start_ranks(resources)
    # Nothing draws from the global generator today, but its state stands in checkpoints and must not differ by chance.
    torch.manual_seed(training.seed)
    check_sizes(job, ranks)
    store = Store(job.output)
    augmenter = augmenter_of(job)
    copies = job.tokens.shard_cache(resources)
    loader = job.tokens.training(training, Loader, copies)
    validators = validation_loaders(job, copies)

    model = Transformer(job.model, job.vocabulary_size)
    model.initialise(training.seed)
    half = training.precision == "bf16"
    place(model, ranks, half_precision=half, compile_blocks=resources.compile)
    optimiser = adamw(model, training)

    folder = ranks.from_first(checkpoint.newest_valid(store) if ranks.is_first else None)
    state = TrainingState()
    if folder is not None:
        state = checkpoint.load(store, folder, model, optimiser, job.identity, ranks)
        logger.info("going on from step %d of %s", state.step, folder)
    metrics = MetricsFile(store, job.attempt, state.step) if ranks.is_first else None
    lineage = {"numerics": numerics(training, resources, ranks), "parent": folder}

    def save() -> str:
        if metrics is not None:
            metrics.flush()
        saved = checkpoint.save(store, job.attempt, model, optimiser, state, job.identity, lineage, ranks)
        if ranks.is_first:
            checkpoint.retain(store, training.keep_checkpoints)
        return saved

    step_size = training.batch_sequences
    begin, end = state.position, state.position + (training.steps - state.step) * step_size

    owners = deal_lanes(training.lanes, ranks.count) if training.lanes else None

    def share(positions: range) -> Sequence[int]:
        return ranks.share(positions) if owners is None else positions_of_rank(positions, owners, ranks.rank)

    def announce(first: int) -> None:
        if copies is not None and first < end:
            loader.announce(share(range(first, first + step_size)))

    for step in range(resources.fetch_ahead_steps):
        announce(begin + step * step_size)

    def micro_batches(positions: range) -> list[Batch]:
        announce(positions.start + resources.fetch_ahead_steps * step_size)
        mine = share(positions)
        for stream in loader.streams.values():
            stream.check_unchanged()
        size = resources.micro_batch_sequences or len(mine)
        parts = [mine[first : first + size] for first in range(0, len(mine), size)]
        batches = [loader.batch(part) for part in parts]
        if augmenter is not None:
            batches = [augmenter.batch(batch, part) for batch, part in zip(batches, parts, strict=True)]
        batches = [in_parts(batch, training.lengths, part) for batch, part in zip(batches, parts, strict=True)]
        return [batch.pinned() for batch in batches] if ranks.device.type == "cuda" else batches

    ahead = Ahead(micro_batches)
    # Copies first: making batches may wait for a download.
    with stop_signals() as stop, contextlib.closing(ahead), contextlib.closing(copies or contextlib.ExitStack()):
        while state.step < training.steps:
            started = time.perf_counter()
            rate = learning_rate(state.step, training)
            set_learning_rate(optimiser, rate)
            positions = range(state.position, state.position + step_size)
            batches = ahead.take(positions, end)
            taken = train_step(model, optimiser, batches, job, ranks, stop_wanted=bool(stop))
            state = after_step(state, taken, len(positions))
            seconds = time.perf_counter() - started

            if metrics is not None:
                metrics.write(step_line(state, taken, rate, seconds))
            if state.skipped_in_row >= training.nonfinite_limit:
                if metrics is not None:
                    metrics.close()
                raise TrainingDiverged(
                    f"{state.skipped_in_row} steps in a row had a {taken.problem} (the last is step {state.step}, "
                    f"sequences {positions.start} to {positions.stop - 1} of the data order); lower "
                    "training.learning_rate or look at these sequences, then start again from the last checkpoint"
                )
            last = state.step == training.steps
            if validators and (last or is_due(state.step, training.validate_every)):
                found = validate(model, validators, job, ranks)
                if metrics is not None:
                    metrics.write({"step": state.step, **found})
            if last or taken.stop or is_due(state.step, training.checkpoint_every):
                folder = save()
                lineage["parent"] = folder
            if taken.stop and not last:
                break

    if metrics is not None:
        metrics.close()
    assert folder is not None  # at least one step was done or loaded
    result: dict[str, Any] = {"checkpoint": folder, "step": state.step, "tokens": state.tokens}
    if state.step < training.steps:
        result["stopped"] = stop[0] if stop else int(signal.SIGTERM)
    else:
        result["tensor_digest"] = store.read_json(f"{folder}/manifest.json")["tensor_digest"]
        if ranks.is_first:
            lines = read_metrics(store)
            result["losses"] = losses(lines)
            by_source = [line["validation_sources"] for line in lines if "validation_sources" in line]
            if by_source:
                result["validation_sources"] = by_source[-1]
            result["packing"] = packing_report(loader.layouts)
            result["tokens_read"] = state.position * training.sequence_length
            store.replace("final.json", (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    stop_ranks(ranks)
    return result


# ------------------------------------------------------------------------------------------------------- one step


@dataclass(frozen=True)
class StepTaken:
    """What one step did: mean loss over its valid tokens (all ranks), gradient norm, and whether it was skipped."""

    loss: float
    gradient_norm: float
    tokens: int
    problem: str | None
    stop: bool


def train_step(
    model: Transformer,
    optimiser: torch.optim.Optimizer,
    batches: Sequence[Batch],
    job: Job,
    ranks: Ranks,
    *,
    stop_wanted: bool,
) -> StepTaken:
    """One optimiser step on a global batch that all ranks share, `batches` being this rank's part of it.

    The loss is the sum over tokens divided by the number of valid tokens in the whole global batch, so that neither
    accumulation nor the number of ranks changes its weightings. A non-finite loss or gradient skips the update before
    any moment is touched. All ranks decide the same, because all decide on the same sums.
    """
    counts = torch.tensor([sum(int((b.targets != IGNORED).sum()) for b in batches), int(stop_wanted)])
    valid, stops = ranks.sum(counts).tolist()  # on the CPU: the device is not waited for

    optimiser.zero_grad()
    total = torch.zeros((), device=ranks.device)
    for number, batch in enumerate(batches, start=1):
        if ranks.mesh is not None:
            model.set_requires_gradient_sync(number == len(batches))  # type: ignore[operator]
        loss = causal_loss(model, batch.to(ranks.device), job) / max(1, valid)
        (loss * ranks.count).backward()  # FSDP takes the mean over ranks; the loss is normalised already
        total += loss.detach()
    norm = gradient_norm(model.parameters())
    loss_value, norm_value = torch.stack([ranks.sum(total), norm.to(total.dtype)]).tolist()

    problem = None
    if not math.isfinite(loss_value):
        problem = "non-finite loss"
    elif not math.isfinite(norm_value):
        problem = "non-finite gradient"
    else:
        if job.training.gradient_clip:
            clip_gradients(model.parameters(), job.training.gradient_clip, norm)
        optimiser.step()
    return StepTaken(loss_value, norm_value, valid, problem, stops > 0)


def causal_loss(model: Transformer, batch: Batch, job: Job) -> Tensor:
    """The sum over valid targets of -ln p(target | the tokens before it in its document), a float32 scalar."""
    # Under FSDP the parameters come in bf16 already, and autocast finds little left to cast.
    half = job.training.precision == "bf16"
    with torch.autocast(batch.tokens.device.type, torch.bfloat16, enabled=half):
        logits = model(batch.tokens, boundaries=batch.boundaries)  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten(), ignore_index=IGNORED, reduction="sum")


def after_step(state: TrainingState, taken: StepTaken, sequences: int) -> TrainingState:
    """The state once a step is done. A skipped step counts as one, and its sequences are passed by."""
    skipped = taken.problem is not None
    recent = state.recent_losses if skipped else (*state.recent_losses, taken.loss)[-RECENT:]
    return TrainingState(
        step=state.step + 1,
        position=state.position + sequences,
        tokens=state.tokens + taken.tokens,
        skipped=state.skipped + skipped,
        skipped_in_row=state.skipped_in_row + 1 if skipped else 0,
        recent_losses=recent,
    )


def step_line(state: TrainingState, taken: StepTaken, rate: float, seconds: float) -> dict[str, Any]:
    """The metrics line of a step."""
    line: dict[str, Any] = {
        "step": state.step,
        "loss": taken.loss if math.isfinite(taken.loss) else None,
        "learning_rate": rate,
        "gradient_norm": taken.gradient_norm if math.isfinite(taken.gradient_norm) else None,
        "tokens": state.tokens,
        "seconds": round(seconds, 4),
        "tokens_per_second": round(taken.tokens / seconds, 1),
    }
    if taken.problem is not None:
        line["skipped"] = taken.problem
    return line


# ----------------------------------------------------------------------------------------------------- validation


def validation_loaders(job: Job, copies: ShardCache | None) -> dict[str, Loader]:
    """The validation sequences of every source in the order of its stream; none if there are none to score."""
    if not job.training.validation_sequences:
        return {}
    found = {}
    training = job.training
    for source in sorted({shard.source for shard in job.tokens.validation}):
        stream = job.tokens.stream([shard for shard in job.tokens.validation if shard.source == source], copies)
        if len(stream) <= training.sequence_length:
            logger.warning(
                "the validation split%s has %d tokens, too few for one sequence: no validation",
                f" of source {source}" if source else "", len(stream),
            )  # fmt: skip
            continue
        found[source] = Loader(
            stream,
            training.sequence_length,
            shuffle_seed=None,
            document_mask=training.document_mask,
            end_once=job.tokens.end_once,
        )
    return found


def validate(model: Transformer, loaders: Mapping[str, Loader], job: Job, ranks: Ranks) -> dict[str, Any]:
    """Mean loss per token (nats) over the first `validation_sequences` sequences, of each source as many.

    Returns
    -------
    dict
        `validation_loss` over all and, where there are several sources, `validation_sources` (source -> loss).
    """
    each = max(1, job.training.validation_sequences // len(loaders))
    sums = {source: validation_sums(model, loader, each, job, ranks) for source, loader in loaders.items()}
    loss, tokens = (sum(part) for part in zip(*sums.values(), strict=True))
    found: dict[str, Any] = {"validation_loss": loss / max(1.0, tokens)}
    if len(sums) > 1:
        found["validation_sources"] = {source: nats / max(1.0, own) for source, (nats, own) in sums.items()}
    return found


@torch.no_grad()
def validation_sums(model: Transformer, loader: Loader, sequences: int, job: Job, ranks: Ranks) -> tuple[float, float]:
    """Loss (nats) and tokens of the first `sequences` sequences of a loader, which all ranks share."""
    for stream in loader.streams.values():
        stream.check_unchanged()
    count = min(sequences, loader.sequences)
    each = -(-count // ranks.count)  # every rank runs as many forward passes, for FSDP gathers parameters in each
    size = job.resources.micro_batch_sequences or job.training.batch_sequences // ranks.count
    sums = torch.zeros(2, dtype=torch.float64, device=ranks.device)
    for first in range(ranks.rank * each, (ranks.rank + 1) * each, size):
        positions = range(first, min(first + size, (ranks.rank + 1) * each))
        batch = loader.batch([min(position, count - 1) for position in positions])
        targets = batch.targets.clone()
        targets[[position >= count for position in positions]] = IGNORED  # filled up: not counted
        batch = dataclasses.replace(batch, targets=targets)
        sums[0] += causal_loss(model, batch.to(ranks.device), job)
        sums[1] += int((batch.targets != IGNORED).sum())
    loss, tokens = ranks.sum(sums).tolist()
    return loss, tokens


# -------------------------------------------------------------------------------------------------------- helpers


def augmenter_of(job: Job) -> Augmenter | None:
    """What changes the training sequences of a job, None if nothing does; raises `JobError`."""
    try:
        return make_augmenter(job.training.augment, job.tokenizer, job.vocabulary_size, job.tokens.end_id)
    except (ValueError, FileNotFoundError) as reason:
        raise JobError(f"training.augment: {reason}") from reason


def check_sizes(job: Job, ranks: Ranks) -> None:
    """Refuse sizes that do not fit each other before any time is spent."""
    if job.training.sequence_length > job.model.max_positions:
        raise JobError(
            f"training.sequence_length = {job.training.sequence_length} is more than model.max_positions = "
            f"{job.model.max_positions}"
        )
    if job.training.batch_sequences % ranks.count:
        raise JobError(
            f"training.batch_sequences = {job.training.batch_sequences} is not a multiple of the {ranks.count} ranks; "
            "change the number of ranks, for the batch belongs to the result"
        )
    if job.training.lanes % ranks.count:
        raise JobError(
            f"training.lanes = {job.training.lanes} cannot be shared by {ranks.count} ranks; take a number of ranks "
            "that divides them, for lanes belong to the result"
        )


def is_due(step: int, every: int) -> bool:
    """Whether something done every so many steps is due after `step`; 0 = never."""
    return every > 0 and step % every == 0


def losses(lines: list[dict[str, Any]]) -> dict[str, float | None]:
    """First and last training loss and last validation loss of a run's metrics."""
    trained = [line["loss"] for line in lines if line.get("loss") is not None]
    validated = [line["validation_loss"] for line in lines if "validation_loss" in line]
    return {
        "first": trained[0] if trained else None,
        "last": trained[-1] if trained else None,
        "validation": validated[-1] if validated else None,
    }


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that gets the number of the first SIGTERM or SIGINT: the step under way is finished first."""
    received: list[int] = []
    previous = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        previous[number] = signal.signal(number, lambda signum, _: received.append(signum))
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code (128 + the signal's number if a signal stopped it)."""
    if len(arguments) != 1:
        print("usage: python -m model.train job.json", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        result = pretrain(read_job(arguments[0]))
    except (JobError, PlanError) as reason:
        logger.error("%s", reason)
        return 2
    except (TokenShardError, checkpoint.CheckpointError, TrainingDiverged) as reason:
        logger.error("%s", reason)
        return 1
    if "stopped" in result:
        logger.info("stopped by signal %d after step %d", result["stopped"], result["step"])
        return 128 + int(result["stopped"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
