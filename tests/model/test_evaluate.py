"""Evaluation: every token scored once, whatever the windows and batches, and equal to a naive loop."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.evaluate import (
    Documents,
    Score,
    document_losses,
    evaluate,
    evaluate_set,
    parse_job,
    read_documents,
    windows,
)
from model.finetune_config import EvaluateConfig
from model.generate import end_token_id
from model.transformer import Transformer
from tests.model.tiny import TEXTS, tiny_model, tiny_tokenizer, write_checkpoint

torch.set_num_threads(1)


@given(st.integers(0, 200), st.integers(1, 50), st.data())
def test_windows_score_every_token_once(tokens: int, length: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, length))
    scored: list[int] = []
    for window in windows(0, tokens, length, stride):
        assert 1 <= window.length <= length
        assert window.start < window.scored < window.stop
        scored += range(window.scored, window.stop)
    assert scored == list(range(1, tokens + 1))


def naive_loss(model: Transformer, tokens: list[int], context: int, length: int, stride: int) -> float:
    """One forward pass a token: its context begins where the last window that may score it begins."""
    sequence, total, start = [context, *tokens], 0.0, 0
    for target in range(1, len(sequence)):
        while target > start + length:
            start += stride
        with torch.no_grad():
            logits = model(torch.tensor([sequence[start:target]]))[0, -1]
        total -= float(logits.log_softmax(dim=0)[sequence[target]])
    return total


@pytest.mark.parametrize(("length", "stride"), [(32, 16), (8, 3), (5, 5), (7, 1)])
def test_losses_equal_a_naive_loop_token_by_token(length: int, stride: int) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    documents = [tokenizer.encode(text).ids for text in (*TEXTS, " ".join(TEXTS), "", "a")]
    expected = [naive_loss(model, ids, 0, length, stride) for ids in documents]
    for batch_tokens in (1, 40, 4096):
        losses = document_losses(model, documents, context=0, length=length, stride=stride, batch_tokens=batch_tokens)
        assert losses == pytest.approx(expected, rel=1e-5, abs=1e-6)


def write_set(path: Path, texts: list[str], **columns: object) -> None:
    ids = pa.array([hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts], pa.binary(16))
    table: dict[str, object] = {"id": ids, "text": pa.array(texts, pa.large_string())} | columns
    pq.write_table(pa.table(table), path)


def test_bits_per_byte_depends_neither_on_batching_nor_on_the_order_of_files(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    write_set(tmp_path / "all.parquet", list(TEXTS))
    write_set(tmp_path / "one.parquet", list(TEXTS[2:]))
    write_set(tmp_path / "two.parquet", list(TEXTS[:2]))
    end = end_token_id(tokenizer)
    results = []
    for paths, batch_tokens in ((["all.parquet"], 4096), (["one.parquet", "two.parquet"], 64), (["all.parquet"], 1)):
        documents = read_documents([str(tmp_path / path) for path in paths], tokenizer, end, 0)
        results.append(evaluate_set(model, documents, EvaluateConfig(), context=end, batch_tokens=batch_tokens))
    for result in results:
        assert result["documents"] == 4
        assert result["bytes"] == sum(len(text.encode()) for text in TEXTS)
        assert result["bits_per_byte"] == pytest.approx(results[0]["bits_per_byte"], rel=1e-6)
        bits = result["loss"] * result["tokens"] / math.log(2)
        assert result["bits_per_byte"] == pytest.approx(bits / result["bytes"])
        assert result["perplexity"] == pytest.approx(math.exp(result["loss"]))


def test_a_model_that_knows_nothing_needs_eight_bits_a_byte() -> None:
    tokenizer = tiny_tokenizer(257)  # bytes and the end token: nothing merged
    model = tiny_model(tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    documents = Documents([tokenizer.encode(text).ids for text in TEXTS], [len(t.encode()) for t in TEXTS], [None] * 4)
    result = evaluate_set(model, documents, EvaluateConfig(), context=0)
    assert result["bits_per_byte"] == pytest.approx(math.log2(257), rel=1e-5)
    assert result["tokens"] == result["bytes"]


def test_sources_add_up_to_the_set(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    write_set(tmp_path / "set.parquet", list(TEXTS), source=pa.array(["b", "a", "b", "a"]))
    documents = read_documents([str(tmp_path / "set.parquet")], tokenizer, 0, 0)
    result = evaluate_set(model, documents, EvaluateConfig(), context=0)
    assert list(result["sources"]) == ["a", "b"]
    for count in ("documents", "tokens", "bytes"):
        assert result[count] == sum(source[count] for source in result["sources"].values())


def test_token_shards_score_as_the_texts_they_were_made_of(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    end = end_token_id(tokenizer)
    write_set(tmp_path / "texts.parquet", list(TEXTS))
    table = pq.read_table(tmp_path / "texts.parquet")
    tokens = pa.array([[*tokenizer.encode(text).ids, end] for text in TEXTS], pa.large_list(pa.uint16()))
    shard = pa.table({"id": table["id"], "tokens": tokens})
    pq.write_table(shard, tmp_path / "shard.parquet")
    with pa.ipc.new_file(str(tmp_path / "shard.arrow"), shard.schema) as writer:
        writer.write_table(shard)
    read = [
        read_documents([str(tmp_path / name)], tokenizer, end, 3)
        for name in ("texts.parquet", "shard.parquet", "shard.arrow")
    ]
    assert read[0] == read[1] == read[2]
    assert len(read[0].tokens) == 3


def test_what_cannot_be_scored_is_refused_by_name(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    with pytest.raises(ValueError, match=r"stride \(9\) <= sequence_length \(8\)"):
        document_losses(model, [[1]], context=0, length=8, stride=9)
    with pytest.raises(ValueError, match="causal models only"):
        document_losses(tiny_model(tokenizer, causal=False), [[1]], context=0, length=8, stride=8)
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "no-id.parquet")
    with pytest.raises(ValueError, match=r"no-id.parquet: .*column 'id'"):
        read_documents([str(tmp_path / "no-id.parquet")], tokenizer, 0, 0)
    with pytest.raises(ValueError, match=r"set.csv: .*\.parquet or \.arrow"):
        read_documents([str(tmp_path / "set.csv")], tokenizer, 0, 0)


def test_a_job_scores_its_sets_and_writes_its_samples(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    output = write_checkpoint(tmp_path / "pretrain", tiny_model(tokenizer), tokenizer)
    write_set(tmp_path / "set.parquet", list(TEXTS), source=pa.array(["b", "a", "b", "a"]))
    values = {
        "task": "evaluate",
        "checkpoint": str(output),
        "tokenizer": str(output / "tokenizer.json"),
        "sets": {"held-out": str(tmp_path / "set.parquet"), "none": []},
        "generate": {"prompts": ["The quick", ""], "max_tokens": 5},
        "resources": {"threads": 1, "device": "cpu"},
        "output": str(tmp_path / "one"),
        "attempt": "one",
    }
    result = evaluate(parse_job(values))
    assert result["sets"]["held-out"]["documents"] == 4
    assert result["sets"]["none"]["perplexity"] is None
    assert [sample["prompt"] for sample in result["samples"]] == ["The quick", ""]
    evaluate(parse_job({**values, "output": str(tmp_path / "two"), "attempt": "two"}))
    assert (tmp_path / "one" / "final.json").read_bytes() == (tmp_path / "two" / "final.json").read_bytes()
    with pytest.raises(ValueError, match="unknown field window"):
        parse_job({**values, "evaluate": {"window": 3}})


def test_an_empty_set_has_no_rates() -> None:
    report = Score().report()
    assert report["documents"] == 0
    assert report["loss"] is report["perplexity"] is report["bits_per_byte"] is None
