"""release: the models as folders that `transformers` loads, with a card that says what they were made from.

Parts: `model/*` (the language model) and, if there was fine-tuning, `classifier/*`; `result/release` says how far the
logits of the written folders are from those of the checkpoints, `about/provenance` which code and packages wrote them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from stages import provenance
from stages.base import Context, Inputs, Stage, Unit
from stages.config import ReleaseConfig, RunConfig
from stages.pretrain import checkpoint_folder
from storage.outputs import PartWriter, Receipt


class Release(Stage[ReleaseConfig]):
    """Hugging Face layout, verified by logits before it is published (`model/release.py`)."""

    name = "release"
    version = 1

    def __init__(self, config: ReleaseConfig, *, finetuned: bool) -> None:
        super().__init__(config)
        self.finetuned = finetuned
        more = ("finetune",) if finetuned else ()
        self.needs = ("ingest", "select", "tokenizer", "tokenize", "pretrain", "evaluate", *more)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.config, self.finetuned)

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        digests = {name: inputs[name].digest for name in self.needs}
        return [Unit("release", self.unit_key(parameters=self.parameters(), inputs=digests))]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        from model.release import release

        tokenizer = inputs["tokenizer"].local_file("tokenizer/tokenizer")
        end_id = inputs["tokenizer"].read_json("tokenizer/facts")["end_id"]
        sources = {"model": "pretrain", **({"classifier": "finetune"} if self.finetuned else {})}
        reports = {}
        for kind, stage in sources.items():
            with tempfile.TemporaryDirectory(dir=context.scratch) as folder:
                target = Path(folder) / kind
                card = self._card(kind, inputs)
                reports[kind] = release(checkpoint_folder(inputs[stage]), tokenizer, target, card, end_id=end_id)
                if kind == "model" and inputs["tokenizer"].has("tokenizer/chat-template"):
                    template = inputs["tokenizer"].local_file("tokenizer/chat-template")
                    (target / "chat_template.jinja").write_bytes(template.read_bytes())
                for file in sorted(target.iterdir()):
                    writer.file(f"{kind}/{file.stem}", file)
        writer.json("result/release", reports)
        # Beside the card, not on it: what the models are does not change with the commit they were packed at.
        writer.json("about/provenance", {"git": provenance.git(), "software": provenance.software()})
        writer.count(read=len(sources), kept=len(sources))

    def _card(self, kind: str, inputs: Inputs) -> dict[str, Any]:
        tokens = inputs["tokenize"].read_json("summary/tokens")
        scores = {
            f"{name}: bits per byte": values["bits_per_byte"]
            for name, values in inputs["evaluate"].read_json("result/evaluation")["sets"].items()
        }
        if self.finetuned:
            result = inputs["finetune"].read_json("result/finetuning")
            baselines = result["baselines"]
            scores |= {
                "fine-tuned accuracy": result["accuracy"],
                "bag-of-words accuracy": baselines["bag_of_words"]["accuracy"],
                "majority accuracy": baselines["majority"]["accuracy"],
            }
        what = "language model" if kind == "model" else "classifier"
        return {
            "name": self.config.title if kind == "model" else f"{self.config.title}-classifier",
            "license": self.config.licence,
            "summary": f"A {what} made from raw text by Gristmill.",
            "data": {
                "documents read": inputs["ingest"].counts["read"],
                "documents selected": inputs["select"].counts["kept"],
                "training tokens": sum(row["tokens"] for row in tokens["sources"] if row["split"] == "train"),
            },
            "losses": inputs["pretrain"].read_json("result/training")["losses"],
            "scores": scores,
            "lineage: content digests": {stage: inputs[stage].digest for stage in self.needs},
        }


def _restore(config: ReleaseConfig, finetuned: bool) -> Release:
    return Release(config, finetuned=finetuned)


def make(config: RunConfig) -> Release:
    """The stage of a run."""
    assert config.release is not None
    return Release(config.release, finetuned=config.finetune is not None)
