"""tokenizer: a vocabulary trained on a sample of the selected training documents, or a given one, checked.

Parts: `tokenizer/tokenizer` (tokenizer.json), `tokenizer/facts` (size, end token, type of ids), `tokenizer/report`, and
`tokenizer/chat-template` (Jinja) where there is one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from corpus.config import TokenizerConfig
from stages.base import Context, Inputs, Stage, StageError, Unit
from stages.config import RunConfig
from stages.selected import selected_part, with_cuts
from storage.fingerprint import canonical
from storage.outputs import PartWriter, Receipt

# The report reads validation documents, and if there are none training documents, up to so many bytes.
REPORT_BYTES = 32 << 20


class TokenizerStage(Stage[TokenizerConfig]):
    """BPE, Unigram or WordPiece by the `tokenizers` library, or somebody else's vocabulary."""

    name = "tokenizer"
    version = 3
    needs = ("ingest", "quality", "select")

    def parameters(self) -> Any:
        found = canonical(self.config, self.name)
        if self.config.given:
            from storage.filesystem import digest_bytes

            # The files' content names the output, not the place they were read from.
            found = {
                "kind": self.config.kind,
                "end_of_text": self.config.end_of_text,
                "chat_template": self.config.chat_template,
                "files": {name: digest_bytes(data) for name, data in self._files().items()},
            }
            if self.config.kind != "folder":
                found["files"] = sorted(found["files"].values())
            if self.config.kind == "tiktoken":
                found |= {"pattern": self.config.pattern, "special_tokens": list(self.config.special_tokens)}
        return found

    def _files(self) -> dict[str, bytes]:
        """The given file, or those of the folder that are read, by name."""
        import fsspec

        from corpus.tokenizer_imports import FOLDER_FILES

        system, path = fsspec.core.url_to_fs(self.config.path)
        try:
            if self.config.kind != "folder":
                return {path.rpartition("/")[2]: system.cat_file(path)}
            if not system.isdir(path):
                raise StageError(f"tokenizer.path: {self.config.path} is not a folder")
            names = [name for name in FOLDER_FILES if system.isfile(f"{path}/{name}")]
            return {name: system.cat_file(f"{path}/{name}") for name in names}
        except OSError as error:
            raise StageError(f"tokenizer.path: {self.config.path} cannot be read: {error}") from error

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        digests = {name: inputs[name].digest for name in self.needs}
        return [Unit("vocabulary", self.unit_key(parameters=self.parameters(), inputs=digests))]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        from corpus.encoding.encoder import Encoder
        from corpus.tokenizer import TokenizerError, end_token_id, gives_texts_back, vocabulary_size
        from corpus.tokenizer_imports import check_template, import_tokenizer
        from corpus.tokenizer_report import tokenizer_report
        from storage.schemas import token_type

        sampled: dict[str, Counter[str]] = {"documents": Counter(), "bytes": Counter()}
        try:
            template = self.config.chat_template
            if template:
                check_template(template, "tokenizer.chat_template")
            if self.config.given:
                imported = import_tokenizer(self.config, self._files())
                tokenizer, template = imported.tokenizer, template or imported.chat_template
                if template:
                    check_template(template, f"{self.config.path}, chat template")
            else:
                tokenizer = self._train(inputs, context, sampled)
            size = vocabulary_size(tokenizer)
            facts = {
                "vocabulary_size": size,
                "end_of_text": self.config.end_of_text,
                "end_id": end_token_id(tokenizer, self.config.end_of_text),
                "dtype": str(token_type(size)),
            }
        except TokenizerError as error:
            raise StageError(f"tokenizer: {error}") from error
        encoder = Encoder(tokenizer)
        report = tokenizer_report(encoder, _held_out(inputs, context))
        lossless = gives_texts_back(tokenizer)
        if lossless and report["round_trip_failures"]:
            raise StageError(
                f"tokenizer: {report['round_trip_failures']} of {report['documents']} documents are not what decoding "
                f"their tokens gives, though the tokeniser is byte-level: {report['round_trip_example']!r}"
            )
        report |= {"lossless": lossless, "compiled_encoding": encoder.pattern, "why_not_compiled": encoder.reason}
        writer.bytes("tokenizer/tokenizer", tokenizer.to_str(pretty=True).encode(), ".json", rows=size)
        if template:
            writer.bytes("tokenizer/chat-template", template.encode(), ".jinja")
        writer.json("tokenizer/facts", facts)
        writer.json("tokenizer/report", report)
        writer.json("about/sample", sampled)
        read = sampled["documents"].total()
        writer.count(read=read, kept=read)

    def _train(self, inputs: Inputs, context: Context, sampled: dict[str, Counter[str]]) -> Any:
        """The vocabulary of a sample, whose documents and bytes are counted by source."""
        from corpus.tokenizer import sample_mask, sample_shares, train_tokenizer

        stems = [part.stem for part in inputs["ingest"].parts("documents")]
        sizes = _training_bytes(inputs, stems)
        if unknown := sorted(set(self.config.source_weights) - set(sizes)):
            there = ", ".join(sorted(sizes)) or "none"
            raise StageError(
                f"tokenizer.source_weights.{unknown[0]}: no training document is of this source; there are: {there}"
            )
        shares = sample_shares(sizes, self.config.source_weights, self.config.sample_bytes)

        def sample() -> Iterator[str]:
            for stem in stems:
                context.check()
                documents = selected_part(inputs, stem, "train", ["id", "text", "source"])
                for batch in documents.to_batches(max_chunksize=4096):
                    for source in sorted(set(batch.column("source").to_pylist())):
                        mask = sample_mask(batch.column("id"), shares[source])
                        mask &= [own == source for own in batch.column("source").to_pylist()]
                        for text in batch.column("text").filter(mask).to_pylist():
                            sampled["documents"][source] += 1
                            sampled["bytes"][source] += len(text.encode())
                            yield text

        before = os.environ.get("TOKENIZERS_PARALLELISM")
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        try:
            tokenizer = train_tokenizer(sample(), self.config)
        finally:
            os.environ["TOKENIZERS_PARALLELISM"] = before or "false"
        if not sampled["documents"]:
            raise StageError(
                "tokenizer: not one document was selected for training: look at the funnel "
                "(`gristmill show select`) and loosen filter or select"
            )
        return tokenizer


