"""Passages that should not leave the house, as byte spans beside a text: policy lines, and what C4's rules remove.

Found here, applied where text leaves (`corpus/cuts.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_quality.buffers import string_buffers
from data_quality.punctuation import mark_bits
from data_quality.quality_config import C4Reading, CutsConfig
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
# By the codes of data_quality/cut_kernels.py.
C4_REASONS = ("", "long-word", "no-end-mark", "few-words", "javascript", "policy-line", "citation")
# Fewest words of a line, whether citations count as words, and what `scan_kernels.end_mark` must say of its end.
_READINGS: dict[C4Reading, tuple[int, bool, int]] = {
    "c4": (5, False, 2),
    "c4-datatrove": (3, True, 1),
    "fineweb": (3, True, 0),
}


def find_cuts(texts: pa.LargeStringArray | pa.ChunkedArray, config: CutsConfig) -> pa.Array:
    """The passages that the configured producers cut, in the form in which `policy_lines` gives them."""
    if "c4-lines" in config.producers:  # policy lines are among them
        return c4_lines(texts, config.c4_min_words, config.c4_reading)
    if "policy-lines" in config.producers:
        return policy_lines(texts)
    return pa.array([[]] * len(texts), SPANS_TYPE)


def c4_lines(
    texts: pa.LargeStringArray | pa.ChunkedArray, min_words: int | None = None, reading: C4Reading = "c4"
) -> pa.Array:
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
    min_words
        None for what the reading asks for.
    reading
        c4 as TensorFlow Datasets' c4_utils.py, which made C4: 5 words, counted without citations. c4-datatrove as
        datatrove's filter: 3, counted with them, and ' ends a line too. fineweb: the same, but any line may end anyhow.

    Returns
    -------
    As `policy_lines`. Neighbouring lines of one reason are one span; blank lines go with the line before them, so that
    paragraphs stay apart by what stood between them (C4 itself has no blank lines).
    """
    from data_quality.cut_kernels import c4_spans

    texts = _one_array(texts)
    values, offsets = string_buffers(texts)
    usual_words, with_citations, least_mark = _READINGS[reading]
    used = values[int(offsets[0]) : int(offsets[-1])]
    room = int(np.count_nonzero(used == ord("\n")) + np.count_nonzero(used == ord("["))) + len(texts)
    counts, starts, ends, reasons = (np.zeros(size, np.int64) for size in (len(texts), room, room, room))
    number = c4_spans(
        values, offsets, mark_bits(), usual_words if min_words is None else min_words, with_citations, least_mark,
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
    data, offsets = string_buffers(texts)
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


def _one_array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
