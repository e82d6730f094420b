"""quality: features of every document, the passages to cut, what judges say. Evidence only: nothing is dropped here.

Parts: `features/<stem>` and, where they are configured, `cuts/<stem>` and `judgements/<stem>`, row for row with
`documents/<stem>`; `unigrams/table`, the word frequencies that were used, where they are asked for; and what judges
share (`stages/judges.py`).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.config import IngestConfig
from stages.base import Context, Inputs, Stage, StageError, Unit, part_units
from stages.config import QualityStageConfig, RunConfig
from stages.judges import Judges, judge_part
from storage.fingerprint import canonical
from storage.outputs import PartWriter, Receipt
from storage.schemas import CUTS

if TYPE_CHECKING:
    from data_quality.unigrams import UnigramTable

CORPUS = "corpus"
UNIGRAM_PART = "unigrams/table"


class Quality(Stage[QualityStageConfig]):
    """One scan of the text for all features, and one for the judges.

    `reading` says how ingest treats text; the examples of classifiers are treated alike.
    """

    name = "quality"
    version = 2
    needs = ("ingest",)

    def __init__(self, config: QualityStageConfig, reading: IngestConfig) -> None:
        super().__init__(config)
        self.reading = reading
        self.judges = Judges(config, reading)
        self._unigrams: tuple[str, UnigramTable] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Quality, (self.config, self.reading)

    def parameters(self) -> Any:
        return {**self._measured(), **self.judges.parameters()}

    def _measured(self) -> dict[str, Any]:
        """What features and cuts depend on."""
        found = {"features": canonical(self.config.features), "cuts": canonical(self.config.cuts)}
        if self.config.features.unigram_table not in ("", CORPUS):
            found["features"]["unigram_table"] = self._file_digest
        return found

    @cached_property
    def _file_digest(self) -> str:
        """What is in the user's table: that, not what it is called, makes the result."""
        path = self.config.features.unigram_table
        try:
            return hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except OSError as error:
            raise StageError(f"quality.features.unigram_table: {path} cannot be read: {error}") from error

    def starts(self) -> bool:
        return bool(self.config.features.unigram_table) or self.judges.starts()

    def start(self, inputs: Inputs, writer: PartWriter) -> None:
        self.judges.start(inputs, writer)
        path = self.config.features.unigram_table
        if not path:
            return
        from data_quality.unigrams import UNIGRAMS, UnigramCounter, UnigramSample, read_unigrams

        if path == CORPUS:
            sample, counter = UnigramSample(self.config.features.unigram_sample_bytes), UnigramCounter()
            for part in inputs["ingest"].parts("documents"):
                documents = inputs["ingest"].read(f"documents/{part.stem}", ["id", "text"])
                sample.add(documents.column("id").combine_chunks(), documents.column("text").combine_chunks())
            counter.add(sample.texts())
            table = counter.table(self.config.features.unigram_words)
        else:
            try:
                table = read_unigrams(path, self.config.features.unigram_words)
            except ValueError as error:
                raise StageError(str(error)) from error
        writer.parquet(UNIGRAM_PART, table, UNIGRAMS)

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        if self.config.features.measure_cut and not self.config.cuts.producers:
            raise StageError("quality.features.measure_cut: there are no cuts; name them in quality.cuts.producers")
        if self.config.features.language_stop_words and not self.config.features.identify_language:
            raise StageError("quality.features.language_stop_words needs quality.features.identify_language")
        table = [part for part in started.parts if part.name == UNIGRAM_PART]
        shared = table[0].digest if table else None
        path = table[0].path if table else None
        measured = part_units(self, inputs, shared, parameters=self._measured())
        units = [replace(unit, payload={**unit.payload, "unigrams": path}) for unit in measured]
        return units + self.judges.units(self, inputs, started)

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        if "judges" in unit.payload:
            judge_part(unit, inputs, writer, self.config)
            return
        import pyarrow as pa

        from corpus.cuts import apply_cuts
        from data_quality.cuts import find_cuts
        from data_quality.features import compute_features, feature_schema
        from data_quality.urls import suffix_list

        stem = unit.payload["stem"]
        documents = inputs["ingest"].read(f"documents/{stem}", ["id", "text", "url"])
        ids = documents.column("id").combine_chunks()
        texts = documents.column("text").combine_chunks()
        cut_texts = None
        if self.config.cuts.producers:
            spans = find_cuts(texts, self.config.cuts)
            writer.parquet(f"cuts/{stem}", pa.table({"id": ids, "spans": spans}), CUTS)
            cut_texts = apply_cuts(texts, spans) if self.config.features.measure_cut else None
        features = compute_features(
            texts, self.config.features, urls=documents.column("url"), cut_texts=cut_texts,
            unigrams=self._table(writer, unit.payload["unigrams"]),
        )  # fmt: skip
        schema = feature_schema(self.config.features)
        writer.parquet(f"features/{stem}", features.add_column(0, schema.field("id"), ids), schema)
        writer.notes["numerics"] = {"public_suffix_list": suffix_list()}
        writer.count(read=len(ids), kept=len(ids))

    def _table(self, writer: PartWriter, path: str | None) -> UnigramTable | None:
        """The word frequencies at `path`, read once a process."""
        if path is None:
            return None
        if self._unigrams is None or self._unigrams[0] != path:
            import io

            import pyarrow.parquet as pq

            from data_quality.unigrams import load_unigrams

            table = pq.read_table(io.BytesIO(writer.store.read_bytes(path)))
            self._unigrams = (path, load_unigrams(table))
        return self._unigrams[1]


def make(config: RunConfig) -> Quality:
    """The stage of a run."""
    return Quality(config.quality, config.ingest)
