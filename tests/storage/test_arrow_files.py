"""The same rows give the same bytes, however the table that holds them was put together."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import arrow_files
from storage.filesystem import Store
from storage.schemas import CUTS, DECISIONS, DOCUMENTS, signature_schema, token_schema

SIGNATURES = signature_schema(4)
TOKENS = token_schema(pa.uint16())

identity = st.binary(min_size=16, max_size=16)
word = st.text(max_size=12)
maybe = st.one_of(st.none(), word)
ROWS: dict[str, tuple[pa.Schema, st.SearchStrategy[dict[str, Any]]]] = {
    "documents": (
        DOCUMENTS,
        st.fixed_dictionaries(
            {"id": identity, "text": st.text(max_size=60), "source": word, "uri": word, "record": st.integers(0, 9)}
            | dict.fromkeys(("url", "date", "meta"), maybe)
        ),
    ),
    "decisions": (
        DECISIONS,
        st.fixed_dictionaries(
            {"id": identity, "dropped_by": maybe, "hits": st.lists(word, max_size=3)}
            | {"keeper": st.one_of(st.none(), identity), "similarity": st.one_of(st.none(), st.floats(0, 1, width=32))}
            | {"method": maybe, "split": maybe, "repeats": st.one_of(st.none(), st.integers(0, 5))}
        ),
    ),
    "cuts": (
        CUTS,
        st.fixed_dictionaries(
            {
                "id": identity,
                "spans": st.lists(
                    st.fixed_dictionaries(
                        {"start": st.integers(0, 9), "end": st.integers(0, 9), "replacement": word, "reason": word}
                    ),
                    max_size=3,
                ),
            }
        ),
    ),
    "signatures": (
        SIGNATURES,
        st.fixed_dictionaries(
            {
                "id": identity,
                "signature": st.one_of(st.none(), st.binary(min_size=16, max_size=16)),
                "shingles": st.integers(0, 9),
            }
        ),
    ),
    "tokens": (
        TOKENS,
        st.fixed_dictionaries({"id": identity, "tokens": st.lists(st.integers(0, 2**16 - 1), max_size=20)}),
    ),
}


def differently_made(table: pa.Table, cuts: list[int]) -> list[pa.Table]:
    """The same rows in other chunks, as a slice of more, filtered from more, and under metadata."""
    edges = sorted({0, table.num_rows, *(cut % (table.num_rows + 1) for cut in cuts)})
    chunks = [table.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    chunked = pa.concat_tables(chunks) if chunks else table
    around = pa.concat_tables([table, table, table]).combine_chunks()
    sliced = around.slice(table.num_rows, table.num_rows)
    mask = pa.array([i % 2 == 0 for i in range(2 * table.num_rows)], pa.bool_())
    doubled = pa.concat_tables([table.slice(i, 1) for i in range(table.num_rows) for _ in range(2)] or [table])
    filtered = doubled.filter(mask)
    fields = [field.with_metadata({"PARQUET:field_id": str(i)}) for i, field in enumerate(table.schema)]
    marked = pa.Table.from_arrays(table.columns, schema=pa.schema(fields, metadata={"who": "me"}))
    return [chunked, sliced, filtered, marked, table.select(list(reversed(table.column_names)))]


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("form", ["parquet", "ipc"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_same_rows_give_the_same_bytes(kind: str, form: str, tmp_path: Path, data: st.DataObject) -> None:
    schema, row = ROWS[kind]
    rows = data.draw(st.lists(row, max_size=12))
    cuts = data.draw(st.lists(st.integers(0, 100), max_size=4))
    table = pa.Table.from_pylist(rows, schema=schema)
    write = arrow_files.write_parquet if form == "parquet" else arrow_files.write_ipc
    write(tmp_path / "plain", table, schema)
    expected = (tmp_path / "plain").read_bytes()
    for other in differently_made(table, cuts):
        assert other.num_rows == table.num_rows
        write(tmp_path / "other", other, schema)
        assert (tmp_path / "other").read_bytes() == expected
    if form == "parquet":
        store = Store(tmp_path)
        assert arrow_files.read_parquet(store, "plain").equals(table)
        write(tmp_path / "again", arrow_files.read_parquet(store, "plain"), schema)
    else:
        assert arrow_files.read_ipc(tmp_path / "plain").equals(table)
        write(tmp_path / "again", arrow_files.read_ipc(tmp_path / "plain"), schema)
    assert (tmp_path / "again").read_bytes() == expected, "reading and writing again changes nothing"


def test_bytes_hidden_under_a_null_are_not_written(tmp_path: Path) -> None:
    values = pa.array(["kept", "hidden" * 1000, "kept"])
    bitmap = pa.py_buffer(b"\x05")
    hidden = pa.Array.from_buffers(pa.string(), 3, [bitmap, *values.buffers()[1:]], null_count=1)
    schema = pa.schema([pa.field("url", pa.string())])
    plain = pa.table({"url": pa.array(["kept", None, "kept"])})
    for write in (arrow_files.write_parquet, arrow_files.write_ipc):
        write(tmp_path / "plain", plain, schema)
        write(tmp_path / "hidden", pa.table({"url": hidden}), schema)
        assert (tmp_path / "plain").read_bytes() == (tmp_path / "hidden").read_bytes()


def test_row_groups_are_bounded_in_rows_and_bytes(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("text", pa.large_string(), nullable=False)])
    short = pa.table({"text": pa.array(["x"] * 40_000, pa.large_string())})
    arrow_files.write_parquet(tmp_path / "short", short, schema)
    metadata = pq.read_metadata(tmp_path / "short")
    rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert rows == [16_384, 16_384, 40_000 - 2 * 16_384]
    long = pa.table({"text": pc.binary_repeat(pa.array(["y"] * 100, pa.large_string()), 1 << 20)})
    arrow_files.write_parquet(tmp_path / "long", long, schema)
    metadata = pq.read_metadata(tmp_path / "long")
    assert metadata.num_row_groups > 6
    assert all(metadata.row_group(i).num_rows <= 16 for i in range(metadata.num_row_groups))
    column = metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert arrow_files.row_group_rows(long.slice(0, 3)) == arrow_files.row_group_rows(long.take([0, 1, 2]))


def test_signatures_are_not_compressed_and_no_footer_holds_a_text(tmp_path: Path) -> None:
    row = {"id": bytes(16), "signature": bytes(432), "shingles": 1}
    schema = signature_schema(108)
    arrow_files.write_parquet(tmp_path / "x", pa.Table.from_pylist([row] * 100, schema=schema), schema)
    group = pq.read_metadata(tmp_path / "x").row_group(0)
    assert [group.column(i).compression for i in range(3)] == ["ZSTD", "UNCOMPRESSED", "ZSTD"]
    assert [group.column(i).is_stats_set for i in range(3)] == [False, False, True]


def test_ipc_files_hold_one_batch_that_is_mapped_not_copied(tmp_path: Path) -> None:
    table = pa.concat_tables([pa.Table.from_pylist([{"id": bytes(16), "tokens": [1, 2]}], schema=TOKENS)] * 3)
    arrow_files.write_ipc(tmp_path / "x.arrow", table, TOKENS)
    assert pa.ipc.open_file(tmp_path / "x.arrow").num_record_batches == 1
    before = pa.total_allocated_bytes()
    mapped = arrow_files.read_ipc(tmp_path / "x.arrow")
    assert pa.total_allocated_bytes() - before < 1024
    assert mapped.equals(table)
    arrow_files.write_ipc(tmp_path / "none.arrow", table.slice(0, 0), TOKENS)
    assert arrow_files.read_ipc(tmp_path / "none.arrow").num_rows == 0


def test_tables_that_do_not_fit_the_schema_are_refused_by_column() -> None:
    table = pa.table({"id": pa.array([bytes(16)], pa.binary(16)), "extra": [1]})
    with pytest.raises(ValueError, match=r"missing \['spans'\], not in the schema \['extra'\]"):
        arrow_files.cast(table, CUTS)
    nulls = pa.table({"id": pa.array([None], pa.binary(16)), "tokens": pa.array([[1]], TOKENS.field("tokens").type)})
    with pytest.raises(ValueError, match="column id has nulls"):
        arrow_files.cast(nulls, TOKENS)
    narrow = pa.table({"id": pa.array([bytes(16)], pa.binary(16)), "tokens": pa.array([[70_000]])})
    with pytest.raises(pa.ArrowInvalid, match="70000"):
        arrow_files.cast(narrow, TOKENS)
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises((ValueError, KeyError), match="a"):
        arrow_files.cast(twice, pa.schema([("a", pa.int64())]))


def test_damaged_and_missing_files_are_named(store: Store, tmp_path: Path) -> None:
    store.create("x.parquet", b"PAR1 this is not Parquet PAR1")
    with pytest.raises(OSError, match=r"x\.parquet cannot be read as Parquet"):
        arrow_files.read_parquet(store, "x.parquet")
    with pytest.raises(FileNotFoundError):
        arrow_files.read_parquet(store, "missing.parquet")
    (tmp_path / "x.arrow").write_bytes(b"ARROW1 no")
    with pytest.raises(OSError, match=r"x\.arrow cannot be read as an Arrow file"):
        arrow_files.read_ipc(tmp_path / "x.arrow")
    with pytest.raises(FileNotFoundError):
        arrow_files.read_ipc(tmp_path / "missing.arrow")


def test_columns_can_be_chosen_and_a_missing_one_is_an_error(store: Store, tmp_path: Path) -> None:
    table = pa.Table.from_pylist([{"id": bytes(16), "tokens": [1, 2]}], schema=TOKENS)
    arrow_files.write_parquet(tmp_path / "x", table, TOKENS)
    store.publish(tmp_path / "x", "x.parquet")
    assert arrow_files.read_parquet(store, "x.parquet", ["tokens"]).column_names == ["tokens"]
    with pytest.raises(OSError, match="nope"):
        arrow_files.read_parquet(store, "x.parquet", ["nope"])
