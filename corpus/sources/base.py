"""What a source is: an inventory of input files, and for each file its records, every one of them accounted for.

A format of files is one module in `corpus/formats`; what is common to them (listing, opening, decompression, archives)
is in `corpus/sources/reader.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from corpus.config import SourceConfig

if TYPE_CHECKING:
    from corpus.sources.rows import Rows

EXCERPT_CHARACTERS = 200


class SourceError(ValueError):
    """The source as a whole cannot be read: nothing is there, or an input changed under the run."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file as the inventory saw it.

    Attributes
    ----------
    source
        Name of the source.
    uri
        Path relative to the source's root, with forward slashes.
    bytes
        Size as it lies there (compressed, if it is).
    etag
        The object's etag, or the modification time in nanoseconds for files on a disk; "" when unknown, "missing" for
        what is listed and cannot be opened.
    seen
        The etag that was seen, where verifying the content put another one in its place.
    path
        Its path below the root, where `uri` is another one because names are redacted; it is not written down.
    """

    source: str
    uri: str
    bytes: int
    etag: str
    seen: str = ""
    path: str = field(default="", compare=False)

    @property
    def place(self) -> str:
        """Its path below the source's root."""
        return self.path or self.uri


class Record(NamedTuple):
    """A readable record: `record` counts from 0 in its file; the text is as it stands there, not yet normalised."""

    record: int
    text: str
    url: str | None = None
    date: str | None = None
    meta: dict[str, Any] | None = None


class BadRecord(NamedTuple):
    """A record, or the whole rest of a file, that cannot be read.

    `error` is a short kind that is counted:

    cannot-open         the file cannot be opened, or is a link to nothing, a pipe, a device
    broken-stream       the compressed data is truncated or damaged: the rest of the file, or up to the next part of it
                        that can be read, is lost
    bad-archive         a zip or tar archive, or a member's entry in it, is damaged
    unsafe-name         a member's name is absolute, leads out of the archive or has a NUL in it
    encrypted-member    a member of an archive is encrypted
    nested-archive      a member of an archive is an archive
    unsupported-compression   a member is packed by a method that is not known, or a file is compressed twice
    too-many-members    a zip archive has more members than `corpus.sources.archives.MAX_ZIP_MEMBERS`
    bad-parquet         a Parquet file or row group cannot be read
    bad-arrow           an Arrow file or record batch cannot be read
    missing-column      a table has no column of that name
    bad-row             a CSV row has another number of fields than the first, or quotes that do not fit
    bad-utf8            bytes that are not UTF-8
    bad-encoding        bytes that are not text in the named encoding, or in any
    bad-json            a line or an element that is not JSON
    not-an-object       JSON that is not an object where one is expected
    missing-text        no such field, or null
    not-a-string        the text field holds something else
    empty-text          the text is empty or only white space
    too-long            longer than `max_record_bytes`
    bad-xml             a page of a MediaWiki dump does not parse or is not closed
    bad-warc            a stretch that is no WARC or ARC record, or a record that is cut, has no type, or is a segment
    wrong-digest        a WARC record whose bytes do not fit the digest that it states of them
    bad-http            a response without a status line, or whose chunked or compressed body is damaged or cut short
    no-main-content     a page has no text that the extractor takes for main content
    extraction-timeout  a page needs more CPU time than `page_seconds`
    extraction-memory   a page needs more memory than `page_memory_bytes`
    extraction-crashed  the extractor fails on a page, or dies
    bad-pdf, bad-epub   a book that is damaged, or lacks pages or chapters that it names
    encrypted-file      a book that opens with a password only
    bad-syntax          a Python file that does not parse
    lone-surrogate      half of a surrogate pair, and repair is switched off
    """

    record: int
    error: str
    message: str
    excerpt: str


class Skipped(NamedTuple):
    """A record that is read and by its kind no document; `reason` is counted.

    other-member            a member of an archive whose name does not match, or is hidden
    archive-special-member  a link, device or pipe in an archive
    warc-…, arc-header      a WARC record of that type: warcinfo, request, metadata, revisit, continuation, other
    http-status             a response with another status than 200
    not-text                a response that is neither HTML nor text by its type and looks; dns: a name look-up
    namespace, redirect, not-wikitext, deleted   pages of a MediaWiki dump
    takedown                left out on request
    """

    record: int
    reason: str


Found = Record | BadRecord | Skipped


