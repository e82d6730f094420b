"""What is computed after pretraining: the settings of fine-tuning, of evaluation and of text generation.

Only thresholds, sizes and seeds stand here, for they are fingerprinted; devices, threads and batch grouping come
in the `resources` of a job. This module imports nothing heavy, so that a plan or a form costs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from model.augment_config import AugmentConfig
from storage.settings import STRICT, setting


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """A classification head on a pretrained model, trained on labelled documents."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    task: Literal["classification"] = setting("What the head predicts: one class a document.", "classification")
    classes: int = setting("Keep this many of the most frequent training labels (ties by name).", 20, ge=2)
    max_documents: int = setting("Train on at most this many documents, sampled by seed and id. 0: all.", 10_000, ge=0)
    max_test_documents: int = setting(
        "Score on at most this many documents, sampled by seed and id. 0: all.", 2_000, ge=0
    )
    max_length: int = setting("Read this many tokens of a document; the rest is not seen.", 256, ge=2)
    epochs: int = setting("Passes over the training documents.", 3, ge=1)
    steps: int = setting("Stop after this many steps instead of whole epochs. 0: whole epochs.", 0, ge=0)
    batch_size: int = setting("Documents a step.", 32, ge=1)
    learning_rate: float = setting("Peak learning rate of the pretrained weights (AdamW).", 5e-4, gt=0)
    head_learning_rate: float = setting("Peak learning rate of the new head.", 2e-3, gt=0)
    warmup: float = setting("Share of the steps that warm up linearly; then a cosine to zero.", 0.1, ge=0, lt=1)
    weight_decay: float = setting("AdamW's weight decay on matrices (norms are left alone).", 0.05, ge=0)
    clip_norm: float = setting("Clip the gradient to this norm. 0: no clipping.", 1.0, ge=0)
    freeze_layers: int = setting(
        "Leave the embedding and this many lowest layers as they are. 0: train everything.", 0, ge=0
    )
    seed: int = setting("Seed of the head's weights, of sampling and of the batch order.", 1, ge=0)
    precision: Literal["fp32", "bf16"] = setting("Arithmetic of the forward and backward pass.", "fp32")
    checkpoint_every: int = setting("Steps between checkpoints. 0: only when stopped.", 200, ge=0)
    augment: AugmentConfig = setting("Changes of the training documents.", default_factory=AugmentConfig)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How held-out text is scored: windows over one document at a time."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    sequence_length: int = setting("Tokens a window. 0: as many as the model has positions for.", 0, ge=0)
    stride: int = setting(
        "Tokens from one window to the next; less gives later tokens more context. 0: half a window.", 0, ge=0
    )
    precision: Literal["fp32", "bf16"] = setting("Arithmetic of the forward pass.", "fp32")
    max_documents: int = setting(
        "Score at most this many documents of a set, those with the smallest ids. 0: all.", 2_000, ge=0
    )


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How text is sampled from a causal model."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    prompts: tuple[str, ...] = setting(
        "Texts to continue after training; an empty one starts a new document.", ("", "Return the ")
    )
    max_tokens: int = setting("New tokens at most.", 128, ge=1)
    temperature: float = setting("Divides the logits before sampling. 0: always the likeliest.", 0.8, ge=0)
    top_k: int = setting("Sample among this many likeliest tokens. 0: among all.", 50, ge=0)
    seed: int = setting("Seed of the sampling: one seed, one text.", 1, ge=0)
