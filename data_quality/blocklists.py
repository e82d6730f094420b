"""Lists that the user supplies: how often their words, domains or patterns occur in a document. Nothing is dropped.

What the kinds of lists mean, for every script:

words
    An entry is a word or a phrase by `words.split_words`: folded, so case counts nothing; white space and punctuation
    only separate, so "New-York" is the phrase "new york"; every character of a script without spaces is a word, so
    that 東京 is found inside 東京都. It occurs where the document has the same words in a row.
text
    An entry is a sequence of characters, folded; a run of white space is one space. It occurs anywhere, also inside
    words.
domains
    A host, without case; it matches the host of a document's address and all subdomains: example.org matches
    www.example.org, not badexample.org. International names may be written either way.
urls
    As text, in the document's address.
url-patterns
    A regular expression of Rust's kind (linear time) anywhere in the address, case-sensitive; `(?i)` changes that.

Folding and classes come from our versioned table, combining marks count as characters: texts are compared as they are
normalised (NFC by default), not beyond.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from data_quality import blocklist_kernels as kernels
from data_quality.judges_config import BlocklistConfig
from data_quality.sketch import text_buffers, word_tables
from data_quality.words import CODE_POINTS, SPACE, character_classes, fold_table, split_words

BLOCKLIST_VERSION = 1
"""Raised when the same list gives other values."""

ENTRIES = pa.schema([pa.field("entry", pa.large_string(), nullable=False)])
"""A list as it is stored: its entries in their normal form, sorted, each once."""

_TABLE_CELLS = 1 << 22
_NO_HOST = re.compile(r"[\s/:?#@\[\]]")


class ListError(ValueError):
    """A list that cannot be used; the message names the file and the line."""


class Hit(NamedTuple):
    """One occurrence: the row of the text, the entry, and its bytes in the text's UTF-8 (end exclusive)."""

    row: int
    entry: str
    start: int
    end: int


# ------------------------------------------------------------------------------------------------ reading


def parse_list(data: bytes, config: BlocklistConfig) -> tuple[str, ...]:
    """The entries of a list in their normal form, sorted, each once.

    Parameters
    ----------
    data
        The file: UTF-8, one entry a line; empty lines and lines that begin with # are passed over.
    config
        Its kind, and its name and path for messages.

    Raises
    ------
    ListError
        If the file is not UTF-8, has no entries, or a line is none of the kind; naming the line.
    """
    found: set[str] = set()
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        where = f"blocklist {config.name!r}, {config.path}, line {number}"
        try:
            entry = line.decode().strip()
        except UnicodeDecodeError as error:
            raise ListError(f"{where}: not UTF-8: {error}") from error
        if entry and not entry.startswith("#"):
            found.add(_normal_form(entry, config.kind, where))
    if not found:
        raise ListError(f"blocklist {config.name!r}, {config.path}: it has no entries")
    return tuple(sorted(found))


def _normal_form(entry: str, kind: str, where: str) -> str:
    match kind:
        case "words":
            words = split_words(entry)
            if not words:
                raise ListError(f"{where}: {entry!r} has no letter or digit; a list of kind text finds such")
            return " ".join(words)
        case "text" | "urls":
            return _fold_text(entry)
        case "domains":
            host = normal_host(entry.removeprefix("*.").strip("."))
            if not host or _NO_HOST.search(host):
                raise ListError(f"{where}: {entry!r} is no host name such as example.org")
            return host
        case _:
            try:
                pl.Series([""]).str.contains(entry, strict=True)
            except pl.exceptions.ComputeError as error:
                reason = str(error).strip().splitlines()[-1]
                raise ListError(f"{where}: {entry!r} is no regular expression: {reason}") from error
            return entry


def _fold_text(text: str) -> str:
    classes, folds = character_classes(), fold_table()
    folded = "".join(" " if classes[ord(c)] == SPACE else chr(folds[ord(c)]) for c in text)
    return re.sub(" +", " ", folded)


@lru_cache(maxsize=1 << 16)
def normal_host(host: str) -> str:
    """A host in lower case and ASCII (Punycode by Python's IDNA codec, which is frozen at Unicode 3.2)."""
    host = host.rstrip(".")
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            return host
    return host.lower()


