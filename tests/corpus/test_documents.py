"""Documents: every record is accounted for, ids come from the text, parts from the input alone."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus import documents, parts
from corpus.config import IngestConfig, NormaliseConfig, SourceConfig, Takedown
from corpus.documents import id_index, read_all, read_unit
from corpus.inventory import plan_units, take_inventory
from corpus.parts import DocumentBatch, canonical_meta
from corpus.sources import SourceError
from corpus.texts import document_id, large_strings
from storage.schemas import DOCUMENTS, ID_INDEX, LEDGER, QUARANTINE


def ingest(folder: Path, kind: str = "jsonl", **settings: Any) -> list[DocumentBatch]:
    source = SourceConfig(name="web", kind=kind, path=str(folder))  # type: ignore[arg-type]
    config = IngestConfig(sources=(source,), **settings)
    return [batch for unit in plan_units(take_inventory(config), config) for batch in read_unit(config, unit)]


def check_accounts(batches: list[DocumentBatch], files: int) -> None:
    """The laws of the ledger, added up anew from the rows themselves."""
    for batch in batches:
        assert batch.documents.schema == DOCUMENTS
        assert batch.quarantine.schema == QUARANTINE
        assert batch.ledger.schema == LEDGER
        assert batch.counts.read == batch.counts.kept + sum(batch.counts.quarantined.values())
        assert batch.counts.kept == batch.documents.num_rows
        assert sum(batch.counts.quarantined.values()) == batch.quarantine.num_rows
        batch.documents.validate(full=True)
        for row in batch.documents.to_pylist():
            assert row["id"] == document_id(row["text"])
    ledger = pa.concat_tables([batch.ledger for batch in batches]).to_pylist()
    assert len({row["uri"] for row in ledger}) == len(ledger) == files
    documents = pa.concat_tables([batch.documents for batch in batches])
    quarantine = pa.concat_tables([batch.quarantine for batch in batches])
    for row in ledger:
        written = documents.filter(pc.equal(documents["uri"], row["uri"]))["record"].to_pylist()
        aside = quarantine.filter(pc.equal(quarantine["uri"], row["uri"]))["record"].to_pylist()
        assert (row["written"], row["quarantined"]) == (len(written), len(aside))
        assert row["records"] == row["written"] + row["quarantined"]
        assert sorted(written + aside) == list(range(row["records"]))


def test_real_files_in_several_formats_become_documents(tmp_path: Path, shared_data: Path) -> None:
    for name in ("text/c4_en_300.jsonl.gz", "text/cc_en_head-0091.jsonl.gz"):
        (tmp_path / Path(name).name).write_bytes((shared_data / name).read_bytes())
    batches = ingest(tmp_path)
    check_accounts(batches, files=2)
    assert sum(batch.counts.kept for batch in batches) == 310
    with gzip.open(shared_data / "text" / "c4_en_300.jsonl.gz", "rt", encoding="utf-8") as lines:
        first = json.loads(next(lines))["text"]
    assert first.strip() in batches[0].documents["text"].to_pylist()


def test_a_real_archive_cut_anywhere_is_accounted_for(tmp_path: Path, shared_data: Path) -> None:
    whole = (shared_data / "text" / "c4_en_300.jsonl.gz").read_bytes()
    for number, cut in enumerate(range(500, len(whole), 40_000)):
        (tmp_path / f"{number}.jsonl.gz").write_bytes(whole[:cut])
    batches = ingest(tmp_path)
    check_accounts(batches, files=number + 1)
    assert sum(batch.counts.quarantined["broken-stream"] for batch in batches) == number + 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=20),
    packed=st.booleans(),
    cut=st.floats(0.05, 1),
    part_bytes=st.sampled_from([1024, 5000, 1 << 20]),
)
def test_the_ledger_adds_up_for_damaged_files(
    tmp_path_factory: pytest.TempPathFactory,
    shared_data: Path,
    edits: list[tuple[float, int]],
    packed: bool,
    cut: float,
    part_bytes: int,
) -> None:
    data = bytearray((shared_data / "text" / "cc_en_head-0091.jsonl.gz").read_bytes())
    if not packed:
        data = bytearray(gzip.decompress(data))
    for place, value in edits:
        data[int(place * len(data))] = value
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "a.jsonl").write_bytes(data[: int(cut * len(data))])
    batches = ingest(folder, part_bytes=part_bytes)
    check_accounts(batches, files=1)
    again = ingest(folder, part_bytes=part_bytes)
    assert [batch.documents for batch in batches] == [batch.documents for batch in again]
    assert [batch.quarantine for batch in batches] == [batch.quarantine for batch in again]


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=60), part_bytes=st.integers(1024, 4000))
def test_parts_stay_below_their_size_and_joined_give_the_input(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], part_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    texts = [f"{number:04d}".ljust(size, "x") for number, size in enumerate(sizes)]
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    batches = ingest(folder, part_bytes=part_bytes)
    check_accounts(batches, files=1)
    assert [text for batch in batches for text in batch.documents["text"].to_pylist()] == texts
    for batch in batches:
        assert sum(map(len, batch.documents["text"].to_pylist())) <= part_bytes or batch.documents.num_rows == 1
    assert batches[-1].ledger.num_rows == 1


def test_lone_surrogates_are_repaired_or_put_aside_never_a_crash(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "half \\ud83d", "url": "u\\udc00"}\n{"text": "whole"}\n')
    [repaired] = ingest(tmp_path)
    assert repaired.documents["text"].to_pylist() == ["half \ufffd", "whole"]
    assert repaired.documents["url"].to_pylist() == ["u\\udc00", None]
    assert repaired.normalised == {"fix_encoding": 1}
    [aside] = ingest(tmp_path, normalise=NormaliseConfig(fix_encoding=False))
    assert dict(aside.counts.quarantined) == {"lone-surrogate": 1}
    assert "half \\ud83d" in aside.quarantine["excerpt"].to_pylist()[0]
    check_accounts([aside], files=1)


def test_a_text_that_normalises_to_nothing_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\u0000\\u0001"}\n')
    [batch] = ingest(tmp_path)
    assert dict(batch.counts.quarantined) == {"empty-text": 1}


def test_an_empty_file_stands_in_the_ledger(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    [batch] = ingest(tmp_path)
    assert batch.counts.read == 0
    assert batch.ledger.to_pylist()[0]["records"] == 0


def test_ids_depend_on_the_text_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "same"}\n{"text": "other"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "same\\r\\n", "url": "http://x"}\n')
    ids = [row["id"] for batch in ingest(tmp_path) for row in batch.documents.to_pylist()]
    assert ids[0] == ids[2] != ids[1]
    assert ids[0] == hashlib.blake2b(b"same", digest_size=16).digest()


def test_python_documentation_becomes_documents() -> None:
    source = SourceConfig(name="docs", kind="python-docs", packages=("email", "orjson", "isal"))
    config = IngestConfig(sources=(source,))
    inventory = take_inventory(config)
    batches = [batch for unit in plan_units(inventory, config) for batch in read_unit(config, unit)]
    check_accounts(batches, files=len(inventory.files))
    documents = pa.concat_tables([batch.documents for batch in batches])
    assert documents.num_rows > 300
    kinds = {json.loads(meta)["kind"] for meta in documents["meta"].to_pylist()}
    assert kinds >= {"docstring", "metadata", "licence"}


def test_reading_all_of_a_small_source_and_refusing_one_without_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\nnot json\n{"text": "two"}\n')
    source = SourceConfig(name="eval", kind="jsonl", path=str(tmp_path))
    table = read_all(source, NormaliseConfig())
    assert table["text"].to_pylist() == ["one", "two"]
    assert json.loads(table.schema.metadata[b"counts"]) == {"read": 3, "kept": 2, "quarantined": {"bad-json": 1}}
    (tmp_path / "a.jsonl").write_text("not json\n")
    with pytest.raises(SourceError, match="none of its 1 records"):
        read_all(source, NormaliseConfig())


def test_meta_is_canonical_whatever_it_holds() -> None:
    assert canonical_meta({"b": 1, "a": {"d": "é", "c": None}}) == '{"a":{"c":null,"d":"é"},"b":1}'
    assert canonical_meta({"a": "\ud800", "b": 2**70}) == '{"a":"\\ud800","b":1180591620717411303424}'


@given(texts=st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=20), max_size=20))
def test_string_arrays_are_built_whole(texts: list[str]) -> None:
    array = large_strings([text.encode() for text in texts])
    array.validate(full=True)
    assert array.to_pylist() == texts


@given(
    parts=st.lists(st.lists(st.binary(min_size=1, max_size=1), max_size=6), max_size=5),
    shuffle=st.randoms(use_true_random=False),
    wrap=st.sampled_from([lambda a: a, lambda a: pa.chunked_array([a.slice(0, 2), a.slice(2)])]),
    alone=st.sampled_from([0, 1, 8]),
)
def test_the_index_is_sorted_by_id_part_and_row(
    parts: list[list[bytes]], shuffle: Any, wrap: Callable[[pa.Array], Any], alone: int
) -> None:
    named = [(f"p-{number:05d}", [digit * 16 for digit in ids]) for number, ids in enumerate(parts)]
    expected = sorted((identity, name, row) for name, ids in named for row, identity in enumerate(ids))
    named += [(f"q-{number}", [hashlib.md5(bytes([number])).digest()]) for number in range(20 * alone)]
    expected += [(identity, name, 0) for name, [identity] in named[len(parts) :]]
    expected.sort()
    shuffle.shuffle(named)
    index = id_index([(name, wrap(pa.array(ids, pa.binary(16)))) for name, ids in named])
    assert index.schema == ID_INDEX
    assert [tuple(row.values()) for row in index.to_pylist()] == expected


VALUES = [
    "some words",
    "é",
    "more  \n",
    "\u200b",
    "\r",
    "x" * 400,
    "Ã©",
    "  a\n\n\n\n\nb  ",
    "y" * 100,
    None,
    "",
    " \n",
]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    kind=st.sampled_from(["jsonl", "gzip", "parquet", "dictionary", "arrow"]),
    part_bytes=st.sampled_from([1024, 1500, 1 << 20]),
    part_rows=st.sampled_from([7, 500_000]),
    limit=st.sampled_from([None, 1, 30]),
    fraction=st.sampled_from([1.0, 0.5]),
)
def test_records_read_side_by_side_become_what_they_would_one_by_one(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    kind: str,
    part_bytes: int,
    part_rows: int,
    limit: int | None,
    fraction: float,
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    chance = random.Random(seed)
    some = chance.sample(VALUES, chance.randrange(1, len(VALUES)))
    texts = chance.choices(["readable", *some], [len(some), *[1] * len(some)], k=chance.randrange(1, 120))
    urls = chance.choices([None, "", "http://e/1"], k=len(texts))
    table = pa.table({"text": pa.array(texts, pa.string()), "url": pa.array(urls, pa.string()), "n": range(len(texts))})
    match kind:
        case "jsonl" | "gzip":
            lines = [
                json.dumps({"text": text, "url": url, "n": n})
                for n, (text, url) in enumerate(zip(texts, urls, strict=True))
            ]
            lines[len(lines) // 2 : len(lines) // 2] = ["", "{bad", "[1]", '{"text": 7}']
            data = "\n".join(lines).encode()
            (folder / "a.jsonl").write_bytes(gzip.compress(data) if kind == "gzip" else data)
        case "arrow":
            with pa.ipc.new_file(folder / "a.arrow", table.schema) as file:
                file.write_table(table, max_chunksize=25)
        case _:
            if kind == "dictionary":
                table = table.set_column(0, "text", table["text"].dictionary_encode())
            pq.write_table(table, folder / "a.parquet", row_group_size=33)
    source = SourceConfig(
        name="web",
        kind="jsonl" if kind == "gzip" else "parquet" if kind == "dictionary" else kind,  # type: ignore[arg-type]
        path=str(folder),
        meta_fields=("n", "nowhere"),
        limit=limit,
        fraction=fraction,
    )
    config = IngestConfig(sources=(source,), part_bytes=part_bytes)
    [unit] = plan_units(take_inventory(config), config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_PART_ROWS", part_rows)
        together = list(read_unit(config, unit))
        for number, batch in enumerate(together[:-1]):
            assert list(read_unit(config, unit, batch.next)) == together[number + 1 :]
        patch.setattr(documents, "_FEW_ROWS", 1 << 30)
        assert list(read_unit(config, unit)) == together


@pytest.mark.parametrize("kind", ["plain", "gzip", "parquet", "text"])
def test_reading_goes_on_from_any_part_and_gives_the_same(tmp_path: Path, shared_data: Path, kind: str) -> None:
    data = gzip.decompress((shared_data / "text" / "c4_en_300.jsonl.gz").read_bytes())
    bad = b'{"text": 5}\n\n{"text": "cut'
    if kind == "parquet":
        texts = [json.loads(line)["text"] for line in data.splitlines()]
        pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=70)
    elif kind == "text":
        for number, line in enumerate(data.splitlines()[:80]):
            (tmp_path / f"{number:02d}.txt").write_bytes(line)
    else:
        for number, name in enumerate(("a.jsonl", "b.jsonl")):
            some = b"".join(data.splitlines(keepends=True)[number * 100 : number * 100 + 150]) + bad
            (tmp_path / name).write_bytes(gzip.compress(some) if kind == "gzip" else some)
    source = SourceConfig(name="web", kind="jsonl" if kind in ("plain", "gzip") else kind, path=str(tmp_path))  # type: ignore[arg-type]
    config = IngestConfig(sources=(source,), part_bytes=40_000)
    parts = 0
    for unit in plan_units(take_inventory(config), config):
        whole = list(read_unit(config, unit))
        assert [batch.next.done for batch in whole] == [False] * (len(whole) - 1) + [True]
        for number, batch in enumerate(whole[:-1]):
            assert list(read_unit(config, unit, batch.next)) == whole[number + 1 :]
        parts += len(whole)
    assert parts > 5


def test_a_taken_down_record_is_skipped_wherever_its_text_stands(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "two\\r\\n"}\n{"text": "four"}\n')
    down = Takedown(source="web", uri="a.jsonl", record=1, id=document_id("two").hex())
    also = Takedown(source="web", uri="a.jsonl", record=2)
    batches = ingest(tmp_path, takedown=(down, also))
    assert [text for batch in batches for text in batch.documents["text"].to_pylist()] == ["one", "four"]
    assert [dict(batch.counts.dropped) for batch in batches] == [{"takedown": 2}, {"takedown": 1}]
    whole = Takedown(source="web", uri="a.jsonl")
    assert [b.documents["text"].to_pylist() for b in ingest(tmp_path, takedown=(whole,))] == [["two", "four"]]


def test_the_ledger_has_the_checksum_people_publish(tmp_path: Path) -> None:
    data = gzip.compress(b'{"text": "one"}\n' * 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    [batch] = ingest(tmp_path)
    assert batch.ledger["sha256"].to_pylist() == [f"sha256:{hashlib.sha256(data).hexdigest()}"]
    [without] = ingest(tmp_path, checksums=False)
    assert without.ledger["sha256"].to_pylist() == [None]
