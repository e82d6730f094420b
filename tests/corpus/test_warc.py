"""Web archives: every record has its number and its outcome, and a damaged one costs nobody else."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.config import SourceConfig
from corpus.formats.http import BodyProblem, decode_body, parse_fields, parse_response
from corpus.formats.warc import WarcFiles, address, arc_date, sniff
from corpus.formats.web_archives import Frame, read_frames
from corpus.sources import BadRecord, Cursor, Record, open_source
from corpus.sources.base import Found, Selection, Skipped
from corpus.sources.streams import Content

LIMIT = 1 << 24


def warc(path: Path | str = "x.warc", **options: Any) -> SourceConfig:
    return SourceConfig(name="web", kind="warc", path=str(path), **{"extractor": "fast", **options})


def outcome(found: Found) -> str:
    return "document" if isinstance(found, Record) else found.error if isinstance(found, BadRecord) else found.reason


def read_file(path: Path, **options: Any) -> list[Found]:
    source = open_source(warc(path, **options))
    found = [record for file in source.inventory() for record in source.records(file)]
    assert [record.record for record in found] == list(range(len(found)))
    return found


def read(data: bytes, max_bytes: int = LIMIT, cursor: Cursor | None = None, **options: Any) -> list[Found]:
    config = warc(**options)
    cursor = cursor or Cursor()
    selection = Selection(config, "x.warc", cursor)
    content = Content(io.BytesIO(data), "x.warc", offset=selection.offset)
    return list(WarcFiles(config, max_bytes).records(content, selection))


def frames(data: bytes, max_bytes: int = LIMIT) -> list[Frame]:
    return [frame for _, frame in read_frames(Content(io.BytesIO(data)), 0, max_bytes)]


def record(
    block: bytes, kind: str = "conversion", length: object = None, end: bytes = b"\r\n\r\n", **fields: str
) -> bytes:
    names = {"WARC-Type": kind, "Content-Type": "text/plain", "Content-Length": str(len(block))}
    names |= {name.replace("_", "-"): value for name, value in fields.items()}
    if length is not None:
        names["Content-Length"] = str(length)
    lines = [f"{name}: {value}" for name, value in names.items() if value]
    return "\r\n".join(["WARC/1.0", *lines, "", ""]).encode() + block + end


def response(body: bytes, *headers: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    block = "\r\n".join([status, *headers, "", ""]).encode() + body
    return record(block, "response", Content_Type="application/http; msgtype=response")


def texts(found: Iterable[Found]) -> list[str]:
    return [one.text for one in found if isinstance(one, Record)]


# --- real files ------------------------------------------------------------------------------------------------------

EXPECTED = {
    "chatnoir-resiliparse/block-sized-records.warc.gz": {"warc-other": 3},
    "chatnoir-resiliparse/warcfile.warc.gz": {
        "document": 16, "warc-request": 17, "warc-metadata": 16, "warc-warcinfo": 1
    },
    "chatnoir-resiliparse/warcfile.warc.lz4": {
        "document": 16, "warc-request": 17, "warc-metadata": 16, "warc-warcinfo": 1
    },
    "dolma/sample-0000.warc.gz": {"document": 22, "warc-request": 22, "warc-metadata": 3, "warc-warcinfo": 1},
    "warcio/bad.arc": {"arc-header": 1, "empty-text": 3},
    "warcio/example-bad.warc.gz.bad": {
        "warc-warcinfo": 1, "document": 1, "warc-request": 2, "warc-revisit": 1, "http-status": 1
    },
    "warcio/example-digest.warc": {"warc-request": 4},
    "warcio/example-iana.org-chunked.warc": {"warc-warcinfo": 1, "document": 1, "warc-request": 1},
    "warcio/example-resource.warc.gz": {"warc-warcinfo": 2, "document": 1},
    "warcio/example-space-in-target-uri.warc.gz": {"warc-warcinfo": 1, "not-text": 1},
    "warcio/example-space-in-url.arc": {"arc-header": 1, "document": 1},
    "warcio/example-trunc.warc": {"warc-warcinfo": 2, "document": 1, "warc-request": 1},
    "warcio/example.arc": {"arc-header": 1, "document": 1},
    "warcio/example.arc.gz": {"arc-header": 1, "document": 1},
    "warcio/example.warc": {"warc-warcinfo": 2, "document": 1, "warc-request": 2, "warc-revisit": 1},
    "warcio/example.warc.gz": {"warc-warcinfo": 2, "document": 1, "warc-request": 2, "warc-revisit": 1},
    "warcio/post-test.warc.gz": {"not-text": 3, "warc-request": 3},
    "webarchive-commons/IAH-urls-wget.warc.gz": {
        "warc-warcinfo": 1, "warc-request": 16, "http-status": 9, "document": 3, "not-text": 4, "warc-metadata": 3
    },
    "webarchive-commons/abcd.gz": {"bad-warc": 1},
    "webarchive-commons/empty.gz": {},
    "webarchive-commons/hi-2.gz": {"bad-warc": 1},
    "webarchive-commons/link-extraction-test.warc": {"warc-warcinfo": 1, "document": 6, "no-main-content": 1},
    "webarchive-commons/mutliple-headers.warc": {"no-main-content": 1},
    "cc_net/sample.warc.txt": {"warc-warcinfo": 1, "document": 3},
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_every_record_of_a_real_file_has_the_outcome_its_source_states(shared_data: Path, name: str) -> None:
    assert Counter(map(outcome, read_file(shared_data / "warc" / name))) == EXPECTED[name]


def test_every_real_file_is_among_them(shared_data: Path) -> None:
    folder = shared_data / "warc"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(EXPECTED)


def test_records_of_a_wet_file_whose_line_ends_were_changed_are_whole(shared_data: Path) -> None:
    file = shared_data / "warc" / "cc_net" / "sample.warc.txt"
    blocks = [part.split("\n\n", 1)[1] for part in re.split(r"(?m)^(?=WARC/1\.0$)", file.read_text("utf-8"))[1:]]
    assert [text.rstrip("\n") for text in texts(read_file(file))] == [block.rstrip("\n") for block in blocks[1:]]


def test_address_date_and_meta_come_from_the_headers(shared_data: Path) -> None:
    names = ("warc.type", "warc.record_id", "http.status", "http.content_type", "title", "encoding")
    found = read_file(shared_data / "warc/warcio/example.warc", meta_fields=names)[2]
    assert isinstance(found, Record)
    assert (found.url, found.date) == ("http://example.com/", "2017-03-06T04:02:06Z")
    assert found.meta == {
        "warc.type": "response",
        "warc.record_id": "<urn:uuid:a9c51e3e-0221-11e7-bf66-0242ac120005>",
        "http.status": 200,
        "http.content_type": "text/html",
        "title": "Example Domain",
        "encoding": "utf-8",
    }
    found = read_file(shared_data / "warc/warcio/example-space-in-url.arc", meta_fields=names)[1]
    assert isinstance(found, Record)
    assert found.url is not None
    assert found.url.endswith("?FuseAction=Email&EmailTitle=Examples%20From%20The%20Live%20Web&IsPopUp=False")
    assert found.date == "2014-02-16T05:02:21Z"
    with pytest.raises(ValueError, match=r"warc\.tpye"):
        WarcFiles(warc(meta_fields=("warc.tpye",)), LIMIT)


def test_what_servers_and_pages_say_of_their_use_is_kept_where_asked_for() -> None:
    html = b"<html><head><meta name=robots content=noindex></head><body><p>" + b"Some words of a page. " * 40 + b"</p>"
    headers = ("Content-Type: text/html", "X-Robots-Tag: gptbot: noindex", "tdm-reservation: 1", "X-Robots-Tag: noai")
    data = response(html, *headers)
    names = ("http.x-robots-tag", "http.tdm-reservation", "robots", "license")
    [found] = read(data, meta_fields=names)
    assert isinstance(found, Record)
    assert found.meta == {
        "http.x-robots-tag": "gptbot: noindex\nnoai", "http.tdm-reservation": "1", "robots": "noindex"
    }  # fmt: skip
    [silent] = read(data)
    assert isinstance(silent, Record)
    assert silent.meta is None


def test_blocks_are_those_that_warcio_reads(shared_data: Path) -> None:
    archiveiterator = pytest.importorskip("warcio.archiveiterator")
    for name in (
        "chatnoir-resiliparse/warcfile.warc.gz", "dolma/sample-0000.warc.gz", "warcio/example.warc.gz",
        "warcio/example.arc.gz", "webarchive-commons/IAH-urls-wget.warc.gz",
    ):  # fmt: skip
        data = (shared_data / "warc" / name).read_bytes()
        peer = [
            (one.rec_headers.get_header("WARC-Target-URI") or one.rec_headers.get_header("uri"), one.raw_stream.read())
            for one in archiveiterator.ArchiveIterator(io.BytesIO(data), no_record_parse=True)
        ]
        ours = frames(data)
        # warcio counts the rest of an ARC file's first record as part of its header.
        first = 1 if ours[0].arc else 0
        assert [frame.block for frame in ours][first:] == [block for _, block in peer][first:]
        assert [address(frame.fields.get("warc-target-uri", "")) for frame in ours] == [url for url, _ in peer]


# --- where records begin and end -------------------------------------------------------------------------------------


def test_what_looks_like_a_record_inside_a_block_is_part_of_it() -> None:
    inner = b"text\r\n\r\n" + record(b"inner") + b"http://a.com/ 1.2.3.4 20140216050221 text/plain 3\nabc\n"
    data = record(b"one") + record(inner) + record(b"two")
    assert [frame.block for frame in frames(data)] == [b"one", inner, b"two"]


@pytest.mark.parametrize("length", [0, 3, None, "abc", -1, "9" * 30])
def test_a_block_longer_than_declared_or_without_a_length_goes_to_the_next_record(length: object) -> None:
    block = b"first line\r\nsecond line\r\nthird"
    broken = record(block, length=length if length is not None else "")
    found = frames(record(b"one") + broken + record(b"two"))
    assert [(frame.error, frame.block) for frame in found] == [("", b"one"), ("", block), ("", b"two")]


@pytest.mark.parametrize("more", [1, 20, 150, 5000, 10**7, 10**8, 10**14])
def test_a_block_shorter_than_declared_is_bad_and_costs_no_other(more: int) -> None:
    block = b"first line\r\nsecond line"
    found = frames(record(b"one") + record(block, length=len(block) + 4 + more) + record(b"two") + record(b"three"))
    assert [(frame.error, frame.block) for frame in found] == [
        ("", b"one"), ("bad-warc", block), ("", b"two"), ("", b"three")
    ]  # fmt: skip


def test_a_file_that_ends_inside_a_record_says_so() -> None:
    data = record(b"one") + record(b"x" * 1000)
    for cut in (30, 500, 1050):
        found = frames(data[: len(record(b"one")) + cut])
        assert [frame.error for frame in found] == ["", "bad-warc"]


def test_garbage_between_records_is_one_bad_record() -> None:
    garbage = bytes(range(256)) * 4000
    found = frames(garbage + b"\n" + record(b"one") + garbage + b"\r\n" + record(b"two") + garbage)
    assert [frame.error for frame in found] == ["bad-warc", "", "bad-warc", "", "bad-warc"]
    assert [frame.block for frame in found if not frame.error] == [b"one", b"two"]


def test_a_record_that_is_too_long_is_passed_over_in_bounded_memory() -> None:
    inside = b"\r\n\r\n" + record(b"inner")
    long = record(inside + b"x" * 3_000_000)
    assert [(frame.error, frame.block) for frame in frames(record(b"one") + long + record(b"two"), 1000)] == [
        ("", b"one"), ("too-long", b""), ("", b"two")
    ]  # fmt: skip
    # Of no believable length: the record ends where the next begins, or is too long.
    wrong = record(b"short", length=2_000_000)
    found = frames(wrong + record(b"x" * 3_000_000, length="") + record(b"two"), 1000)
    assert [frame.error for frame in found] == ["bad-warc", "too-long", ""]
    assert found[-1].block == b"two"


def test_many_records_that_claim_to_be_too_long_are_each_judged_by_what_follows() -> None:
    wrong = [record(b"%d" % number, length=100_000) for number in range(300)]
    long = record(b"x" * 200_000 + b"\r\n\r\n" + record(b"inner") + b"x" * 100_000)
    found = frames(b"".join([*wrong, long, *wrong, record(b"last")]), 50_000)
    assert [frame.error for frame in found] == ["bad-warc"] * 300 + ["too-long"] + ["bad-warc"] * 300 + [""]
    assert [frame.block for frame in found[:300]] == [b"%d" % number for number in range(300)]


def test_beginnings_without_end_are_garbage_each() -> None:
    found = frames(b"WARC/1.0\r\nA: b\r\n" * 5000 + record(b"last"))
    assert [frame.error for frame in found] == ["bad-warc"] * 5000 + [""]


def test_headers_may_be_folded_repeated_missing_or_no_text() -> None:
    head = b"WARC/0.18\r\nwarc-type : conversion\r\nWARC-Type: request\r\n"
    head += b"WARC-Target-URI:\r\n http://a/\xff\r\nno colon\r\n"
    found = read(head + b"Content-Type: text/plain\r\nContent-Length: 4\r\n\r\ntext\r\n\r\n" + record(b"b", ""))
    assert outcome(found[0]) == "document"
    assert isinstance(found[0], Record)
    assert found[0].url == "http://a/\xff"
    assert outcome(found[1]) == "bad-warc"


def test_arc_of_version_2_and_of_odd_lengths() -> None:
    def arc(body: bytes, line: bytes) -> bytes:
        return line + b" %d\n" % len(body) + body + b"\n"

    http = b"HTTP/1.0 200 OK\nContent-Type: text/plain\n\nSome text."
    data = arc(b"2 0 Crawl\nURL ...\n", b"filedesc://a.arc 0.0.0.0 20140216050221 text/plain 200 - - 0 a.arc")
    data += arc(http, b"http://a.com/ 1.2.3.4 20140216050221 text/plain 200 abc - 77 a.arc")
    data += arc(b"a.com 1.2.3.4", b"dns:a.com 1.2.3.4 20140216050221 text/dns 200 - - 0 a.arc")
    data += http.join([b"http://b.com/ 1.2.3.4 20140216050221 text/html; charset=utf-8 9999\n", b"\n"])
    data += arc(http, b"http://c.com/ ::1 20140216050221 no-type")
    assert [outcome(one) for one in read(data)] == ["arc-header", "document", "dns", "bad-warc", "document"]
    assert frames(data)[3].fields["content-type"] == "text/html; charset=utf-8"
    assert frames(data)[1].fields["content-type"] == "text/plain"
    assert arc_date("201404010000000000") == "2014-04-01T00:00:00Z"
    assert arc_date("20141301000000") is None


def test_a_broken_stream_is_one_bad_record_and_a_damaged_member_costs_only_itself(shared_data: Path) -> None:
    packed = (shared_data / "warc/dolma/sample-0000.warc.gz").read_bytes()
    whole = frames(packed)
    found = frames(packed[: len(packed) // 2])
    assert found[-1].error == "broken-stream"
    assert [frame.block for frame in found[:-1]] == [frame.block for frame in whole[: len(found) - 1]]
    members = [gzip.compress(record(b"%d " % number * 9000), mtime=0) for number in range(6)]
    middle = bytearray(members[3])
    middle[len(middle) // 2 :] = bytes(len(middle) - len(middle) // 2)
    found = frames(b"".join([*members[:3], bytes(middle), *members[4:]]))
    assert [frame.error for frame in found] == ["", "", "", "broken-stream", "", ""]
    assert [frame.block[:2] for frame in found if not frame.error] == [b"0 ", b"1 ", b"2 ", b"4 ", b"5 "]
    assert [frame.end for frame in found[3:]] == [-1, -1, -1]


def test_a_record_whose_compressed_data_has_a_wrong_checksum_is_no_document() -> None:
    members = [gzip.compress(record(b"%d " % number * 9000), mtime=0) for number in range(4)]
    wrong = bytearray(members[1])
    wrong[-5] ^= 1  # of the checksum
    found = frames(b"".join([members[0], bytes(wrong), *members[2:]]))
    assert [frame.error for frame in found] == ["", "broken-stream", "", ""]
    assert "Incorrect checksum" in found[1].message
    assert found[1].block.startswith(b"WARC/1.0")
    found = frames(b"".join([*members[2:], bytes(wrong)]))
    assert [frame.error for frame in found] == ["", "", "broken-stream"]
    cut = b"".join(members)[:-4]  # cut off behind the text: nothing says that it is wrong
    assert [frame.error for frame in frames(cut)] == ["", "", "", "", "broken-stream"]


def test_reading_goes_on_at_every_cursor(shared_data: Path) -> None:
    data = (shared_data / "warc/cc_net/sample.warc.txt").read_bytes() + b"garbage\n"
    data += (shared_data / "warc/warcio/example.warc").read_bytes()
    whole, cursor, stops = [], Cursor(), []
    config = warc()
    selection = Selection(config, "x", cursor)
    for one in WarcFiles(config, LIMIT).records(Content(io.BytesIO(data), "x"), selection):
        whole.append(one)
        stops.append((cursor.record, cursor.offset))
    assert len(whole) == 10
    for number, offset in stops:
        assert read(data, cursor=Cursor(record=number, offset=offset)) == whole[number:]
    halves = read(data, cursor=Cursor(stop=stops[4][1])), read(data, cursor=Cursor("", *stops[4]))
    assert [*halves[0], *halves[1]] == whole


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pieces(shared_data: Path) -> list[bytes]:
    """Real records, one by one: small ones of several kinds."""
    found: list[bytes] = []
    for name in ("warcio/example.warc.gz", "chatnoir-resiliparse/warcfile.warc.gz"):
        data = gzip.decompress((shared_data / "warc" / name).read_bytes())
        places = [begin for begin, _ in read_frames(Content(io.BytesIO(data)), 0, LIMIT)] + [len(data)]
        found += [data[begin:end] for begin, end in itertools.pairwise(places) if end - begin < 20_000]
    return found[:30]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_record_costs_no_other(pieces: list[bytes], data: st.DataObject) -> None:
    whole = [frame.block for frame in frames(b"".join(pieces))]
    assert len(whole) == len(pieces)
    changed = list(pieces)
    damaged = data.draw(st.integers(1, len(pieces) - 1))  # the first bytes of all say whether it is compressed
    piece = bytearray(pieces[damaged])
    at = data.draw(st.integers(0, len(piece) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "insert", "drop"])):
        case "flip":
            piece[at] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            # Right behind a slash what begins might be the end of an address.
            del piece[at - piece[:at].endswith(b"/") :]
        case "insert":
            piece[at:at] = data.draw(st.binary(max_size=300))
        case _:
            del piece[at : at + data.draw(st.integers(1, 300))]
    changed[damaged] = bytes(piece)
    found = [frame.block for frame in frames(b"".join(changed)) if not frame.error]
    others = whole[:damaged] + whole[damaged + 1 :]
    # A record can grow so that it takes in what follows only if its own length says so and leads to a record's end.
    left = Counter(found)
    lost = [block for block in others if left[block] == 0]
    assert not lost or _swallows(changed[damaged])
    assert len(found) <= len(pieces) + 1


def _swallows(piece: bytes) -> bool:
    """Whether the damage made the length itself larger."""
    found = re.search(rb"Content-Length:\s*(\d+)", piece)
    return found is not None and int(found[1]) > len(piece)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_bytes_all_of_it_is_read_in_order(pieces: list[bytes], data: st.DataObject) -> None:
    some = b"".join(pieces[:8])
    packed = data.draw(st.sampled_from([some, gzip.compress(some), b"".join(map(gzip.compress, pieces[:8]))]))
    raw = bytearray(packed)
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=30))
    config = warc()
    limit = data.draw(st.sampled_from([1000, LIMIT]))
    found = list(read_frames(Content(io.BytesIO(bytes(raw))), 0, limit))
    begins = [begin for begin, _ in found]
    assert begins == sorted(begins)
    assert all(len(frame.block) <= max(limit, 1 << 14) for _, frame in found)
    numbered = WarcFiles(config, limit)
    only_text = [_without_pages(numbered, number, frame) for number, (_, frame) in enumerate(found)]
    assert [one.record for one in only_text] == list(range(len(found)))


def _without_pages(reader: WarcFiles, number: int, frame: Frame) -> Found:
    """A record's outcome; extracting pages (slow, and tested elsewhere) is left out."""
    if b"html" in frame.block.lower():
        return Skipped(number, "html")
    return reader._read(number, frame)


