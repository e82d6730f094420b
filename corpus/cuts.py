"""Passages to leave out of a text, applied where text leaves the house; who finds them is `data_quality/cuts.py`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpus.buffers import buffers


def apply_cuts(texts: pa.LargeStringArray | pa.ChunkedArray, spans: pa.Array | pa.ChunkedArray) -> pa.LargeStringArray:
    """The texts with every span replaced by its `replacement`.

    Parameters
    ----------
    texts
        `large_string`, no nulls.
    spans
        The `spans` column of `CUTS` for the same rows; an empty list, or null, leaves the text as it is.

    Raises
    ------
    ValueError
        If spans are unsorted, overlap, reach outside their text, or would cut through a character; names the row.
    """
    texts, spans = _one_array(texts), _one_array(spans)
    if len(texts) != len(spans):
        raise ValueError(f"{len(texts)} texts but {len(spans)} lists of spans")
    if texts.null_count:
        raise ValueError(f"{texts.null_count} texts are null; documents never are")
    flat = spans.flatten()
    if not len(flat):
        return texts
    offsets, data = _buffers(texts)
    counts = pc.fill_null(pc.list_value_length(spans), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    rows = np.repeat(np.arange(len(texts)), counts)
    starts = flat.field("start").to_numpy(zero_copy_only=False) + offsets[rows]
    ends = flat.field("end").to_numpy(zero_copy_only=False) + offsets[rows]
    _check(rows, starts, ends, offsets, data)

    replacements = [value.encode() for value in flat.field("replacement").to_pylist()]
    view = data.data
    pieces: list[memoryview | bytes] = []
    at = int(offsets[0])
    for start, end, replacement in zip(starts.tolist(), ends.tolist(), replacements, strict=True):
        pieces.append(view[at:start])
        pieces.append(replacement)
        at = end
    pieces.append(view[at : int(offsets[-1])])

    grown = np.fromiter(map(len, replacements), np.int64, len(replacements)) - (ends - starts)
    lengths = np.diff(offsets)
    np.add.at(lengths, rows, grown)
    new_offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(lengths, out=new_offsets[1:])
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(new_offsets), pa.py_buffer(b"".join(pieces)))


def _check(
    rows: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    data: npt.NDArray[np.uint8],
) -> None:
    """Spans as positions in the whole buffer: refuses what would damage a text."""

    def refuse(wrong: npt.NDArray[np.bool_], what: str) -> None:
        if wrong.any():
            index = int(np.flatnonzero(wrong)[0])
            row = int(rows[index])
            begin, length = int(offsets[row]), int(offsets[row + 1] - offsets[row])
            raise ValueError(
                f"cuts of row {row}: span {int(starts[index]) - begin}-{int(ends[index]) - begin} {what} "
                f"(the text has {length} bytes)"
            )

    refuse(starts > ends, "ends before it starts")
    refuse((starts < offsets[rows]) | (ends > offsets[rows + 1]), "reaches outside its text")
    overlapping = np.zeros(len(rows), np.bool_)
    overlapping[1:] = (starts[1:] < ends[:-1]) & (rows[1:] == rows[:-1])
    refuse(overlapping, "overlaps the span before it, or the spans are not sorted")
    for positions in (starts, ends):
        inside = positions < offsets[rows + 1]
        first = np.zeros(len(rows), np.uint8)
        first[inside] = data[positions[inside]]
        refuse((first & 0xC0) == 0x80, "cuts through a UTF-8 character")


def _one_array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _buffers(texts: pa.LargeStringArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    if texts.type != pa.large_string():
        raise ValueError(f"texts must be large_string, not {texts.type}")
    return buffers(texts)
