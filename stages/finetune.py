"""finetune: the pretrained model taught to classify documents, beside a majority and a bag-of-words baseline.

Parts: `data/train`, `data/test` (id, text, label), `checkpoint/*`, `metrics/steps`, `result/finetuning`. The documents
are those of a labelled source of one's own, or the selected ones, whose split keeps near-duplicates on one side.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from stages.base import Context, Inputs, Stage, StageError, Unit
from stages.config import FinetuneStageConfig, RunConfig
from stages.jobs import Synonyms, adopt_checkpoint, local_part, run_job, write_metrics
from stages.pretrain import checkpoint_folder
from stages.selected import selected_part, with_cuts
from storage.fingerprint import canonical
from storage.outputs import PartWriter, Receipt


class Finetune(Stage[FinetuneStageConfig]):
    """Classification with a head on the pretrained model (`model/finetune.py`)."""

    name = "finetune"
    version = 1
    needs = ("ingest", "quality", "select", "tokenizer", "pretrain")
    in_process = True

    def __init__(self, config: FinetuneStageConfig) -> None:
        super().__init__(config)
        self.synonyms = Synonyms(config.training.augment.synonyms, "finetune.training")
        self._inventory: Any = None

    def parameters(self) -> Any:
        found = canonical(self.config, self.name)
        self.synonyms.name(found["training"])
        if self.config.data is not None:
            if self._inventory is None:
                from corpus.config import IngestConfig
                from corpus.inventory import take_inventory

                self._inventory = take_inventory(IngestConfig(sources=(self.config.data,)))
            found["inventory"] = {"digest": self._inventory.digest, "files": len(self._inventory.files)}
        return found

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        digests = {name: inputs[name].digest for name in self.needs}
        return [Unit("fine-tuning", self.unit_key(parameters=self.parameters(), inputs=digests))]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        import pyarrow as pa

        from storage.schemas import ID_FIELD

        schema = pa.schema([ID_FIELD, pa.field("text", pa.large_string()), pa.field("label", pa.string())])
        files = {}
        for split, table in self._labelled(inputs).items():
            part = writer.parquet(f"data/{split}", table.select(schema.names), schema)
            files[split] = str(local_part(writer.store, part.path, context))
            if not table.num_rows:
                raise StageError(
                    f"finetune: there are no labelled documents to {split} with: look at finetune.label "
                    f"({self.config.label}) and select.validation_share"
                )
        facts = inputs["tokenizer"].read_json("tokenizer/facts")
        training = asdict(self.config.training)
        self.synonyms.keep(training, writer, context)
        result = run_job(
            "model.finetune",
            {
                "task": "finetune",
                "checkpoint": checkpoint_folder(inputs["pretrain"]),
                "tokenizer": str(inputs["tokenizer"].local_file("tokenizer/tokenizer")),
                "end_id": facts["end_id"],
                **files,
                "finetune": training,
            },
            writer,
            context,
        )
        manifest = adopt_checkpoint(writer, result.pop("checkpoint"))
        write_metrics(writer)
        writer.json("result/finetuning", {**result, "label": self.config.label})
        writer.notes["numerics"] = manifest.get("numerics", {})
        used = int(result["examples"]["train"]) + int(result["examples"]["test"])
        there = int(result["examples"]["train_labelled"]) + int(result["examples"]["test_labelled"])
        writer.count(read=there, kept=used, dropped={"class or cap": there - used})

    def _labelled(self, inputs: Inputs) -> dict[str, Any]:
        """Tables of id, text and label to train and to test on; documents without a label are left out."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.config.data is not None:
            from corpus.config import NormaliseConfig
            from corpus.documents import read_all

            table = read_all(self.config.data, NormaliseConfig())
            table = table.append_column("label", self._labels(table))
            held_out = pa.array(
                [_share(value) < self.config.test_share for value in table.column("id").to_pylist()], pa.bool_()
            )
            table = table.append_column("split", pc.if_else(held_out, "validation", "train"))
        else:
            parts = []
            for part in inputs["ingest"].parts("documents"):
                documents = selected_part(inputs, part.stem, None, ["id", "text", "source", "meta"])
                if self.config.label == "language":
                    rows = selected_part(inputs, part.stem, None, ["id"]).column("id")
                    labels = _languages(inputs, part.stem, rows)
                else:
                    labels = self._labels(documents)
                parts.append(documents.append_column("label", labels))
            table = pa.concat_tables(parts)
        table = table.filter(pc.is_valid(table.column("label")))
        return {
            "train": table.filter(pc.equal(table.column("split"), "train")),
            "test": table.filter(pc.equal(table.column("split"), "validation")),
        }

    def _labels(self, documents: Any) -> Any:
        import pyarrow as pa

        if self.config.label == "source":
            return documents.column("source")
        if self.config.label == "language":
            raise StageError(
                "finetune.label: `language` is known for documents of the corpus only, not for finetune.data"
            )
        path = self.config.label.removeprefix("meta.").split(".")
        return pa.array([_field(meta, path) for meta in documents.column("meta").to_pylist()], pa.string())


def _field(meta: str | None, path: list[str]) -> str | None:
    value: Any = json.loads(meta) if meta else None
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None if value is None else json.dumps(value)


def _languages(inputs: Inputs, stem: str, ids: Any) -> Any:
    import pyarrow as pa

    features = inputs["quality"].read(f"features/{stem}", ["id", "language"])
    known = dict(zip(features.column("id").to_pylist(), features.column("language").to_pylist(), strict=True))
    return pa.array([known[value] for value in ids.to_pylist()], pa.string())


def _share(value: bytes) -> float:
    """A number in [0, 1) that depends on the id alone."""
    return int.from_bytes(hashlib.blake2b(b"finetune" + value, digest_size=8).digest()) / 2**64


def make(config: RunConfig) -> Stage[Any]:
    """The stage of a run."""
    assert config.finetune is not None
    return with_cuts(Finetune(config.finetune), config)
