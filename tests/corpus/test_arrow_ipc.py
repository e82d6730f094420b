"""Arrow files: files, streams and Feather, and a damaged record batch costs itself."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.sources import BadRecord, Record
from tests.corpus.reading import check_resuming, kinds, read, texts

TABLE = pa.table(
    {
        "text": pa.array([f"text {number}" for number in range(1000)], pa.large_string()),
        "url": pa.array([f"http://{number % 3}" for number in range(1000)]).dictionary_encode(),
        "deep": pa.array([{"body": f"body {number}"} for number in range(1000)]),
    }
)


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("form", ["file", "stream"])
def test_files_and_streams(tmp_path: Path, form: str, compression: str | None) -> None:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    make = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with make(str(tmp_path / "a.arrow"), TABLE.schema, options=options) as writer:
        writer.write_table(TABLE, max_chunksize=300)
    found = read("arrow", tmp_path)
    assert found[7] == Record(7, "text 7", "http://1")
    assert texts(found) == TABLE["text"].to_pylist()
    assert texts(read("arrow", tmp_path, text_field="deep.body"))[999] == "body 999"
    check_resuming("arrow", tmp_path, 190)


def test_feather_and_packed_files(tmp_path: Path) -> None:
    import gzip

    feather.write_feather(TABLE.select(["text"]), tmp_path / "a.feather")
    assert len(texts(read("arrow", tmp_path))) == 1000
    (tmp_path / "b.arrow.gz").write_bytes(gzip.compress((tmp_path / "a.feather").read_bytes()))
    assert len(texts(read("arrow", tmp_path))) == 2000


def test_what_is_missing_or_no_arrow_is_one_bad_record(tmp_path: Path) -> None:
    feather.write_feather(pa.table({"body": ["a"]}), tmp_path / "a.feather")
    (tmp_path / "b.arrow").write_bytes(b"ARROW1 not really")
    found = read("arrow", tmp_path)
    assert kinds(found) == ["missing-column", "bad-arrow"]
    assert isinstance(found[0], BadRecord)
    assert "body" in found[0].message


def write(path: Path, table: pa.Table, form: str = "file", rows: int = 100) -> bytearray:
    make = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with make(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return bytearray(path.read_bytes())


def test_a_file_cut_short_gives_the_rows_before_the_cut_and_one_bad_tail(tmp_path: Path) -> None:
    for form in ("file", "stream"):
        data = write(tmp_path / "a.arrow", TABLE.select(["text"]), form)
        (tmp_path / "a.arrow").write_bytes(data[: len(data) // 2])
        found = read("arrow", tmp_path)
        good = len(found) - 1
        assert kinds(found) == [""] * good + ["bad-arrow"]
        assert texts(found) == TABLE["text"].to_pylist()[:good]
        assert good % 100 == 0
        assert 300 <= good <= 500


def test_a_damaged_batch_of_a_file_costs_itself(tmp_path: Path) -> None:
    data = write(tmp_path / "a.arrow", TABLE.select(["text"]))
    # An offset in the middle of the batch that points far behind the text, as a damaged disk might have it.
    at = data.index(b"text 450") - 8 * 60
    data[at : at + 8] = (1 << 40).to_bytes(8, "little")
    (tmp_path / "a.arrow").write_bytes(data)
    found = read("arrow", tmp_path)
    assert kinds(found) == [""] * 400 + ["bad-arrow"] + [""] * 500
    assert texts(found) == [f"text {number}" for number in range(1000) if not 400 <= number < 500]
    assert [record.record for record in found] == list(range(901))
    assert isinstance(found[400], BadRecord)
    assert "record batch 4 of 10" in found[400].message


def test_bytes_that_are_no_utf8_cost_their_row_in_strings_of_every_kind(tmp_path: Path) -> None:
    values = [f"text {number}" for number in range(30)]
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        data = write(tmp_path / "a.arrow", pa.table({"text": pa.array(values).cast(kind)}))
        at = data.rindex(b"text 17")
        data[at + 2] = 0xFF
        (tmp_path / "a.arrow").write_bytes(data)
        found = read("arrow", tmp_path)
        assert kinds(found) == ["bad-utf8" if number == 17 else "" for number in range(30)]


@settings(max_examples=100, deadline=None)
@given(
    form=st.sampled_from(["file", "stream"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    cut=st.floats(0.2, 1),
)
def test_damage_never_raises_and_numbers_are_in_order(
    tmp_path_factory: pytest.TempPathFactory, form: str, edits: list[tuple[float, int]], cut: float
) -> None:
    folder = tmp_path_factory.mktemp("arrow")
    data = write(folder / "a.arrow", TABLE, form)
    for place, value in edits:
        data[int(place * len(data))] = value
    (folder / "a.arrow").write_bytes(data[: int(cut * len(data))])
    found = read("arrow", folder)
    assert found
    assert [record.record for record in found] == list(range(len(found)))
    if not edits:
        good = texts(found)
        assert good == TABLE["text"].to_pylist()[: len(good)]
        assert len(good) == 1000 or kinds(found)[-1] == "bad-arrow"
