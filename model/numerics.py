"""What floating point depends on: recorded beside every trained tensor, compared before equality is promised."""

from __future__ import annotations

import platform
from typing import Any

import torch

from model.config import TrainingConfig, TrainingResources
from model.parallel import Ranks


def numerics(training: TrainingConfig, resources: TrainingResources, ranks: Ranks) -> dict[str, Any]:
    """Everything that may change the last bits of a trained tensor while the configuration stays the same.

    Two runs of one job whose dictionaries are equal give the same tensors, bit by bit, where the kernels of the device
    are deterministic (all that are used here are on the CPU).
    """
    share = training.batch_sequences // ranks.count
    cuda = ranks.device.type == "cuda"
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(ranks.device) if cuda else "cpu",
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "ranks": ranks.count,
        "micro_batch_sequences": min(resources.micro_batch_sequences or share, share),
        "batch_sequences": training.batch_sequences,
        "precision": training.precision,
        "compile": resources.compile,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cuda": torch.version.cuda if cuda else None,
    }
