"""The compiled encoder gives the ids of `tokenizers`, for every text: splitting, merging, tables, exceptions."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from corpus.encoding.automata import RULES, automaton, character_symbols
from corpus.encoding.characters import character_bits, probe
from corpus.encoding.encoder import ADDED_TOKEN, NORMALISED, Encoder
from corpus.encoding.kernels import LONG_KEY_BYTES, SHORT_MERGE, split
from corpus.encoding.patterns import PATTERNS

NAMES = tuple(PATTERNS)
# One of each kind that a pattern may tell from the others: letters of all categories, marks, numbers, white space,
# line ends, the rest, and the letters of contractions.
KINDS = "aAéÀǅʰ中\u03011²Ⅷ \t\n\r\u00a0\u3000!/'€😀ſ"
# Those that the longest memory of a pattern is about.
DEEP = {
    "gpt2": "a1 \n!'sre\u00a0",
    "cl100k": "A1 \t\n!'rE",
    "qwen2": "A1 \t\n!'rE",
    "o200k": "Aa中\u0301 \n!/'rE",
}


def texts_of(texts: list[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def pre_tokenizer(name: str, own: bool = False) -> Any:
    """What splits by a pattern in `tokenizers`; GPT-2's also as ByteLevel has it inside (`own`)."""
    if own:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    return pre_tokenizers.Split(Regex(PATTERNS[name]), "isolated")


def assert_splits(name: str, texts: list[str], own: bool = False) -> None:
    array = texts_of(texts)
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, np.int64)[: len(array) + 1]
    ends = split(np.frombuffer(data, np.uint8), bounds, (character_symbols(), *automaton(name)))
    splitter = pre_tokenizer(name, own)
    wanted, at = [], 0
    for text in texts:
        for piece, _ in splitter.pre_tokenize_str(text):
            at += len(piece) if own else len(piece.encode())  # ByteLevel: a character a byte
            wanted.append(at)
    if ends.tolist() != wanted:
        for text in texts:
            pieces = [piece for piece, _ in splitter.pre_tokenize_str(text)]
            found = split_text(name, text)
            assert own or found == pieces, f"{name}: {text!r} -> {found}, not {pieces}"
        raise AssertionError(name)


def split_text(name: str, text: str) -> list[str]:
    data = text.encode()
    ends = split(np.frombuffer(data, np.uint8), np.array([0, len(data)]), (character_symbols(), *automaton(name)))
    return [data[begin:end].decode() for begin, end in itertools.pairwise([0, *ends.tolist()])]


def test_the_kept_table_of_characters_is_what_the_engine_says() -> None:
    kept = json.loads((Path(__file__).parents[2] / "corpus" / "encoding" / "characters.json").read_text())
    assert kept["tokenizers"] == version("tokenizers"), "run python -m corpus.encoding.characters"
    assert np.array_equal(character_bits(), probe())


@pytest.mark.parametrize("name", NAMES)
def test_every_short_string_of_all_kinds_is_split_as_by_the_library(name: str) -> None:
    for length in (1, 2, 3):
        assert_splits(name, ["".join(kinds) for kinds in itertools.product(KINDS, repeat=length)])