# --- what a record carries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (response(b"Hello.", "Content-Type: text/plain"), "document"),
        (response(b"Hello."), "document"),
        (response(b"Hello.", "Content-Type: application/octet-stream"), "document"),
        (response(b"Hello\x00\x01", "Content-Type: application/octet-stream"), "not-text"),
        (response(b"\x89PNG\r\n\x1a\n\0", "Content-Type: text/plain"), "not-text"),
        (response(b"%PDF-1.7", "Content-Type: text/plain"), "not-text"),
        (response("\ufeffwide".encode("utf-16-le"), "Content-Type: text/plain"), "document"),
        (response(b"{}", "Content-Type: application/json"), "not-text"),
        (response(b"", "Content-Type: text/html"), "empty-text"),
        (response(b" \r\n ", "Content-Type: text/plain"), "empty-text"),
        (response(b"Hello.", status="HTTP/1.1 404 Not Found"), "http-status"),
        (response(b"Hello.", status="HTTP/2 200"), "document"),
        (response(b"Hello.", status="ICY 200 OK"), "bad-http"),
        (record(b"text", "resource"), "document"),
        (record(b"text", "response", WARC_Target_URI="ftp://a/b.txt"), "document"),
        (record(b"text", "response", Content_Type="text/dns"), "dns"),
        (record(b"\x01text", "conversion"), "document"),
        (record(b"", "conversion"), "empty-text"),
        (record(b"x", "conversion", Content_Type="image/png"), "not-text"),
        (record(b"x", "metadata"), "warc-metadata"),
        (record(b"x", "resource", WARC_Target_URI="metadata://gnu.org/wget.log"), "warc-metadata"),
        (record(b"x", "continuation"), "warc-continuation"),
        (record(b"x", "resource", WARC_Segment_Number="1"), "bad-warc"),
        (record(b"x", "novelty"), "warc-other"),
    ],
)
def test_what_a_record_is_decides_its_outcome(data: bytes, expected: str) -> None:
    assert [outcome(one) for one in read(record(b"before") + data + record(b"after"))] == [
        "document", expected, "document"
    ]  # fmt: skip


