"""Main content of HTML pages, extracted in a helper process that no page can take the run down with.

What comes out is a function of the page and the configuration alone: not of earlier pages, of the machine's load, of
the date. Only a page that needs very nearly all of its CPU seconds may pass on one machine and fail on another.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import IO, Any, NamedTuple

from corpus.config import SourceConfig
from corpus.extraction.encodings import find_codec
from corpus.extraction.worker import Extractor, Order, Reply, memory_message, receive, send

_ROOT = str(Path(__file__).resolve().parents[2])
_EXTRACTORS: dict[str, Extractor] = {"mediawiki": "wikitext", "pdf": "pdf", "epub": "epub"}
_TRIES_IN_NEW = 2
"""Processes that a page must be the first of, and the end of, to take the blame: the first may have been killed."""
_LAST_WORDS_BYTES = 4000
_KEPT_BYTES = 1 << 20
"""What the file that pages lie in may keep after a large one."""


class Page(NamedTuple):
    """A page's main content as plain text (not normalised), its title, and the encoding (Python's name) it was in."""

    text: str
    title: str | None
    encoding: str


class PageProblem(NamedTuple):
    """Why a page gives no text: `error` is a kind of `corpus.sources.base.BadRecord`.

    extraction-timeout    it needs more than `page_seconds` of CPU time
    extraction-memory     it needs more than `page_memory_bytes`
    extraction-crashed    the extractor fails on it, or dies
    no-main-content       it has no text that the extractor takes for main content
    bad-encoding          its bytes are no text in any encoding, or not in the configured one
    bad-pdf, bad-epub, encrypted-file, empty-text   a book cannot be read (`corpus.extraction.books`)
    """

    error: str
    message: str


class PageReader:
    """Extracts pages in one helper process that is started on first use, bounded per page, and replaced when it dies.

    The memory bound counts address space and holds on Linux; other systems do not enforce one.

    Parameters
    ----------
    config
        `extractor`, `encoding` (empty: `detect`), `page_seconds` and `page_memory_bytes` are used.

    Raises
    ------
    ValueError
        There is no encoding of the configured name.
    """

    def __init__(self, config: SourceConfig) -> None:
        encoding = config.encoding or "detect"
        if encoding != "detect":
            find_codec(encoding)
        extractor: Extractor = _EXTRACTORS.get(config.kind, config.extractor)
        self._order = Order(extractor, encoding, config.page_seconds, config.page_memory_bytes)
        self._process: _Process | None = None

    def read(self, data: bytes, *, content_type: str | None = None, url: str | None = None) -> Page | PageProblem:
        """The main content of a page.

        Parameters
        ----------
        data
            The page as it was sent, without transfer and content encoding.
        content_type
            HTTP's header, whose charset is believed before the page's own.
        url
            For messages only.

        Raises
        ------
        RuntimeError
            The helper process cannot be started.
        """
        tries = 0
        while True:
            if self._process is None:
                self._process = _Process(self._order)
                tries += 1
            try:
                reply = self._process.ask(data, content_type)
            except _DiedError as died:
                self.close()
                problem = died.problem(self._order)
                again = problem.error != "extraction-timeout" and tries < _TRIES_IN_NEW
            except BaseException:  # an interrupt: the answer would be taken for that to the next page
                self.close()
                raise
            else:
                if reply.grown:
                    self.close()
                if not reply.error:
                    return Page(reply.text, reply.title, reply.encoding)
                problem = PageProblem(reply.error, reply.text)
                # Memory may have been short because of earlier pages.
                again = reply.error in ("extraction-memory", "extraction-crashed") and tries == 0
                if again:
                    self.close()
            if not again:
                return problem._replace(message=f"{url}: {problem.message}") if url else problem

    def close(self) -> None:
        """End the helper process; the next page starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.end()


class _DiedError(Exception):
    """The process ended while it had a page; `code` is its return code, `last_words` what it wrote to its errors."""

    def __init__(self, code: int, last_words: str) -> None:
        super().__init__(code, last_words)
        self.code = code
        self.last_words = last_words

    def problem(self, order: Order) -> PageProblem:
        if self.code == -signal.SIGPROF:
            return PageProblem("extraction-timeout", f"extraction takes more than {order.page_seconds:g} CPU seconds")
        # What Rust says before it gives up, and how PDFium does.
        if "memory allocation" in self.last_words or (order.extractor == "pdf" and self.code == -signal.SIGABRT):
            return PageProblem("extraction-memory", memory_message(order))
        cause = signal.Signals(-self.code).name if self.code < 0 else f"code {self.code}"
        said = f": {self.last_words.splitlines()[-1][:200]}" if self.last_words else ""
        return PageProblem("extraction-crashed", f"the extraction process ended by {cause} on this page{said}")


class _Process:
    """One helper process that is ready for pages."""

    def __init__(self, order: Order) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (`end` closes it)
        self._pages = _memory_file()
        paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
        pages = self._pages.fileno()
        self._popen = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "corpus.extraction.worker",
                marshal.dumps(tuple(order)).hex(),
                str(self._pages.fileno()),
            ],
            pass_fds=[pages],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # Hashes are fixed so that no library's walk over a set can differ between processes.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"},
        )
        self.end = weakref.finalize(self, _end, self._popen, self._errors, self._pages)
        try:
            self._receive()
        except _DiedError as died:
            self.end()
            raise RuntimeError(f"the page extraction process cannot be started:\n{died.last_words}") from died

    def ask(self, data: bytes, content_type: str | None) -> Reply:
        """Its answer to a page.

        Raises
        ------
        _DiedError
            It ended before it answered.
        """
        assert self._popen.stdin is not None
        self._pages.seek(0)
        self._pages.write(data)
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            send(self._popen.stdin, (content_type, len(data)))
        try:
            return Reply(*self._receive())
        finally:
            if len(data) > _KEPT_BYTES:
                self._pages.truncate(_KEPT_BYTES)

    def _receive(self) -> Any:
        assert self._popen.stdout is not None
        try:
            return receive(self._popen.stdout)
        except EOFError:
            code = self._popen.wait()
            self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            raise _DiedError(code, self._errors.read().decode(errors="replace").strip()) from None


def _memory_file() -> IO[bytes]:
    """An unbuffered file that no name leads to, in memory where the system knows that."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("pages"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _end(process: subprocess.Popen[bytes], *files: IO[bytes]) -> None:
    """Also called when the process is forgotten, and when this one exits; if this one is killed, its input ends."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, *files):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):  # a request that it did not read to the end
                stream.close()
