"""What the CUDA path promises: the masks and losses of the CPU, and a resume that ends with the same tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from model import train
from model.attention import AttentionLayout, attend, attention_layout, boundaries_of
from model.config import ModelConfig
from model.metrics import read_metrics
from model.parallel import Ranks
from model.transformer import Transformer
from storage.filesystem import Store
from tests.model.token_files import job_values

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine")

HEADS, KV_HEADS, HEAD_WIDTH = 4, 2, 64


def documents(lengths: list[list[int]]) -> Tensor:
    """Document ids (rows, time) of rows whose documents have these lengths."""
    rows = [torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in lengths]
    return torch.stack(rows).cuda()


def inputs(batch: int, time: int, dtype: torch.dtype) -> list[Tensor]:
    """Query, key and value, drawn anew."""
    return [
        torch.randn(batch, time, heads, HEAD_WIDTH, device="cuda", dtype=dtype, requires_grad=True)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]


def exact(query: Tensor, key: Tensor, value: Tensor, ids: Tensor, causal: bool) -> Tensor:
    """Masked attention by its formula, in float64 on the CPU."""
    q, k, v = (x.detach().double().cpu().transpose(1, 2) for x in (query, key, value))
    k, v = (x.repeat_interleave(HEADS // KV_HEADS, dim=1) for x in (k, v))
    ids = ids.cpu()
    mask = ids[:, None, :, None] == ids[:, None, None, :]
    scores = q @ k.transpose(-1, -2) / HEAD_WIDTH**0.5
    scores = scores.masked_fill(~(mask.tril() if causal else mask), float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found.detach().double().cpu() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance", "packed"), [(torch.bfloat16, 1e-2, True), (torch.float32, 1e-3, False)])
def test_attention_inside_documents_is_that_of_the_formula(
    causal: bool, dtype: torch.dtype, tolerance: float, packed: bool
) -> None:
    ids = documents([[1, 63, 200, 56, 192], [212, 300, 0, 0, 0]])
    layout = attention_layout(boundaries_of(ids), len(ids), causal=causal, dtype=dtype)
    assert (layout.boundaries is not None) == packed  # half precision takes the variable-length kernel
    query, key, value = inputs(2, 512, dtype)
    found = attend(query, key, value, layout)
    assert relative_error(found, exact(query, key, value, ids, causal)) < tolerance
    found.float().square().sum().backward()
    for tensor in (query, key, value):
        assert tensor.grad is not None
        assert bool(tensor.grad.isfinite().all())


def test_gradients_through_the_variable_length_kernel_are_those_of_the_masked_one() -> None:
    ids = documents([[100, 156], [256, 0]])
    query, key, value = inputs(2, 256, torch.bfloat16)
    mask = (ids[:, None, :, None] == ids[:, None, None, :]).tril()
    gradients = []
    for layout in (
        attention_layout(boundaries_of(ids), len(ids), causal=True, dtype=torch.bfloat16),
        AttentionLayout(True, mask=mask),
    ):
        attend(query, key, value, layout).float().pow(3).sum().backward()
        gradients.append([x.grad.clone() for x in (query, key, value) if x.grad is not None])
        query.grad = key.grad = value.grad = None
    for packed, masked in zip(*gradients, strict=True):
        assert relative_error(packed, masked.double().cpu()) < 2e-2


def test_a_document_is_deaf_to_its_neighbours() -> None:
    model = Transformer(ModelConfig(layers=2, width=64, heads=4, kv_heads=2, max_positions=128), 97).cuda()
    model.initialise(1)
    ids = documents([[40, 88]])
    tokens = torch.randint(0, 97, (1, 128), device="cuda")
    others = torch.cat((torch.randint(0, 97, (1, 40), device="cuda"), tokens[:, 40:]), dim=1)
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        one, two = (model(some, boundaries=boundaries_of(ids)) for some in (tokens, others))
    assert torch.equal(one[:, 40:], two[:, 40:])
    assert not torch.equal(one[:, :40], two[:, :40])


def cuda_values(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    """A job on the GPU with an output of its own; `changes` are fields of training and resources."""
    resources = {key: changes.pop(key) for key in ("compile", "processes", "device") if key in changes}
    values = job_values(folder, attempt=name, keep_checkpoints=9, **changes)
    values["resources"] |= {"device": "cuda", **resources}
    return {**values, "output": str(folder / name)}


def losses(values: dict[str, Any]) -> list[float]:
    """The losses of a job that is run here."""
    train.pretrain(train.parse_job(values))
    return [line["loss"] for line in read_metrics(values["output"]) if "loss" in line]


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [({"precision": "fp32"}, 1e-4), ({"precision": "bf16"}, 2e-2), ({"precision": "bf16", "compile": True}, 2e-2)],
    ids=["fp32", "bf16", "bf16-compiled"],
)
def test_losses_on_the_gpu_are_those_of_the_cpu(tmp_path: Path, changes: dict[str, Any], tolerance: float) -> None:
    wanted = losses(cuda_values(tmp_path, "cpu", device="cpu", steps=12, precision="fp32"))
    found = losses(cuda_values(tmp_path, "gpu", steps=12, **changes))
    assert len(found) == 12
    assert found == pytest.approx(wanted, rel=tolerance)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_ends_with_the_tensors_of_an_undisturbed_one(tmp_path: Path, precision: str) -> None:
    whole = cuda_values(tmp_path, "whole", precision=precision)
    train.pretrain(train.parse_job(whole))
    parts = cuda_values(tmp_path, "parts", precision=precision)
    train.pretrain(train.parse_job(parts))
    store = Store(parts["output"])
    for path in store.listing("checkpoints"):  # as it was after the tenth step
        if int(path.split("/")[1].split("-")[0]) > 10:
            store.remove(path)
    store.remove("final.json")
    train.pretrain(train.parse_job({**parts, "attempt": "again"}))
    digests = [Store(values["output"]).read_json("final.json")["tensor_digest"] for values in (whole, parts)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 2e-2)])
def test_a_model_shared_out_by_fsdp_over_nccl_has_the_losses_of_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, tolerance: float
) -> None:
    wanted = losses(cuda_values(tmp_path, "whole", gradient_clip=0.3, precision=precision))
    device = torch.device("cuda", 0)
    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cuda", (1,), mesh_dim_names=("data",))
        monkeypatch.setattr(train, "start_ranks", lambda resources: Ranks(0, 1, device, mesh))
        found = losses(cuda_values(tmp_path, "shared", gradient_clip=0.3, precision=precision))
    finally:
        dist.destroy_process_group()
    assert found == pytest.approx(wanted, rel=tolerance)