def test_text_that_is_not_in_the_named_encoding_is_bad() -> None:
    found = read(record("café".encode("cp1252")), encoding="utf-8")
    assert [outcome(one) for one in found] == ["bad-encoding"]
    assert texts(read(record("café".encode("cp1252")), encoding="cp1252")) == ["café"]


def test_addresses_may_stand_in_a_header_field() -> None:
    assert address("<http://a/b c\td>") == "http://a/b%20c%09d"
    assert address("  ") is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xef\xbb\xbf\n <!DOCTYPE HTML>", "html"),
        (b"<html lang='en'>", "html"),
        (b"<p>x", "html"),
        (b"<!-- -->", "html"),
        (b'<?xml version="1.0"?><html xmlns="">', "html"),
        (b'<?xml version="1.0"?><rss>', "other"),
        (b"<pre>", "text"),
        (b"plain", "text"),
        (b"\x7fELF\x01", "other"),
    ],
)
def test_content_without_a_type_is_known_by_its_first_bytes(data: bytes, expected: str) -> None:
    assert sniff(data) == expected


# --- HTTP ------------------------------------------------------------------------------------------------------------

TEXT = b"<p>Some text with enough in it to be compressed.</p>\n" * 200


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": gzip.compress(TEXT),
    "x-gzip": gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:]),
    "deflate": zlib.compress(TEXT),
    " Deflate ": _raw_deflate(TEXT),
    "br": brotli.compress(TEXT),
    "zstd": zstandard.compress(TEXT),
    "identity": TEXT,
    "gzip, br": brotli.compress(gzip.compress(TEXT)),
    "utf-8": TEXT,
}


