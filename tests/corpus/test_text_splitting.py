"""Text files with several documents: lines, paragraphs, separators, in any encoding."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import SourceConfig
from corpus.formats.text import split_text
from corpus.sources import BadRecord, Cursor, open_source
from tests.corpus.reading import check_resuming, kinds, read, texts


def test_real_files_by_line(tmp_path: Path, shared_data: Path) -> None:
    for name, number in (("wikipedia_en_30_articles", 30), ("zh_news_sentences_msra", 29999)):
        path = tmp_path / name
        path.mkdir()
        (path / "a.txt.gz").write_bytes((shared_data / "text" / f"{name}.txt.gz").read_bytes())
        found = read("text", path, split_by="line")
        assert kinds(found) == [""] * number
    check_resuming("text", tmp_path / "wikipedia_en_30_articles", 7, split_by="line")


def test_a_few_bytes_of_another_encoding_cost_their_lines_or_are_detected(tmp_path: Path, shared_data: Path) -> None:
    packed = (shared_data / "text" / "abc_news_2006" / "science.txt.gz").read_bytes()
    (tmp_path / "a.txt.gz").write_bytes(packed)
    lines = [line for line in gzip.decompress(packed).split(b"\n") if line.strip()]

    def undecodable(line: bytes) -> bool:
        try:
            line.decode()
        except UnicodeDecodeError:
            return True
        return False

    found = read("text", tmp_path, split_by="line")
    assert kinds(found) == ["bad-utf8" if undecodable(line) else "" for line in lines]
    assert 0 < kinds(found).count("bad-utf8") < 100
    [whole] = read("text", tmp_path)
    assert isinstance(whole, BadRecord)
    assert "encoding: detect" in whole.message
    assert set(kinds(read("text", tmp_path, encoding="latin-1"))) == {""}


def test_paragraphs_and_separators(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\ntwo\r\n\r\n  \n\nthree\n\n")
    assert [t.split() for t in texts(read("text", tmp_path, split_by="blank-line"))] == [["one", "two"], ["three"]]
    check_resuming("text", tmp_path, split_by="blank-line")
    (tmp_path / "a.txt").write_bytes(b"one\n===\ntwo\n=====\n\n====\nthree\xff\n===\nfour")
    found = read("text", tmp_path, split_by="separator", separator=r"\n={3,}\n")
    assert kinds(found) == ["", "", "bad-utf8", ""]
    assert texts(found) == ["one", "two", "four"]


def test_long_records_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("short\n" + "x" * 500_000 + "\n\nnext\n" + "y\n" * 200 + "\nlast")
    assert kinds(read("text", tmp_path, 100, split_by="line"))[:3] == ["", "too-long", ""]
    assert kinds(read("text", tmp_path, 100, split_by="blank-line")) == ["too-long", "too-long", ""]
    assert kinds(read("text", tmp_path, 100, split_by="separator", separator="\n\n")) == ["too-long", "too-long", ""]


@pytest.mark.parametrize("split_by", ["line", "blank-line"])
def test_other_encodings(tmp_path: Path, split_by: str) -> None:
    text = "\n\n".join(f"Zeile {number}: sch\u00f6ne Gr\u00fc\u00dfe" for number in range(50))
    for encoding, setting in (("utf-16", ""), ("cp1252", "cp1252"), ("cp1252", "detect"), ("utf-8", "detect")):
        (tmp_path / "a.txt").write_bytes(text.encode(encoding))
        found = read("text", tmp_path, split_by=split_by, encoding=setting)
        assert texts(found) == text.split("\n\n")
        check_resuming("text", tmp_path, 11, split_by=split_by, encoding=setting)


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="needs a separator"):
        SourceConfig(name="s", kind="text", path="x", split_by="separator")
    with pytest.raises(ValueError, match="'s', separator: '\\('"):
        read("text", "/", split_by="separator", separator="(")
    with pytest.raises(ValueError, match="matches the empty text"):
        read("text", "/", split_by="separator", separator="x*")


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=8), max_size=8),
    separator=st.sampled_from(["--", "\u4e2d", "==+"]),
)
def test_separators_are_found_wherever_chunks_end(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], separator: str
) -> None:
    mark = {"==+": "===="}.get(separator, separator)
    data = mark.join(pieces).encode()
    expected = [piece for piece in re.split(separator, data.decode()) if piece]
    for size in (1, 3, 1000):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        found = [text for text, _, _ in split_text(chunks, "utf-8", re.compile(separator), 1 << 20) if text]
        assert found == expected


@settings(max_examples=40, deadline=None)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=5),
    codec=st.sampled_from(["utf-8", "gb18030", "utf-16", "iso2022_jp_2004"]),
)
def test_damage_of_a_real_file_costs_the_lines_it_touches(
    tmp_path_factory: pytest.TempPathFactory, shared_data: Path, edits: list[tuple[float, int]], codec: str
) -> None:
    whole = gzip.decompress((shared_data / "text" / "zh_news_sentences_msra.txt.gz").read_bytes()).decode()
    lines = ["".join(line.encode(codec, "ignore").decode(codec)) for line in whole.split("\n")[:200]]
    data = bytearray("\n".join(lines).encode(codec))
    borders = [len("\n".join(lines[:number]).encode(codec)) for number in range(201)]
    touched = set()
    for place, value in edits:
        at = 2 + int(place * (len(data) - 2))
        data[at] = value
        number = sum(border <= at for border in borders) - 1
        touched |= {number - 1, number, number + 1}
    path = tmp_path_factory.mktemp("text")
    (path / "a.txt").write_bytes(data)
    found = read("text", path, split_by="line", encoding="" if codec in ("utf-8", "utf-16") else codec)
    assert [record.record for record in found] == list(range(len(found)))
    good = iter(texts(found))
    for number, line in enumerate(lines):
        assert number in touched or not line or line in good


def test_what_a_separator_finds_does_not_depend_on_chunks(shared_data: Path) -> None:
    data = gzip.decompress((shared_data / "text" / "tinyshakespeare.txt.gz").read_bytes())[:60_000]
    for pattern in (r"\n\n(?=[A-Z][A-Z]+:)", r"(?<=[.!?])\n", r"(?m)^[A-Z ]+:$\n", r"\bthe\b(?! king)", r"\A.*?\n"):
        separator = re.compile(pattern)
        expected = [piece for piece in separator.split(data.decode()) if piece]
        assert len("".join(expected)) < len(data.decode())
        for size in (1000, 5000, 20_000):
            chunks = [data[at : at + size] for at in range(0, len(data), size)]
            assert [text for text, _, _ in split_text(chunks, "utf-8", separator, 1 << 20) if text] == expected


def test_a_cut_stream_gives_the_pieces_before_the_cut_and_one_bad_tail(tmp_path: Path) -> None:
    text = "".join(f"piece {number} {'x' * (number * 7919 % 50)}\n\n" for number in range(3000))
    packed = gzip.compress(text.encode(), mtime=0)
    (tmp_path / "a.txt.gz").write_bytes(packed[: len(packed) // 2])
    for options in ({"split_by": "line"}, {"split_by": "blank-line"}, {"split_by": "separator", "separator": "\n\n"}):
        found = read("text", tmp_path, **options)
        good = len(found) - 1
        assert kinds(found) == [""] * good + ["broken-stream"]
        assert texts(found) == text.split("\n\n")[:good]
        assert good > 500


@pytest.mark.parametrize("split_by", ["line", "blank-line"])
def test_ranges_of_bytes_give_every_record_once(tmp_path: Path, split_by: str) -> None:
    (tmp_path / "a.txt").write_text("".join(f"line {n}\n" + "\n" * (n % 3) for n in range(60)))
    config = SourceConfig(name="s", kind="text", path=str(tmp_path), split_by=split_by)  # type: ignore[arg-type]
    source = open_source(config)
    [file] = source.inventory()
    cursor, whole = Cursor(), []
    places = [Cursor()]
    for found in source.records(file, cursor=cursor):
        whole.append(found)
        places.append(Cursor(record=cursor.record, offset=cursor.offset))
    first, second = places[len(whole) // 3], places[2 * len(whole) // 3]
    parts = []
    for begin, end in ((Cursor(), first.offset), (first, second.offset), (second, None)):
        begin.stop = end
        parts += list(source.records(file, cursor=begin))
    assert parts == whole
