"""The one writer and reader of Arrow and Parquet files.

It casts to the schema and fixes row groups, compression and encodings, so that the same rows give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from storage.filesystem import Store
from storage.schemas import ID_BYTES

COMPRESSION = "zstd"
COMPRESSION_LEVEL = 1
ROW_GROUP_ROWS = 16_384
ROW_GROUP_BYTES = 16 << 20


def cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with exactly the columns, order and types of `schema`.

    Raises
    ------
    ValueError
        If columns are missing or left over, or if a column that must not be null has nulls.
    """
    wanted, there = schema.names, table.column_names
    missing = [name for name in wanted if name not in there]
    extra = [name for name in there if name not in wanted]
    if missing or extra:
        raise ValueError(f"columns do not fit the schema: missing {missing}, not in the schema {extra}")
    columns = []
    for field in schema:
        column = table.column(field.name)
        if not field.nullable and column.null_count:
            raise ValueError(f"the column {field.name} has nulls, which its schema does not allow")
        columns.append(column if column.type.equals(field.type) else column.cast(field.type))
    # Under the schema itself: metadata that a file left on the columns would be written again.
    return pa.Table.from_arrays(columns, schema=schema)


def row_group_rows(table: pa.Table) -> int:
    """Rows a row group: at most 16,384 and, on average, at most 16 MiB, as a pure function of the table."""
    if table.num_rows == 0:
        return ROW_GROUP_ROWS
    size = sum(_value_bytes(column) for column in table.columns)
    by_bytes = ROW_GROUP_BYTES * int(table.num_rows) // max(1, size)
    return max(1, min(ROW_GROUP_ROWS, by_bytes))


def _value_bytes(column: pa.ChunkedArray | pa.Array) -> int:
    """Bytes of the values alone: unlike the size of the buffers, it does not depend on how the column was made."""
    kind = column.type
    if pa.types.is_struct(kind):
        return sum(_value_bytes(pc.struct_field(column, index)) for index in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return 8 * len(column) + _value_bytes(pc.list_flatten(column))
    if pa.types.is_primitive(kind) or pa.types.is_fixed_size_binary(kind):
        return len(column) * int(kind.bit_width) // 8
    return 8 * len(column) + int(pc.sum(pc.binary_length(column)).as_py() or 0)


def write_parquet(file: Path, table: pa.Table, schema: pa.Schema) -> None:
    """Write a local Parquet file (zstd, fixed row groups)."""
    whole = cast(table, schema)
    rows = row_group_rows(whole)
    with pq.ParquetWriter(
        file,
        schema,
        **_codecs(schema),
        use_dictionary=[f.name for f in schema if pa.types.is_string(f.type)],
        # Counts and row numbers: an eighth of the bytes go through the compressor.
        column_encoding={f.name: "DELTA_BINARY_PACKED" for f in schema if pa.types.is_int64(f.type)},
        # The smallest and largest text would lie in the footer, whole.
        write_statistics=[f.name for f in schema if pa.types.is_primitive(f.type)],
        data_page_version="2.0",
        version="2.6",
        store_schema=True,
    ) as writer:
        # Joining the chunks of a row group keeps the bytes free of how the table was put together; joining all of them
        # at once would hold the table twice.
        for begin in range(0, max(1, whole.num_rows), rows):
            writer.write_table(whole.slice(begin, rows).combine_chunks(), row_group_size=rows)


def _codecs(schema: pa.Schema) -> dict[str, Any]:
    """How columns are compressed: all alike, but bytes that are as good as random not at all."""
    if not any(_is_random(field) for field in schema):
        return {"compression": COMPRESSION, "compression_level": COMPRESSION_LEVEL}
    names = {field.name: _is_random(field) for field in schema}
    return {
        "compression": {name: "none" if random else COMPRESSION for name, random in names.items()},
        "compression_level": {name: COMPRESSION_LEVEL for name, random in names.items() if not random},
    }


def _is_random(field: pa.Field) -> bool:
    """Whether a column holds signatures: a tenth is saved by compressing them, at eight times the cost of reading."""
    return bool(pa.types.is_fixed_size_binary(field.type) and field.type.byte_width > ID_BYTES)


def write_ipc(file: Path, table: pa.Table, schema: pa.Schema) -> None:
    """Write a local Arrow IPC file with one uncompressed record batch, so that it can be mapped into memory."""
    whole = cast(table, schema).combine_chunks()
    # Copying by row numbers leaves out what slices and nulls hide in their buffers, which would be written too.
    rows = pa.arange(0, whole.num_rows)
    plain = [c if c.num_chunks and _is_plain(c.chunk(0)) else c.take(rows).combine_chunks() for c in whole.columns]
    batches = pa.Table.from_arrays(plain, schema=schema).to_batches() or [pa.RecordBatch.from_pylist([], schema=schema)]
    if len(batches) != 1:
        raise ValueError(f"{file}: {len(batches)} record batches where there must be one")
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batches[0])


