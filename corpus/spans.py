"""Large files that can be read from the middle are divided into ranges, so that several workers read one file.

Lines are counted for it, many times faster than they are read, because a record's number is its place in the whole
file; tables say their rows themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from numba import njit

from corpus.config import IngestConfig, SourceConfig
from corpus.inventory import RANGE_PARTS, Inventory, Span, large_files
from corpus.sources import open_source
from corpus.sources.base import InputFile
from corpus.sources.reader import FileSource

_BLOCK = 8 << 20


def find_spans(
    inventory: Inventory,
    config: IngestConfig,
    known: Mapping[InputFile, Sequence[Span]],
    check: Callable[[], Any] = lambda: None,
) -> dict[InputFile, list[Span]]:
    """The ranges of every large file; one range where it cannot be divided. A function of file and configuration.

    Parameters
    ----------
    known
        What was found for an earlier generation: unchanged files are not looked at again.
    check
        Called often; may raise to stop.
    """
    sources = {source.name: source for source in config.sources}
    return {
        file: list(known[file]) if file in known else _spans_of(sources[file.source], file, config, check)
        for file in large_files(inventory, config)
    }


def _spans_of(
    source_config: SourceConfig, file: InputFile, config: IngestConfig, check: Callable[[], Any]
) -> list[Span]:
    source = open_source(source_config)
    if not isinstance(source, FileSource):
        raise TypeError(f"files of kind {source_config.kind!r} cannot be divided")
    size = RANGE_PARTS * config.part_bytes
    with source.open(file) as raw:
        if raw is None:
            return []
        if source_config.kind == "parquet":
            return row_spans(raw, size)
        head = raw.read(_BLOCK)
        # Compressed files and archives are read from their start.
        if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") or b"\0" in head:
            return []
        blocks = itertools.chain([head], _blocks(raw, check))
        return line_spans(blocks, file.bytes, size, config.max_record_bytes)


def _blocks(raw: BinaryIO, check: Callable[[], Any]) -> Iterator[bytes]:
    while block := raw.read(_BLOCK):
        check()
        yield block


def row_spans(raw: BinaryIO, size: int) -> list[Span]:
    """Ranges of rows at borders of row groups, of about `size` bytes or one row group; [] if that cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.ParquetFile(raw).metadata
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        return []
    spans, begin, row, gathered = [], 0, 0, 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        row += group.num_rows
        gathered += group.total_byte_size
        if gathered >= size or number + 1 == metadata.num_row_groups:
            spans.append(Span(begin, begin, row, gathered))
            begin, gathered = row, 0
    return spans


def line_spans(blocks: Iterator[bytes], length: int, size: int, max_line_bytes: int) -> list[Span]:
    """Ranges of lines: a new one begins with the first line that begins at or after each multiple of `size`.

    `record` of a range counts the lines before it that are not blank, as the JSON lines reader numbers them.
    """
    state = np.array([0, 0, 0, size], np.int64)  # position, begin of the line, records before it, next multiple
    text_in_line = False
    starts_at = [(0, 0)]
    for block in blocks:
        data = np.frombuffer(block, np.uint8)
        starts = np.empty((len(data) // size + 2, 2), np.int64)
        text_in_line, number = _scan_lines(data, state, text_in_line, size, max_line_bytes, starts)
        starts_at += [(begin, record) for begin, record in starts[:number].tolist() if begin < length]
    ends = [begin for begin, _ in starts_at[1:]] + [length]
    return [Span(record, begin, end, end - begin) for (begin, record), end in zip(starts_at, ends, strict=True)]


@njit(cache=True, nogil=True)
def _scan_lines(data: Any, state: Any, text_in_line: bool, size: int, max_line_bytes: int, starts: Any) -> Any:
    position, begin, records, multiple = state
    number = 0
    for index in range(len(data)):
        byte = data[index]
        if byte == 10:
            if text_in_line or position + index - begin > max_line_bytes:
                records += 1
            text_in_line = False
            begin = position + index + 1
            if begin >= multiple:
                starts[number, 0] = begin
                starts[number, 1] = records
                number += 1
                multiple = (begin // size + 1) * size
        elif byte > 32 or (byte < 9) or (13 < byte < 32):
            text_in_line = True
    state[0] = position + len(data)
    state[1] = begin
    state[2] = records
    state[3] = multiple
    return text_in_line, number