@pytest.mark.parametrize("name", PACKED)
def test_bodies_are_decoded_within_a_bound(name: str) -> None:
    fields = {"content-encoding": name}
    assert decode_body(PACKED[name], fields, len(TEXT)) == TEXT
    assert decode_body(TEXT, fields, len(TEXT)) == TEXT, "declared, but not encoded"
    if PACKED[name] != TEXT:
        bounded = decode_body(PACKED[name], fields, len(TEXT) - 1)
        assert isinstance(bounded, BodyProblem)
        assert bounded.error == "too-long"


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_a_body_cut_short_is_bad_unless_the_crawler_says_so(name: str) -> None:
    packed = PACKED[name][:-9]
    found = decode_body(packed, {"content-encoding": name}, LIMIT)
    assert isinstance(found, BodyProblem)
    assert found.error == "bad-http"
    known = decode_body(packed, {"content-encoding": name}, LIMIT, cut=True)
    assert isinstance(known, bytes)
    assert TEXT.startswith(known)


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        piece = data[at : at + size]
        yield b"%X;name=value\r\n" % len(piece) + piece + b"\r\n"


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=500), st.integers(1, 200), st.booleans())
def test_chunks_are_joined(body: bytes, size: int, last: bool) -> None:
    chunked = {"transfer-encoding": "Chunked"}
    assert decode_body(b"".join(_chunks(body, size)) + b"0\r\n\r\n" * last, chunked, LIMIT) == body


