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
from dataclasses import dataclass
from pathlib import Path

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import IngestConfig, SourceConfig
from corpus.documents import read_unit
from corpus.inventory import plan_units, take_inventory
from corpus.sources import Cursor, Record, open_source, streams, zip_members
from corpus.sources import members as members_module
from corpus.sources.members import Names, safe_name
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
    assert dict(batch.counts.dropped) == {"other-member": 2}
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
    assert kinds([found for _, found in seen]) == ["unsafe-name"] * 3 + [""] * 3 + ["archive-special-member"] * 4 + [""]
    named = [name for name, found in seen if isinstance(found, Record)]
    assert named[:3] == ["same.txt", "same~2.txt", "bell\\x07.txt"]
    assert len(named[3]) < 1100
    assert named[3].endswith("xxx.txt")
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


def test_a_zip_without_its_table_of_contents_is_read_member_by_member(tmp_path: Path) -> None:
    data = make_zip(FILES)
    written = list(FILES.values())
    table = data.index(b"PK\x01\x02")
    begins = [at for at in range(table) if data.startswith(b"PK\x03\x04", at)]
    for cut, number in ((len(data) - 30, 12), (table + 100, 12), (table, 12), (table - 1, 11), (begins[5], 5), (40, 0)):
        (tmp_path / "a.zip").write_bytes(data[:cut])
        found = read("text", tmp_path)
        whole = texts(found)
        assert whole == [data.decode() for data in written[: len(whole)]]
        assert len(whole) == number
        assert kinds(found)[len(whole) :] in (["bad-archive"], ["broken-stream", "bad-archive"])
    # Written to where nobody could seek: sizes stand behind members.
    out = _Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    (tmp_path / "a.zip").write_bytes(out.data[: out.data.index(b"PK\x01\x02") + 20])
    found = read("text", tmp_path)
    assert texts(found) == [data.decode() for data in written]
    assert kinds(found)[12:] == ["bad-archive"]
    # A byte of one entry costs what it says, not the entries behind it.
    damaged = bytearray(data)
    damaged[data.index(b"PK\x01\x02", table + 1) + 28] ^= 0x40
    (tmp_path / "a.zip").write_bytes(damaged)
    assert len(texts(read("text", tmp_path))) >= 10


def test_a_zip_that_lost_or_won_bytes_gives_all_other_members(tmp_path: Path) -> None:
    data = make_zip(FILES)
    begins = [at for at in range(len(data)) if data.startswith(b"PK\x03\x04", at)]
    all_but_one = [text.decode() for number, text in enumerate(FILES.values()) if number != 4]
    for changed in (
        data[: begins[4]] + data[begins[5] :],
        data[: begins[4] + 45] + data[begins[4] + 55 :],
        data[: begins[4] + 45] + b"?" * 50 + data[begins[4] + 45 :],
    ):
        (tmp_path / "a.zip").write_bytes(changed)
        found = read("text", tmp_path)
        assert texts(found) == all_but_one
        assert kinds(found)[4] in ("bad-archive", "broken-stream")
    (tmp_path / "a.zip").write_bytes(data[begins[2] :])
    assert len(texts(read("text", tmp_path))) == 10


@pytest.mark.parametrize("kind", ["jsonl", "text"])
def test_a_tail_that_is_lost_is_told_once_wherever_reading_stops(tmp_path: Path, kind: str) -> None:
    lines = b'{"text": "one"}\n{"text": "two"}\n'
    names = [f"{number}.{'jsonl' if kind == 'jsonl' else 'txt'}" for number in range(3)]
    packed = gzip.compress(lines)
    (tmp_path / "a.tar").write_bytes(make_tar(dict.fromkeys(names, packed[:-3])))
    check_resuming(kind, tmp_path, split_by="line")
    source = open_source(SourceConfig(name="s", kind=kind, path=str(tmp_path), split_by="line"))  # type: ignore[arg-type]
    [file] = source.inventory()
    cursor = Cursor()
    assert kinds(list(source.records(file, cursor=cursor))) == ["", "", "broken-stream"] * 3
    assert list(source.records(file, cursor=Cursor(cursor.member, cursor.record, cursor.offset))) == []


