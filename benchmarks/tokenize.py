"""How fast does text become token rows? `encode_documents` beside the library `tokenizers`, which it is built on.

A byte-level BPE of 16,384 tokens, from an Arrow column to an Arrow token column (gristmill) or from Python strings to
one numpy array, one thread each (TOKENIZERS_PARALLELISM=false, as in Gristmill's workers).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.documents import amounts, load_texts, save_documents
from benchmarks.timing import Benchmark, Result, Work, main
from corpus.config import TokenizerConfig

VOCABULARY = 16_384


def prepare(documents: pa.Table, folder: Path) -> None:
    """A byte-level BPE trained on the documents."""
    from corpus.tokenizer import train_tokenizer

    save_documents(documents, folder)
    config = TokenizerConfig(vocabulary_size=VOCABULARY)
    train_tokenizer(documents.column("text").to_pylist(), config).save(str(folder / "tokenizer.json"))


def gristmill(folder: Path) -> Work:
    """From Arrow to Arrow, a few megabytes a call."""
    from corpus.encoding.encoder import Encoder
    from corpus.tokenizer import parse_tokenizer, vocabulary_size
    from corpus.tokens import encode_documents
    from storage.schemas import token_type

    tokenizer = parse_tokenizer((folder / "tokenizer.json").read_bytes(), "tokenizer.json")
    encoder = Encoder(tokenizer)
    dtype = token_type(vocabulary_size(tokenizer))
    texts = load_texts(folder)
    ids = pa.array([row.to_bytes(16, "big") for row in range(len(texts))], pa.binary(16))

    def work() -> Result:
        tokens = encode_documents(encoder, ids, texts, None, dtype).column("tokens").combine_chunks()
        return _result(texts, len(tokens.values), lambda: tokens.values.to_numpy())

    return work


def encode_batch(folder: Path, method: str) -> Work:
    """All texts in one call, then into one numpy array of uint16."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    texts = load_texts(folder)
    strings = texts.to_pylist()
    encode = getattr(tokenizer, method)

    def work() -> Result:
        encodings = encode(strings, add_special_tokens=False)
        tokens = np.concatenate([np.array(encoding.ids, np.uint16) for encoding in encodings])
        return _result(texts, len(tokens), lambda: tokens)

    return work


def _result(texts: pa.LargeStringArray, tokens: int, values: Any) -> Result:
    return Result(
        {**amounts(texts), "tokens": tokens},
        lambda: [tokens, hashlib.blake2b(values().astype("<u2").tobytes(), digest_size=8).hexdigest()],
    )


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """Whether all tokens are the same."""
    mine = outcomes["gristmill"]
    return {
        peer: f"{found[0]:,} tokens" + ("" if peer == "gristmill" else ", the same" if found == mine else ", OTHERS")
        for peer, found in outcomes.items()
    }


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, training and loading the tokeniser, reading the texts and turning them into Python strings for "
            "tokenizers.",
            prepare,
            {
                "gristmill": gristmill,
                "encode_batch_fast": partial(encode_batch, method="encode_batch_fast"),
                "encode_batch": partial(encode_batch, method="encode_batch"),
            },
            judge,
            documents=20_000,
            repetitions=3,
            packages=("tokenizers", "pyarrow", "numpy"),
            environment={"TOKENIZERS_PARALLELISM": "false"},
        )
    )
