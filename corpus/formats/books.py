"""PDF and EPUB files: one file, one document of all its text (`corpus.extraction.books`)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import ClassVar

from corpus.config import SourceConfig
from corpus.extraction.books import parse_book
from corpus.extraction.pages import Page, PageReader
from corpus.formats.text import read_whole
from corpus.sources.base import BadRecord, Found, Record, Selection, bad_record
from corpus.sources.streams import Content


class _BookFiles:
    """Files of one record each; `date` is what the file says of itself."""

    fields: ClassVar[tuple[str, ...]]
    endings: ClassVar[tuple[str, ...]]
    resumable: ClassVar[bool] = False

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        unknown = sorted(set(config.meta_fields) - set(self.fields))
        if unknown:
            raise ValueError(
                f"source {config.name!r}, meta_fields: {config.kind} files have no {', '.join(map(repr, unknown))}, "
                f"only {', '.join(self.fields)}"
            )
        self._meta_fields = config.meta_fields
        self._max_record_bytes = max_record_bytes
        self._reader = PageReader(config)

    def records(self, content: Content, selection: Selection) -> Iterator[Found]:
        """The one record of a file."""
        if selection.wants(0):
            selection.reached(1)
            yield self._read(content)

    def _read(self, content: Content) -> Record | BadRecord:
        data = read_whole(content, self._max_record_bytes)
        if isinstance(data, BadRecord):
            return data
        if not data:
            return bad_record(0, "empty-text", "the file is empty")
        answer = self._reader.read(data)
        if not isinstance(answer, Page):
            return bad_record(0, answer.error, answer.message)  # no excerpt: nobody reads these bytes
        book = parse_book(answer.text)
        meta = {name: value for name in self._meta_fields if (value := book.about.get(name)) is not None}
        return Record(0, book.text, None, book.about.get("date"), meta or None)


class EpubFiles(_BookFiles):
    """`.epub` files. `meta_fields` may ask for `title`, `author` and `language`.

    Raises
    ------
    ValueError
        `meta_fields` names another field.
    """

    fields: ClassVar[tuple[str, ...]] = ("title", "author", "language")
    endings: ClassVar[tuple[str, ...]] = ("*.epub",)


class PdfFiles(_BookFiles):
    """`.pdf` files. `meta_fields` may ask for `title`, `author` and `pages` (their number).

    Raises
    ------
    ValueError
        `meta_fields` names another field, or the package that reads them is missing.
    """

    fields: ClassVar[tuple[str, ...]] = ("title", "author", "pages")
    endings: ClassVar[tuple[str, ...]] = ("*.pdf",)

    def __init__(self, config: SourceConfig, max_record_bytes: int) -> None:
        if find_spec("pypdfium2") is None:
            raise ValueError(
                f"source {config.name!r}, kind: the package that reads PDF files is not installed; "
                "pip install 'gristmill[pdf]'"
            )
        super().__init__(config, max_record_bytes)
