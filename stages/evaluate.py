"""evaluate: perplexity and bits per byte on held-out text, by set and source, and samples of generated text.

Parts: `result/evaluation`. The sets are the validation split and the evaluation sets of decontaminate.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from stages.base import Context, Inputs, Stage, StageError, Unit
from stages.config import EvaluateStageConfig, RunConfig
from stages.jobs import run_job
from stages.pretrain import checkpoint_folder
from stages.selected import selected_part, with_cuts
from storage.outputs import PartWriter, Receipt


class Evaluate(Stage[EvaluateStageConfig]):
    """Scores the pretrained model (`model/evaluate.py`)."""

    name = "evaluate"
    version = 1
    needs = ("ingest", "quality", "decontaminate", "select", "tokenizer", "pretrain")
    in_process = True

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        digests = {name: inputs[name].digest for name in self.needs}
        return [Unit("evaluation", self.unit_key(parameters=self.parameters(), inputs=digests))]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        sets: dict[str, list[str]] = {}
        stems = [part.stem for part in inputs["ingest"].parts("documents")]
        validation = pa.concat_tables(
            [selected_part(inputs, stem, "validation", ["id", "text", "source"]) for stem in stems]
        )
        scratch = context.scratch / f"validation-{context.attempt}.parquet"
        if validation.num_rows:
            pq.write_table(validation.select(["id", "text", "source"]), scratch)
            sets["validation"] = [str(scratch)]
        for part in inputs["decontaminate"].parts("eval_items"):
            if part.rows:
                sets[part.stem] = [str(inputs["decontaminate"].local_file(part))]
        if not sets:
            raise StageError(
                "evaluate: there is nothing to score: give decontaminate.eval_sets, or a select.validation_share "
                "that holds documents out, or set evaluate to null"
            )
        facts = inputs["tokenizer"].read_json("tokenizer/facts")
        try:
            result = run_job(
                "model.evaluate",
                {
                    "task": "evaluate",
                    "checkpoint": checkpoint_folder(inputs["pretrain"]),
                    "tokenizer": str(inputs["tokenizer"].local_file("tokenizer/tokenizer")),
                    "end_id": facts["end_id"],
                    "sets": sets,
                    "evaluate": asdict(self.config.scoring),
                    "generate": asdict(self.config.generate),
                },
                writer,
                context,
            )
        finally:
            scratch.unlink(missing_ok=True)
        writer.json("result/evaluation", result)
        scored = sum(int(values["documents"]) for values in result["sets"].values())
        writer.count(read=scored, kept=scored)


def make(config: RunConfig) -> Stage[Any]:
    """The stage of a run."""
    assert config.evaluate is not None
    return with_cuts(Evaluate(config.evaluate), config)
