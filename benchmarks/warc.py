"""How fast are the records of a WARC file read? `corpus` beside FastWARC (C++) and warcio (Python).

Documents as HTML responses in one file, plain or with a gzip member a record: framing, headers, whole blocks. Peers
that are not installed are left out.
"""

from __future__ import annotations

import gzip
import html
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.timing import Benchmark, Result, Work, main

Read = Callable[[Path], Iterable[bytes]]
_LIMIT = 1 << 24


def prepare(documents: pa.Table, folder: Path) -> None:
    """The file, plain and gzipped, and a small one to warm up with."""
    for name, some in (("all", documents), ("warm", documents.slice(0, 100))):
        with open(folder / f"{name}.warc", "wb") as plain, open(folder / f"{name}.warc.gz", "wb") as packed:
            for number, text in enumerate(some.column("text").to_pylist()):
                record = _response(number, text)
                plain.write(record)
                packed.write(gzip.compress(record, 6, mtime=0))


def _response(number: int, text: str) -> bytes:
    page = f"<!DOCTYPE html><html><body><pre>{html.escape(text)}</pre></body></html>".encode("utf-8", "replace")
    block = (
        b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html; charset=utf-8\r\n"
        b"Date: Mon, 06 Mar 2017 04:02:06 GMT\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)
    )
    return (
        b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-%012d>\r\n"
        b"WARC-Date: 2017-03-06T04:02:06Z\r\nWARC-Target-URI: http://example.com/%d\r\n"
        b"Content-Type: application/http; msgtype=response\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n"
        % (number, number, len(block), block)
    )


def peer(folder: Path, read: Read, ending: str) -> Work:
    """Reads the small file, then, on the clock, the large one."""
    for _ in read(folder / f"warm{ending}"):
        pass

    def work() -> Result:
        records = size = 0
        for block in read(folder / f"all{ending}"):
            records += 1
            size += len(block)
        return Result({"records": records, "MB": size / 1e6}, lambda: [records, size])

    return work


def gristmill(file: Path) -> Iterable[bytes]:
    """Blocks as `corpus.formats.web_archives` finds them."""
    from corpus.formats.web_archives import read_frames
    from corpus.sources.streams import Content

    with open(file, "rb") as raw:
        for _, frame in read_frames(Content(raw), 0, _LIMIT):
            yield frame.block


def fastwarc(file: Path) -> Iterable[bytes]:
    """FastWARC, HTTP headers left in the block."""
    from fastwarc.warc import ArchiveIterator

    with open(file, "rb") as raw:
        for record in ArchiveIterator(raw, parse_http=False):
            yield record.reader.read()


def warcio(file: Path) -> Iterable[bytes]:
    """warcio, HTTP headers left in the block."""
    iterator = importlib.import_module("warcio.archiveiterator").ArchiveIterator
    with open(file, "rb") as raw:
        for record in iterator(raw, no_record_parse=True):
            yield record.raw_stream.read()


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """What was read, and what else is done."""
    also = {
        "gristmill": "; SHA-256 of the file, every length checked",
        "gristmill, gzip": "; SHA-256 of the file, every length checked",
    }
    return {
        name: f"{found[0]:,} records, {found[1] / 1e6:.1f} MB{also.get(name, '')}" for name, found in outcomes.items()
    }


def _peers() -> Mapping[str, Callable[[Path], Work]]:
    found: dict[str, Callable[[Path], Work]] = {}
    for ending, suffix in ((".warc", ""), (".warc.gz", ", gzip")):
        found[f"gristmill{suffix}"] = partial(peer, read=gristmill, ending=ending)
        for read in (fastwarc, warcio):
            if importlib.util.find_spec(read.__name__) is not None:
                found[f"{read.__name__}{suffix}"] = partial(peer, read=read, ending=ending)
    return found


if __name__ == "__main__":
    peers = _peers()
    main(
        Benchmark(
            "a first small file (imports).",
            prepare,
            peers,
            judge,
            packages=("isal", *(name for name in ("fastwarc", "warcio") if name in peers)),
        )
    )
