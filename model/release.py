"""A trained model as others read it: a folder in Hugging Face's layout, with a model card that leads back to the data.

Nothing is converted: the parameters bear Hugging Face's names already. That names and shapes fit proves little, so the
folder is read again and its logits are compared with those of the checkpoint before it counts as written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, processors
from torch import Tensor

from model.checkpoint import tensor_digest
from model.classifier import CLASSIFYING, Classifier, load_classifier
from model.config import ModelConfig
from model.generate import CAUSAL, end_token_id, load_model, load_tokenizer, read_checkpoint, shape_of, vocabulary_rows
from model.transformer import Transformer
from storage.filesystem import digest_stream

TOLERANCE = 1e-5
"""How far logits of the written folder may lie from the checkpoint's: the same arithmetic on the same numbers."""

PROBES = 4
PROBE_TOKENS = 64


class ReleaseError(ValueError):
    """A model that cannot be released, or a released folder that does not say what its checkpoint says."""


def release(
    checkpoint_folder: str | Path,
    tokenizer_json: str | Path,
    output_folder: str | Path,
    metadata: Mapping[str, Any],
    *,
    end_id: int | None = None,
) -> dict[str, Any]:
    """Write a model into a folder that `transformers` loads: a language model, or a classifier if it has a head.

    Parameters
    ----------
    checkpoint_folder
        A checkpoint, or an output of pretraining or fine-tuning (its newest valid checkpoint is taken).
    tokenizer_json
        The tokeniser it was trained with. A language model gets the very file; a classifier's puts the end token before
        every text, as fine-tuning does.
    output_folder
        A local folder, missing or empty.
    metadata
        For the model card, all optional: `name`, `license`, `summary` (strings), and any further mapping, which becomes
        a section with a table: `data`, `counts`, `losses`, `scores`, `software` ...
    end_id
        The token that ends documents; default: by name (`end_token_id`).

    Returns
    -------
    dict
        `architecture`, `parameters` (their number), `tensor_digest`, `logit_difference` (the largest, against the
        checkpoint) and `files` (name to bytes and digest).

    Raises
    ------
    ReleaseError
        when the model has no Hugging Face layout, does not fit the tokeniser, or the written folder gives other logits.
    FileExistsError
        when the folder is not empty.
    """
    folder = Path(output_folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; release into a new folder")
    tensors, stored = read_checkpoint(checkpoint_folder)
    config = shape_of(stored, str(checkpoint_folder))
    if not config.causal:
        raise ReleaseError(
            f"{checkpoint_folder}: Hugging Face has no layout for a bidirectional model of this kind "
            "(model.causal = false)"
        )
    tokenizer = load_tokenizer(tokenizer_json)
    end = end_token_id(tokenizer) if end_id is None else end_id
    rows = len(tensors["model.embed_tokens.weight"])
    if vocabulary_rows(tokenizer) > rows:
        raise ReleaseError(f"{tokenizer_json} has ids up to {vocabulary_rows(tokenizer) - 1}, the model {rows} rows")
    classes = tuple(stored["classes"]) if "score.weight" in tensors else None
    settings = huggingface_config(config, rows, end_id=end, classes=classes)

    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    _write_json(folder / "config.json", settings)
    if classes is None:
        (folder / "tokenizer.json").write_bytes(Path(tokenizer_json).read_bytes())
        _write_json(folder / "generation_config.json", {"bos_token_id": end, "eos_token_id": end, "do_sample": True})
        longest = config.max_positions
    else:
        (folder / "tokenizer.json").write_text(_starting_with_end(tokenizer, end), encoding="utf-8")
        longest = int(stored["training"]["max_length"])
    _write_json(folder / "tokenizer_config.json", tokenizer_config(tokenizer, end, longest))
    digest = tensor_digest(tensors.items())
    facts = {
        "architecture": settings["architectures"][0],
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "tensor_digest": digest,
    }
    (folder / "README.md").write_text(model_card(metadata, facts, settings, classes), encoding="utf-8")
    difference = logit_difference(checkpoint_folder, tokenizer_json, folder, is_classifier=classes is not None)
    if not difference <= TOLERANCE:
        raise ReleaseError(f"{folder} gives logits that differ by up to {difference} from {checkpoint_folder}")
    return {**facts, "logit_difference": difference, "files": _inventory(folder)}


def huggingface_config(
    config: ModelConfig, vocabulary_size: int, *, end_id: int, classes: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """The `config.json` of Llama, or of Qwen3 where there is QK-norm; with `classes` of their sequence classifiers."""
    kind = "qwen3" if config.qk_norm else "llama"
    values: dict[str, Any] = {
        "architectures": [(CAUSAL if classes is None else CLASSIFYING)[int(config.qk_norm)]],
        "model_type": kind,
        "vocab_size": vocabulary_size,
        "hidden_size": config.width,
        "intermediate_size": config.hidden_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,  # transformers 4
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},  # transformers 5
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.initial_std,
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "pad_token_id": end_id if classes is not None else None,
        "dtype": "float32",
        "use_cache": True,
    }
    if kind == "llama":
        values["mlp_bias"] = False
    if classes is not None:
        values["id2label"] = {str(number): name for number, name in enumerate(classes)}
        values["label2id"] = {name: number for number, name in enumerate(classes)}
        values["problem_type"] = "single_label_classification"
    return values


def tokenizer_config(tokenizer: Tokenizer, end_id: int, longest: int) -> dict[str, Any]:
    """The `tokenizer_config.json`: which class, which special tokens, and that special tokens in a text are text."""
    end = tokenizer.id_to_token(end_id)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
        "padding_side": "right",
        "truncation_side": "right",
        "model_max_length": longest,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }


