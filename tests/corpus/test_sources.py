"""Readers: every record is read or put aside, damage never raises, numbering never slips."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from corpus.config import SourceConfig
from corpus.sources import BadRecord, InputFile, Record, SourceError, open_source


def read(config: SourceConfig, **options: Any) -> list[Record | BadRecord]:
    source = open_source(config, **options)
    return [found for file in source.inventory() for found in source.records(file)]


def jsonl(path: Path | str, **settings: Any) -> SourceConfig:
    return SourceConfig(name="web", kind="jsonl", path=str(path), **settings)


def errors(found: list[Record | BadRecord]) -> list[str]:
    return [record.error if isinstance(record, BadRecord) else "" for record in found]


# --- JSON lines ------------------------------------------------------------------------------------------------------


def test_every_kind_of_bad_line_has_its_own_error(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good", "url": "http://a", "date": "2024-01-02", "m": {"n": 1}}',
        b"",
        b"   \t",
        b'{"text": "cut off',
        b'["text"]',
        b'{"other": 1}',
        b'{"text": null}',
        b'{"text": 3}',
        b'{"text": " \\n"}',
        b'{"text": "caf\xe9"}',
        b'{"text": "' + b"x" * 300 + b'"}',
        b'{"text": "cut emoji \\ud83d"}',
        b'{"text": NaN}',
        b'{"text": "last, no newline"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\r\n".join(lines))
    found = read(jsonl(tmp_path, meta_fields=("m.n", "m")), max_record_bytes=200)
    assert errors(found) == [
        "",
        "bad-json",
        "not-an-object",
        "missing-text",
        "missing-text",
        "not-a-string",
        "empty-text",
        "bad-utf8",
        "too-long",
        "",
        "bad-json",
        "",
    ]
    assert [record.record for record in found] == list(range(12))
    assert found[0] == Record(0, "good", "http://a", "2024-01-02", {"m.n": 1, "m": {"n": 1}})
    assert isinstance(found[9], Record)
    assert found[9].text == "cut emoji \ud83d"
    assert isinstance(found[7], BadRecord)
    assert "\\xe9" in found[7].excerpt


@pytest.mark.parametrize(
    "pack",
    [
        lambda data: data,
        gzip.compress,
        lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]) + b"\0" * 512,
        zstandard.ZstdCompressor().compress,
        lambda data: b"".join(
            [
                b"\x50\x2a\x4d\x18\x04\0\0\0skip",
                zstandard.ZstdCompressor().compress(data[:99]),
                zstandard.ZstdCompressor().compress(data[99:]),
            ]
        ),
        bz2.compress,
        lzma.compress,
    ],
    ids=["plain", "gzip", "gzip-members", "zstd", "zstd-frames", "bzip2", "xz"],
)
def test_compression_is_found_by_its_magic_not_by_the_name(tmp_path: Path, shared_data: Path, pack: Any) -> None:
    data = gzip.decompress((shared_data / "text" / "c4_en_300.jsonl.gz").read_bytes())
    (tmp_path / "misnamed.jsonl").write_bytes(pack(data))
    found = read(jsonl(tmp_path))
    assert len(found) == 300
    assert [record.text for record in found if isinstance(record, Record)] == [
        json.loads(line)["text"] for line in data.splitlines()
    ]


@pytest.mark.parametrize("share", [0.001, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_a_truncated_file_gives_the_records_before_the_cut_and_one_bad_tail(
    tmp_path: Path, shared_data: Path, share: float, kind: str
) -> None:
    data = gzip.decompress((shared_data / "text" / "c4_en_300.jsonl.gz").read_bytes())
    packed = gzip.compress(data) if kind == "gz" else zstandard.ZstdCompressor().compress(data)
    (tmp_path / f"a.jsonl.{kind}").write_bytes(packed[: max(20, int(len(packed) * share))])
    found = read(jsonl(tmp_path))
    whole = [json.loads(line)["text"] for line in data.splitlines()]
    assert errors(found) == [""] * (len(found) - 1) + ["broken-stream"]
    assert [record.text for record in found[:-1] if isinstance(record, Record)] == whole[: len(found) - 1]
    assert [record.record for record in found] == list(range(len(found)))
    if kind == "gz" and share == 0.999:
        assert len(found) > 290


def test_garbage_after_a_gzip_member_is_reported_not_ignored(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n') + b"garbage here")
    assert errors(read(jsonl(tmp_path))) == ["", "broken-stream"]


def test_a_line_of_any_length_is_passed_over_without_being_held(tmp_path: Path) -> None:
    lines = [b'{"text": "a"}', b'{"text": "' + b"y" * 3_000_000 + b'"}', b'{"text": "b"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    found = read(jsonl(tmp_path), max_record_bytes=1000)
    assert errors(found) == ["", "too-long", ""]
    assert isinstance(found[1], BadRecord)
    assert "3000012 bytes" in found[1].message
    assert len(found[1].excerpt) <= 200


def test_start_passes_over_records_and_keeps_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(f'{{"text": "t{n}"}}' for n in range(10)))
    source = open_source(jsonl(tmp_path))
    [file] = source.inventory()
    assert list(source.records(file, start=7)) == list(source.records(file))[7:]


def test_limit_and_fraction_choose_the_same_records_every_time(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(f'{{"text": "t{n}"}}' for n in range(2000)))
    some = read(jsonl(tmp_path, fraction=0.25))
    assert 400 < len(some) < 600
    assert all(isinstance(record, Record) and record.text == f"t{record.record}" for record in some)
    assert {record.record for record in some} < {record.record for record in read(jsonl(tmp_path, fraction=0.5))}
    assert [record.record for record in read(jsonl(tmp_path, limit=3))] == [0, 1, 2]


def test_a_file_that_changed_since_the_inventory_stops_the_run(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n')
    source = open_source(jsonl(tmp_path))
    [file] = source.inventory()
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    with pytest.raises(SourceError, match=r"a\.jsonl changed after the inventory"):
        list(source.records(file))


def test_a_file_that_cannot_be_opened_is_one_bad_record(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    source = open_source(jsonl(tmp_path))
    [found] = source.records(InputFile("web", "gone.jsonl", 3, "1"))
    assert isinstance(found, BadRecord)
    assert found.error == "cannot-open"


@given(data=st.binary(max_size=600), pack=st.sampled_from(["plain", "gzip", "zstd"]))
def test_any_bytes_are_read_without_raising_and_numbered_without_gaps(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, pack: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    packed = {"plain": lambda d: d, "gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}[pack](data)
    (folder / "a.jsonl").write_bytes(packed)
    found = read(jsonl(folder))
    assert [record.record for record in found] == list(range(len(found)))
    if pack != "plain" or not data[:6].startswith((b"\x1f\x8b", b"BZh", b"\x28\xb5", b"\xfd7z")):
        assert len(found) == sum(1 for line in data.split(b"\n") if line.strip(b" \t\n\r\v\f"))


# --- where files lie -------------------------------------------------------------------------------------------------


def test_nothing_found_names_the_source_and_the_path(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"source 'web', path: no jsonl files found at .*missing"):
        open_source(jsonl(tmp_path / "missing")).inventory()


def test_folders_files_globs_and_patterns_name_the_same_uris(tmp_path: Path) -> None:
    for name in ("2023/a.jsonl", "2024/b.jsonl", "2024/deep/c.jsonl.gz", "2024/notes.txt", ".hidden.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")

    def uris(path: str, **settings: Any) -> list[str]:
        return [file.uri for file in open_source(jsonl(path, **settings)).inventory()]

    assert uris(str(tmp_path)) == ["2023/a.jsonl", "2024/b.jsonl", "2024/deep/c.jsonl.gz"]
    assert uris(f"{tmp_path}/2024/b.jsonl") == ["b.jsonl"]
    assert uris(f"{tmp_path}/2024/**/*.jsonl*") == ["b.jsonl", "deep/c.jsonl.gz"]
    assert uris(f"{tmp_path}/*/*.jsonl") == ["2023/a.jsonl", "2024/b.jsonl"]
    assert uris(str(tmp_path), include=("2024/**",)) == ["2024/b.jsonl", "2024/deep/c.jsonl.gz", "2024/notes.txt"]
    assert uris(str(tmp_path), exclude=("*.gz", "2023/**")) == ["2024/b.jsonl"]
    assert uris(f"file://{tmp_path}") == uris(str(tmp_path))


def test_an_fsspec_url_is_read_like_a_folder() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus-test/x/a.jsonl.gz", gzip.compress(b'{"text": "far away"}\n'))
    try:
        for path in ("memory://corpus-test", "memory://corpus-test/x/a.jsonl.gz", "memory://corpus-test/*/*.gz"):
            config = SourceConfig(name="far", kind="jsonl", path=path)
            [file] = open_source(config).inventory()
            assert file.uri in ("x/a.jsonl.gz", "a.jsonl.gz")
            assert file.etag
            assert read(config) == [Record(0, "far away")]
    finally:
        memory.rm("/corpus-test", recursive=True)


def test_the_cap_takes_whole_files_and_one_more_file_changes_little(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number:03d}.jsonl").write_text("x" * 100)

    def taken() -> set[str]:
        return {file.uri for file in open_source(jsonl(tmp_path, max_bytes=5000)).inventory()}

    before = taken()
    assert len(before) == 50
    (tmp_path / "new.jsonl").write_text("x" * 100)
    assert len(before ^ taken()) <= 2


# --- Parquet ---------------------------------------------------------------------------------------------------------


def parquet(path: Path, **settings: Any) -> SourceConfig:
    return SourceConfig(name="table", kind="parquet", path=str(path), **settings)


def test_parquet_rows_nested_fields_nulls_and_dates(tmp_path: Path) -> None:
    import datetime

    table = pa.table(
        {
            "doc": [{"body": "one", "link": "http://1"}, {"body": None, "link": None}, {"body": "three", "link": ""}],
            "when": [datetime.date(2024, 5, 6), None, None],
            "score": [0.5, 1.5, None],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    found = read(
        parquet(tmp_path, text_field="doc.body", url_field="doc.link", date_field="when", meta_fields=("score",))
    )
    assert found[0] == Record(0, "one", "http://1", "2024-05-06", {"score": 0.5})
    assert errors(found) == ["", "missing-text", ""]
    assert found[2] == Record(2, "three", None, None, None)


def test_parquet_without_the_column_and_damaged_parquet_are_bad_records(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a", "b"]}), tmp_path / "a.parquet")
    [found] = read(parquet(tmp_path))
    assert isinstance(found, BadRecord)
    assert found.error == "missing-column"
    assert "all 2 rows" in found.message
    assert "body" in found.message
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    assert errors(read(parquet(tmp_path))) == ["bad-parquet"]


def test_a_damaged_row_group_costs_its_own_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"text {number} " + "é" * 50 for number in range(3000)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=1000, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    found = read(parquet(tmp_path))
    assert errors(found) == [""] * 1000 + ["bad-parquet"] + [""] * 1000
    assert isinstance(found[1000], BadRecord)
    assert "rows 1000 to 1999 are lost" in found[1000].message
    assert [record.record for record in found] == [*range(1001), *range(2000, 3000)]


def test_parquet_strings_that_are_not_utf8_are_put_aside_one_by_one(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"caf\xe9", b"more"], pa.binary())
    text = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    assert errors(read(parquet(tmp_path))) == ["", "bad-utf8", ""]


# --- plain text ------------------------------------------------------------------------------------------------------


def test_text_files_are_one_document_each_whatever_mark_they_carry(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain é", encoding="utf-8")
    (tmp_path / "b.md").write_text("marked é", encoding="utf-8-sig")
    (tmp_path / "c.txt").write_bytes("\ufeffwide é".encode("utf-16-le"))
    (tmp_path / "d.txt").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "e.txt").write_bytes(b"")
    (tmp_path / "f.txt.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "g.txt").write_bytes(b"z" * 3000)
    found = read(SourceConfig(name="notes", kind="text", path=str(tmp_path)), max_record_bytes=2000)
    texts = [record.text if isinstance(record, Record) else record.error for record in found]
    assert texts == ["plain é", "marked é", "wide é", "bad-utf8", "empty-text", "packed", "too-long"]


def test_encodings_of_the_chardet_collection_are_read_or_put_aside(tmp_path: Path, shared_data: Path) -> None:
    import tarfile

    with tarfile.open(shared_data / "encoding" / "chardet_229.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    config = SourceConfig(name="encodings", kind="text", path=str(tmp_path), include=("*",))
    found = read(config)
    assert len(found) == len(open_source(config).inventory()) > 200
    assert set(errors(found)) <= {"", "bad-utf8", "empty-text"}
    assert 10 < sum(isinstance(record, Record) for record in found) < 200


# --- Python documentation --------------------------------------------------------------------------------------------


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    module = '''
"""  Module text.

    Indented more.
