"""Passages that stand in many documents, found in three steps over parts and marked as byte spans to cut.

A **line** (or paragraph) is repeated if the same bytes, without the white space around them, stand in more than n
documents. A **run of words** is repeated if each of its windows of N folded words (`words.py`) stands in more than n
documents; so it is the union of all common substrings of at least N words, whatever their case, punctuation and line
breaks. Every passage that is marked was compared with its twin, not with a hash.

Memory is bounded by the size of a part and of a range of hashes: `count_fragments` turns the texts of a part into
hashes, `merge` adds those of all parts up, range by range, and gives every part back the repeated ones that it holds;
`find_places` does the same for the windows whose seed came back; `mark_lines` and `mark_words` cut, each part by its
own small table.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_quality import passage_kernels, repeats_kernels
from data_quality.bands import sorted_places
from data_quality.repeats_config import RepeatsConfig
from data_quality.sketch import text_buffers, word_tables

Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

KINDS = ("line", "paragraph", "words")
"""By the two lowest bits of a hash."""
REASONS = {"line": "repeated-line", "paragraph": "repeated-paragraph", "words": "repeated-words"}

_HASH = pa.field("hash", pa.uint64(), nullable=False)
_COUNT = pa.field("documents", pa.int64(), nullable=False)
_TEXT = pa.field("text", pa.int64(), nullable=False)
_POSITION = pa.field("position", pa.int64(), nullable=False)
_FIRST = pa.field("first", pa.uint64(), nullable=False)
FRAGMENTS = pa.schema([_HASH, _COUNT])
"""Sorted hashes of lines, paragraphs and seeds of windows of one part, and how many of its documents hold each."""
HOLDERS = pa.schema([pa.field("document", pa.int32(), nullable=False)])
"""The documents that hold the first of FRAGMENTS, then those that hold the second …: numbers in the part, ascending."""
CANDIDATES = pa.schema([_HASH])
"""The FRAGMENTS of a part that are repeated in all parts together."""
PLACES = pa.schema([_HASH, _COUNT, _FIRST, _TEXT, _POSITION])
"""Sorted hashes of passages of one part that may be repeated.