def logit_difference(
    checkpoint_folder: str | Path, tokenizer_json: str | Path, folder: Path, *, is_classifier: bool
) -> float:
    """The largest difference between logits of the checkpoint and of the released folder, both read afresh.

    The probes are token ids drawn from a fixed seed, as long as the model's positions or `PROBE_TOKENS`.
    """
    source: Transformer
    written: Transformer
    if is_classifier:
        source, written = load_classifier(checkpoint_folder)[0], load_classifier(folder)[0]
    else:
        source, written = load_model(checkpoint_folder, tokenizer_json)[0], load_model(folder)[0]
    length = min(PROBE_TOKENS, source.config.max_positions)
    generator = torch.Generator().manual_seed(0)
    probes = torch.randint(source.vocabulary_size, (PROBES, length), generator=generator)
    with torch.no_grad():
        return float((_probe(source, probes) - _probe(written, probes)).abs().max())


def _probe(model: Transformer, probes: Tensor) -> Tensor:
    if isinstance(model, Classifier):
        return model.class_logits(probes, torch.tensor([max(1, probes.shape[1] - i) for i in range(len(probes))]))
    logits: Tensor = model(probes)
    return logits


def _starting_with_end(tokenizer: Tokenizer, end_id: int) -> str:
    """The tokeniser's JSON with the end token before every text."""
    changed = Tokenizer.from_str(tokenizer.to_str())
    end = changed.id_to_token(end_id)
    changed.post_processor = processors.TemplateProcessing(
        single=[end, "$A"], pair=[end, "$A", end, "$B"], special_tokens=[(end, end_id)]
    )
    return str(changed.to_str(pretty=True))


# --------------------------------------------------------------------------------------------------- the model card


def model_card(
    metadata: Mapping[str, Any],
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
    classes: tuple[str, ...] | None,
) -> str:
    """The README.md: what it is, how to load it, and where it came from, in Hugging Face's form of a model card."""
    name = str(metadata.get("name") or "Gristmill model")
    header = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation" if classes is None else "text-classification",
        **({"license": metadata["license"]} if metadata.get("license") else {}),
    }
    lines = ["---", *(f"{key}: {value}" for key, value in header.items()), "---", "", f"# {name}", ""]
    if metadata.get("summary"):
        lines += [str(metadata["summary"]), ""]
    auto = "AutoModelForCausalLM" if classes is None else "AutoModelForSequenceClassification"
    if classes is None:
        note = "Documents began with the end-of-text token in training: put it before a prompt."
    else:
        note = (
            f"It tells {len(classes)} classes apart: {', '.join(classes)}. Its tokeniser begins texts as in training."
        )
    lines += [
        f"A {'language model' if classes is None else 'text classifier'} of {facts['parameters']:,} parameters in the "
        f"layout of {facts['architecture']}, trained with Gristmill. {note}",
        "",
        "```python",
        f"from transformers import {auto}, AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("this-folder")',
        f'model = {auto}.from_pretrained("this-folder")',
        "```",
        "",
    ]
    shape = {
        key: settings[key] for key in ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads")
    }
    shape |= {key: settings[key] for key in ("intermediate_size", "vocab_size", "max_position_embeddings")}
    sections: dict[str, Mapping[str, Any]] = {"shape": {**shape, "tensor_digest": facts["tensor_digest"]}}
    sections |= {key: value for key, value in metadata.items() if isinstance(value, Mapping)}
    for title, values in sections.items():
        lines += [f"## {title.replace('_', ' ').capitalize()}", "", "| | |", "|---|---|"]
        lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in _flat(values)]
        lines.append("")
    return "\n".join(lines)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as rows: {"a": {"b": 1}} is ("a.b", 1)."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return rows


def _cell(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    if isinstance(value, float):
        text = f"{value:.4f}"
    return text.replace("|", "\\|").replace("\n", " ")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _inventory(folder: Path) -> dict[str, dict[str, Any]]:
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            files[path.name] = {"bytes": path.stat().st_size, "digest": digest_stream(stream)}
    return files
