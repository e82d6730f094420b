"""A release is what `transformers` reads: same logits, same ids, same classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from model.classifier import Classifier, load_classifier
from model.config import ModelConfig
from model.finetune import finetune, parse_job
from model.generate import end_token_id, load_model, read_release
from model.release import ReleaseError, huggingface_config, release
from tests.model.test_finetune import labelled_file
from tests.model.tiny import END, TEXTS, tiny_model, tiny_tokenizer, write_checkpoint

torch.set_num_threads(1)

SHAPES = [
    {},
    {"tie_embeddings": False, "kv_heads": 4, "rope_theta": 50_000.0},
    {"qk_norm": True, "norm_epsilon": 1e-6},
    {"qk_norm": True, "tie_embeddings": False},
]
METADATA = {
    "name": "tiny",
    "license": "apache-2.0",
    "summary": "A model for tests.",
    "data": {"documents": "blake2b:00ff", "counts": {"read": 12345, "kept": 1000}},
    "scores": {"validation": {"bits_per_byte": 1.23456}},
}


@pytest.mark.parametrize("changes", SHAPES)
def test_transformers_reads_the_same_logits_and_ids(changes: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, **changes)
    output = write_checkpoint(tmp_path / "pretrain", model, tokenizer)
    report = release(output, output / "tokenizer.json", tmp_path / "release", METADATA)
    assert report["logit_difference"] == 0
    assert report["parameters"] == sum(parameter.numel() for parameter in model.parameters())

    loaded, notes = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "release", output_loading_info=True)
    assert not notes["missing_keys"]
    assert not notes["unexpected_keys"]
    assert type(loaded).__name__ == report["architecture"]
    tokens = torch.randint(model.vocabulary_size, (3, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(tokens).logits, model(tokens), rtol=1e-4, atol=1e-4)

    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "release")
    for text in (*TEXTS, "", f"a {END} written out", "  spaces\n\ttabs"):
        assert theirs(text)["input_ids"] == tokenizer.encode(text).ids
        assert theirs.decode(tokenizer.encode(text).ids) == text
    assert theirs.eos_token_id == theirs.bos_token_id == end_token_id(tokenizer)
    written = loaded.generate(tokens[:1, :4], max_new_tokens=3, do_sample=False)
    assert written.shape[1] <= 7


def test_our_own_loader_reads_a_release_back(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    output = write_checkpoint(tmp_path / "pretrain", model, tokenizer)
    release(output, output / "tokenizer.json", tmp_path / "release", {})
    loaded, read, config = load_model(tmp_path / "release")
    assert {**config.__dict__, "ffn_width": 0, "initial_std": 0} == {
        **model.config.__dict__,
        "ffn_width": 0,
        "initial_std": 0,
    }
    assert config.hidden_width == model.config.hidden_width
    assert read.encode(TEXTS[0]).ids == tokenizer.encode(TEXTS[0]).ids
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("qk_norm", [False, True])
def test_transformers_reads_the_same_classifier(qk_norm: bool, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, max_positions=64, qk_norm=qk_norm)
    output = write_checkpoint(tmp_path / "pretrain", model, tokenizer)
    job = {
        "task": "finetune",
        "checkpoint": str(output),
        "tokenizer": str(output / "tokenizer.json"),
        "train": labelled_file(tmp_path / "train.parquet", 60),
        "test": labelled_file(tmp_path / "test.parquet", 30, offset=500),
        "finetune": {"classes": 3, "max_length": 24, "steps": 10, "batch_size": 8},
        "resources": {"threads": 1, "device": "cpu"},
        "output": str(tmp_path / "finetune"),
        "attempt": "one",
    }
    result = finetune(parse_job(job))
    report = release(tmp_path / "finetune", output / "tokenizer.json", tmp_path / "release", METADATA)
    assert report["tensor_digest"] == result["tensor_digest"]

    classifier, classes = load_classifier(tmp_path / "release")
    name = report["architecture"]
    loaded, notes = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "release", output_loading_info=True
    )
    assert type(loaded).__name__ == name
    assert not notes["missing_keys"]
    assert not notes["unexpected_keys"]
    assert loaded.config.id2label == dict(enumerate(classes))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "release")
    texts = [*TEXTS, " ".join(TEXTS), "", "they purr"]
    batch = theirs(texts, padding=True, truncation=True, return_tensors="pt")
    assert batch["input_ids"].shape[1] == 24
    end = end_token_id(tokenizer)
    rows = [[end, *tokenizer.encode(text).ids[:23]] for text in texts]
    with torch.no_grad():
        logits = loaded.eval()(**batch).logits
        for row, ids in zip(logits, rows, strict=True):
            ours = classifier.class_logits(torch.tensor([ids]), torch.tensor([len(ids)]))
            torch.testing.assert_close(row, ours[0], rtol=1e-4, atol=1e-4)


def test_the_model_card_leads_back_to_the_data(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    output = write_checkpoint(tmp_path / "pretrain", tiny_model(tokenizer), tokenizer)
    report = release(output, output / "tokenizer.json", tmp_path / "release", METADATA)
    card = (tmp_path / "release" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    for text in ("license: apache-2.0", "# tiny", "| counts.read | 12,345 |", "1.2346", "blake2b:00ff"):
        assert text in card
    assert report["tensor_digest"] in card
    assert set(report["files"]) == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    original = (output / "tokenizer.json").read_bytes()
    assert (tmp_path / "release" / "tokenizer.json").read_bytes() == original


def test_the_same_checkpoint_gives_the_same_files(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    output = write_checkpoint(tmp_path / "pretrain", tiny_model(tokenizer), tokenizer)
    first, second = (release(output, output / "tokenizer.json", tmp_path / name, METADATA) for name in "ab")
    assert first == second


def test_a_release_whose_logits_differ_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_tokenizer()
    output = write_checkpoint(tmp_path / "pretrain", tiny_model(tokenizer), tokenizer)

    def damaged(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        key = "model.layers.0.self_attn.q_proj.weight"
        save_file({**tensors, key: tensors[key].flip(0).contiguous()}, path, metadata)  # names and shapes still fit

    monkeypatch.setattr("model.release.save_file", damaged)
    with pytest.raises(ReleaseError, match="differ by up to"):
        release(output, output / "tokenizer.json", tmp_path / "release", {})


def test_what_has_no_layout_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    output = write_checkpoint(tmp_path / "pretrain", tiny_model(tokenizer, causal=False), tokenizer)
    with pytest.raises(ReleaseError, match="no layout for a bidirectional model"):
        release(output, output / "tokenizer.json", tmp_path / "release", {})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        release(output, output / "tokenizer.json", tmp_path / "full", {})
    with pytest.raises(ValueError, match="holds no model"):
        release(tmp_path / "full", output / "tokenizer.json", tmp_path / "other", {})


def test_a_foreign_folder_that_we_cannot_express_is_refused(tmp_path: Path) -> None:
    values = huggingface_config(ModelConfig(), 300, end_id=0)
    for change, message in (
        ({"architectures": ["GPT2LMHeadModel"]}, "says GPT2LMHeadModel"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "scaled rotary positions"),
        ({"head_dim": 128}, "head_dim must be"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**values, **change}))
        with pytest.raises(ValueError, match=message):
            read_release(tmp_path, ("LlamaForCausalLM",))


def test_a_classifier_is_not_taken_for_a_language_model(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    output = write_checkpoint(tmp_path / "pretrain", tiny_model(tokenizer), tokenizer)
    with pytest.raises(ValueError, match="holds no classifier"):
        load_classifier(output)
    release(output, output / "tokenizer.json", tmp_path / "release", {})
    with pytest.raises(ValueError, match="wanted is LlamaForSequenceClassification"):
        load_classifier(tmp_path / "release")
    assert load_file(tmp_path / "release" / "model.safetensors")
    assert isinstance(Classifier(ModelConfig(), 300, 2), torch.nn.Module)
