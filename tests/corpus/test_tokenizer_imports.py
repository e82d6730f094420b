"""Tokenisers that others made give the ids that their own libraries give; what cannot be converted is refused."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tokenizers import AddedToken, Tokenizer

from corpus.config import TokenizerConfig
from corpus.encoding.encoder import Encoder
from corpus.encoding.patterns import PATTERNS
from corpus.tokenizer import TokenizerError, gives_texts_back, train_tokenizer
from corpus.tokenizer_imports import Imported, check_template, from_sentencepiece, from_tiktoken, import_tokenizer
from tests.corpus.test_encoding import MIXED, library_ids

LANGUAGES = "xquad_paragraphs_12_languages.jsonl.gz"


@pytest.fixture(scope="module")
def paragraphs(shared_data: Path) -> list[str]:
    with gzip.open(shared_data / "langid" / LANGUAGES, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    return random.Random(1).sample(texts, 300)


@pytest.fixture(scope="module")
def naughty(shared_data: Path) -> list[str]:
    found: list[str] = json.loads((shared_data / "encoding" / "blns.json").read_text(encoding="utf-8"))
    return [text for text in found if text]


def taken(kind: str, files: dict[str, bytes], **settings: Any) -> Imported:
    return import_tokenizer(TokenizerConfig(kind=kind, path="given", **settings), files)  # type: ignore[arg-type]


def tiktoken_file(tokenizer: Tokenizer) -> tuple[bytes, dict[bytes, int]]:
    """The vocabulary of a trained tokeniser as tiktoken has it: the ranks begin at 0, special tokens are left out."""
    from corpus.encoding.encoder import byte_alphabet

    value = {character: byte for byte, character in enumerate(byte_alphabet())}
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    tokens = sorted((number, token) for token, number in vocabulary.items() if "<|" not in token)
    ranks = {bytes(value[character] for character in token): rank for rank, (_, token) in enumerate(tokens)}
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()]
    return "".join(lines).encode(), ranks


@pytest.mark.parametrize("pattern", list(PATTERNS))
def test_a_tiktoken_file_gives_the_ids_of_tiktoken(pattern: Any, paragraphs: list[str], naughty: list[str]) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    data, ranks = tiktoken_file(train_tokenizer(paragraphs, TokenizerConfig(vocabulary_size=3000, pattern=pattern)))
    own = tiktoken.Encoding("own", pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={})
    tokenizer = taken("tiktoken", {"x.tiktoken": data}, pattern=pattern).tokenizer
    assert tokenizer.token_to_id("<|endoftext|>") == len(ranks)
    assert gives_texts_back(tokenizer)
    encoder = Encoder(tokenizer)
    assert encoder.pattern == pattern
    texts = [*paragraphs, *naughty, *MIXED]
    encoded = encoder.encode(pa.array(texts, pa.large_string()), None, "uint32")
    for row, (text, wanted) in enumerate(zip(texts, own.encode_ordinary_batch(texts), strict=True)):
        assert encoded.tokens[encoded.offsets[row] : encoded.offsets[row + 1]].tolist() == wanted, text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"YQ== 0\nnonsense\n", "line 2: not a token"),
        (b"YQ== one\n", "line 1: not a token"),
        (b"YQ== 0\n", "255 of the 256 bytes"),
        (b"".join(base64.b64encode(bytes([byte])) + b" 7\n" for byte in range(256)), "the same rank"),
    ],
)
def test_damaged_tiktoken_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(TokenizerError, match=f"mine.*{message}"):
        from_tiktoken(data, "mine", "gpt2", ("<|endoftext|>",))


SENTENCEPIECE = [
    {"model_type": "unigram"},
    {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "identity"},
    {"model_type": "unigram", "user_defined_symbols": ["<sep>", "@@"], "remove_extra_whitespaces": False,
     "add_dummy_prefix": False},
    {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
     "remove_extra_whitespaces": False},
    {"model_type": "bpe", "add_dummy_prefix": False},
    {"model_type": "unigram", "remove_extra_whitespaces": False},
]  # fmt: skip


def sentencepiece_model(texts: list[str], **settings: Any) -> bytes:
    sentencepiece = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in texts for line in text.split("\n") if line]),
        model_writer=written, vocab_size=4000, character_coverage=0.999, minloglevel=2, num_threads=2, **settings,
    )  # fmt: skip
    return written.getvalue()


@pytest.mark.parametrize("settings", SENTENCEPIECE, ids=lambda settings: " ".join(map(str, settings.values())))
def test_a_sentencepiece_model_gives_the_ids_of_sentencepiece(
    settings: dict[str, Any], paragraphs: list[str], naughty: list[str]
) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    data = sentencepiece_model(paragraphs, **settings)
    own = sentencepiece.SentencePieceProcessor(model_proto=data)
    tokenizer = taken("sentencepiece", {"x.model": data}, end_of_text="</s>").tokenizer
    assert tokenizer.token_to_id("</s>") == own.eos_id()
    texts = [*paragraphs, *naughty, *MIXED, "two  spaces   and more ", "  before", "a<sep>b @@c", "\n\nlines\n"]
    ties = 0
    for text, found in zip(texts, library_ids(tokenizer, texts), strict=True):
        wanted = own.encode(text)
        if not found:  # of characters that normalising removes
            assert wanted in ([], [own.piece_to_id("▁")])
        elif found != wanted:  # two ways of cutting with the same score: only sums of floats have that
            assert settings["model_type"] == "unigram", text
            scores = [sum(own.get_score(token) for token in tokens) for tokens in (found, wanted)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-3), text
            ties += 1
    assert ties <= len(texts) // 100


def test_user_defined_symbols_are_converted_only_where_spaces_stay_as_they_are(paragraphs: list[str]) -> None:
    data = sentencepiece_model(paragraphs, model_type="bpe", user_defined_symbols=["<sep>"])
    with pytest.raises(TokenizerError, match="mine: user-defined symbols \\('<sep>'\\)"):
        from_sentencepiece(data, "mine")


def test_what_is_no_sentencepiece_model_is_refused() -> None:
    pytest.importorskip("sentencepiece")
    for data in (b"not a model", b"", b"\xff" * 100):
        with pytest.raises(TokenizerError, match="mine is not a SentencePiece model"):
            from_sentencepiece(data, "mine")


def test_words_cannot_be_converted(paragraphs: list[str]) -> None:
    data = sentencepiece_model(paragraphs, model_type="word")
    with pytest.raises(TokenizerError, match="mine: SentencePiece models of words"):
        from_sentencepiece(data, "mine")


def test_a_folder_gives_its_tokenizer_and_its_template(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    made = train_tokenizer(MIXED, TokenizerConfig(vocabulary_size=500))
    made.add_special_tokens([AddedToken("<|im_end|>", special=True, normalized=False)])
    template = "{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}"
    saved = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", chat_template=template)
    saved.save_pretrained(tmp_path)
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    found = taken("folder", files, end_of_text="<|im_end|>")
    assert found.chat_template == template
    assert library_ids(found.tokenizer, MIXED) == library_ids(made, MIXED)


def test_a_folder_with_the_template_in_its_settings() -> None:
    made = train_tokenizer(MIXED, TokenizerConfig(vocabulary_size=500)).to_str().encode()
    for given, wanted in (
        ("{{ messages }}", "{{ messages }}"),
        ([{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}], "d"),
        (None, ""),
    ):
        settings = json.dumps({"chat_template": given}).encode()
        assert taken("folder", {"tokenizer.json": made, "tokenizer_config.json": settings}).chat_template == wanted
    with pytest.raises(TokenizerError, match=r"given/tokenizer_config\.json is not JSON"):
        taken("folder", {"tokenizer.json": made, "tokenizer_config.json": b"{"})


def test_a_folder_of_vocabulary_and_merges() -> None:
    made = train_tokenizer(MIXED, TokenizerConfig(vocabulary_size=500))
    model = json.loads(made.to_str())["model"]
    merges = "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"])
    files = {"vocab.json": json.dumps(model["vocab"]).encode(), "merges.txt": merges.encode()}
    found = taken("folder", files).tokenizer
    assert library_ids(found, [*MIXED, "<|endoftext|>"]) == library_ids(made, [*MIXED, "<|endoftext|>"])
    with pytest.raises(TokenizerError, match=r"given/merges\.txt, line 2: not two tokens: 'a'"):
        taken("folder", {**files, "merges.txt": b"#version: 0.2\na\n"})
    with pytest.raises(TokenizerError, match=r"given holds no tokenizer\.json.*there are: vocab\.json"):
        taken("folder", {"vocab.json": b"{}"})
    with pytest.raises(TokenizerError, match="are no BPE"):
        taken("folder", {**files, "merges.txt": "猫 犬".encode()})


def test_templates_are_read_before_anything_is_done() -> None:
    check_template("{% for m in messages %}{% generation %}{{ m }}{% endgeneration %}{% break %}{% endfor %}", "mine")
    with pytest.raises(TokenizerError, match="mine, line 2: not a Jinja template"):
        check_template("{{ messages }}\n{% for %}", "mine")