def _is_plain(array: pa.Array) -> bool:
    """Whether the buffers hold nothing but the values, as far as that is told without looking at them."""
    if not len(array) or array.offset or array.null_count:
        return False
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        ends = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return ends == (0, len(array.values)) and _is_plain(array.values)
    return bool(pa.types.is_integer(array.type) or pa.types.is_fixed_size_binary(array.type))


def read_parquet(store: Store, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file as a table; OSError naming the file if it is missing or damaged."""
    try:
        with open_parquet(store, path) as file:
            return _select(file.read(columns, use_threads=store.is_local), columns)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise OSError(f"{store.url}/{path} cannot be read as Parquet: {error}") from error


@contextmanager
def open_parquet(store: Store, path: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file to be read in pieces; read them with `use_threads=store.is_local`.

    Threads of Arrow must not hold a Python file, which those of remote stores are: one that lets go of it while the
    interpreter ends takes the process with it.
    """
    if store.is_local:
        with pq.ParquetFile(store.local(path), memory_map=True, pre_buffer=False) as file:
            yield file
    else:
        with store.open(path) as stream:
            yield pq.ParquetFile(stream)


def _select(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """The columns in the order asked for; ArrowInvalid for one that is not there."""
    if columns is None:
        return table
    if missing := [name for name in columns if name not in table.column_names]:
        raise pa.ArrowInvalid(f"it has no columns {missing}")
    return table.select(list(columns))


def read_rows(store: Store, path: str, columns: Sequence[str], rows: Any) -> pa.Table:
    """Some rows (ascending whole numbers) of a Parquet file; row groups without any of them are not read.

    OSError naming the file if it is damaged, IndexError if it has no such rows.
    """
    return pa.concat_tables([group.take(places) for group, places in _row_groups(store, path, columns, rows)])


def read_row_groups(store: Store, path: str, columns: Sequence[str], rows: Any) -> tuple[pa.Table, pa.Int64Array]:
    """The whole row groups that `read_rows` reads, and the places of its rows in them: nothing is copied."""
    tables, found, before = [], [], 0
    for group, places in _row_groups(store, path, columns, rows):
        tables.append(group)
        found.append(pc.add(places, before))
        before += group.num_rows
    return pa.concat_tables(tables), pa.concat_arrays(found)


def _row_groups(store: Store, path: str, columns: Sequence[str], rows: Any) -> Iterator[tuple[pa.Table, pa.Int64Array]]:
    """Row groups with any of the rows and the places of these in each; one without rows if there are none."""
    wanted = pa.array(rows, pa.int64())
    try:
        with open_parquet(store, path) as file:
            yield _select(file.schema_arrow.empty_table(), columns), wanted.slice(0, 0)
            start = taken = 0
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                upto = taken + (pc.sum(pc.less(wanted.slice(taken), end)).as_py() or 0)
                if upto > taken:
                    table = file.read_row_group(group, list(columns), use_threads=store.is_local)
                    yield _select(table, columns), pc.subtract(wanted.slice(taken, upto - taken), start)
                start, taken = end, upto
            if taken < len(wanted):
                raise IndexError(f"{store.url}/{path} has {start} rows, the row {wanted[-1]} was asked for")
    except (pa.ArrowException, OSError) as error:
        raise OSError(f"{store.url}/{path} cannot be read as Parquet: {error}") from error


def read_ipc(file: Path) -> pa.Table:
    """A local Arrow IPC file mapped into memory; OSError naming the file if it is missing or damaged."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise OSError(f"{file} cannot be read as an Arrow file: {error}") from error
