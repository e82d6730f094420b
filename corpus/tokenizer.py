"""The vocabulary: a byte-level BPE trained with `tokenizers`, or a given tokenizer.json that is checked before use.

Every tokeniser that comes out of here treats text as text: special tokens written out in a document are encoded as the
characters they are, and nothing is truncated, padded or added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus.config import TokenizerConfig
from storage.schemas import ID_BYTES, token_type

_BATCH_TEXTS = 256


class TokenizerError(ValueError):
    """A tokeniser that cannot be used: not readable, or without the tokens that are needed."""


def train_tokenizer(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """Trains a byte-level BPE (Sennrich et al. 2016; bytes and splitting pattern of GPT-2, Radford et al. 2019).

    Parameters
    ----------
    texts
        The sample. The result depends on the texts, not on their order or on the number of threads.
    config
        Of kind "bpe".

    Returns
    -------
    A tokeniser of at most `vocabulary_size` tokens (fewer when the sample has no more pairs to merge): the special
    tokens have the first ids, then come the 256 bytes, then the merges.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary_size,
        show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in config.special_tokens],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return as_plain_text(tokenizer)


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


def tokenizer_report(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """What a tokeniser does to a sample of texts.

    Returns
    -------
    `documents`, `bytes`, `tokens`, `bytes_per_token`; `vocabulary_size`, `vocabulary_used` (distinct ids that occur),
    `dtype` of token shards; `longest_tokens` (the twenty with most bytes: `token`, `bytes`, `count`);
    `round_trip_failures` (texts that decoding does not give back) and an excerpt of the first as `round_trip_example`.
    """
    used: Counter[int] = Counter()
    documents = size = tokens = failures = 0
    example: str | None = None
    for batch in _batches(texts):
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        for text, back, row in zip(batch, tokenizer.decode_batch(ids, skip_special_tokens=False), ids, strict=True):
            documents += 1
            size += len(text.encode())
            tokens += len(row)
            used.update(row)
            if back != text:
                failures += 1
                example = text[:200] if example is None else example
    total = vocabulary_size(tokenizer)
    return {
        "documents": documents,
        "bytes": size,
        "tokens": tokens,
        "bytes_per_token": round(size / tokens, 4) if tokens else None,
        "vocabulary_size": total,
        "vocabulary_used": len(used),
        "dtype": str(token_type(total)),
        "longest_tokens": _longest(tokenizer, used),
        "round_trip_failures": failures,
        "round_trip_example": example,
    }


def _longest(tokenizer: Tokenizer, used: Counter[int], count: int = 20) -> list[dict[str, Any]]:
    added = set(tokenizer.get_added_tokens_decoder())
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    found = sorted(
        (
            (tokenizer.decode([number], skip_special_tokens=False), number)
            for number in vocabulary.values()
            if number not in added
        ),
        key=lambda pair: (-len(pair[0].encode()), pair[1]),
    )
    return [{"token": text, "bytes": len(text.encode()), "count": used[number]} for text, number in found[:count]]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH_TEXTS:
            yield batch
            batch = []
    if batch:
        yield batch
