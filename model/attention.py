"""Attention behind one function: variable-length flash attention on CUDA in half precision, else SDPA.

A layout says who may attend to whom; it is made once a batch and shared by all layers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AttentionLayout:
    """Who may attend to whom in a batch of `(batch, time)` tokens.

    With neither `mask` nor `boundaries` every row is one document.
    """

    causal: bool
    mask: Tensor | None = None  # bool (batch, 1, time, time), True = may attend
    boundaries: Tensor | None = None  # int32 (documents + 1,): where documents start in the flattened batch


def attention_layout(boundaries: Tensor | None, batch: int, *, causal: bool, dtype: torch.dtype) -> AttentionLayout:
    """The layout of a batch of `batch` rows.

    Parameters
    ----------
    boundaries
        int32 (documents + 1,): where documents start in the flattened batch, and its size last; every row starts one.
        Tokens see each other only inside a document. None: every row is one document.
    dtype
        What queries and keys will be computed in; the flash kernel needs half precision.
    """
    if boundaries is None or len(boundaries) == batch + 1:  # no row holds two documents: the unmasked kernel is faster
        return AttentionLayout(causal)
    if _varlen_attention() is not None and boundaries.is_cuda and dtype in (torch.bfloat16, torch.float16):
        return AttentionLayout(causal, boundaries=boundaries)
    ids = ids_between(boundaries, int(boundaries[-1])).view(batch, -1)
    mask = ids[:, None, :, None] == ids[:, None, None, :]
    return AttentionLayout(causal, mask=mask.tril() if causal else mask)


def boundaries_of(document_ids: Tensor) -> Tensor:
    """Where documents start in the flattened batch, and its size last (int32), from ids (batch, time).

    Equal neighbours in a row are of one document.
    """
    starts = F.pad(document_ids[:, 1:] != document_ids[:, :-1], (1, 0), value=True)
    first = starts.flatten().nonzero().flatten()
    return F.pad(first, (0, 1), value=document_ids.numel()).to(torch.int32)


def ids_between(boundaries: Tensor, size: int) -> Tensor:
    """int32 (size,): the number of the document, from 0, that every token of the flattened batch belongs to."""
    lengths = boundaries.diff()
    counted = torch.arange(len(lengths), dtype=torch.int32, device=lengths.device)
    return counted.repeat_interleave(lengths, output_size=size)


def positions_between(boundaries: Tensor, size: int) -> Tensor:
    """int32 (size,): the place of every token of the flattened batch in its document, from 0."""
    begins = boundaries[:-1].repeat_interleave(boundaries.diff(), output_size=size)
    return torch.arange(size, dtype=torch.int32, device=begins.device) - begins


def attend(query: Tensor, key: Tensor, value: Tensor, layout: AttentionLayout) -> Tensor:
    """Scaled dot-product attention.

    Parameters
    ----------
    query
        `(batch, time, heads, head_width)`.
    key, value
        `(batch, time, kv_heads, head_width)`; query head h reads key head `h // (heads // kv_heads)`.

    Returns
    -------
    Tensor
        `(batch, time, heads, head_width)`.
    """
    batch, time, heads, head_width = query.shape
    if (groups := heads // key.shape[2]) > 1:
        key = key.repeat_interleave(groups, dim=2)
        value = value.repeat_interleave(groups, dim=2)
    varlen = _varlen_attention()
    if layout.boundaries is not None and varlen is not None:
        flat = (batch * time, heads, head_width)
        window = (-1, 0) if layout.causal else (-1, -1)
        packed: Tensor = varlen(
            query.reshape(flat), key.reshape(flat), value.reshape(flat),
            layout.boundaries, layout.boundaries, time, time, window_size=window,
        )  # fmt: skip
        return packed.view(batch, time, heads, head_width)
    mixed = F.scaled_dot_product_attention(
        query.transpose(1, 2),  # (batch, heads, time, head_width), as for key and value
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=layout.mask,
        is_causal=layout.causal and layout.mask is None,
    )
    return mixed.transpose(1, 2)


@functools.cache
def _varlen_attention() -> Callable[..., Any] | None:
    """torch's variable-length flash attention (2.10 and later, CUDA builds), or None."""
    if not torch.cuda.is_available():
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn
