"""Which documents hold text of an evaluation set: windows of n words, compared as folded words, not as hashes.

Both sides are split by `words.py` (case-folded; punctuation and white space only separate; a character of a script
without spaces is a word), so that quoting, capitals and line breaks do not hide an item. Nothing is dropped here:
every overlap is evidence with its item and its text, and `rules.py` holds the threshold.

Terms: the n-grams of an item are its different sequences of `ngram` words; an item of fewer words is one n-gram,
itself (GPT-3, arXiv 2005.14165, appendix C: 13 words). One that stands in more than `stock_phrase_items` items is a
stock phrase (a template, a licence, a famous line) and counts nowhere.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_quality.buffers import string_buffers
from data_quality.quality_config import DecontaminateConfig
from data_quality.words import UNICODE_TABLE_VERSION, character_classes, fold_table
from storage.arrow_files import cast
from storage.schemas import OVERLAPS

INDEX_VERSION = 1
EXCERPT_CHARACTERS = 500

_ARRAYS = {
    "letters": np.uint32,
    "ends": np.int64,
    "gram_words": np.int32,
    "gram_sizes": np.uint8,
    "gram_hashes": np.uint64,
    "gram_bounds": np.int32,
    "gram_items": np.int32,
    "item_grams": np.int32,
    "item_sizes": np.uint8,
}


@dataclass(frozen=True, eq=False)
class ContaminationIndex:
    """The n-grams of evaluation items, ready to be looked for in documents; made by `build_index`.

    Attributes
    ----------
    ngram
        Words a window.
    items
        (eval_set, eval_item) of every item, in order.
    counts
        `items`; `short_items` (fewer words than `shortest_item`, never found); `stock_items` (all of their n-grams
        are stock phrases, never found); `ngrams` (different ones, stock phrases included); `stock_phrases`.
    letters, ends
        uint32 folded code points of all words of all items, and int64 where each word ends in them.
    gram_words, gram_sizes, gram_hashes
        Of every different n-gram: its first word, its number of words, its hash.
    gram_bounds, gram_items
        The items of n-gram g are gram_items[gram_bounds[g] : gram_bounds[g + 1]]; none for a stock phrase.
    item_grams, item_sizes
        Of every item: its different n-grams without stock phrases, and the words in each.
    """

    ngram: int
    items: tuple[tuple[str, str], ...]
    counts: dict[str, int]
    letters: npt.NDArray[np.uint32]
    ends: npt.NDArray[np.int64]
    gram_words: npt.NDArray[np.int32]
    gram_sizes: npt.NDArray[np.uint8]
    gram_hashes: npt.NDArray[np.uint64]
    gram_bounds: npt.NDArray[np.int32]
    gram_items: npt.NDArray[np.int32]
    item_grams: npt.NDArray[np.int32]
    item_sizes: npt.NDArray[np.uint8]
    _table: npt.NDArray[np.int32] = field(init=False, repr=False)
    _filter: npt.NDArray[np.uint64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from data_quality.contamination_kernels import fill_filter, fill_table

        table = _empty_table(self.gram_hashes.size)
        fill_table(self.gram_hashes, table)
        object.__setattr__(self, "_table", table)
        # At most a sixteenth of its bits are set, so that few words of a document are looked up in vain.
        bits = np.zeros(1 << max(6, (self.gram_hashes.size // 4).bit_length()), dtype=np.uint64)
        fill_filter(self.gram_hashes, bits)
        object.__setattr__(self, "_filter", bits)

    def to_npz(self) -> bytes:
        """The index as an uncompressed NumPy archive without pickles; the same index gives the same bytes."""
        facts = {
            "version": INDEX_VERSION,
            "unicode_table": UNICODE_TABLE_VERSION,
            "ngram": self.ngram,
            "counts": self.counts,
            "items": self.items,
        }
        stream = io.BytesIO()
        described = np.frombuffer(json.dumps(facts, sort_keys=True).encode(), dtype=np.uint8)
        np.savez(stream, facts=described, **{name: getattr(self, name) for name in _ARRAYS})
        return stream.getvalue()

    @classmethod
    def from_npz(cls, data: bytes) -> ContaminationIndex:
        """Read what `to_npz` wrote.

        Raises
        ------
        ValueError
            If the archive is damaged, or was made with another version of the index or of the word table.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                facts = json.loads(archive["facts"].tobytes())
                arrays: dict[str, Any] = {name: archive[name].astype(dtype) for name, dtype in _ARRAYS.items()}
        except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"the contamination index cannot be read, build it again: {error}") from error
        for name, expected in (("version", INDEX_VERSION), ("unicode_table", UNICODE_TABLE_VERSION)):
            if facts.get(name) != expected:
                raise ValueError(
                    f"the contamination index has {name} {facts.get(name)}, this code needs {expected}: build it again"
                )
        items = tuple((eval_set, eval_item) for eval_set, eval_item in facts["items"])
        return cls(ngram=facts["ngram"], items=items, counts=facts["counts"], **arrays)


