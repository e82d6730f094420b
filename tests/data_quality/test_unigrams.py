"""Word tables: counted as defined, sampled by id alone, looked up by the compiled pass as by a dictionary."""

from __future__ import annotations

import random
from collections import Counter

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.texts import document_id
from data_quality.features import compute_features
from data_quality.quality_config import QualityConfig
from data_quality.unigrams import UNIGRAMS, UnigramCounter, UnigramSample, load_unigrams
from storage.schemas import ID_FIELD
from tests.data_quality.plain_features import cores, plain_features

WORDS = st.sampled_from(
    ["the", "The,", "(THE)", "Привет", "привет!", "中文", "ſtop", "stop", "🙂", "\u200d", "x2", "\n"]
)
TEXTS = st.lists(st.lists(WORDS, max_size=20).map(" ".join), max_size=5)


def strings(texts: list[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.lists(st.text(max_size=100), max_size=3), st.integers(1, 6))
def test_words_are_counted_and_looked_up_as_defined(texts: list[str], others: list[str], words: int) -> None:
    counter = UnigramCounter()
    for text in [*texts, *others]:
        counter.add(strings([text]))
    counted = Counter(core for text in [*texts, *others] for core in cores(text))
    wanted = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:words]
    table = counter.table(words)
    assert table.schema == UNIGRAMS
    assert [(row["word"], row["count"]) for row in table.to_pylist()] == wanted
    config = QualityConfig(identify_language=False, unigram_table="corpus")
    rows = compute_features(strings(texts), config, unigrams=load_unigrams(table)).to_pylist()
    for text, row in zip(texts, rows, strict=True):
        expected = plain_features(text, config, dict(wanted))["unigram_log_probability"]
        assert row["unigram_log_probability"] == expected


def test_a_sample_is_the_documents_of_the_smallest_ids_whatever_the_parts() -> None:
    texts = [f"document {i} " * (i % 7 + 1) for i in range(300)]
    by_id = sorted(texts, key=document_id)
    for size in (1, 100, 3000, 10**6):
        wanted, total = [], 0
        for text in by_id:
            if total < size:
                wanted.append(text)
                total += len(text)
        for step in (300, 37, 1):
            shuffled = random.Random(step).sample(texts, len(texts))
            sample = UnigramSample(size)
            for i in range(0, len(shuffled), step):
                part = shuffled[i : i + step]
                sample.add(pa.array([document_id(text) for text in part], ID_FIELD.type), strings(part))
            assert sample.texts().to_pylist() == wanted
