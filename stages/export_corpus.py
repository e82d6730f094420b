"""export-corpus: the cleaned, selected documents, cuts applied, as files for anybody: Parquet and JSONL.zst.

Parts: `parquet/<split>-<stem>` and `jsonl/<split>-<stem>`.
"""

from __future__ import annotations

from typing import Any

from corpus.config import ExportConfig
from stages.base import Context, Inputs, Stage, Unit, part_units
from stages.config import RunConfig
from stages.selected import count_emptied, evidence, selected_part, with_cuts
from storage.outputs import PartWriter, Receipt
from storage.schemas import DOCUMENTS

SPLITS = ("train", "validation")


class ExportCorpus(Stage[ExportConfig]):
    """For many users this is the product."""

    name = "export-corpus"
    version = 1
    needs = ("ingest", "quality", "select")

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        return part_units(self, inputs, extra=evidence(inputs))

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        from corpus.export import jsonl_zst

        stem = unit.payload["stem"]
        for split in SPLITS:
            documents = selected_part(inputs, stem, split, DOCUMENTS.names).select(DOCUMENTS.names)
            documents = count_emptied(documents, writer)
            rows = documents.num_rows
            if not rows:
                continue
            if self.config.parquet:
                writer.parquet(f"parquet/{split}-{stem}", documents, DOCUMENTS)
            if self.config.jsonl:
                writer.bytes(f"jsonl/{split}-{stem}", jsonl_zst(documents), ".jsonl.zst", rows)


def make(config: RunConfig) -> Stage[Any]:
    """The stage of a run."""
    assert config.export_corpus is not None
    return with_cuts(ExportCorpus(config.export_corpus), config)
