"""tokenizer: a vocabulary trained on a sample of the selected training documents, or a given one, checked.

Parts: `tokenizer/tokenizer` (tokenizer.json), `tokenizer/facts` (size, end token, type of ids), `tokenizer/report`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from corpus.config import TokenizerConfig
from stages.base import Context, Inputs, Stage, StageError, Unit
from stages.config import RunConfig
from stages.selected import selected_part, with_cuts
from storage.fingerprint import canonical
from storage.outputs import PartWriter, Receipt

REPORT_DOCUMENTS = 2_000


class TokenizerStage(Stage[TokenizerConfig]):
    """Byte-level BPE by the `tokenizers` library."""

    name = "tokenizer"
    version = 1
    needs = ("ingest", "quality", "select")

    def parameters(self) -> Any:
        found = canonical(self.config, self.name)
        if self.config.kind == "file":
            from storage.filesystem import digest_bytes

            # The file's content names the output, not the place it was read from.
            found = {"kind": "file", "end_of_text": self.config.end_of_text, "digest": digest_bytes(self._given())}
        return found

    def _given(self) -> bytes:
        import fsspec

        try:
            with fsspec.open(self.config.path, "rb") as stream:
                return bytes(stream.read())
        except OSError as error:
            raise StageError(f"tokenizer.path: {self.config.path} cannot be read: {error}") from error

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        digests = {name: inputs[name].digest for name in self.needs}
        return [Unit("vocabulary", self.unit_key(parameters=self.parameters(), inputs=digests))]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        from corpus.tokenizer import (
            end_token_id,
            parse_tokenizer,
            sample_mask,
            tokenizer_report,
            train_tokenizer,
            vocabulary_size,
        )
        from storage.schemas import token_type

        stems = [part.stem for part in inputs["ingest"].parts("documents")]
        sampled = [0, 0]

        def sample() -> Iterator[str]:
            share = self.config.sample_bytes / max(1, _training_bytes(inputs, stems))
            for stem in stems:
                context.check()
                documents = selected_part(inputs, stem, "train", ["id", "text"])
                mask = sample_mask(documents.column("id"), share)
                for text in documents.column("text").filter(mask).to_pylist():
                    sampled[0] += 1
                    sampled[1] += len(text.encode())
                    yield text

        if self.config.kind == "file":
            tokenizer = parse_tokenizer(self._given(), self.config.path)
        else:
            before = os.environ.get("TOKENIZERS_PARALLELISM")
            os.environ["TOKENIZERS_PARALLELISM"] = "true"
            try:
                tokenizer = train_tokenizer(sample(), self.config)
            finally:
                os.environ["TOKENIZERS_PARALLELISM"] = before or "false"
            if not sampled[0]:
                raise StageError(
                    "tokenizer: not one document was selected for training: look at the funnel "
                    "(`gristmill show select`) and loosen filter or select"
                )
        size = vocabulary_size(tokenizer)
        facts = {
            "vocabulary_size": size,
            "end_of_text": self.config.end_of_text,
            "end_id": end_token_id(tokenizer, self.config.end_of_text),
            "dtype": str(token_type(size)),
        }
        held_out: list[str] = []
        for split in ("validation", "train"):
            for stem in stems if len(held_out) < REPORT_DOCUMENTS else []:
                held_out += selected_part(inputs, stem, split, ["text"]).column("text").to_pylist()
                if len(held_out) >= REPORT_DOCUMENTS:
                    break
        writer.bytes("tokenizer/tokenizer", tokenizer.to_str(pretty=True).encode(), ".json", rows=size)
        writer.json("tokenizer/facts", facts)
        writer.json("tokenizer/report", tokenizer_report(tokenizer, held_out[:REPORT_DOCUMENTS]))
        writer.json("about/sample", {"documents": sampled[0], "bytes": sampled[1]})
        writer.count(read=sampled[0], kept=sampled[0])


def _training_bytes(inputs: Inputs, stems: list[str]) -> int:
    """Bytes of text of all documents selected for training (before cuts)."""
    import pyarrow.compute as pc

    total = 0
    for stem in stems:
        split = inputs["select"].read(f"decisions/{stem}", ["split"]).column("split")
        size = inputs["quality"].read(f"features/{stem}", ["bytes"]).column("bytes")
        total += pc.sum(size.filter(pc.fill_null(pc.equal(split, "train"), False))).as_py() or 0
    return int(total)


def make(config: RunConfig) -> Stage[Any]:
    """The stage of a run."""
    assert config.tokenizer is not None
    return with_cuts(TokenizerStage(config.tokenizer), config)
