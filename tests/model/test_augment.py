"""What changing text in training promises: a function of seed, position and tokens; special tokens and targets hold."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from corpus.config import TokenizerConfig
from corpus.encoding.patterns import PATTERNS
from corpus.tokenizer import train_tokenizer
from model.augment import Augmenter, make_augmenter
from model.augment_config import AugmentConfig
from model.augment_text import SynonymError, parse_synonyms, read_synonyms, read_vocabulary
from model.data import IGNORED, Batch, Loader, TokenStream
from model.packing import Packing
from model.parallel import Ranks
from tests.model.token_files import write_shard

TIME = 64
WORDS = "stone river mill grain bread flour water wheel house field road bridge green small old new".split()  # noqa: SIM905
SYNONYMS = {"river": ("stream", "brook"), "stone": ("rock",), "mill": ("grinding works", "factory"), "old": ("aged",)}
ALL: dict[str, Any] = {
    "token_noise": 0.1, "token_dropout": 0.1, "span_masking": 0.15, "mask_token": "<|mask|>", "sentence_shuffle": 0.8,
    "synonym_rate": 0.5, "synonyms": "table", "seed": 3,
}  # fmt: skip
EACH: list[dict[str, Any]] = [
    {"token_noise": 0.2},
    {"token_dropout": 0.2},
    {"span_masking": 0.3, "mask_token": "<|mask|>"},
    {"sentence_shuffle": 1.0},
    {"synonym_rate": 0.7, "synonyms": "table"},
    ALL,
]
READ_ONLY = [EACH[0], EACH[2]]


def name_of(config: dict[str, Any]) -> str:
    return "all" if config is ALL else next(iter(config))


def texts(count: int, seed: int) -> list[str]:
    """Documents of one to nine sentences of three to nine words."""
    chosen = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        sentences = [
            " ".join(chosen.choice(WORDS, chosen.integers(3, 10))).capitalize() + str(chosen.choice([".", "!", "?"]))
            for _ in range(chosen.integers(1, 10))
        ]
        made.append(" ".join(sentences))
    return made


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    special = ("<|endoftext|>", "<|mask|>")
    lines = [*texts(200, 9), *["一。二。三。四"] * 50]
    return train_tokenizer(lines, TokenizerConfig(vocabulary_size=420, special_tokens=special))


@pytest.fixture(scope="module")
def stream(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenStream:
    made = [tokenizer.encode(text, add_special_tokens=False).ids + [0] for text in texts(60, 1)]
    folder = tmp_path_factory.mktemp("augment")
    return TokenStream([write_shard(folder / "s.arrow", made)], 420, 0)


def loader(stream: TokenStream, packing: Packing, overlap: int = 0, *, mask: bool = True) -> Loader:
    return Loader(stream, TIME, shuffle_seed=4, document_mask=mask, packing=packing, overlap=overlap, shortest=8)


def augmenter(tokenizer: Tokenizer, **config: Any) -> Augmenter:
    return Augmenter(AugmentConfig(**config), tokenizer, 420, padding=0, synonyms=SYNONYMS)


def pieces(batch: Batch) -> list[tuple[list[int], list[int]]]:
    """Tokens and targets of every document of a batch."""
    assert batch.boundaries is not None
    cuts = batch.boundaries.tolist()
    flat, wanted = batch.tokens.flatten().tolist(), batch.targets.flatten().tolist()
    return [(flat[a:b], wanted[a:b]) for a, b in itertools.pairwise(cuts)]


def same(first: Batch, second: Batch) -> bool:
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in (
            (first.tokens, second.tokens),
            (first.targets, second.targets),
            (first.boundaries, second.boundaries),
        )
    )


# ------------------------------------------------------------------------------------------------ all of them


def test_off_is_off(stream: TokenStream, tokenizer: Tokenizer) -> None:
    batch = loader(stream, "pack").batch(range(4))
    assert augmenter(tokenizer).batch(batch, range(4)) is batch
    assert make_augmenter(AugmentConfig(seed=5), "", 420, 0) is None


@pytest.mark.parametrize("packing", ["cut", "pack", "single", "buckets"])
@pytest.mark.parametrize("config", EACH, ids=name_of)
def test_batches_are_the_same_for_any_number_of_ranks_and_micro_batches(
    stream: TokenStream, tokenizer: Tokenizer, packing: Packing, config: dict[str, Any]
) -> None:
    positions = range(12, 24)
    before = loader(stream, packing).batch(positions)
    whole = augmenter(tokenizer, **config).batch(before, positions)
    assert not same(whole, before)
    for ranks in (1, 2, 3, 4):
        changes = augmenter(tokenizer, **config)
        for size in (1, 2, 3, 4):
            parts = []
            for rank in range(ranks):
                mine = Ranks(rank, ranks, torch.device("cpu"), None).share(positions)
                own = loader(stream, packing)
                for first in range(0, len(mine), size):
                    some = mine[first : first + size]
                    parts.append(changes.batch(own.batch(some), some))
            assert torch.equal(torch.cat([part.tokens for part in parts]), whole.tokens)
            assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)
            documents = torch.cat([part.positions for part in parts if part.positions is not None])
            assert whole.positions is not None
            assert torch.equal(documents, whole.positions)


@pytest.mark.parametrize("config", EACH, ids=name_of)
def test_another_position_or_seed_changes_a_sequence_otherwise(
    stream: TokenStream, tokenizer: Tokenizer, config: dict[str, Any]
) -> None:
    batch = loader(stream, "pack").batch(range(8))
    before = batch.tokens.clone(), batch.targets.clone()
    changes = augmenter(tokenizer, **config)
    here = changes.batch(batch, range(8))
    assert same(changes.batch(batch, range(8)), here)
    assert not same(changes.batch(batch, range(100, 108)), here)
    assert not same(augmenter(tokenizer, **{**config, "seed": 8}).batch(batch, range(8)), here)
    assert torch.equal(batch.tokens, before[0])  # what came in is as it was
    assert torch.equal(batch.targets, before[1])


def test_the_draws_never_change_between_versions(tokenizer: Tokenizer) -> None:
    found = augmenter(tokenizer, token_noise=0.5)._draws("noise", 7, 3)
    assert found.tolist() == [0.4271087190249514, 0.8947255882519375, 0.1540975887461692]


@pytest.mark.parametrize("end_id", [0, None])
@pytest.mark.parametrize(("packing", "overlap"), [("cut", 0), ("pack", 0), ("pack", 9), ("single", 5), ("buckets", 0)])
@pytest.mark.parametrize("config", EACH, ids=name_of)
def test_documents_stay_apart_and_every_target_is_the_token_read_next_but_for_damage(
    stream: TokenStream,
    tokenizer: Tokenizer,
    packing: Packing,
    overlap: int,
    end_id: int | None,
    config: dict[str, Any],
) -> None:
    stream = TokenStream([shard.path for shard in stream.shards], 420, end_id)
    own = loader(stream, packing, overlap)
    positions = range(own.sequences)
    before, found = own.batch(positions), augmenter(tokenizer, **config).batch(own.batch(positions), positions)
    assert found.tokens.shape == found.targets.shape == before.tokens.shape
    assert found.boundaries is not None
    assert set(range(0, found.tokens.numel() + 1, TIME)) <= set(found.boundaries.tolist())
    assert (found.boundaries.diff() > 0).all()
    damaged = 0
    for inputs, targets in pieces(found):
        for read, wanted in zip(inputs[1:], targets[:-1], strict=True):
            damaged += wanted not in (IGNORED, read)
    valid = int((found.targets != IGNORED).sum())
    if {"token_noise", "span_masking"} & set(config):
        assert 0 < damaged < 0.5 * valid
    else:
        assert damaged == 0
    # Ends of documents are neither made nor lost, but where a row grew too long.
    ends = [int((batch.targets == 0).sum()) for batch in (before, found)]
    assert 0 < ends[1] <= ends[0] if "synonyms" in config else ends[1] == ends[0]
    # What is read again as context is no target, and stays.
    contexts = [[p for p in pieces(batch) if p[1][0] == IGNORED and p[1][-1] != IGNORED] for batch in (before, found)]
    assert bool(contexts[0]) == (overlap > 0)
    if overlap and config is not ALL and "synonyms" not in config:
        heads = [[(p[0][1 : overlap + 1], p[1][:overlap]) for p in some] for some in contexts]
        kept = [pair for pair in zip(*heads, strict=False) if pair[0] == pair[1]]
        assert len(kept) == len(heads[0]) or config in READ_ONLY


@pytest.mark.parametrize("config", READ_ONLY, ids=name_of)
@pytest.mark.parametrize("packing", ["cut", "pack", "single", "buckets"])
def test_damage_leaves_targets_special_tokens_and_padding_alone(
    stream: TokenStream, tokenizer: Tokenizer, packing: Packing, config: dict[str, Any]
) -> None:
    own = loader(stream, packing)
    batch = own.batch(range(own.sequences))
    changes = augmenter(tokenizer, **config)
    found = changes.batch(batch, range(own.sequences))
    assert torch.equal(found.targets, batch.targets)
    assert batch.boundaries is not None
    assert found.boundaries is not None
    assert torch.equal(found.boundaries, batch.boundaries)
    changed = found.tokens != batch.tokens
    assert changed.any()
    text = torch.from_numpy(changes.vocabulary.is_text)
    assert text[batch.tokens[changed]].all()
    if "token_noise" in config:
        assert text[found.tokens[changed]].all()
        assert len(found.tokens[changed].unique()) > 100
    else:
        assert (found.tokens[changed] == tokenizer.token_to_id("<|mask|>")).all()


def test_shares_are_what_was_asked_for(stream: TokenStream, tokenizer: Tokenizer) -> None:
    own = loader(stream, "cut", mask=False)
    positions = range(20 * own.sequences)
    batch = own.batch(positions)
    is_text = batch.tokens > 1
    noisy = augmenter(tokenizer, token_noise=0.2).batch(batch, positions)
    share = float((noisy.tokens != batch.tokens)[is_text].double().mean())
    assert share == pytest.approx(0.2 * 417 / 418, abs=0.01)  # a random token may be the true one
    shorter = augmenter(tokenizer, token_dropout=0.2).batch(batch, positions)
    assert int((shorter.targets > 0).sum()) / int((batch.targets > 0).sum()) == pytest.approx(0.8, abs=0.01)
    for mean, longest in ((5.0, 10), (1.0, 10), (3.0, 2)):
        config = {"span_masking": 0.15, "span_length": mean, "longest_span": longest, "mask_token": "<|mask|>"}
        masked = augmenter(tokenizer, **config).batch(batch, positions).tokens == 1
        assert torch.equal(masked.sum(1), (0.15 * is_text.sum(1).double()).round().long())
        runs = np.diff(np.flatnonzero(np.diff(np.pad(masked.numpy(), ((0, 0), (1, 1))).flatten().astype(int))))[::2]
        expected = {(5.0, 10): 4.46, (1.0, 10): 1.0, (3.0, 2): 5 / 3}[mean, longest]
        # Spans may touch and the last of a row is cut, so that the mean is near that of the distribution only.
        assert runs.mean() == pytest.approx(expected, rel=0.35)


def test_masked_spans_end_with_their_document(stream: TokenStream, tokenizer: Tokenizer) -> None:
    without_ends = TokenStream([shard.path for shard in stream.shards], 420, None)
    batch = loader(without_ends, "pack").batch(range(8))
    assert batch.boundaries is not None
    changes = augmenter(tokenizer, span_masking=0.5, span_length=900.0, longest_span=900, mask_token="<|mask|>")
    whole = changes.batch(batch, range(8))
    broken: list[int] = []
    for number, (tokens, targets) in enumerate(pieces(whole)):
        text = [token for token, wanted in zip(tokens, targets, strict=True) if wanted != IGNORED and token != 0]
        if 1 in text and set(text[text.index(1) :]) != {1}:  # only the last span of a row, whose share is reached
            broken.append(int(batch.boundaries[number]) // TIME)
    assert len(set(broken)) == len(broken)
    assert int((whole.tokens == 1).sum()) > 8 * TIME // 4


# ------------------------------------------------------------------------------------------------ sentences


def test_sentences_change_places_whole_and_the_first_stays(stream: TokenStream, tokenizer: Tokenizer) -> None:
    own = Loader(stream, 512, shuffle_seed=None, document_mask=True, packing="single")
    positions = range(own.sequences)
    batch = own.batch(positions)
    found = augmenter(tokenizer, sentence_shuffle=1.0).batch(batch, positions)
    half = augmenter(tokenizer, sentence_shuffle=0.5).batch(batch, positions)
    moved, many = 0, 0
    for row in range(len(batch.tokens)):
        was, now = (tokenizer.decode(b.targets[row][b.targets[row] != IGNORED].tolist()) for b in (batch, found))
        sentences, others = (re.findall(r"[^.!?]+[.!?]", text) for text in (was, now))
        assert sentences[0] == others[0]
        assert sorted(sentences) == sorted(others)
        many += len(sentences) > 3
        moved += sentences != others
    assert moved > 0.8 * many > 10
    assert 0.2 * moved < int((half.tokens != batch.tokens).any(1).sum()) < 0.8 * moved


def test_fragments_and_numbers_are_not_taken_for_sentences(tokenizer: Tokenizer) -> None:
    text = "Old. It is 3.5 m. One! Two? and so on without an end"
    ids = [0, *tokenizer.encode(text).ids]
    changes = augmenter(tokenizer, sentence_shuffle=1.0)
    seen = {tokenizer.decode(changes.sequence(ids, position, 99)[1:]) for position in range(60)}
    parts = [" It is 3.5 m.", " One!", " Two?"]
    assert seen == {
        f"Old.{a}{b}{c} and so on without an end" for a in parts for b in parts for c in parts if len({a, b, c}) == 3
    }
    chinese = [0, *tokenizer.encode("一。二。三。四").ids]
    assert {tokenizer.decode(changes.sequence(chinese, position, 99)[1:]) for position in range(20)} == {
        "一。二。三。四",
        "一。三。二。四",
    }


# ------------------------------------------------------------------------------------------------ synonyms


@pytest.mark.parametrize("pattern", list(PATTERNS))
def test_words_become_synonyms_where_they_stand_alone(pattern: Any) -> None:
    trained = train_tokenizer(texts(200, 9), TokenizerConfig(vocabulary_size=600, pattern=pattern))
    table = {"river": ("stream",), "old mill": ("factory",), "old": ("aged",), "grain": ("wheat and rye",)}
    changes = Augmenter(AugmentConfig(synonym_rate=1.0, synonyms="x"), trained, vocabulary_size=600, synonyms=table)
    lines = [
        *texts(30, 2), "river", "river bed, riverbed rivers; (river) river-bed, the river",
        "an old mill. Old mill, oldmill",
        "cold old gold old2 2old old_ old\nold\told  old", "río river’s river's 'river' riveré é river, river",
        "数据river 数据 river数据 grain grain.",
    ]  # fmt: skip
    for position, text in enumerate(lines):
        ids = [0, *trained.encode(text).ids]
        found = trained.decode(changes.sequence(ids, position, 999)[1:])
        wanted = text
        for word in ("river", "old mill", "old", "grain"):  # the last word of a text is left alone
            wanted = re.sub(rf"(?<![^\W_]){word}(?!['’]|[^\W_]|$)", table[word][0], wanted)
        assert found == wanted
        if pattern == "gpt2" and "(" not in text and "'" not in text:
            assert changes.sequence(ids, position, 999)[1:] == trained.encode(wanted).ids


def test_the_rate_counts_words_and_synonyms_are_chosen_evenly(tokenizer: Tokenizer) -> None:
    ids = [0, *tokenizer.encode(" the river" * 2000).ids]
    found = tokenizer.decode(augmenter(tokenizer, synonym_rate=0.3, synonyms="x").sequence(ids, 5, 99_999)[1:])
    assert found.count("stream") / 2000 == pytest.approx(0.15, abs=0.03)
    assert found.count("brook") / 2000 == pytest.approx(0.15, abs=0.03)
    assert found.count("the") == 2000


def test_wordpiece_has_no_spaces_and_unknown_words_are_left_alone() -> None:
    trained = train_tokenizer(texts(200, 9), TokenizerConfig(kind="wordpiece", vocabulary_size=300))
    table = {"river": ("stone",), "猫": ("river",), "stone": ("猫",), "old": ("mill wheel",)}
    changes = Augmenter(AugmentConfig(synonym_rate=1.0, synonyms="x"), trained, 300, synonyms=table)
    ids = [0, *trained.encode("the river of stone, old riverold . 猫 river").ids]
    assert trained.decode(changes.sequence(ids, 1, 99)[1:]) == trained.decode(
        trained.encode("the stone of stone, mill wheel riverold . 猫 river").ids
    )


def test_metaspace_and_bytes_are_understood() -> None:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>"], initial_alphabet=["<0x41>", "<0x20>", "<0xC3>"], show_progress=False
    )
    tokenizer.train_from_iterator(texts(100, 3), trainer)
    tokenizer.add_tokens([AddedToken("<0x41>"), AddedToken("<0x20>"), AddedToken("<0xC3>")])
    known = read_vocabulary(tokenizer, tokenizer.get_vocab_size() + 2)
    number = tokenizer.token_to_id("▁river")
    assert number is not None
    assert known.begins_with_space[number]
    assert known.ends_in_word[number]
    assert not known.goes_on[number]
    letter, space, part = (tokenizer.token_to_id(token) for token in ("<0x41>", "<0x20>", "<0xC3>"))
    assert known.goes_on[letter]
    assert known.begins_with_space[space]
    assert known.goes_on[part]
    assert not known.is_text[-2:].any()  # rows of the embedding without a token
    assert not known.is_text[tokenizer.token_to_id("<unk>")]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.tsv", b"a\tb\n\nc\n", "t.tsv, line 3: 'c' has no synonym"),
        ("t.tsv", b"a\tb\na\tc\n", "t.tsv, line 2: 'a' stands in the table already"),
        ("t.tsv", b"a\tb\t\n", "t.tsv, line 1: '' is empty or has white space"),
        ("t.tsv", b"a\tb\n c\td\n", "t.tsv, line 2: ' c' is empty or has white space"),
        ("t.tsv", b"a\tb\na b\ta b\n", "t.tsv, line 2: 'a b' is its own synonym"),
        ("t.tsv", b"a\tb\tb\n", "t.tsv, line 1: a synonym of 'a' stands twice"),
        ("t.tsv", b"a\tb\n\xff\tc\n", "t.tsv, line 2: not UTF-8"),
        ("t.tsv", b"\n", "t.tsv: there is no word in it"),
        ("t.json", b"{", "t.json is not JSON"),
        ("t.json", b"[[1, 2]]", "t.json: not an object of words"),
        ("t.json", b'{"a": "b"}', "t.json: the synonyms of 'a' are no list of texts"),
        ("t.json", b'{"a": {"b": "c"}}', "t.json: the synonyms of 'a' are no list of texts"),
        ("t.json", b'{"a": ["b"], "a": ["c"]}', "t.json: 'a' stands in the table already"),
    ],
)
def test_errors_of_tables_name_the_line(name: str, data: bytes, message: str) -> None:
    with pytest.raises(SynonymError, match=re.escape(message)):
        parse_synonyms(data, name)


def test_both_forms_of_a_table_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_bytes("\ufeffriver\tstream\tbrook\r\n\nold mill\tfactory\n".encode())
    (tmp_path / "t.json").write_text(json.dumps({"river": ["stream", "brook"], "old mill": ["factory"]}))
    expected = {"river": ("stream", "brook"), "old mill": ("factory",)}
    assert read_synonyms(str(tmp_path / "t.tsv")) == read_synonyms(f"file://{tmp_path}/t.json") == expected
    with pytest.raises(SynonymError, match=r"gone\.tsv cannot be read"):
        read_synonyms(str(tmp_path / "gone.tsv"))


# ------------------------------------------------------------------------------------------------ fine-tuning


def test_documents_of_fine_tuning_keep_their_first_token_and_their_limit(tokenizer: Tokenizer) -> None:
    changes = augmenter(tokenizer, **ALL)
    for position, text in enumerate(texts(40, 5)):
        ids = [0, *tokenizer.encode(text).ids][:50]
        found = changes.sequence(ids, position, 50)
        assert found == changes.sequence(ids, position, 50)
        assert found[0] == 0
        assert 1 < len(found) <= 50
        assert 0 not in found[1:]
    assert changes.sequence([0], 1, 50) == [0]
    assert changes.sequence([], 1, 50) == []
    assert augmenter(tokenizer).sequence(ids, 1, 50) == ids


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"span_masking": 0.1}, r"augment\.span_masking = 0\.1 and augment\.mask_token = '': give both"),
        ({"mask_token": "x"}, r"augment\.mask_token = 'x': give both"),
        ({"synonym_rate": 0.1}, r"augment\.synonym_rate = 0\.1 and augment\.synonyms = '': give both"),
        ({"synonyms": "x.tsv"}, r"augment\.synonyms = 'x\.tsv': give both"),
    ],
)
def test_what_belongs_together_is_asked_for_together(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**config)


def test_a_mask_token_is_special_and_the_vocabulary_fits(tokenizer: Tokenizer) -> None:
    for token in ("<|none|>", "a"):
        with pytest.raises(ValueError, match=r"augment\.mask_token = .* is no special token"):
            augmenter(tokenizer, span_masking=0.1, mask_token=token)
    with pytest.raises(ValueError, match=r"the tokeniser has ids up to \d+, the model 300 rows"):
        Augmenter(AugmentConfig(token_noise=0.1), tokenizer, 300)
    assert dataclasses.asdict(AugmentConfig())["token_noise"] == 0.0
