"""Checkpoints: a folder that holds everything a training needs to go on, without pickle, verified when it is read.

    checkpoints/<step>-<attempt>/
        model.safetensors      the weights, whole tensors under Hugging Face's names
        optimizer.safetensors  <parameter>.exp_avg, .exp_avg_sq, .step
        state.json             step, position in the data order, guards, random generators, the last losses
        config.json            model, training and data it belongs to
        manifest.json          digests of all these, created last: a folder without it is not a checkpoint

The files are only ever created, never changed. A folder found damaged gets a `damaged.json` that says why and is
passed over from then on. Tensors are stored whole, so the number of ranks may change between saving and loading.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model.config import TrainingConfig
from model.parallel import Ranks, fill, whole
from storage.filesystem import Store

FOLDER = "checkpoints"
FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "config.json")
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
SCHEMA_VERSION = 1

logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that is incomplete, damaged or belongs to another job; the message names it."""


@dataclass(frozen=True)
class TrainingState:
    """Where a training stands, tensors aside. `step` counts the steps done, `position` the sequences taken."""

    step: int = 0
    position: int = 0
    tokens: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    recent_losses: tuple[float, ...] = field(default=())


def tensor_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A digest of named tensors that depends on names, dtypes, shapes and bytes, not on their order or any file."""
    state = hashlib.blake2b(digest_size=32)
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        state.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"blake2b:{state.hexdigest()}"


# ------------------------------------------------------------------------------------------------------- writing


def save(
    store: Store,
    attempt: str,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: TrainingState,
    config: Mapping[str, Any],
    lineage: Mapping[str, Any],
    ranks: Ranks,
) -> str:
    """Write one checkpoint; all ranks must call this together, the first one writes.

    Parameters
    ----------
    store
        The output of the training.
    attempt
        A word that no other attempt uses; part of the folder's name, so that attempts never meet in one.
    config
        `model`, `training` and `tokens` of the job: what a resumed run is checked against.
    lineage
        What else goes into the manifest: `numerics`, `parent` (the checkpoint this run came from) …

    Returns
    -------
    str
        The folder, relative to the store.
    """
    weights = {name: _held(parameter, ranks) for name, parameter in model.named_parameters()}
    moments = {
        f"{name}.{key}": _held(optimiser.state[parameter][key], ranks)
        for name, parameter in model.named_parameters()
        if parameter in optimiser.state
        for key in MOMENTS
    }
    if not ranks.is_first:
        return ranks.from_first(None) or ""
    folder = _fresh_folder(store, state.step, attempt)
    for name, tensors in (("model.safetensors", weights), ("optimizer.safetensors", moments)):
        with store.temporary(f"{folder}/{name}") as file:
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file, {"format": "pt"})
            store.publish(file, f"{folder}/{name}")
    store.create_json(f"{folder}/state.json", {**asdict(state), "random": _random_state(ranks)})
    store.create_json(f"{folder}/config.json", dict(config))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "kind": "checkpoint",
        "attempt": attempt,
        "step": state.step,
        "position": state.position,
        "tokens": state.tokens,
        "tensor_digest": tensor_digest(weights.items()),
        "optimizer_digest": tensor_digest(moments.items()),
        "files": {
            name: {"bytes": store.size(f"{folder}/{name}"), "digest": store.digest(f"{folder}/{name}")}
            for name in FILES
        },
        "data": dict(config["tokens"]),
        "created": time.time(),
        **lineage,
    }
    store.create_json(f"{folder}/manifest.json", manifest)
    logger.info("checkpoint at step %d: %s", state.step, folder)
    ranks.from_first(folder)
    return folder


def retain(store: Store, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what older attempts left unfinished or damaged."""
    complete = completed(store)
    if not complete:
        return
    kept = set(complete[:keep])
    newest = _step_of(complete[0])
    for name in store.folders(FOLDER):
        folder = f"{FOLDER}/{name}"
        if folder in kept or _step_of(folder) >= newest:
            continue
        store.remove(f"{folder}/manifest.json")  # first, so that a half-removed folder is not taken for a whole one
        store.remove_tree(folder)


# ------------------------------------------------------------------------------------------------------- reading


