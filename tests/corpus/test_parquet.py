"""Parquet: what cannot be read costs its row group alone, and every row keeps its true number."""

from __future__ import annotations

import datetime
import itertools
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import SourceConfig
from corpus.sources import BadRecord, Cursor, Found, Record, open_source
from tests.corpus.reading import check_resuming, kinds, read, texts

ROWS = 3000
TEXTS = [f"text {number} " + "é" * (number % 60) for number in range(ROWS)]


def put(path: Path, **options: object) -> Path:
    table = pa.table({"text": TEXTS, "other": list(range(ROWS))})
    pq.write_table(table, path, **{"row_group_size": 1000, "use_dictionary": False, **options})
    return path


def damage(path: Path, group: int, column: int, begin: float, size: int) -> None:
    """Overwrites bytes of a column chunk, from this share of it on."""
    chunk = pq.ParquetFile(path).metadata.row_group(group).column(column)
    data = bytearray(path.read_bytes())
    at = chunk.data_page_offset + int(begin * chunk.total_compressed_size)
    end = min(at + size, chunk.data_page_offset + chunk.total_compressed_size)
    data[at:end] = b"\xff" * (end - at)
    path.write_bytes(data)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_a_damaged_page_costs_its_rows_and_those_behind_it_in_its_group(tmp_path: Path, compression: str) -> None:
    path = put(tmp_path / "a.parquet", compression=compression, data_page_size=4096, write_batch_size=64)
    damage(path, 1, 0, 0.7, 6000)
    found = read("parquet", tmp_path)
    bad = [record for record in found if isinstance(record, BadRecord)]
    whole = {record.record: record.text for record in found if isinstance(record, Record)}
    assert {record.error for record in bad} <= {"bad-parquet", "bad-utf8", "empty-text"}
    assert any("row group 1" in record.message for record in bad)
    for number in (*range(1000), *range(2000, 3000)):
        assert whole[number] == TEXTS[number]
    assert [record.record for record in found] == sorted({record.record for record in found})


def test_damage_in_a_column_that_is_not_read_costs_nothing(tmp_path: Path) -> None:
    damage(put(tmp_path / "a.parquet"), 1, 1, 0, 2000)
    assert texts(read("parquet", tmp_path)) == TEXTS


def test_first_and_stop_are_row_numbers_and_ranges_of_a_damaged_file_are_its_parts(tmp_path: Path) -> None:
    path = put(tmp_path / "a.parquet")
    damage(path, 1, 0, 0, 3000)
    source = open_source(SourceConfig(name="s", kind="parquet", path=str(path)))
    [file] = source.inventory()
    whole = list(source.records(file))
    for borders in ([0, 700, 1400, 2100, 3000], [0, 1000, 2000, 3000], [0, 999, 1001, 5000]):
        parts: list[Found] = []
        for begin, end in itertools.pairwise(borders):
            parts += source.records(file, cursor=Cursor(record=begin, offset=begin, stop=end))
        assert parts == whole
    check_resuming("parquet", tmp_path, 301)


