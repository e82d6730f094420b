"""What does it cost to change text while it is shown? Batches of `model.data.Loader` with `model.augment`, and without.

256 sequences of 1,024 tokens, documents packed whole, a byte-level BPE of 8,000 tokens. Noise, dropout and masks take
15% of the tokens, every document's sentences change places, half of the words of a table of 2,000 are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.timing import Benchmark, Result, Work, main

LENGTH, BATCH, READ, VOCABULARY, WORDS = 1024, 16, 256, 8_000, 2_000
RESULT = Result({"M tokens": READ * LENGTH / 1e6})
KINDS: Mapping[str, Mapping[str, Any]] = {
    "token_noise": {"token_noise": 0.15},
    "span_masking": {"span_masking": 0.15, "mask_token": "<|mask|>"},
    "token_dropout": {"token_dropout": 0.15},
    "sentence_shuffle": {"sentence_shuffle": 1.0},
    "synonyms": {"synonym_rate": 0.5, "synonyms": "table"},
}


def prepare(documents: pa.Table, folder: Path) -> None:
    """A tokeniser, a token shard and a table of synonyms: the most frequent words of 4 letters or more, two by two."""
    from collections import Counter

    from corpus.config import TokenizerConfig
    from corpus.encoding.encoder import Encoder
    from corpus.tokenizer import train_tokenizer
    from corpus.tokens import encode_documents
    from storage.arrow_files import write_ipc
    from storage.schemas import token_schema

    texts = documents.column("text")
    config = TokenizerConfig(vocabulary_size=VOCABULARY, special_tokens=("<|endoftext|>", "<|mask|>"))
    tokenizer = train_tokenizer(texts.to_pylist(), config)
    tokenizer.save(str(folder / "tokenizer.json"))
    table = encode_documents(Encoder(tokenizer), documents.column("id"), texts, 0, pa.uint16())
    write_ipc(folder / "0.arrow", table, token_schema(pa.uint16()))
    counts = Counter(word for text in texts.to_pylist() for word in re.findall(r"[a-z]{4,}", text))
    words = [word for word, _ in counts.most_common(WORDS)]
    pairs = zip(words[::2], words[1::2], strict=True)
    (folder / "synonyms.tsv").write_text("".join(f"{a}\t{b}\n{b}\t{a}\n" for a, b in pairs), encoding="utf-8")


def batches(folder: Path, kinds: tuple[str, ...]) -> Work:
    """Batches with some of the changes."""
    from model.augment import make_augmenter
    from model.augment_config import AugmentConfig
    from model.data import Loader, TokenStream

    stream = TokenStream([folder / "0.arrow"], VOCABULARY, 0)
    loader = Loader(stream, LENGTH, shuffle_seed=1, document_mask=True, packing="pack")
    settings = {name: value for kind in kinds for name, value in KINDS[kind].items()}
    if "synonyms" in settings:
        settings["synonyms"] = str(folder / "synonyms.tsv")
    augmenter = make_augmenter(AugmentConfig(**settings), str(folder / "tokenizer.json"), VOCABULARY, 0)

    def work() -> Result:
        for start in range(0, READ, BATCH):
            positions = range(start, start + BATCH)
            batch = loader.batch(positions)
            if augmenter is not None:
                batch = augmenter.batch(batch, positions)
            assert batch.tokens.shape == (BATCH, LENGTH)
        return RESULT

    return work


if __name__ == "__main__":
    peers = {"batches alone": partial(batches, kinds=())}
    peers |= {kind: partial(batches, kinds=(kind,)) for kind in KINDS}
    main(
        Benchmark(
            "imports, training the tokeniser, encoding, opening the shard, packing.",
            prepare,
            {**peers, "all of them": partial(batches, kinds=tuple(KINDS))},
            documents=10_000,
            repetitions=3,
            packages=("numpy", "torch"),
        )
    )