def _held_out(inputs: Inputs, context: Context) -> Iterator[Any]:
    """Tables of text, source and language: validation documents, or training documents if there are none."""
    import pyarrow.compute as pc

    size = 0
    for split in ("validation", "train"):
        for part in inputs["ingest"].parts("documents"):
            context.check()
            documents = selected_part(inputs, part.stem, split, ["text", "source"])
            decisions = inputs["select"].read(f"decisions/{part.stem}", ["dropped_by", "split"])
            chosen = pc.and_(pc.is_null(decisions.column("dropped_by")), pc.equal(decisions.column("split"), split))
            features = inputs["quality"].read(f"features/{part.stem}", ["language"])
            languages = features.column("language").filter(pc.fill_null(chosen, False))
            table = documents.select(["text", "source"]).append_column("language", languages)
            ends = pc.cumulative_sum(pc.binary_length(table.column("text"))).to_numpy()
            table = table.slice(0, int((ends <= REPORT_BYTES - size).sum()))
            size += int(pc.sum(pc.binary_length(table.column("text"))).as_py() or 0)
            if table.num_rows:
                yield table
        if size:
            return


def _training_bytes(inputs: Inputs, stems: list[str]) -> dict[str, int]:
    """Bytes of text of all documents selected for training (before cuts), by source."""
    import polars as pl

    from stages.selected import side_by_side

    total: Counter[str] = Counter()
    for stem in stems:
        frame = side_by_side(
            inputs,
            ("select", f"decisions/{stem}", ["split"]),
            ("quality", f"features/{stem}", ["bytes"]),
            ("ingest", f"documents/{stem}", ["source"]),
        )
        train = frame.filter(pl.col("split") == "train").group_by("source").agg(pl.col("bytes").sum())
        for source, size in train.iter_rows():
            total[source] += size
    return dict(total)


def make(config: RunConfig) -> Stage[Any]:
    """The stage of a run."""
    assert config.tokenizer is not None
    return with_cuts(TokenizerStage(config.tokenizer), config)
