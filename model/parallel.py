"""Ranks: one process alone, or several under torchrun that share the model with FSDP2.

What is computed does not depend on how many there are; only the order of floating-point sums does.
"""

from __future__ import annotations

import ctypes
import datetime
import os
import platform
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from model.config import TrainingResources
from model.transformer import Transformer

TIMEOUT = datetime.timedelta(minutes=10)
"""How long a rank waits for the others before it fails with an error instead of hanging for ever."""


@dataclass(frozen=True)
class Ranks:
    """This process's place among the ranks of a training."""

    rank: int
    count: int
    device: torch.device
    mesh: DeviceMesh | None

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes files and messages."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def from_first(self, value: str | None) -> str | None:
        """What the first rank passed here; all ranks must call this together."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def share(self, positions: range) -> range:
        """This rank's contiguous part of a global batch of positions, whose size the ranks divide."""
        size = len(positions) // self.count
        return positions[size * self.rank : size * (self.rank + 1)]


def start_ranks(resources: TrainingResources) -> Ranks:
    """Join the ranks that torchrun started (its environment variables say so), or stand alone.

    Raises
    ------
    RuntimeError
        if the job asks for another number of processes than there are, or for CUDA where there is none.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local_rank = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    if count != resources.processes:
        raise RuntimeError(
            f"resources.processes = {resources.processes}, but {count} ranks were started; "
            f"use torchrun --nproc-per-node {resources.processes}"
        )
    cuda = torch.cuda.is_available()
    if resources.device == "cuda" and not cuda:
        raise RuntimeError("resources.device = 'cuda', but torch sees no CUDA device; use 'auto' or 'cpu'")
    use_cuda = cuda and resources.device != "cpu"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    local_count = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(resources.threads or max(1, cores // local_count))
    device = torch.device("cuda", local_rank) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
    if resources.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling fresh memory costs time and changes no result: nothing here reads what it has not written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if count == 1:
        return Ranks(0, 1, device, None)
    dist.init_process_group("cpu:gloo,cuda:nccl" if use_cuda else "gloo", timeout=TIMEOUT)
    return Ranks(rank, count, device, init_device_mesh(device.type, (count,), mesh_dim_names=("data",)))


def keep_freed_memory() -> None:
    """Let glibc keep big blocks that were freed instead of giving them back to the kernel every step.

    Logits and their gradients take hundreds of megabytes; zeroing fresh pages for them costs some 15 % of a CPU step.
    Other C libraries are left as they are; no result depends on it.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of <malloc.h>
    library = ctypes.CDLL(None)
    library.mallopt(trim_threshold, 2**31 - 1)
    library.mallopt(mmap_max, 0)


def stop_ranks(ranks: Ranks) -> None:
    """Leave the group of ranks."""
    if ranks.count > 1:
        dist.destroy_process_group()


def place(model: Transformer, ranks: Ranks, *, half_precision: bool, compile_blocks: bool) -> None:
    """Move a model to this rank's device and share its parameters out, block by block, as DTensors.

    In half precision the shares stay float32 while blocks compute in bf16 and gradients are summed in float32; a
    process alone does the same with `autocast`.
    """
    model.to(ranks.device)
    if compile_blocks:
        for block in model.model.layers:
            block.compile()
    if ranks.mesh is None:
        return
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    if not half_precision:
        policy = MixedPrecisionPolicy()
    for block in model.model.layers:
        fully_shard(block, mesh=ranks.mesh, mp_policy=policy)
    fully_shard(model, mesh=ranks.mesh, mp_policy=policy)
    # FSDP gathers parameters around `forward`; callers that want hidden states only need the same.
    register_fsdp_forward_method(model, "hidden_states")


def whole(tensor: Tensor) -> Tensor:
    """A tensor on the CPU with all ranks' shares in it; all ranks must call this together."""
    if isinstance(tensor, DTensor):
        tensor = tensor.full_tensor()
    return tensor.detach().cpu()


def fill(target: Tensor, values: Tensor) -> None:
    """Copy `values`, the whole tensor on every rank, into `target`, which may be sharded."""
    with torch.no_grad():
        if isinstance(target, DTensor):
            values = values.to(target.device, target.dtype)
            target.copy_(distribute_tensor(values, target.device_mesh, target.placements))
        else:
            target.copy_(values)
