"""What training promises: killed and resumed it ends the same; bad steps touch nothing; it stops when told."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from model import train
from model.config import ModelConfig, TrainingConfig
from model.metrics import MetricsFile, read_metrics
from model.optimisers import adamw, clip_gradients, gradient_norm, learning_rate
from model.transformer import Transformer
from storage.filesystem import Store
from tests.model.token_files import REPOSITORY, command, environment, job_values, write_job, write_shard

torch.set_num_threads(1)


def run(values: dict[str, Any]) -> dict[str, Any]:
    return train.pretrain(train.parse_job(values))


def step_lines(output: str) -> list[tuple[Any, ...]]:
    """What is deterministic in the metrics."""
    keys = ("step", "loss", "learning_rate", "gradient_norm", "tokens", "validation_loss")
    return [tuple(line.get(key) for key in keys) for line in read_metrics(output)]


def wait_for_step(output: str, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if any(line["step"] >= step for line in read_metrics(output)):
            return
        time.sleep(0.01)
    pytest.fail(f"no step {step} within a minute (exit code {process.poll()})")


def test_it_learns_and_says_where_it_is(tmp_path: Path) -> None:
    values = job_values(tmp_path)
    final = run(values)
    assert final["step"] == 24
    assert final["tokens"] == 24 * 8 * 32
    assert final["losses"]["last"] < 0.6 * final["losses"]["first"]
    assert final["losses"]["validation"] < 0.6 * final["losses"]["first"]
    assert final["losses"]["first"] == pytest.approx(math.log(64), rel=0.05)  # knows nothing at first
    store = Store(values["output"])
    assert store.read_json("final.json") == final
    assert store.read_json(f"{final['checkpoint']}/manifest.json")["tensor_digest"] == final["tensor_digest"]
    lines = read_metrics(store)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 25))
    assert [line["step"] for line in lines if "validation_loss" in line] == [6, 12, 18, 24]

    before = store.listing("checkpoints")
    assert run({**values, "attempt": "two"}) == final  # nothing left to do
    assert store.listing("checkpoints") == before


@pytest.mark.parametrize(("precision", "kills"), [("fp32", 2), ("bf16", 1)])
def test_killed_at_a_random_step_and_resumed_it_ends_with_the_same_tensors_and_losses(
    tmp_path: Path, precision: str, kills: int
) -> None:
    values = job_values(tmp_path, steps=80, precision=precision, keep_checkpoints=1)
    undisturbed = {**values, "output": str(tmp_path / "undisturbed")}
    run(undisturbed)

    chance = random.Random(time.time_ns())
    steps = sorted(chance.sample(range(1, 75), kills))
    for number, step in enumerate(steps):
        job = write_job({**values, "attempt": f"try-{number}"}, tmp_path / "job.json")
        process = subprocess.Popen(command(job), env=environment())
        wait_for_step(values["output"], step, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"killed at {steps}"
    job = write_job({**values, "attempt": "last"}, tmp_path / "job.json")
    subprocess.run(command(job), env=environment(), check=True)

    ours, theirs = (Store(v["output"]).read_json("final.json") for v in (values, undisturbed))
    assert ours["tensor_digest"] == theirs["tensor_digest"], f"killed at {steps}"
    assert step_lines(values["output"]) == step_lines(undisturbed["output"]), f"killed at {steps}"


def test_sigterm_finishes_the_step_saves_it_and_exits_with_143(tmp_path: Path) -> None:
    values = job_values(tmp_path, steps=100_000, checkpoint_every=100_000, validate_every=0)
    process = subprocess.Popen(command(write_job(values, tmp_path / "job.json")), env=environment())
    wait_for_step(values["output"], 3, process)
    told = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=25) == 143
    assert time.monotonic() - told < 25
    lines = read_metrics(values["output"])
    assert Store(values["output"]).folders("checkpoints") == [f"{lines[-1]['step']:08d}-one"]
    assert not (tmp_path / "output" / "final.json").exists()


def test_a_non_finite_loss_skips_the_step_before_any_moment_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = train.causal_loss, iter(range(10_000))
    saved: list[tuple[dict[str, Any], Any]] = []

    def poisoned(*arguments: Any) -> torch.Tensor:
        loss = honest(*arguments)
        return loss * math.nan if next(calls) == 17 else loss  # the second micro-batch of step 5

    monkeypatch.setattr(train, "causal_loss", poisoned)
    honest_step = train.train_step

    def watched(model: Any, optimiser: Any, *rest: Any, **more: Any) -> Any:
        taken = honest_step(model, optimiser, *rest, **more)
        state = [v.clone() for p in model.parameters() for v in (p, *optimiser.state[p].values())]
        saved.append((taken, state))
        return taken

    monkeypatch.setattr(train, "train_step", watched)
    values = job_values(tmp_path, steps=8, validate_every=0, validation_sequences=0)
    final = run(values)
    problems = [taken.problem for taken, _ in saved]
    assert problems == [None] * 4 + ["non-finite loss"] + [None] * 3
    assert all(torch.equal(a, b) for a, b in zip(saved[3][1], saved[4][1], strict=True))
    lines = read_metrics(values["output"])
    assert lines[4]["skipped"] == "non-finite loss"
    assert lines[4]["loss"] is None
    assert math.isfinite(final["losses"]["last"])
    state = Store(values["output"]).read_json(f"{final['checkpoint']}/state.json")
    assert (state["skipped"], state["skipped_in_row"], len(state["recent_losses"])) == (1, 0, 7)


def test_too_many_bad_steps_in_a_row_stop_it_and_the_count_survives_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = train.causal_loss
    monkeypatch.setattr(train, "causal_loss", lambda *arguments: honest(*arguments) * math.inf)
    values = job_values(tmp_path, nonfinite_limit=4, checkpoint_every=3, validate_every=0)
    for attempt in ("one", "two"):
        with pytest.raises(train.TrainingDiverged, match=r"4 steps in a row had a non-finite loss .* step 4, seq"):
            run({**values, "attempt": attempt})
    attempts = [line for line in (tmp_path / "output/metrics/two.jsonl").read_text().splitlines() if line]
    assert len(attempts) == 2  # resumed at step 3, where three bad steps had been counted


def test_micro_batches_do_not_change_the_losses(tmp_path: Path) -> None:
    results = []
    for size in (0, 1, 3):
        values = job_values(tmp_path)
        values["resources"]["micro_batch_sequences"] = size
        values["output"] = str(tmp_path / f"size-{size}")
        run(values)
        results.append([line["loss"] for line in read_metrics(values["output"]) if "loss" in line])
    assert results[1] == pytest.approx(results[0], rel=1e-4)
    assert results[2] == pytest.approx(results[0], rel=1e-4)


def test_the_learning_rate_warms_up_and_follows_half_a_cosine() -> None:
    plan = TrainingConfig(steps=101, warmup_steps=10, learning_rate=2.0, final_learning_rate_share=0.1)
    rates = [learning_rate(step, plan) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(0.1 * 2 + 0.9 * 2 * 0.5)
    assert rates[100] == pytest.approx(0.2)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    constant = TrainingConfig(steps=20, warmup_steps=0, learning_rate=2.0, schedule="constant")
    assert {learning_rate(step, constant) for step in range(20)} == {2.0}


def test_weight_decay_falls_on_matrices_only_and_clipping_is_by_the_global_norm() -> None:
    model = Transformer(ModelConfig(layers=1, width=32, heads=2, kv_heads=2, tie_embeddings=False), 20)
    optimiser = adamw(model, TrainingConfig(weight_decay=0.3))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert len(decay) == len(names)
    for name, value in decay.items():
        assert value == (0.0 if "norm" in name or "embed" in name else 0.3), name
    model(torch.arange(10)[None]).square().sum().backward()
    flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    norm = gradient_norm(model.parameters())
    torch.testing.assert_close(norm, flat.norm())
    clip_gradients(model.parameters(), 0.25 * norm.item(), norm)
    torch.testing.assert_close(gradient_norm(model.parameters()), 0.25 * norm)


def test_metrics_of_attempts_merge_to_what_one_run_would_have_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = MetricsFile(store, "zebra", 0)
    for step in range(1, 8):
        first.write({"step": step, "loss": float(step)})
    first.close()
    with (tmp_path / "metrics/zebra.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # killed while writing
    second = MetricsFile(store, "ant", 5)
    second.write({"step": 6, "loss": 60.0})
    second.close()
    again = MetricsFile(store, "zebra", 6)  # a launcher may start an attempt twice
    again.write({"step": 7, "loss": 70.0})
    again.close()
    assert [line["loss"] for line in read_metrics(str(tmp_path))] == [1.0, 2.0, 3.0, 4.0, 5.0, 60.0, 70.0]


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("training", "stepps", 3, "training: unknown field stepps; allowed are augment, batch_sequences, "),
        ("training", "steps", "many", "training.steps = 'many' must be of type int"),
        ("model", "heads", 5, "model.width = 32 must be a multiple of model.heads = 5"),
        ("model", "max_positions", 16, "sequence_length = 32 is more than model.max_positions = 16"),
        ("training", "augment", 3, "training.augment = 3 must be an object"),
        ("training", "augment", {"noise": 0.1}, "training.augment: unknown field noise; allowed are longest_span, "),
        ("training", "augment", {"token_noise": "x"}, "training.augment.token_noise = 'x' must be of type float"),
        ("training", "augment", {"token_noise": 0.1}, "the field 'tokenizer' is missing"),
        ("training", "lengths", 8, "training.lengths = 8 must be a list of objects"),
        ("training", "lengths", [{"start": "a"}], "training.lengths[0].start = 'a' must be of type int"),
    ],
)
def test_a_wrong_job_ends_with_exit_code_2_and_names_the_field(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, part: str, key: str, value: Any, message: str
) -> None:
    values = job_values(tmp_path)
    values[part][key] = value
    assert train.main([str(write_job(values, tmp_path / "job.json"))]) == 2
    assert message in caplog.text
    assert train.main([str(tmp_path / "missing.json")]) == 2
    del values["tokens"]
    assert train.main([str(write_job(values, tmp_path / "job.json"))]) == 2
    assert "the field 'tokens' is missing" in caplog.text


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"token_noise": 0.1}, "training.augment: there is no tokeniser at"),
        ({"synonym_rate": 0.1, "synonyms": "gone.tsv"}, "training.augment: gone.tsv cannot be read"),
    ],
)
def test_augmentation_without_what_it_reads_ends_with_exit_code_2(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, augment: dict[str, Any], message: str
) -> None:
    values = {**job_values(tmp_path, augment=augment), "tokenizer": str(tmp_path / "gone.json")}
    assert train.main([str(write_job(values, tmp_path / "job.json"))]) == 2
    assert message in caplog.text


def test_validation_is_told_by_source_and_a_source_alone_is_what_it_was(tmp_path: Path) -> None:
    values = job_values(tmp_path, steps=6, validate_every=3, validation_sequences=8)
    write_shard(tmp_path / "w.arrow", [[(5 * i) % 63 + 1 for i in range(90)] + [0]] * 9)
    shards = [{"path": str(tmp_path / f"{name}.arrow"), "source": source} for name, source in (("v", "x"), ("w", "y"))]
    losses = {}
    for name, chosen, sequences in (("both", shards, 8), ("x", shards[:1], 4), ("y", shards[1:], 4)):
        values["tokens"]["validation"] = chosen
        values["training"]["validation_sequences"] = sequences
        losses[name] = run({**values, "output": str(tmp_path / name)})
    told = losses["both"]["validation_sources"]
    assert told["x"] == pytest.approx(losses["x"]["losses"]["validation"], rel=1e-12)
    assert told["y"] == pytest.approx(losses["y"]["losses"]["validation"], rel=1e-12)
    assert told["x"] != pytest.approx(told["y"], rel=0.01)
    assert losses["both"]["losses"]["validation"] == pytest.approx(
        (told["x"] + told["y"]) / 2
    )  # as many tokens of each
    assert "validation_sources" not in losses["x"]
    lines = [line for line in read_metrics(str(tmp_path / "both")) if "validation_loss" in line]
    assert [sorted(line["validation_sources"]) for line in lines] == [["x", "y"]] * 2


def test_what_packing_does_is_told(tmp_path: Path) -> None:
    final = run(job_values(tmp_path, steps=2, warmup_steps=0, packing="pack", validation_sequences=0))
    report = final["packing"]
    assert report["tokens"] == 32 * report["sequences"]
    assert report["padding"] == round(report["padding_share"] * report["tokens"]) > 0
    assert report["lost"] == 0
    assert final["tokens_read"] == 2 * 8 * 32 >= final["tokens"]


def test_a_missing_shard_ends_with_exit_code_1_and_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = job_values(tmp_path)
    values["tokens"]["train"].append(str(tmp_path / "gone.arrow"))
    assert train.main([str(write_job(values, tmp_path / "job.json"))]) == 1
    assert "gone.arrow does not exist" in caplog.text


ALLOWED = {
    "torch", "numpy", "pyarrow", "tokenizers", "safetensors", "fsspec", "storage", "model",
    # what torch itself needs
    "typing_extensions", "sympy", "mpmath", "filelock", "networkx", "jinja2", "markupsafe", "packaging", "triton",
    "functorch", "torchgen",
}  # fmt: skip

BLOCKER = """
import importlib.abc, json, pkgutil, sys
allowed = set(json.loads(sys.argv[1])) | set(sys.stdlib_module_names)

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        root = name.split(".")[0]
        if root in allowed or root.startswith("_"):
            return None
        raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
import model, storage
for room in (model, storage):
    for module in pkgutil.iter_modules(room.__path__):
        __import__(f"{room.__name__}.{module.name}")
        print(room.__name__, module.name)
"""


def test_model_and_storage_import_with_only_their_allowed_packages() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER, json.dumps(sorted(ALLOWED))],
        env={**environment(), "PYTHONPATH": str(REPOSITORY)}, cwd=os.sep, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "model train" in done.stdout


def test_configuration_imports_no_torch() -> None:
    check = "import model.config, model.metrics, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], env=environment(), check=False).returncode == 0
