"""Tokenisers and token rows: the same every time, exact both ways, and special tokens never come out of text."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from corpus.config import TokenizerConfig
from corpus.texts import document_id
from corpus.tokenizer import (
    TokenizerError,
    as_plain_text,
    end_token_id,
    parse_tokenizer,
    sample_mask,
    tokenizer_report,
    train_tokenizer,
    vocabulary_size,
)
from corpus.tokens import encode_documents
from storage.schemas import token_schema, token_type

CONFIG = TokenizerConfig(vocabulary_size=600)
SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Zürich — “quoted” 中文 😀",
    "x = [1, 2, 3]\n\tprint(x)",
] * 40


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(SENTENCES, CONFIG)


def strings(texts: list[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def ids(texts: list[str]) -> pa.Array:
    return pa.array([document_id(text) for text in texts], pa.binary(16))


def test_special_tokens_come_first_then_all_bytes(tokenizer: Tokenizer) -> None:
    assert end_token_id(tokenizer, "<|endoftext|>") == 0
    assert 257 <= vocabulary_size(tokenizer) <= 600
    every_byte = bytes(range(256)).decode("latin-1")
    assert tokenizer.decode(tokenizer.encode(every_byte, add_special_tokens=False).ids) == every_byte


def test_training_depends_on_the_texts_not_on_their_order_or_threads(shared_data: Path) -> None:
    path = shared_data / "text" / "c4_en_300.jsonl.gz"
    code = (
        "import gzip, json, random, sys, hashlib\n"
        "from corpus.config import TokenizerConfig\n"
        "from corpus.tokenizer import train_tokenizer\n"
        "texts = [json.loads(line)['text'] for line in gzip.open(sys.argv[1], 'rt', encoding='utf-8')]\n"
        "random.Random(sys.argv[2]).shuffle(texts)\n"
        "made = train_tokenizer(texts, TokenizerConfig(vocabulary_size=2000)).to_str()\n"
        "print(hashlib.sha256(made.encode()).hexdigest())\n"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code, str(path), seed],
            env={**os.environ, "TOKENIZERS_PARALLELISM": parallel, "RAYON_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, parallel, threads in (("1", "true", "2"), ("2", "false", "1"), ("3", "true", "3"))
    }
    assert len(made) == 1


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=80))
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


def test_a_special_token_written_in_a_text_is_text(tokenizer: Tokenizer) -> None:
    text = "before<|endoftext|>after"
    table = encode_documents(tokenizer, ids([text]), strings([text]), 0, token_type(vocabulary_size(tokenizer)))
    tokens = table["tokens"].to_pylist()[0]
    assert tokens[-1] == 0
    assert 0 not in tokens[:-1]
    assert tokenizer.decode(tokens[:-1]) == text


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=40), max_size=12),
    end=st.sampled_from([None, 0]),
    begin=st.integers(0, 3),
)
def test_rows_are_what_encoding_each_text_gives(
    tokenizer: Tokenizer, texts: list[str], end: int | None, begin: int
) -> None:
    dtype = token_type(vocabulary_size(tokenizer))
    table = encode_documents(tokenizer, ids(texts).slice(begin), strings(texts).slice(begin), end, dtype)
    assert table.schema == token_schema(dtype)
    table.validate(full=True)
    expected = [tokenizer.encode(text, add_special_tokens=False).ids + ([] if end is None else [end]) for text in texts]
    assert table["tokens"].to_pylist() == expected[begin:]
    assert table["id"].to_pylist() == [document_id(text) for text in texts][begin:]


def test_many_and_long_texts_go_through_in_several_calls(tokenizer: Tokenizer) -> None:
    texts = [f"text {number} " * (300_000 if number == 7 else 3) for number in range(5000)]
    dtype = token_type(vocabulary_size(tokenizer))
    table = encode_documents(tokenizer, ids(texts), pa.chunked_array([strings(texts)]), 0, dtype)
    assert table.num_rows == 5000
    for row in (0, 6, 7, 8, 4999):
        assert tokenizer.decode(table["tokens"][row].as_py()[:-1]) == texts[row]


def test_the_type_of_tokens_is_the_smallest_that_holds_the_vocabulary(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="uint16, not uint32"):
        encode_documents(tokenizer, ids(["a"]), strings(["a"]), 0, pa.uint32())
    with pytest.raises(TokenizerError, match="end token 600"):
        encode_documents(tokenizer, ids(["a"]), strings(["a"]), 600, pa.uint16())
    assert token_type(65_536) == pa.uint16()
    assert token_type(65_537) == pa.uint32()
    large = as_plain_text(Tokenizer(models.WordLevel({f"w{number}": number for number in range(65_536)}, "w0")))
    assert vocabulary_size(large) == 65_536
    large.add_special_tokens(["<|endoftext|>"])
    table = encode_documents(large, ids(["w9"]), strings(["w9"]), 65_536, pa.uint32())
    assert table["tokens"].to_pylist() == [[9, 65_536]]


def test_a_given_tokenizer_is_checked_and_freed_of_its_habits(tokenizer: Tokenizer, tmp_path: Path) -> None:
    given_file = tmp_path / "tokenizer.json"
    habits = Tokenizer.from_str(tokenizer.to_str())
    habits.enable_truncation(3)
    habits.enable_padding(length=10)
    habits.save(str(given_file))
    with pytest.raises(TokenizerError, match="truncates"):
        encode_documents(habits, ids(["a"]), strings(["a"]), 0, pa.uint16())
    loaded = parse_tokenizer(given_file.read_bytes(), str(given_file))
    text = SENTENCES[0] + "<|endoftext|>"
    dtype = pa.uint16()
    assert encode_documents(loaded, ids([text]), strings([text]), 0, dtype) == encode_documents(
        tokenizer, ids([text]), strings([text]), 0, dtype
    )
    with pytest.raises(TokenizerError, match=r"no token '</s>'; added tokens: <\|endoftext\|>"):
        end_token_id(loaded, "</s>")
    with pytest.raises(TokenizerError, match=r"mine is not a tokenizer\.json"):
        parse_tokenizer(b"{}", "mine")


def test_the_report_counts_what_it_says(tokenizer: Tokenizer) -> None:
    report = tokenizer_report(tokenizer, SENTENCES)
    tokens = [tokenizer.encode(text, add_special_tokens=False).ids for text in SENTENCES]
    assert report["documents"] == 120
    assert report["bytes"] == sum(len(text.encode()) for text in SENTENCES)
    assert report["tokens"] == sum(map(len, tokens))
    assert report["vocabulary_used"] == len({token for row in tokens for token in row})
    assert report["bytes_per_token"] == pytest.approx(report["bytes"] / report["tokens"], abs=1e-4)
    assert report["round_trip_failures"] == 0
    assert report["dtype"] == "uint16"
    assert len(report["longest_tokens"]) == 20
    json.dumps(report)


def test_a_sample_is_chosen_by_id_alone() -> None:
    everything = ids([f"text {number}" for number in range(4000)])
    mask = sample_mask(everything, 0.25)
    assert 850 < mask.sum() < 1150
    assert not (mask & ~sample_mask(everything, 0.5)).any()
    order = np.array(random.Random(1).sample(range(4000), 4000))
    assert (sample_mask(everything.take(pa.array(order)), 0.25) == mask[order]).all()
    assert (sample_mask(everything.slice(100), 0.25) == mask[100:]).all()
    assert sample_mask(everything, 1.0).all()
    assert len(sample_mask(everything.slice(0, 0), 0.5)) == 0


def test_chinese_and_code_survive(shared_data: Path, tokenizer: Tokenizer) -> None:
    with gzip.open(shared_data / "text" / "zh_wikipedia_paragraphs_dev.txt.gz", "rt", encoding="utf-8") as lines:
        texts = [line for _, line in zip(range(50), lines, strict=False)]
    naughty = json.loads((shared_data / "encoding" / "blns.json").read_text())
    assert tokenizer_report(tokenizer, texts + naughty)["round_trip_failures"] == 0
