"""Scorers: what they must give, and that every way to fail names the scorer, the part and, if there is one, the row."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from data_quality.judges_config import ScorerConfig
from data_quality.scorer import TYPES, Scorer, ScorerError, load_scorer, source_digest

TEXTS = [f"text {i}" for i in range(40)]
DOCUMENTS = pa.table({"text": pa.array(TEXTS, pa.large_string()), "url": pa.array([None] * 40, pa.string())})


def scored(function: Callable[[pl.DataFrame], Any], kind: Any = "float", columns: Any = ("text",)) -> list[Any]:
    name = "my_label" if kind == "string" else "my_score"
    config = ScorerConfig(name=name, function="a.b:c", version="1", type=kind, columns=columns)
    found = Scorer(config, function).column(DOCUMENTS, "part-0")
    assert found.type == TYPES[kind]
    return list(found.to_pylist())


def test_values_of_every_kind_and_form() -> None:
    lengths = [len(text) for text in TEXTS]
    assert scored(lambda frame: frame["text"].str.len_bytes()) == lengths
    assert scored(lambda frame: [len(text) for text in frame["text"]], "int") == lengths
    assert scored(lambda frame: np.array([0.5] * frame.height)) == [0.5] * 40
    assert scored(lambda frame: frame["text"].str.ends_with("1"), "bool")[:3] == [0, 1, 0]
    assert scored(lambda frame: ["x" if text.endswith("1") else None for text in frame["text"]], "string")[:2] == [
        None,
        "x",
    ]
    assert scored(lambda frame: [None] * frame.height, "int") == [None] * 40
    assert scored(lambda frame: frame["url"].is_null(), "bool", ("url",)) == [1] * 40


def test_it_is_given_the_columns_it_asks_for_alone() -> None:
    def function(frame: pl.DataFrame) -> list[int]:
        assert frame.columns == ["url", "text"]
        return [1] * frame.height

    assert scored(function, "int", ("url", "text")) == [1] * 40


def test_a_part_without_documents_is_not_shown_to_it() -> None:
    config = ScorerConfig(name="my_score", function="a.b:c", version="1")

    def function(frame: pl.DataFrame) -> Any:
        raise AssertionError

    assert Scorer(config, function).column(DOCUMENTS.slice(0, 0), "p").to_pylist() == []


def fails_on(bad: str) -> Callable[[pl.DataFrame], list[int]]:
    def function(frame: pl.DataFrame) -> list[int]:
        if bad in frame["text"].to_list():
            raise KeyError(bad)
        return [1] * frame.height

    return function


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (fails_on("text 37"), "int", "my_score.*fails on row 37 of the part part-0: KeyError: 'text 37'"),
        (fails_on("text 0"), "int", "fails on row 0 of the part part-0"),
        (lambda frame: 1 / 0, "float", "fails on row 0 of the part part-0: ZeroDivisionError"),
        (lambda frame: [1] * 39, "int", "gives 39 values for the 40 documents of the part part-0"),
        (lambda frame: None, "int", "gives a NoneType, which is no column|gives 0 values"),
        (lambda frame: object(), "int", "gives a object, which is no column of values"),
        (lambda frame: 3, "int", "which is no column of values|values for the 40"),
        (lambda frame: [0.5] * frame.height, "int", "gives Float64 for the part part-0, its type .* is int"),
        (lambda frame: ["a"] * frame.height, "float", "gives String .* is float"),
        (lambda frame: [True] * frame.height, "float", "gives Boolean .* is float"),
        (lambda frame: [1] * frame.height, "string", "gives Int64 .* is string"),
        (lambda frame: [1] * frame.height, "bool", "gives Int64 .* is bool"),
        (lambda frame: pl.Series([2**64 - 1] * frame.height, dtype=pl.UInt64), "int", "do not fit 64 bits"),
        (lambda frame: [[1]] * frame.height, "float", "gives List.* is float"),
    ],
)
def test_what_it_must_not_give(function: Callable[[pl.DataFrame], Any], kind: Any, message: str) -> None:
    with pytest.raises(ScorerError, match=message):
        scored(function, kind)


def test_a_failure_of_no_row_alone_names_the_part() -> None:
    def function(frame: pl.DataFrame) -> list[int]:
        if frame.height > 30:
            raise MemoryError("too many")
        return [1] * frame.height

    with pytest.raises(ScorerError, match="fails on the part part-0: MemoryError: too many"):
        scored(function, "int")


def test_values_that_depend_on_other_documents_or_on_chance_are_refused() -> None:
    with pytest.raises(ScorerError, match=r"gives 15 for row 0 of the part part-0 when .* first 16 rows alone and 39 "):
        scored(lambda frame: frame["text"].rank("ordinal", descending=True).cast(pl.Int64) - 1, "int")
    calls = iter(range(10_000))
    with pytest.raises(ScorerError, match="be the same every time"):
        scored(lambda frame: [next(calls) for _ in range(frame.height)], "int")
    # What a matrix product of another size does to the last bits is no other value.
    assert scored(lambda frame: [0.1 + frame.height * 1e-12] * frame.height)[0] == pytest.approx(0.1)


# ------------------------------------------------------------------------------------------------ finding it


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder one is in, with the package `judgement_for_tests`; what is imported from it is forgotten afterwards."""
    folder = tmp_path / "judgement_for_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "mine.py").write_text("def score(frame):\n    return frame['text'].str.len_bytes()\n\nLIMIT = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    for name in [name for name in sys.modules if name.startswith("judgement_for_tests")]:
        monkeypatch.delitem(sys.modules, name)
    yield folder
    for name in [name for name in sys.modules if name.startswith("judgement_for_tests")]:
        del sys.modules[name]


