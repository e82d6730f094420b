"""Texts by the buffer: what `str` methods and `corpus.normalise` do with one text, done with a whole Arrow array.

Only texts that need a closer look become Python strings. The kernels are imported where they are used: who asks for ids
alone does without numba.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import compress

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from corpus.buffers import buffers
from corpus.config import NormaliseConfig
from corpus.normalise import COMPOSES_BEYOND_16_BITS, NEVER_CLEAN, bad_neighbours, normalise
from storage.schemas import ID_BYTES

_TRIMMING = ("trailing_white_space", "blank_lines")
_blake2b = partial(hashlib.blake2b, digest_size=ID_BYTES)


def document_id(text: str) -> bytes:
    """The id of a document: blake2b of its UTF-8 text, 16 bytes."""
    return _blake2b(text.encode()).digest()


def content_ids(texts: pa.LargeStringArray) -> pa.FixedSizeBinaryArray:
    """The id of every text."""
    offsets, data = buffers(texts)
    view = data.data
    ids = b"".join([_blake2b(view[begin:end]).digest() for begin, end in itertools.pairwise(offsets.tolist())])
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(ID_BYTES), len(texts), [None, pa.py_buffer(ids)])


def large_strings(texts: Sequence[bytes]) -> pa.LargeStringArray:
    """A `large_string` array of UTF-8 texts, without looking at them one by one."""
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    return _joined(sizes, b"".join(texts))


def _joined(sizes: NDArray[np.int64], data: bytes) -> pa.LargeStringArray:
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return pa.LargeStringArray.from_buffers(len(sizes), pa.py_buffer(offsets), pa.py_buffer(data))


def blank_rows(texts: pa.LargeStringArray) -> list[int]:
    """The rows of texts that are empty or nothing but white space, as `str.isspace` sees it."""
    from corpus.text_kernels import find_blank

    offsets, data = buffers(texts)
    rows = np.empty(len(texts), np.int64)
    number = find_blank(data, offsets, rows)
    return [row for row in rows[:number].tolist() if not (text := texts[row].as_py()) or text.isspace()]


def normalise_texts(
    texts: pa.LargeStringArray, config: NormaliseConfig
) -> tuple[pa.LargeStringArray, dict[int, tuple[str, ...]]]:
    """`normalise` for every text.

    Parameters
    ----------
    texts
        Valid UTF-8, no nulls.

    Returns
    -------
    texts
        The same array where nothing had to be repaired.
    steps
        Row -> names of the repairs that changed it; rows that none changed are not in it.
    """
    from corpus.text_kernels import find_unclean, trim_texts

    offsets, data = buffers(texts)
    rows, ragged = np.empty(len(texts), np.int64), np.empty(len(texts), np.bool_)
    number = find_unclean(data, offsets, *_characters(), rows, ragged)
    rows, ragged, sizes = rows[:number], ragged[:number], np.diff(offsets)
    if not (config.trailing_white_space and config.blank_lines):
        ragged[:] = False
    some = rows[ragged]
    trimmed, trimmed_sizes = np.empty(sizes[some].sum(), np.uint8), np.empty(len(some), np.int64)
    shortened = np.empty((len(some), 2), np.bool_)
    trim_texts(data, offsets, some, trimmed, trimmed_sizes, shortened)
    ready = zip(np.cumsum(trimmed_sizes).tolist(), trimmed_sizes.tolist(), shortened.tolist(), strict=True)
    steps: dict[int, tuple[str, ...]] = {}
    pieces, at = [], int(offsets[0])
    for row, trimmed_only in zip(rows.tolist(), ragged.tolist(), strict=True):
        if trimmed_only:
            end, size, which = next(ready)
            repaired, changed = trimmed.data[end - size : end], tuple(compress(_TRIMMING, which))
        else:
            text, changed = normalise(texts[row].as_py(), config)
            repaired = memoryview(text.encode())
        if changed:
            pieces += [data.data[at : offsets[row]], repaired]
            at, steps[row], sizes[row] = int(offsets[row + 1]), changed, len(repaired)
    if not steps:
        return texts, steps
    return _joined(sizes, b"".join([*pieces, data.data[at : offsets[-1]]])), steps


@lru_cache(maxsize=1)
def _characters() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """What `find_unclean` knows of characters: `classes` and `neighbours`, made from the patterns of `normalise`.

    Characters that the pattern of suspicious neighbours treats alike have one class; which two classes make it match is
    found by asking the pattern.
    """
    from corpus.text_kernels import ASCII_OTHER, CLOSER_LOOK

    pattern = bad_neighbours("")
    plane = "".join(map(chr, itertools.chain(range(0x80, 0xD800), range(0xE000, 0x10000))))
    sets = dict.fromkeys(re.findall(r"\[[^\]]+\]", pattern.pattern))
    alone = sorted(set(re.sub(r"\[[^\]]+\]", "", pattern.pattern)) - set(map(chr, range(0x80))))
    members = [set(re.findall(some, plane)) for some in (*sets, *alone)]
    # One character of each class, by the sets that it belongs to; the pattern's third neighbours are of these three.
    kinds: dict[tuple[bool, ...], int] = {}
    classes = np.zeros(0x110000, np.uint8)
    samples = ["\u3400", "a", " "]
    for character in sorted(set().union(*members)):
        kind = kinds.setdefault(tuple(character in some for some in members), len(samples))
        classes[ord(character)] = kind
        samples += [character] * (kind == len(samples))
    thirds = ("", "Ø", "В", "Β")
    neighbours = np.array(
        [
            [
                bool(pattern.search(one + other)) or any(pattern.match(one + other + third) for third in thirds)
                for other in samples
            ]
            for one in samples
        ]
    )
    neighbours[:, ASCII_OTHER] |= np.array([bool(pattern.search(one)) for one in samples])
    classes[[ord(character) for character in re.findall(f"[{NEVER_CLEAN}]", plane)]] = CLOSER_LOOK
    for first, last in COMPOSES_BEYOND_16_BITS:
        classes[first : last + 1] = CLOSER_LOOK
    return classes, neighbours