def test_bodies_that_only_say_they_are_chunked_are_taken_as_they_are() -> None:
    chunked = {"transfer-encoding": "chunked"}
    for body in (TEXT, b"add\r\nmore words than that", b"", b"0x\r\n"):
        assert decode_body(body, chunked, LIMIT) == body
    for broken in (b"3\r\nabc\r\nzz\r\n", b"3\r\nabc\r\n9\r\nabc"):
        assert isinstance(decode_body(broken, chunked, LIMIT), BodyProblem)
        assert isinstance(decode_body(broken, chunked, LIMIT, cut=True), bytes)


def test_the_last_of_interim_responses_counts() -> None:
    found = parse_response(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\nA: 1\r\nA: 2\r\n\tx\r\n\r\nbody")
    assert found == (200, {"a": "1"}, b"body")
    assert parse_response(b"HTTP/1.1 301 Moved\nA: 1") == (301, {"a": "1"}, b"")
    assert parse_response(b"<html>") is None
    assert parse_fields(b"a:\xff\r\n b\r\nc\r\nD : e") == {"a": "\xff b", "d": "e"}


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(PACKED)), st.data())
def test_no_body_raises_or_outgrows_its_bound(name: str, data: st.DataObject) -> None:
    body = bytearray(PACKED[name])
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    fields = {"content-encoding": name, "transfer-encoding": data.draw(st.sampled_from(["", "chunked"]))}
    found = decode_body(bytes(body), fields, 5000)
    assert isinstance(found, BodyProblem) or len(found) <= max(5000, len(body))


