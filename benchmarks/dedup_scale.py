"""What does deduplication cost as the corpus grows? CPU seconds, bytes and peak memory of every step.

`sketch` and `deduplicate` from document parts to decisions, with receipts and manifests, on synthetic documents of
about 150 words: a tenth are copies, a fifth near-duplicates. Each size runs in a fresh process, a unit at a time.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.outputs import write_outputs
from benchmarks.timing import forget_peak, machine, peak_memory
from benchmarks.workers import Silent
from data_quality.duplicates_config import DeduplicateConfig, SketchConfig
from stages.base import Resources

PART_ROWS = 25_000
WORDS = 150
RESULTS = Path(__file__).with_name("results") / "dedup_scale.md"
STEPS = (
    "sketch", "entries", "copies", "claims", "leaders", "buckets", "components", "jump", "weigh", "pack", "members",
    "regroup", "decide", "arrange", "spread", "against", "decide_block", "decisions", "growth",
)  # fmt: skip


def texts(number: int) -> Iterator[str]:
    """Documents of Zipf-like words; of ten one copies and two vary an earlier one."""
    generator = np.random.default_rng(7)
    vocabulary = np.array([f"{chr(97 + i % 26)}{i:x}" for i in range(200_000)], dtype=object)
    recent: list[Any] = []
    for _start in range(0, number, 1_000):
        fates = generator.random(1_000)
        lengths = np.clip(generator.lognormal(np.log(WORDS), 0.6, 1_000), 8, 4_000).astype(int)
        places = generator.random(1_000)
        for fate, length, place in zip(fates, lengths.tolist(), places.tolist(), strict=True):
            if recent and fate < 0.3:
                words = recent[int(place * len(recent))]
                if fate > 0.1:
                    words = words.copy()
                    some = generator.integers(0, words.size, max(1, words.size // 60))
                    words[some] = generator.integers(0, vocabulary.size, some.size)
            else:
                words = (vocabulary.size ** generator.random(length)).astype(np.int64) - 1
            if len(recent) < 50_000:
                recent.append(words)
            else:
                recent[int(generator.integers(0, len(recent)))] = words
            yield " ".join(vocabulary[words])


def parts(source: Iterator[str]) -> Iterator[pa.Table]:
    """The documents of these texts, PART_ROWS a part."""
    from corpus.texts import content_ids
    from storage.schemas import DOCUMENTS

    for part in itertools.count():
        some = pa.array(itertools.islice(source, PART_ROWS), pa.large_string())
        if not len(some):
            return
        columns = {
            "id": content_ids(some), "text": some, "source": pa.array(["synthetic"] * len(some)),
            "uri": pa.array([f"synthetic-{part:05d}"] * len(some)), "record": pa.array(range(len(some))),
        }  # fmt: skip
        yield pa.table([columns.get(f.name, pa.nulls(len(some), f.type)) for f in DOCUMENTS], schema=DOCUMENTS)


def measure(source: Iterator[str], number: int, folder: Path, memory: int) -> dict[str, Any]:
    """CPU seconds, bytes and peak memory (MiB) by step, of `number` texts."""
    from stages.deduplicate import Deduplicate
    from stages.pool import execute
    from stages.runner import run_stage
    from stages.sketch import Sketch
    from storage.filesystem import Store

    store = Store(str(folder))
    inputs: dict[str, Any] = dict(write_outputs(store, parts(itertools.islice(source, number))))
    features = (
        inputs["quality"].read(f"features/{part.stem}", ["bytes"]) for part in inputs["quality"].parts("features")
    )
    size = sum(sum(table.column("bytes").to_pylist()) for table in features)
    seconds: dict[str, float] = collections.defaultdict(float)
    written: collections.Counter[str] = collections.Counter()
    units: collections.Counter[str] = collections.Counter()
    peaks: collections.Counter[str] = collections.Counter()

    def run(stage: str, batches: Any, done: Any, check: Any, report: Any) -> None:
        for batch in batches:
            for order in batch:
                forget_peak()
                began = time.process_time()
                receipt = execute(order, report, check)
                step = str(order.unit.payload.get("step", stage))
                seconds[step] += time.process_time() - began
                peaks[step] = max(peaks[step], peak_memory() >> 20)
                written[step] += sum(part.bytes for part in receipt.parts)
                units[step] += 1
                done(order.unit, receipt)

    began = time.process_time()
    inputs["sketch"] = run_stage(Sketch(SketchConfig()), store, inputs, Resources(), run, Silent()).output
    stage = Deduplicate(DeduplicateConfig(), SketchConfig(), memory)
    output = run_stage(stage, store, inputs, Resources(), run, Silent()).output
    total = time.process_time() - began
    return {
        "documents": number, "MB": size / 1e6, "seconds": seconds, "bytes": written, "units": units, "total": total,
        "peaks": peaks, "peak": max(peaks.values()), "counts": output.counts,
        "statistics": output.read_json("about/duplicates"),
    }  # fmt: skip


def report(found: list[list[dict[str, Any]]], documents: list[int], memories: list[int]) -> str:
    """The tables of all sizes: what they cost with the last memory, what they hold with each."""
    last = found[-1]
    head = " | ".join(f"{number:,}" for number in documents)
    lines = [
        f"CPU seconds of the steps and bytes they write (scratch files included), with {memories[-1]} MB:", "",
        f"| per million documents | {head} |",
        "|---|" + "---:|" * len(last),
    ]  # fmt: skip
    done = [step for step in STEPS if any(step in one["seconds"] for some in found for one in some)]
    for step in done:
        cells = [
            f"{one['seconds'].get(step, 0) / one['documents'] * 1e6:.1f} s, "
            f"{one['bytes'].get(step, 0) / one['documents']:.0f} MB"
            for one in last
        ]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    cells_of: dict[str, Callable[[dict[str, Any]], str]] = {
        "all, with receipts and manifests": lambda one: f"{one['total'] / one['documents'] * 1e6:.1f} s",
        "MB of text a CPU second": lambda one: f"{one['MB'] / one['total']:.1f}",
        "MB of text": lambda one: f"{one['MB']:.0f}",
        "units of deduplicate": lambda one: f"{sum(one['units'].values()) - one['units']['sketch']}",
        "exact, near": lambda one: f"{one['statistics']['exact']:,}, {one['statistics']['near']:,}",
    }
    for name, cell in cells_of.items():
        lines.append(f"| {name} | {' | '.join(cell(one) for one in last)} |")
    heads = [f"{number:,}, {memory} MB" for number in documents for memory in memories]
    lines += [
        "", "Peak RSS of the steps in MiB, one after the other in one process, by `how.memory_megabytes`:", "",
        f"| step | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads),
    ]  # fmt: skip
    for step in (*done, "MB of text a CPU second"):
        cells = [
            f"{one['MB'] / one['total']:.1f}" if step not in done else str(one["peaks"].get(step, "-"))
            for column in zip(*found, strict=True)
            for one in column
        ]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    command = f"python -m benchmarks.dedup_scale --memory {' '.join(map(str, memories))}"
    return "\n".join(
        [
            "# dedup_scale", "", (__doc__ or "").strip(), "", f"    {command}", "",
            machine(("numba", "numpy", "polars", "pyarrow")), "", *lines, "",
        ]
    )  # fmt: skip


def main() -> None:
    """Measure every size in a process of its own and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--memory", type=int, nargs="+", default=[256, 512], help="how.memory_megabytes")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            source = itertools.islice(texts(options.one), options.one)
            print(json.dumps(measure(source, options.one, Path(folder), options.memory[0] << 20)))
        return
    found: list[list[dict[str, Any]]] = [[] for _ in options.memory]
    for number in options.documents:
        for memory, some in zip(options.memory, found, strict=True):
            command = [sys.executable, "-m", "benchmarks.dedup_scale", "--one", str(number), "--memory", str(memory)]
            some.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    text = report(found, options.documents, options.memory)
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
