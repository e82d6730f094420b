"""All input files of a run, and how they are divided into units of work: a function of the files, never of workers.

A unit is what one worker reads and what becomes document parts of its own. One file more or less, or changed, touches
one unit and leaves the others as they were, so that nightly growth costs the growth.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

from corpus.config import IngestConfig
from corpus.sources import open_source
from corpus.sources.base import InputFile, hash64

# Files in a group, about, once a source has more than that: record formats hold many documents a file, the others one
# or a few.
_GROUP_FILES = {"text": 64, "html": 64, "pdf": 64, "epub": 64, "python-docs": 64}
_GROUP_RECORD_FILES = 1024

RANGE_PARTS = 4
"""A range of a large file is about this many parts long; a file is divided if it has twice as much."""


@dataclass(frozen=True)
class Inventory:
    """Every input file, sorted by source and uri."""

    files: tuple[InputFile, ...]

    @cached_property
    def digest(self) -> str:
        """ "blake2b:hex" over path, size and etag of every file; it names the output of ingest."""
        state = hashlib.blake2b(digest_size=32)
        for file in self.files:
            line = json.dumps([file.source, file.uri, file.bytes, file.etag], ensure_ascii=True)
            state.update(line.encode() + b"\n")
        return f"blake2b:{state.hexdigest()}"

    def as_verified(self, verified: Iterable[Sequence[Any]]) -> Inventory:
        """The inventory with what an earlier generation found by reading files: their etags stand for their content."""
        known = {(*row[:3], row[4]): row[3:5] for row in verified}
        marks = ((file, known.get((file.source, file.uri, file.bytes, file.etag))) for file in self.files)
        return Inventory(
            tuple(file if mark is None else replace(file, etag=mark[0], seen=mark[1]) for file, mark in marks)
        )

    @property
    def bytes(self) -> int:
        """Size of all files as they lie there."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class Span:
    """A range of one large file, in bytes for lines, in rows for tables.

    `record` is the number of its first record, `bytes` its share of the file, for progress.
    """

    record: int
    begin: int
    end: int
    bytes: int


@dataclass(frozen=True)
class IngestUnit:
    """Files of one source that are read together, sorted by uri. `stem` begins the names of its parts.

    A unit with a `span` reads that range of its one file.
    """

    source: str
    files: tuple[InputFile, ...]
    stem: str
    span: Span | None = None

    @property
    def material(self) -> list[tuple[str, int, str]]:
        """(uri, bytes, etag) of every file: what the keys of its parts are made of."""
        return [(file.uri, file.bytes, file.etag) for file in self.files]

    @property
    def bytes(self) -> int:
        """Size of its files as they lie there, or of its range."""
        return sum(file.bytes for file in self.files) if self.span is None else self.span.bytes

    def part_name(self, number: int) -> str:
        """Name of its `number`-th part, from 0."""
        return f"{self.stem}-{number:05d}"


def large_files(inventory: Inventory, config: IngestConfig) -> list[InputFile]:
    """The files large enough to be divided, of a kind that can be read from the middle, and read to their end."""
    kinds = {source.name: source.kind for source in config.sources if source.limit is None}
    least = 2 * RANGE_PARTS * config.part_bytes
    return [f for f in inventory.files if f.bytes >= least and kinds.get(f.source) in ("jsonl", "parquet")]


def take_inventory(config: IngestConfig) -> Inventory:
    """Lists the files of all sources.

    Raises
    ------
    SourceError
        If a source has no files.
    ValueError
        If two sources have one name.
    """
    names = [source.name for source in config.sources]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"sources: two are called {name!r}; names stand in ids of parts and must differ")
    gone = {(down.source, down.uri) for down in config.takedown if down.record is None}
    files = [
        file
        for source in config.sources
        if (source.name, "") not in gone
        for file in open_source(source, redact=config.redact).inventory()
        if (source.name, file.uri) not in gone
    ]
    return Inventory(tuple(sorted(files, key=lambda file: (file.source, file.uri))))


def plan_units(
    inventory: Inventory, config: IngestConfig, spans: Mapping[tuple[str, str], Sequence[Span]] | None = None
) -> list[IngestUnit]:
    """Divides the inventory into units of work, sorted by source and first uri.

    A file of records is a unit of its own. Where a source has n files, many more than T (1,024 for record formats, 64
    for formats with a document a file), neighbours in sorted order are grouped by content-defined boundaries: a group
    ends after a file whose uri hash ends in k = floor(log2(n / T)) zero bits, or that has `part_bytes` or more. Every
    boundary depends on one file alone, so one file more changes one existing unit at most, except where n passes a
    power of two times T and k steps. Parts are cut at `part_bytes` of text while a unit is read, whatever its size.
    A large file with `spans` (by source and uri) becomes one unit for each of them.
    """
    kinds = {source.name: source.kind for source in config.sources}
    units: list[IngestUnit] = []
    for source, group in groupby(inventory.files, key=lambda file: file.source):
        files = tuple(group)
        bits = _zero_bits(len(files), _GROUP_FILES.get(kinds[source], _GROUP_RECORD_FILES))
        stems: set[str] = set()
        for members in _divide(files, bits, config.part_bytes):
            ranges = (spans or {}).get((source, members[-1].uri), ())
            whole = members[:-1] if ranges else members
            if whole:
                units.append(IngestUnit(source, tuple(whole), _stem(source, whole[0].uri, stems)))
            if ranges:
                stem = _stem(source, members[-1].uri, stems)
                units += [IngestUnit(source, members[-1:], f"{stem}-{i:04d}", span) for i, span in enumerate(ranges)]
    return units


def _stem(source: str, uri: str, taken: set[str]) -> str:
    stem = f"{source}-{hashlib.blake2b(uri.encode(), digest_size=6).hexdigest()}"
    while stem in taken:  # 48 bits: all but never
        stem += "x"
    taken.add(stem)
    return stem


def _zero_bits(files: int, group: int) -> int:
    return max(0, math.floor(math.log2(files / group))) if files > group else 0


def _divide(files: tuple[InputFile, ...], bits: int, part_bytes: int) -> Iterator[tuple[InputFile, ...]]:
    """Groups of neighbours: a file ends its group if `bits` bits of its uri's hash are zero, or if it is large."""
    begin = 0
    for index, file in enumerate(files):
        inside = hash64(file.uri) & ((1 << bits) - 1) and file.bytes < part_bytes
        if index + 1 == len(files) or not inside:
            yield files[begin : index + 1]
            begin = index + 1
