"""Formats of files, one module each: how the content of a file becomes records. `open_format` finds one by its kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Protocol

from corpus.config import SourceConfig
from corpus.sources.base import Found, Selection
from corpus.sources.rows import Rows
from corpus.sources.streams import Content


class Format(Protocol):
    """One kind of file.

    Class attributes
    ----------------
    endings
        Patterns of the usual file names, without endings of compression.
    resumable
        Whether reading can begin at the offset of a cursor; if not, content always begins at its start.
    """

    endings: ClassVar[tuple[str, ...]]
    resumable: ClassVar[bool]

    def records(self, content: Content, selection: Selection) -> Iterator[Found | Rows]:
        """Every record of a file or of a member of an archive; see `corpus.sources.base.Source.records`.

        Records are numbered from `selection.first`, which begins at byte `selection.offset`, where the content begins.
        Only those that `selection` wants are given, after `selection.reached` was told where the next one begins.
        Formats that read many records at once give them as rows.
        """
        ...


def open_format(config: SourceConfig, max_record_bytes: int) -> Format:
    """The format of a source's files."""
    match config.kind:
        case "jsonl":
            from corpus.formats.jsonl import JsonLines

            return JsonLines(config, max_record_bytes)
        case "json":
            from corpus.formats.json_array import JsonArrays

            return JsonArrays(config, max_record_bytes)
        case "parquet":
            from corpus.formats.parquet import ParquetFiles

            return ParquetFiles(config, max_record_bytes)
        case "arrow":
            from corpus.formats.arrow_ipc import ArrowFiles

            return ArrowFiles(config, max_record_bytes)
        case "csv":
            from corpus.formats.delimited import DelimitedFiles

            return DelimitedFiles(config, max_record_bytes)
        case "text":
            from corpus.formats.text import TextFiles

            return TextFiles(config, max_record_bytes)
        case "html":
            from corpus.formats.html import HtmlFiles

            return HtmlFiles(config, max_record_bytes)
        case "warc":
            from corpus.formats.warc import WarcFiles

            return WarcFiles(config, max_record_bytes)
        case "mediawiki":
            from corpus.formats.mediawiki import MediaWikiDumps

            return MediaWikiDumps(config, max_record_bytes)
        case "pdf":
            from corpus.formats.books import PdfFiles

            return PdfFiles(config, max_record_bytes)
        case "epub":
            from corpus.formats.books import EpubFiles

            return EpubFiles(config, max_record_bytes)
    raise ValueError(f"source {config.name!r}: there is no format for files of kind {config.kind!r}")
