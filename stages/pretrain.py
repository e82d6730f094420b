"""pretrain: a Transformer trained on the token shards, in a process tree of its own (`model/train.py`).

Parts: `checkpoint/*` (the last checkpoint), `metrics/steps`, `result/training`; all checkpoints that were kept lie in
the output's `checkpoints/`.
"""

from __future__ import annotations

from dataclasses import asdict

from stages.base import Context, Inputs, Stage, StageError, Unit
from stages.config import PretrainConfig, RunConfig
from stages.jobs import adopt_checkpoint, run_job, write_metrics
from storage.outputs import Output, PartWriter, Receipt


class Pretrain(Stage[PretrainConfig]):
    """One training; a stopped one goes on from its newest valid checkpoint."""

    name = "pretrain"
    version = 1
    needs = ("tokenize",)
    in_process = True

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        key = self.unit_key(parameters=self.parameters(), tokens=inputs["tokenize"].digest)
        return [Unit("training", key)]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        tokens = inputs["tokenize"]
        summary = tokens.read_json("summary/tokens")
        shards = {
            split: [str(tokens.local_file(part)) for part in tokens.parts(f"{split}-arrow")]
            for split in ("train", "validation")
        }
        if not shards["train"]:
            raise StageError(
                "pretrain: tokenize wrote no Arrow shards (tokenize.arrow is off, or nothing was selected)"
            )
        training = asdict(self.config.training)
        if not shards["validation"]:
            training["validation_sequences"] = 0
        context.report({"steps": self.config.training.steps})
        result = run_job(
            "model.train",
            {
                "task": "pretrain",
                "model": {**asdict(self.config.model), "vocabulary_size": summary["vocabulary_size"]},
                "training": training,
                "tokens": {
                    **shards,
                    "digest": tokens.digest,
                    "end_id": summary["end_id"] if summary["end_token"] else None,
                },
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


def make(config: RunConfig) -> Pretrain:
    """The stage of a run."""
    assert config.pretrain is not None
    return Pretrain(config.pretrain)


def checkpoint_folder(output: Output) -> str:
    """Where a training's last checkpoint lies on this machine; of remote stores a copy is made."""
    return str(output.local_folder([*output.parts("checkpoint"), output.part("about/checkpoint")]))
