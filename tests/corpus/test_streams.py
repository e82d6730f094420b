"""Streams: every compression, cut, damaged or hostile; what can be read is given, and memory stays bounded."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import resource
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.sources import streams
from corpus.sources.streams import Content, Gap
from tests.corpus.reading import kinds, read, texts

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
@settings(max_examples=25, deadline=None)
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=9))
def test_any_damage_ends_or_passes_but_never_raises(kind: str, edits: list[tuple[float, int]]) -> None:
    packed = bytearray(PACKERS[kind](DATA))
    for place, value in edits:
        packed[12 + int(place * (len(packed) - 12))] = value  # behind the magic, without which it is plain text
    stream = content(bytes(packed))
    found = b"".join(stream)
    assert found == DATA or stream.broken or kind in ("zstd", "lz4")  # these carry no checksum of their own


def members_of_lines(number: int) -> list[bytes]:
    lines = DATA.splitlines(keepends=True)
    size = len(lines) // number
    return [gzip.compress(b"".join(lines[at : at + size]), mtime=0) for at in range(0, len(lines), size)]


@settings(max_examples=60, deadline=None)
@given(
    member=st.integers(0, 29),
    place=st.floats(0, 1, exclude_max=True),
    flip=st.integers(1, 255),
    length=st.integers(1, 40),
)
def test_a_damaged_gzip_member_costs_its_own_records(
    tmp_path_factory: pytest.TempPathFactory, member: int, place: float, flip: int, length: int
) -> None:
    packed = members_of_lines(30)
    data = bytearray(packed[member])
    begin = min(len(data) - 1, max(10, int(place * len(data))))  # a damaged first header is no gzip at all
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
