"""What ranks promise: torchrun with 1 and 2 ranks gives the same losses, and a run may change their number."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from model import train
from model.config import TrainingResources
from model.metrics import read_metrics
from model.parallel import Ranks, start_ranks
from storage.filesystem import Store
from tests.model.test_resume import STEPS, prepared
from tests.model.token_files import command, environment, job_values, write_job


def launch(values: dict[str, Any], folder: Path, processes: int) -> None:
    values["resources"]["processes"] = processes
    job = write_job(values, folder / f"{values['attempt']}.json")
    subprocess.run(command(job, processes), env=environment(), check=True, timeout=120)


def curves(output: str) -> list[tuple[int, list[float]]]:
    """(step, [loss, gradient norm] or [validation loss]) of a run."""
    keys = ("loss", "gradient_norm", "validation_loss")
    return [(line["step"], [line[key] for key in keys if key in line]) for line in read_metrics(output)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs `ranks-1` and `ranks-2` of one job run by torchrun with 1 and 2 ranks, all checkpoints kept."""
    folder = tmp_path_factory.mktemp("parallel")
    for processes in (1, 2):
        # a low clip, so that a wrong norm would show in the losses; an odd number of validation sequences
        values = job_values(folder, attempt=f"ranks-{processes}", gradient_clip=0.3, keep_checkpoints=9)
        launch({**values, "output": str(folder / f"ranks-{processes}")}, folder, processes)
    return folder


def set_back(folder: Path, name: str) -> dict[str, Any]:
    """A job that goes on with a copy of the two ranks' output, as it was after step 10."""
    shutil.copytree(folder / "ranks-2", folder / name)
    for checkpoint in (folder / name / "checkpoints").iterdir():
        if int(checkpoint.name[:8]) > 10:
            shutil.rmtree(checkpoint)
    values = job_values(folder, attempt=name, gradient_clip=0.3, keep_checkpoints=9)
    return {**values, "output": str(folder / name)}


def test_one_and_two_ranks_give_the_same_losses_and_gradient_norms(folder: Path) -> None:
    one, two = curves(str(folder / "ranks-1")), curves(str(folder / "ranks-2"))
    assert [step for step, _ in two] == [step for step, _ in one]
    assert len(one) == 24 + 4
    for (_, expected), (_, got) in zip(one, two, strict=True):
        assert got == pytest.approx(expected, rel=1e-4)


def test_a_run_may_go_on_with_another_number_of_ranks(folder: Path) -> None:
    values = set_back(folder, "alone")
    train.pretrain(train.parse_job(values))
    store = Store(values["output"])
    manifests = {name: store.read_json(f"checkpoints/{name}/manifest.json") for name in store.folders("checkpoints")}
    assert manifests["00000010-ranks-2"]["numerics"]["ranks"] == 2
    assert manifests["00000024-alone"]["numerics"]["ranks"] == 1
    assert manifests["00000015-alone"]["parent"] == "checkpoints/00000010-ranks-2"
    for (_, expected), (_, got) in zip(curves(str(folder / "ranks-1")), curves(values["output"]), strict=True):
        assert got == pytest.approx(expected, rel=1e-4)


def test_two_ranks_that_resume_end_with_the_same_tensors(folder: Path) -> None:
    values = set_back(folder, "resumed")
    launch(values, folder, 2)
    digests = [Store(folder / name).read_json("final.json")["tensor_digest"] for name in ("ranks-2", "resumed")]
    assert digests[0] == digests[1]
    assert curves(values["output"]) == curves(str(folder / "ranks-2"))


def test_buckets_curriculum_and_augmentation_are_the_same_on_one_and_two_ranks(tmp_path: Path) -> None:
    found = []
    for processes in (1, 2):
        values = {**prepared(tmp_path, "everything", mixed=True), "attempt": f"ranks-{processes}"}
        output = str(tmp_path / values["attempt"])
        launch({**values, "output": output}, tmp_path, processes)
        found.append(curves(output))
    assert len(found[0]) == STEPS
    for (step, expected), (other, got) in zip(*found, strict=True):
        assert other == step
        assert got == pytest.approx(expected, rel=1e-4)


def test_shares_of_a_batch_are_disjoint_and_complete() -> None:
    for count in (1, 2, 4, 8):
        shares = [Ranks(rank, count, torch.device("cpu"), None).share(range(16, 32)) for rank in range(count)]
        assert [position for share in shares for position in share] == list(range(16, 32))


def test_another_number_of_ranks_than_the_job_says_is_refused() -> None:
    with pytest.raises(RuntimeError, match="torchrun --nproc-per-node 3"):
        start_ranks(TrainingResources(processes=3, device="cpu"))
