"""What a tokeniser does to texts it has not seen: bytes a token, use of the vocabulary, whether texts come back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpus.encoding.encoder import Encoder, spellings
from storage.schemas import token_type

LISTED = 20
UNUSED_LISTED = 200

Integers = npt.NDArray[np.int64]


def tokenizer_report(encoder: Encoder, batches: Iterable[pa.Table]) -> dict[str, Any]:
    """What a tokeniser does to texts.

    Parameters
    ----------
    batches
        Tables with columns `text`, `source` and `language` (may be null).

    Returns
    -------
    `documents`, `bytes`, `tokens`, `bytes_per_token`, the same by source (`sources`) and language (`languages`, "?" if
    not known); `vocabulary_size`, `vocabulary_used` (distinct ids that occur), `dtype` of token shards;
    `longest_tokens` (the twenty with most bytes: `token`, `bytes`, `count`); `unused` (tokens of the model that do not
    occur) and `unused_tokens` (the first 200 of them by id); `round_trip_failures` (texts that decoding does not give
    back) and an excerpt of the first as `round_trip_example`.
    """
    tokenizer = encoder.tokenizer
    size = encoder.vocabulary_size
    used = np.zeros(size, np.int64)
    amounts: dict[str, dict[str, Integers]] = {"sources": {}, "languages": {}}
    whole = np.zeros(3, np.int64)
    failures, example = 0, None
    for batch in batches:
        texts = batch.column("text").combine_chunks()
        encoded = encoder.encode(texts, None, np.uint32)
        used += np.bincount(encoded.tokens, minlength=size)
        rows = np.stack([np.ones(len(texts), np.int64), np.asarray(pc.binary_length(texts)), np.diff(encoded.offsets)])
        whole += rows.sum(axis=1)
        for name, column in (("sources", "source"), ("languages", "language")):
            labels = np.asarray(pc.fill_null(batch.column(column), "?").to_pylist(), object)
            for label in sorted(set(labels)):
                own = rows[:, labels == label].sum(axis=1)
                amounts[name][label] = amounts[name].get(label, np.zeros(3, np.int64)) + own
        ids = np.split(encoded.tokens, encoded.offsets[1:-1])
        back = tokenizer.decode_batch([row.tolist() for row in ids], skip_special_tokens=False)
        for text, decoded in zip(texts.to_pylist(), back, strict=False):
            if text != decoded:
                failures += 1
                example = text[:200] if example is None else example
    unused = _unused(encoder, used)
    return {
        **_amounts(whole),
        "sources": {source: _amounts(own) for source, own in sorted(amounts["sources"].items())},
        "languages": {language: _amounts(own) for language, own in sorted(amounts["languages"].items())},
        "vocabulary_size": size,
        "vocabulary_used": int(np.count_nonzero(used)),
        "dtype": str(token_type(size)),
        "longest_tokens": _longest(encoder, used),
        "unused": len(unused),
        "unused_tokens": _texts(encoder, unused[:UNUSED_LISTED]),
        "round_trip_failures": failures,
        "round_trip_example": example,
    }


def _amounts(found: Integers) -> dict[str, Any]:
    documents, size, tokens = map(int, found)
    ratio = round(size / tokens, 4) if tokens else None
    return {"documents": documents, "bytes": size, "tokens": tokens, "bytes_per_token": ratio}


def _model_ids(encoder: Encoder) -> list[int]:
    added = set(encoder.tokenizer.get_added_tokens_decoder())
    return sorted(set(encoder.tokenizer.get_vocab(with_added_tokens=False).values()) - added)


def _unused(encoder: Encoder, used: Integers) -> list[int]:
    return [number for number in _model_ids(encoder) if not used[number]]


def _texts(encoder: Encoder, numbers: list[int]) -> list[str]:
    r"""What tokens stand for; bytes that are no characters as `\xe4`."""
    if not encoder.pattern:
        return [encoder.tokenizer.decode([number], skip_special_tokens=False) for number in numbers]
    spelled = spellings(encoder.tokenizer.get_vocab(with_added_tokens=False))
    return [spelled.get(number, b"").decode(errors="backslashreplace") for number in numbers]


def _longest(encoder: Encoder, used: Integers) -> list[dict[str, Any]]:
    numbers = _model_ids(encoder)
    texts = _texts(encoder, numbers)
    spelled = spellings(encoder.tokenizer.get_vocab(with_added_tokens=False)) if encoder.pattern else {}
    sizes = [len(spelled.get(at, text.encode())) for at, text in zip(numbers, texts, strict=True)]
    found = sorted(zip(texts, sizes, numbers, strict=True), key=lambda row: (-row[1], row[2]))
    return [{"token": text, "bytes": size, "count": int(used[at])} for text, size, at in found[:LISTED]]
