"""Small models and a small tokeniser for the tests of what comes after pretraining."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from model import checkpoint
from model.checkpoint import TrainingState
from model.config import ModelConfig
from model.parallel import Ranks
from model.transformer import Transformer
from storage.filesystem import Store

END = "<|endoftext|>"

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Return the largest item of an iterable, or of two or more arguments.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "数据集 and émojis 🙂 need more than one byte a character.",
)

CAUSAL = ModelConfig(layers=2, width=32, heads=4, kv_heads=2, max_positions=32, initial_std=0.1)


def tiny_tokenizer(vocabulary_size: int = 400) -> Tokenizer:
    """A byte-level BPE like the one that the tokenizer stage trains."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def tiny_model(tokenizer: Tokenizer, seed: int = 3, **changes: object) -> Transformer:
    """A model with random weights for the vocabulary of `tokenizer`; `changes` are fields of its configuration."""
    config = dataclasses.replace(CAUSAL, **changes)  # type: ignore[arg-type]
    model = Transformer(config, tokenizer.get_vocab_size(with_added_tokens=True))
    model.initialise(seed)
    with torch.no_grad():  # norms that are all ones would hide that they are left out
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.sin(torch.arange(len(parameter)) + len(name)))
    return model.eval()


def write_checkpoint(output: Path, model: Transformer, tokenizer: Tokenizer) -> Path:
    """An output of pretraining with one checkpoint of `model`, and `tokenizer.json` beside it; the output's path."""
    identity = {
        "model": {**dataclasses.asdict(model.config), "vocabulary_size": model.vocabulary_size},
        "training": {},
        "tokens": {"digest": "blake2b:00", "end_id": tokenizer.token_to_id(END)},
    }
    optimiser = torch.optim.AdamW(model.parameters())
    ranks = Ranks(0, 1, torch.device("cpu"), None)
    checkpoint.save(Store(output), "test", model, optimiser, TrainingState(step=1), identity, {}, ranks)
    tokenizer.save(str(output / "tokenizer.json"))
    return output
