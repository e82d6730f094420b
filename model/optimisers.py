"""The optimiser and its learning rate: AdamW with decay on matrices only, linear warm-up, cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from model.config import TrainingConfig


def adamw(model: nn.Module, training: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) over all parameters of `model`.

    Weight decay falls on the matrices of the blocks and on a separate output projection. It does not fall on norms,
    nor on the embedding, tied or not: shrinking an embedding makes the gradients of the first layers grow, which ends
    in spikes (Team OLMo 2024, "2 OLMo 2 Furious").
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (decayed if parameter.ndim > 1 and "embed_tokens" not in name else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": training.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=training.learning_rate,
        betas=(training.beta1, training.beta2),
        eps=training.epsilon,
        fused=True,
    )


def learning_rate(step: int, training: TrainingConfig) -> float:
    """The learning rate of a step (counted from 0): a pure function, so that nothing of it needs saving.

    Rises linearly over `warmup_steps`, the first step already above zero; then stays, or follows half a cosine down
    to `final_learning_rate_share` of the peak at the last step.
    """
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    if training.schedule == "constant":
        return training.learning_rate
    decaying = max(1, training.steps - 1 - training.warmup_steps)
    progress = min(1.0, (step - training.warmup_steps) / decaying)
    share = training.final_learning_rate_share
    return training.learning_rate * (share + (1.0 - share) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give all groups one learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The L2 norm over all gradients of all ranks, a scalar; every rank gets the same value.

    Gradients sharded by FSDP2 are DTensors: their norm is a partial sum until `full_tensor` adds the ranks up.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if isinstance(norm, torch.distributed.tensor.DTensor) else norm


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float, norm: Tensor) -> None:
    """Scale all gradients so that their global norm, given as `norm`, is at most `limit` (Pascanu et al. 2013)."""
    torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
