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


@settings(max_examples=60, deadline=None)
@given(
    form=st.sampled_from(["file", "stream"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    cut=st.floats(0.2, 1),
)
def test_damage_never_raises_and_numbers_are_in_order(
    tmp_path_factory: pytest.TempPathFactory, form: str, edits: list[tuple[float, int]], cut: float
) -> None:
    folder = tmp_path_factory.mktemp("arrow")
    make = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with make(str(folder / "a.arrow"), TABLE.select(["text"]).schema, options=pa.ipc.IpcWriteOptions()) as writer:
        writer.write_table(TABLE.select(["text"]), max_chunksize=100)
    data = bytearray((folder / "a.arrow").read_bytes())
    for place, value in edits:
        data[int(place * len(data))] = value
    (folder / "a.arrow").write_bytes(data[: int(cut * len(data))])
    found = read("arrow", folder)
    assert found or cut < 1
    assert [r.record for r in found] == sorted({r.record for r in found})
