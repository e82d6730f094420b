"""CSV and TSV: rows as they are meant, and a stray quote or a bad byte costs one line."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.sources import BadRecord, Record
from tests.corpus.reading import kinds, read, texts


def put(folder: Path, data: bytes, name: str = "a.csv") -> Path:
    (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("file", "settings", "rows"),
    [
        ("ag_news/test.csv.gz", {"header": False, "text_field": "2", "meta_fields": ("0", "1")}, 7600),
        ("chnsenticorp_htl_all.csv.gz", {"text_field": "review", "meta_fields": ("label",)}, 7766),
        ("zh_online_shopping_part.csv.gz", {"text_field": "review", "meta_fields": ("cat", "label")}, 31248),
        ("sst2/dev.tsv.gz", {"header": False, "text_field": "0", "meta_fields": ("1",)}, 872),
        ("sst2/train.tsv.gz", {"header": False, "text_field": "0", "meta_fields": ("1",)}, 6920),
    ],
)
def test_real_tables_have_their_rows(
    tmp_path: Path, shared_data: Path, file: str, settings: dict[str, object], rows: int
) -> None:
    packed = (shared_data / "classification" / file).read_bytes()
    (tmp_path / Path(file).name).write_bytes(packed)
    found = read("csv", tmp_path, **settings)
    assert len(found) == rows
    lines = io.StringIO(gzip.decompress(packed).decode("utf-8-sig"), newline="")
    whole = list(csv.reader(lines, delimiter="\t" if ".tsv" in file else ","))
    column = whole.pop(0).index("review") if "review" in str(settings) else int(str(settings["text_field"]))
    expected = [row[column] for row in whole]
    assert [r.text if isinstance(r, Record) else "" for r in found] == [t if t.strip() else "" for t in expected]


def test_quotes_hold_delimiters_line_ends_and_quotes(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbfid,text,url,date\r\n1,"a, ""b""\r\nc",http://x,2024\r\n\r\n2,plain,,\r\n3," ",,\r\n4,\\N,,\r\n'
    found = read("csv", put(tmp_path, data), meta_fields=("id",))
    assert found[0] == Record(0, 'a, "b"\r\nc', "http://x", "2024", {"id": "1"})
    assert found[1] == Record(1, "plain", None, None, {"id": "2"})
    assert kinds(found[2:]) == ["empty-text", "missing-text"]


def test_a_stray_quote_costs_one_line(tmp_path: Path) -> None:
    rows = [f"{number},text {number}" for number in range(50)]
    rows[10] = '10,"never closed'
    rows[30] = '30,an"other'
    found = read("csv", put(tmp_path, ("id,text\n" + "\n".join(rows)).encode()))
    assert [r.record for r in found] == list(range(50))
    assert kinds(found) == ["bad-row" if number == 10 else "" for number in range(50)]
    assert texts(found)[29] == 'an"other'  # inside a field it is a character like others


def test_rows_of_another_width_bad_bytes_and_long_lines_are_put_aside_alone(tmp_path: Path) -> None:
    data = b"id,text\n1,a\n2\n3,b,c\n4,caf\xe9\n5," + b"x" * 500 + b"\n6,last"
    found = read("csv", put(tmp_path, data), max_record_bytes=100)
    assert kinds(found) == ["", "bad-row", "bad-row", "bad-utf8", "too-long", ""]
    assert isinstance(found[3], BadRecord)
    assert "encoding: detect" in found[3].message


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-32", "gb18030"])
def test_other_encodings_by_name_mark_or_detection(tmp_path: Path, encoding: str) -> None:
    text = (
        "Les \u00e9l\u00e8ves fran\u00e7ais \u00e0 la for\u00eat o\u00f9 est No\u00ebl"
        if encoding != "gb18030"
        else "\u4e2d\u6587\u6587\u672c\u7684\u4e00\u4e2a\u4f8b\u5b50"
    )
    table = "id,text\n" + "".join(f"{number},{text} {number}\n" for number in range(100))
    put(tmp_path, table.encode(encoding))
    named = {} if encoding.startswith("utf") else {"encoding": encoding}
    assert texts(read("csv", tmp_path, **named)) == [f"{text} {number}" for number in range(100)]
    if encoding in ("utf-16", "gb18030"):
        assert texts(read("csv", tmp_path, encoding="detect"))[5] == f"{text} 5"
    with pytest.raises(ValueError, match="'s', encoding: there is no encoding 'utf-9'"):
        read("csv", tmp_path, encoding="utf-9")


def test_without_quotes_between_tabs_a_quote_is_a_character(tmp_path: Path) -> None:
    data = b'"Hello," he said\t1\n"open\t2\n"whole, quoted"\t3\nplain\t4\n"too\tmany\tfields\n'
    found = read("csv", put(tmp_path, data, "a.tsv"), header=False, text_field="0")
    assert texts(found) == ['"Hello," he said', '"open', "whole, quoted", "plain"]
    assert kinds(found)[4:] == ["bad-row"]


def test_a_bad_first_row_costs_itself_where_there_is_no_header_and_a_bad_delimiter_is_refused(tmp_path: Path) -> None:
    put(tmp_path, b"caf\xe9,0\nb,1\nc,2\n")
    found = read("csv", tmp_path, header=False, text_field="0")
    assert kinds(found) == ["bad-utf8", "", ""]
    assert texts(read("csv", put(tmp_path, b"text,caf\xe9\na,1\n"))) == ["a"]
    with pytest.raises(ValueError, match="'s', delimiter"):
        read("csv", tmp_path, delimiter='"')


def test_the_first_row_must_have_the_column(tmp_path: Path) -> None:
    [found] = read("csv", put(tmp_path, b"id,body\n1,a\n2,b\n"))
    assert isinstance(found, BadRecord)
    assert found.error == "missing-column"
    assert "id, body" in found.message
    assert read("csv", put(tmp_path, b"")) == []


def test_tabs_by_name_delimiters_by_setting_and_a_cut_stream(tmp_path: Path) -> None:
    packed = gzip.compress("".join(f"{n}\ttext {n} {'y' * (n % 7)}\n" for n in range(5000)).encode(), mtime=0)
    put(tmp_path, packed[: len(packed) // 2], "a.tab.gz")
    found = read("csv", tmp_path, header=False, text_field="1")
    assert kinds(found) == [""] * (len(found) - 1) + ["broken-stream"]
    assert len(found) > 500
    (tmp_path / "a.tab.gz").unlink()
    put(tmp_path, b"a;b\n1;x\n")
    assert texts(read("csv", tmp_path, delimiter=";", text_field="b")) == ["x"]


@settings(max_examples=80, deadline=None)
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_of_a_real_file_costs_the_rows_it_touches(
    tmp_path_factory: pytest.TempPathFactory, shared_data: Path, edits: list[tuple[float, int]]
) -> None:
    lines = gzip.decompress((shared_data / "classification" / "ag_news" / "test.csv.gz").read_bytes()).split(b"\n")[
        :200
    ]
    data = bytearray(b"\n".join(lines) + b"\n")
    touched = set()
    for place, value in edits:
        at = len(lines[0]) + 1 + int(place * (len(data) - len(lines[0]) - 2))
        number = bytes(data).count(b"\n", 0, at) if data[at] != 10 else -1
        if number < 0 or value == 10:
            continue  # line ends stay, so that lines are still those of the original
        data[at] = value
        touched.add(number)
    folder = put(tmp_path_factory.mktemp("csv"), bytes(data))
    found = read("csv", folder, header=False, text_field="2")
    assert [record.record for record in found] == list(range(len(found)))
    good = iter(texts(found))
    for number, row in enumerate(csv.reader(line.decode() for line in lines)):
        assert number in touched or row[2] in good


FIELD = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(FIELD, FIELD), max_size=12), end=st.sampled_from(["\n", "\r\n"]))
def test_what_a_csv_writer_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], end: str
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("k", "text"), *rows])
    folder = put(tmp_path_factory.mktemp("csv"), out.getvalue().encode())
    found = read("csv", folder)
    expected = [text if text and not text.isspace() and text != "\\N" else "" for _, text in rows]
    assert [r.text if isinstance(r, Record) else "" for r in found] == expected


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300), cut=st.integers(0, 200))
def test_any_bytes_give_numbered_records_and_never_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int
) -> None:
    rows = b"".join(b'%d,"text, %d"\n' % (number, number) for number in range(20))
    folder = put(tmp_path_factory.mktemp("csv"), b"id,text\n" + rows[:cut] + data + b"\n" + rows)
    found = read("csv", folder)
    assert [r.record for r in found] == list(range(len(found)))
    if b'"' not in data and rows[:cut].count(b'"') % 2 == 0:
        assert texts(found)[-20:] == [f"text, {number}" for number in range(20)]
