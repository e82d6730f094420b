"""The process that extracts pages, one at a time, each within bounds that the kernel enforces.

Pages lie in a file in memory that both processes have open: through a pipe they would come in pieces of 64 KiB, each of
which waits for both processes to run. Requests come by standard input.

Parsers in C cannot be interrupted, so a page that takes too long ends this process (`corpus.extraction.pages` starts
another). Time is CPU time: what else the machine does changes nothing.
"""

from __future__ import annotations

import html
import logging
import marshal
import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import IO, Any, Literal, NamedTuple

from corpus.extraction.books import BookError, open_book_reader, write_book
from corpus.extraction.encodings import decode_text

_LENGTH = struct.Struct("!Q")
_HEAD_CHARACTERS = 1 << 16
# No part of it runs over the next "<", so that it takes linear time whatever a page holds.
_TITLE = re.compile(r"<title(?:\s[^<>]*)?>([^<]*)</title", re.IGNORECASE)
_OWN_BYTES = 1 << 26  # what the process may grow by for itself (caches, compiled patterns) as well as for a page
_NEARLY_ALL = 0.75
_WARM_UP = "<html><head><title>Хлеб</title></head><body><article><p>Хлеб пекут из муки</p></article></body></html>"

Extractor = Literal["quality", "precise", "fast", "wikitext", "pdf", "epub"]


class Order(NamedTuple):
    """How pages are extracted: what a process is started with, from the fields of `SourceConfig` with these names."""

    extractor: Extractor
    encoding: str
    page_seconds: float
    page_memory_bytes: int


class Reply(NamedTuple):
    """What became of a page.

    Attributes
    ----------
    error
        "", or an error of `PageProblem`.
    text
        The main content, or the message to the error.
    title, encoding
        As in `Page`.
    grown
        This process holds so much memory that another should do the next page.
    """

    error: str
    text: str
    title: str | None = None
    encoding: str = ""
    grown: bool = False


def open_extractor(name: Extractor) -> Callable[[str], str]:
    """A function from a page to its main content as plain text, "" if there is none.

    Headings, paragraphs and lines of code stand on lines of their own; list items begin with "- " or a number; cells of
    tables stand between "|" (trafilatura) or tabs (resiliparse). There is no other markup, and no reader's comments:
    they cost more precision than they are worth (see `benchmarks/extract.py`).
    """
    if name == "fast":
        from resiliparse.extract.html2text import extract_plain_text

        def extract_fast(page: str) -> str:
            return extract_plain_text(page, main_content=True, alt_texts=False, comments=False, post_meta=False)

        return extract_fast
    if name == "wikitext":
        from corpus.extraction.wikitext import plain_text

        return plain_text
    import trafilatura
    from lxml.etree import ErrorTypes
    from lxml.html import HTMLParser

    # Its own parser stops without a word at 256 levels or 10 MB of text. Here pages are bounded as a whole.
    parser = HTMLParser(
        collect_ids=False,
        default_doctype=False,
        encoding="utf-8",
        remove_comments=True,
        remove_pis=True,
        huge_tree=True,
    )
    trafilatura.utils.HTML_PARSER = parser

    # Nothing that looks beyond the page: no deduplication (it remembers earlier pages), no metadata (guesses of dates
    # depend on today's), no language (depends on what else is installed).
    options: dict[str, Any] = {"fast": True} if name == "quality" else {"favor_precision": True}

    def extract(page: str) -> str:
        tree = trafilatura.load_html(page)
        last = parser.error_log.last_error
        if last is not None and last.type == ErrorTypes.ERR_NO_MEMORY:
            raise MemoryError
        if last is not None and last.type == ErrorTypes.ERR_RESOURCE_LIMIT:
            raise ValueError(f"the parser gives up: {last.message}")
        if tree is None:
            return ""
        return trafilatura.extract(tree, include_comments=False, deduplicate=False, **options) or ""

    return extract


def find_title(page: str) -> str | None:
    """The title of a page in HTML, on one line; None if it has none."""
    found = _TITLE.search(page[:_HEAD_CHARACTERS])
    return " ".join(html.unescape(found[1]).split()) or None if found else None


