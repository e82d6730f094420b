"""Tokens a second of pretraining on one device, beside the same model in `transformers`, each in a fresh process.

    python -m benchmarks.training                                  # a CUDA device: GPT-2's size, 1,024-token sequences
    python -m benchmarks.training --device cpu --layers 4 --width 256 --heads 4 --sequences 16 --micro 4 --length 256

Real training steps: loader, forward, backward, clipping, AdamW, metrics. Documents are drawn at random, of some 400
tokens on average. Needs torch's family alone; without `transformers` its rows are left out. Writes no file: it prints
its table, so that it also runs where the repository is a copy.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.util
import json
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 peak of a device by a word in its name (vendor's data sheets)."""

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "any kernel": {"deterministic": False},
    "compiled": {"compile": True},
    "compiled, any kernel": {"compile": True, "deterministic": False},
    "compiled, any kernel, one document a row": {"compile": True, "deterministic": False, "document_mask": False},
    "transformers": {"peer": True},
    "transformers, compiled": {"peer": True, "compile": True},
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    for name, default, what in (
        ("layers", 12, "blocks"),
        ("width", 768, "width of the residual stream"),
        ("heads", 12, "heads"),
        ("vocabulary", 50_304, "tokens of the vocabulary"),
        ("length", 1024, "tokens a sequence"),
        ("sequences", 64, "sequences a step"),
        ("micro", 32, "sequences computed at once"),
        ("steps", 30, "steps; the first third is not counted"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} (default: %(default)s)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--variant", choices=tuple(VARIANTS), action="append", help="only these rows")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measure(options, options.one)))
        return
    wanted = options.variant or list(VARIANTS)
    if importlib.util.find_spec("transformers") is None:
        wanted = [name for name in wanted if "peer" not in VARIANTS[name]]
        print("transformers is not installed: its rows are left out")
    rows = {}
    for name in wanted:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.training", *sys.argv[1:], "--one", name], stdout=subprocess.PIPE
        )
        if done.returncode:
            raise SystemExit(f"{name}: exit code {done.returncode}; its errors stand above")
        rows[name] = json.loads(done.stdout.splitlines()[-1])
    print(_table(options, rows))


def _table(options: argparse.Namespace, rows: dict[str, dict[str, Any]]) -> str:
    first = next(iter(rows.values()))
    peak = next((flops for word, flops in PEAK_FLOPS.items() if word in first["device"]), None)
    lines = [
        f"{first['device']}, {platform.machine()}, torch {first['torch']}, {datetime.date.today().isoformat()}: "
        f"{first['parameters'] / 1e6:.1f} M parameters, {options.sequences} × {options.length} tokens a step, "
        f"{options.micro} sequences at once, {options.precision}",
        "",
        "| variant | tokens a second | × | of peak | step ms | peak GiB | loss of the last step |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        share = f"{row['flops_per_token'] * row['rate'] / peak:.1%}" if peak else ""
        lines.append(
            f"| {name} | {row['rate']:,.0f} | {row['rate'] / first['rate']:.2f} | {share} | "
            f"{1000 * row['seconds']:.1f} | {row['peak'] / 2**30:.1f} | {row['loss']:.3f} |"
        )
    return "\n".join(lines)


def _measure(options: argparse.Namespace, name: str) -> dict[str, Any]:
    import torch

    variant = VARIANTS[name]
    with tempfile.TemporaryDirectory() as folder:
        shard = _write_tokens(Path(folder), options)
        run = _transformers if variant.get("peer") else _own
        seconds, loss = run(options, variant, Path(folder), shard)
    counted = statistics.median(seconds[len(seconds) // 3 :])
    cuda = options.device == "cuda"
    parameters, flops = _flops(options)
    return {
        "rate": options.sequences * options.length / counted, "seconds": counted, "loss": loss,
        "peak": torch.cuda.max_memory_allocated() if cuda else _peak_rss(),
        "device": torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} CPU threads",
        "torch": torch.__version__, "parameters": parameters, "flops_per_token": flops,
    }  # fmt: skip


def _peak_rss() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _flops(options: argparse.Namespace) -> tuple[int, float]:
    """Parameters, and operations a token: 6 a parameter and 12·L·W·T/2 for causal attention (Kaplan et al. 2020)."""
    from model.config import ModelConfig
    from model.transformer import Transformer

    model = Transformer(_shape(options, ModelConfig), options.vocabulary)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return parameters, 6 * parameters + 6 * options.layers * options.width * options.length


def _shape(options: argparse.Namespace, config_type: Any) -> Any:
    return config_type(
        layers=options.layers, width=options.width, heads=options.heads, kv_heads=options.heads,
        max_positions=options.length,
    )  # fmt: skip


def _write_tokens(folder: Path, options: argparse.Namespace) -> Path:
    import numpy as np
    import pyarrow as pa

    from storage.arrow_files import write_ipc
    from storage.schemas import token_schema, token_type

    random = np.random.default_rng(1)
    needed = options.sequences * options.length * (options.steps + 1)
    lengths = np.maximum(8, random.lognormal(math.log(250), 1.0, needed // 200).astype(np.int64))
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), needed)) + 1]
    ends = np.cumsum(lengths)
    dtype = token_type(options.vocabulary)
    # Zipf's law, so that there is something to learn.
    tokens = np.minimum(random.zipf(1.2, int(ends[-1])), options.vocabulary - 1).astype(dtype.to_pandas_dtype())
    tokens[ends - 1] = 0
    ids = [hashlib.blake2b(str(row).encode(), digest_size=16).digest() for row in range(len(lengths))]
    schema = token_schema(dtype)
    offsets = np.concatenate(([0], ends)).astype(np.int64)
    column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(tokens), type=schema.field("tokens").type)
    file = folder / "tokens.arrow"
    write_ipc(file, pa.table({"id": pa.array(ids, pa.binary(16)), "tokens": column}, schema=schema), schema)
    return file


