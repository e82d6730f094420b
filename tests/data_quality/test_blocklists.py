"""Lists against plain searches: folded words in a row, folded characters anywhere, labels of hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_quality import blocklists as module
from data_quality.blocklists import Blocklist, ListError, blocklist_columns, host_of, parse_list
from data_quality.judges_config import BlocklistConfig
from data_quality.words import OWN_WORD, SPACE, WORD, character_classes, fold_table, split_words

PIECES = "aAbBſsKk .,-\n\t\u00a0_1é'東京ไทย한\u0301🙂$Ω"
TEXTS = st.text(st.sampled_from(PIECES), max_size=60)
ENTRIES = st.lists(st.text(st.sampled_from(PIECES), min_size=1, max_size=6), min_size=1, max_size=8)


def config(kind: Any, path: str = "list.txt") -> BlocklistConfig:
    return BlocklistConfig(name="x", kind=kind, path=path)


def documents(texts: list[str], urls: list[str | None] | None = None) -> pa.Table:
    return pa.table(
        {
            "text": pa.array(texts, pa.large_string()),
            "url": pa.array(urls if urls is not None else [None] * len(texts), pa.string()),
        }
    )


def a_list(kind: str, entries: list[str]) -> Blocklist | None:
    """The list, or None if none of its lines is an entry."""
    usable = []
    for entry in entries:
        line = " ".join(entry.split("\n")).strip()
        if line and not line.startswith("#") and (kind != "words" or split_words(line)):
            usable.append(line)
    if not usable:
        return None
    return Blocklist(config(kind), parse_list("\n".join(usable).encode(), config(kind)))


# ------------------------------------------------------------------------------------------------ plain searches


def class_of(character: str) -> int:
    return int(character_classes()[ord(character)])


def plain_words(text: str) -> list[tuple[int, int, str]]:
    """(start, end, folded word) of every word, in characters."""
    found: list[tuple[int, int, str]] = []
    running = False
    for i, character in enumerate(text):
        folded = chr(fold_table()[ord(character)])
        if class_of(character) == WORD and running:
            start, _, word = found[-1]
            found[-1] = (start, i + 1, word + folded)
        elif class_of(character) in (WORD, OWN_WORD):
            found.append((i, i + 1, folded))
        running = class_of(character) == WORD
    return found


def in_bytes(text: str, position: int) -> int:
    return len(text[:position].encode())


def plain_by_words(text: str, entries: tuple[str, ...]) -> list[tuple[int, int, str]]:
    words = plain_words(text)
    assert [word for _, _, word in words] == split_words(text)
    found = []
    for entry in entries:
        wanted = entry.split(" ")
        for i in range(len(words) - len(wanted) + 1):
            if [word for _, _, word in words[i : i + len(wanted)]] == wanted:
                found.append((words[i][0], words[i + len(wanted) - 1][1], entry))
    return sorted(found)


def plain_in_text(text: str, entries: tuple[str, ...]) -> list[tuple[int, int, str]]:
    # Symbols with the range of characters behind each: runs of white space are one.
    symbols: list[tuple[str, int, int]] = []
    for i, character in enumerate(text):
        if class_of(character) != SPACE:
            symbols.append((chr(fold_table()[ord(character)]), i, i + 1))
        elif symbols and symbols[-1][0] == " ":
            symbols[-1] = (" ", symbols[-1][1], i + 1)
        else:
            symbols.append((" ", i, i + 1))
    folded = "".join(symbol for symbol, _, _ in symbols)
    found = []
    for entry in entries:
        at = folded.find(entry)
        while at >= 0:
            found.append((symbols[at][1], symbols[at + len(entry) - 1][2], entry))
            at = folded.find(entry, at + 1)
    return sorted(found)


def touched(text: str, found: list[tuple[int, int, str]]) -> float:
    words = plain_words(text)
    hit = sum(any(start < end_ and start_ < end for start_, end_, _ in found) for start, end, _ in words)
    return hit / len(words) if words else 0.0


def check(kind: str, entries: list[str], texts: list[str]) -> None:
    blocklist = a_list(kind, entries)
    if blocklist is None:
        return
    plain = [(plain_by_words if kind == "words" else plain_in_text)(text, blocklist.entries) for text in texts]
    columns = blocklist.columns(documents(texts))
    assert columns["x_hits"].to_pylist() == [len(found) for found in plain]
    shares = [touched(text, found) for text, found in zip(texts, plain, strict=True)]
    assert columns["x_word_share"].to_pylist() == shares
    hits = blocklist.find(pa.array(texts, pa.large_string()))
    places = [
        (row, in_bytes(texts[row], start), in_bytes(texts[row], end), entry)
        for row, found in enumerate(plain)
        for start, end, entry in found
    ]
    assert sorted((hit.row, hit.start, hit.end, hit.entry) for hit in hits) == sorted(places)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["words", "text"]), ENTRIES, st.lists(TEXTS, min_size=1, max_size=4))
@example("words", ["a b", "b a", "a"], ["A, b-a\nB", "", "ab a"])
@example("words", ["東京", "京"], ["東京東京", "東 京"])
@example("text", ["aa", "a", "aaa"], ["aaaa"])
@example("text", ["a b"], ["A \n\t b", "a\u00a0b"])
@example("text", ["$", "b$"], ["ab$b $"])
@example("words", ["K", "ſs"], ["k \u212a sS"])
def test_every_occurrence_is_found_and_nothing_else(kind: str, entries: list[str], texts: list[str]) -> None:
    check(kind, entries, texts)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["words", "text"]), ENTRIES, st.lists(TEXTS, min_size=1, max_size=3))
def test_states_without_rows_of_their_own_lead_to_the_same(kind: str, entries: list[str], texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TABLE_CELLS", 1)
        check(kind, entries, texts)


def test_a_long_list_over_real_words() -> None:
    words = [f"w{i}" for i in range(5000)]
    text = " ".join(words[::7]) + "\n" + " ".join(reversed(words[::11]))
    check("words", [*words[::3], *(f"{a} {b}" for a, b in zip(words[::7], words[7::7], strict=False))], [text])
    check("text", [*words[::50], "7 w1"], [text])


def test_slices_and_chunks_are_read_where_they_begin() -> None:
    blocklist = a_list("words", ["red fox"])
    assert blocklist is not None
    texts = pa.array(["the red fox", "", "red", "fox red fox red fox"], pa.large_string())
    whole = pa.table({"text": texts})
    assert blocklist.columns(whole)["x_hits"].to_pylist() == [1, 0, 0, 2]
    assert blocklist.columns(whole.slice(1, 3))["x_hits"].to_pylist() == [0, 0, 2]
    chunked = pa.table({"text": pa.chunked_array([texts.slice(0, 2), texts.slice(2)])})
    assert blocklist.columns(chunked)["x_hits"].to_pylist() == [1, 0, 0, 2]


# ------------------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    ("url", "hits"),
    [
        ("https://example.org/", 1),
        ("http://www.Example.ORG:8080/a?b", 1),
        ("https://user:pw@a.b.example.org", 1),
        ("https://badexample.org", 0),
        ("https://example.org.evil.com", 0),
        ("https://a.sub.example.net/x", 2),
        ("example.org/path", 1),
        ("https://bücher.example/", 1),
        ("https://xn--bcher-kva.example./", 1),
        ("https://[::1", 0),
        ("not an address", 0),
        (None, None),
    ],
)
def test_domains_match_hosts_and_their_subdomains(url: str | None, hits: int | None) -> None:
    entries = parse_list(b"example.org\n*.example.net\nsub.example.net\nB\xc3\xbccher.example", config("domains"))
    found = Blocklist(config("domains"), entries).columns(documents(["t"], [url]))
    assert found == {"x_hits": pa.array([hits], pa.int64())}


def test_pieces_and_patterns_of_addresses() -> None:
    urls = ["https://a.org/Casino/x", "https://a.org/casinocasino", None, "https://a.org/p?ref=12"]
    pieces = Blocklist(config("urls"), parse_list(b"/casino\nCASINO", config("urls")))
    assert pieces.columns(documents([""] * 4, urls))["x_hits"].to_pylist() == [2, 3, None, 0]
    patterns = Blocklist(config("url-patterns"), parse_list(b"ref=\\d+$\n(?i)/casino", config("url-patterns")))
    assert patterns.columns(documents([""] * 4, urls))["x_hits"].to_pylist() == [1, 1, None, 1]
    with pytest.raises(ValueError, match="no places in a text"):
        patterns.find(pa.array(["a"]))


def test_hosts_of_strange_addresses() -> None:
    assert host_of("HTTPS://WWW.Ex.ORG.") == "www.ex.org"
    assert host_of("https://") is None
    assert host_of("https://" + "a" * 64 + "é.org") is not None  # too long for IDNA: taken as it is


# ------------------------------------------------------------------------------------------------ files


def test_what_a_file_may_hold() -> None:
    data = b"\xef\xbb\xbf# comment\r\nRed  Fox\n\n  red-fox \nC#\n"
    assert parse_list(data, config("words")) == ("c", "red fox")
    assert parse_list(data, config("text")) == ("c#", "red fox", "red-fox")


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("words", b"", "list.txt: it has no entries"),
        ("words", b"# only\n\n", "list.txt: it has no entries"),
        ("words", b"fine\n$$$\n", r"line 2: '\$\$\$' has no letter or digit; a list of kind text"),
        ("words", b"a\nb\n\xff\xfe\n", "line 3: not UTF-8"),
        ("domains", b"ok.org\nhttps://x.org/\n", "line 2: 'https://x.org/' is no host name"),
        ("domains", b"a b\n", "line 1: 'a b' is no host name"),
        ("url-patterns", b"ok\n(unclosed\n", r"line 2: '\(unclosed' is no regular expression"),
    ],
)
def test_lines_that_are_no_entries_are_named(kind: str, data: bytes, message: str) -> None:
    with pytest.raises(ListError, match=message):
        parse_list(data, config(kind))


def test_columns_are_those_announced(tmp_path: Path) -> None:
    for kind in ("words", "text", "domains", "urls", "url-patterns"):
        blocklist = Blocklist(config(kind), parse_list(b"abc.org", config(kind)))
        found = blocklist.columns(documents(["abc.org", ""], ["https://abc.org", None]))
        assert {name: column.type for name, column in found.items()} == blocklist_columns(config(kind))
