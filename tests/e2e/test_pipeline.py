"""The demonstration, small, from raw files to a released model: killed at many places, resumed, asked, changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.graph import ORDER
from tests.e2e.commands import ROOT, answer, digests, gristmill, run_until, stage_has

pytestmark = pytest.mark.e2e

SMALL = {
    "ingest.sources.0.max_bytes": 3_000_000,
    "ingest.part_bytes": 200_000,
    "decontaminate.eval_sets.0.packages": "[typer]",
    "repeats.line_documents": 10,
    "tokenizer.vocabulary_size": 1000,
    "tokenizer.sample_bytes": 500_000,
    "pretrain.model": "{layers: 2, width: 32, heads: 2, kv_heads: 1, max_positions: 128}",
    "pretrain.training.sequence_length": 64,
    "pretrain.training.batch_sequences": 8,
    "pretrain.training.steps": 60,
    "pretrain.training.warmup_steps": 5,
    "pretrain.training.checkpoint_every": 10,
    "pretrain.training.validation_sequences": 8,
    "evaluate.scoring.max_documents": 20,
    "evaluate.generate.max_tokens": 16,
    "finetune.training.classes": 4,
    "finetune.training.max_documents": 200,
    "finetune.training.max_test_documents": 60,
    "finetune.training.max_length": 48,
    "finetune.training.checkpoint_every": 3,
}


def small(*more: str) -> list[str]:
    """The arguments that make the demonstration small."""
    settings = [f"{key}={value}" for key, value in SMALL.items()] + list(more)
    return [str(ROOT / "configs/demo.yaml"), *(part for setting in settings for part in ("--set", setting))]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an undisturbed run in `plain/`, made without Prefect."""
    folder = tmp_path_factory.mktemp("e2e")
    gristmill("run", *small(), "--workspace", "plain", "--no-prefect", "--workers", "1", cwd=folder)
    yield folder
    for workspace in folder.iterdir():
        if (workspace / ".prefect").exists():
            gristmill("server", "stop", "--workspace", str(workspace), cwd=folder, code=None)


def test_every_stage_is_there_and_adds_up(place: Path) -> None:
    found = digests(place / "plain")
    assert sorted({name.split("/")[0] for name in found}) == sorted(ORDER)
    verified = gristmill("verify", "--workspace", "plain", cwd=place)
    assert f"{len(ORDER)} of {len(ORDER)} outputs" in verified.stdout


def test_verify_names_a_file_with_one_flipped_bit(place: Path) -> None:
    shutil.copytree(place / "plain", place / "flipped")
    file = sorted((place / "flipped/outputs/sketch").rglob("signatures/*.parquet"))[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    said = gristmill("verify", "--workspace", "flipped", cwd=place, code=1)
    assert file.name in said.stdout + said.stderr


def test_killed_at_many_places_and_resumed_gives_the_same_bytes_under_prefect(place: Path) -> None:
    workspace = place / "killed"
    moments = [
        ("ingest", "receipts/*.json"),
        ("quality", "features/*.parquet"),
        ("deduplicate", "decisions/*.parquet"),
        ("tokenize", "train-arrow/*.arrow"),
        ("pretrain", "checkpoints/*20-*/manifest.json"),
        ("finetune", "checkpoints/*/state.json"),
    ]
    arguments = ["run", *small(), "--workspace", "killed", "--workers", "2"]
    killed = [
        run_until(arguments, place, stage_has(workspace, stage, what), place / "killed.log") for stage, what in moments
    ]
    assert sum(killed) >= len(moments) - 1, "the run was to be killed at these places"
    gristmill(*arguments, cwd=place)
    assert digests(workspace) == digests(place / "plain")
    record = json.loads((workspace / "runs/demo.json").read_text())
    assert record["status"] == "done"
    statuses = [attempt["status"] for attempt in record["attempts"]]
    assert statuses[-1] == "done"
    assert set(statuses[:-1]) == {"interrupted"}


def test_a_finished_run_does_no_work(place: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in (place / "plain/outputs").rglob("*"))
    said = gristmill("run", *small(), "--workspace", "plain", cwd=place)
    assert "nothing to do" in (said.stdout + said.stderr).lower()
    assert sorted((path, path.stat().st_mtime_ns) for path in (place / "plain/outputs").rglob("*")) == before
    assert not (place / "plain/.prefect").exists(), "a run with nothing to do starts no server"


def test_a_changed_threshold_repeats_decisions_and_nothing_before_them(place: Path) -> None:
    shutil.copytree(place / "plain", place / "changed")
    change = small("filter.rules.gopher-too-few-words.threshold=25")
    plan = {row["stage"]: row for row in answer("plan", *change, "--workspace", "changed", cwd=place)["stages"]}
    assert [name for name in ORDER if plan[name]["state"] == "done"] == ["ingest", "quality", "sketch", "decontaminate"]
    assert plan["filter"]["state"] == "changed"
    assert "20" in plan["filter"]["why"]
    assert "25" in plan["filter"]["why"]
    gristmill("run", *change, "--workspace", "changed", "--no-prefect", "--until", "select", cwd=place)
    new = sorted(set(digests(place / "changed")) - set(digests(place / "plain")))
    assert [name.split("/")[0] for name in new] == ["deduplicate", "filter", "select"]


def test_why_answers_for_every_fate(place: Path) -> None:
    import polars as pl

    from storage.filesystem import Store
    from storage.outputs import Output

    store = Store(place / "plain")
    record = json.loads((place / "plain/runs/demo.json").read_text())
    last = Output.open(store, f"outputs/select/{record['stages']['select']['output']}")
    frames = [pl.from_arrow(last.read(part)) for part in last.parts("decisions")]
    decisions = pl.concat(frames)
    for reason in (None, "filter", "deduplicate"):
        rows = decisions.filter(pl.col("dropped_by").is_null() if reason is None else pl.col("dropped_by") == reason)
        found = answer("why", rows["id"][0].hex(), "--workspace", "plain", cwd=place)["documents"]
        statuses = {document["status"] for document in found}
        assert ("kept" if reason is None else "dropped") in statuses
        if reason is not None:
            assert reason in {document["stage"] for document in found}
    document = found[0]
    again = answer("why", f"{document['uri']}#{document['record']}", "--workspace", "plain", cwd=place)["documents"]
    assert document["id"] in {entry["id"] for entry in again}


def test_the_release_loads_in_transformers(place: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = next((place / "plain/outputs/release").glob("*/model"))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer("Return the value", return_tensors="pt")
    assert model(**tokens).logits.shape[-1] == model.config.vocab_size


def test_garbage_of_older_configurations_is_collected(place: Path) -> None:
    shutil.copytree(place / "plain", place / "garbage")
    gristmill("run", *small("report.samples=1"), "--workspace", "garbage", "--no-prefect", cwd=place)
    before = set(digests(place / "garbage"))
    assert len([name for name in before if name.startswith("report/")]) == 2
    gristmill("gc", "--dry-run", "--workspace", "garbage", cwd=place)
    assert set(digests(place / "garbage")) == before
    gristmill("gc", "--workspace", "garbage", cwd=place)
    after = set(digests(place / "garbage"))
    assert len(before - after) == 1
    gristmill("verify", "--workspace", "garbage", cwd=place)
