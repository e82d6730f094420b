"""MinHash signatures of texts, and the exact shingle sets they estimate.

Signatures are bit-identical to those of `datasketch.MinHash` (schemes "affine32" and "affine64") of the same shingle
hashes, so they load into datasketch's objects and indexes; they never drop anything, `duplicates.py` decides.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_quality import sketch_kernels
from data_quality.duplicates_config import SketchConfig
from data_quality.word_kernels import OWN
from data_quality.words import OWN_WORD, UNICODE_TABLE_VERSION, WORD, character_classes, fold_table
from storage.schemas import signature_schema

SHINGLE_HASH_VERSION = 2


def sketch(texts: pa.LargeStringArray | pa.ChunkedArray, config: SketchConfig) -> pa.Table:
    """The MinHash signature of every text over its set of word n-grams.

    Returns
    -------
    pa.Table
        One row a text, `signature_schema` without the id: `signature`, the uint32 or uint64 numbers as bytes, null for
        a text without words, and `shingles`, int32, how many distinct n-grams it has.

    Notes
    -----
    Signature value k is the minimum over the shingles of a[k] · fmix32(h) + b[k] mod 2^32 with odd a, h the
    low half of the 64-bit shingle hash (affine32), or of a[k] · fmix64(h) + b[k] mod 2^64, h all of it (affine64);
    `permutation_facts` says how a and b are drawn.
    """
    data, offsets = text_buffers(texts)
    a, b = coefficients(config)
    signatures = np.zeros((offsets.size - 1, config.permutations), dtype=a.dtype)
    counts = np.zeros(offsets.size - 1, dtype=np.int32)
    sketch_kernels.sketch_texts(data, offsets, word_forms(), config.ngram, a, b, signatures, counts)
    schema = signature_schema(config.permutations, config.scheme)
    there = pa.array(counts > 0).buffers()[1]
    signature = pa.FixedSizeBinaryArray.from_buffers(
        schema.field("signature").type, counts.size, [there, pa.py_buffer(signatures)]
    )
    return pa.table(
        [signature, pa.array(counts)], schema=pa.schema([schema.field("signature"), schema.field("shingles")])
    )


def signature_matrix(column: pa.Array, config: SketchConfig) -> npt.NDArray[Any]:
    """Signatures as uint32 or uint64 [documents, permutations]; rows of nulls hold anything.

    Raises
    ------
    ValueError
        If they are not signatures of so many permutations.
    """
    kind = signature_schema(config.permutations, config.scheme).field("signature").type
    if column.type != kind:
        try:
            column = column.cast(pa.large_binary()).cast(kind)
        except pa.ArrowInvalid as error:
            raise ValueError(f"these are not signatures of {config.permutations} permutations: {error}") from error
    number = coefficients(config)[0].dtype
    values = np.frombuffer(column.buffers()[1] or b"", dtype=number)
    return values.reshape(-1, config.permutations)[column.offset : column.offset + len(column)]


def shingle_sets(
    texts: pa.LargeStringArray | pa.ChunkedArray, config: SketchConfig
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The set of word n-grams of every text as sorted distinct 64-bit hashes.

    Returns
    -------
    values : uint64, offsets : int64
        The hashes of text i are values[offsets[i]:offsets[i + 1]]; none if it has no words.
    """
    values, offsets = unsorted_shingle_sets(texts, config)
    for start, end in pairwise(offsets.tolist()):
        values[start:end].sort()
    return values, offsets


