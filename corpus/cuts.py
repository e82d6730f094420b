"""Passages to leave out of a text, as byte spans beside it: found by producers, applied where text leaves the house."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpus.config import CutsConfig
from storage.schemas import CUTS

SPANS_TYPE: pa.DataType = CUTS.field("spans").type

# Raffel et al. 2020, "Exploring the Limits of Transfer Learning" (C4), section 2.2: many pages have boilerplate policy
# notices, so lines with these phrases are removed.
POLICY_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_POLICY = "|".join(POLICY_PHRASES)
_POLICY_BYTES = re.compile(_POLICY.encode(), re.IGNORECASE)
# As written into TensorFlow Datasets (text/c4_utils.py), which made C4. min_words is a setting: others take 3.
C4_MAX_WORD_CHARACTERS = 1000
_C4_PHRASES = f"javascript|{_POLICY}"
_C4_PHRASES_BYTES = re.compile(_C4_PHRASES.encode(), re.IGNORECASE)
# By the codes of corpus/cut_kernels.py.
C4_REASONS = ("", "long-word", "no-end-mark", "few-words", "javascript", "policy-line", "citation")


def find_cuts(texts: pa.LargeStringArray | pa.ChunkedArray, config: CutsConfig) -> pa.Array:
    """The passages that the configured producers cut, in the form in which `policy_lines` gives them."""
    if "c4-lines" in config.producers:  # policy lines are among them
        return c4_lines(texts, config.c4_min_words)
    if "policy-lines" in config.producers:
        return policy_lines(texts)
    return pa.array([[]] * len(texts), SPANS_TYPE)


def c4_lines(texts: pa.LargeStringArray | pa.ChunkedArray, min_words: int = 5) -> pa.Array:
    """The lines that C4 removes, and the marks of citations in the lines it keeps (Raffel et al. 2020, section 2.2).

    A line goes, for the first of these reasons: a word of more than 1000 characters (`long-word`); it does not end with
    . ? ! or \", or ends with ... (`no-end-mark`); fewer than `min_words` words (`few-words`); it mentions javascript
    (`javascript`) or one of `POLICY_PHRASES` (`policy-line`). From lines that stay, [], [12], [edit] and
    [citation needed] go (`citation`). These rules are made for English. C4's rules for whole pages are features and
    rules of `filter`.

    Parameters
    ----------
    texts
        `large_string`, no nulls. A line ends at LF. Phrases are found in ASCII letters of either case, ASCII digits.

    Returns
    -------
    As `policy_lines`. Neighbouring lines of one reason are one span; blank lines go with the line before them, so that
    paragraphs stay apart by what stood between them (C4 itself has no blank lines).
    """
    from corpus.cut_kernels import JAVASCRIPT, POLICY, c4_spans

    texts = _one_array(texts)
    offsets, data = _buffers(texts)
    hits: list[int] = []
    codes: list[int] = []
    for row in pc.indices_nonzero(pc.match_substring_regex(texts, f"(?i:{_C4_PHRASES})")).to_numpy():
        begin, end = int(offsets[row]), int(offsets[row + 1])
        for found in _C4_PHRASES_BYTES.finditer(bytes(data[begin:end])):
            hits.append(begin + found.start())
            codes.append(JAVASCRIPT if found.end() - found.start() == len("javascript") else POLICY)
    used = data[int(offsets[0]) : int(offsets[-1])]
    room = int(np.count_nonzero(used == ord("\n")) + np.count_nonzero(used == ord("["))) + len(texts)
    counts, starts, ends, reasons = (np.zeros(size, np.int64) for size in (len(texts), room, room, room))
    number = c4_spans(
        data, offsets, np.array(hits, np.int64), np.array(codes, np.int64), min_words, C4_MAX_WORD_CHARACTERS,
        counts, starts, ends, reasons,
    )  # fmt: skip
    names = pa.array(C4_REASONS, pa.string()).take(pa.array(reasons[:number]))
    return _span_lists(counts, starts[:number], ends[:number], names)


def policy_lines(texts: pa.LargeStringArray | pa.ChunkedArray) -> pa.Array:
    """The lines on cookies, privacy and terms of use (C4, section 2.2), each with its newline.

    Parameters
    ----------
    texts
        `large_string`, no nulls.

    Returns
    -------
    For each text a list of {start, end, replacement "", reason "policy-line"}: UTF-8 byte offsets, sorted and disjoint.
    Phrases are found in ASCII letters of either case; a line ends at LF.
    """
    texts = _one_array(texts)
    hits = pc.indices_nonzero(pc.match_substring_regex(texts, f"(?i:{_POLICY})")).to_numpy()
    offsets, data = _buffers(texts)
    counts = np.zeros(len(texts), np.int64)
    starts: list[int] = []
    ends: list[int] = []
    for row in hits:
        text = bytes(data[offsets[row] : offsets[row + 1]])
        at = 0
        while found := _POLICY_BYTES.search(text, at):
            start = text.rfind(b"\n", 0, found.start()) + 1
            newline = text.find(b"\n", found.end())
            at = len(text) if newline < 0 else newline + 1
            starts.append(start)
            ends.append(at)
            counts[row] += 1
    return _span_lists(counts, starts, ends, pa.repeat(pa.scalar("policy-line", pa.string()), len(starts)))


Positions = Sequence[int] | npt.NDArray[np.int64]


def _span_lists(counts: npt.NDArray[np.int64], starts: Positions, ends: Positions, reasons: pa.Array) -> pa.Array:
    """Spans without replacement, `counts[i]` of them for text i."""
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    fields = [SPANS_TYPE.value_type.field(index) for index in range(SPANS_TYPE.value_type.num_fields)]
    spans = pa.StructArray.from_arrays(
        [
            pa.array(starts, pa.int64()),
            pa.array(ends, pa.int64()),
            pa.repeat(pa.scalar("", pa.string()), len(starts)),
            reasons,
        ],
        fields=fields,
    )
    return pa.ListArray.from_arrays(pa.array(offsets), spans, type=SPANS_TYPE)


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
    """(offsets of len + 1, bytes) of a `large_string` array, slices included."""
    if texts.type != pa.large_string():
        raise ValueError(f"texts must be large_string, not {texts.type}")
    _, offsets, data = texts.buffers()
    positions = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if not len(positions):  # an empty array may come without offsets
        positions = np.zeros(1, np.int64)
    return positions, np.frombuffer(data if data is not None else b"", np.uint8)