class _Pipe(io.RawIOBase):
    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += bytes(data)
        return len(data)


def test_encrypted_overlapping_nested_and_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert kinds(read("text", tmp_path)) == ["", "bad-archive"], "nothing is there: the other one is not touched"
    struct.pack_into("<L", data, second + 42, 0)
    (tmp_path / "a.zip").write_bytes(data)
    assert kinds(read("text", tmp_path)).count("") <= 1, "two entries for one place"
    (tmp_path / "a.zip").write_bytes(make_zip({"in.txt": make_zip(FILES), "b.txt": b"text"}))
    assert kinds(read("text", tmp_path)) == ["nested-archive", ""]
    data = bytearray(make_zip({"a.txt": b"one" * 50, "b.txt": b"open"}))
    for header, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", data, data.index(header) + place, 9)
    (tmp_path / "a.zip").write_bytes(data)
    assert kinds(read("text", tmp_path)) == ["unsupported-compression", ""]
    monkeypatch.setattr(zip_members, "MAX_ZIP_MEMBERS", 11)
    (tmp_path / "a.zip").write_bytes(make_zip(FILES))
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


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["zip", "tar", "tar.gz"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    cut=st.floats(0.3, 1),
)
def test_damage_never_raises_and_reading_goes_on_after_any_record(
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
    check_resuming("text", folder, every=5)


@dataclass(frozen=True)
class RealArchive:
    """Some members of a real archive, packed anew without compression around them: where each lies, and its text."""

    data: bytes
    texts: list[str]
    spans: list[list[tuple[int, int]]]


@pytest.fixture(scope="module")
def real_tar(shared_data: Path) -> RealArchive:
    out = io.BytesIO()
    found, spans = [], []
    with (
        tarfile.open(shared_data / "text" / "python_peps.tar.gz") as archive,
        tarfile.open(fileobj=out, mode="w") as to,
    ):
        while len(found) < 60 and (info := archive.next()) is not None:
            if info.isreg() and info.name.endswith(".rst"):
                data = archive.extractfile(info).read()  # type: ignore[union-attr]
                begin = to.offset
                to.addfile(info, io.BytesIO(data))
                found.append(data.decode())
                spans.append([(begin, to.offset - -len(data) % 512)])
    return RealArchive(out.getvalue(), found, spans)


@pytest.fixture(scope="module")
def real_zip(shared_data: Path) -> RealArchive:
    data = (shared_data / "text" / "state_union.zip").read_bytes()
    found, spans = [], []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = archive.start_dir
        for info in archive.infolist():
            begin, end = entry, entry + 46 + len(info.orig_filename.encode()) + len(info.extra) + len(info.comment)
            entry = end
            header = info.header_offset
            if info.filename.endswith(".txt"):
                found.append(archive.read(info).decode("cp1252"))
                lengths = struct.unpack_from("<HH", data, header + 26)
                spans.append([(begin, end), (header, header + 30 + sum(lengths) + info.compress_size)])
    assert len(found) == 65
    return RealArchive(data, found, spans)


@pytest.mark.parametrize("kind", ["tar", "zip"])
@settings(max_examples=40, deadline=None)
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=5))
def test_flipped_bits_of_real_archives_cost_only_the_members_they_touch(
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
    kind: str,
    edits: list[tuple[float, int]],
) -> None:
    archive: RealArchive = request.getfixturevalue(f"real_{kind}")
    data = bytearray(archive.data)
    places = {int(place * len(data)) for place, _ in edits} - {0, 1, 2, 3}  # what a zip archive is known by
    for place, (_, flip) in zip(sorted(places), edits, strict=False):
        data[place] ^= flip
    folder = tmp_path_factory.mktemp("flipped")
    (folder / f"a.{kind}").write_bytes(data)
    found = texts(read("text", folder, encoding="cp1252" if kind == "zip" else "utf-8"))
    untouched = [
        text
        for text, spans in zip(archive.texts, archive.spans, strict=True)
        if not any(begin <= place < end for begin, end in spans for place in places)
    ]
    assert len(untouched) >= len(archive.texts) - 5
    remaining = iter(found)
    assert all(any(text == other for other in remaining) for text in untouched), "in order, none missing"


