"""Large files are divided: every record is read once, under the number it has in the whole file."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import IngestConfig, SourceConfig
from corpus.documents import read_unit
from corpus.inventory import Inventory, plan_units, take_inventory
from corpus.sources import InputFile, open_source
from corpus.sources.base import Cursor
from corpus.spans import find_spans, line_spans

LINES = st.lists(
    st.sampled_from(
        [b'{"text": "a"}', b'{"text": "bb"}', b"", b"  ", b"\t\r", b"broken", b'{"text": "%s"}' % (b"x" * 90)]
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(lines=LINES, size=st.integers(1, 200), end=st.sampled_from([b"", b"\n"]), block=st.integers(1, 64))
def test_ranges_of_lines_read_what_the_whole_file_has(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], size: int, end: bytes, block: int
) -> None:
    data = b"\n".join(lines) + end
    folder = tmp_path_factory.mktemp("spans")
    (folder / "a.jsonl").write_bytes(data)
    source = open_source(SourceConfig(name="s", kind="jsonl", path=str(folder)), max_record_bytes=64)
    [file] = source.inventory()
    whole = list(source.records(file))
    stream = io.BytesIO(data)
    spans = line_spans(iter(lambda: stream.read(block), b""), len(data), size, 64)
    pieces = [
        list(source.records(file, cursor=Cursor(record=span.record, offset=span.begin, stop=span.end)))
        for span in spans
    ]
    assert [record for piece in pieces for record in piece] == whole
    assert [span.begin for span in spans[1:]] == [span.end for span in spans[:-1]]
    assert sum(span.bytes for span in spans) == len(data)


def divided(folder: Path, kind: str, part_bytes: int) -> tuple[IngestConfig, Inventory, dict[InputFile, list[object]]]:
    config = IngestConfig(
        sources=(SourceConfig(name="s", kind=kind, path=str(folder)),),  # type: ignore[arg-type]
        part_bytes=part_bytes,
    )
    inventory = take_inventory(config)
    return config, inventory, find_spans(inventory, config, {})  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_divided_file_becomes_the_documents_of_the_whole_one(tmp_path: Path, kind: str) -> None:
    texts = [f"document {number} " + "word " * (number % 40) for number in range(2000)]
    if kind == "jsonl":
        (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{text}"}}\n\n' for text in texts))
    else:
        pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=90, compression="none")
    config, inventory, found = divided(tmp_path, kind, 1500)
    [spans] = found.values()
    assert len(spans) > 10
    units = plan_units(inventory, config, {("s", inventory.files[0].uri): spans})  # type: ignore[arg-type]
    assert len(units) == len(spans) == len({unit.stem for unit in units})
    batches = [batch for unit in units for batch in read_unit(config, unit)]
    rows = pa.concat_tables([batch.documents for batch in batches]).to_pylist()
    assert [row["record"] for row in rows] == list(range(2000))
    assert [row["text"] for row in rows] == [text.rstrip() for text in texts]
    whole = [batch for unit in plan_units(inventory, config) for batch in read_unit(config, unit)]
    assert pa.concat_tables([b.documents for b in whole]).to_pylist() == rows
    checksums = {row["sha256"] for batch in batches for row in batch.ledger.to_pylist()}
    assert len(checksums - {None}) == 1


def test_packed_files_and_limited_sources_stay_whole(tmp_path: Path) -> None:
    import gzip

    line = b'{"text": "hello"}\n'
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress(line * 50_000, 0))
    (tmp_path / "plain.jsonl").write_bytes(line * 5000)
    _, _, found = divided(tmp_path, "jsonl", 2000)
    assert {file.uri: len(spans) > 1 for file, spans in found.items()} == {"packed.jsonl": False, "plain.jsonl": True}
    limited = IngestConfig(
        sources=(SourceConfig(name="s", kind="jsonl", path=str(tmp_path), limit=3),), part_bytes=2000
    )
    assert find_spans(take_inventory(limited), limited, {}) == {}


def test_known_ranges_are_not_looked_for_again(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "hello"}\n' * 5000)
    config, inventory, found = divided(tmp_path, "jsonl", 2000)
    (tmp_path / "a.jsonl").unlink()
    assert find_spans(inventory, config, found) == found  # type: ignore[arg-type]