# --- digests ---------------------------------------------------------------------------------------------------------

BLOCK = b"Bread is made of flour."


def _digest(data: bytes, algorithm: str = "sha1", encode: Any = base64.b32encode) -> str:
    return f"{algorithm}:{encode(hashlib.new(algorithm, data).digest()).decode()}"


def _hexadecimal(data: bytes) -> bytes:
    return data.hex().encode()


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
@pytest.mark.parametrize("encode", [base64.b32encode, base64.b64encode, base64.urlsafe_b64encode, _hexadecimal])
def test_digests_are_checked_however_they_are_written(algorithm: str, encode: Any) -> None:
    for name in ("WARC_Block_Digest", "WARC_Payload_Digest"):
        right, wrong = _digest(BLOCK, algorithm, encode), _digest(b"+-_/", algorithm, encode)
        for stated in (right, right.rstrip("="), right.replace("sha", "SHA-")):
            assert texts(read(record(BLOCK, **{name: stated}))) == [BLOCK.decode()]
        [bad] = read(record(BLOCK, **{name: wrong}))
        assert isinstance(bad, BadRecord)
        assert bad.error == "wrong-digest"
        assert f"{name.replace('_', '-')} is {wrong}, the bytes have {algorithm}:" in bad.message
        assert bad.message.replace("/", "_").replace("+", "-").count(right.replace("/", "_").replace("+", "-")) == 1
        assert texts(read(record(BLOCK, **{name: wrong}), digests="ignore")) == [BLOCK.decode()]


