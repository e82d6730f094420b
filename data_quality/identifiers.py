"""Document ids as integers, for sorting and seeded choices on whole columns."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from storage.schemas import ID_BYTES


def id_words(ids: pl.Series | pa.Array) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The first and the last 8 bytes of every id as big-endian uint64, so that integers sort as the bytes do.

    Raises
    ------
    ValueError
        If an id is missing or not 16 bytes long.
    """
    words = id_bytes(ids).view(">u8").astype(np.uint64)
    return words[:, 0].copy(), words[:, 1].copy()


def ids_of(high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> pa.FixedSizeBinaryArray:
    """The ids that have these words: the inverse of `id_words`."""
    packed = np.stack([high, low], axis=1).astype(">u8")
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(ID_BYTES), high.size, [None, pa.py_buffer(packed.tobytes())])


def id_bytes(ids: pl.Series | pa.Array) -> npt.NDArray[np.uint8]:
    """The bytes of every id, uint8 [ids, 16]; ValueError as `id_words`."""
    column = ids.to_arrow() if isinstance(ids, pl.Series) else ids
    sizes = pc.fill_null(pc.binary_length(column), -1)
    wrong = pc.index(pc.not_equal(sizes, ID_BYTES), True).as_py()
    if wrong >= 0:
        value = column[wrong].as_py()
        raise ValueError(f"row {wrong}: id {value!r} is not {ID_BYTES} bytes; ids come from the documents' parts")
    column = column.cast(pa.binary(ID_BYTES))
    values = np.frombuffer(column.buffers()[1] or b"", dtype=np.uint8).reshape(-1, ID_BYTES)
    return values[column.offset : column.offset + len(column)]


def seeded_hash(ids: pl.Series, seed: int, purpose: str) -> npt.NDArray[np.uint64]:
    """A uniform uint64 an id that depends on nothing but the id, the seed and the purpose.

    Ids are blake2b digests already, so mixing them with a blake2b key of (seed, purpose) by two rounds of
    MurmurHash3's finaliser is enough to make choices of different seeds and purposes independent.
    """
    digest = hashlib.blake2b(f"{purpose}:{seed}".encode(), digest_size=16).digest()
    key = np.frombuffer(digest, dtype="<u8")
    first, last = id_words(ids)
    return _mix(_mix(first ^ key[0]) ^ last ^ key[1])


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    shift = np.uint64(33)
    value = (value ^ (value >> shift)) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> shift)) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> shift)
