"""What a training promises when its shards go wrong under it: it stops, with their name, on one rank and on two."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.metrics import read_metrics
from storage.filesystem import Store
from tests.model.token_files import command, environment, job_values, write_job

OPENED_LATER = [{"start": 0, "weights": {"a": 1}}, {"start": 600, "weights": {"a": 1, "b": 1}}]


def removed(file: Path) -> None:
    file.unlink()


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def overwritten(file: Path) -> None:
    file.write_bytes(b"\0" * file.stat().st_size)


CASES: list[tuple[Callable[[Path], None], list[dict[str, Any]], str, int]] = [
    (removed, OPENED_LATER, "does not exist; run the tokenize stage again", 0),
    (removed, OPENED_LATER, "does not exist; run the tokenize stage again", 2),
    (truncated, OPENED_LATER, "is damaged", 0),
    (overwritten, OPENED_LATER, "is damaged", 0),
    (removed, [], "does not exist any more", 0),
    (truncated, [], "was changed while it was read", 0),
    (truncated, [], "was changed while it was read", 2),
]


@pytest.mark.parametrize(
    ("harm", "plan", "message", "ranks"), CASES, ids=lambda value: value.__name__ if callable(value) else None
)
def test_a_shard_that_goes_wrong_during_training_ends_it_with_its_name(
    tmp_path: Path, harm: Callable[[Path], None], plan: list[dict[str, Any]], message: str, ranks: int
) -> None:
    values = job_values(
        tmp_path, processes=max(1, ranks), steps=100_000, checkpoint_every=10, validate_every=0, validation_sequences=0
    )
    values["tokens"]["train"] = [
        {"path": str(tmp_path / f"{name}.arrow"), "source": name, "tokens": tokens}
        for name, tokens in (("a", shard_tokens(tmp_path / "a.arrow")), ("b", shard_tokens(tmp_path / "b.arrow")))
    ]
    values["tokens"]["plan"] = plan
    log = tmp_path / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command(write_job(values, tmp_path / "job.json"), ranks), env=environment(), stdout=sink, stderr=sink
        )
    try:
        deadline = time.monotonic() + 120
        while not any(line["step"] >= 3 for line in read_metrics(values["output"])):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        harm(tmp_path / "b.arrow")
        assert process.wait(timeout=120) == 1, log.read_text()
    finally:
        process.kill()
    said = log.read_text()
    assert f"token shard {tmp_path}/b.arrow {message}" in said
    assert not plan or Store(values["output"]).folders("checkpoints")  # from which it goes on once the shard is mended
    assert not (tmp_path / "output" / "final.json").exists()


def shard_tokens(file: Path) -> int:
    from model.shards import TokenShard

    return TokenShard(file).length