@dataclass
class Cursor:
    """Where reading of a file begins, and, after each record that comes out, where it could go on.

    Attributes
    ----------
    member
        Member of an archive that the record came from, "" outside archives. Records are numbered from 0 in a member.
    record
        Number of the next record.
    offset
        Byte in the decompressed content at which the next record begins; -1 where a format cannot begin in the middle:
        then the file is read from its start and earlier records are passed over.
    stop
        Only records that begin before this byte (this row, for tables) are read; None for all.
    sha256
        After the last record: "sha256:hex" of the file as it lies there, if all of it went by in order; else None.
    tell
        Says how many bytes of the file as it lies there have been read so far, for progress.
    """

    member: str = ""
    record: int = 0
    offset: int = 0
    stop: int | None = None
    sha256: str | None = None
    tell: Callable[[], int] = lambda: 0


class Source(Protocol):
    """One collection of text."""

    config: SourceConfig

    def inventory(self) -> list[InputFile]:
        """All input files, sorted by uri.

        Raises
        ------
        SourceError
            If nothing is found; names the source and the path.
        """
        ...

    def records(self, file: InputFile, *, start: int = 0, cursor: Cursor | None = None) -> Iterator[Found]:
        """Every record of a file in order, numbered from 0; those before `start` are passed over.

        Each record gives exactly one `Record`, `BadRecord` or `Skipped`. A tail that cannot be read gives the records
        before it and one `BadRecord` for all of it; damage never raises. With a `cursor` reading begins where it
        stands, and it is moved on before each record is given.

        Raises
        ------
        SourceError
            If the file is no longer the one of the inventory (size or modification time differ).
        OSError
            If the disk or the network fails: that may heal, so it is for the caller to try again.
        """
        ...

    def batches(self, file: InputFile, cursor: Cursor) -> Iterator[Found | Rows]:
        """As `records`; what a format reads together comes together, with the cursor behind the last of it."""
        ...

    def checksum(self, file: InputFile) -> str | None:
        """ "sha256:hex" of a file as it lies there, by reading it; None if it cannot be opened."""
        ...


class Selection:
    """Which records of one file (or member of an archive) are read: at most `limit`, and a fraction chosen by hash.

    What is not selected is not part of the source: it appears in no count, but it keeps its record number. A format
    numbers its records from `first`, asks `wants` for each, and says by `reached` where the next one begins.
    """

    def __init__(self, config: SourceConfig, uri: str, cursor: Cursor, *, resumable: bool = True) -> None:
        resumed = resumable and cursor.offset >= 0
        self.cursor = cursor
        self.first = cursor.record if resumed else 0
        self.offset = cursor.offset if resumed else 0
        self.stop = cursor.stop
        self._start = cursor.record
        self._limit = config.limit
        self._threshold = None if config.fraction >= 1 else int(config.fraction * 2**64)
        self._uri = uri

    def wants(self, record: int) -> bool:
        """True if this record is read."""
        if record < self._start:
            return False
        return self._threshold is None or hash64(f"{self._uri}#{record}") < self._threshold

    def mask(self, first: int, number: int) -> NDArray[np.bool_]:
        """Which of the records `first` to `first + number - 1` are read."""
        records = np.arange(first, first + number)
        wanted = records >= self._start
        if self._limit is not None:
            wanted &= records < self._limit
        if self._threshold is not None:
            wanted &= np.fromiter((self.wants(record) for record in records.tolist()), np.bool_, number)
        return wanted

    def ends_before(self, record: int) -> bool:
        """True if neither this record nor any after it is read."""
        return self._limit is not None and record >= self._limit

    def reached(self, record: int, offset: int = -1) -> None:
        """Called before `record` - 1 is given: `record` is the next number and it begins at `offset`."""
        self.cursor.record = record
        self.cursor.offset = offset


def hash64(text: str) -> int:
    """A hash of 64 uniform bits that is the same on every machine (blake2b)."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def sha256_of(raw: BinaryIO) -> str:
    """ "sha256:hex" of what is left to read of a file."""
    state = hashlib.sha256()
    while data := raw.read(1 << 20):
        state.update(data)
    return f"sha256:{state.hexdigest()}"


def excerpt(data: bytes | str) -> str:
    """The first characters of what could not be read, as valid UTF-8 (bytes that are not are shown as `\\xNN`)."""
    if isinstance(data, str):
        return data[:EXCERPT_CHARACTERS].encode("utf-8", "backslashreplace").decode("utf-8")
    return data[: EXCERPT_CHARACTERS * 4].decode("utf-8", "backslashreplace")[:EXCERPT_CHARACTERS]


def bad_record(record: int, error: str, message: str, data: bytes | str = b"") -> BadRecord:
    """A `BadRecord` whose message and excerpt are valid UTF-8 and short."""
    return BadRecord(record, error, message.encode("utf-8", "backslashreplace").decode("utf-8"), excerpt(data))