@pytest.mark.parametrize("kind", ["tar", "zip"])
@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.01, 1, exclude_max=True))
def test_cuts_of_real_archives_leave_all_members_before_them(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, kind: str, share: float
) -> None:
    archive: RealArchive = request.getfixturevalue(f"real_{kind}")
    cut = int(share * len(archive.data))
    folder = tmp_path_factory.mktemp("cut")
    (folder / f"a.{kind}").write_bytes(archive.data[:cut])
    found = read("text", folder, encoding="cp1252" if kind == "zip" else "utf-8")
    before = [text for text, spans in zip(archive.texts, archive.spans, strict=True) if spans[-1][1] <= cut]
    assert texts(found) == before
    assert 1 <= len(found) - len(before) <= 4, "the tail is told, and what is no text"


@settings(max_examples=8, deadline=None)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=3), cut=st.floats(0.1, 1)
)
def test_a_damaged_real_compressed_tar_gives_its_members_up_to_the_damage(
    tmp_path_factory: pytest.TempPathFactory, shared_data: Path, edits: list[tuple[float, int]], cut: float
) -> None:
    data = bytearray((shared_data / "encoding" / "chardet_229.tar.gz").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        number = sum(info.isreg() for info in archive)
    for place, flip in edits:
        data[max(10, int(place * len(data)))] ^= flip
    folder = tmp_path_factory.mktemp("packed")
    (folder / "a.tar.gz").write_bytes(data[: int(cut * len(data))])
    found = read("text", folder, members=("**",), encoding="detect")
    if edits or cut < 1:
        assert "broken-stream" in kinds(found) or "bad-archive" in kinds(found)
    else:
        assert len(found) == number == 229


def test_names_are_harmless_and_different() -> None:
    assert safe_name("a/b.txt") == ("a/b.txt", "")
    assert safe_name("./a//b/./c.txt") == ("a/b/c.txt", "")
    assert safe_name("folder\\c.txt") == ("folder/c.txt", "")
    assert safe_name("\udcff\u202e.txt") == ("\\udcff\\u202e.txt", "")
    assert safe_name("..\\..\\x")[1] == "leads out of the archive"
    assert safe_name("\\\\server\\x")[1] == "is absolute"
    assert safe_name("a.txt\0.jpg") == ("a.txt\\x00.jpg", "has a NUL in it")
    assert safe_name("") == ("member", "")


@given(st.lists(st.one_of(st.sampled_from(["a.txt", "a~2.txt", "b/a.txt", "a"]), st.text(max_size=8)), max_size=40))
def test_any_names_become_different_ones_that_stay_inside(names: list[str]) -> None:
    known = Names()
    found = [known.distinct(safe_name(name)[0]) for name in names]
    assert len(set(found)) == len(names)
    for name in found:
        assert name.isprintable()
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        assert name.encode()


def test_names_are_different_beyond_those_that_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "_TRACKED_NAMES", 3)
    known = Names()
    assert [known.distinct(name) for name in ["a.txt", "b", "a.txt", "b", "b", "c.gz"]] == [
        "a.txt",
        "b",
        "a~2.txt",
        "b~4",
        "b~5",
        "c~6.gz",
    ]


def test_many_members_of_one_name(tmp_path: Path) -> None:
    block = make_tar({"a.txt": b"text"}, tarfile.USTAR_FORMAT)[:1024]
    (tmp_path / "a.tar").write_bytes(block * 10_000 + bytes(1024))
    assert len(texts(read("text", tmp_path))) == 10_000