def unsorted_shingle_sets(
    texts: pa.LargeStringArray | pa.ChunkedArray,
    config: SketchConfig,
    rows: npt.NDArray[np.int64] | None = None,
    expected: int | None = None,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """As `shingle_sets`, each set in order of first appearance in the text; of some texts in the order of `rows`.

    `expected`: how many hashes there will be, if known, so that their memory is asked for once.
    """
    data, offsets = text_buffers(texts)
    rows = np.arange(offsets.size - 1) if rows is None else rows.astype(np.int64)
    bounds = np.zeros(rows.size + 1, dtype=np.int64)
    room = int(offsets[-1] - offsets[0]) // 8 + 1024 if expected is None else expected
    values = sketch_kernels.shingle_texts(data, offsets, rows, word_forms(), config.ngram, room, bounds[1:])
    return values, bounds


@lru_cache(maxsize=8)
def coefficients(config: SketchConfig) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The odd factors a and the addends b of the permutations, each uint32 or uint64 [permutations] by the scheme.

    Drawn as `datasketch.MinHash._init_permutations` (2.0) draws them, from numpy's frozen legacy generator.
    """
    number: Any = {"affine32": np.uint32, "affine64": np.uint64}[config.scheme]
    width = 8 * np.dtype(number).itemsize
    generator = np.random.RandomState(config.seed)
    half = generator.randint(0, 1 << (width - 1), config.permutations, dtype=number)
    a = half * number(2) + number(1)
    b = generator.randint(0, 1 << width, config.permutations, dtype=number)
    return a, b


def permutation_facts(config: SketchConfig) -> dict[str, Any]:
    """What a reader of signatures must know, for the manifest: scheme, seed, coefficients, versions."""
    a, b = coefficients(config)
    return {
        "scheme": config.scheme,
        "seed": config.seed,
        "permutations": config.permutations,
        "ngram": config.ngram,
        "a": a.tolist(),
        "b": b.tolist(),
        "unicode_table_version": UNICODE_TABLE_VERSION,
        "shingle_hash_version": SHINGLE_HASH_VERSION,
    }


def text_buffers(
    texts: pa.LargeStringArray | pa.ChunkedArray,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The UTF-8 bytes and the int64 offsets of a column of strings; text i is data[offsets[i]:offsets[i + 1]].

    Views where Arrow allows it: slices share their data, so offsets need not start at 0. Nulls are empty.
    """
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    if array.null_count:
        array = array.fill_null("")
    if not pa.types.is_large_string(array.type):
        array = array.cast(pa.large_string())
    _, offset_buffer, data_buffer = array.buffers()
    if len(array) == 0:
        offsets = np.zeros(1, dtype=np.int64)
    else:
        whole = np.frombuffer(offset_buffer, dtype=np.int64)
        offsets = whole[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer if data_buffer is not None else b"", dtype=np.uint8)
    for view in (data, offsets):
        view.setflags(write=False)  # one kind of argument, hence one compilation of every kernel
    return data, offsets


@lru_cache(maxsize=1)
def word_tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    """ascii_words, classes, folds; `ascii_words` is uint8[128]: the folded character of a word character, else 0."""
    classes, folds = character_classes(), fold_table()
    ascii_words = np.where(classes[:128] == WORD, folds[:128], 0).astype(np.uint8)
    return ascii_words, classes, folds


@lru_cache(maxsize=1)
def word_forms() -> npt.NDArray[np.uint32]:
    """The UTF-8 bytes of the folded form of every character that belongs to words: uint32[0x110000], read-only.

    Little-endian, 0 for a character that separates words; with `word_kernels.OWN` for one that is a word by itself.
    """
    classes = character_classes()
    of_words = np.flatnonzero((classes == WORD) | (classes == OWN_WORD))
    codes = fold_table()[of_words]
    low, second, third = (0x80 | (codes >> shift & 0x3F) for shift in (0, 6, 12))
    forms = np.zeros(classes.size, dtype=np.uint32)
    forms[of_words] = np.select(
        [codes < 0x80, codes < 0x800, codes < 0x10000],
        [codes, 0xC0 | codes >> 6 | low << 8, 0xE0 | codes >> 12 | second << 8 | low << 16],
        0xF0 | codes >> 18 | third << 8 | second << 16 | low << 24,
    )
    forms[classes == OWN_WORD] |= np.uint32(OWN)
    forms.setflags(write=False)
    return forms
