"""tokenize: the selected documents as token shards, one row a document, each shard of one split and source.

Parts: `<split>-arrow/<stem>-<k>` (mapped into memory for training), `<split>-parquet/<stem>-<k>` (to share, to query),
`<split>-megatron/<stem>-<k>.bin` and `.idx`, `<split>-npy/<stem>-<k>` (for other trainers);
`summary/tokens`: documents, rows (repeats counted), tokens and end tokens by split and source; `summary/shards`: the
source and the tokens of every shard, which training needs to know before it opens one; `about/encoding`: documents by
the way they were encoded, and how many were compared with the library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from corpus.config import TokenizeConfig
from stages.base import Context, Inputs, Stage, StageError, Unit, part_units
from stages.config import RunConfig
from stages.selected import count_emptied, evidence, selected_part, with_cuts
from storage.manifests import ManifestError
from storage.outputs import PartWriter, Receipt
from storage.schemas import token_schema, token_type

SPLITS = ("train", "validation")
COUNTED = ("documents", "rows", "tokens", "end_tokens", "bytes")


class Tokenize(Stage[TokenizeConfig]):
    """Encodes every selected document, cuts applied, as often as it is repeated."""

    name = "tokenize"
    version = 3
    needs = ("ingest", "quality", "select", "tokenizer")

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        tokenizer = [inputs["tokenizer"].part(f"tokenizer/{name}").digest for name in ("tokenizer", "facts")]
        return part_units(self, inputs, tokenizer, evidence(inputs))

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from corpus.tokens import check_documents, encode_documents

        stem = unit.payload["stem"]
        facts = inputs["tokenizer"].read_json("tokenizer/facts")
        part = inputs["tokenizer"].part("tokenizer/tokenizer")
        encoder = _encoder(writer.store.read_bytes(part.path), part.path, self.config.encoder == "compiled")
        before = encoder.counts.copy()
        dtype = token_type(facts["vocabulary_size"])
        end_id = facts["end_id"] if self.config.end_token else None
        summary: list[dict[str, Any]] = []
        shards: list[dict[str, Any]] = []
        compared = 0
        for split in SPLITS:
            selected = count_emptied(selected_part(inputs, stem, split, ["id", "text", "source"]), writer)
            for source in sorted(pc.unique(selected.column("source")).to_pylist()):
                context.check()
                documents = selected.filter(pc.equal(selected.column("source"), source))
                texts = documents.column("text").combine_chunks()
                tokens = encode_documents(encoder, documents.column("id"), texts, end_id, dtype)
                compared += check_documents(encoder, texts, tokens, end_id)
                lengths = pc.list_value_length(tokens.column("tokens")).to_numpy()
                repeats = documents.column("repeats").to_numpy()
                rows = np.repeat(np.arange(len(repeats)), repeats)
                # A shard ends before the document that would take it over its size; a longer one is alone in its shard.
                places = (np.cumsum(lengths[rows]) - 1) // self.config.shard_tokens
                for place in np.unique(places):
                    shard = tokens.take(pa.array(rows[places == place]))
                    name = f"{stem}-{len(shards):04d}"
                    self._write(writer, split, name, shard, dtype)
                    values = shard.column("tokens").combine_chunks().flatten().to_numpy()
                    shards.append(
                        {
                            "split": split,
                            "name": name,
                            "source": source,
                            "tokens": len(values),
                            # A tokeniser of one's own may give the end token for text too.
                            "end_once": end_id is not None and int((values == end_id).sum()) == shard.num_rows,
                        }
                    )
                sizes = np.asarray(pc.binary_length(texts))
                summary.append(
                    {
                        "split": split,
                        "source": source,
                        "documents": documents.num_rows,
                        "rows": len(rows),
                        "tokens": int(lengths[rows].sum()),
                        "end_tokens": len(rows) if end_id is not None else 0,
                        "bytes": int(sizes[rows].sum()),
                    }
                )
        done = encoder.counts - before
        encoding = {
            "pattern": encoder.pattern,
            "compiled": done.compiled,
            "library": dict(done.library),
            "compared": compared,
        }
        writer.notes.update(tokens=summary, shards=shards, encoding=[encoding])

    def _write(self, writer: PartWriter, split: str, name: str, shard: Any, dtype: Any) -> None:
        """Write one shard in all forms that are wanted."""
        from corpus.token_exports import megatron_files, npy_bytes

        if self.config.arrow:
            writer.ipc(f"{split}-arrow/{name}", shard, token_schema(dtype))
        if self.config.parquet:
            writer.parquet(f"{split}-parquet/{name}", shard, token_schema(dtype))
        if self.config.megatron:
            data, index = megatron_files(shard)
            for ending, content in ((".bin", data), (".idx", index)):  # Megatron looks for them side by side
                writer.bytes(f"{split}-megatron/{name}{ending}", content, "", shard.num_rows)
        if self.config.npy:
            writer.bytes(f"{split}-npy/{name}", npy_bytes(shard), ".npy", shard.num_rows)

    def finish(self, inputs: Inputs, receipts: Sequence[Receipt], writer: PartWriter) -> None:
        totals: dict[tuple[str, str], dict[str, Any]] = {}
        for receipt in receipts:
            for row in receipt.notes.get("tokens", []):
                empty = {"split": row["split"], "source": row["source"], **dict.fromkeys(COUNTED, 0)}
                total = totals.setdefault((row["split"], row["source"]), empty)
                for name in COUNTED:
                    total[name] += row[name]
        rows = [totals[key] for key in sorted(totals)]
        shards = [shard for receipt in receipts for shard in receipt.notes.get("shards", [])]
        self._add_up(rows, shards, receipts)
        if not any(row["split"] == "train" for row in rows):
            raise StageError("tokenize: there are no training documents: look at `gristmill show select`")
        facts = inputs["tokenizer"].read_json("tokenizer/facts")
        end_once = all(shard.pop("end_once") for shard in shards)
        writer.json("summary/shards", {"end_once": end_once, "shards": shards})
        writer.json("summary/tokens", {**facts, "end_token": self.config.end_token, "sources": rows})
        compiled, library, compared, patterns = 0, Counter[str](), 0, set()
        for receipt in receipts:
            for row in receipt.notes.get("encoding", []):
                compiled, compared = compiled + row["compiled"], compared + row["compared"]
                library.update(row["library"])
                patterns.add(row["pattern"])
        writer.json(
            "about/encoding",
            {
                "pattern": next(iter(patterns), ""),
                "compiled": compiled,
                "library": dict(sorted(library.items())),
                "compared": compared,
            },
        )

    def _add_up(
        self, rows: Sequence[dict[str, Any]], shards: Sequence[dict[str, Any]], receipts: Sequence[Receipt]
    ) -> None:
        """Every split and source is in the shards with all its rows and tokens, and nothing else is."""
        form = "arrow" if self.config.arrow else "parquet"
        for split in SPLITS:
            parts = [part for receipt in receipts for part in receipt.parts if part.kind == f"{split}-{form}"]
            written = {part.stem: part.rows for part in parts}
            for row in rows:
                own = [
                    shard
                    for shard in shards
                    if shard["split"] == split == row["split"] and shard["source"] == row["source"]
                ]
                found = sum(written.pop(shard["name"]) for shard in own), sum(shard["tokens"] for shard in own)
                if row["split"] == split and found != (row["rows"], row["tokens"]):
                    raise ManifestError(
                        f"tokenize: {row['rows']} rows and {row['tokens']} tokens of {split}, source {row['source']}, "
                        f"were encoded, but the shards hold {found[0]} and {found[1]}"
                    )
            if written:
                raise ManifestError(f"tokenize: shards of {split} without documents: {', '.join(sorted(written))}")


@lru_cache(maxsize=1)
def _encoder(data: bytes, name: str, compiled: bool) -> Any:
    """The encoder of a tokenizer.json, kept for the worker's next part: what it has seen makes it faster."""
    from corpus.encoding.encoder import Encoder
    from corpus.tokenizer import parse_tokenizer

    return Encoder(parse_tokenizer(data, name), compiled=compiled)


def make(config: RunConfig) -> Stage[Any]:
    """The stage of a run."""
    assert config.tokenize is not None
    return with_cuts(Tokenize(config.tokenize), config)
