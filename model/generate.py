"""Text from a trained model, and the one way to read a model that has been written: `load_model`.

Sampling keeps keys and values of what has been read, so that a new token costs one step. One seed, one text: random
numbers come from a generator of its own on the CPU, in float64.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from model import checkpoint
from model.attention import AttentionLayout, attend
from model.config import ModelConfig, from_mapping
from model.finetune_config import GenerateConfig
from model.transformer import Block, Transformer, rotary_table, rotate
from storage.filesystem import Store

CAUSAL = ("LlamaForCausalLM", "Qwen3ForCausalLM")
"""Hugging Face's names of the language models that this one is, without and with QK-norm."""

END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
"""Names by which tokenisers call the end of a document, ours first (GPT-2, Llama 3, Llama 2, Gemma, BERT)."""


def end_token_id(tokenizer: Tokenizer, name: str | None = None) -> int:
    """The id of the token that ends documents, and by that starts the next.

    Parameters
    ----------
    name
        Its name; default: the first of `END_TOKENS` that the vocabulary holds.

    Raises
    ------
    ValueError
        if the vocabulary holds no such token.
    """
    for candidate in END_TOKENS if name is None else (name,):
        if (number := tokenizer.token_to_id(candidate)) is not None:
            return int(number)
    wanted = " or ".join(END_TOKENS if name is None else (name,))
    raise ValueError(f"the tokeniser has no end token: its vocabulary lacks {wanted}")


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokeniser of a `tokenizer.json`, neither padding nor cutting; special tokens written out in a text are text.

    Raises FileNotFoundError or ValueError naming the file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no tokeniser at {path}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise ValueError(f"{path} is not a tokenizer.json: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def vocabulary_rows(tokenizer: Tokenizer) -> int:
    """One more than the highest id, added tokens included: the rows that an embedding needs."""
    return int(max(tokenizer.get_vocab(with_added_tokens=True).values())) + 1


def load_model(
    folder: str | Path, tokenizer: str | Path | None = None, *, device: str | torch.device = "cpu"
) -> tuple[Transformer, Tokenizer, ModelConfig]:
    """A trained model, ready to score or to write text, with its tokeniser and its shape.

    Parameters
    ----------
    folder
        A checkpoint, an output of pretraining (its newest valid checkpoint is taken) or a released model in Hugging
        Face's layout. The first two may be URLs.
    tokenizer
        Path of a `tokenizer.json`; a released folder brings its own.

    Raises
    ------
    ValueError
        naming the folder, when it holds no model of ours, is damaged, or does not fit the tokeniser.
    """
    if is_release(folder):
        tensors, config, _ = read_release(Path(folder), CAUSAL)
        tokenizer = tokenizer or Path(folder) / "tokenizer.json"
    else:
        tensors, stored = read_checkpoint(folder)
        config = shape_of(stored, str(folder))
        if "score.weight" in tensors:
            raise ValueError(f"{folder} holds a fine-tuned classifier, not a language model")
    if tokenizer is None:
        raise ValueError(f"{folder} brings no tokeniser: say where its tokenizer.json is")
    loaded = load_tokenizer(tokenizer)
    model = Transformer(config, len(tensors["model.embed_tokens.weight"]))
    model.load_state_dict(tensors)
    if vocabulary_rows(loaded) > model.vocabulary_size:
        raise ValueError(
            f"{tokenizer} has ids up to {vocabulary_rows(loaded) - 1}, the model in {folder} was made for "
            f"{model.vocabulary_size} tokens: they do not belong together"
        )
    return model.to(device).eval(), loaded, config


def read_checkpoint(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The verified weights and `config.json` of a checkpoint, or of the newest valid one of a training's output."""
    store, name = _parent_store(folder)
    if not store.exists(f"{name}/manifest.json") or store.folders(f"{name}/{checkpoint.FOLDER}"):
        store, name = Store(folder), checkpoint.newest_valid(Store(folder)) or ""
        if not name:
            raise ValueError(f"{folder} holds no model: neither a released folder nor a valid checkpoint")
    return checkpoint.load_weights(store, name), store.read_json(f"{name}/config.json")


def shape_of(stored: Mapping[str, Any], where: str) -> ModelConfig:
    """The model's shape from the `config.json` of a checkpoint. Raises ValueError naming the field that is wrong."""
    shape = {name: value for name, value in stored["model"].items() if name != "vocabulary_size"}
    return from_mapping(ModelConfig, shape, f"{where}/config.json: model")


def _parent_store(folder: str | Path) -> tuple[Store, str]:
    if isinstance(folder, str) and "://" in folder:
        parent, name = folder.rstrip("/").rsplit("/", 1)
        return Store(parent), name
    path = Path(folder).resolve()
    return Store(path.parent), path.name


def is_release(folder: str | Path) -> bool:
    """Whether this is a local folder in Hugging Face's layout (a checkpoint brings no tokeniser)."""
    return all((Path(folder) / name).is_file() for name in ("config.json", "model.safetensors", "tokenizer.json"))


def read_release(folder: Path, architectures: Sequence[str]) -> tuple[dict[str, Tensor], ModelConfig, dict[str, Any]]:
    """Weights, shape and `config.json` of a folder in Hugging Face's layout whose model is one of `architectures`.

    Raises
    ------
    ValueError
        naming the folder and what of it this model cannot express.
    """
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = (values.get("architectures") or ["none"])[0]
    if architecture not in architectures:
        raise ValueError(f"{folder}/config.json says {architecture}; wanted is {' or '.join(architectures)}")
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if rope.get("rope_type", "default") != "default" or values.get("attention_bias") or values.get("mlp_bias"):
        raise ValueError(f"{folder}/config.json asks for scaled rotary positions or biases, which are not supported")
    if values["head_dim"] * values["num_attention_heads"] != values["hidden_size"]:
        raise ValueError(f"{folder}/config.json: head_dim must be hidden_size / num_attention_heads")
    config = ModelConfig(
        layers=values["num_hidden_layers"],
        width=values["hidden_size"],
        heads=values["num_attention_heads"],
        kv_heads=values["num_key_value_heads"],
        ffn_width=values["intermediate_size"],
        rope_theta=float(rope.get("rope_theta", values.get("rope_theta", 10_000.0))),
        norm_epsilon=values["rms_norm_eps"],
        tie_embeddings=values["tie_word_embeddings"],
        qk_norm=architecture.startswith("Qwen3"),
        max_positions=values["max_position_embeddings"],
    )
    return load_file(folder / "model.safetensors"), config, values


class Decoder:
    """One text being continued: the keys and values of every layer for the tokens read so far.

    The arithmetic is that of `Transformer.forward`, one block at a time, for the new tokens only.
    """

    def __init__(self, model: Transformer) -> None:
        if not model.config.causal:
            raise ValueError("only a causal model continues text; this one sees both sides (model.causal = false)")
        self.model = model
        self.length = 0
        weight = model.model.embed_tokens.weight
        shape = (len(model.model.layers), 1, model.config.max_positions, model.config.kv_heads, model.config.head_width)
        self.keys = torch.empty(shape, dtype=weight.dtype, device=weight.device)
        self.values = torch.empty_like(self.keys)

    @torch.no_grad()
    def read(self, tokens: Sequence[int]) -> Tensor:
        """Read `tokens` and return the logits (V,), float32 on the CPU, of the token after the last.

        Raises ValueError when there are no tokens, when they would pass the model's last position, or when more than
        one follows a text already begun.
        """
        config, first, last = self.model.config, self.length, self.length + len(tokens)
        if not tokens or last > config.max_positions or (first and len(tokens) > 1):
            raise ValueError(f"cannot read {len(tokens)} tokens after {first} of {config.max_positions} positions")
        device = self.keys.device
        positions = torch.arange(first, last, device=device)[None]
        cosine, sine = rotary_table(positions, config.head_width, config.rope_theta)
        cosine, sine = cosine.to(self.keys.dtype), sine.to(self.keys.dtype)
        # A single new token may see all that came before, itself included: no mask
        layout = AttentionLayout(causal=len(tokens) > 1)
        x = self.model.model.embed_tokens(torch.tensor([list(tokens)], device=device))  # (1, T, W)
        for number, block in enumerate(self.model.model.layers):
            x = self._block(cast(Block, block), number, x, cosine, sine, layout)
        self.length = last
        logits: Tensor = self.model.logits(self.model.model.norm(x[0, -1]))
        return logits.float().cpu()

    def _block(
        self, block: Block, number: int, x: Tensor, cosine: Tensor, sine: Tensor, layout: AttentionLayout
    ) -> Tensor:
        attention, last = block.self_attn, self.length + x.shape[1]
        normal = block.input_layernorm(x)
        query, key, value = (
            project(normal).unflatten(-1, (-1, attention.head_width))
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )  # (1, T, H or K, D)
        if attention.q_norm is not None and attention.k_norm is not None:
            query, key = attention.q_norm(query), attention.k_norm(key)
        self.keys[number, :, self.length : last] = rotate(key, cosine, sine)
        self.values[number, :, self.length : last] = value
        mixed = attend(rotate(query, cosine, sine), self.keys[number, :, :last], self.values[number, :, :last], layout)
        x = x + attention.o_proj(mixed.flatten(-2))
        out: Tensor = x + block.mlp(block.post_attention_layernorm(x))
        return out


def sample_token(logits: Tensor, config: GenerateConfig, generator: torch.Generator) -> int:
    """One token from `logits` (V,): divided by the temperature, cut to the `top_k` likeliest, drawn by inversion.

    At temperature 0 the likeliest token, of several the one with the smallest id.
    """
    order = torch.argsort(logits, descending=True, stable=True)
    if config.temperature == 0:
        return int(order[0])
    if config.top_k:
        order = order[: config.top_k]
    shares = (logits[order].double() / config.temperature).softmax(dim=0).cumsum(dim=0)
    drawn = torch.rand(1, generator=generator, dtype=torch.float64) * shares[-1]
    return int(order[min(int(torch.searchsorted(shares, drawn, right=True)), len(order) - 1)])


def generate_tokens(
    model: Transformer, prompt: Sequence[int], config: GenerateConfig, *, end: int, vocabulary_size: int
) -> list[int]:
    """Continue a sequence of token ids until the end token (not returned) or `config.max_tokens`.

    A prompt longer than the model's positions keeps its last ones. When the positions are used up, the text goes on
    from the latter half of what has been read, so the model always knows at least half of its window.

    Parameters
    ----------
    prompt
        At least one token id; a new document starts with the end token alone.
    end
        Id of the end token.
    vocabulary_size
        Ids from here on (rows that only pad the embedding) are never drawn.
    """
    generator = torch.Generator().manual_seed(config.seed)
    limit = model.config.max_positions
    decoder = Decoder(model)
    logits = decoder.read(list(prompt)[-limit:])
    written: list[int] = []
    while True:
        token = sample_token(logits[:vocabulary_size], config, generator)
        if token == end:
            return written
        written.append(token)
        if len(written) == config.max_tokens:
            return written
        if decoder.length == limit:
            decoder = Decoder(model)
            logits = decoder.read([*prompt, *written][-max(limit // 2, 1) :])
        else:
            logits = decoder.read([token])


def generate(
    model: Transformer, tokenizer: Tokenizer, prompt: str, config: GenerateConfig, *, end_id: int | None = None
) -> str:
    """The text that `model` writes after `prompt` (the prompt itself is not repeated).

    The prompt stands at the start of a document; an empty one asks for a new document. The same seed, weights and
    arithmetic give the same text. `end_id` is the token that ends a document (default: by name, `end_token_id`).

    Raises
    ------
    ValueError
        when the model is not causal or the tokeniser has no end token.
    """
    end = end_token_id(tokenizer) if end_id is None else end_id
    was_training = model.training
    model.eval()
    try:
        prompt_ids = [end, *tokenizer.encode(prompt, add_special_tokens=False).ids]
        written = generate_tokens(model, prompt_ids, config, end=end, vocabulary_size=vocabulary_rows(tokenizer))
    finally:
        model.train(was_training)
    return str(tokenizer.decode(written, skip_special_tokens=True))
