"""Peers at one task, each run in a fresh process, in turn (A B A B …): seconds, CPU seconds, memory, as a table.

A benchmark is a module whose docstring says what is compared and that calls `main`. A peer is a function that sets up,
which is not timed (imports, input into memory, compiling, a warm-up), and returns the work, which is. The command
prints its table with the facts of the machine and writes it to `results/`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import re
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.documents import BUILD, REPOSITORY, read_documents

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Result:
    """What the work came to.

    `amounts` names what was worked through and how much of it; rates are these a CPU second. `outcome` is called after
    the clock has stopped and gives a JSON value for `Benchmark.judge`.
    """

    amounts: Mapping[str, float]
    outcome: Callable[[], Any] = lambda: None


Work = Callable[[], Result]
Peer = Callable[[Path], Work]


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark runs.

    Attributes
    ----------
    excluded
        What is not timed.
    prepare
        Makes the input from a table of documents (`storage.schemas.DOCUMENTS`) in the folder that all peers are given.
    peers
        By name; the first is what the others are compared with.
    judge
        From the folder and every peer's outcome (of its first run) to a note for every peer.
    environment
        Variables of the processes that are timed.
    """

    excluded: str
    prepare: Callable[[Any, Path], None]
    peers: Mapping[str, Peer]
    judge: Callable[[Path, Mapping[str, Any]], Mapping[str, str]] = lambda folder, outcomes: {}
    documents: int = 40_000
    repetitions: int = 5
    packages: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def main(benchmark: Benchmark) -> None:
    """The command line of a benchmark."""
    spec = sys.modules["__main__"].__spec__
    if spec is None:
        raise SystemExit("run it as a module: python -m benchmarks.NAME")
    question = " ".join((sys.modules["__main__"].__doc__ or "").split())
    parser = argparse.ArgumentParser(prog=f"python -m {spec.name}", description=question)
    parser.add_argument("--docs", type=int, default=benchmark.documents, help="documents (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=benchmark.repetitions, help="runs (default: %(default)s)")
    parser.add_argument("--data", help="a folder of .jsonl or .jsonl.gz with a field `text`; else Python's own docs")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(_measure(benchmark.peers[options.peer](options.folder))))
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as temporary:
        folder = Path(temporary)
        benchmark.prepare(read_documents(options.data, options.docs), folder)
        load = os.getloadavg()[0]
        runs: dict[str, list[dict[str, Any]]] = {peer: [] for peer in benchmark.peers}
        for number in range(options.repetitions):
            for peer in benchmark.peers:
                runs[peer].append(_run(spec.name, peer, folder, benchmark.environment))
                print(f"run {number + 1} {peer}: {runs[peer][-1]['wall']:.2f} s", file=sys.stderr, flush=True)
        notes = benchmark.judge(folder, {peer: found[0]["outcome"] for peer, found in runs.items()})
    command = shlex.join(["python", "-m", spec.name, *sys.argv[1:]])
    title = spec.name.rpartition(".")[2]
    text = "\n\n".join(
        [
            f"# {title}",
            question,
            f"    {command}",
            f"{machine(('gristmill', *benchmark.packages))}; load average before: {load:.1f}; "
            f"{datetime.date.today().isoformat()}.",
            f"{options.repetitions} runs each, a fresh process a run, in turn; median [min-max]; × is the peer's "
            f"seconds over those of {next(iter(runs))!r} in the same turn. Not timed: {benchmark.excluded}",
            _table(runs, notes),
        ]
    )
    print(text)
    file = Path(__file__).parent / "results" / f"{title}.md"
    file.write_text(text + "\n", encoding="utf-8")


def _run(module: str, peer: str, folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", module, "--peer", peer, "--folder", str(folder)],
        cwd=REPOSITORY, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(work: Work) -> dict[str, Any]:
    forget_peak()
    held, of_children, own, began = peak_memory(), _children_seconds(), _own_seconds(), time.perf_counter()
    result = work()
    wall, own = time.perf_counter() - began, _own_seconds() - own
    cpu, peak = own + _children_seconds() - of_children, peak_memory()
    return {
        "wall": wall, "cpu": cpu, "peak": peak, "over": max(0, peak - held), "amounts": dict(result.amounts),
        "outcome": result.outcome(),
    }  # fmt: skip


def _own_seconds() -> float:
    """User and system seconds of this process and of the children it has waited for."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in found)


def _children_seconds() -> float:
    """User and system seconds of the children that live."""
    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children(recursive=True))


def forget_peak() -> None:
    """Where the system can (Linux), let `peak_memory` count from now on."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> int:
    """Bytes: the peak of this process plus that of every living child; pages that they share count in each."""
    if not Path("/proc/self/status").exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text(encoding="ascii"))
        peak += int(found[1]) * 1024 if found else 0
    return peak


def machine(packages: Sequence[str]) -> str:
    """What was measured on: cores, processor, memory, system, versions."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        cpu = found[1] if found else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    memory = psutil.virtual_memory().total / (1 << 30)
    return (
        f"{cores} cores, {cpu}, {memory:.0f} GiB, {platform.system()}; Python {platform.python_version()}, {versions}"
    )


def _table(runs: Mapping[str, list[dict[str, Any]]], notes: Mapping[str, str]) -> str:
    base = next(iter(runs.values()))
    amounts = list(base[0]["amounts"])
    head = ["peer", "wall s", "CPU s", *(f"{name} a CPU s" for name in amounts), "wall ×", "CPU ×", "peak RSS MiB", ""]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 2) + "---|"]
    for peer, found in runs.items():
        cpu = statistics.median(run["cpu"] for run in found)
        peak = statistics.median(run["peak"] for run in found) / MEBIBYTE
        over = statistics.median(run["over"] for run in found) / MEBIBYTE
        ratios = {
            key: [run[key] / first[key] for run, first in zip(found, base, strict=True)] for key in ("wall", "cpu")
        }
        cells = [
            peer,
            *(_spread([run[key] for run in found], 3) for key in ("wall", "cpu")),
            *(f"{_short(found[0]['amounts'][name] / cpu)}" for name in amounts),
            *("1" if found is base else _spread(ratios[key], 2) for key in ("wall", "cpu")),
            f"{peak:,.0f} (+{over:,.0f})",
            notes.get(peer, ""),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "Peak RSS: of the whole process; in brackets what the work added to the set-up."])


def _spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}-{high:.{digits}f}]"


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
