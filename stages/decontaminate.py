"""decontaminate: which documents share text with which evaluation items. Evidence only; `filter` decides.

Parts: `eval_items/<set>` (the evaluation sets as documents), `finetune_items/<set>` (a fine-tuning set of the same
run), `about/sets` (how many of their records could be read), `index/ngrams`, and `overlaps/<stem>`, whose rows are hits
of documents of `documents/<stem>`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from corpus.config import SourceConfig
from stages.base import Context, Inputs, Stage, StageError, Unit, part_units
from stages.config import DecontaminateStageConfig, RunConfig
from storage.fingerprint import canonical
from storage.outputs import PartWriter, Receipt
from storage.schemas import DOCUMENTS, OVERLAPS


class Decontaminate(Stage[DecontaminateStageConfig]):
    """N-gram overlap with the user's evaluation sets, and with the documents the run is fine-tuned on."""

    name = "decontaminate"
    version = 2
    needs = ("ingest",)

    def __init__(self, config: DecontaminateStageConfig, finetune: SourceConfig | None = None) -> None:
        super().__init__(config)
        self.finetune = finetune
        self._inventory: Any = None
        self._index: tuple[str, Any] | None = None

    def __reduce__(self) -> tuple[type[Decontaminate], tuple[DecontaminateStageConfig, SourceConfig | None]]:
        return Decontaminate, (self.config, self.finetune)

    def _sets(self) -> list[tuple[str, SourceConfig]]:
        """What documents are compared with: the kind of part it is kept as, and where it is read from."""
        sets = [("eval_items", source) for source in self.config.eval_sets]
        return sets + ([("finetune_items", self.finetune)] if self.finetune else [])

    def parameters(self) -> Any:
        if self._inventory is None:
            from corpus.config import IngestConfig
            from corpus.inventory import Inventory
            from stages.ingest import list_inputs

            sets = tuple(source for _, source in self._sets())
            settings = "decontaminate.eval_sets and finetune.data" if self.finetune else "decontaminate.eval_sets"
            self._inventory = list_inputs(IngestConfig(sources=sets), settings) if sets else Inventory(())
        files = len(self._inventory.files)
        return {
            **canonical(self.config, self.name),
            **({"finetune": canonical(self.finetune)} if self.finetune else {}),
            "inventory": {"digest": self._inventory.digest, "files": files, "bytes": self._inventory.bytes},
        }

    def start(self, inputs: Inputs, writer: PartWriter) -> None:
        import pyarrow as pa

        from corpus.config import NormaliseConfig
        from corpus.documents import read_all
        from corpus.sources.base import SourceError
        from data_quality.contamination import build_index

        items, read = [], {}
        for kind, source in self._sets():
            try:
                documents = read_all(source, NormaliseConfig())
            except SourceError as error:
                setting = "decontaminate.eval_sets" if kind == "eval_items" else "finetune.data"
                raise StageError(f"{setting}: {error}: see whether kind and text_field fit the file") from error
            read[source.name] = json.loads(documents.schema.metadata[b"counts"])
            writer.parquet(f"{kind}/{source.name}", documents, DOCUMENTS)
            names = [
                f"{uri}#{record}" for uri, record in zip(*documents.select(["uri", "record"]).columns, strict=True)
            ]
            items.append(
                pa.table(
                    {
                        "eval_set": pa.array([source.name] * documents.num_rows, pa.string()),
                        "eval_item": pa.array(names, pa.string()),
                        "text": documents.column("text"),
                    }
                )
            )
        writer.json("about/sets", read)
        if items:
            index = build_index(pa.concat_tables(items), self.config.comparison)
            writer.bytes("index/ngrams", index.to_npz(), ".npz")

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        # The content of the evaluation sets, not the time stamps of their files, is what the result depends on.
        index = [part for part in started.parts if part.name == "index/ngrams"]
        shared = index[0].digest if index else None
        path = index[0].path if index else None
        return [
            replace(unit, payload={**unit.payload, "index": path})
            for unit in part_units(self, inputs, shared, parameters=self.config.comparison)
        ]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        from data_quality.contamination import ContaminationIndex, find_overlaps

        stem, path = unit.payload["stem"], unit.payload["index"]
        columns = ["id", "text"] if path else ["id"]
        documents = inputs["ingest"].read(f"documents/{stem}", columns)
        ids = documents.column("id").combine_chunks()
        if path is None:
            overlaps = OVERLAPS.empty_table()
        else:
            if self._index is None or self._index[0] != path:
                self._index = (path, ContaminationIndex.from_npz(writer.store.read_bytes(path)))
            texts = documents.column("text").combine_chunks()
            overlaps = find_overlaps(ids, texts, self._index[1], self.config.comparison)
        writer.parquet(f"overlaps/{stem}", overlaps, OVERLAPS)
        writer.count(read=len(ids), kept=len(ids))


def make(config: RunConfig) -> Decontaminate:
    """The stage of a run."""
    compared = config.finetune if config.decontaminate.finetune_set else None
    return Decontaminate(config.decontaminate, compared.data if compared else None)
