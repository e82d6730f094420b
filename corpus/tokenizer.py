"""The vocabulary: trained with `tokenizers`, or a given tokenizer.json that is checked before use.

Every tokeniser that comes out of here treats text as text: special tokens written out in a document are encoded as the
characters they are, and nothing is truncated, padded or added.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from corpus.config import TokenizerConfig
from corpus.encoding.patterns import PATTERNS
from storage.schemas import ID_BYTES

UNKNOWN = "[UNK]"
WORD_MARK = "▁"
WORD_CHARACTERS = 1000  # the most frequent ones; BERT's trainer takes as many

UNLEARNED_STEP = 1e-4  # between the scores that the library gives to bytes it has not learned


class TokenizerError(ValueError):
    """A tokeniser that cannot be used: not readable, or without the tokens that are needed."""


def train_tokenizer(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """Trains a tokeniser of at most `vocabulary_size` tokens; the special tokens have the first ids.

    - bpe: byte-level BPE (Sennrich et al. 2016; bytes as GPT-2 writes them, Radford et al. 2019).
    - unigram: a Unigram model (Kudo 2018) of the same bytes and pieces. The library's sums depend on the order of its
      hash tables, even in one thread; what that changes is taken away (`_settled`). Only a piece that the last bits of
      its score put in or out of the vocabulary could still make a difference.
    - wordpiece: WordPiece as BERT has it (Devlin et al. 2018): words and punctuation apart, `[UNK]` for what cannot be
      written, white space not kept.

    Parameters
    ----------
    texts
        The sample. The result depends on the texts, not on their order or on threads.
    config
        Of a kind that is trained.

    Raises
    ------
    TokenizerError
        If the vocabulary is too small for the characters of the texts (wordpiece).
    """
    if config.kind == "wordpiece":
        return _train_wordpiece(texts, config)
    special = [AddedToken(token, special=True, normalized=False) for token in config.special_tokens]
    tokenizer = Tokenizer(models.BPE() if config.kind == "bpe" else models.Unigram())
    tokenizer.pre_tokenizer = byte_level(config.pattern)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = (trainers.BpeTrainer if config.kind == "bpe" else trainers.UnigramTrainer)(
        vocab_size=config.vocabulary_size,
        show_progress=False,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return as_plain_text(tokenizer if config.kind == "bpe" else _settled(tokenizer, len(special)))


def _settled(tokenizer: Tokenizer, special: int) -> Tokenizer:
    """A trained Unigram model without what depends on the order of hash tables.

    Scores keep six decimals, for sums differ in the last bits. The bytes that were not learned stand at and below the
    lowest score in the order of a hash table, `UNLEARNED_STEP` apart: here they stand in their own order. Ids go by
    score, then by token, behind the `special` ones.
    """
    description = json.loads(tokenizer.to_str())
    vocabulary: list[tuple[str, float]] = [(piece, round(score, 6)) for piece, score in description["model"]["vocab"]]
    pieces = vocabulary[special:]
    lowest = min(score for _, score in pieces)
    steps = {piece: (score - lowest) / UNLEARNED_STEP for piece, score in pieces if len(piece) == 1}
    unlearned = sorted(piece for piece, step in steps.items() if step < 256 and abs(step - round(step)) < 0.02)
    scores = dict(pieces) | {piece: lowest + number * UNLEARNED_STEP for number, piece in enumerate(unlearned)}
    rounded = [(piece, round(score, 6)) for piece, score in scores.items()]
    settled = sorted(rounded, key=lambda pair: (-pair[1], pair[0]))
    description["model"]["vocab"] = [*vocabulary[:special], *settled]
    return Tokenizer.from_str(json.dumps(description))


def _train_wordpiece(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """WordPiece, whose pieces are those that BPE merges make of words.

    The library's own trainer for it does that too, but numbers what continues words in the order of a hash table, so
    that equal counts are decided differently each time. Here words begin with a mark, and continuations are what does
    not.
    """
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.BertNormalizer(lowercase=config.lowercase)
    mark = pre_tokenizers.Metaspace(WORD_MARK, prepend_scheme="always", split=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), mark])
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=config.vocabulary_size, show_progress=False, limit_alphabet=WORD_CHARACTERS),
    )
    learned = [token for token, _ in sorted(learner.get_vocab().items(), key=lambda pair: pair[1])]
    characters = [token for token in learned if len(token) == 1 and token != WORD_MARK]
    special = [*config.special_tokens, *([] if UNKNOWN in config.special_tokens else [UNKNOWN])]
    pieces = [token[1:] if token.startswith(WORD_MARK) else f"##{token}" for token in learned if token != WORD_MARK]
    needed = [*special, *characters, *(f"##{character}" for character in characters)]
    if len(needed) > config.vocabulary_size:
        raise TokenizerError(
            f"vocabulary_size: {config.vocabulary_size} is too small for {len(special)} special tokens and the "
            f"{len(characters)} characters of the texts, each at the beginning of words and inside"
        )
    vocabulary = list(dict.fromkeys([*needed, *pieces]))[: config.vocabulary_size]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token=UNKNOWN))
    tokenizer.normalizer = learner.normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return as_plain_text(tokenizer)


def byte_level(pattern: str) -> Any:
    """What splits text by one of `PATTERNS` and writes its bytes as GPT-2 does."""
    if pattern == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    split = pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def parse_tokenizer(data: bytes, name: str) -> Tokenizer:
    """The tokeniser of a tokenizer.json's bytes; `name` stands in errors.

    Raises
    ------
    TokenizerError
        If the bytes are not a tokeniser.
    """
    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception as error:  # the library's errors have no class of their own
        raise TokenizerError(f"{name} is not a tokenizer.json: {error}") from error
    return as_plain_text(tokenizer)


def as_plain_text(tokenizer: Tokenizer) -> Tokenizer:
    """Sets what tokenizer.json should not decide: no special tokens out of text, no truncation, no padding."""
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def end_token_id(tokenizer: Tokenizer, end_of_text: str) -> int:
    """The id of the token that ends a document.

    Raises
    ------
    TokenizerError
        If the vocabulary has no such token.
    """
    found: int | None = tokenizer.token_to_id(end_of_text)
    if found is None:
        special = sorted(token.content for token in tokenizer.get_added_tokens_decoder().values())
        raise TokenizerError(
            f"end_of_text: the vocabulary has no token {end_of_text!r}; added tokens: {', '.join(special) or 'none'}"
        )
    return found


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the highest id, added tokens included: the rows that an embedding needs."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def gives_texts_back(tokenizer: Tokenizer) -> bool:
    """Whether decoding gives every text back: bytes in, bytes out, nothing normalised or eaten by added tokens."""
    description = json.loads(tokenizer.to_str())
    step = description["pre_tokenizer"] or {}
    last = step["pretokenizers"][-1] if step.get("type") == "Sequence" and step["pretokenizers"] else step
    return (
        description["normalizer"] is None
        and last.get("type") == "ByteLevel"
        and not last["add_prefix_space"]
        and (description["decoder"] or {}).get("type") == "ByteLevel"
        and set(pre_tokenizers.ByteLevel.alphabet()) <= set(tokenizer.get_vocab(with_added_tokens=False))
        and all(token["special"] for token in description["added_tokens"])
    )


def sample_shares(sizes: Mapping[str, int], weights: Mapping[str, float], wanted: int) -> dict[str, float]:
    """Which share of each source's documents a sample takes.

    Parameters
    ----------
    sizes
        Bytes of text by source.
    weights
        By source; 1 where a source is not named. Shares are proportional to them as long as they are below 1.
    wanted
        Bytes of the sample.
    """
    weight = {source: weights.get(source, 1.0) for source in sizes}
    shares = dict.fromkeys(sizes, 0.0)
    open_sources = {source for source in sizes if weight[source] > 0 and sizes[source]}
    left = float(wanted)
    while open_sources:
        scale = left / sum(sizes[source] * weight[source] for source in open_sources)
        full = {source for source in open_sources if weight[source] * scale >= 1}
        for source in full or open_sources:
            shares[source] = min(1.0, weight[source] * scale)
        if not full:
            break
        left -= sum(sizes[source] for source in full)
        open_sources -= full
    return shares


def sample_mask(ids: pa.Array | pa.ChunkedArray, share: float) -> npt.NDArray[np.bool_]:
    """Which documents belong to a sample of about `share` of all, decided by each id alone (ids are uniform hashes)."""
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    if not len(ids):
        return np.zeros(0, np.bool_)
    data = np.frombuffer(ids.buffers()[1], np.uint8)[ids.offset * ID_BYTES : (ids.offset + len(ids)) * ID_BYTES]
    first = data.view(">u8").reshape(-1, 2)[:, 0].astype(np.uint64)
    if share >= 1:
        return np.ones(len(first), np.bool_)
    return first < np.uint64(max(0.0, share) * 2**64)
