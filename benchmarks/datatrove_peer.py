"""datatrove at one task, in the interpreter that has it: run by `benchmarks.datatrove`, one process a measurement.

It sets up (imports, spaCy, a few documents to warm up), says "ready", does the work when it reads a line, answers with
what came out as JSON, and waits to be ended, so that its seconds and memory can be read.

    python -m benchmarks.datatrove_peer TASK FOLDER OPTIONS
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import datatrove.pipeline.filters.fineweb_quality_filter as fineweb_module
import datatrove.pipeline.filters.gopher_quality_filter as quality_module
import datatrove.pipeline.filters.gopher_repetition_filter as repetition_module
import numpy as np
from datatrove.data import Document
from datatrove.pipeline.decont import n_grams
from datatrove.pipeline.dedup import minhash, sentence_dedup
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import ParquetReader
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.text import ngrams, simplify_text
from loguru import logger

from benchmarks.agreement_peer import given_words

WARM = 20
Run = Callable[[int], Any]
"""Does a task on the first documents (-1: all of them); what came out."""


def read(folder: Path, limit: int) -> Iterator[Any]:
    """Its reader of Parquet: text and id."""
    yield from ParquetReader(str(folder), glob_pattern="documents.parquet", read_metadata=False, limit=limit).run()


class GivenWords:
    """In place of a word tokenizer of datatrove."""

    def word_tokenize(self, text: str) -> list[str]:
        """Our words."""
        return given_words(text)


def filters(folder: Path, words: str, chained: bool) -> Run:
    """The four families with their defaults: one behind the other in FineWeb's order, or each on every text."""
    if words == "given":
        for module in (quality_module, repetition_module, fineweb_module):
            module.split_into_words = given_words
    made = [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=not chained),
        FineWebQualityFilter(),
    ]

    def run(limit: int) -> list[int]:
        documents: Iterable[Any] = read(folder, limit)
        if chained:
            for each in made:
                documents = each.run(documents)
            return [sum(1 for _ in documents)]
        kept = [0] * len(made)
        for document in documents:
            for number, each in enumerate(made):
                kept[number] += each.filter(Document(text=document.text, id=document.id)) is True
        return kept

    return run


def dedup(folder: Path, words: str) -> Run:
    """MinHash in four steps, 14 bands of 8, one task; the kept documents are counted and not written."""
    config = minhash.MinhashConfig()

    def run(limit: int) -> list[int]:
        work = Path(tempfile.mkdtemp(dir=folder))
        signatures, buckets, clusters = (str(work / name) for name in ("signatures", "buckets", "clusters"))
        signing = minhash.MinhashDedupSignature(signatures, config)
        if words == "given":
            signing.word_tokenizer = GivenWords()
        signing.run(read(folder, limit))
        for rank in range(config.num_buckets):
            minhash.MinhashDedupBuckets(signatures, buckets, config=config, lines_to_buffer=-1).run(
                None, rank, config.num_buckets
            )
        minhash.MinhashDedupCluster(buckets, clusters, config=config, lines_to_buffer=-1).run()
        filtering = minhash.MinhashDedupFilter(clusters, lines_to_buffer=-1)
        kept = [document.id for document in filtering.run(read(folder, limit))]
        shutil.rmtree(work)
        return sorted(int.from_bytes(name, "big") for name in kept)

    return run


def contamination(folder: Path, words: str, items: str) -> Run:
    """n-grams of the items among those of every document.

    `NGramsDecontIndexer` itself needs lighteval; the index is made by its own lines without their download.
    """
    config = n_grams.NGramsDecontConfig(n_grams=13)
    filtering = n_grams.NGramsDecontFilter(str(folder), config)
    if words == "given":
        filtering.tokenizer = GivenWords()
    hashed = create_hash_func(config.hash_config)
    filtering._index_hashes = {
        hashed(" ".join(gram)): "held-out"
        for text in json.loads((folder / items).read_text(encoding="utf-8"))
        for gram in ngrams(filtering.tokenizer.word_tokenize(simplify_text(text, config.norm_config)), config.n_grams)
    }

    def run(limit: int) -> list[int]:
        hits = [document.id for document in read(folder, limit) if filtering.filter(document) is not True]
        return [int.from_bytes(name, "big") for name in hits]

    return run


def spans(folder: Path, sentences: bool) -> Run:
    """Its sentence deduplication in three steps: spans of three sentences, or single lines; what is left is counted."""
    config = sentence_dedup.SentDedupConfig(
        n_sentences=3 if sentences else 1, split_sentences=sentences, min_doc_words=-1, min_num_sentences=-1
    )

    def run(limit: int) -> list[list[int]]:
        work = Path(tempfile.mkdtemp(dir=folder))
        signatures, duplicates = str(work / "signatures"), str(work / "duplicates")
        sentence_dedup.SentenceDedupSignature(signatures, config=config).run(read(folder, limit))
        sentence_dedup.SentenceFindDedups(signatures, duplicates, config=config, lines_to_buffer=-1).run()
        removing = sentence_dedup.SentenceDedupFilter(duplicates, config=config)
        left = [(document.id, len(document.text.encode())) for document in removing.run(read(folder, limit))]
        shutil.rmtree(work)
        return [[int.from_bytes(name, "big"), size] for name, size in left]

    return run


TASKS: dict[str, Callable[..., Run]] = {
    "filters": filters,
    "dedup": dedup,
    "contamination": contamination,
    "spans": spans,
}


def main(task: str, folder: str, options: str) -> None:
    logger.remove()
    np.seterr(over="ignore")
    run = TASKS[task](Path(folder), **json.loads(options))
    run(WARM)
    print("ready", flush=True)
    if sys.stdin.readline():
        print(json.dumps(run(-1)), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
