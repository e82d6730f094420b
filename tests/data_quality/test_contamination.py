"""Overlaps with evaluation sets against the definition in plain Python, and what must not hide an item."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_quality.contamination import EXCERPT_CHARACTERS, ContaminationIndex, build_index, find_overlaps
from data_quality.quality_config import DecontaminateConfig
from data_quality.words import split_words
from storage.schemas import OVERLAPS

CONFIG = DecontaminateConfig()
QUESTION = (
    "Which of the following planets of our solar system has the largest number of known moons, and in which year "
    "was the most recent of them found by astronomers?"
)


def item_table(texts: list[str]) -> pa.Table:
    names = [f"item-{i}" for i in range(len(texts))]
    return pa.table({"eval_set": ["set"] * len(texts), "eval_item": names, "text": pa.array(texts, pa.string())})


def identifiers(count: int) -> pa.Array:
    return pa.array([number.to_bytes(16, "big") for number in range(count)], pa.binary(16))


def overlaps(
    documents: list[str], items: list[str], config: DecontaminateConfig = CONFIG
) -> list[tuple[int, int, float, str]]:
    index = build_index(item_table(items), config)
    table = find_overlaps(identifiers(len(documents)), pa.array(documents, pa.large_string()), index, config)
    assert table.schema == OVERLAPS
    return [
        (int.from_bytes(row["id"], "big"), int(row["eval_item"].removeprefix("item-")), row["overlap"], row["text"])
        for row in table.to_pylist()
    ]


def grams_of(words: list[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]


def plain_overlaps(
    documents: list[str], items: list[str], config: DecontaminateConfig
) -> list[tuple[int, int, float, list[str]]]:
    """Document, item, overlap, and the folded words of the longest run."""
    sizes = [min(len(split_words(item)), config.ngram) for item in items]
    item_grams = [
        set(grams_of(split_words(item), size)) if len(split_words(item)) >= config.shortest_item else set()
        for item, size in zip(items, sizes, strict=True)
    ]
    used = Counter(gram for grams in item_grams for gram in grams)
    item_grams = [{gram for gram in grams if used[gram] <= config.stock_phrase_items} for grams in item_grams]
    found = []
    for d, document in enumerate(documents):
        words = split_words(document)
        for i, grams in enumerate(item_grams):
            windows = [gram in grams for gram in grams_of(words, sizes[i])]
            matched = grams & set(grams_of(words, sizes[i]))
            if not matched or np.float32(len(matched) / len(grams)) < np.float32(config.minimum_overlap):
                continue
            runs = [0]
            for hit in windows:
                runs.append(runs[-1] + 1 if hit else 0)
            last = runs.index(max(runs)) - 1  # the first run of the greatest length, by its last window
            text = words[last - max(runs) + 1 : last + sizes[i]]
            found.append((d, i, float(np.float32(len(matched) / len(grams))), text))
    return found


def is_found_as_defined(documents: list[str], items: list[str], config: DecontaminateConfig) -> None:
    found = overlaps(documents, items, config)
    expected = plain_overlaps(documents, items, config)
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    for (document, *_, text), (*_, words) in zip(found, expected, strict=True):
        assert text in documents[document]
        if len(text) < EXCERPT_CHARACTERS:
            assert split_words(text) == words
        else:
            assert len(text) == EXCERPT_CHARACTERS


few_words = st.lists(
    st.sampled_from(["a ", "B ", "b, ", "c\n", "中", "文。", "don't ", "É ", "e\u0301 ", "🙂", "- ", "ไทย", "x中y "]),
    max_size=40,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(few_words, min_size=1, max_size=4),
    st.lists(few_words, max_size=6),
    st.builds(
        DecontaminateConfig,
        ngram=st.integers(2, 6),
        shortest_item=st.integers(1, 4),
        stock_phrase_items=st.integers(1, 6),
        minimum_overlap=st.sampled_from([0.01, 0.1, 0.5, 1.0]),
    ),
)
def test_every_overlap_is_what_its_definition_says(
    documents: list[str], items: list[str], config: DecontaminateConfig
) -> None:
    is_found_as_defined(documents, items, config)


def test_a_planted_item_is_found_whatever_its_case_punctuation_and_line_breaks() -> None:
    around = "Some unrelated words stand here before it. {} And some more of them after."
    disguised = QUESTION.upper().replace(",", " --").replace("?", "!!").replace(" of ", "\n\n*of* ")
    found = overlaps([around.format(QUESTION), around.format(disguised), around.format("nothing")], [QUESTION])
    assert [row[:3] for row in found] == [(0, 0, 1.0), (1, 0, 1.0)]
    assert found[0][3] == QUESTION.rstrip("?")
    assert found[1][3] == disguised.rstrip("!")


def test_a_part_of_an_item_is_found_with_its_share() -> None:
    words = QUESTION.split()
    windows = len(words) - 12
    [(_, _, overlap, text)] = overlaps([" ".join(words[:15])], [QUESTION])
    assert overlap == pytest.approx(3 / windows)
    assert text == " ".join(words[:15])
    assert overlaps([" ".join(words[:12])], [QUESTION]) == []


def test_chinese_is_compared_by_characters_and_punctuation_does_not_hide_it() -> None:
    item = "下列哪一颗行星拥有最多的已知卫星数量呢?"
    document = "题目:「下列哪一颗行星,拥有最多的已知卫星数量呢」请回答。"
    [(_, _, overlap, text)] = overlaps([document], [item])
    assert overlap == 1.0
    assert text == "下列哪一颗行星,拥有最多的已知卫星数量呢"


def test_a_short_item_is_matched_whole_and_a_very_short_one_is_counted_and_ignored() -> None:
    items = ["What is the capital of France?", "Yes, it is."]
    found = overlaps(["Yes, it is: what is the capital of France", "what is the capital of Spain"], items)
    assert [row[:3] for row in found] == [(0, 0, 1.0)]
    assert build_index(item_table(items), CONFIG).counts["short_items"] == 1


def test_a_phrase_of_many_items_is_ignored_and_counted() -> None:
    template = "Read the passage below with care and then answer the question that follows it in a few words"
    items = [f"{template} number {i} {QUESTION.replace('moons', f'moons{i}')}" for i in range(9)]
    assert overlaps([template], items) == []
    counts = build_index(item_table(items), CONFIG).counts
    assert counts["stock_phrases"] > 0
    assert counts["stock_items"] == 0
    assert build_index(item_table([template] * 9), CONFIG).counts["stock_items"] == 9
    assert len(overlaps([template], items[:8])) == 8


def test_equal_hashes_of_different_words_are_no_hit() -> None:
    index = build_index(item_table([QUESTION]), CONFIG)
    other_words = replace(index, letters=index.letters + np.uint32(1))  # the hashes stay as they were
    texts = pa.array([QUESTION], pa.large_string())
    assert find_overlaps(identifiers(1), texts, index, CONFIG).num_rows == 1
    assert find_overlaps(identifiers(1), texts, other_words, CONFIG).num_rows == 0


def test_the_index_survives_being_written_and_gives_the_same_bytes() -> None:
    index = build_index(item_table([QUESTION, "中文" * 9, "short", ""]), CONFIG)
    copy = ContaminationIndex.from_npz(index.to_npz())
    assert (
        copy.to_npz() == index.to_npz() == build_index(item_table([QUESTION, "中文" * 9, "short", ""]), CONFIG).to_npz()
    )
    assert (copy.items, copy.counts, copy.ngram) == (index.items, index.counts, index.ngram)
    texts = pa.array([QUESTION + "中文" * 9], pa.large_string())
    before = find_overlaps(identifiers(1), texts, index, CONFIG)
    assert before.num_rows == 2
    assert find_overlaps(identifiers(1), texts, copy, CONFIG).equals(before)


@pytest.mark.parametrize("damaged", [b"", b"no archive", b"PK\x03\x04"])
def test_a_damaged_index_is_refused(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="build it again"):
        ContaminationIndex.from_npz(damaged)


def test_wrong_input_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="lacks eval_item"):
        build_index(item_table(["a"]).drop_columns(["eval_item"]), CONFIG)
    with pytest.raises(ValueError, match="two evaluation items are called 'item-0' in the set 'set'"):
        build_index(pa.concat_tables([item_table(["a"]), item_table(["b"])]), CONFIG)
    index = build_index(item_table([QUESTION]), CONFIG)
    with pytest.raises(ValueError, match=r"13-grams but decontaminate\.ngram is 8"):
        find_overlaps(identifiers(1), pa.array(["a"], pa.large_string()), index, replace(CONFIG, ngram=8))


def test_no_items_and_no_documents_give_an_empty_table() -> None:
    assert overlaps(["some text"], []) == []
    assert overlaps(["some text"], ["", "one"]) == []
    assert overlaps([], [QUESTION]) == []


def test_more_overlaps_than_first_made_room_for_are_all_found() -> None:
    found = overlaps([QUESTION] * 700, [QUESTION, QUESTION.upper()])
    assert [row[:2] for row in found] == [(d, i) for d in range(700) for i in range(2)]


def test_a_long_overlap_is_cut_between_characters() -> None:
    item = "".join(chr(0x4E00 + i) for i in range(3000))
    [(_, _, overlap, text)] = overlaps(["序" + item], [item])
    assert (overlap, text) == (1.0, item[:EXCERPT_CHARACTERS])


def ag_news(shared_data: Path) -> tuple[list[str], list[str]]:
    def rows(name: str) -> list[list[str]]:
        packed = (shared_data / "classification/ag_news" / name).read_bytes()
        return list(csv.reader(io.StringIO(gzip.decompress(packed).decode())))

    return [row[0] for row in rows("train_5k.csv.gz")], [f"{row[1]} {row[2]}" for row in rows("test.csv.gz")]


def test_the_text_of_ag_news_that_stands_in_train_and_test_is_found(shared_data: Path) -> None:
    train, test = ag_news(shared_data)
    shared = {" ".join(split_words(text)) for text in train} & {" ".join(split_words(text)) for text in test}
    assert shared
    complete = {
        (" ".join(split_words(train[d])), " ".join(split_words(test[i])))
        for d, i, overlap, _ in overlaps(train, test)
        if overlap == 1.0
    }
    assert {(text, text) for text in shared} <= complete


def test_real_news_overlaps_are_what_the_definition_says(shared_data: Path) -> None:
    train, test = ag_news(shared_data)
    hits = overlaps(train, test)
    documents = [train[d] for d in sorted({row[0] for row in hits})][:40] + train[:40]
    items = [test[i] for i in sorted({row[1] for row in hits})][:80] + test[:80]
    is_found_as_defined(documents, items, CONFIG)


def test_paragraphs_of_twelve_languages_are_found_where_they_are_quoted(shared_data: Path) -> None:
    packed = (shared_data / "langid/xquad_paragraphs_12_languages.jsonl.gz").read_bytes()
    texts = [json.loads(line)["text"] for line in gzip.decompress(packed).decode().splitlines()][::30]
    # Full upper case is no inverse of simple folding ("ß", final sigma), so single letters only change their case.
    documents = ["Before.\n\n" + text.replace(" ", " *\n").replace("a", "A") + "\n\nAfter." for text in texts]
    found = {(d, i) for d, i, overlap, _ in overlaps(documents, texts) if overlap == 1.0}
    assert {(i, i) for i in range(len(texts))} <= found
