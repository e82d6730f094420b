"""Archives are read like folders: every member gives something, names are harmless, damage costs what it touches."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import IngestConfig, SourceConfig
from corpus.documents import read_unit
from corpus.inventory import plan_units, take_inventory
from corpus.sources import BadRecord, Cursor, Record, open_source
from tests.corpus.reading import check_resuming, kinds, read, texts


def make_tar(files: dict[str, bytes], mode: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_zip(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


FILES = {f"folder/{number}.txt": f"text of {number} ".encode() * 40 for number in range(12)}


def test_real_archives(tmp_path: Path, shared_data: Path) -> None:
    packed = (shared_data / "text" / "python_peps.tar.gz").read_bytes()
    (tmp_path / "peps.tar.gz").write_bytes(packed)
    found = read("text", tmp_path, members=("*.rst",))
    assert len(texts(found)) == 751
    speeches = tmp_path / "speeches"
    speeches.mkdir()
    (speeches / "state_union.zip").write_bytes((shared_data / "text" / "state_union.zip").read_bytes())
    found = read("text", speeches, encoding="detect")
    assert len(texts(found)) == 65
    config = IngestConfig(sources=(SourceConfig(name="s", kind="text", path=str(tmp_path), members=("*.rst",)),))
    [unit] = [u for u in plan_units(take_inventory(config), config) if u.files[0].uri == "peps.tar.gz"]
    rows = [row for batch in read_unit(config, unit) for row in batch.ledger.to_pylist()]
    assert rows[0]["sha256"] == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert rows[0]["records"] == rows[0]["written"] + rows[0]["skipped"] + rows[0]["quarantined"]


@pytest.mark.parametrize(
    "pack",
    [
        lambda: make_zip(FILES),
        lambda: make_zip(FILES, zipfile.ZIP_BZIP2),
        lambda: make_zip(FILES, zipfile.ZIP_LZMA),
        lambda: make_zip(FILES, zipfile.ZIP_STORED),
        lambda: make_tar(FILES),
        lambda: make_tar(FILES, tarfile.GNU_FORMAT),
        lambda: make_tar(FILES, tarfile.USTAR_FORMAT),
        lambda: gzip.compress(make_tar(FILES)),
        lambda: bz2.compress(make_tar(FILES)),
        lambda: lzma.compress(make_tar(FILES)),
        lambda: zstandard.ZstdCompressor().compress(make_tar(FILES)),
        lambda: lz4.frame.compress(make_tar(FILES)),
    ],
)
def test_every_kind_of_archive_by_its_content(tmp_path: Path, pack: Callable[[], bytes]) -> None:
    (tmp_path / "misnamed.tar").write_bytes(pack())
    found = read("text", tmp_path)
    assert texts(found) == [data.decode() for data in FILES.values()]
    check_resuming("text", tmp_path)


def test_documents_are_named_by_archive_and_member(tmp_path: Path) -> None:
    lines = b'{"text": "one"}\n{"text": 2}\n{"text": "three"}\n'
    data = make_tar(
        {"a.jsonl.gz": gzip.compress(lines), "b.jsonl": lines, "notes.pdf": b"%PDF", ".hidden.jsonl": lines}
    )
    (tmp_path / "all.tar").write_bytes(data)
    config = IngestConfig(sources=(SourceConfig(name="s", kind="jsonl", path=str(tmp_path)),))
    [unit] = plan_units(take_inventory(config), config)
    [batch] = read_unit(config, unit)
    assert [(row["uri"], row["record"], row["text"]) for row in batch.documents.to_pylist()] == [
        ("all.tar!/a.jsonl.gz", 0, "one"),
        ("all.tar!/a.jsonl.gz", 2, "three"),
        ("all.tar!/b.jsonl", 0, "one"),
        ("all.tar!/b.jsonl", 2, "three"),
    ]
    assert [row["uri"] for row in batch.quarantine.to_pylist()] == ["all.tar!/a.jsonl.gz", "all.tar!/b.jsonl"]
    assert dict(batch.counts.skipped) == {"other-member": 2}
    check_resuming("jsonl", tmp_path)


def test_unsafe_names_and_special_members_are_told_not_followed(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("../../etc/passwd.txt", "/abs.txt", "C:\\win.txt", "same.txt", "same.txt", "bell\a.txt"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"text"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"special{kind.decode()}.txt")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("x" * 3000 + ".txt")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"long"))
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    source = open_source(SourceConfig(name="s", kind="text", path=str(tmp_path)))
    cursor = Cursor()
    seen = [(cursor.member, found) for found in source.records(source.inventory()[0], cursor=cursor)]
    assert kinds([found for _, found in seen]) == ["unsafe-name"] * 3 + [""] * 3 + ["archive-special-member"] * 4 + [
        "other-member"
    ]
    assert [name for name, found in seen if isinstance(found, Record)] == ["same.txt", "same~2.txt", "bell\\x07.txt"]
    assert len(seen[-1][0]) == 1024
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive_:
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = 0o120777 << 16
        archive_.writestr(link, "/etc/passwd")
        archive_.writestr("folder/", "")
        archive_.writestr("../up.txt", "text")
    (tmp_path / "a.tar").write_bytes(zipped.getvalue())
    assert kinds(read("text", tmp_path)) == ["archive-special-member", "unsafe-name"]


def test_a_bad_zip_member_leaves_the_others(tmp_path: Path) -> None:
    data = bytearray(make_zip(FILES))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
    begin = infos[3].header_offset + 30 + len(infos[3].filename)
    data[begin + 2] ^= 0xFF
    data[infos[5].header_offset] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(data)
    assert kinds(read("text", tmp_path)) == [
        {3: "broken-stream", 5: "bad-archive"}.get(number, "") for number in range(12)
    ]
    (tmp_path / "a.zip").write_bytes(data[: len(data) - 30])
    assert kinds(read("text", tmp_path)) == ["bad-archive"]


def test_encrypted_overlapping_nested_and_too_many_members(tmp_path: Path) -> None:
    data = bytearray(make_zip({"a.txt": b"secret", "b.txt": b"open"}))
    table = data.index(b"PK\x01\x02")
    data[table + 8] |= 1
    data[6] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert kinds(read("text", tmp_path)) == ["encrypted-member", ""]
    data = bytearray(make_zip({"a.txt": b"one" * 50, "b.txt": b"two" * 50}, zipfile.ZIP_STORED))
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    struct.pack_into("<L", data, second + 42, 5)
    (tmp_path / "a.zip").write_bytes(data)
    assert kinds(read("text", tmp_path)) == ["", "bad-archive"]
    (tmp_path / "a.zip").write_bytes(make_zip({"in.txt": make_zip(FILES), "b.txt": b"text"}))
    assert kinds(read("text", tmp_path)) == ["nested-archive", ""]
    end = bytearray(make_zip({"a.txt": b"x"}))
    struct.pack_into("<H", end, end.index(b"PK\x05\x06") + 10, 0xFFFF)
    struct.pack_into("<L", end, end.index(b"PK\x05\x06") + 12, 0xFFFFFFF0)
    (tmp_path / "a.zip").write_bytes(end)
    assert kinds(read("text", tmp_path)) == ["too-many-members"]


def test_a_cut_tar_gives_the_members_before_the_cut(tmp_path: Path) -> None:
    data = make_tar(FILES, tarfile.USTAR_FORMAT)
    for cut in (700, 3000, 5000, 9217):
        (tmp_path / "a.tar").write_bytes(data[:cut])
        found = read("text", tmp_path)
        whole = [record for record in found if isinstance(record, Record)]
        assert [record.text for record in whole] == [data.decode() for data in list(FILES.values())[: len(whole)]]
        assert kinds(found)[len(whole) :] == ["broken-stream"]


def test_a_damaged_tar_header_costs_its_member(tmp_path: Path) -> None:
    data = bytearray(make_tar(FILES, tarfile.USTAR_FORMAT))
    header = data.index(b"folder/4.txt")
    data[header + 150] ^= 0x01
    (tmp_path / "a.tar").write_bytes(data)
    found = read("text", tmp_path)
    assert kinds(found) == [""] * 4 + ["bad-archive"] + [""] * 7


@settings(max_examples=120, deadline=None)
@given(
    kind=st.sampled_from(["zip", "tar", "tar.gz"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    cut=st.floats(0.3, 1),
)
def test_damage_never_raises_and_what_is_whole_is_given(
    tmp_path_factory: pytest.TempPathFactory, kind: str, edits: list[tuple[float, int]], cut: float
) -> None:
    data = bytearray(make_zip(FILES) if kind == "zip" else make_tar(FILES))
    if kind == "tar.gz":
        data = bytearray(gzip.compress(data, mtime=0))
    for place, value in edits:
        data[int(place * len(data))] = value
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "a.zip").write_bytes(data[: int(cut * len(data))])
    found = read("text", folder)
    assert found
    if not edits and cut == 1:
        assert kinds(found) == [""] * 12
    if kind == "zip" and cut == 1 and len(edits) == 1 and not isinstance(found[0], BadRecord):
        assert len([record for record in found if isinstance(record, Record)]) >= 10
