"""tokenize: the selected documents as token shards, one row a document.

Parts: `<split>-arrow/<stem>-<k>` (mapped into memory for training), `<split>-parquet/<stem>-<k>` (to share, to query)
`summary/tokens`: documents, rows (repeats counted), tokens and end tokens by split and source, and `summary/shards`:
the source and the tokens of every shard, which training needs to know before it opens one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corpus.config import TokenizeConfig
from stages.base import Context, Inputs, Stage, StageError, Unit, part_units
from stages.config import RunConfig
from stages.selected import count_emptied, evidence, selected_part, with_cuts
from storage.manifests import ManifestError
from storage.outputs import PartWriter, Receipt
from storage.schemas import token_schema, token_type

SPLITS = ("train", "validation")


class Tokenize(Stage[TokenizeConfig]):
    """Encodes every selected document, cuts applied, as often as it is repeated."""

    name = "tokenize"
    version = 2
    needs = ("ingest", "quality", "select", "tokenizer")

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        tokenizer = [inputs["tokenizer"].part(f"tokenizer/{name}").digest for name in ("tokenizer", "facts")]
        return part_units(self, inputs, tokenizer, evidence(inputs))

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from corpus.tokenizer import parse_tokenizer
        from corpus.tokens import encode_documents

        stem = unit.payload["stem"]
        facts = inputs["tokenizer"].read_json("tokenizer/facts")
        part = inputs["tokenizer"].part("tokenizer/tokenizer")
        tokenizer = parse_tokenizer(writer.store.read_bytes(part.path), part.path)
        dtype = token_type(facts["vocabulary_size"])
        schema = token_schema(dtype)
        end_id = facts["end_id"] if self.config.end_token else None
        summary: list[dict[str, Any]] = []
        written: list[dict[str, Any]] = []
        for split in SPLITS:
            documents = selected_part(inputs, stem, split, ["id", "text", "source"])
            documents = count_emptied(documents, writer)
            if not documents.num_rows:
                continue
            tokens = encode_documents(tokenizer, documents.column("id"), documents.column("text"), end_id, dtype)
            lengths = pc.list_value_length(tokens.column("tokens")).to_numpy()
            repeats = documents.column("repeats").to_numpy()
            rows = np.repeat(np.arange(len(repeats)), repeats)
            # A shard ends before the document that would take it over its size; a longer one is alone in its shard.
            ends = np.cumsum(lengths[rows])
            shards = (ends - 1) // self.config.shard_tokens
            for number in range(int(shards[-1]) + 1 if len(shards) else 0):
                shard = tokens.take(pa.array(rows[shards == number]))
                if not shard.num_rows:
                    continue
                name = f"{stem}-{number:04d}"
                values = shard.column("tokens").combine_chunks().flatten().to_numpy()
                written.append(
                    {
                        "split": split,
                        "name": name,
                        "source": documents.column("source")[0].as_py(),  # a part is of one source
                        "tokens": len(values),
                        # A tokeniser of one's own may give the end token for text too.
                        "end_once": end_id is not None and int((values == end_id).sum()) == shard.num_rows,
                    }
                )
                if self.config.arrow:
                    writer.ipc(f"{split}-arrow/{name}", shard, schema)
                if self.config.parquet:
                    writer.parquet(f"{split}-parquet/{name}", shard, schema)
            sizes = pc.binary_length(documents.column("text")).to_numpy()
            sources = np.asarray(documents.column("source").to_pylist())
            for source in np.unique(sources):
                own = sources == source
                summary.append(
                    {
                        "split": split,
                        "source": str(source),
                        "documents": int(own.sum()),
                        "rows": int(repeats[own].sum()),
                        "tokens": int((lengths * repeats)[own].sum()),
                        "end_tokens": int(repeats[own].sum()) if end_id is not None else 0,
                        "bytes": int((sizes * repeats)[own].sum()),
                    }
                )
        writer.notes.update(tokens=summary, shards=written)

    def finish(self, inputs: Inputs, receipts: Sequence[Receipt], writer: PartWriter) -> None:
        totals: dict[str, dict[str, Any]] = {}
        for receipt in receipts:
            for row in receipt.notes.get("tokens", []):
                total = totals.setdefault(
                    f"{row['split']}/{row['source']}", {"split": row["split"], "source": row["source"]}
                )
                for name in ("documents", "rows", "tokens", "end_tokens", "bytes"):
                    total[name] = total.get(name, 0) + row[name]
        rows = [totals[key] for key in sorted(totals)]
        for split in SPLITS:
            written = sum(
                part.rows
                for receipt in receipts
                for part in receipt.parts
                if part.kind == (f"{split}-arrow" if self.config.arrow else f"{split}-parquet")
            )
            wanted = sum(row["rows"] for row in rows if row["split"] == split)
            if written != wanted:
                raise ManifestError(f"tokenize: {wanted} rows of {split} were encoded, but the shards hold {written}")
        if not any(row["split"] == "train" for row in rows):
            raise StageError("tokenize: there are no training documents: look at `gristmill show select`")
        facts = inputs["tokenizer"].read_json("tokenizer/facts")
        shards = [shard for receipt in receipts for shard in receipt.notes.get("shards", [])]
        end_once = all(shard.pop("end_once") for shard in shards)
        writer.json("summary/shards", {"end_once": end_once, "shards": shards})
        writer.json("summary/tokens", {**facts, "end_token": self.config.end_token, "sources": rows})


def make(config: RunConfig) -> Stage[Any]:
    """The stage of a run."""
    assert config.tokenize is not None
    return with_cuts(Tokenize(config.tokenize), config)
