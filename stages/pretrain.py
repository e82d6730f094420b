"""pretrain: a Transformer trained on the token shards, in a process tree of its own (`model/train.py`).

Parts: `checkpoint/*` (the last checkpoint), `metrics/steps`, `result/training`, and `data/synonyms` where words are
replaced; all checkpoints that were kept lie in the output's `checkpoints/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from model.config import MixtureSegment
from stages.base import Context, Inputs, Stage, StageError, Unit
from stages.config import PretrainConfig, RunConfig
from stages.jobs import Synonyms, adopt_checkpoint, run_job, write_metrics
from storage.fingerprint import canonical
from storage.outputs import Output, PartWriter, Receipt


class Pretrain(Stage[PretrainConfig]):
    """One training; a stopped one goes on from its newest valid checkpoint."""

    name = "pretrain"
    version = 2
    needs: tuple[str, ...] = ("tokenize",)
    in_process = True

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(config)
        self.synonyms = Synonyms(config.training.augment.synonyms, "pretrain.training")
        if config.training.augment.is_on:
            self.needs = ("tokenizer", "tokenize")

    def parameters(self) -> Any:
        found = canonical(self.config, self.name)
        self.synonyms.name(found["training"])
        return found

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        digests = {name: inputs[name].digest for name in self.needs}
        key = self.unit_key(parameters=self.parameters(), inputs=digests)
        return [Unit("training", key)]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        tokens = inputs["tokenize"]
        data = training_data(tokens, self.config)
        training = asdict(self.config.training)
        more = {}
        if self.config.training.augment.is_on:
            more["tokenizer"] = str(inputs["tokenizer"].local_file("tokenizer/tokenizer"))
            self.synonyms.keep(training, writer, context)
        if not data["validation"]:
            training["validation_sequences"] = 0
        context.report({"steps": self.config.training.steps})
        result = run_job(
            "model.train",
            {
                "task": "pretrain",
                "model": {**asdict(self.config.model), "vocabulary_size": data.pop("vocabulary_size")},
                "training": training,
                "tokens": data,
                **more,
            },
            writer,
            context,
            ranks=context.resources.training.processes,
        )
        manifest = adopt_checkpoint(writer, result.pop("checkpoint"))
        lines = write_metrics(writer)
        steps = [line for line in lines if "loss" in line]
        seconds = sum(line.get("seconds", 0.0) for line in steps)
        # `tokens` counts from the start of the training.
        rate = steps[-1]["tokens"] / seconds if seconds else 0.0
        writer.json("result/training", result)
        writer.json("about/speed", {"seconds": round(seconds, 3), "tokens_per_second": round(rate, 1)})
        writer.notes["numerics"] = manifest.get("numerics", {})
        rows = sum(part.rows for part in tokens.parts("train-arrow"))
        writer.count(read=rows, kept=rows)


def training_data(tokens: Output, config: PretrainConfig) -> dict[str, Any]:
    """What a job file says of its data: shards, plan, end token, and the size of the vocabulary.

    No shard is opened: that they are there, in their sizes, is known by one listing a folder, and what is in them is
    checked when they are read.

    Raises
    ------
    StageError
        If there are no Arrow shards, one of them is missing or cut, or the mixture does not fit their sources.
    """
    from model.order import PlanError, check_lanes, read_segments
    from model.token_data import lanes_of

    summary, shards = tokens.read_json("summary/tokens"), tokens.read_json("summary/shards")
    known = {(shard["split"], shard["name"]): shard for shard in shards["shards"]}
    parts = {split: tokens.parts(f"{split}-arrow") for split in ("train", "validation")}
    if not parts["train"]:
        raise StageError("pretrain: tokenize wrote no Arrow shards (tokenize.arrow is off, or nothing was selected)")
    if problems := tokens.problems([part for some in parts.values() for part in some]):
        raise StageError(
            f"pretrain: of the token shards {len(problems)} cannot be used: {'; '.join(problems[:3])}; "
            "run the tokenize stage again"
        )
    store = tokens.store
    data: dict[str, Any] = {}
    for split, some in parts.items():
        data[split] = []
        for part in some:
            facts = known[split, part.stem]
            shard = {"path": f"{store.url}/{part.path}", "tokens": facts["tokens"], "source": facts["source"]}
            if not store.is_local:
                shard |= {"bytes": part.bytes, "digest": part.digest}
            data[split].append(shard)
    try:
        sources = {shard["source"] for shard in data["train"] if shard["tokens"]}
        if config.mixture:
            data["plan"] = [asdict(segment) for segment in config.mixture]
            segments = read_segments(data["plan"])
            check_lanes(segments, lanes_of(config.training))
            for number, segment in enumerate(segments):
                for source in sorted(set(segment.weights) - sources):
                    there = ", ".join(sorted(sources)) or "none"
                    raise PlanError(
                        f"plan[{number}].weights.{source}: no training document is of this source; there are: {there}"
                    )
    except PlanError as error:
        raise StageError(f"pretrain.mixture: {error}") from error
    return {
        **data,
        "digest": tokens.digest,
        "end_id": summary["end_id"] if summary["end_token"] else None,
        "end_once": shards["end_once"],
        "vocabulary_size": summary["vocabulary_size"],
    }


def seen_in_training(outputs: Mapping[str, Output], stem: str, document_id: str) -> list[dict[str, Any]]:
    """Every time that the training of a run showed a document: position, epoch of its source, step, row of the batch.

    Parameters
    ----------
    outputs
        With tokenize and pretrain.
    stem
        The documents part that the document is in.
    """
    from model.config import ModelConfig, TrainingConfig, TrainingResources, from_mapping
    from model.schedule import Schedule
    from model.token_data import read_token_data

    training = outputs["pretrain"]
    given = training.manifest["parameters"]
    config = PretrainConfig(
        model=from_mapping(ModelConfig, given["model"], "pretrain.model"),
        training=from_mapping(TrainingConfig, given["training"], "pretrain.training"),
        mixture=tuple(MixtureSegment(**segment) for segment in given["mixture"]),
    )
    data = training_data(outputs["tokenize"], config)
    tokens = read_token_data(data, data["vocabulary_size"], "tokens")
    schedule = tokens.training(config.training, Schedule, tokens.shard_cache(TrainingResources()))
    parts = outputs["tokenize"].parts("train-arrow")
    places = zip(tokens.train, parts, strict=True)
    shards = [shard.path for shard, part in places if part.stem.rpartition("-")[0] == stem]
    batch = config.training.batch_sequences
    taken = int(training.read_json("result/training")["step"]) * batch
    return [
        {
            "position": seen.position,
            "epoch": seen.epoch,
            "step": seen.position // batch + 1,
            "row": seen.position % batch,
            "sequence": schedule.sequence_at(seen.position),
        }
        for seen in schedule.seen(document_id, taken, shards)
    ]


def make(config: RunConfig) -> Pretrain:
    """The stage of a run."""
    assert config.pretrain is not None
    return Pretrain(config.pretrain)


def checkpoint_folder(output: Output) -> str:
    """Where a training's last checkpoint lies on this machine; of remote stores a copy is made."""
    return str(output.local_folder([*output.parts("checkpoint"), output.part("about/checkpoint")]))
