"""Token shards in the forms of other trainers: Megatron's indexed dataset, and plain NumPy files."""

from __future__ import annotations

import io
import struct

import numpy as np
import pyarrow as pa

# Megatron-LM, megatron/core/datasets/indexed_dataset.py: type codes of the .idx header. It has no uint32.
_MEGATRON_UINT16, _MEGATRON_INT32 = 8, 4


def megatron_files(shard: pa.Table) -> tuple[bytes, bytes]:
    """The .bin and .idx of a table of schema `token_schema`; every row is a sequence and a document.

    Tokens are uint16, or int32 where the vocabulary needs more.
    """
    column = shard.column("tokens").combine_chunks()
    values = column.flatten().to_numpy()
    wide = values.dtype != np.uint16
    lengths = np.diff(column.offsets.to_numpy())
    size = 4 if wide else 2
    pointers = (np.cumsum(lengths) - lengths) * size
    index = io.BytesIO()
    index.write(b"MMIDIDX\x00\x00" + struct.pack("<QB", 1, _MEGATRON_INT32 if wide else _MEGATRON_UINT16))
    index.write(struct.pack("<QQ", len(lengths), len(lengths) + 1))
    index.write(lengths.astype("<i4").tobytes())
    index.write(pointers.astype("<i8").tobytes())
    index.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())
    return values.astype("<i4" if wide else "<u2").tobytes(), index.getvalue()


def npy_bytes(shard: pa.Table) -> bytes:
    """All tokens of a table in a row as a .npy file, uint16 or uint32."""
    file = io.BytesIO()
    np.save(file, shard.column("tokens").combine_chunks().flatten().to_numpy(), allow_pickle=False)
    return file.getvalue()
