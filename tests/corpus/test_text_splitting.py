"""Text files with several documents: lines, paragraphs, separators, in any encoding."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import SourceConfig
from corpus.sources import BadRecord
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
    import re

    from corpus.formats.text import split_text

    mark = {"==+": "===="}.get(separator, separator)
    data = mark.join(pieces).encode()
    expected = [piece for piece in re.split(separator, data.decode()) if piece]
    for size in (1, 3, 1000):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        found = [text for text, _, _ in split_text(chunks, "utf-8", re.compile(separator), 1 << 20) if text]
        assert found == expected
