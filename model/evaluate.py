"""How well a causal model predicts held-out text: perplexity and bits per byte, per set and per source.

A document is scored alone, with the end token before it as context. Long documents are read in overlapping windows,
and every token is scored exactly once, in the window that gives it the most context. Bits per byte does not depend on
the tokeniser, so it is the figure to compare models by.

Run as `python -m model.evaluate job.json`.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from model.checkpoint import tensor_digest
from model.config import TrainingResources, from_mapping
from model.finetune_config import EvaluateConfig, GenerateConfig
from model.generate import end_token_id, generate, load_model
from model.parallel import start_ranks
from model.transformer import Transformer
from storage.filesystem import Store

BATCH_TOKENS = {"cpu": 1024, "cuda": 16_384}
"""Tokens a batch, padding counted, where the job does not say. On CPUs logits that fit the cache are faster; on a GPU
16,384 tokens with a vocabulary of 32,000 take 2 GB."""

logger = logging.getLogger("model.evaluate")


@dataclass(frozen=True)
class Window:
    """Targets `scored`..`stop` (exclusive) of one document, predicted from the tokens that start at `start`.

    Positions count in the document with its context token in front: target t is predicted from token t - 1.
    """

    document: int
    start: int
    scored: int
    stop: int

    @property
    def length(self) -> int:
        """Tokens the model reads."""
        return self.stop - 1 - self.start


def windows(document: int, tokens: int, length: int, stride: int) -> Iterator[Window]:
    """Windows over a document of `tokens` tokens (its context token not counted) that score each of them once.

    Window k reads the `length` tokens from k * `stride` on and scores what the windows before it did not reach.
    """
    start, scored = 0, 1
    while scored <= tokens:
        stop = min(start + length, tokens) + 1
        yield Window(document, start, scored, stop)
        start, scored = start + stride, stop


@torch.no_grad()
def document_losses(
    model: Transformer,
    documents: Sequence[Sequence[int]],
    *,
    context: int,
    length: int,
    stride: int,
    batch_tokens: int = 0,
    precision: str = "fp32",
) -> list[float]:
    """The negative log-likelihood of each document in nats, summed over its tokens in float64.

    Parameters
    ----------
    documents
        Token ids, without end tokens.
    context
        Id of the token that stands before every document (the end token of the one before); it is not scored.
    length, stride
        As `windows`; `stride` is at most `length`.
    batch_tokens
        Windows are batched by length up to this many tokens (0: `BATCH_TOKENS`); it changes speed and, in the last
        bits, rounding.
    precision
        "fp32" or "bf16" for the forward pass; losses are float32 either way.

    Raises
    ------
    ValueError
        when the model is not causal, or length or stride make no sense.
    """
    if not model.config.causal:
        raise ValueError(
            "perplexity is defined for causal models only; this one sees both sides (model.causal = false)"
        )
    if not 1 <= stride <= length <= model.config.max_positions:
        raise ValueError(
            f"need 1 <= stride ({stride}) <= sequence_length ({length}) <= model.max_positions "
            f"({model.config.max_positions})"
        )
    device = model.model.embed_tokens.weight.device
    size = batch_tokens or BATCH_TOKENS[device.type]
    todo = [window for i, ids in enumerate(documents) for window in windows(i, len(ids), length, stride)]
    todo.sort(key=lambda window: (-window.length, window.document, window.start))
    losses = [0.0] * len(documents)
    while todo:
        batch = todo[: max(1, size // todo[0].length)]
        del todo[: len(batch)]
        for window, loss in zip(
            batch, _window_losses(model, documents, batch, context, device, precision), strict=True
        ):
            losses[window.document] += loss
    return losses


def _window_losses(
    model: Transformer,
    documents: Sequence[Sequence[int]],
    batch: list[Window],
    context: int,
    device: torch.device,
    precision: str,
) -> list[float]:
    """The nats of every window of a batch, longest first; padding stands on the right, where nothing looks."""
    tokens = torch.full((len(batch), batch[0].length + 1), context, dtype=torch.int64)
    counted = torch.zeros(len(batch), batch[0].length, dtype=torch.bool)
    for row, window in enumerate(batch):
        ids = documents[window.document][max(window.start - 1, 0) : window.stop - 1]
        tokens[row, window.length + 1 - len(ids) : window.length + 1] = torch.as_tensor(ids)
        counted[row, window.scored - 1 - window.start : window.length] = True
    inputs, targets, rows = tokens[:, :-1].to(device), tokens[:, 1:][counted].to(device), counted.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        hidden = model.hidden_states(inputs)[rows]  # only what is scored goes through the wide output layer
        nats = F.cross_entropy(model.logits(hidden).float(), targets, reduction="none")
    return [float(part.double().sum()) for part in torch.split(nats.cpu(), counted.sum(dim=1).tolist())]


@dataclass
class Score:
    """Sums over scored documents; the rates follow from them."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    nats: list[float] = field(default_factory=list)

    def add(self, tokens: int, size: int, nats: float) -> None:
        """Count one document."""
        self.documents += 1
        self.tokens += tokens
        self.bytes += size
        self.nats.append(nats)

    def report(self) -> dict[str, Any]:
        """documents, tokens, bytes; loss (nats a token), perplexity, bits_per_byte: None when nothing was scored."""
        nats = math.fsum(self.nats)  # exact, so the order of documents does not matter
        loss = nats / self.tokens if self.tokens else None
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "loss": loss,
            "perplexity": None if loss is None else math.exp(min(loss, 700.0)),
            "bits_per_byte": nats / math.log(2) / self.bytes if self.bytes else None,
        }


