"""Repeated lines, paragraphs and runs of words against their definitions in plain Python, however they are divided."""

from __future__ import annotations

import gzip
import json
import random
import unicodedata
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from data_quality.repeats import (
    CANDIDATES,
    KINDS,
    PLACES,
    REPEATED,
    count_fragments,
    find_holders,
    find_places,
    mark_lines,
    mark_words,
    merge,
    of_part,
)
from data_quality.repeats_config import RepeatsConfig
from data_quality.words import OWN_WORD, WORD, character_classes, fold_table

Documents = list[tuple[int, str]]
Spans = set[tuple[int, str, int, int]]
"""Document, kind, start, end."""

SPACES = " \t\n\v\f\r"


def merged(
    parts: list[pa.Table], counted: list[bool], schema: pa.Schema, config: RepeatsConfig, ranges: int
) -> list[pa.Table]:
    """What every part holds of the repeated rows, found range by range."""
    edges = [2**64 * number // ranges for number in range(ranges + 1)]
    found = []
    for low, high in pairwise(edges):
        held = []
        for part in parts:
            hashes = part.column("hash").to_pylist()
            some = part.filter(pa.array([low <= value < high for value in hashes], pa.bool_()))
            held.append({name: some.column(name).to_numpy() for name in some.column_names})
        found.append(merge(held, counted, schema, config))
    return [pa.concat_tables([of_part(table, part) for table in found]) for part in range(len(parts))]


def repeats(
    parts: list[Documents], config: RepeatsConfig, counted: list[bool] | None = None, ranges: int = 1
) -> tuple[Spans, int]:
    """Spans that are cut, by document, and the number of collisions."""
    counted = counted or [True] * len(parts)
    texts = [pa.array([text for _, text in part], pa.large_string()) for part in parts]
    owners = [np.array([number for number, _ in part], np.uint64) for part in parts]
    counts = [count_fragments(part, config) for part in texts]
    merged_fragments = merged([fragments for fragments, _ in counts], counted, CANDIDATES, config, ranges)
    candidates = [table.column("hash").to_numpy() for table in merged_fragments]
    # From here on only the documents in which there may be anything.
    held = [find_holders(*count, hashes) for count, hashes in zip(counts, candidates, strict=True)]
    texts = [part.take(pa.array(rows)) for part, rows in zip(texts, held, strict=True)]
    owners = [numbers[rows] for numbers, rows in zip(owners, held, strict=True)]
    places = [find_places(*row, config) for row in zip(texts, owners, candidates, strict=True)]
    assert all(table.schema == PLACES for table, _ in places)
    found = merged([table for table, _ in places], counted, REPEATED, config, ranges)
    spans: Spans = set()
    collisions = 0
    for part, table, owner in zip(texts, found, owners, strict=True):
        assert table.schema == REPEATED
        kinds = table.column("hash").to_numpy() & np.uint64(3)
        for kind, name in enumerate(KINDS):
            if (config.line_documents, config.paragraph_documents, config.substring_words)[kind] is None:
                continue
            rows = table.filter(pa.array(kinds == kind))
            compared = pa.array(
                [
                    places[p][1].column("text")[t].as_py()
                    for p, t in zip(rows["part"].to_pylist(), rows["text"].to_pylist(), strict=True)
                ],
                pa.large_string(),
            )
            if name == "words":
                marked = mark_words(part, owner, rows, compared, np.arange(len(compared)), config)
            else:
                marked = mark_lines(part, kind, rows, compared, config)
            collisions += marked.collisions.size
            for row, start, end in zip(marked.rows, marked.starts, marked.ends, strict=True):
                spans.add((int(owner[row]), name, int(start), int(end)))
    return spans, collisions


# ------------------------------------------------------------------------------------------- the definitions


def plain_lines(text: str) -> list[tuple[bytes, int, int]]:
    """Stripped line, and what would be cut."""
    found, position = [], 0
    data = text.encode()
    for line in data.split(b"\n"):
        end = min(position + len(line) + 1, len(data))
        found.append((line.strip(SPACES.encode()), position, end))
        position = end
    return [row for row in found if row[0]]


def plain_paragraphs(text: str) -> list[tuple[bytes, int, int]]:
    data = text.encode()
    lines = data.split(b"\n")
    starts = np.concatenate([[0], np.cumsum([len(line) + 1 for line in lines])]).tolist()
    filled = [bool(line.strip(SPACES.encode())) for line in lines]
    firsts = [i for i, full in enumerate(filled) if full and not (i and filled[i - 1])]
    found = []
    for number, first in enumerate(firsts):
        last = first
        while last + 1 < len(lines) and filled[last + 1]:
            last += 1
        begin = 0 if number == 0 else starts[first]
        end = starts[firsts[number + 1]] if number + 1 < len(firsts) else len(data)
        found.append((data[starts[first] : starts[last + 1]].strip(SPACES.encode()), begin, end))
    return found


def plain_words(text: str) -> list[tuple[str, int, int]]:
    """Folded words and their bytes, character by character."""
    classes, folds = character_classes(), fold_table()
    found: list[tuple[str, int, int]] = []
    previous, position = 0, 0
    for character in text:
        code, size = ord(character), len(character.encode())
        kind, folded = int(classes[code]), chr(folds[code])
        if kind == OWN_WORD or (kind == WORD and previous != WORD):
            found.append((folded, position, position + size))
        elif kind == WORD:
            found[-1] = (found[-1][0] + folded, found[-1][1], position + size)
        previous = kind
        position += size
    return found


def whole(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without marks at its borders that would be parted from their letters."""

    def is_mark(character: str) -> bool:
        return character == "\u200d" or unicodedata.ucd_3_2_0.category(character)[0] == "M"

    data = text.encode()
    inside, behind = data[start:end].decode(), data[end:].decode()
    while inside and is_mark(inside[0]):
        inside, start = inside[1:], start + len(inside[0].encode())
    following = behind[:1]
    while inside and following and is_mark(following):
        inside, following = inside[:-1], inside[-1]
    return start, start + len(inside.encode())


def plain_repeats(parts: list[Documents], config: RepeatsConfig, counted: list[bool] | None = None) -> Spans:
    counted = counted or [True] * len(parts)
    documents = [(owner, text, counts) for part, counts in zip(parts, counted, strict=True) for owner, text in part]
    spans: Spans = set()
    for name, most, shortest, split in (
        ("line", config.line_documents, config.shortest_line, plain_lines),
        ("paragraph", config.paragraph_documents, config.shortest_paragraph, plain_paragraphs),
    ):
        if most is None:
            continue
        holders = defaultdict(set)
        for number, (_, text, counts) in enumerate(documents):
            for passage, _, _ in split(text):
                if counts and len(passage) >= shortest:
                    holders[passage].add(number)
        for owner, text, _ in documents:
            for passage, start, end in split(text):
                if len(holders.get(passage, ())) > most:
                    spans.add((owner, name, start, end))
    if config.substring_words:
        width = config.substring_words
        windows = defaultdict(set)
        split_texts = [plain_words(text) for _, text, _ in documents]
        for number, words in enumerate(split_texts):
            for i in range(len(words) - width + 1):
                if documents[number][2]:
                    windows[tuple(word for word, _, _ in words[i : i + width])].add(number)
        for (owner, text, _), words in zip(documents, split_texts, strict=True):
            covered = np.zeros(len(words) + 1, bool)
            joined = np.zeros(len(words) + 1, bool)  # whether a word is cut together with what stands before it
            before = -2
            for i in range(len(words) - width + 1):
                holders = windows.get(tuple(word for word, _, _ in words[i : i + width]), set())
                if len(holders) <= config.substring_documents:
                    continue
                first = min(documents[holder][0] for holder in holders)
                if config.substring_keep == "first" and first == owner:
                    continue
                joined[i + 1 : i + width] = True
                joined[i] |= before >= 0 and i <= before + width
                covered[i : i + width] = True
                before = i
            i = 0
            while i < len(words):
                if covered[i]:
                    j = i + 1
                    while j < len(words) and covered[j] and joined[j]:
                        j += 1
                    start, end = whole(text, words[i][1], words[j - 1][2])
                    if start < end:
                        spans.add((owner, "words", start, end))
                    i = j
                else:
                    i += 1
    return spans


# ------------------------------------------------------------------------------------------------ tests

_PLAIN = ["a ", "b ", "A,", "c", "\n", "\n\n", " \t\n"]
_MARKED = ["中", "文", "か\u3099", "e\u0301 ", "ไทย", "กี่", "🙂", "👩\u200d🔬 ", "É ", "\u0301"]
pieces = st.sampled_from(_PLAIN + _MARKED)
texts = st.lists(pieces, max_size=30).map("".join)
configs = st.builds(
    RepeatsConfig,
    line_documents=st.one_of(st.none(), st.integers(1, 3)),
    shortest_line=st.integers(1, 4),
    paragraph_documents=st.integers(1, 3),
    shortest_paragraph=st.integers(1, 8),
    substring_words=st.one_of(st.none(), st.integers(4, 9)),
    substring_documents=st.integers(1, 3),
    substring_keep=st.sampled_from(["first", "none"]),
    seed=st.integers(0, 3),
)


@settings(max_examples=400, deadline=None)
@given(st.data(), st.lists(texts, min_size=1, max_size=7), configs, st.sampled_from([1, 2, 7]))
def test_every_cut_is_what_its_definition_says_in_any_division(
    data: st.DataObject, found: list[str], config: RepeatsConfig, ranges: int
) -> None:
    documents = list(enumerate(found))
    order = data.draw(st.permutations(documents))
    cut = data.draw(st.integers(0, len(order)))
    parts = [list(order[:cut]), list(order[cut:])]
    assert repeats(parts, config, ranges=ranges) == (plain_repeats([documents], config), 0)


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, min_size=1, max_size=5), st.lists(texts, max_size=3), configs)
def test_sources_that_are_not_counted_are_cut_and_change_no_cut(
    counted: list[str], new: list[str], config: RepeatsConfig
) -> None:
    old = [(2 * number + 1, text) for number, text in enumerate(counted)]
    added = [(2 * number, text) for number, text in enumerate(new)]  # smaller ids than some of the old
    alone, _ = repeats([old], config)
    together, _ = repeats([added, old], config, [False, True])
    assert {span for span in together if span[0] % 2} == alone
    assert together == plain_repeats([added, old], config, [False, True])


def spanned(found: Spans, documents: Documents) -> dict[str, set[str]]:
    """What is cut, by kind."""
    texts_by_owner = {owner: text.encode() for owner, text in documents}
    cut = defaultdict(set)
    for owner, kind, start, end in found:
        cut[kind].add(texts_by_owner[owner][start:end].decode())
    return cut


WORDS = RepeatsConfig(line_documents=None, substring_words=4)


def test_a_copied_passage_is_found_whatever_its_case_punctuation_and_line_breaks() -> None:
    documents = [(1, "x1 one two three four five x2"), (2, "y1 ONE, two\n(three) -- four: Five! y2")]
    assert repeats([documents], WORDS) == ({(2, "words", 3, 33)}, 0)
    assert spanned(repeats([documents], WORDS)[0], documents)["words"] == {"ONE, two\n(three) -- four: Five"}


def test_repeats_that_overlap_are_one_cut() -> None:
    documents = [(1, "a b c d e x"), (2, "y d e f g h"), (3, "a b c d e f g h")]
    assert spanned(repeats([documents], WORDS)[0], documents)["words"] == {"a b c d e f g h"}
    documents = [(1, "a b c d e f x"), (2, "y c d e f g h"), (3, "a b c d e f g h")]
    assert spanned(repeats([documents], WORDS)[0], documents)["words"] == {"a b c d e f g h", "c d e f"}


def test_a_cut_never_parts_a_letter_from_its_marks() -> None:
    # Here a mark behind a kana is a word of its own, which windows of words may end between.
    quoted = "かきくけこさし"
    documents = [(1, f"x {quoted}\u0301 y"), (2, f"z {quoted} w"), (3, f"\u0301{quoted}")]
    cut = spanned(repeats([documents], WORDS)[0], documents)["words"]
    assert cut == {quoted}
    documents = [(1, f"z {quoted} w"), (2, f"x {quoted}\u0301 y")]
    assert spanned(repeats([documents], WORDS)[0], documents)["words"] == {quoted[:-1]}


def test_equal_hashes_of_different_passages_are_no_repeat() -> None:
    texts = pa.array(["one line of text\na line d e f g"] * 3, pa.large_string())
    owners = np.arange(3, dtype=np.uint64)
    config = RepeatsConfig(line_documents=1, substring_words=4)
    hashes = count_fragments(texts, config)[0]["hash"].to_numpy()
    places, found = find_places(texts, owners, hashes, config)
    for kind, name in ((0, "line"), (2, "words")):
        rows = places.filter(pa.array((places["hash"].to_numpy() & np.uint64(3)) == kind))
        rows = rows.append_column("part", pa.array([0] * rows.num_rows)).select(REPEATED.names)
        for forge in (False, True):
            compared = [found["text"][i].as_py() for i in rows["text"].to_pylist()]
            if forge:
                compared = [text.replace("one line", "one lime") for text in compared]
            others = pa.array(compared, pa.large_string())
            if name == "line":
                marked = mark_lines(texts, 0, rows, others, config)
                assert marked.rows.tolist() == ([0, 1, 2] if forge else [0, 0, 1, 1, 2, 2]), (
                    "the other line has its own text"
                )
                assert marked.collisions.size == (3 if forge else 0)
            else:
                marked = mark_words(texts, owners, rows, others, np.arange(len(others)), config)
                assert marked.rows.tolist() == [1, 2]
                assert marked.starts.tolist() == ([9, 9] if forge else [0, 0])
                assert marked.collisions.size == (6 if forge else 0)


def test_hard_texts_are_done_in_one_go() -> None:
    line = "The same line, over and over.\n"
    many = [(number, line) for number in range(100_000)]
    config = RepeatsConfig(substring_words=5)
    found, _ = repeats([many], config)
    assert len(found) == 2 * len(many) - 1, "every line, and all runs but the first"
    long = [(1, line * 300_000), (2, line * 100_000 + "and an end of its own")]
    found, _ = repeats([long], config)
    assert {(owner, kind) for owner, kind, *_ in found} == {(2, "words")}, "two documents are not more than six"
    assert len(found) == 1
    assert repeats([[(number, "") for number in range(1000)]], config) == (set(), 0)
    assert repeats([[], []], config) == (set(), 0)
    assert repeats([], config) == (set(), 0)


def test_real_texts_of_twelve_languages_and_their_copies(shared_data: Path) -> None:
    packed = gzip.decompress((shared_data / "langid/xquad_paragraphs_12_languages.jsonl.gz").read_bytes())
    real = [json.loads(line)["text"] for line in packed.decode().splitlines()][::20]
    chance = random.Random(4)
    found = []
    for text in real:
        other = chance.choice(real)
        start = chance.randrange(len(other))
        found.append(f"{text[: len(text) // 2]}\n{other[start : start + 200]}\n{text[len(text) // 2 :]}")
    documents = list(enumerate(real + found))
    config = RepeatsConfig(line_documents=1, paragraph_documents=1, substring_words=13)
    cut, collisions = repeats([documents[::2], documents[1::2]], config)
    assert cut == plain_repeats([documents], config)
    assert collisions == 0
    assert len({owner for owner, kind, *_ in cut if kind == "words"}) > len(real)


def test_real_documents_with_repeated_lines(shared_data: Path) -> None:
    packed = gzip.decompress((shared_data / "text/c4_en_300.jsonl.gz").read_bytes())
    documents = list(enumerate(json.loads(line)["text"] for line in packed.decode().splitlines()))
    config = RepeatsConfig(line_documents=1, paragraph_documents=1, substring_words=6)
    cut, _ = repeats([documents[:100], documents[100:]], config)
    assert cut == plain_repeats([documents], config)
    assert len(cut) > 20
