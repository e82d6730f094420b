"""A whole run from objects to objects: sources and workspace on S3, killed, resumed, the same bytes as on a disk."""

from __future__ import annotations

import gzip
import json
import secrets
from pathlib import Path

import pytest
import yaml

from model.config import TrainingConfig
from model.schedule import Schedule
from model.token_data import read_token_data
from stages.config import PretrainConfig
from stages.pretrain import training_data
from storage.filesystem import Store
from storage.outputs import OUTPUTS, Output
from tests.e2e.commands import answer, digests, gristmill, run_until

pytestmark = pytest.mark.e2e


def texts() -> list[str]:
    """Documents of a few sentences with enough difference to be kept, from the documentation of this Python."""
    import pydoc_data.topics

    return [text for text in pydoc_data.topics.topics.values() if len(text) > 400]


def configuration(source: str, copies: Path) -> dict[str, object]:
    return {
        "name": "objects",
        "ingest": {"sources": [{"name": "topics", "kind": "jsonl", "path": source}]},
        "select": {"validation_share": 0.2},
        "tokenizer": {"vocabulary_size": 400},
        "pretrain": {
            "model": {"layers": 1, "width": 16, "heads": 2, "kv_heads": 1},
            "training": {"sequence_length": 32, "batch_sequences": 4, "steps": 12, "warmup_steps": 1}
            | {"lanes": 2, "block_sequences": 8, "window_blocks": 2}
            | {"checkpoint_every": 3, "validation_sequences": 2},
        },
        "evaluate": {"scoring": {"max_documents": 2}, "generate": {"max_tokens": 4}},
        "how": {"workers": 2, "lease_seconds": 3.0, "training": {"cache_folder": str(copies), "cache_megabytes": 10}},
    }


def remote_digests(store: Store) -> dict[str, str]:
    found = {}
    for stage in store.folders(OUTPUTS):
        for name in store.folders(f"{OUTPUTS}/{stage}"):
            output = Output.open(store, f"{OUTPUTS}/{stage}/{name}")
            assert output.problems(digests=True) == []
            found[f"{stage}/{name}"] = output.digest
    return found


def only_output(store: Store, stage: str) -> Output:
    [name] = store.folders(f"{OUTPUTS}/{stage}")
    return Output.open(store, f"{OUTPUTS}/{stage}/{name}")


def first_document(store: Store) -> str:
    """The id of the document that stands at the beginning of the training of a local workspace."""
    tokenize, pretrain = only_output(store, "tokenize"), only_output(store, "pretrain")
    config = PretrainConfig(training=TrainingConfig(**pretrain.manifest["parameters"]["training"]))
    data = training_data(tokenize, config)
    tokens = read_token_data(data, data["vocabulary_size"], "tokens")
    return tokens.training(config.training, Schedule, None).documents_at(0)[0]


def test_a_run_on_s3_killed_and_resumed_gives_the_bytes_of_a_local_one(tmp_path: Path, s3_url: str) -> None:
    local, remote = tmp_path / "in", Store(f"{s3_url}/{secrets.token_hex(4)}")
    local.mkdir()
    lines = [json.dumps({"text": text}) for text in texts()]
    for number in range(3):
        data = gzip.compress("\n".join(lines[number::3]).encode(), mtime=0)
        (local / f"{number}.jsonl.gz").write_bytes(data)
        remote.create(f"in/{number}.jsonl.gz", data)
    (tmp_path / "local.yaml").write_text(yaml.safe_dump(configuration("in", tmp_path / "copies")))
    (tmp_path / "remote.yaml").write_text(yaml.safe_dump(configuration(f"{remote.url}/in", tmp_path / "copies")))
    gristmill("run", "local.yaml", "--workspace", "ws", "--no-prefect", cwd=tmp_path)

    workspace = Store(f"{remote.url}/ws")
    arguments = ["run", "remote.yaml", "--workspace", workspace.url, "--no-prefect"]

    def reached() -> bool:
        return any(path.endswith("manifest.json") for path in workspace.listing(f"{OUTPUTS}/pretrain"))

    killed = run_until(arguments, tmp_path, reached, tmp_path / "log")
    assert killed, "the run was to be killed after its first checkpoint"
    gristmill(*arguments, cwd=tmp_path)
    here = {name.split("/")[0]: digest for name, digest in digests(tmp_path / "ws").items()}
    there = {name.split("/")[0]: digest for name, digest in remote_digests(workspace).items()}
    assert there == here
    found = gristmill("run", "remote.yaml", "--workspace", workspace.url, cwd=tmp_path)
    assert "nothing to do" in (found.stdout + found.stderr).lower()
    gristmill("verify", "--workspace", workspace.url, cwd=tmp_path)

    fetched = {file.name.replace("-", ":") for file in (tmp_path / "copies").iterdir() if file.is_file()}
    tokenize = only_output(workspace, "tokenize")
    assert fetched
    assert fetched <= {part.digest for part in tokenize.parts() if part.kind in ("train-arrow", "validation-arrow")}
    shown = first_document(Store(tmp_path / "ws"))
    local_times, remote_times = (
        answer("why", shown, "--workspace", url, cwd=tmp_path)["documents"][0]["evidence"]["training"]
        for url in ("ws", workspace.url)
    )
    assert remote_times == local_times
    assert local_times["times"][0]["position"] == 0
