"""Batches keep all workers busy, and what people see in the UI is taken from the numbers as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.flows.conftest import REPOSITORY, clean_environment

# In a process of its own: importing Prefect reads and writes a home.
_SCRIPT = """
import json
from types import SimpleNamespace as N
from tasks.batches import width
from tasks.artifacts import _ranked, _samples, _scores

def batches(number, size, in_process=False):
    return [[N(stage=N(in_process=in_process))] * size for _ in range(number)]

print(json.dumps({
    "widths": [width(batches(24, 5), 2), width(batches(24, 5), 16), width(batches(1, 5), 16), width(batches(3, 1), 2),
               width(batches(1, 1, True), 16)],
    "ranked": _ranked({"dropped": {"b": 2, "a": 2, "c": 9}, "quarantined": {"bad-json": 3}}),
    "samples": _samples({"kept": [{"source": "s", "uri": "u", "record": 3, "excerpt": "# not a title\\nline"}]}),
    "scores": _scores({
        "losses": {"first": 6.0, "validation": 4.0}, "evaluation": {"v": {"perplexity": 2.0, "bits_per_byte": 1.0}},
        "finetuning": {"accuracy": 0.9, "baselines": {"majority": {"accuracy": 0.4}}},
    }),
}))
"""


def test_widths_and_tables(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env=clean_environment(PREFECT_API_URL="http://127.0.0.1:9/api", PREFECT_HOME=str(tmp_path)),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    # Open batches hold more parts than there are workers, but there are never more than exist; one in this process.
    assert answer["widths"] == [2, 5, 1, 3, 1]
    assert answer["ranked"] == [["c", 9], ["bad-json", 3], ["a", 2], ["b", 2]]
    assert "**s** `u#3`\n\n    # not a title\n    line" in answer["samples"]
    assert [row["value"] for row in answer["scores"]] == [6.0, 4.0, 2.0, 1.0, 0.9, 0.4]
