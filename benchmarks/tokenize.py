"""How fast does text become token rows? `encode_documents` beside `tokenizers`, whose ids it must give, and tiktoken.

A byte-level BPE of 32,768 tokens trained on the same texts, split as GPT-2 does; from an Arrow column to an Arrow token
column (gristmill) or from Python strings to one numpy array, one thread each. `gristmill` has seen the texts before, as
a worker has seen most of what its next part holds; `gristmill, first sight` begins with empty tables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.documents import amounts, load_texts, save_documents
from benchmarks.timing import Benchmark, Result, Work, main
from corpus.config import TokenizerConfig

VOCABULARY = 32_768


def prepare(documents: pa.Table, folder: Path) -> None:
    """A byte-level BPE trained on the documents."""
    from corpus.tokenizer import train_tokenizer

    save_documents(documents, folder)
    config = TokenizerConfig(vocabulary_size=VOCABULARY)
    train_tokenizer(documents.column("text").to_pylist(), config).save(str(folder / "tokenizer.json"))


def gristmill(folder: Path, *, seen: bool) -> Work:
    """From Arrow to Arrow."""
    from corpus.encoding.encoder import Encoder
    from corpus.tokenizer import parse_tokenizer, vocabulary_size
    from corpus.tokens import encode_documents
    from storage.schemas import token_type

    tokenizer = parse_tokenizer((folder / "tokenizer.json").read_bytes(), "tokenizer.json")
    dtype = token_type(vocabulary_size(tokenizer))
    texts = load_texts(folder)
    ids = pa.array([row.to_bytes(16, "big") for row in range(len(texts))], pa.binary(16))
    encoder = Encoder(tokenizer)
    warm_up = slice(None) if seen else slice(0, 1)
    encode_documents(encoder, ids[warm_up], texts[warm_up], None, dtype)
    if not seen:
        encoder = Encoder(tokenizer)

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


def tiktoken(folder: Path) -> Work:
    """The same vocabulary in tiktoken, a text a call, into one numpy array of uint16."""
    import numpy as np
    from tiktoken import Encoding

    from corpus.encoding.encoder import byte_alphabet
    from corpus.encoding.patterns import PATTERNS

    value = {character: byte for byte, character in enumerate(byte_alphabet())}
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    special = {token: number for token, number in vocabulary.items() if number == 0}
    ranks = {bytes(map(value.__getitem__, token)): number for token, number in vocabulary.items() if number}
    encoding = Encoding("own", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens=special)
    texts = load_texts(folder)
    strings = texts.to_pylist()

    def work() -> Result:
        tokens = np.concatenate([np.array(encoding.encode_ordinary(text), np.uint16) for text in strings])
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
            "imports, compiling, training and loading the tokeniser, reading the texts and turning them into Python "
            "strings for the others.",
            prepare,
            {
                "gristmill": partial(gristmill, seen=True),
                "gristmill, first sight": partial(gristmill, seen=False),
                "tokenizers encode_batch_fast": partial(encode_batch, method="encode_batch_fast"),
                "tiktoken encode_ordinary": tiktoken,
            },
            judge,
            documents=20_000,
            repetitions=3,
            packages=("tokenizers", "tiktoken", "numba", "pyarrow", "numpy"),
            environment={"TOKENIZERS_PARALLELISM": "false"},
        )
    )
