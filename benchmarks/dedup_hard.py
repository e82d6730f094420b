"""Does deduplication stay within bounds where corpora are at their worst?

`sketch` and `deduplicate` through their stages, with 256 MiB planned for a worker: a million identical lines, one
document of 50 MB, a million empty documents, 200,000 texts that differ in punctuation and one word, and 50,000 pages of
one template with a mutual similarity of about .7, all of which stay. Each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.dedup_scale import measure
from benchmarks.timing import machine

RESULTS = Path(__file__).with_name("results") / "dedup_hard.md"
MEMORY = 256 << 20


def identical() -> Iterator[str]:
    """One line again and again."""
    return iter(["the same line of the log, written again and again and again"] * 1_000_000)


def long_document() -> Iterator[str]:
    """50 MB of words, and a short document."""
    words = np.random.default_rng(1).integers(0, 10**7, 6_400_000)
    return iter([" ".join(map(str, words.tolist())), "a short document beside it"])


def empty() -> Iterator[str]:
    """Nothing, a million times."""
    return iter([""] * 1_000_000)


def alike() -> Iterator[str]:
    """Sixty words, one of them changed in most, in other dress."""
    words = [f"word{number}" for number in range(60)]
    return (
        " ".join([*words, f"end{number % 997}", "!" * (number % 449), "." * (number // 449)])
        for number in range(200_000)
    )


def templates() -> Iterator[str]:
    """Pages of which 165 words are the same and 30 are their own."""
    generator = np.random.default_rng(3)
    template = [f"template{number}" for number in range(165)]
    return (
        " ".join([*template, *(f"x{value}" for value in generator.integers(0, 2**40, 30).tolist())])
        for _ in range(50_000)
    )


INPUTS: dict[str, tuple[Callable[[], Iterator[str]], int]] = {
    "a million identical lines": (identical, 1_000_000),
    "one document of 50 MB": (long_document, 2),
    "a million empty documents": (empty, 1_000_000),
    "200,000 nearly the same": (alike, 200_000),
    "50,000 pages of a template, similarity .7": (templates, 50_000),
}


def main() -> None:
    """Run every input and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        source, number = INPUTS[options.one]
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(source(), number, Path(folder), MEMORY)))
        return
    lines = [
        "| input | MB | CPU s | peak RSS MiB | kept | exact | near | compared | capped |",
        "|---|" + "---:|" * 8,
    ]
    for name in INPUTS:
        command = [sys.executable, "-m", "benchmarks.dedup_hard", "--one", name]
        one = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        said = one["statistics"]
        numbers = (one["counts"]["kept"], said["exact"], said["near"], said["verified"], said["capped"])
        cells = " | ".join(f"{number:,}" for number in numbers)
        lines.append(f"| {name} | {one['MB']:.0f} | {one['total']:.1f} | {one['peak']:.0f} | {cells} |")
        print(lines[-1], flush=True)
    facts = machine(("numba", "numpy", "polars", "pyarrow"))
    head = ["# dedup_hard", "", (__doc__ or "").strip(), "", "    python -m benchmarks.dedup_hard", "", facts, ""]
    RESULTS.write_text("\n".join([*head, *lines, ""]))


if __name__ == "__main__":
    main()