@pytest.mark.parametrize("name", NAMES)
def test_every_string_of_the_kinds_that_are_remembered_is_split_as_by_the_library(name: str) -> None:
    strings = ["".join(kinds) for kinds in itertools.product(DEEP[name], repeat=5)]
    assert_splits(name, strings)
    if name == "gpt2":
        assert_splits(name, strings, own=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_code_point_is_split_as_by_the_library(name: str) -> None:
    # All that Unicode may have assigned, and a few of the private and empty planes, which are alike.
    points = [*range(0xD800), *range(0xE000, 0x34000), *range(0xE0000, 0xE0200), *range(0x34000, 0x110000, 499)]
    for context in ("a{0}'{0}1 {0}! {0}{0}\n{0}A", " {0}  {0}\t{0}a{0}'l{0}'{0}e"):
        assert_splits(name, [context.format(chr(point)) for point in points])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_text_is_split_as_by_the_library(name: str, data: st.DataObject) -> None:
    assert_splits(
        name,
        data.draw(st.lists(st.text(st.one_of(st.sampled_from(KINDS + "sdmtrevlSLE"), st.characters(codec="utf-8"))))),
    )


def trained(name: str, texts: list[str], size: int = 800, **model: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    steps = [pre_tokenizer(name), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        show_progress=False,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True
    return changed(tokenizer, **model)


def changed(tokenizer: Tokenizer, **model: Any) -> Tokenizer:
    """The same with other fields of the model."""
    description = json.loads(tokenizer.to_str())
    description["model"].update(model)
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.encode_special_tokens = True
    return tokenizer


def library_ids(tokenizer: Tokenizer, texts: list[str], end: int | None = None) -> list[list[int]]:
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids + ([] if end is None else [end]) for encoding in encodings]


def ids(encoder: Encoder, texts: list[str], end: int | None = None) -> list[list[int]]:
    encoded = encoder.encode(texts_of(texts), end, np.uint32)
    bounds = itertools.pairwise(encoded.offsets.tolist())
    return [encoded.tokens[begin:stop].tolist() for begin, stop in bounds]


def assert_same(encoder: Encoder, texts: list[str], end: int | None = None) -> None:
    assert encoder.pattern, encoder.reason
    found, wanted = ids(encoder, texts, end), library_ids(encoder.tokenizer, texts, end)
    for text, mine, theirs in zip(texts, found, wanted, strict=True):
        assert mine == theirs, text[:500]


MIXED = [
    "The quick brown fox's jumps; we'll see they've 12345 things!\n\n  x = [1, 2]\n\tprint(x)",
    "Zürich — “quoted” 中文的字符，我们的世界。世界上的人们都在说话 😀😀 👩‍👩‍👧",
    "Привет мир, как дела? Съешь ещё этих мягких французских булок",
    "नमस्ते दुनिया कैसे हो مرحبا بالعالم كيف حالك สวัสดีชาวโลก こんにちは世界 안녕하세요 세계",
] * 5


@pytest.fixture(scope="module", params=NAMES)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return Encoder(trained(request.param, MIXED))


def test_naughty_strings_and_real_text_in_twelve_languages(encoder: Encoder, shared_data: Path) -> None:
    naughty = json.loads((shared_data / "encoding" / "blns.json").read_text(encoding="utf-8"))
    file = shared_data / "langid" / "xquad_paragraphs_12_languages.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        paragraphs = [json.loads(line)["text"] for line in lines]
    texts = [text for text in naughty if text] + paragraphs + ["".join(naughty)]
    assert_same(encoder, texts, end=0)
    assert encoder.counts.library == {}


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(st.one_of(st.sampled_from(KINDS + "".join(MIXED)), st.characters(codec="utf-8")))))
def test_any_texts(encoder: Encoder, texts: list[str]) -> None:
    assert_same(encoder, [*texts, "".join(texts)])


def hostile_models() -> Iterator[tuple[str, Tokenizer]]:
    """Models that no training makes: merges in any order, tokens that begin and end inside of characters."""
    for seed in range(40):
        shuffled = random.Random(seed)
        alphabet = list("ab中字é😀")
        base = trained("gpt2", ["".join(shuffled.choices(alphabet, k=200)) for _ in range(3)], 300)
        model = json.loads(base.to_str())["model"]
        symbols = [pre_tokenizers.ByteLevel(False, use_regex=False).pre_tokenize_str(text)[0][0] for text in alphabet]
        tokens = sorted({character for symbol in symbols for character in symbol})
        vocabulary, merges = model["vocab"], []
        vocabulary = {token: number for token, number in vocabulary.items() if len(token) == 1 or "<" in token}
        for _ in range(60):
            left, right = shuffled.choices(tokens, k=2)
            if len(left + right) <= 8 and [left, right] not in merges:
                merges.append([left, right])
                if left + right not in vocabulary:
                    vocabulary[left + right] = 1000 + len(vocabulary)
                    tokens.append(left + right)
        if seed % 2:
            shuffled.shuffle(merges)
        yield f"seed {seed}", changed(base, vocab=vocabulary, merges=merges, ignore_merges=seed % 4 > 1)


@pytest.mark.parametrize(("name", "tokenizer"), list(hostile_models()))
def test_merges_in_any_order_and_across_characters(name: str, tokenizer: Tokenizer) -> None:
    chosen = random.Random(name)
    texts = ["".join(chosen.choices("ab中字é😀", k=chosen.randint(1, 40))) for _ in range(1500)]
    texts += ["".join(chosen.choices("ab中字é😀", k=SHORT_MERGE)) for _ in range(30)]
    assert_same(Encoder(tokenizer), texts)


