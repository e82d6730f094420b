"""Readable records side by side, as columns: what formats that read many at once give in place of single records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from corpus.sources.base import Cursor, Found, Record


class Rows(NamedTuple):
    """Some readable records, as many `Record` would be, with numbers that ascend.

    Attributes
    ----------
    numbers
        int64: the record's number in its file.
    ends
        int64: what the cursor's offset is behind the record.
    texts
        Valid UTF-8, no nulls, none blank.
    urls, dates
        Valid UTF-8; None where all are null.
    metas
        None where all are None.
    """

    numbers: NDArray[np.int64]
    ends: NDArray[np.int64]
    texts: pa.LargeStringArray
    urls: pa.StringArray | None = None
    dates: pa.StringArray | None = None
    metas: Sequence[dict[str, Any] | None] | None = None

    def slice(self, begin: int, end: int) -> Rows:
        """Rows `begin` to `end`; the columns are not copied."""
        some = slice(begin, end)
        return Rows(
            self.numbers[some],
            self.ends[some],
            self.texts[some],
            self.urls[some] if self.urls is not None else None,
            self.dates[some] if self.dates is not None else None,
            self.metas[some] if self.metas is not None else None,
        )

    def records(self) -> Iterator[Record]:
        """The same records one by one."""
        columns = [column.to_pylist() if column is not None else [None] * len(self.texts) for column in self[2:5]]
        metas = self.metas if self.metas is not None else [None] * len(self.texts)
        for number, text, url, date, meta in zip(self.numbers.tolist(), *columns, metas, strict=True):
            yield Record(number, text, url, date, meta)


def one_by_one(found: Iterable[Found | Rows], cursor: Cursor) -> Iterator[Found]:
    """Rows as single records, with the cursor where it would stand behind each."""
    for some in found:
        if not isinstance(some, Rows):
            yield some
            continue
        for record, end in zip(some.records(), some.ends.tolist(), strict=True):
            cursor.record, cursor.offset = record.record + 1, end
            yield record
