"""What checkpoints promise: all or nothing, verified, the newest valid one wins, no pickle, old ones go."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest
import torch

from model import checkpoint
from model.checkpoint import CheckpointError, TrainingState, tensor_digest
from model.config import ModelConfig, TrainingConfig
from model.optimisers import adamw
from model.parallel import Ranks
from model.transformer import Transformer
from storage.filesystem import Store

torch.set_num_threads(1)
ALONE = Ranks(0, 1, torch.device("cpu"), None)
IDENTITY: dict[str, Any] = {
    "model": {"width": 32, "vocabulary_size": 20},
    "training": {"sequence_length": 8, "seed": 0, "document_mask": True, "learning_rate": 0.1},
    "tokens": {"digest": "blake2b:00", "end_id": 0},
}


def make(seed: int) -> tuple[Transformer, torch.optim.AdamW]:
    model = Transformer(ModelConfig(layers=1, width=32, heads=2, kv_heads=1), 20)
    model.initialise(seed)
    return model, adamw(model, TrainingConfig())


def learn(model: Transformer, optimiser: torch.optim.AdamW, steps: int) -> None:
    for number in range(steps):
        tokens = torch.randint(0, 20, (2, 8), generator=torch.Generator().manual_seed(number))
        optimiser.zero_grad()
        model(tokens).square().mean().backward()
        optimiser.step()


def save(store: Store, step: int, attempt: str = "one", seed: int = 0) -> str:
    model, optimiser = make(seed)
    learn(model, optimiser, 1)
    return checkpoint.save(store, attempt, model, optimiser, TrainingState(step=step), IDENTITY, {}, ALONE)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(tmp_path if request.param == "local" else f"memory://{secrets.token_hex(4)}")


def test_training_goes_on_from_a_checkpoint_as_if_nothing_had_happened(store: Store) -> None:
    model, optimiser = make(0)
    learn(model, optimiser, 3)
    state = TrainingState(step=3, position=24, tokens=99, skipped=1, skipped_in_row=1, recent_losses=(2.5, 1.25))
    torch.manual_seed(5)
    folder = checkpoint.save(store, "one", model, optimiser, state, IDENTITY, {"parent": None}, ALONE)
    drawn = torch.rand(3)
    learn(model, optimiser, 3)

    other, other_optimiser = make(1)
    torch.manual_seed(6)
    assert checkpoint.load(store, folder, other, other_optimiser, IDENTITY, ALONE) == state
    assert torch.equal(torch.rand(3), drawn)
    learn(other, other_optimiser, 3)
    assert tensor_digest(other.named_parameters()) == tensor_digest(model.named_parameters())


def test_a_checkpoint_is_safetensors_and_json_and_says_what_it_belongs_to(store: Store) -> None:
    folder = save(store, 7)
    names = {path.rsplit("/", 1)[1] for path in store.listing(folder)}
    assert names == {"model.safetensors", "optimizer.safetensors", "state.json", "config.json", "manifest.json"}
    manifest = checkpoint.verify(store, folder)
    assert manifest["step"] == 7
    assert manifest["data"]["digest"] == "blake2b:00"
    weights = checkpoint.load_weights(store, folder)
    assert tensor_digest(weights.items()) == manifest["tensor_digest"]
    assert "model.layers.0.self_attn.q_proj.weight" in weights


def test_the_tensor_digest_is_about_names_types_shapes_and_bytes_only() -> None:
    a, b = torch.arange(6, dtype=torch.float32), torch.ones((), dtype=torch.bfloat16)
    digest = tensor_digest([("a", a), ("b", b)])
    assert digest == tensor_digest([("b", b), ("a", torch.arange(12.0)[::2] / 2)])
    for other in ([("a", a.reshape(2, 3)), ("b", b)], [("c", a), ("b", b)], [("a", a), ("b", b.half())], [("a", a)]):
        assert tensor_digest(other) != digest
    assert tensor_digest([("a", a), ("b", b * 2)]) != digest


def test_the_newest_valid_checkpoint_wins_and_damaged_ones_are_reported(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    good, flipped, cut = save(store, 10), save(store, 20), save(store, 30)
    data = bytearray(store.read_bytes(f"{flipped}/model.safetensors"))
    data[len(data) // 2] ^= 1  # the size stays
    store.replace(f"{flipped}/model.safetensors", bytes(data))
    store.replace(f"{cut}/optimizer.safetensors", store.read_bytes(f"{cut}/optimizer.safetensors")[:-5])
    unfinished = save(store, 40)
    store.remove(f"{unfinished}/manifest.json")

    assert checkpoint.newest_valid(store) == good
    assert f"{flipped}/model.safetensors does not have the digest" in caplog.text
    assert f"{cut}/optimizer.safetensors has" in caplog.text
    caplog.clear()
    assert checkpoint.newest_valid(store) == good
    assert caplog.text == ""  # marked: not read again
    assert checkpoint.newest_valid(Store(f"memory://{secrets.token_hex(4)}")) is None


def test_a_damaged_manifest_or_missing_file_is_named(store: Store) -> None:
    folder = save(store, 1)
    store.remove(f"{folder}/state.json")
    with pytest.raises(CheckpointError, match=r"state\.json is missing"):
        checkpoint.verify(store, folder)
    store.replace(f"{folder}/manifest.json", b'{"files": {}}')
    with pytest.raises(CheckpointError, match="damaged manifest"):
        checkpoint.verify(store, folder)
    with pytest.raises(CheckpointError, match="never finished"):
        checkpoint.verify(store, "checkpoints/00000009-none")


def test_old_checkpoints_go_and_the_newest_stay(store: Store) -> None:
    folders = [save(store, step) for step in (1, 2, 3, 4)]
    store.remove(f"{folders[1]}/manifest.json")  # left unfinished by an older attempt
    checkpoint.retain(store, 2)
    assert checkpoint.completed(store) == [folders[3], folders[2]]
    assert set(store.folders("checkpoints")) == {folder.split("/")[1] for folder in folders[2:]}


def test_an_attempt_that_failed_in_the_middle_of_saving_is_not_in_the_way(store: Store) -> None:
    first = save(store, 5)
    store.remove(f"{first}/manifest.json")
    second = save(store, 5)
    assert second != first
    assert checkpoint.newest_valid(store) == second


def test_a_checkpoint_of_another_job_is_refused_by_field(store: Store) -> None:
    folder = save(store, 5)
    model, optimiser = make(0)
    for part, key, value in (("model", "width", 64), ("tokens", "digest", "blake2b:11"), ("training", "seed", 1)):
        other = json.loads(json.dumps(IDENTITY))
        other[part][key] = value
        with pytest.raises(CheckpointError, match=rf"{part}\.{key} = .* the job says"):
            checkpoint.load(store, folder, model, optimiser, other, ALONE)
    allowed = json.loads(json.dumps(IDENTITY))
    allowed["training"]["learning_rate"] = 0.2
    allowed["training"]["shortest_bucket"] = 64  # the default of a field that the checkpoint does not have yet
    assert checkpoint.load(store, folder, model, optimiser, allowed, ALONE).step == 5
    allowed["training"]["shortest_bucket"] = 32
    with pytest.raises(CheckpointError, match=r"training\.shortest_bucket = 64, the job says 32"):
        checkpoint.load(store, folder, model, optimiser, allowed, ALONE)