"""
import nothing_that_exists

class Thing(nothing_that_exists.Base):
    "One line."

    def method(self):
        """Method text."""
        def inner(): "inner text"

if True:
    async def late(): r"""Late \\d text."""

def empty():
    """ """
'''
    files = {
        "pkg/__init__.py": module,
        "pkg/plain.py": "value = {'no': 1}\n",
        "pkg/broken.py": 'def f(:\n    """text"""\n',
        "pkg/latin.py": '# -*- coding: latin-1 -*-\n"""Caf\xe9."""\n',
        "pkg/surrogate.py": '"""Half \\ud800 pair."""\n',
        "pkg/tests/test_it.py": '"""Not read."""\n',
        "pkg/LICENSE.txt": "Do what you like.\n",
        "pkg/license_check.py": "x = 1\n",
        "other.py": '"""Other module."""\n',
        "some_dist-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: Some-Dist\n\n# Some\n\nDescribed.\n",
        "some_dist-1.0.dist-info/top_level.txt": "pkg\n",
        "bare-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: bare\n\n",
        "README.md": "# Read me\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="latin-1" if "latin" in name else "utf-8")
    return tmp_path


def docs(path: Path | str, **settings: Any) -> SourceConfig:
    return SourceConfig(name="docs", kind="python-docs", path=str(path), **settings)


def test_docstrings_descriptions_readmes_and_licences_are_found_without_importing(packages: Path) -> None:
    source = open_source(docs(packages))
    found = {
        (record.meta or {})["name"]: record
        for file in source.inventory()
        for record in source.records(file)
        if isinstance(record, Record)
    }
    assert {name: record.text for name, record in found.items()} == {
        "pkg": "Module text.\n\nIndented more.",
        "pkg.Thing": "One line.",
        "pkg.Thing.method": "Method text.",
        "pkg.Thing.method.inner": "inner text",
        "pkg.late": "Late \\d text.",
        "pkg.latin": "Café.",
        "pkg.surrogate": "Half \ud800 pair.",
        "other": "Other module.",
        "pkg/LICENSE.txt": "Do what you like.\n",
        "README.md": "# Read me\n",
        "Some-Dist": "# Some\n\nDescribed.\n",
    }
    assert found["pkg.late"].record == 4
    assert {name: (record.meta or {})["package"] for name, record in found.items()}["Some-Dist"] == "pkg"
    assert {(record.meta or {})["kind"] for record in found.values()} == {"docstring", "licence", "readme", "metadata"}


def test_a_python_file_that_does_not_parse_is_put_aside(packages: Path) -> None:
    source = open_source(docs(packages))
    bad = {
        file.uri: record.error
        for file in source.inventory()
        for record in source.records(file)
        if isinstance(record, BadRecord)
    }
    assert bad == {"pkg/broken.py": "bad-syntax"}


def test_packages_are_chosen_and_left_out_by_name(packages: Path) -> None:
    def uris(**settings: Any) -> set[str]:
        return {file.uri for file in open_source(docs(packages, **settings)).inventory()}

    assert uris(packages=("other",)) == {"other.py"}
    assert "some_dist-1.0.dist-info/METADATA" in uris(packages=("pkg",))
    assert uris(exclude_packages=("pkg", "bare")) == {"other.py", "README.md"}
    with pytest.raises(SourceError, match="'nowhere'"):
        uris(packages=("nowhere",))


def test_the_running_interpreter_documents_itself() -> None:
    source = open_source(docs("", packages=("json", "pyarrow")))
    files = source.inventory()
    assert any(file.uri == "stdlib/json/__init__.py" for file in files)
    assert any(file.uri.startswith("site-packages/pyarrow") for file in files)
    names = {
        (record.meta or {}).get("name"): record.text
        for file in files
        for record in source.records(file)
        if isinstance(record, Record)
    }
    assert "Serialize ``obj`` to a JSON formatted ``str``." in names["json.dumps"]


@pytest.mark.parametrize(
    "code",
    [
        '"""a"""',
        "'a'",
        "def f(): 'a'",
        "class A:\n  r'a'",
        "def f(\n  x,\n): u'a'",
        "def f():\n\t'a'",
        "if 1:\n def f(): 'a'",
        '\\\n"a"',
        '\x0c"a"',
        "\ufeff'a'",
        "x = 1\rdef f():\r  'a'",
        "def f():\n  ('a')",
        "def f(): ( 'a' )",
        "'a' ''",
    ],
)
def test_the_cheap_look_never_misses_a_docstring(tmp_path: Path, code: str) -> None:
    import ast

    assert any(
        ast.get_docstring(node) == "a"
        for node in ast.walk(ast.parse(code.encode()))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
    )
    (tmp_path / "m.py").write_bytes(code.encode())
    assert [record.text for record in read(docs(tmp_path)) if isinstance(record, Record)] == ["a"]
