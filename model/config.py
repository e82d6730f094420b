"""What a model is and how it is trained, as plain frozen dataclasses; imports nothing heavy.

`ModelConfig` and `TrainingConfig` say *what* is computed and are fingerprinted; `TrainingResources` says *how*
and where, and never is (what it does to floating point is recorded by `model.numerics`).
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from model.augment_config import AugmentConfig
from storage.settings import STRICT, setting

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of one Transformer; the size of the vocabulary comes from the tokeniser."""

    __pydantic_config__ = STRICT

    layers: int = setting("Transformer blocks.", 4, ge=1, le=512)
    width: int = setting("Width of the residual stream; a multiple of `heads`.", 256, ge=8)
    heads: int = setting("Query heads of attention.", 4, ge=1)
    kv_heads: int = setting("Key and value heads (grouped-query attention); divides `heads`.", 4, ge=1)
    ffn_width: int = setting("Hidden width of the feed-forward; 0 = 8/3 of `width`, up to a multiple of 64.", 0, ge=0)
    rope_theta: float = setting("Base of the rotary position frequencies.", 10_000.0, gt=1.0)
    norm_epsilon: float = setting("Epsilon inside RMSNorm.", 1e-5, gt=0.0, le=1e-2)
    tie_embeddings: bool = setting("Use the token embedding as output projection too.", True)
    qk_norm: bool = setting("RMSNorm on every query and key head (Qwen3 layout).", False)
    causal: bool = setting("True: each token sees the past only (GPT kind); False: both sides (BERT kind).", True)
    max_positions: int = setting("Longest sequence the model accepts, in tokens.", 1024, ge=1)
    initial_std: float = setting("Standard deviation of the initial weights.", 0.02, gt=0.0, le=1.0)

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"model.width = {self.width} must be a multiple of model.heads = {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"model.kv_heads = {self.kv_heads} must divide model.heads = {self.heads}")
        if self.head_width % 2:
            raise ValueError(f"model.width / model.heads = {self.head_width} must be even: rotary positions turn pairs")

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def hidden_width(self) -> int:
        """Hidden width of the feed-forward with the 8/3 rule resolved (Shazeer 2020; rounded up as in Llama)."""
        if self.ffn_width:
            return self.ffn_width
        return -(-8 * self.width // (3 * 64)) * 64  # rounded up


@dataclass(frozen=True, kw_only=True)
class LengthSegment:
    """From one sequence of a training on, in parts of how many tokens sequences are read (`model/curriculum.py`)."""

    __pydantic_config__ = STRICT

    start: int = setting("The sequence, counted through the training from 0, with which it begins.", 0, ge=0)
    length: int = setting("Tokens of a part; it divides sequence_length.", 256, ge=8)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One pretraining: how much, in which order, with which optimiser."""

    __pydantic_config__ = STRICT

    sequence_length: int = setting("Tokens a sequence.", 256, ge=8)
    batch_sequences: int = setting("Sequences a step, over all ranks and micro-batches together.", 16, ge=1)
    steps: int = setting("Optimiser steps.", 200, ge=1)
    learning_rate: float = setting("Peak learning rate.", 1e-3, gt=0.0)
    warmup_steps: int = setting("Steps of linear warm-up from zero.", 20, ge=0)
    schedule: Literal["cosine", "constant"] = setting("Learning rate after the warm-up.", "cosine")
    final_learning_rate_share: float = setting("Learning rate at the end as a share of the peak.", 0.1, ge=0.0, le=1.0)
    weight_decay: float = setting("Decoupled weight decay on matrices (not on embeddings and norms).", 0.1, ge=0.0)
    beta1: float = setting("AdamW: decay of the first moment.", 0.9, ge=0.0, lt=1.0)
    beta2: float = setting("AdamW: decay of the second moment.", 0.95, ge=0.0, lt=1.0)
    epsilon: float = setting("AdamW: epsilon.", 1e-8, gt=0.0)
    gradient_clip: float = setting("Largest global gradient norm; 0 = no clipping.", 1.0, ge=0.0)
    precision: Literal["fp32", "bf16"] = setting("Arithmetic of the forward and backward pass.", "fp32")
    checkpoint_every: int = setting("Steps between checkpoints.", 100, ge=1)
    keep_checkpoints: int = setting("Newest checkpoints to keep.", 2, ge=1)
    validate_every: int = setting("Steps between validations; 0 = only at the end.", 50, ge=0)
    validation_sequences: int = setting(
        "Sequences of the validation split that are scored, of every source as many; 0 = none.", 64, ge=0
    )
    document_mask: bool = setting("Attention stays inside a document and positions restart with it.", True)
    packing: Literal["cut", "pack", "single", "buckets"] = setting(
        "How documents become sequences: `cut` at every sequence_length tokens; `pack`: documents that fit are never "
        "cut, sequences are filled by best fit; `single`: one document, or piece of a longer one, a sequence; "
        "`buckets`: documents become pieces of sequence_length, its half, its quarter …, a sequence has pieces of one "
        "length.",
        "cut",
    )
    shortest_bucket: int = setting(
        "`buckets`: tokens of the shortest pieces: sequence_length divided by a power of two. The rest is packed.",
        64,
        ge=2,
    )
    overlap: int = setting("`pack`, `single`: tokens that a piece of a split document reads again as context.", 0, ge=0)
    lengths: tuple[LengthSegment, ...] = setting(
        "Sequence-length curriculum: from which sequence on sequences are read in parts of which length; empty: whole.",
        (),
    )
    augment: AugmentConfig = setting("Changes of the text while it is shown.", default_factory=AugmentConfig)
    lanes: int = setting(
        "0: sequences are shuffled as a whole. Else the order for object stores (docs/training-data.md): lanes that "
        "ranks share, each of which reads a few shards at a time; a multiple of the ranks that divides "
        "batch_sequences.",
        0,
        ge=0,
    )
    block_sequences: int = setting(
        "`lanes`: neighbouring sequences that stay together, the worth of some shards.", 262_144, ge=1
    )
    window_blocks: int = setting("`lanes`: blocks of a lane whose sequences are shuffled together.", 4, ge=1)
    nonfinite_limit: int = setting("Steps with a non-finite loss or gradient in a row that stop a run.", 5, ge=1)
    seed: int = setting("Seed of the initial weights and of the data order.", 0, ge=0)

    def __post_init__(self) -> None:
        if self.warmup_steps > self.steps:
            raise ValueError(f"training.warmup_steps = {self.warmup_steps} is more than training.steps = {self.steps}")
        if self.overlap and (self.packing not in ("pack", "single") or self.overlap >= self.sequence_length):
            raise ValueError(
                f"training.overlap = {self.overlap} needs training.packing = 'pack' or 'single' and must be below "
                f"training.sequence_length = {self.sequence_length}"
            )
        times, rest = divmod(self.sequence_length, self.shortest_bucket)
        if self.packing == "buckets" and (rest or times < 1 or times & (times - 1)):
            raise ValueError(
                f"training.sequence_length = {self.sequence_length} must be training.shortest_bucket = "
                f"{self.shortest_bucket} times a power of two"
            )
        for number, segment in enumerate(self.lengths):
            if segment.start != 0 if not number else segment.start <= self.lengths[number - 1].start:
                least = "0" if not number else f"above {self.lengths[number - 1].start}"
                raise ValueError(f"training.lengths[{number}].start = {segment.start} must be {least}")
            if self.sequence_length % segment.length:
                raise ValueError(
                    f"training.lengths[{number}].length = {segment.length} must divide training.sequence_length = "
                    f"{self.sequence_length}"
                )
        if self.lanes and self.batch_sequences % self.lanes:
            raise ValueError(
                f"training.batch_sequences = {self.batch_sequences} must be a multiple of training.lanes = {self.lanes}"
            )
        if self.lanes and self.packing not in ("cut", "single"):
            raise ValueError(
                f"training.lanes = {self.lanes} needs training.packing = 'cut' or 'single': sequences of "
                f"{self.packing!r} that follow each other do not lie side by side in the shards"
            )
        if self.packing != "cut" and not self.document_mask:
            raise ValueError(f"training.packing = {self.packing!r} keeps documents apart: document_mask must be true")


@dataclass(frozen=True, kw_only=True)
class MixtureSegment:
    """From one sequence of a training on, in which proportions it takes its sources (`model/order.py`)."""

    __pydantic_config__ = STRICT

    start: int = setting("The sequence, counted through the training from 0, with which it begins.", 0, ge=0)
    weights: dict[str, int] = setting("Source -> its share of the tokens, as whole numbers.", default_factory=dict)
    seed: int = setting("Seed of the order in which sources take turns.", 0, ge=0)


@dataclass(frozen=True, kw_only=True)
class TrainingResources:
    """Where and how a training runs; never part of a fingerprint."""

    __pydantic_config__ = STRICT

    device: Literal["auto", "cpu", "cuda"] = setting("Device; auto = CUDA where there is one.", "auto")
    processes: int = setting("Ranks of pretraining; more than one starts torchrun with FSDP2.", 1, ge=1)
    threads: int = setting("CPU threads a rank; 0 = the cores divided by the ranks.", 0, ge=0)
    micro_batch_sequences: int = setting("Sequences a rank computes at once; 0 = its whole share.", 0, ge=0)
    compile: bool = setting("torch.compile every block (worth it on GPUs, rarely on CPUs).", False)
    deterministic: bool = setting("Prefer deterministic kernels; on GPUs it costs some speed.", True)
    cache_folder: str = setting(
        "Token shards of a remote workspace: the folder of their copies on this machine's disk, shared by its ranks "
        "and kept for the next training; empty: one of yours where temporary files lie.",
        "",
    )
    cache_megabytes: int = setting(
        "Token shards of a remote workspace: how large their copies may be together; the least recently used go first.",
        50_000,
        ge=1,
    )
    fetch_ahead_steps: int = setting(
        "Token shards of a remote workspace: steps before a shard is needed that its download begins.", 32, ge=0
    )


def from_mapping(config_type: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """A configuration from the JSON of a job file, with unknown and missing fields named in the error.

    Bounds are enforced where people write configurations (`flows/config.py`); job files are written by programs,
    so only their shape is checked here, without needing pydantic on the training machine.

    Raises
    ------
    ValueError
        naming `where`, the field and what is allowed.
    """
    fields = {field.name: field for field in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(fields)):
        raise ValueError(f"{where}: unknown field {', '.join(unknown)}; allowed are {', '.join(sorted(fields))}")
    kinds = typing.get_type_hints(config_type)
    return config_type(**{name: _of_kind(kinds[name], fields[name], values[name], where) for name in values})


def _of_kind(kind: Any, field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    """The value of a field: of a configuration inside, of a list of them, or as it is."""
    place = f"{where}.{field.name}"
    inside = typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ValueError(f"{place} = {value!r} must be an object")
        return from_mapping(typing.cast("type[Any]", kind), value, place)
    if inside and dataclasses.is_dataclass(inside[0]):
        if not isinstance(value, list | tuple) or not all(isinstance(item, Mapping) for item in value):
            raise ValueError(f"{place} = {value!r} must be a list of objects")
        made = typing.cast("type[Any]", inside[0])
        return tuple(from_mapping(made, item, f"{place}[{number}]") for number, item in enumerate(value))
    default = field.default
    expected = (int, float) if isinstance(default, float) else (type(default),)
    if not isinstance(value, expected) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise ValueError(f"{place} = {value!r} must be of type {expected[-1].__name__}, as the default {default!r}")
    return value