def send(stream: IO[bytes], message: Any) -> None:
    """Write a message. Both ends are the same interpreter: `marshal` fits."""
    data = marshal.dumps(message)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next message.

    Raises
    ------
    EOFError
        The other end is gone.
    """
    length = stream.read(_LENGTH.size)
    if len(length) == _LENGTH.size:
        [size] = _LENGTH.unpack(length)
        data = stream.read(size)
        if len(data) == size:
            return marshal.loads(data)
    raise EOFError


class _LostMemory(logging.Handler):
    """Notes that memory was short where trafilatura goes on without what it could not allocate."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen = False

    def emit(self, record: logging.LogRecord) -> None:
        self.seen = self.seen or "memory" in record.getMessage().lower() or "MemoryError" in repr(record.args)


class _Worker:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._read_book = open_book_reader(order.extractor) if order.extractor in ("pdf", "epub") else None
        self._extract = open_extractor("fast" if self._read_book else order.extractor)
        self._lost_memory = _LostMemory()
        logger = logging.getLogger("trafilatura")
        logger.addHandler(self._lost_memory)
        logger.propagate = False
        # What is loaded on first use is no page's: extraction, and detection of what is not UTF-8.
        self._extract(decode_text(_WARM_UP.encode("cp1251"))[0])
        self._sizes = os.open("/proc/self/statm", os.O_RDONLY) if sys.platform == "linux" else None
        self._size = self._address_space()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        self._limit = self._size + order.page_memory_bytes + _OWN_BYTES
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (self._limit, resource.getrlimit(resource.RLIMIT_AS)[1]))

    def answer(self, data: bytes, content_type: str | None) -> Reply:
        # When the time runs out the kernel ends this process: nothing handles the signal.
        signal.setitimer(signal.ITIMER_PROF, self._order.page_seconds)
        reply = self._read(data, content_type)
        signal.setitimer(signal.ITIMER_PROF, 0)
        return reply._replace(grown=self._address_space() > self._size + _OWN_BYTES)

    def _address_space(self) -> int:
        """Bytes of this process's address space; 0 where the system does not bound it (only Linux does)."""
        if self._sizes is None:
            return 0
        return int(os.pread(self._sizes, 64, 0).split(None, 1)[0]) * resource.getpagesize()

    def _read(self, data: bytes, content_type: str | None) -> Reply:
        self._lost_memory.seen = False
        title, encoding = None, ""
        try:
            if self._read_book is not None:
                return Reply("", write_book(self._read_book(data)))
            page, encoding = decode_text(data, declared=content_type, html=True, encoding=self._order.encoding)
            text = self._extract(page)
            title = find_title(page)
        except UnicodeDecodeError as undecodable:
            return Reply("bad-encoding", str(undecodable))
        except BookError as problem:
            return Reply(problem.error, str(problem))
        except MemoryError:
            return Reply("extraction-memory", memory_message(self._order))
        except Exception as error:  # noqa: BLE001 (whatever a library makes of a page, the page is to blame)
            if not self._lost_memory.seen and _peak_address_space() <= _NEARLY_ALL * self._limit:
                return Reply("extraction-crashed", f"{type(error).__name__}: {error}"[:500])
            self._lost_memory.seen = True  # libxml2 does not always say that memory is what it lacks
        if self._lost_memory.seen:
            return Reply("extraction-memory", memory_message(self._order))
        if not text or text.isspace():
            return Reply("no-main-content", f"the extractor {self._order.extractor!r} finds none")
        return Reply("", text, title, encoding)


def memory_message(order: Order) -> str:
    """The message to extraction-memory."""
    return f"extraction takes more than {order.page_memory_bytes} bytes of memory"


def _peak_address_space() -> int:
    """The most bytes of address space this process ever had; 0 where the system does not bound it."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/status", "rb") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(b"VmPeak:"))


def main() -> None:
    """Answer requests (content type, bytes of the page) until standard input ends, as it does without a parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the parent, which ends this process
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # What a library prints must not get between the messages.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    pages = int(sys.argv[2])
    worker = _Worker(Order(*marshal.loads(bytes.fromhex(sys.argv[1]))))
    send(replies, "ready")
    while True:
        try:
            content_type, size = receive(requests)
        except EOFError:
            return
        send(replies, tuple(worker.answer(os.pread(pages, size, 0), content_type)))


if __name__ == "__main__":
    main()
