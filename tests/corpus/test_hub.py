"""`hf://`: data sets of the Hugging Face Hub, from a server on loopback that speaks its protocol."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub import Hub

ROOT = Path(__file__).resolve().parents[2]
# The library reads its endpoint when it is imported: every reading is a process of its own.
READ = """
import json, sys
from corpus.config import SourceConfig
from corpus.sources import remote, open_source
remote.FIRST_PAUSE_SECONDS = 0.01
found = []
for settings in json.loads(sys.argv[1]):
    source = open_source(SourceConfig(name="s", **settings))
    for file in source.inventory():
        texts = [getattr(record, "text", None) or str(record) for record in source.records(file)]
        found.append([file.uri, file.bytes, bool(file.etag), texts])
print(json.dumps(found))
"""


def packed(*texts: str) -> bytes:
    return gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in texts).encode(), mtime=0)


def table(*texts: str) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"content": list(texts)}), out, row_group_size=2)
    return out.getvalue()


FILES = {
    "README.md": b"# A data set",
    "data/a.jsonl.gz": packed("one", "two"),
    "data/deep/b.jsonl.gz": packed("three", *(f"text {number}" for number in range(3000))),
    "p/train-00000-of-00001.parquet": table(*(f"row {number}" for number in range(2001))),
}


def read(hub: Hub, *sources: dict[str, Any], token: str = "") -> tuple[list[Any], str]:
    """What the sources give (uri, bytes, whether there is an etag, texts), or what is said instead."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": "/nonexistent"}
    environment |= {"HF_TOKEN": token} if token else {}
    command = [sys.executable, "-c", READ, json.dumps(sources)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=120)
    return (json.loads(done.stdout) if not done.returncode else []), done.stderr


@pytest.mark.parametrize("every", [0, 3])
def test_a_data_set_of_the_hub_is_listed_and_read_through_faults(every: int) -> None:
    hub = Hub("someone/things", FILES, every)
    url = "hf://datasets/someone/things"
    found, said = read(
        hub,
        {"kind": "jsonl", "path": url},
        {"kind": "jsonl", "path": f"{url}/data/a.jsonl.gz"},
        {"kind": "parquet", "path": f"{url}/p/*.parquet", "text_field": "content"},
    )
    assert [row[:3] for row in found] == [
        ["data/a.jsonl.gz", len(FILES["data/a.jsonl.gz"]), True],
        ["data/deep/b.jsonl.gz", len(FILES["data/deep/b.jsonl.gz"]), True],
        ["a.jsonl.gz", len(FILES["data/a.jsonl.gz"]), True],
        ["train-00000-of-00001.parquet", len(FILES["p/train-00000-of-00001.parquet"]), True],
    ], said
    assert (min(hub.faults.values()) > 0) == (every > 0), hub.asked
    assert found[0][3] == ["one", "two"]
    assert found[1][3] == ["three", *(f"text {number}" for number in range(3000))]
    assert found[3][3] == [f"row {number}" for number in range(2001)]


def test_a_token_comes_from_the_environment_and_what_is_not_there_is_told() -> None:
    hub = Hub("someone/things", FILES, token="hf_secret")
    source = {"kind": "jsonl", "path": "hf://datasets/someone/things/data"}
    found, said = read(hub, source, token="hf_secret")
    assert [row[0] for row in found] == ["a.jsonl.gz", "deep/b.jsonl.gz"], said
    found, said = read(hub, source)
    assert found == []
    assert "401" in said
    found, said = read(hub, {**source, "path": "hf://datasets/someone/things/dta"}, token="hf_secret")
    assert found == []
    assert "no jsonl files found at 'hf://datasets/someone/things/dta'" in said
    assert "hf_secret" not in said
