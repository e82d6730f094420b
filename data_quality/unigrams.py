"""A pinned table of word frequencies, for the feature unigram_log_probability: counted in the corpus, or a user's file.

Words are cores (see `feature_table.py`): folded, without outer punctuation. The table is part of the output, so that
the numbers can be checked and the same table be used for another corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from data_quality.buffers import character_kinds, string_buffers
from data_quality.words import fold_table, script_table
from storage.schemas import ID_BYTES

UNIGRAMS = pa.schema([pa.field("word", pa.string(), nullable=False), pa.field("count", pa.int64(), nullable=False)])
"""One row a folded word: the most frequent first, of equal ones by code points."""

UNKNOWN_PROBABILITY = 1e-9
"""Of words that are not in the table, as in datatrove."""


@dataclass(frozen=True)
class UnigramTable:
    """Folded words and their log probabilities, as the kernel looks them up (open addressing, 0 is a free place)."""

    keys: npt.NDArray[np.uint64]
    log_probabilities: npt.NDArray[np.float64]
    unknown: float = log(UNKNOWN_PROBABILITY)


NO_UNIGRAMS = UnigramTable(np.zeros(0, np.uint64), np.zeros(0, np.float64))


class UnigramSample:
    """Some `wanted` bytes of text: the documents with the smallest ids, whatever order and parts they come in.

    Ids are hashes, so that this is a fair sample. Not more than twice the bytes are held, and one part.
    """

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._kept = pa.table({"key": pa.array([], pa.uint64()), "text": pa.array([], pa.large_string())})

    def add(self, ids: pa.FixedSizeBinaryArray, texts: pa.LargeStringArray) -> None:
        """Look at the documents of a part."""
        data = np.frombuffer(ids.buffers()[1] or b"", np.uint8)[
            ids.offset * ID_BYTES : (ids.offset + len(ids)) * ID_BYTES
        ]
        keys = data.view(">u8")[:: ID_BYTES // 8].astype(np.uint64)
        if len(self._kept) and self._enough(self._kept):
            mask = pa.array(keys <= self._kept.column("key")[-1].as_py())
            keys, texts = keys[mask.to_numpy(zero_copy_only=False)], texts.filter(mask)
        found = pa.table({"key": pa.array(keys, pa.uint64()), "text": texts})
        together = pa.concat_tables([self._kept, found]).sort_by("key")
        ends = np.cumsum(pc.binary_length(together.column("text")).to_numpy())
        self._kept = together.slice(0, int(np.searchsorted(ends, self._wanted)) + 1).combine_chunks()

    def _enough(self, table: pa.Table) -> bool:
        return bool((pc.sum(pc.binary_length(table.column("text"))).as_py() or 0) >= self._wanted)

    def texts(self) -> pa.LargeStringArray:
        """The texts, by id."""
        return self._kept.column("text").combine_chunks()


class UnigramCounter:
    """Counts the words of texts; `table` gives the most frequent ones. The order of texts makes no difference."""

    def __init__(self) -> None:
        self._counts = pl.DataFrame(schema={"word": pl.String, "count": pl.Int64})

    def add(self, texts: pa.LargeStringArray) -> None:
        """Count the cores of these texts."""
        from data_quality.feature_kernels import collect_cores

        values, offsets = string_buffers(texts)
        room = int(offsets[-1] - offsets[0]) // 2 + len(texts) + 1
        hashes = np.empty(room, np.uint64)
        starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
        number = collect_cores(
            values, offsets, character_kinds(), fold_table(), script_table()[0], hashes, starts, ends
        )
        _, places, counts = np.unique(hashes[:number], return_index=True, return_counts=True)
        words = [bytes(values[starts[i] : ends[i]]).decode("utf-8", "replace") for i in places]
        found = pl.DataFrame({"word": list(map(fold, words)), "count": counts.astype(np.int64)})
        self._counts = pl.concat([self._counts, found]).group_by("word").agg(pl.col("count").sum())

    def table(self, words: int) -> pa.Table:
        """The `words` most frequent words, of equal ones the first by code points: UNIGRAMS."""
        return _sorted(self._counts, words)


def fold(word: str) -> str:
    """A word in the form in which words are compared."""
    folds = fold_table()
    return "".join(chr(folds[ord(character)]) for character in word)


def read_unigrams(path: str, words: int) -> pa.Table:
    """A user's table: CSV with a header or Parquet, columns word and count; words that fold to the same are added up.

    Raises
    ------
    ValueError
        Naming file and row if it cannot be read, a column is missing, a count is not a positive whole number, or there
        is no word.
    """
    where = f"quality.features.unigram_table: {path}"
    try:
        read = pl.read_parquet if Path(path).suffix == ".parquet" else pl.read_csv
        found = read(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{where} cannot be read as CSV or Parquet: {error}") from error
    lacking = [name for name in UNIGRAMS.names if name not in found.columns]
    if lacking:
        raise ValueError(f"{where} has no column {' and no '.join(lacking)} (there are: {', '.join(found.columns)})")
    found = found.select(pl.col("word").cast(pl.String), pl.col("count").cast(pl.Int64, strict=False))
    wrong = found.with_row_index("row").filter(pl.col("word").is_null() | ~(pl.col("count") > 0).fill_null(False))
    if wrong.height:
        raise ValueError(f"{where}: row {wrong['row'][0] + 1} needs a word and a positive whole count")
    if not found.height:
        raise ValueError(f"{where} holds no words")
    folded = found.with_columns(pl.Series("word", list(map(fold, found["word"].to_list()))))
    return _sorted(folded.group_by("word").agg(pl.col("count").sum()), words)


def load_unigrams(table: pa.Table) -> UnigramTable:
    """A table of UNIGRAMS in the kernel's form."""
    words, counts = table.column("word").to_pylist(), table.column("count").to_pylist()
    keys, places = word_table(words, [-1] * len(words))
    logs = np.zeros(len(keys), np.float64)
    total = sum(counts)
    logs[places] = [log(count / total) for count in counts]
    return UnigramTable(keys, logs)


def word_table(words: Sequence[str], lists: Sequence[int]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The kernel's open-addressed table of words (`feature_kernels.enter_words`), and the place of each word in it."""
    from data_quality.feature_kernels import enter_words

    keys = np.zeros(1 << max(4, (2 * len(words)).bit_length()), np.uint64)  # a power of two, at most half taken
    places = np.zeros(len(words), np.int64)
    values, offsets = string_buffers(
        pa.array([word.encode("utf-8", "replace").decode() for word in words], pa.large_string())
    )
    enter_words(values, offsets, np.array(lists, np.int64), keys, places)
    return keys, places


def _sorted(counts: pl.DataFrame, words: int) -> pa.Table:
    return counts.sort(["count", "word"], descending=[True, False]).head(words).to_arrow().cast(UNIGRAMS)