`first` is the beginning of the smallest id among the documents that hold it; there its text stands: row of TEXTS, and
its first word in that row.
"""
TEXTS = pa.schema([pa.field("text", pa.large_string(), nullable=False)])
"""What repeats are compared with: lines, paragraphs and runs of words, each once a part."""
REPEATED = pa.schema([_HASH, _COUNT, _FIRST, pa.field("part", pa.int64(), nullable=False), _TEXT, _POSITION])
"""The repeated ones among the PLACES of a part, with the counts of all parts, and where their text stands."""


OWNER = pa.field("owner", pa.int32(), nullable=False)


@dataclass(frozen=True)
class Marked:
    """Spans to cut: `rows`, `starts`, `ends` (bytes in their text), in order; and what did not compare equal.

    `found` counts passages by row of REPEATED; `collisions` are rows of REPEATED, one for each document that holds
    another passage of the same hash.
    """

    rows: Integers
    starts: Integers
    ends: Integers
    found: Integers
    collisions: Integers


def limits(config: RepeatsConfig) -> Integers:
    """By kind, in how many documents a passage may stand without being repeated."""
    largest = np.iinfo(np.int64).max
    words = config.substring_documents if config.substring_words else None
    return np.array([n or largest for n in (config.line_documents, config.paragraph_documents, words)] + [largest])


def _widths(config: RepeatsConfig) -> tuple[int, int]:
    """The words of a window, and of its seed: half as many, so that one hash stands for about a quarter of a window."""
    assert config.substring_words is not None
    return config.substring_words, (config.substring_words + 1) // 2


def _seed(config: RepeatsConfig) -> np.uint64:
    return np.uint64((0x9E3779B97F4A7C15 * (2 * config.seed + 1)) % 2**64)


def _passage_kinds(config: RepeatsConfig) -> list[tuple[int, int]]:
    """(kind, smallest size in bytes) of what is compared byte by byte."""
    kinds = []
    if config.line_documents is not None:
        kinds.append((passage_kernels.LINE, config.shortest_line))
    if config.paragraph_documents is not None:
        kinds.append((passage_kernels.PARAGRAPH, config.shortest_paragraph))
    return kinds


def _grown(call: Callable[[int], tuple[int, Any]], room: int) -> Any:
    """What `call` gives when it has room for all it finds; `room` is the first try."""
    while True:
        needed, made = call(room)
        if needed <= room:
            return made
        room = needed


def _all_passages(texts: pa.LargeStringArray, kind: int, shortest: int, config: RepeatsConfig) -> Any:
    """(hashes, documents) of all lines or paragraphs."""
    data, offsets = text_buffers(texts)

    def call(room: int) -> tuple[int, Any]:
        hashes, documents = np.empty(room, np.uint64), np.empty(room, np.int64)
        number = passage_kernels.hash_passages(data, offsets, kind, shortest, _seed(config), hashes, documents)
        return number, (hashes[:number], documents[:number])

    return _grown(call, max(1024, data.size // 40))


def _passages(texts: pa.LargeStringArray, kind: int, wanted: Hashes, config: RepeatsConfig) -> Any:
    """(rows of `wanted`, documents, places) of the lines or paragraphs whose hash is wanted."""
    data, offsets = text_buffers(texts)
    shortest = dict(_passage_kinds(config))[kind]
    bits, table = _table(wanted)

    def call(room: int) -> tuple[int, Any]:
        rows, documents, places = np.empty(room, np.int64), np.empty(room, np.int64), np.empty((room, 4), np.int64)
        number = passage_kernels.find_passages(
            data, offsets, kind, shortest, _seed(config), wanted, bits, table, rows, documents, places
        )
        return number, (rows[:number], documents[:number], places[:number])

    return _grown(call, max(1024, data.size // 100))


def count_fragments(texts: pa.LargeStringArray, config: RepeatsConfig) -> tuple[pa.Table, pa.Table]:
    """FRAGMENTS and HOLDERS of the texts of one part: the first step."""
    found = [_all_passages(texts, kind, shortest, config) for kind, shortest in _passage_kinds(config)]
    if config.substring_words:
        data, offsets = text_buffers(texts)

        def call(room: int) -> tuple[int, Any]:
            hashes, documents = np.empty(room, np.uint64), np.empty(room, np.int64)
            number = repeats_kernels.hash_seeds(
                data, offsets, *word_tables(), *_widths(config), _seed(config), hashes,
                documents,
            )  # fmt: skip
            return number, (hashes[:number], documents[:number])

        found.append(_grown(call, max(1024, data.size // 40)))
    hashes = np.concatenate([hashes for hashes, _ in found])
    documents = np.concatenate([documents for _, documents in found])
    order = sorted_places(hashes)  # documents of one kind, and so of one hash, are in order
    hashes, documents = hashes[order], documents[order]
    values, _, counts = _by_hash(hashes, documents)
    held = documents[_changes(hashes) | _changes(documents)]
    return (
        pa.table([pa.array(values), pa.array(counts)], schema=FRAGMENTS),
        pa.table([pa.array(held.astype(np.int32))], schema=HOLDERS),
    )


def find_holders(fragments: pa.Table, holders: pa.Table, candidates: Hashes) -> Integers:
    """The documents of a part that hold any of its candidates, ascending: no others need be looked at."""
    wanted = np.zeros(fragments.num_rows, np.bool_)
    wanted[np.searchsorted(fragments.column("hash").to_numpy(), candidates)] = True
    held = np.repeat(wanted, fragments.column("documents").to_numpy())
    return np.unique(holders.column("document").to_numpy()[held]).astype(np.int64)


def _by_hash(hashes: Hashes, documents: Integers) -> tuple[Hashes, Integers, Integers]:
    """Different hashes, where each begins, and the documents that hold it; both arrays are sorted together."""
    starts = np.flatnonzero(_changes(hashes))
    fresh = _changes(hashes) | _changes(documents)
    counts = np.add.reduceat(fresh.astype(np.int64), starts) if starts.size else np.zeros(0, np.int64)
    return hashes[starts], starts, counts


def _changes(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """True where a value differs from the one before it; the first one does."""
    changed = np.ones(values.size, np.bool_)
    changed[1:] = values[1:] != values[:-1]
    return changed


def merge(
    held: Sequence[dict[str, npt.NDArray[Any]]], counted: Sequence[bool], schema: pa.Schema, config: RepeatsConfig
) -> pa.Table:
    """Adds the documents of all parts up over a range of hashes: the second step, and the fourth.

    Parameters
    ----------
    held
        Of every part the columns of FRAGMENTS or PLACES in the range. They are taken out of the dictionaries: what is
        given is not held twice.
    counted
        Of every part, whether its documents count (`counted_sources`).
    schema
        CANDIDATES, from FRAGMENTS, or REPEATED, from PLACES.

    Returns
    -------
    pa.Table
        The repeated rows in the order of parts and hashes: `owner` (int32), the part that holds it, and the columns of
        `schema`; `documents` of all counted parts, and `first`, `part`, `text` and `position` of the counted part with
        the smallest `first`.
    """
    given = PLACES if "first" in schema.names else FRAGMENTS
    owner = np.repeat(np.arange(len(held), dtype=np.int32), [columns["hash"].size for columns in held])
    columns = {
        field.name: np.concatenate(
            [np.zeros(0, field.type.to_pandas_dtype()), *(some.pop(field.name) for some in held)]
        )
        for field in given
    }
    hashes, first = columns["hash"], columns.get("first", np.zeros(0, np.uint64))
    order = sorted_places(hashes)
    documents, chosen = np.empty(owner.size, np.int64), np.empty(owner.size, np.int64)
    passage_kernels.add_up(
        hashes, order, owner, np.asarray(counted, np.bool_), columns.pop("documents"), first, limits(config), documents,
        chosen,
    )  # fmt: skip
    kept = np.flatnonzero(documents)
    rows = order[kept]
    by_part = np.argsort(owner[rows], kind="stable")
    rows, kept = rows[by_part], kept[by_part]
    del order, by_part
    values = {"owner": owner[rows], "hash": hashes[rows], "documents": documents[kept]}
    if given is PLACES:
        rows = chosen[kept]
        values |= {name: columns[name][rows] for name in ("first", "text", "position")} | {"part": owner[rows]}
    fields = pa.schema([OWNER, *schema])
    return pa.table([pa.array(values[field.name], field.type) for field in fields], schema=fields)


def of_part(merged: pa.Table, part: int) -> pa.Table:
    """What a part holds of a table of `merge`, in the order of hashes, without the column `owner`."""
    begin, end = np.searchsorted(merged.column("owner").to_numpy(), [part, part + 1]).tolist()
    return merged.slice(begin, end - begin).drop_columns(["owner"])


def find_places(
    texts: pa.LargeStringArray, owners: Hashes, candidates: Hashes, config: RepeatsConfig
) -> tuple[pa.Table, pa.Table]:
    """PLACES and TEXTS of one part: the third step.

    Parameters
    ----------
    texts
        Of the part, at least those of `find_holders`.
    owners
        The first eight bytes of each document's id, big-endian: the smallest one's text is compared.
    candidates
        The CANDIDATES of the part.
    """
    _check_owners(texts, owners)
    data, offsets = text_buffers(texts)
    order = np.argsort(owners, kind="stable")
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    tables, pieces, spans = [], [], np.zeros((0, 2), np.int64)
    for kind, _ in _passage_kinds(config):
        rows, documents, places = _passages(texts, kind, candidates, config)
        hashes = candidates[rows]
        by_hash = np.lexsort((rank[documents], hashes))
        values, starts, counts = _by_hash(hashes[by_hash], documents[by_hash])
        chosen = by_hash[starts]
        tables.append((values, counts, owners[documents[chosen]], np.arange(chosen.size), np.zeros_like(chosen)))
        pieces.append(places[chosen, :2])
    if config.substring_words:
        hashes, documents, runs, positions, run_places = _windows(data, offsets, order, candidates, config)
        by_hash = sorted_places(hashes)  # they come in the order of ids
        values, starts, counts = _by_hash(hashes[by_hash], documents[by_hash])
        chosen = by_hash[starts]
        used, texts_of = np.unique(runs[chosen], return_inverse=True)
        tables.append((values, counts, owners[documents[chosen]], texts_of, positions[chosen]))
        pieces.append(run_places[used, 1:])
    before = np.cumsum([0] + [len(piece) for piece in pieces])
    columns = [np.concatenate(column) for column in zip(*tables, strict=True)]
    columns[3] = np.concatenate([table[3] + start for table, start in zip(tables, before, strict=False)])
    spans = np.concatenate([spans, *pieces])
    by_hash = np.argsort(columns[0], kind="stable")
    return (
        pa.table([pa.array(column[by_hash]) for column in columns], schema=PLACES),
        pa.table([_slices(data, spans)], schema=TEXTS),
    )


def _windows(data: Any, offsets: Integers, order: Integers, candidates: Hashes, config: RepeatsConfig) -> Any:
    bits, table = _table(candidates)
    room, runs_room = max(1024, data.size // 16), max(1024, data.size // 256)
    while True:
        hashes = np.empty(room, np.uint64)
        documents, runs, positions = (np.empty(room, np.int64) for _ in range(3))
        places = np.empty((runs_room, 3), np.int64)
        number, run = repeats_kernels.find_windows(
            data, offsets, order, *word_tables(), *_widths(config), _seed(config),
            candidates, bits, table, hashes, documents, runs, positions, places,
        )  # fmt: skip
        if number <= room and run <= runs_room:
            return hashes[:number], documents[:number], runs[:number], positions[:number], places[:run]
        room, runs_room = max(room, number), max(runs_room, run)


def _slices(data: npt.NDArray[np.uint8], spans: Integers) -> pa.LargeStringArray:
    """data[start:end] of every span as a string."""
    sizes = spans[:, 1] - spans[:, 0]
    offsets = np.zeros(len(spans) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    view = data.data
    joined = b"".join(view[start:end] for start, end in spans.tolist())
    return pa.LargeStringArray.from_buffers(len(spans), pa.py_buffer(offsets), pa.py_buffer(joined))


def _table(hashes: Hashes) -> tuple[Hashes, Integers]:
    """A filter and a table of different hashes, for `look_up`; of the filter's bits at most a sixteenth are set."""
    bits = np.zeros(1 << max(6, (hashes.size // 4).bit_length()), dtype=np.uint64)
    table = np.full(1 << max(4, (4 * hashes.size - 1).bit_length()), -1, dtype=np.int64)
    passage_kernels.fill_table(hashes, bits, table)
    return bits, table


def mark_lines(
    texts: pa.LargeStringArray, kind: int, repeated: pa.Table, compared: pa.LargeStringArray, config: RepeatsConfig
) -> Marked:
    """The lines (or paragraphs, by `kind`) to cut, each with its line end: the last step.

    Parameters
    ----------
    repeated
        REPEATED of this part.
    compared
        The text of every row of `repeated`: what `part` and `text` point at.
    """
    data, offsets = text_buffers(texts)
    other, other_offsets = text_buffers(compared)
    known = repeated.column("hash").to_numpy()
    rows, documents, places = _passages(texts, kind, known, config)
    same = np.empty(rows.size, np.bool_)
    passage_kernels.same_bytes(
        data, places[:, 0], places[:, 1], other, other_offsets[rows], other_offsets[rows + 1], same
    )  # fmt: skip
    differ = np.unique(np.stack([rows[~same], documents[~same]], axis=1), axis=0)
    begins = offsets[documents]
    return Marked(
        documents[same],
        (places[:, 2] - begins)[same],
        (places[:, 3] - begins)[same],
        np.bincount(rows[same], minlength=known.size),
        differ[:, 0],
    )


def mark_words(
    texts: pa.LargeStringArray,
    owners: Hashes,
    repeated: pa.Table,
    compared: pa.LargeStringArray,
    rows: Integers,
    config: RepeatsConfig,
) -> Marked:
    """The runs of words to cut, from the first word to the last: the last step.

    Parameters
    ----------
    owners
        As of `find_places`.
    repeated
        Rows of REPEATED of windows of words.
    compared, rows
        Texts, and for every row of `repeated` which of them holds it (at the word `position`).
    """
    _check_owners(texts, owners)
    data, offsets = text_buffers(texts)
    other, other_offsets = text_buffers(compared)
    hashes, first, positions = (repeated.column(name).to_numpy() for name in ("hash", "first", "position"))
    bits, table = _table(hashes)
    room, wrong_room = max(1024, data.size // 256), 64
    while True:
        spans, wrong = np.empty((room, 3), np.int64), np.empty((wrong_room, 2), np.int64)
        found = np.zeros(hashes.size, np.int64)
        number, collisions = repeats_kernels.mark_windows(
            data, offsets, owners, *word_tables(), _widths(config)[0], _seed(config), hashes, bits, table, first, rows,
            positions, config.substring_keep == "first", other, other_offsets, spans, found, wrong,
        )  # fmt: skip
        if number <= room and collisions <= wrong_room:
            break
        room, wrong_room = max(room, number), max(wrong_room, collisions)
    of, starts, ends = (spans[:number, column].copy() for column in range(3))
    repeats_kernels.whole_characters(data, offsets[of + 1], starts, ends, _marks())
    left = starts < ends
    of, starts, ends = of[left], starts[left] - offsets[of[left]], ends[left] - offsets[of[left]]
    return Marked(of, starts, ends, found, np.unique(wrong[:collisions], axis=0)[:, 0])


def _check_owners(texts: pa.LargeStringArray, owners: Hashes) -> None:
    if len(texts) != owners.size:
        raise ValueError(f"{owners.size} ids but {len(texts)} texts")


@lru_cache(maxsize=1)
def _marks() -> npt.NDArray[np.bool_]:
    """By code point, whether it belongs to the character before it: combining marks and the zero-width joiner.

    Of Unicode 3.2, which every Python carries unchanged, so that results do not change with the version of Python.
    """
    marks = np.zeros(0x1D200, np.bool_)
    for code in range(0x300, marks.size):
        marks[code] = unicodedata.ucd_3_2_0.category(chr(code)).startswith("M")
    marks[0x200D] = True
    return marks