def _own(options: argparse.Namespace, variant: dict[str, Any], folder: Path, shard: Path) -> tuple[list[float], float]:
    import dataclasses

    from model import train
    from model.config import ModelConfig
    from model.metrics import read_metrics

    shape = {**dataclasses.asdict(_shape(options, ModelConfig)), "vocabulary_size": options.vocabulary}
    job = {
        "task": "pretrain",
        "model": shape,
        "training": {
            "sequence_length": options.length, "batch_sequences": options.sequences, "steps": options.steps,
            "warmup_steps": 5, "learning_rate": 6e-4, "precision": options.precision, "checkpoint_every": 10**6,
            "validation_sequences": 0, "document_mask": variant.get("document_mask", True),
        },
        "resources": {
            "device": options.device, "micro_batch_sequences": options.micro, "compile": variant.get("compile", False),
            "deterministic": variant.get("deterministic", True),
        },
        "tokens": {"train": [str(shard)], "validation": [], "digest": "blake2b:00", "end_id": 0},
        "output": str(folder / "output"),
        "attempt": "one",
    }  # fmt: skip
    train.pretrain(train.parse_job(job))
    lines = [line for line in read_metrics(str(folder / "output")) if "seconds" in line]
    return [line["seconds"] for line in lines], lines[-1]["loss"]


def _transformers(
    options: argparse.Namespace, variant: dict[str, Any], folder: Path, shard: Path
) -> tuple[list[float], float]:
    """The plain loop of its users: Llama with SDPA, autocast, fused AdamW; no document masks, no deterministic mode."""
    import torch
    import torch.nn.functional as F
    from transformers import LlamaConfig, LlamaForCausalLM

    from model.data import TokenShard

    tokens = TokenShard(shard).tokens
    config: Any = LlamaConfig(  # type: ignore[call-arg, unused-ignore]
        vocab_size=options.vocabulary, hidden_size=options.width, num_hidden_layers=options.layers,
        num_attention_heads=options.heads, num_key_value_heads=options.heads,
        intermediate_size=-(-8 * options.width // (3 * 64)) * 64, max_position_embeddings=options.length,
        tie_word_embeddings=True, attn_implementation="sdpa", use_cache=False,
    )  # fmt: skip
    torch.manual_seed(1)
    model = LlamaForCausalLM(config).to(options.device)
    forward = torch.compile(model) if variant.get("compile") else model
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=options.device == "cuda"
    )
    seconds, loss, size = [], 0.0, options.sequences * options.length
    for step in range(options.steps):
        began = time.perf_counter()
        for group in optimiser.param_groups:
            group["lr"] = 6e-4 * min(1.0, (step + 1) / 5)
        batch = torch.from_numpy(tokens[step * size : (step + 1) * size + 1].astype("int64"))
        optimiser.zero_grad()
        total = torch.zeros((), device=options.device)
        for first in range(0, options.sequences, options.micro):
            begin, count = first * options.length, min(options.micro, options.sequences - first) * options.length
            x = batch[begin : begin + count].view(-1, options.length).to(options.device)
            y = batch[begin + 1 : begin + count + 1].to(options.device)
            with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16"):
                logits = forward(input_ids=x).logits
            part = F.cross_entropy(logits.flatten(0, 1).float(), y, reduction="sum") / size
            part.backward()
            total += part.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        loss = float(total)  # waits for the device
        seconds.append(time.perf_counter() - began)
    return seconds, loss


if __name__ == "__main__":
    main()
