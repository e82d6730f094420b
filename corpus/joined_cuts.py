"""Cuts of several producers as one list a document: what two of them would cut is cut once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.schemas import CUTS

SPANS_TYPE: pa.DataType = CUTS.field("spans").type


def spans_of(
    documents: int,
    rows: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    replacements: pa.Array,
    reasons: pa.Array,
) -> pa.Array:
    """Spans in any order as the `spans` column of CUTS, with those that overlap made one.

    Parameters
    ----------
    documents
        How many documents there are; `rows` says whose each span is.

    Returns
    -------
    For each document its spans, sorted and disjoint. Of spans that overlap, or that touch for the same reason and are
    replaced by nothing, one is left from the smallest start to the largest end; it has the replacement and the reason
    of the one that begins first, of equals the longest, of equals the first given.
    """
    order = np.lexsort((-ends, starts, rows))
    rows, starts, ends = rows[order], starts[order], ends[order]
    reasons, replacements = reasons.take(pa.array(order)), replacements.take(pa.array(order))
    if rows.size:
        # The largest end so far in the same document: a document's positions lie above all of the one before.
        shift = rows * (int(ends.max()) + 1)
        reached = np.maximum.accumulate(ends + shift)
        codes = reasons.dictionary_encode().indices.to_numpy()
        plain = np.array([value == "" for value in replacements.to_pylist()], np.bool_)
        alike = (codes[1:] == codes[:-1]) & plain[1:] & plain[:-1]
        begins = starts[1:] + shift[1:]
        fresh = np.ones(rows.size, np.bool_)
        fresh[1:] = (begins > reached[:-1]) | ((begins == reached[:-1]) & ~alike) | (rows[1:] != rows[:-1])
        firsts = np.flatnonzero(fresh)
        ends = np.maximum.reduceat(ends, firsts)
        rows, starts = rows[firsts], starts[firsts]
        reasons, replacements = reasons.take(pa.array(firsts)), replacements.take(pa.array(firsts))
    offsets = np.zeros(documents + 1, np.int32)
    np.cumsum(np.bincount(rows, minlength=documents), out=offsets[1:])
    fields = [SPANS_TYPE.value_type.field(index) for index in range(SPANS_TYPE.value_type.num_fields)]
    spans = pa.StructArray.from_arrays(
        [pa.array(starts, pa.int64()), pa.array(ends, pa.int64()), replacements, reasons], fields=fields
    )
    return pa.ListArray.from_arrays(pa.array(offsets), spans, type=SPANS_TYPE)


def join_cuts(columns: Sequence[pa.Array | pa.ChunkedArray]) -> pa.Array:
    """The `spans` columns of several producers, for the same documents, as one."""
    arrays = [column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column for column in columns]
    if len(arrays) == 1:
        return arrays[0]
    rows, flat = [], []
    for array in arrays:
        counts = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        rows.append(np.repeat(np.arange(len(array)), counts))
        flat.append(array.flatten())
    spans = pa.concat_arrays(flat)
    starts, ends = (spans.field(name).to_numpy(zero_copy_only=False) for name in ("start", "end"))
    return spans_of(
        len(arrays[0]), np.concatenate(rows), starts, ends, spans.field("replacement"), spans.field("reason")
    )
