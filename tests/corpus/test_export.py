"""Exported JSON lines hold the documents whole, and are the same bytes every time."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import zstandard

from corpus.config import NormaliseConfig, SourceConfig
from corpus.documents import read_all
from corpus.export import jsonl_zst
from corpus.texts import document_id
from storage.schemas import DOCUMENTS


def documents(texts: list[str]) -> pa.Table:
    rows = [
        {
            "id": document_id(text),
            "text": text,
            "source": "web",
            "uri": "a.jsonl",
            "record": number,
            "url": None,
            "date": "2024-01-01" if number else None,
            "meta": '{"n":1,"z":{"é":null}}' if number else None,
        }
        for number, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, DOCUMENTS)


def test_json_lines_read_back_and_are_one_frame() -> None:
    packed = jsonl_zst(documents(["first", "zweite\n“Zeile” 😀"]))
    decoder = zstandard.ZstdDecompressor().decompressobj()
    lines = decoder.decompress(packed).splitlines()
    assert decoder.eof
    assert not decoder.unused_data
    assert json.loads(lines[0]) == {
        "id": document_id("first").hex(),
        "text": "first",
        "source": "web",
        "uri": "a.jsonl",
        "record": 0,
    }
    assert json.loads(lines[1])["meta"] == {"n": 1, "z": {"é": None}}
    assert jsonl_zst(documents([])) == jsonl_zst(documents([]))


def test_what_is_exported_can_be_ingested_again_with_the_same_ids(tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "text"
    first = read_all(
        SourceConfig(name="web", kind="jsonl", path=str(path), include=("c4_en_300.jsonl.gz",)), NormaliseConfig()
    ).replace_schema_metadata(None)
    packed = jsonl_zst(first)
    rechunked = pa.concat_tables([first.slice(0, 7), first.slice(7)])
    assert jsonl_zst(rechunked) == packed
    (tmp_path / "out.jsonl.zst").write_bytes(packed)
    again = read_all(SourceConfig(name="web", kind="jsonl", path=str(tmp_path)), NormaliseConfig())
    assert again["id"] == first["id"]
