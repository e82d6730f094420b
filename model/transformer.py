"""The Transformer, top to bottom: causal (GPT/Llama kind) or bidirectional (BERT kind) from one config.

- RMSNorm before attention and feed-forward, no biases (Llama: Touvron et al. 2023, section 2.2)
- rotary positions (Su et al. 2021) in the half-rotation of Hugging Face's Llama, restarting per document
- grouped-query attention (Ainslie et al. 2023), SwiGLU (Shazeer 2020), optional QK-norm in Qwen3's layout
- attention that stays inside a document, tied or separate output projection
- parameters bear Hugging Face's Llama names, so that a release is a copy

In the comments B = batch, T = time, W = width, H = query heads, K = key/value heads, D = head width,
V = vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import AttentionLayout, attend, attention_layout, positions_between
from model.config import ModelConfig


class RMSNorm(nn.Module):
    """x / root-mean-square(x) · weight, computed in float32 (Zhang and Sennrich 2019, equation 4)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * (wide * scale).to(x.dtype)


def rotary_table(positions: Tensor, head_width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines for `positions` (B, T): two float32 tensors (B, T, 1, D/2).

    Pair i of a head turns by position · theta^(-2i/D) (Su et al. 2021, equation 15).
    """
    exponents = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width
    angles = positions[..., None, None].float() * theta**-exponents  # (B, T, 1, D/2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn the pairs (i, i + D/2) of every head of `x` (B, T, H, D), as Hugging Face's `rotate_half` does."""
    first, second = x.chunk(2, dim=-1)  # (B, T, H, D/2) each
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query self-attention with rotary positions and optional QK-norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_width = config.head_width
        kv_width = config.kv_heads * config.head_width
        self.q_proj = nn.Linear(config.width, config.width, bias=False)
        self.k_proj = nn.Linear(config.width, kv_width, bias=False)
        self.v_proj = nn.Linear(config.width, kv_width, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)
        if config.qk_norm:
            self.q_norm: RMSNorm | None = RMSNorm(config.head_width, config.norm_epsilon)
            self.k_norm: RMSNorm | None = RMSNorm(config.head_width, config.norm_epsilon)
        else:
            self.q_norm = self.k_norm = None

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, layout: AttentionLayout) -> Tensor:
        query = self.q_proj(x).unflatten(-1, (-1, self.head_width))  # (B, T, H, D)
        key = self.k_proj(x).unflatten(-1, (-1, self.head_width))  # (B, T, K, D)
        value = self.v_proj(x).unflatten(-1, (-1, self.head_width))  # (B, T, K, D)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        mixed = attend(query.to(value.dtype), key.to(value.dtype), value, layout)  # (B, T, H, D)
        out: Tensor = self.o_proj(mixed.flatten(-2))  # (B, T, W)
        return out


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.hidden_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.hidden_width, bias=False)
        self.down_proj = nn.Linear(config.hidden_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    """Attention and feed-forward, each added to the residual stream after its own norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_epsilon)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_epsilon)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, layout: AttentionLayout) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cosine, sine, layout)
        x = x + self.mlp(self.post_attention_layernorm(x))
        return x


class Trunk(nn.Module):
    """Embedding, blocks and last norm; called `model` in the Transformer for Hugging Face's names."""

    def __init__(self, config: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary_size, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_epsilon)


class Transformer(nn.Module):
    """The whole model.

    Parameters
    ----------
    config
        Its shape.
    vocabulary_size
        Rows of the embedding; token ids are below it.
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        self.model = Trunk(config, vocabulary_size)
        self.lm_head = None if config.tie_embeddings else nn.Linear(config.width, vocabulary_size, bias=False)

    def forward(self, tokens: Tensor, positions: Tensor | None = None, boundaries: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of `tokens` (B, T); the arguments are those of `hidden_states`."""
        return self.logits(self.hidden_states(tokens, positions, boundaries))

    def hidden_states(
        self, tokens: Tensor, positions: Tensor | None = None, boundaries: Tensor | None = None
    ) -> Tensor:
        """The residual stream after the last norm.

        Parameters
        ----------
        tokens
            Integers (B, T) below the vocabulary size.
        positions
            Integers (B, T); default: 0, 1, 2 … restarting at every boundary.
        boundaries
            int32 (documents + 1,): where documents start in the flattened tokens, and B·T last; attention stays inside
            a document. Padding is a document of its own. Default: every row is one document.

        Returns
        -------
        Tensor
            (B, T, W).

        Raises
        ------
        ValueError
            if T exceeds the model's `max_positions`.
        """
        if tokens.shape[1] > self.config.max_positions:
            raise ValueError(
                f"a sequence of {tokens.shape[1]} tokens is longer than model.max_positions = "
                f"{self.config.max_positions}"
            )
        if positions is None:
            positions = restarting_positions(tokens, boundaries)
        x = self.model.embed_tokens(tokens)  # (B, T, W)
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        layout = attention_layout(boundaries, len(tokens), causal=self.config.causal, dtype=dtype)
        cosine, sine = rotary_table(positions, self.config.head_width, self.config.rope_theta)
        cosine, sine = cosine.to(dtype), sine.to(dtype)
        for block in self.model.layers:
            x = block(x, cosine, sine, layout)
        hidden: Tensor = self.model.norm(x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (…, V) of the next (causal) or the same (bidirectional) token from hidden states (…, W)."""
        output = self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return F.linear(hidden, output)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all weights from `seed`, the same on every device.

        Normal with `initial_std`; the two projections that add to the residual stream are scaled by
        1/√(2·layers), so that its variance does not grow with depth (Radford et al. 2019, section 2.3). Norms
        start at one.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            std = self.config.initial_std
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std /= math.sqrt(2 * self.config.layers)
            drawn = torch.empty(parameter.shape).normal_(0.0, std, generator=generator)
            parameter.copy_(drawn)


def restarting_positions(tokens: Tensor, boundaries: Tensor | None) -> Tensor:
    """Positions (B, T) of `tokens` (B, T) that count from 0 inside each document of a row."""
    if boundaries is None:
        return torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    return positions_between(boundaries, tokens.numel()).view(tokens.shape)