def test_footers_that_lie_about_rows_lose_no_row_of_another_group(tmp_path: Path) -> None:
    path = put(tmp_path / "a.parquet", row_group_size=1500)
    data = path.read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - size : -8]
    count = b"\x16" + bytes([0xB8, 0x17])  # 1500 rows: a Thrift compact i64, zigzag
    assert footer.count(count) >= 2
    at = footer.rfind(count, 0, len(footer) // 2)
    lie = footer[:at] + b"\x16" + bytes([0x88, 0x18]) + footer[at + 3 :]  # 1540
    path.write_bytes(data[: -8 - size] + lie + data[-8:])
    found = read("parquet", tmp_path)
    assert set(kinds(found)) <= {"", "bad-parquet"}
    assert len(texts(found)) >= 1500


def test_two_columns_of_one_name_and_names_with_dots(tmp_path: Path) -> None:
    table = pa.Table.from_arrays(
        [pa.array(["first"]), pa.array(["second"]), pa.array(["dotted"]), pa.array([{"b": "nested"}])],
        names=["text", "text", "a.b", "a"],
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert texts(read("parquet", tmp_path)) == ["first"]
    assert texts(read("parquet", tmp_path, text_field="a.b")) == ["dotted"]


def test_values_that_python_has_not_are_strings(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", "b"],
            "date": pa.array([1, 2**31 - 1], pa.date32()),
            "at": pa.array([1, 1_700_000_000_000_000_000], pa.timestamp("ns")),
            "there": pa.array([1, 2], pa.timestamp("s", tz="No/Where")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = read("parquet", tmp_path, meta_fields=("at", "there"))
    assert kinds(found) == ["", ""]
    first, second = found
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert first.date == "1970-01-02"
    assert "out of range" in str(second.date)
    assert "1970-01-01 00:00:00.000000001" in str((first.meta or {})["at"])
    assert str((second.meta or {})["at"]).startswith(str(datetime.datetime(2023, 11, 14, 22, 13, 20)))


def test_string_types_of_every_kind(tmp_path: Path) -> None:
    for kind in (pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())):
        pq.write_table(
            pa.table({"text": pa.array(["a", "é" * 30, None], pa.string()).cast(kind)}), tmp_path / "a.parquet"
        )
        found = read("parquet", tmp_path)
        assert kinds(found) == ["", "", "missing-text"]
        assert texts(found) == ["a", "é" * 30]


def test_a_large_row_group_is_read_in_bounded_memory(tmp_path: Path) -> None:
    table = pa.table({"text": [f"{number} " * 4000 + str(number) for number in range(8000)]})
    size = table.nbytes
    assert size > 140 << 20
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=8000, compression="none", use_dictionary=False)
    program = (
        "import resource, sys\n"
        "from corpus.config import SourceConfig\n"
        "from corpus.sources import open_source\n"
        "source = open_source(SourceConfig(name='s', kind='parquet', path=sys.argv[1]))\n"
        "[file] = source.inventory()\n"
        "records = source.records(file)\n"
        "next(records)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(1 + sum(1 for _ in records), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    count, kibibytes = map(int, done.stdout.split())
    assert count == 8000
    assert kibibytes * 1024 < size // 4


@settings(max_examples=80, deadline=None)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=5),
    in_footer=st.booleans(),
    dictionary=st.booleans(),
    cut=st.sampled_from([1.0, 1.0, 0.9, 0.5]),
)
def test_damage_never_raises_and_numbers_stay_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    edits: list[tuple[float, int]],
    in_footer: bool,
    dictionary: bool,
    cut: float,
) -> None:
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    table = pa.table({"text": pa.array(TEXTS).dictionary_encode() if dictionary else TEXTS})
    pq.write_table(table, path, row_group_size=500, use_dictionary=dictionary)
    data = bytearray(path.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    begin, end = (footer, len(data)) if in_footer else (4, footer)
    for place, value in edits:
        data[begin + int(place * (end - begin))] = value
    path.write_bytes(data[: int(cut * len(data))])
    found = read("parquet", path)
    numbers = [record.record for record in found]
    assert numbers == sorted(set(numbers))
    if cut < 1:
        assert kinds(found) == ["bad-parquet"]
    elif not in_footer:
        spoiled = {
            group for group in range(6) for place, _ in edits if _touches(path, group, 4 + int(place * (end - 4)))
        }
        good = {record.record: record.text for record in found if isinstance(record, Record)}
        for number in range(ROWS):
            assert number // 500 in spoiled or good[number] == TEXTS[number]


def _touches(path: Path, group: int, at: int) -> bool:
    chunk = pq.ParquetFile(path).metadata.row_group(group).column(0)
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    return bool(begin <= at < begin + chunk.total_compressed_size)