def host_of(url: str) -> str | None:
    """The normal form of the host of an address; None if it has none."""
    try:
        host = urlsplit(url if "//" in url else f"//{url}").hostname
    except ValueError:
        return None
    return normal_host(host) if host else None


def blocklist_columns(config: BlocklistConfig) -> dict[str, pa.DataType]:
    """The columns that a list gives, with their types."""
    columns = {f"{config.name}_hits": pa.int64()}
    if config.kind in ("words", "text"):
        columns[f"{config.name}_word_share"] = pa.float64()
    return columns


# ------------------------------------------------------------------------------------------------ matching


class Blocklist:
    """A list ready to be looked for.

    Parameters
    ----------
    config
        Its name and kind.
    entries
        In their normal form, as `parse_list` gives them.
    """

    def __init__(self, config: BlocklistConfig, entries: Sequence[str]) -> None:
        self.config = config
        self.entries = tuple(entries)
        self._automaton: Automaton | None = None
        if config.kind in ("words", "text", "urls"):
            self._automaton = Automaton(self.entries, by_words=config.kind == "words")
        self._hosts = frozenset(self.entries) if config.kind == "domains" else frozenset()

    def columns(self, documents: pa.Table) -> dict[str, pa.Array]:
        """The columns of `blocklist_columns` for documents (column `text` or `url` is read), row for row.

        NAME_hits counts occurrences (of words and text: at every place, so overlapping ones too; of domains and
        url-patterns: entries that match); it is null where a list of addresses meets a document without one.
        NAME_word_share is the share of the document's words that an occurrence touches; 0 without words.
        """
        name, kind = self.config.name, self.config.kind
        if kind in ("words", "text"):
            assert self._automaton is not None
            counts = self._automaton.count(documents.column("text"))
            share = np.divide(counts[:, 1], counts[:, 2], out=np.zeros(len(counts)), where=counts[:, 2] > 0)
            return {f"{name}_hits": pa.array(counts[:, 0].copy()), f"{name}_word_share": pa.array(share)}
        urls = documents.column("url")
        missing = urls.is_null().combine_chunks().to_numpy(zero_copy_only=False)
        if kind == "urls":
            assert self._automaton is not None
            counted = self._automaton.count(urls)[:, 0].copy()
        elif kind == "domains":
            counted = self._count_domains(urls)
        else:
            series = pl.Series(pl.from_arrow(urls)).cast(pl.String)
            flags = [series.str.contains(entry, strict=True).cast(pl.Int64) for entry in self.entries]
            counted = pl.DataFrame({str(i): flag for i, flag in enumerate(flags)}).sum_horizontal().to_numpy()
        return {f"{name}_hits": pa.array(counted, pa.int64(), mask=missing)}

    def find(self, texts: pa.LargeStringArray | pa.ChunkedArray) -> list[Hit]:
        """Every occurrence in texts, for lists of kind words, text and urls; to show people, not for whole corpora."""
        if self._automaton is None:
            raise ValueError(f"a list of kind {self.config.kind} has no places in a text")
        found = self._automaton.find(texts)
        return [Hit(row, self.entries[entry], start, end) for row, entry, start, end in found.tolist()]

    def _count_domains(self, urls: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        encoded = urls.combine_chunks().dictionary_encode()
        counts = np.array([self._matching(url) for url in encoded.dictionary.to_pylist()] + [0], dtype=np.int64)
        indices = encoded.indices.fill_null(len(counts) - 1).to_numpy()
        found: npt.NDArray[np.int64] = counts[indices]
        return found

    def _matching(self, url: str) -> int:
        host = host_of(url)
        if host is None:
            return 0
        labels = host.split(".")
        return sum(".".join(labels[i:]) in self._hosts for i in range(len(labels)))


class Automaton:
    """Aho-Corasick over words or characters, built from entries in their normal form.

    Parameters
    ----------
    entries
        Not empty, all different.
    by_words
        Whether an entry is words between spaces, found as whole words, or characters, found anywhere.
    """

    def __init__(self, entries: Sequence[str], by_words: bool) -> None:
        self._symbols: tuple[npt.NDArray[Any], ...]
        if by_words:
            symbols, bounds, alphabet = self._words_as_symbols(entries)
        else:
            symbols, bounds, alphabet = self._characters_as_symbols(entries)
        if symbols.size >= np.iinfo(np.int32).max:
            raise ValueError(f"a list of {symbols.size:,} symbols is too long: give it as several lists")
        self._by_words = by_words
        self._tables = _build(symbols, bounds, alphabet)

    def count(self, texts: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """int64[texts, 3]: occurrences, words that an occurrence touches, words; a null is an empty text."""
        return self._match(texts, np.empty((0, 4), dtype=np.int64))[0]

    def find(self, texts: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """int64[occurrences, 4]: text, entry, first byte, byte after the last; in order of where they end."""
        hits = np.empty((0, 4), dtype=np.int64)
        _, total = self._match(texts, hits)
        hits = np.empty((total, 4), dtype=np.int64)
        self._match(texts, hits)
        return hits

    def _match(
        self, texts: pa.Array | pa.ChunkedArray, hits: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], int]:
        data, offsets = text_buffers(texts)
        counts = np.zeros((offsets.size - 1, 3), dtype=np.int64)
        if self._by_words:
            arrays: tuple[Any, ...] = (data, offsets, *word_tables(), *self._symbols, *self._tables, counts, hits)
            return counts, int(kernels.match_words(*arrays))
        arrays = (data, offsets, *self._symbols, *self._tables, counts, hits)
        return counts, int(kernels.match_text(*arrays))

    def _words_as_symbols(self, entries: Sequence[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], int]:
        written = [entry.split(" ") for entry in entries]
        numbers: dict[str, int] = {}
        symbols = np.array(
            [numbers.setdefault(word, len(numbers) + 1) for words in written for word in words], dtype=np.int32
        )
        codes = (np.frombuffer(word.encode("utf-32-le"), dtype=np.uint32) for word in numbers)
        hashes = np.array([int(kernels.hash_word(found)) for found in codes], dtype=np.uint64)
        keys, known = np.empty(_slots(hashes.size), dtype=np.uint64), np.zeros(_slots(hashes.size), dtype=np.int32)
        kernels.number_words(hashes, keys, known)
        self._symbols = (keys, known)
        return symbols, _bounds(written), len(numbers) + 1

    def _characters_as_symbols(
        self, entries: Sequence[str]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], int]:
        codes = np.frombuffer("".join(entries).encode("utf-32-le"), dtype=np.uint32)
        known = np.unique(codes[codes != ord(" ")])
        numbers = np.zeros(CODE_POINTS, dtype=np.int32)
        numbers[known] = np.arange(kernels.WHITE + 1, kernels.WHITE + 1 + known.size)
        numbers[ord(" ")] = kernels.WHITE
        classes = character_classes()
        every = numbers[fold_table()]
        every[classes == SPACE] = kernels.WHITE
        self._symbols = (4 * every + classes.astype(np.int32),)
        return numbers[codes], _bounds(entries), kernels.WHITE + 1 + known.size


def _build(
    symbols: npt.NDArray[np.int32], bounds: npt.NDArray[np.int64], alphabet: int
) -> tuple[npt.NDArray[Any], ...]:
    """The arrays of an automaton in the order in which the kernels take them: table, keys … reach."""
    room = symbols.size + 1
    keys, targets = np.empty(_slots(symbols.size), dtype=np.uint64), np.zeros(_slots(symbols.size), dtype=np.int32)
    parent, by, depth, entry = (np.zeros(room, dtype=np.int32) for _ in range(4))
    states = kernels.build_trie(symbols, bounds, keys, targets, parent, by, depth, entry)
    order = np.argsort(depth[:states], kind="stable")  # breadth first: parents before children
    place = np.empty(states, dtype=np.int32)
    place[order] = np.arange(states, dtype=np.int32)
    parent, by, depth, entry = place[parent[order]], by[order], depth[order], entry[order]
    parent[0] = -1
    table = np.empty((min(states, max(1, _TABLE_CELLS // alphabet)), alphabet), dtype=np.int32)
    fail, reach = np.zeros(states, dtype=np.int32), np.zeros(states, dtype=np.int32)
    kernels.link(parent, by, depth, entry, keys, targets, table, fail, reach)
    return table, keys, targets, fail, depth, entry, reach


def _bounds(entries: Sequence[Sequence[str]]) -> npt.NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum([len(entry) for entry in entries]))).astype(np.int64)


def _slots(items: int) -> int:
    """A power of two of slots of a hash table, at most half full."""
    return 1 << max(4, int(2 * items - 1).bit_length())