def unsearched_items(data: bytes) -> tuple[dict[str, int], dict[str, int]]:
    """What an index (`to_npz`) leaves out: its `counts`, and by set how many items have no n-gram to look for."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        facts, item_grams = json.loads(archive["facts"].tobytes()), archive["item_grams"]
    unsearched: dict[str, int] = {}
    for (eval_set, _), grams in zip(facts["items"], item_grams.tolist(), strict=True):
        unsearched[eval_set] = unsearched.get(eval_set, 0) + (grams == 0)
    return facts["counts"], unsearched


def build_index(eval_items: pa.Table, config: DecontaminateConfig) -> ContaminationIndex:
    """Index evaluation items.

    Parameters
    ----------
    eval_items
        Columns `eval_set`, `eval_item` (strings that together name an item) and `text`; other columns are ignored.
    config
        Window length, shortest item, stock phrases.

    Raises
    ------
    ValueError
        If a column is missing or holds nulls, or two items have the same name.
    """
    from data_quality import contamination_kernels as kernels

    lacking = [name for name in ("eval_set", "eval_item", "text") if name not in eval_items.column_names]
    if lacking:
        raise ValueError(f"the table of evaluation items lacks {', '.join(lacking)}")
    items = tuple(
        zip(eval_items.column("eval_set").to_pylist(), eval_items.column("eval_item").to_pylist(), strict=True)
    )
    _check_names(items)
    values, offsets = string_buffers(_one_array(eval_items.column("text")))
    total = int(offsets[-1] - offsets[0])
    room = total // 2 + len(items) + 1  # two words of one byte have a byte between them
    letters = np.empty(total, dtype=np.uint32)
    ends = np.empty(room, dtype=np.int64)
    hashes = np.empty(room, dtype=np.uint64)
    bounds = np.empty(len(items) + 1, dtype=np.int64)
    words, length = kernels.split_texts(
        values,
        offsets,
        character_classes(),
        fold_table(),
        letters,
        ends,
        hashes,
        np.empty((room, 2), dtype=np.int64),
        bounds,
    )
    if words > np.iinfo(np.int32).max:
        raise ValueError(f"evaluation sets of {words:,} words do not fit 32-bit positions: split them into two stages")
    letters, ends = letters[:length].copy(), ends[:words].copy()

    gram_words = np.empty(words, dtype=np.int32)
    gram_sizes = np.empty(words, dtype=np.uint8)
    gram_hashes = np.empty(words, dtype=np.uint64)
    occurrences = np.empty((words, 2), dtype=np.int64)
    grams, found = kernels.number_grams(
        letters,
        ends,
        hashes,
        bounds,
        config.ngram,
        config.shortest_item,
        _empty_table(words),
        gram_words,
        gram_sizes,
        gram_hashes,
        occurrences,
    )
    # Different (n-gram, item) pairs, in that order.
    keys = np.unique(occurrences[:found, 0] * len(items) + occurrences[:found, 1])
    pair_grams, pair_items = np.divmod(keys, max(1, len(items)))
    items_a_gram = np.bincount(pair_grams, minlength=grams)
    stock = items_a_gram > config.stock_phrase_items
    pair_items = pair_items[~stock[pair_grams]]
    item_words = np.diff(bounds)
    item_grams = np.bincount(pair_items, minlength=len(items))
    short = item_words < config.shortest_item
    return ContaminationIndex(
        ngram=config.ngram,
        items=items,
        counts={
            "items": len(items),
            "short_items": int(short.sum()),
            "stock_items": int(((item_grams == 0) & ~short).sum()),
            "ngrams": grams,
            "stock_phrases": int(stock.sum()),
        },
        letters=letters,
        ends=ends,
        gram_words=gram_words[:grams].copy(),
        gram_sizes=gram_sizes[:grams].copy(),
        gram_hashes=gram_hashes[:grams].copy(),
        gram_bounds=np.concatenate(([0], np.cumsum(np.where(stock, 0, items_a_gram)))).astype(np.int32),
        gram_items=pair_items.astype(np.int32),
        item_grams=item_grams.astype(np.int32),
        item_sizes=np.minimum(item_words, config.ngram).astype(np.uint8),
    )


def find_overlaps(
    ids: pa.Array, texts: pa.LargeStringArray, index: ContaminationIndex, config: DecontaminateConfig
) -> pa.Table:
    """Compare documents with the items of an index.

    Parameters
    ----------
    ids, texts
        binary(16) and large_string of the same documents, none null.
    index
        Made by `build_index` with the same `ngram`.
    config
        `minimum_overlap` is read.

    Returns
    -------
    pa.Table
        OVERLAPS: a row for every document and item with an overlap of at least `minimum_overlap`, in the order of
        documents, then items. `overlap` is the share of the item's n-grams that stand anywhere in the document;
        `text` is the document's text of the longest run of neighbouring windows from the item, as written, at most
        500 characters.

    Raises
    ------
    ValueError
        If lengths differ, a text is null, or the index was built for another `ngram`.
    """
    from data_quality import contamination_kernels as kernels

    if len(ids) != len(texts):
        raise ValueError(f"{len(ids)} ids but {len(texts)} texts")
    if index.ngram != config.ngram:
        raise ValueError(
            f"the index holds {index.ngram}-grams but decontaminate.ngram is {config.ngram}: build it again"
        )
    if index.gram_hashes.size == 0:
        return OVERLAPS.empty_table()
    values, offsets = string_buffers(texts)
    sizes = np.unique(index.gram_sizes)
    room = max(1024, len(texts))
    while True:
        rows = np.empty((room, 3), dtype=np.int64)
        spans = np.empty((room, 2), dtype=np.int64)
        pairs = kernels.find_grams(
            values,
            offsets,
            character_classes(),
            fold_table(),
            index.letters,
            index.ends,
            index._filter,
            index._table,
            index.gram_words,
            index.gram_sizes,
            index.gram_hashes,
            index.gram_bounds,
            index.gram_items,
            index.item_grams,
            index.item_sizes,
            sizes,
            config.minimum_overlap,
            rows,
            spans,
        )
        if pairs <= room:
            break
        room = pairs  # rare: few documents overlap with several items
    order = np.lexsort((rows[:pairs, 1], rows[:pairs, 0]))
    rows, spans = rows[order], spans[order]
    found = [index.items[item] for item in rows[:, 1]]
    table = pa.table(
        {
            "id": ids.take(pa.array(rows[:, 0])),
            "eval_set": pa.array([eval_set for eval_set, _ in found], pa.string()),
            "eval_item": pa.array([eval_item for _, eval_item in found], pa.string()),
            "overlap": pa.array((rows[:, 2] / index.item_grams[rows[:, 1]]).astype(np.float32)),
            "text": pa.array([_excerpt(values, start, end) for start, end in spans], pa.large_string()),
        }
    )
    return cast(table, OVERLAPS)


def _excerpt(values: npt.NDArray[np.uint8], start: int, end: int) -> str:
    # No character has more than four bytes; a last one cut in two goes with the characters after the 500th.
    cut = min(end, start + 4 * EXCERPT_CHARACTERS)
    return values[start:cut].tobytes().decode("utf-8", errors="ignore")[:EXCERPT_CHARACTERS]


def _empty_table(grams: int) -> npt.NDArray[np.int32]:
    """Room for hashes, at most a quarter full, so that a look-up in vain seldom leaves the table."""
    return np.full(1 << max(4, (4 * grams - 1).bit_length()), -1, dtype=np.int32)


def _one_array(column: pa.ChunkedArray) -> pa.LargeStringArray:
    combined = column.cast(pa.large_string()).combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        return pa.concat_arrays(combined.chunks) if combined.num_chunks else pa.array([], pa.large_string())
    return combined


def _check_names(items: tuple[tuple[str | None, str | None], ...]) -> None:
    seen = set()
    for name in items:
        if None in name:
            raise ValueError(f"an evaluation item has no full name: eval_set {name[0]!r}, eval_item {name[1]!r}")
        if name in seen:
            raise ValueError(f"two evaluation items are called {name[1]!r} in the set {name[0]!r}")
        seen.add(name)