@pytest.mark.parametrize("size", [1, 8, 9, 16, 17, 24, 25, LONG_KEY_BYTES, LONG_KEY_BYTES + 1, SHORT_MERGE, 50_000])
def test_pieces_of_all_lengths(encoder: Encoder, size: int) -> None:
    for text in (
        "a" * size,
        " " * size,
        "quickly"[: size % 7] + "brown" * (size // 5),
        "中" * (size // 3 + 1),
        "!" * size,
    ):
        assert_same(encoder, [text, text + " x", text])


def test_tokens_do_not_depend_on_what_the_tables_hold(encoder: Encoder) -> None:
    class Small(Encoder):
        SHORT_ENTRIES, LONG_ENTRIES = 4, 4

    small = Small(encoder.tokenizer)
    chosen = random.Random(1)
    words = "".join(MIXED).split() + ["z" * length for length in range(25, 120, 7)]
    texts = [" ".join(chosen.choices(words, k=30)) for _ in range(200)]
    wanted = ids(encoder, texts)
    assert ids(small, texts) == wanted
    assert ids(small, texts[::-1]) == wanted[::-1]
    assert [ids(small, [text])[0] for text in texts] == wanted


def test_slices_and_texts_at_the_end_of_the_buffer(encoder: Encoder) -> None:
    texts = ["one two", "", "three's", "中", "x"]
    array = texts_of(["before", *texts, "after"]).slice(1, len(texts))
    encoded = encoder.encode(array, None, np.uint32)
    bounds = itertools.pairwise(encoded.offsets.tolist())
    found = [encoded.tokens[begin:end].tolist() for begin, end in bounds]
    assert found == library_ids(encoder.tokenizer, texts)
    assert encoder.encode(texts_of([]), 0, np.uint16).tokens.tolist() == []


def test_text_of_added_tokens_goes_to_the_library_and_is_counted(encoder: Encoder) -> None:
    tokenizer = Tokenizer.from_str(encoder.tokenizer.to_str())
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("brown", single_word=True)])
    tokenizer.encode_special_tokens = True
    own = Encoder(tokenizer)
    texts = ["a <|endoftext|> b", "no such text", "x<think>y", "a brown fox", "brownish", "<thin", "", "z"]
    assert_same(own, texts, end=0)
    assert own.counts.library == {ADDED_TOKEN: 4}
    assert own.counts.compiled == 4
    end = tokenizer.token_to_id("<|endoftext|>")
    assert end not in ids(own, texts)[0]
    assert tokenizer.token_to_id("<think>") in ids(own, texts)[2]


def test_normal_form_c_is_looked_at_text_by_text(encoder: Encoder) -> None:
    tokenizer = Tokenizer.from_str(encoder.tokenizer.to_str())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.encode_special_tokens = True
    own = Encoder(tokenizer)
    texts = ["café", "cafe\u0301", "한국어", "\u1112\u1161\u11ab", "q\u0307\u0323", "q\u0323\u0307", "\u212b", "中文"]
    assert_same(own, texts)
    assert own.counts.library == {NORMALISED: 4}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "normaliser"),
        ({"pre_tokenizer": None}, "way of splitting"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "way of splitting"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}}, "way of splitting"),
        ({"model": {"dropout": 0.5}}, "dropout"),
        ({"model": {"continuing_subword_prefix": "##"}}, "continuing_subword_prefix"),
    ],
)
def test_what_the_loops_do_not_know_goes_to_the_library(change: dict[str, Any], reason: str) -> None:
    description = json.loads(trained("cl100k", [], 300).to_str())
    changes = {**change, "model": {**description["model"], **change.get("model", {})}}
    tokenizer = Tokenizer.from_str(json.dumps(description | changes))
    tokenizer.encode_special_tokens = True
    own = Encoder(tokenizer)
    assert own.pattern == ""
    assert reason in own.reason
    found = ids(own, MIXED, 0)
    assert own.counts.library == {own.reason: len(MIXED)}
    if reason != "dropout":
        assert found == library_ids(tokenizer, MIXED, 0)


def test_a_vocabulary_without_all_bytes_goes_to_the_library() -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.encode_special_tokens = True
    own = Encoder(tokenizer)
    assert "254 of the 256 bytes" in own.reason
    assert ids(own, ["abc"]) == [[2]]


@pytest.mark.parametrize("name", NAMES)
def test_whole_tokens_before_merges(name: str) -> None:
    base = trained(name, MIXED)
    vocabulary = json.loads(base.to_str())["model"]["vocab"]
    vocabulary["Ġquicklyest"] = 5000  # no merge makes it
    assert_same(
        Encoder(changed(base, vocab=vocabulary, ignore_merges=True)), ["x quicklyest", " quicklyest quick", *MIXED]
    )
    assert_same(Encoder(changed(base, vocab=vocabulary, ignore_merges=False)), ["x quicklyest", *MIXED])


def test_every_rule_is_of_a_known_pattern() -> None:
    assert set(RULES) == set(PATTERNS)
