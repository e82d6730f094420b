"""Tokenisers and token rows: the same every time, exact both ways, and special tokens never come out of text."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from corpus.config import TokenizerConfig
from corpus.encoding.encoder import Encoder
from corpus.texts import document_id
from corpus.tokenizer import (
    TokenizerError,
    as_plain_text,
    end_token_id,
    gives_texts_back,
    parse_tokenizer,
    sample_mask,
    sample_shares,
    train_tokenizer,
    vocabulary_size,
)
from corpus.tokenizer_report import tokenizer_report
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


def batch(texts: list[str], source: str = "web", language: str | None = None) -> pa.Table:
    """What the report reads."""
    languages = pa.array([language] * len(texts), pa.string())
    return pa.table({"text": strings(texts), "source": [source] * len(texts), "language": languages})


def ids(texts: list[str]) -> pa.Array:
    return pa.array([document_id(text) for text in texts], pa.binary(16))


def test_special_tokens_come_first_then_all_bytes(tokenizer: Tokenizer) -> None:
    assert end_token_id(tokenizer, "<|endoftext|>") == 0
    assert 257 <= vocabulary_size(tokenizer) <= 600
    every_byte = bytes(range(256)).decode("latin-1")
    assert tokenizer.decode(tokenizer.encode(every_byte, add_special_tokens=False).ids) == every_byte


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_training_depends_on_the_texts_not_on_their_order_or_threads(shared_data: Path, kind: str) -> None:
    path = shared_data / "text" / "c4_en_300.jsonl.gz"
    code = (
        "import gzip, json, random, sys, hashlib\n"
        "from corpus.config import TokenizerConfig\n"
        "from corpus.tokenizer import train_tokenizer\n"
        "texts = [json.loads(line)['text'] for line in gzip.open(sys.argv[1], 'rt', encoding='utf-8')]\n"
        "random.Random(sys.argv[2]).shuffle(texts)\n"
        "made = train_tokenizer(texts, TokenizerConfig(kind=sys.argv[3], vocabulary_size=2000)).to_str()\n"
        "print(hashlib.sha256(made.encode()).hexdigest())\n"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code, str(path), seed, kind],
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
    table = encode_documents(
        Encoder(tokenizer), ids([text]), strings([text]), 0, token_type(vocabulary_size(tokenizer))
    )
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
    table = encode_documents(Encoder(tokenizer), ids(texts).slice(begin), strings(texts).slice(begin), end, dtype)
    assert table.schema == token_schema(dtype)
    table.validate(full=True)
    expected = [tokenizer.encode(text, add_special_tokens=False).ids + ([] if end is None else [end]) for text in texts]
    assert table["tokens"].to_pylist() == expected[begin:]
    assert table["id"].to_pylist() == [document_id(text) for text in texts][begin:]


def test_many_and_long_texts_go_through_in_several_calls(tokenizer: Tokenizer) -> None:
    texts = [f"text {number} " * (300_000 if number == 7 else 3) for number in range(5000)]
    dtype = token_type(vocabulary_size(tokenizer))
    table = encode_documents(Encoder(tokenizer), ids(texts), pa.chunked_array([strings(texts)]), 0, dtype)
    assert table.num_rows == 5000
    for row in (0, 6, 7, 8, 4999):
        assert tokenizer.decode(table["tokens"][row].as_py()[:-1]) == texts[row]


def test_the_type_of_tokens_is_the_smallest_that_holds_the_vocabulary(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="uint16, not uint32"):
        encode_documents(Encoder(tokenizer), ids(["a"]), strings(["a"]), 0, pa.uint32())
    with pytest.raises(TokenizerError, match="end token 600"):
        encode_documents(Encoder(tokenizer), ids(["a"]), strings(["a"]), 600, pa.uint16())
    assert token_type(65_536) == pa.uint16()
    assert token_type(65_537) == pa.uint32()
    large = as_plain_text(Tokenizer(models.WordLevel({f"w{number}": number for number in range(65_536)}, "w0")))
    assert vocabulary_size(large) == 65_536
    large.add_special_tokens(["<|endoftext|>"])
    table = encode_documents(Encoder(large), ids(["w9"]), strings(["w9"]), 65_536, pa.uint32())
    assert table["tokens"].to_pylist() == [[9, 65_536]]


def test_a_given_tokenizer_is_checked_and_freed_of_its_habits(tokenizer: Tokenizer, tmp_path: Path) -> None:
    given_file = tmp_path / "tokenizer.json"
    habits = Tokenizer.from_str(tokenizer.to_str())
    habits.enable_truncation(3)
    habits.enable_padding(length=10)
    habits.save(str(given_file))
    with pytest.raises(TokenizerError, match="truncates"):
        encode_documents(Encoder(habits), ids(["a"]), strings(["a"]), 0, pa.uint16())
    loaded = parse_tokenizer(given_file.read_bytes(), str(given_file))
    text = SENTENCES[0] + "<|endoftext|>"
    dtype = pa.uint16()
    assert encode_documents(Encoder(loaded), ids([text]), strings([text]), 0, dtype) == encode_documents(
        Encoder(tokenizer), ids([text]), strings([text]), 0, dtype
    )
    with pytest.raises(TokenizerError, match=r"no token '</s>'; added tokens: <\|endoftext\|>"):
        end_token_id(loaded, "</s>")
    with pytest.raises(TokenizerError, match=r"mine is not a tokenizer\.json"):
        parse_tokenizer(b"{}", "mine")


def test_the_report_counts_what_it_says(tokenizer: Tokenizer) -> None:
    parts = [batch(SENTENCES[:60], "web", "en"), batch(SENTENCES[60:90], "news"), batch(SENTENCES[90:], "news", "en")]
    report = tokenizer_report(Encoder(tokenizer), parts)
    tokens = [tokenizer.encode(text, add_special_tokens=False).ids for text in SENTENCES]
    sizes = [len(text.encode()) for text in SENTENCES]
    used = {token for row in tokens for token in row}
    assert report["documents"] == 120
    assert report["bytes"] == sum(sizes)
    assert report["tokens"] == sum(map(len, tokens))
    assert report["bytes_per_token"] == pytest.approx(report["bytes"] / report["tokens"], abs=1e-4)
    web = {"documents": 60, "bytes": sum(sizes[:60]), "tokens": sum(map(len, tokens[:60]))}
    assert web.items() <= report["sources"]["web"].items()
    assert report["sources"].keys() == {"web", "news"}
    assert {name: own["documents"] for name, own in report["languages"].items()} == {"en": 90, "?": 30}
    for of in (report["sources"], report["languages"]):
        for name in ("documents", "bytes", "tokens"):
            assert sum(own[name] for own in of.values()) == report[name]
    assert report["vocabulary_used"] == len(used)
    assert report["unused"] == vocabulary_size(tokenizer) - len(used) - 1  # the end token is no token of the model
    assert len(report["unused_tokens"]) == min(200, report["unused"])
    assert report["round_trip_failures"] == 0
    assert report["dtype"] == "uint16"
    assert len(report["longest_tokens"]) == 20
    longest = report["longest_tokens"][0]
    assert longest["count"] == sum(row.count(tokenizer.encode(longest["token"]).ids[0]) for row in tokens)
    json.dumps(report)


def test_an_empty_report_is_one() -> None:
    report = tokenizer_report(Encoder(train_tokenizer(SENTENCES, CONFIG)), [])
    assert (report["documents"], report["tokens"], report["bytes_per_token"]) == (0, 0, None)


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "qwen2", "o200k"])
def test_patterns_are_trained_and_known_to_the_compiled_encoder(pattern: Any) -> None:
    made = train_tokenizer(SENTENCES, replace(CONFIG, pattern=pattern))
    assert Encoder(made).pattern == pattern
    assert gives_texts_back(made)
    assert tokenizer_report(Encoder(made), [batch(SENTENCES)])["round_trip_failures"] == 0


def test_a_unigram_model_is_of_bytes_and_gives_texts_back() -> None:
    made = train_tokenizer(SENTENCES, replace(CONFIG, kind="unigram", vocabulary_size=400))
    assert 257 <= vocabulary_size(made) <= 400
    assert end_token_id(made, "<|endoftext|>") == 0
    assert gives_texts_back(made)
    report = tokenizer_report(Encoder(made), [batch([*SENTENCES, "unseen ☃ ߷"])])
    assert report["round_trip_failures"] == 0
    assert report["tokens"] < report["bytes"]


def test_word_pieces_know_what_they_cannot_write() -> None:
    config = replace(CONFIG, kind="wordpiece", lowercase=True, vocabulary_size=400)
    made = train_tokenizer(SENTENCES, config)
    assert not gives_texts_back(made)
    assert made.encode("THE Fox!", add_special_tokens=False).tokens[0] == "the"
    assert made.encode("the ☃", add_special_tokens=False).tokens[-1] == "[UNK]"
    report = tokenizer_report(Encoder(made), [batch(SENTENCES)])
    assert report["round_trip_failures"] > 0
    assert report["round_trip_example"] in SENTENCES
    assert vocabulary_size(made) <= 400
    assert end_token_id(made, "<|endoftext|>") == 0
    with pytest.raises(TokenizerError, match="vocabulary_size: 257 is too small"):
        train_tokenizer(["".join(map(chr, range(0x4E00, 0x4F00)))], replace(config, vocabulary_size=257))


def test_unlearned_bytes_of_a_unigram_model_stand_in_their_order() -> None:
    made = train_tokenizer(SENTENCES, replace(CONFIG, kind="unigram", vocabulary_size=400))
    vocabulary = json.loads(made.to_str())["model"]["vocab"]
    assert [piece for piece, _ in vocabulary[:1]] == ["<|endoftext|>"]
    scores = [score for _, score in vocabulary[1:]]
    assert scores == sorted(scores, reverse=True)
    lowest = min(scores)
    unlearned = [piece for piece, score in vocabulary[1:] if len(piece) == 1 and score < lowest + 0.0256]
    assert len(unlearned) > 100
    assert unlearned == sorted(unlearned, reverse=True)  # the last of them have the lowest scores and the last ids


def test_word_pieces_do_not_depend_on_order_or_threads(shared_data: Path) -> None:
    path = shared_data / "text" / "c4_en_300.jsonl.gz"
    code = (
        "import gzip, json, random, sys, hashlib\n"
        "from corpus.config import TokenizerConfig\n"
        "from corpus.tokenizer import train_tokenizer\n"
        "texts = [json.loads(line)['text'] for line in gzip.open(sys.argv[1], 'rt', encoding='utf-8')]\n"
        "random.Random(sys.argv[2]).shuffle(texts)\n"
        "made = train_tokenizer(texts, TokenizerConfig(kind='wordpiece', vocabulary_size=1500)).to_str()\n"
        "print(hashlib.sha256(made.encode()).hexdigest())\n"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code, str(path), threads],
            env={**os.environ, "TOKENIZERS_PARALLELISM": parallel, "RAYON_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for parallel, threads in (("true", "2"), ("false", "1"), ("true", "3"))
    }
    assert len(made) == 1


def test_shares_of_a_sample_follow_the_weights_until_a_source_is_used_up() -> None:
    sizes = {"web": 1000, "books": 100, "none": 0}
    assert sample_shares(sizes, {}, 110) == pytest.approx({"web": 0.1, "books": 0.1, "none": 0})
    weighted = sample_shares(sizes, {"books": 5}, 150)
    assert weighted == pytest.approx({"web": 0.1, "books": 0.5, "none": 0})
    used_up = sample_shares(sizes, {"books": 50}, 600)
    assert used_up == pytest.approx({"web": 0.5, "books": 1, "none": 0})
    assert sample_shares(sizes, {"web": 0}, 600) == pytest.approx({"web": 0, "books": 1, "none": 0})
    assert sample_shares(sizes, {}, 10_000) == pytest.approx({"web": 1, "books": 1, "none": 0})


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
    assert tokenizer_report(Encoder(tokenizer), [batch(texts + naughty)])["round_trip_failures"] == 0