def completed(store: Store) -> list[str]:
    """Folders of complete checkpoints not known to be damaged, newest first, relative to the store; reads no tensor."""
    folders = [f"{FOLDER}/{name}" for name in store.folders(FOLDER) if _step_of(name) >= 0]
    whole_ones = [f for f in folders if store.exists(f"{f}/manifest.json") and not store.exists(f"{f}/damaged.json")]
    return sorted(whole_ones, key=lambda folder: (_step_of(folder), folder), reverse=True)


def verify(store: Store, folder: str) -> dict[str, Any]:
    """The manifest of a checkpoint whose files all have the sizes and digests it names.

    Raises
    ------
    CheckpointError
        naming the folder and the first file that does not agree.
    """
    try:
        manifest: dict[str, Any] = store.read_json(f"{folder}/manifest.json")
        files = {name: (manifest["files"][name]["bytes"], manifest["files"][name]["digest"]) for name in FILES}
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {store.url}/{folder} has no manifest.json: it was never finished") from None
    except (ValueError, KeyError, TypeError) as reason:
        raise CheckpointError(f"checkpoint {store.url}/{folder} has a damaged manifest.json: {reason!r}") from reason
    for name, (size, digest) in files.items():
        path = f"{folder}/{name}"
        if not store.exists(path):
            raise CheckpointError(f"checkpoint file {store.url}/{path} is missing")
        if store.size(path) != size:
            raise CheckpointError(f"checkpoint file {store.url}/{path} has {store.size(path)} bytes instead of {size}")
        if not store.has_digest(path, digest):
            raise CheckpointError(f"checkpoint file {store.url}/{path} does not have the digest {digest}")
    return manifest


def newest_valid(store: Store) -> str | None:
    """The newest checkpoint that verifies; damaged ones are reported, marked and passed over. None: there is none."""
    for folder in completed(store):
        try:
            verify(store, folder)
        except CheckpointError as reason:
            logger.warning("%s; trying an older checkpoint", reason)
            store.replace(f"{folder}/damaged.json", json.dumps({"reason": str(reason)}).encode())
            continue
        return folder
    return None


def load(
    store: Store,
    folder: str,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    config: Mapping[str, Any],
    ranks: Ranks,
) -> TrainingState:
    """Put a verified checkpoint into a placed model and its optimiser, and the random generators back.

    Raises
    ------
    CheckpointError
        if it belongs to another model, other data or another data order, naming the field that differs.
    """
    values = store.read_json(f"{folder}/state.json")
    check_same_job(store.read_json(f"{folder}/config.json"), config, f"{store.url}/{folder}", values["position"])
    with local_copy(store, f"{folder}/model.safetensors") as file, safe_open(file, "pt") as tensors:
        for name, parameter in model.named_parameters():
            fill(parameter, tensors.get_tensor(name))
    with local_copy(store, f"{folder}/optimizer.safetensors") as file, safe_open(file, "pt") as tensors:
        stored = set(tensors.keys())
        for name, parameter in model.named_parameters():
            if f"{name}.step" not in stored:
                continue
            moments = {key: torch.zeros_like(parameter) for key in MOMENTS if key != "step"}
            for key, moment in moments.items():
                fill(moment, tensors.get_tensor(f"{name}.{key}"))
            step = tensors.get_tensor(f"{name}.step").to(parameter.device)
            optimiser.state[parameter] = {"step": step, **moments}
    _restore_random_state(values.pop("random"), ranks)
    return TrainingState(**{**values, "recent_losses": tuple(values["recent_losses"])})


ORDER_FIELDS = (
    "sequence_length", "seed", "document_mask", "packing", "overlap", "shortest_bucket", "lanes", "block_sequences",
    "window_blocks",
)  # fmt: skip
"""The fields of a training that its data order is made of."""

LATER_FIELDS = {"shortest_bucket": TrainingConfig().shortest_bucket, "lanes": 0}
"""Those that checkpoints may lack which older versions wrote, at what they meant then."""

LANE_FIELDS = ("block_sequences", "window_blocks")
"""Those that mean nothing where there are no lanes."""


