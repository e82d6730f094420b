"""JSON of any layout: every element is found whatever stands around it, and a bad one costs itself."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import SourceConfig
from corpus.formats.json_array import JsonArrays
from corpus.sources import BadRecord, Cursor, Found, Record
from corpus.sources.base import Selection
from corpus.sources.streams import Content
from tests.corpus.reading import check_resuming, kinds, read, texts


def test_real_files_of_several_layouts(tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "blns.json").write_bytes((shared_data / "encoding" / "blns.json").read_bytes())
    found = read("json", tmp_path)
    expected = json.loads((tmp_path / "blns.json").read_text())
    assert len(found) == len(expected) == 515
    assert [r.text if isinstance(r, Record) else r.error for r in found] == [
        text if text and not text.isspace() else "empty-text" for text in expected
    ]
    squad = shared_data / "qa" / "xquad.en.part36.json.gz"
    (tmp_path / "blns.json").unlink()
    (tmp_path / "squad.json.gz").write_bytes(squad.read_bytes())
    data = json.loads(gzip.decompress(squad.read_bytes()))
    contexts = [paragraph["context"] for article in data["data"] for paragraph in article["paragraphs"]]
    assert texts(read("json", tmp_path, records_field="data.paragraphs", text_field="context")) == contexts
    assert len(contexts) == 180
    check_resuming("json", tmp_path, 60, records_field="data.paragraphs", text_field="context")
    packed = (shared_data / "qa" / "cmrc2018_dev.json.gz").read_bytes()
    (tmp_path / "squad.json.gz").write_bytes(packed)
    data = json.loads(gzip.decompress(packed))
    contexts = [paragraph["context"] for article in data["data"] for paragraph in article["paragraphs"]]
    assert texts(read("json", tmp_path, records_field="data.paragraphs", text_field="context")) == contexts
    assert len(contexts) == 848


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'[{"text": "a"}, {"text": "b"}]', ["", ""]),
        (b'\xef\xbb\xbf \n[\n{"text": "a"},\n{"text": "b"}\n]\n', ["", ""]),
        (b'{"text": "a", "deep": {"text": "no record"}}', [""]),
        (b'{"text": "a"}\n{"text": "b"} {"text": "c"}', ["", "", ""]),
        (b'[{"text": "a"}] [{"text": "b"}]', ["", ""]),
        (b"[]", []),
        (b"", []),
        (b" \n", []),
        (b'["a", "", 5, null, [1], {"x": 1}]', ["", "empty-text", *["not-an-object"] * 3, "missing-text"]),
        (b'[{"text": "a"}, {"text": nope}, {"text": "c"}]', ["", "bad-json", ""]),
        (b'[{"text": "a"}, {"text": "caf\xe9"}, {"text": "c"}]', ["", "bad-utf8", ""]),
        (b'[{"text": "a"} {"text": "b"}]', ["", "bad-json", ""]),
        (b'[{"text": "a"}, {"text": "b', ["", "bad-json"]),
        (b"not json at all", ["bad-json"]),
        (b'garbage {"text": "a"} more {"text": "b"}', ["bad-json", "", "bad-json", ""]),
        (b'[{"text": "a}, {"text": "b"}, {"text": "c"}]', ["bad-json", "", ""]),
        (b'[{"text": "a", {"text": "b"}, {"text": "c"}]', ["bad-json", "", ""]),
        (b'[{"text": "a"}}, {"text": "b"}]', ["", "bad-json", ""]),
        (b'[{"text": "a"}', ["", "bad-json"]),
        (b'[{"text": "' + b"x" * 300, ["too-long"]),
        (b'[{"text": "a"}, {"text": "' + b"x" * 500 + b'}, {"text": "b"}, {"text": "c"}]', ["", "too-long"]),
        (b'[{"text": "a}, {"text": "b' + b"x" * 500 + b'"}, {"text": "c"}]', ["bad-json", "too-long", ""]),
        (b'[{"text": "a"}, {"text: "b"}, {"text": "c"}]', ["", "bad-json", ""]),
        (b'[\n  {"text": "a"},\n  {"text": "b,\n  {"text": "c"},\n  {"text": "d"}\n]', ["", "bad-json", "", ""]),
        (b'[{"text": "' + b"x" * 300 + b'"}, {"text": "b"}]', ["too-long", ""]),
        (b'[{"text": "\\\\"}, {"text": "\\""}, {"text": "[{"}]', ["", "", ""]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("chunk", [1, 7, 1 << 18])
def test_layouts_and_damage(data: bytes, expected: list[str], chunk: int) -> None:
    assert kinds(scan(data, chunk)) == expected


class Pieces(Content):
    """Content that comes in small chunks."""

    def __init__(self, data: bytes, size: int, broken: str = "") -> None:
        self._pieces_of = [data[at : at + size] for at in range(0, len(data), size)]
        self._broken_at_end = broken
        self.name, self.broken = "", ""

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield from self._pieces_of
        self.broken = self._broken_at_end


def scan(data: bytes, chunk: int, broken: str = "", **options: str) -> list[Found]:
    config = SourceConfig(name="s", kind="json", path="x", **options)  # type: ignore[arg-type]
    selection = Selection(config, "x", Cursor(), resumable=False)
    return list(JsonArrays(config, 200).records(Pieces(data, chunk, broken), selection))


@pytest.mark.parametrize("chunk", [3, 1 << 18])
def test_damage_around_records_deep_inside_costs_what_stands_there(chunk: int) -> None:
    articles = [{"title": f"t{a}", "paragraphs": [{"text": f"{a}.{p}"} for p in range(3)]} for a in range(4)]
    data = json.dumps({"version": 1, "data": articles, "end": [[{"paragraphs": 5}]]}).encode()
    options = {"records_field": "data.paragraphs"}
    whole = [f"{a}.{p}" for a in range(4) for p in range(3)]
    assert texts(scan(data, chunk, **options)) == whole
    found = scan(data.replace(b'"title": "t1",', b'"title" "t1",'), chunk, **options)
    assert kinds(found) == [""] * 3 + ["bad-json"] + [""] * 6
    assert texts(found) == [text for text in whole if not text.startswith("1.")]
    found = scan(data.replace(b'{"text": "2.1"}', b'{"text": "2.1}'), chunk, **options)
    assert texts(found) == [text for text in whole if text != "2.1"]
    found = scan(data.replace(b'"version": 1', b'"version": "1'), chunk, **options)
    assert kinds(found)[0] == "bad-json"


def test_a_record_may_be_one_object_deep_inside() -> None:
    assert texts(scan(b'{"a": {"b": {"text": "x"}}}', 5, records_field="a.b")) == ["x"]
    assert scan(b'{"a": {"c": {"text": "x"}}}', 5, records_field="a.b") == []
    with pytest.raises(ValueError, match=r"'s', records_field: 'a\.\.b'"):
        scan(b"", 5, records_field="a..b")


def test_a_file_of_any_size_is_read_in_bounded_memory() -> None:
    import tracemalloc

    def pieces() -> Iterator[bytes]:
        yield b'{"skipped": "' + b"y" * 100
        yield from [b"x" * (1 << 16)] * 500
        yield b'", "rows": ['
        for number in range(3000):
            yield b'{"text": "%d %s"},\n' % (number, b"z" * 10_000)
        yield b'{"text": "'
        yield from [b"x" * (1 << 16)] * 500
        yield b'"}, {"text": "last"}]}'

    content = Pieces(b"", 1)
    content._pieces_of = pieces()  # type: ignore[assignment]
    config = SourceConfig(name="s", kind="json", path="x", records_field="rows")
    selection = Selection(config, "x", Cursor(), resumable=False)
    tracemalloc.start()
    seen = [kinds([found])[0] for found in JsonArrays(config, 1 << 20).records(content, selection)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == [""] * 3000 + ["too-long", ""]
    assert peak < 20 << 20  # orjson takes twelve times what it parses


def test_a_broken_stream_gives_what_came_before_it() -> None:
    found = scan(b'[{"text": "a"}, {"text": "b"}, {"te', 5, broken="truncated")
    assert kinds(found) == ["", "", "broken-stream"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.fixed_dictionaries({"text": st.text(min_size=1, max_size=20), "x": VALUES}), max_size=8),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    chunk=st.integers(1, 60),
    deep=st.booleans(),
)
def test_every_element_is_found_however_it_is_written(
    rows: list[dict[str, object]], indent: int | None, ascii_only: bool, chunk: int, deep: bool
) -> None:
    value: object = {"a": [{"b": rows[:3], "c": {"b": 5}}, {"b": rows[3:]}], "b": ["x"]} if deep else rows
    data = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    config = {"records_field": "a.b"} if deep else {}
    found = scan_large(data, chunk, **config)
    assert [r.text for r in found if isinstance(r, Record)] == [r["text"] for r in rows if not str(r["text"]).isspace()]
    assert len(found) == len(rows)


def scan_large(data: bytes, chunk: int, **options: str) -> list[Found]:
    config = SourceConfig(name="s", kind="json", path="x", **options)  # type: ignore[arg-type]
    selection = Selection(config, "x", Cursor(), resumable=False)
    return list(JsonArrays(config, 1 << 20).records(Pieces(data, chunk), selection))


@settings(max_examples=150, deadline=None)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.floats(0.1, 1),
)
def test_damage_never_raises_and_elements_on_other_lines_survive(edits: list[tuple[float, int]], cut: float) -> None:
    rows = [{"text": f"document {number} with (brackets) and more"} for number in range(40)]
    data = bytearray(b"[\n" + b",\n".join(json.dumps(row).encode() for row in rows) + b"\n]\n")
    touched = set()
    for place, value in edits:
        at = int(place * len(data))
        data[at] = value
        touched.add(data.count(b"\n", 0, at))
    found = scan_large(bytes(data[: int(cut * len(data))]), 64)
    assert [r.record for r in found] == list(range(len(found)))
    whole = int(cut * len(data)) == len(data)
    if whole and all(0x20 < value < 0x7F and chr(value).isalnum() for _, value in edits):
        lost = 40 - sum(isinstance(r, Record) for r in found)
        assert lost <= 2 * len(touched) + 1
        assert any(isinstance(r, BadRecord) for r in found) or lost == 0


@settings(max_examples=80, deadline=None)
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3))
def test_damage_of_a_real_file_costs_the_elements_it_touches(shared_data: Path, edits: list[tuple[float, int]]) -> None:
    rows = json.loads(gzip.decompress((shared_data / "instructions" / "alpaca_en_800.json.gz").read_bytes()))[:60]
    elements = [json.dumps(row, indent=2, ensure_ascii=False).replace("\n", "\n  ").encode() for row in rows]
    begins = [4]
    for element in elements:
        begins.append(begins[-1] + len(element) + 4)
    data = bytearray(b"[\n  " + b",\n  ".join(elements) + b"\n]\n")
    touched = set()
    for place, value in edits:
        at = 4 + int(place * (len(data) - 8))
        data[at] = value
        number = sum(begin <= at for begin in begins) - 1
        # What stands between two elements belongs to both.
        touched |= {number, number + 1} if at >= begins[number] + len(elements[number]) else {number}
    found = scan_large(bytes(data), 997, text_field="output")
    good = iter(texts(found))
    for number, row in enumerate(rows):
        assert number in touched or row["output"].isspace() or not row["output"] or row["output"] in good
    assert [record.record for record in found] == list(range(len(found)))