@pytest.mark.parametrize(
    "stated", ["", "sha1", "sha1:", "sha1:1112H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ", "crc32:ABCDEFGH", ":x"]
)
def test_digests_that_nobody_understands_say_nothing(stated: str) -> None:
    assert texts(read(record(BLOCK, WARC_Block_Digest=stated, WARC_Payload_Digest=stated))) == [BLOCK.decode()]


def test_the_digest_of_a_payload_may_be_that_of_what_was_sent_joined_or_decoded() -> None:
    page = b"<html><body><p>Bread is made of flour and water.</p></body></html>"
    packed = gzip.compress(page)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed)
    headers = "HTTP/1.1 200 OK", "Content-Type: text/html", "Transfer-Encoding: chunked", "Content-Encoding: gzip"
    block = "\r\n".join([*headers, "", ""]).encode() + chunked
    for payload, expected in ((chunked, "document"), (packed, "document"), (page, "document"), (b"x", "wrong-digest")):
        fields = {"Content_Type": "application/http", "WARC_Payload_Digest": _digest(payload)}
        assert [outcome(found) for found in read(record(block, "response", **fields))] == [expected]
        # The block's digest says more.
        fields["WARC_Block_Digest"] = _digest(block)
        assert [outcome(found) for found in read(record(block, "response", **fields))] == ["document"]


def test_digests_of_what_was_truncated_or_rewritten_and_of_revisits_prove_nothing() -> None:
    wrong = _digest(b"other")
    assert texts(read(record(BLOCK, WARC_Block_Digest=wrong, WARC_Truncated="length"))) == [BLOCK.decode()]
    assert [outcome(found) for found in read(record(BLOCK, "revisit", WARC_Payload_Digest=wrong))] == ["warc-revisit"]
    rewritten = record(b"One.\r\nTwo.", WARC_Block_Digest=_digest(b"One.\r\nTwo.")).replace(b"\r\n", b"\n")
    assert [text.rstrip("\n") for text in texts(read(rewritten))] == ["One.\nTwo."]