def named(function: str) -> ScorerConfig:
    return ScorerConfig(name="my_score", function=function, version="1", type="int")


def test_it_is_found_in_the_current_directory(package: Path) -> None:
    config = named("judgement_for_tests.mine:score")
    found = load_scorer(config, source_digest(config)).column(DOCUMENTS, "p")
    assert found.to_pylist() == [len(text) for text in TEXTS]


def test_its_source_names_it_and_a_change_is_noticed(package: Path) -> None:
    config = named("judgement_for_tests.mine:score")
    before = source_digest(config)
    assert source_digest(config) == before
    (package / "mine.py").write_text("def score(frame):\n    return [0] * frame.height\n")
    assert source_digest(config) != before
    with pytest.raises(ScorerError, match="has changed since the run began"):
        load_scorer(config, before)


def test_looking_for_its_source_does_not_run_it(package: Path) -> None:
    (package / "loud.py").write_text("raise SystemError('was run')\n")
    config = named("judgement_for_tests.loud:score")
    digest = source_digest(config)
    with pytest.raises(ScorerError, match="cannot be imported: SystemError: was run"):
        load_scorer(config, digest)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("judgement_for_tests.nothing:score", "there is no module judgement_for_tests.nothing in the current"),
        ("no_such_package_here.mine:score", "there is no module no_such_package_here"),
        ("judgement_for_tests.mine:scores", "has no function 'scores'; it has score"),
        ("judgement_for_tests.mine:LIMIT", "has no function 'LIMIT'"),
        ("math:sqrt", "has no Python source that could be fingerprinted"),
    ],
)
def test_what_cannot_be_found_is_named(package: Path, function: str, message: str) -> None:
    config = named(function)
    with pytest.raises(ScorerError, match=message):
        load_scorer(config, source_digest(config))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "string"}, "must end in _label"),
        ({"name": "my_label"}, "must end in _score"),
        ({"columns": ("text", "text")}, "named twice"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScorerConfig(**{"name": "my_score", "function": "a:b", "version": "1", **settings})
