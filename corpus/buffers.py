"""The buffers of Arrow strings as NumPy arrays, without a copy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def buffers(texts: pa.LargeStringArray) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Offsets (one more than texts) and bytes of an array without nulls; a slice shares them with its array."""
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return np.zeros(len(texts) + 1, np.int64), np.empty(0, np.uint8)
    return np.frombuffer(offsets, np.int64, len(texts) + 1, 8 * texts.offset), np.frombuffer(data, np.uint8)