@dataclass(frozen=True)
class Documents:
    """What of a set is scored: token ids (no end token), UTF-8 bytes and source of every document."""

    tokens: list[list[int]]
    sizes: list[int]
    sources: list[str | None]


def read_table(path: str, columns: Sequence[str]) -> pa.Table:
    """Those of `columns` that a Parquet file or an Arrow IPC file (`.arrow`, memory-mapped) has."""
    if path.endswith(".parquet"):
        return pq.read_table(path, columns=[name for name in pq.read_schema(path).names if name in columns])
    if path.endswith(".arrow"):
        table = pa.ipc.open_file(pa.memory_map(path)).read_all()
        return table.select([name for name in table.column_names if name in columns])
    raise ValueError(f"{path}: an evaluation set is made of .parquet or .arrow files")


def read_documents(paths: Sequence[str], tokenizer: Tokenizer, end: int, max_documents: int) -> Documents:
    """The documents of a set, from tables with `id` and either `text` or `tokens`, `source` where there is one.

    With a limit, the documents with the smallest ids are taken: ids are hashes of the text, so that is a sample which
    no order of files changes. An end token after a document is not scored, and what counts as bytes of a token shard is
    its decoded text.
    """
    rows: list[tuple[bytes, int, int]] = []  # document id, file, row of the file
    for number, path in enumerate(paths):
        table = read_table(path, ["id"])
        if "id" not in table.column_names:
            raise ValueError(f"{path}: an evaluation set needs a column 'id'")
        rows += [(document, number, row) for row, document in enumerate(table["id"].to_pylist())]
        if max_documents:
            rows = sorted(rows)[:max_documents]
    tokens: list[list[int]] = []
    sizes: list[int] = []
    sources: list[str | None] = []
    for number, path in enumerate(paths):
        if not (wanted := sorted(row for _, owner, row in rows if owner == number)):
            continue
        chosen = read_table(path, ["text", "tokens", "source"]).take(wanted)
        if not {"text", "tokens"} & set(chosen.column_names):
            raise ValueError(f"{path}: an evaluation set needs a column 'text' or 'tokens'")
        sources += chosen["source"].to_pylist() if "source" in chosen.column_names else [None] * len(chosen)
        if "text" in chosen.column_names:
            texts = chosen["text"].to_pylist()
            tokens += [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
        else:
            ids = [row[:-1] if row and row[-1] == end else row for row in chosen["tokens"].to_pylist()]
            texts = tokenizer.decode_batch(ids, skip_special_tokens=False)
            tokens += ids
        sizes += [len(text.encode("utf-8")) for text in texts]
    return Documents(tokens, sizes, sources)


def evaluate_set(
    model: Transformer,
    documents: Documents,
    config: EvaluateConfig,
    *,
    context: int,
    batch_tokens: int = 0,
) -> dict[str, Any]:
    """`Score.report` of all documents and, where they have sources, of each source under `sources`."""
    length = config.sequence_length or model.config.max_positions
    losses = document_losses(
        model,
        documents.tokens,
        context=context,
        length=length,
        stride=config.stride or max(length // 2, 1),
        batch_tokens=batch_tokens,
        precision=config.precision,
    )
    total, by_source = Score(), dict[str, Score]()
    for ids, size, source, nats in zip(documents.tokens, documents.sizes, documents.sources, losses, strict=True):
        total.add(len(ids), size, nats)
        if source is not None:
            by_source.setdefault(source, Score()).add(len(ids), size, nats)
    report = total.report()
    if by_source:
        report["sources"] = {name: by_source[name].report() for name in sorted(by_source)}
    return report


# -------------------------------------------------------------------------------------------------------- the job


@dataclass(frozen=True)
class Job:
    """What a job file says. `sets` maps a name to files; `output` is a folder or store URL."""

    checkpoint: str
    tokenizer: str | None
    sets: dict[str, tuple[str, ...]]
    evaluate: EvaluateConfig
    generate: GenerateConfig
    resources: TrainingResources
    output: str
    end_id: int | None


def parse_job(values: Mapping[str, Any], name: str = "job") -> Job:
    """The job of a decoded job file. Raises ValueError naming the field that is missing, unknown or wrong."""
    try:
        if values["task"] != "evaluate":
            raise ValueError(f"{name}: task = {values['task']!r}, but model.evaluate knows only 'evaluate'")
        sampling = dict(values.get("generate", {}))
        if isinstance(sampling.get("prompts"), list):
            sampling["prompts"] = tuple(sampling["prompts"])
        return Job(
            checkpoint=values["checkpoint"],
            tokenizer=values.get("tokenizer"),
            sets={
                key: (paths,) if isinstance(paths, str) else tuple(paths)
                for key, paths in sorted(values["sets"].items())
            },
            evaluate=from_mapping(EvaluateConfig, values.get("evaluate", {}), f"{name}: evaluate"),
            generate=from_mapping(GenerateConfig, sampling, f"{name}: generate"),
            resources=from_mapping(TrainingResources, values.get("resources", {}), f"{name}: resources"),
            output=values["output"],
            end_id=values.get("end_id"),
        )
    except KeyError as missing:
        raise ValueError(f"{name}: the field {missing} is missing") from None


def evaluate(job: Job) -> dict[str, Any]:
    """Score all sets and write the configured samples.

    Returns
    -------
    dict
        `sets` (name to `evaluate_set`), `samples` (prompt and text of each) and the `tensor_digest` of the weights;
        written to `final.json` of the output as well. No path and no time is in it: one input, one file.
    """
    started = time.perf_counter()
    ranks = start_ranks(job.resources)
    if ranks.count > 1:
        raise ValueError(f"evaluation runs in one process, resources.processes = {job.resources.processes}")
    model, tokenizer, config = load_model(job.checkpoint, job.tokenizer, device=ranks.device)
    end = end_token_id(tokenizer) if job.end_id is None else job.end_id
    length = job.evaluate.sequence_length or config.max_positions
    batch_tokens = job.resources.micro_batch_sequences * length
    sets = {}
    for name, paths in job.sets.items():
        documents = read_documents(paths, tokenizer, end, job.evaluate.max_documents)
        sets[name] = evaluate_set(model, documents, job.evaluate, context=end, batch_tokens=batch_tokens)
        logger.info("%s: %d documents, %s bits per byte", name, sets[name]["documents"], sets[name]["bits_per_byte"])
    samples = [
        {"prompt": prompt, "text": generate(model, tokenizer, prompt, job.generate, end_id=end)}
        for prompt in job.generate.prompts
    ]
    result = {
        "sets": sets,
        "samples": samples,
        "tensor_digest": tensor_digest(model.named_parameters()),
    }
    logger.info("evaluated %s in %.1f s", job.checkpoint, time.perf_counter() - started)
    Store(job.output).replace("final.json", (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    return result


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m model.evaluate job.json", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        job = parse_job(json.loads(Path(arguments[0]).read_text(encoding="utf-8")), arguments[0])
    except (ValueError, OSError) as reason:
        print(reason, file=sys.stderr)
        return 2
    evaluate(job)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
