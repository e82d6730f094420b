"""A Transformer with a classification head, and how one is read: from a pretrained model or a fine-tuned one."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import boundaries_of
from model.config import ModelConfig
from model.generate import CAUSAL, is_release, read_checkpoint, read_release, shape_of
from model.transformer import Transformer

CLASSIFYING = ("LlamaForSequenceClassification", "Qwen3ForSequenceClassification")
"""Hugging Face's names of such classifiers, without and with QK-norm."""

HEAD_STD = 0.02
"""Standard deviation of the head's first weights (as BERT's and Hugging Face's heads)."""


class Classifier(Transformer):
    """A Transformer whose output layer is a bias-free linear head over classes, called `score` as Hugging Face does."""

    def __init__(self, config: ModelConfig, vocabulary_size: int, class_count: int) -> None:
        super().__init__(config, vocabulary_size)
        self.lm_head = None
        self.score = nn.Linear(config.width, class_count, bias=False)

    @torch.no_grad()
    def initialise_head(self, seed: int) -> None:
        """Draw the head from `seed`, the same on every device."""
        drawn = torch.empty(self.score.weight.shape)
        self.score.weight.copy_(drawn.normal_(0.0, HEAD_STD, generator=torch.Generator().manual_seed(seed)))

    def class_logits(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Scores (B, classes) of `tokens` (B, T), of whose rows the first `lengths` (B,) >= 1 count."""
        rows, columns = (torch.arange(size, device=tokens.device) for size in tokens.shape)
        if self.config.causal:  # padding on the right is never looked at
            pooled = self.hidden_states(tokens)[rows, lengths - 1]  # (B, W)
        else:
            present = columns < lengths[:, None]  # (B, T)
            hidden = self.hidden_states(tokens, columns.expand(tokens.shape), boundaries=boundaries_of(~present))
            pooled = (hidden * present[..., None]).sum(dim=1) / lengths[:, None]
        return F.linear(pooled, self.score.weight)


def load_pretrained(folder: str, class_count: int, seed: int) -> Classifier:
    """A pretrained model with a fresh head. Raises ValueError naming the folder when there is no model in it."""
    if is_release(folder):
        tensors, config, _ = read_release(Path(folder), CAUSAL)
    else:
        tensors, stored = read_checkpoint(folder)
        config = shape_of(stored, folder)
    classifier = Classifier(config, len(tensors["model.embed_tokens.weight"]), class_count)
    classifier.initialise_head(seed)
    trunk = {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}
    classifier.load_state_dict({**trunk, "score.weight": classifier.score.weight})
    return classifier


def load_classifier(folder: str | Path) -> tuple[Classifier, tuple[str, ...]]:
    """A fine-tuned classifier and its class names.

    `folder` is a checkpoint, an output of fine-tuning (its newest valid checkpoint is taken) or a released classifier
    in Hugging Face's layout. Raises ValueError naming the folder when it holds no classifier.
    """
    if is_release(folder):
        tensors, config, values = read_release(Path(folder), CLASSIFYING)
        classes = tuple(values["id2label"][str(number)] for number in range(len(values["id2label"])))
    else:
        tensors, stored = read_checkpoint(folder)
        if "score.weight" not in tensors:
            raise ValueError(f"{folder} holds no classifier: its checkpoint has no head")
        config, classes = shape_of(stored, str(folder)), tuple(stored["classes"])
    classifier = Classifier(config, len(tensors["model.embed_tokens.weight"]), len(classes))
    classifier.load_state_dict(tensors)
    return classifier.eval(), classes
