"""Streams: every compression, cut, damaged or hostile; what can be read is given, and memory stays bounded."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import resource
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.sources import compression, streams
from corpus.sources.base import BadRecord
from corpus.sources.streams import Content, Gap
from tests.corpus.reading import check_resuming, kinds, read, texts

ROWS = [{"text": f"document {number} " + "words " * (number % 30)} for number in range(3000)]
DATA = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lz4": lz4.frame.compress,
}


def content(data: bytes, offset: int = 0) -> Content:
    return Content(io.BytesIO(data), offset=offset)


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("members", [1, 2, 7])
def test_every_compression_with_any_number_of_members(kind: str, members: int) -> None:
    size = -(-len(DATA) // members)
    packed = b"".join(PACKERS[kind](DATA[at : at + size]) for at in range(0, len(DATA), size))
    stream = content(packed)
    assert stream.head()[:100] == DATA[:100]
    assert b"".join(stream) == DATA
    assert stream.broken == ""
    assert stream.sha256 == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert stream.position == len(packed)


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("offset", [1, 10_000, 200_001, len(DATA) - 1, len(DATA)])
def test_reading_begins_at_an_offset(kind: str, offset: int) -> None:
    stream = content(PACKERS[kind](DATA), offset)
    assert b"".join(stream) == DATA[offset:]
    assert (stream.sha256 is None) == (kind == "plain" and offset > 8192)


@pytest.mark.parametrize("kind", sorted(PACKERS.keys() - {"plain"}))
@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_cut_stream_gives_what_lies_before_the_cut_and_says_so(kind: str, share: float) -> None:
    packed = PACKERS[kind](DATA)
    cut = max(12, int(share * len(packed)))
    stream = content(packed[:cut])
    assert DATA.startswith(b"".join(stream))
    assert "truncated" in stream.broken


@pytest.mark.parametrize("kind", sorted(PACKERS.keys() - {"plain"}))
@settings(max_examples=15, deadline=None)
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=9))
def test_any_damage_ends_or_passes_but_never_raises(kind: str, edits: list[tuple[float, int]]) -> None:
    packed = bytearray(PACKERS[kind](DATA))
    for place, value in edits:
        packed[12 + int(place * (len(packed) - 12))] = value  # behind the magic, without which it is plain text
    stream = content(bytes(packed))
    found = b"".join(stream)
    assert found == DATA or stream.broken or kind in ("zstd", "lz4")  # these carry no checksum of their own


CHECKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lz4": lambda data: lz4.frame.compress(data, content_checksum=True),
}


def members_of_lines(number: int, kind: str = "gzip") -> list[bytes]:
    lines = DATA.splitlines(keepends=True)
    size = len(lines) // number
    return [CHECKED[kind](b"".join(lines[at : at + size])) for at in range(0, len(lines), size)]


@pytest.mark.parametrize("kind", CHECKED)
@settings(max_examples=15, deadline=None)
@given(
    member=st.integers(0, 29),
    place=st.floats(0, 1, exclude_max=True),
    flip=st.integers(1, 255),
    length=st.integers(1, 40),
)
def test_a_damaged_member_costs_its_own_records(
    tmp_path_factory: pytest.TempPathFactory, kind: str, member: int, place: float, flip: int, length: int
) -> None:
    packed = members_of_lines(30, kind)
    data = bytearray(packed[member])
    begin = min(len(data) - 1, max(0 if member else 10, int(place * len(data))))  # a damaged first one has no magic
    for at in range(begin, min(len(data), begin + length)):
        data[at] ^= flip
    folder = tmp_path_factory.mktemp("members")
    (folder / "a.jsonl.gz").write_bytes(b"".join([*packed[:member], data, *packed[member + 1 :]]))
    found = read("jsonl", folder)
    whole = [json.loads(line)["text"] for line in DATA.splitlines()]
    expected = whole[: member * 100] + whole[(member + 1) * 100 :]
    got = iter(texts(found))
    assert all(any(text == other for other in got) for text in expected), "in order, none missing"
    assert set(kinds(found)) - {""}, "the damage is told"
    assert [record.record for record in found] == list(range(len(found)))
    check_resuming("jsonl", folder, every=len(found) // 2)


@pytest.mark.parametrize("kind", CHECKED)
@pytest.mark.parametrize("between", [b"garbage", b"\0" * 700 + b"garbage", b"\x1f\x8b\x08\0" * 50_000])
def test_garbage_between_members_is_a_gap(kind: str, between: bytes) -> None:
    one, two, three = members_of_lines(3, kind)
    pieces = list(content(one + between + two + three).segments())
    assert [type(piece) for piece in pieces].count(Gap) == 1
    assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == DATA


def test_a_file_that_is_made_to_be_searched_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_SEARCH", 1 << 20)
    one, two = members_of_lines(2)
    begins = gzip.compress(bytes(1 << 20))[:200]
    stream = content(one + b"?" + begins * 2_000 + b"?" + two)
    assert sum(isinstance(piece, Gap) for piece in stream.segments()) == 0
    assert "garbage between members" in stream.broken


def test_a_compressed_file_inside_a_damaged_member_is_not_taken_for_a_member() -> None:
    inside = gzip.compress(b'{"text": "false"}\n' * 50)
    stored = bytearray(gzip.compress(DATA[:500] + inside + DATA[500:1000], 0))
    stored[30] ^= 0xFF
    stored[10:15] = b"\xff" * 5  # the length of what is stored
    pieces = list(content(gzip.compress(b"one\n") + stored + gzip.compress(b"three\n")).segments())
    assert pieces[0] == b"one\n"
    assert isinstance(pieces[-2], Gap)
    assert pieces[-1] == b"three\n"
    assert b"false" not in b"".join(piece for piece in pieces if isinstance(piece, bytes))


def test_members_of_several_kinds_and_frames_to_be_skipped() -> None:
    skipped = b"\x51\x2a\x4d\x18\x03\0\0\0abc"
    packed = skipped + lz4.frame.compress(b"one ") + skipped + zstandard.compress(b"two ") + gzip.compress(b"three")
    stream = content(packed + bytes(1000))
    assert b"".join(stream) == b"one two three"
    assert stream.broken == ""
    assert stream.sha256 == f"sha256:{hashlib.sha256(packed + bytes(1000)).hexdigest()}"


def test_what_stands_before_damage_in_a_member_is_given(shared_data: Path) -> None:
    data = gzip.decompress((shared_data / "text" / "c4_en_300.jsonl.gz").read_bytes())
    packed = bytearray(gzip.compress(data))
    packed[-5] ^= 1  # of the checksum
    stream = content(bytes(packed))
    found = b"".join(stream)
    assert data.startswith(found)
    assert len(data) - len(found) <= 1 << 14
    assert "damaged gzip stream after 0 whole members" in stream.broken


def test_a_gap_is_shown_to_those_who_ask_and_an_end_to_those_who_do_not() -> None:
    packed = members_of_lines(3)
    damaged = packed[0] + packed[1][:400] + b"\xff" * 40 + packed[1][440:] + packed[2]
    pieces = list(content(damaged).segments())
    assert [type(piece) for piece in pieces].count(Gap) == 1
    rest = b"".join(piece for piece in pieces[-2:] if isinstance(piece, bytes))
    assert rest.endswith(gzip.decompress(packed[2]))
    careless = content(damaged)
    assert DATA.startswith(b"".join(careless)[: len(gzip.decompress(packed[0]))])
    assert "damaged gzip stream after 1 whole members" in careless.broken


@pytest.mark.parametrize("kind", ["gzip", "zstd", "bzip2", "xz"])
def test_a_decompression_bomb_is_ended_within_bounded_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BOMB_BYTES", 64 << 20)
    packers: dict[str, Any] = {
        "gzip": lambda: zlib.compressobj(9, wbits=31),
        "zstd": lambda: zstandard.ZstdCompressor().compressobj(),
        "bzip2": bz2.BZ2Compressor,
        "xz": lzma.LZMACompressor,
    }
    packer, zeros = packers[kind](), bytes(1 << 20)
    packed = b"".join([*(packer.compress(zeros) for _ in range(100)), packer.flush()])
    stream = content(packed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = sum(map(len, stream))
    assert "decompression bomb" in stream.broken
    assert streams.BOMB_BYTES - (9 << 20) <= size <= streams.BOMB_BYTES
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # kB


def test_a_seekable_file_of_anything(tmp_path: Path) -> None:
    for kind, pack in PACKERS.items():
        with content(pack(DATA)).file() as file:
            assert file is not None
            file.seek(100)
            assert file.read(50) == DATA[100:150], kind
    cut = content(gzip.compress(DATA)[:5000])
    with cut.file() as file:
        assert file is None
    assert "truncated" in cut.broken


@pytest.mark.parametrize("sizes", [[3000], [1000, 1000, 1000]])
def test_what_came_of_data_with_a_wrong_checksum_is_told_by_the_number_of_its_first_record(
    tmp_path: Path, sizes: list[int]
) -> None:
    members, at = [], 0
    for size in sizes:
        rows = ROWS[at : at + size]
        members.append(bytearray(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows), mtime=0)))
        at += size
    for damaged in range(len(sizes)):
        wrong = [bytes(member) for member in members]
        wrong[damaged] = wrong[damaged][:-6] + bytes([wrong[damaged][-6] ^ 1]) + wrong[damaged][-5:]
        (tmp_path / "a.jsonl.gz").write_bytes(b"".join(wrong))
        found = read("jsonl", tmp_path)
        [bad] = [record for record in found if isinstance(record, BadRecord)]
        first = sum(sizes[:damaged])
        assert f"records from {first} on may be wrong" in bad.message
        assert bad.record in range(first, first + sizes[damaged] + 1)
        # Reading that goes on after a kill tells the same.
        check_resuming("jsonl", tmp_path, every=700)
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(members)[:-20])
    assert not any(
        "may be wrong" in record.message for record in read("jsonl", tmp_path) if isinstance(record, BadRecord)
    )


def test_what_came_of_a_member_of_an_archive_with_a_wrong_checksum_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jsonl", DATA)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(b"document 7")] ^= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert "records from 0 on may be wrong" in read("jsonl", tmp_path)[-1].message  # type: ignore[union-attr]
    packed = bytearray(gzip.compress(_tar({"a.jsonl": DATA}), mtime=0))
    packed[-6] ^= 1
    (tmp_path / "a.zip").unlink()
    (tmp_path / "a.tgz").write_bytes(packed)
    message = read("jsonl", tmp_path)[-1].message  # type: ignore[union-attr]
    assert "what came from byte 0 of the decompressed content on may be wrong" in message


def _tar(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("kind", sorted(PACKERS.keys() - {"plain"}))
def test_a_file_that_is_compressed_twice_is_one_bad_record(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(PACKERS[kind](DATA)))
    (tmp_path / "b.tar").write_bytes(_tar({"a.jsonl.gz": PACKERS[kind](gzip.compress(DATA)), "b.jsonl": DATA[:1000]}))
    found = read("jsonl", tmp_path)
    assert kinds(found)[:2] == ["unsupported-compression"] * 2
    assert len(texts(found)) > 5