def test_tar_dialects(tmp_path: Path) -> None:
    def header(name: str, kind: bytes, size: int, field: bytes | None = None) -> bytes:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, size
        made = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        if field is not None:
            made[124:136] = field
        if kind == tarfile.GNUTYPE_SPARSE:
            made[482] = 1
        made[148:156] = b" " * 8
        made[148:156] = b"%06o\0 " % sum(made)
        return bytes(made)

    def data(text: bytes) -> bytes:
        return text + bytes(-len(text) % 512)

    old = bytearray(header("old.txt", tarfile.AREGTYPE, 3))
    old[257:265] = bytes(8)  # no mark at all, as in version 7 of Unix
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    long_pax = b"100000 path=" + b"x" * 99_987 + b"\n"
    negative = b"\xff" * 11 + b"\xfe"
    archive = [
        bytes(old) + data(b"old"),
        header("volume", b"V", 600) + data(b"v" * 600),
        header("dump", b"D", 700) + data(b"d" * 700),
        header("sparse.txt", tarfile.GNUTYPE_SPARSE, 5) + bytes(512) + data(b"holes"),
        header("link.txt", tarfile.LNKTYPE, 99),
        header("pax", tarfile.XHDTYPE, len(long_pax)) + data(long_pax),
        header("far.txt", tarfile.REGTYPE, 3) + data(b"far"),
        header("pax", tarfile.XHDTYPE, 17) + data(b"17 size=" + b"9" * 8 + b"\n"),
        header("negative.txt", tarfile.REGTYPE, 0, negative),
    ]
    (tmp_path / "a.tar").write_bytes(b"".join(archive[:7]) + bytes(1024) + archive[0] + bytes(1024))
    source = open_source(SourceConfig(name="s", kind="text", path=str(tmp_path)))
    cursor = Cursor()
    seen = [(cursor.member, found) for found in source.records(source.inventory()[0], cursor=cursor)]
    assert kinds([found for _, found in seen]) == [
        "",
        "archive-special-member",
        "bad-archive",
        "archive-special-member",
        "other-member",
        "",
    ]
    assert [len(name) for name, _ in seen[4:]] == [len("x" * 960) + 18 + 64, len("old~2.txt")]
    (tmp_path / "a.tar").write_bytes(b"".join(archive[7:8]) + archive[8])
    assert kinds(read("text", tmp_path)) == ["broken-stream"], "the size of the extended header is believed"
    (tmp_path / "a.tar").write_bytes(archive[8] + archive[0] + bytes(1024))
    assert kinds(read("text", tmp_path)) == ["empty-text", ""]


def test_bombs_in_archives_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BOMB_BYTES", 8 << 20)
    zeros = bytes(20 << 20)
    (tmp_path / "a.zip").write_bytes(make_zip({"bomb.jsonl": zeros, "b.jsonl": b'{"text": "b"}'}))
    assert kinds(read("jsonl", tmp_path)) == ["broken-stream", ""]
    # Each is small, all of them together are not: what comes out of members is measured by the archive as well.
    packed = gzip.compress(bytes(6 << 20))
    files = {f"{number}.jsonl.gz": packed for number in range(200)}
    (tmp_path / "a.zip").write_bytes(gzip.compress(make_tar(files)))
    found = read("jsonl", tmp_path, max_record_bytes=1000)
    assert kinds(found)[0] == "too-long"
    assert kinds(found)[-1] == "broken-stream"
    assert kinds(found).count("too-long") < 10


def test_tables_in_archives(tmp_path: Path) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["one", "two"]}), out)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(make_tar({"a.parquet": out.getvalue(), "b.parquet": b"PAR1"})))
    (tmp_path / "plain.parquet").write_bytes(out.getvalue())
    found = read("parquet", tmp_path)
    assert texts(found) == ["one", "two"] * 2
    assert kinds(found)[2] == "bad-parquet"
    check_resuming("parquet", tmp_path)


def test_headers_of_tar_archives_may_have_checksums_of_signed_bytes(tmp_path: Path) -> None:
    info = tarfile.TarInfo("é.jsonl")
    data = b'{"text": "one"}\n'
    info.size = len(data)
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT, "latin-1", "strict"))
    plain = header[:148] + b" " * 8 + header[156:]
    for total, kept in (
        (sum(plain), 1),
        (sum(plain) - 256 * sum(byte > 127 for byte in plain), 1),
        (sum(plain) + 1, 0),
    ):
        header[148:156] = b"%06o\0 " % total
        (tmp_path / "a.tar").write_bytes(bytes(header) + data.ljust(512, b"\0") + bytes(1024))
        assert len(texts(read("jsonl", tmp_path))) == kept