def check_same_job(stored: Mapping[str, Any], wanted: Mapping[str, Any], name: str, position: int) -> None:
    """Refuse to go on from a checkpoint whose tensors or data order mean something else.

    Learning rates, the batch size and the number of steps may change; the model, the token shards and what the data
    order is made of may not. A plan may get new segments that begin at `position`, where the checkpoint stands, or
    behind it.
    """
    stored, wanted = (
        {**job, "tokens": _begun(job["tokens"], position), "training": _order_of(job["training"])}
        for job in (stored, wanted)
    )
    for part, fields in {"model": None, "tokens": None, "training": ORDER_FIELDS}.items():
        for key in fields or sorted({*stored[part], *wanted[part]}):
            if stored[part].get(key) != wanted[part].get(key):
                raise CheckpointError(
                    f"checkpoint {name} was made with {part}.{key} = {stored[part].get(key)!r}, the job says "
                    f"{wanted[part].get(key)!r}; train into another output folder"
                )


def _begun(tokens: Mapping[str, Any], position: int) -> dict[str, Any]:
    """The data of a job without what its plan comes to later than at `position`."""
    found = dict(tokens)
    if "plan" in found:
        found["plan"] = [segment for segment in found["plan"] if segment["start"] < max(1, position)]
        if isinstance(found["digest"], Mapping):
            named = {source for segment in found["plan"] for source in segment["weights"]}
            found["digest"] = {source: digest for source, digest in found["digest"].items() if source in named}
    return found


def _order_of(training: Mapping[str, Any]) -> dict[str, Any]:
    """What the data order of a training is made of: ORDER_FIELDS, as far as they mean anything."""
    found = {**LATER_FIELDS, **training}
    return {key: found.get(key) for key in ORDER_FIELDS if found["lanes"] or key not in LANE_FIELDS}


def load_weights(store: Store, folder: str) -> dict[str, Tensor]:
    """The weights of a checkpoint by name, on the CPU, after the checkpoint has been verified."""
    verify(store, folder)
    with local_copy(store, f"{folder}/model.safetensors") as file, safe_open(file, "pt") as tensors:
        return {name: tensors.get_tensor(name).clone() for name in tensors.keys()}  # noqa: SIM118 (not a mapping)


@contextmanager
def local_copy(store: Store, path: str) -> Iterator[Path]:
    """A file of a store as a local path; a temporary copy if the store is remote."""
    if store.is_local:
        yield store.local(path)
        return
    with tempfile.TemporaryDirectory(prefix="gristmill-") as folder:
        file = Path(folder) / Path(path).name
        store.fetch(path, file)
        yield file


# ------------------------------------------------------------------------------------------------------- helpers


def _held(tensor: Tensor, ranks: Ranks) -> Tensor:
    """The whole tensor on the first rank; nothing on the others, who only help to gather it."""
    gathered = whole(tensor)
    return gathered if ranks.is_first else torch.empty(0)


def _fresh_folder(store: Store, step: int, attempt: str) -> str:
    name = f"{step:08d}-{re.sub(r'[^A-Za-z0-9_.-]', '_', attempt)}"
    taken = set(store.folders(FOLDER))
    tries = 1
    while (unique := name if tries == 1 else f"{name}-{tries}") in taken:
        tries += 1
    return f"{FOLDER}/{unique}"


def _step_of(folder: str) -> int:
    """The step in a checkpoint folder's name; -1 if it is not one."""
    match = re.fullmatch(r"(\d{8,})-.+", folder.rsplit("/", 1)[-1])
    return int(match[1]) if match else -1


def _random_state(ranks: Ranks) -> dict[str, str | None]:
    """torch's generators as hex. Training draws nothing from them today; dropout and masking would."""
    cuda = torch.cuda.get_rng_state(ranks.device) if ranks.device.type == "cuda" else None
    return {
        "cpu": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": None if cuda is None else cuda.numpy().tobytes().hex(),
    }


def _restore_random_state(stored: Mapping[str, str | None], ranks: Ranks) -> None:
    if stored["cpu"]:
        torch.set_rng_state(torch.frombuffer(bytearray.fromhex(stored["cpu"]), dtype=torch.uint8))
    if stored["cuda"] and ranks.device.type == "cuda":
        state = torch.frombuffer(bytearray.fromhex(stored["cuda"]), dtype=torch.uint8)
        torch.cuda.set_rng_state(state, ranks.device)
