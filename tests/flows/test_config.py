"""A wrong configuration is refused with the path, the value, what is allowed and a near match; a right one is kept."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_quality.judges_config import ClassifierConfig
from flows.config import ConfigError, from_values, load_config, parse_override, schema
from stages.config import RunConfig
from storage.fingerprint import canonical

GOOD: dict[str, Any] = {"ingest": {"sources": [{"name": "a", "kind": "jsonl", "path": "texts"}]}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    return path


def problem(path: Path, *overrides: str, **replacements: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides, **replacements)
    return str(caught.value)


def test_the_defaults_and_changes_make_a_configuration(file: Path) -> None:
    config = load_config(
        file,
        ["pretrain.training.learning_rate=1e-4", "ingest.sources.0.path=s3://b/c", "finetune=null"],
        name="mine",
        workspace=None,
    )
    assert config.pretrain is not None
    assert config.pretrain.training.learning_rate == 1e-4
    assert config.ingest.sources[0].path == "s3://b/c"
    assert config.finetune is None
    assert (config.name, config.workspace) == ("mine", "./workspace")


def test_a_configuration_survives_its_own_record(file: Path) -> None:
    config = load_config(file, ["select.languages={de: {repeats: 2}}", "deduplicate.priority=[longest]"])
    assert from_values(json.loads(json.dumps(canonical(config))), "the record") == config


def test_a_list_grows_by_one_and_nested_values_are_yaml(file: Path) -> None:
    config = load_config(file, ["ingest.sources.1={name: b, kind: text, path: p, meta_fields: [x, 'y']}"])
    assert config.ingest.sources[1].meta_fields == ("x", "y")


CASES: list[tuple[str, list[str]]] = [
    ("pretrain.training.learning_rate=0", ["pretrain.training.learning_rate = 0", "greater than 0", "Peak learning"]),
    ("pretrain.training.learning_rate=fast", ['= "fast"', "must be a number"]),
    ('pretrain.training.steps="200"', ["must be a whole number, without quotes"]),
    ("pretrain.training.steps=1.5", ["pretrain.training.steps = 1.5", "whole number"]),
    ("pretrain.training.steps=true", ["pretrain.training.steps = true", "whole number"]),
    ("pretrain.training.document_mask=1", ["must be true or false"]),
    ("pretrain.training.precision=bf61", ["one of fp32, bf16", "did you mean bf16?"]),
    ("pretrain.training.warmup_steps=300", ["warmup_steps = 300 is more than training.steps = 200"]),
    ("pretrain.training.lerning_rate=1", ["no such setting", "did you mean pretrain.training.learning_rate?"]),
    ("pretrain.learning_rate=1", ["did you mean pretrain.training.learning_rate", "Settings here: model, training"]),
    ("pretrian.training.steps=5", ["pretrian: no such setting", "did you mean pretrain?"]),
    ("workers=3", ["workers: no such setting", "did you mean how.workers?"]),
    ("name=12", ["name = 12", "must be text", 'put it in quotes: "12"']),
    ("name=a b", ["name", "pattern"]),
    ("sketch=null", ["sketch = null", "must be a section", "cannot be switched off"]),
    ("sketch=[]", ["must be a section"]),
    ("pretrain=null", ["evaluate needs pretrain, which is null"]),
    ("select.languages.de.repeats=x", ['select.languages.de.repeats = "x"', "whole number"]),
    ("select.languages=[1]", ["must be a mapping"]),
    ("select.sources.float.repeats=x", ["select.sources.float.repeats", "whole number"]),
    ("select.languages.de={share: 3}", ["did you mean select.languages.de.max_share?"]),
    ("select.max_share=3", ["did you mean select.sources.*.max_share or select.languages.*.max_share?"]),
    ("filter.rules.x={expresion: a}", ["did you mean filter.rules.x.expression?"]),
    (
        "filter.rules.x={feature: words, comparison: <, threshold: [1]}",
        [
            "has a problem",
            "filter.rules.x.threshold = [1]: must be a number, text, a list of text or a number for each",
        ],
    ),
    (
        "filter.rules.x={feature: wrods, comparison: <, threshold: 1}",
        ["filter.rules.x.feature", "did you mean 'words'"],
    ),
    ("filter.rules.x.expression=words > avg(words)", ["filter.rules.x.expression", "more than one document"]),
    ("filter.rules.x={feature: cut_words, comparison: <, threshold: 1}", ["set quality.features.measure_cut"]),
    ("filter.expect.gopher-hashes={max: 0.1}", ["did you mean hits:gopher-hashes?"]),
    ("filter.expect.kept_share={}", ["it expects nothing"]),
    ("select.sources.nowhere.repeats=2", ["there is no source of this name in ingest.sources"]),
    ("deduplicate.priority=[longest, nwest]", ["deduplicate.priority[1]", "did you mean newest?"]),
    ("deduplicate.rows=5", ["set both, or neither"]),
    ("sketch.permutations=2", ["no bands of sketch.permutations = 2", "raise sketch.permutations"]),
    ("deduplicate.source_order=[nowhere]", ["deduplicate.source_order: there is no source 'nowhere'"]),
    ("evaluate.generate.prompts=hello", ["must be a list: [hello]"]),
    ("pretrain.training.steps=.inf", ["must be a finite number"]),
    ("ingest.sources=[]", ["ingest.sources = []", "fewer items than 1"]),
    ("ingest.sources.0.kind=jsnl", ["ingest.sources[0].kind", "did you mean jsonl?"]),
    ("ingest.sources.0.limit=0", ["at least 1"]),
    ("ingest.sources.0.fraction=2", ["at most 1"]),
    ("ingest.sources.4.path=x", ["ingest.sources is a list of 1"]),
    ("ingest.sources.0.path.x=3", ["is the value 'texts' and has nothing inside"]),
    ("finetune.label=author", ["finetune.label", "pattern"]),
    ("how.workers=-1", ["at least 0"]),
    ("orchestrator=airflow", ["one of prefect, none"]),
    ("steps", ["write a path, '=' and a value"]),
    ("a..b=3", ["write a path, '=' and a value"]),
    ("name=[", ["is not valid YAML"]),
]


@pytest.mark.parametrize(("change", "expected"), CASES, ids=[case[0] for case in CASES])
def test_a_bad_value_is_explained(file: Path, change: str, expected: list[str]) -> None:
    said = problem(file, change)
    for text in expected:
        assert text in said


def test_a_mask_token_stands_among_the_special_tokens(file: Path) -> None:
    asked = ("span_masking=0.1", "mask_token='<|mask|>'")
    for section in ("pretrain", "finetune"):
        changes = [f"{section}.training.augment.{setting}" for setting in asked]
        said = problem(file, *changes)
        assert f"{section}.training.augment.mask_token = '<|mask|>' is not one of tokenizer.special_tokens" in said
        load_config(file, [*changes, "tokenizer.special_tokens=['<|endoftext|>', '<|mask|>']"])


def test_all_problems_are_told_at_once(file: Path) -> None:
    said = problem(file, "pretrain.training.steps=0", "sketch.ngram=x", "nmae=3", name=7)
    assert "4 problems" in said
    assert all(text in said for text in ("pretrain.training.steps", "sketch.ngram", "nmae", "--name 7"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", "line 2: the key 'a' stands twice (first in line 1)"),
        ("a: {b: 1, b: 2}\n", "the key 'b' stands twice"),
        ("a: [1\n", "is not valid YAML"),
        ("[1, 2]\n", "holds a list"),
        ("1: a\n", "the key 1 is not text"),
        ("", "ingest: must be given"),
        ("a: !!python/object/apply:os.system [ls]\n", "is not valid YAML"),
    ],
)
def test_a_bad_file_is_explained(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    said = problem(path)
    assert expected in said
    assert str(path) in said


def test_a_missing_file_has_a_near_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.yaml").write_text("{}")
    assert problem(Path("demmo.yaml")) == "there is no configuration file demmo.yaml; did you mean demo.yaml?"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("3.0e-3", 3e-3), ("10_000", 10_000), ("0x10", 16), ("010", 10), (".5", 0.5), ("-3", -3),
        ("no", "no"), ("on", "on"), ("true", True), ("null", None), ("~", None), ("", None),
        ("2024-01-01", "2024-01-01"), ("1:30", "1:30"), ("'5'", "5"), ("1.2.3", "1.2.3"), ("e5", "e5"),
        ("[a, 1]", ["a", 1]),
    ],
)  # fmt: skip
def test_plain_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    assert parse_override(f"a.0.b={text}") == (("a", 0, "b"), value)


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("ingest:\n  sources:\n    - &one {name: a, kind: jsonl, path: x}\n    - {<<: *one, name: b}\n")
    assert [(s.name, s.path) for s in load_config(path).ingest.sources] == [("a", "x"), ("b", "x")]


def settings_of(section: type[Any], before: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        yield f"{before}{field.name}", field
        for inner in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(inner):
                yield from settings_of(typing.cast("type[Any]", inner), f"{before}{field.name}.")


def test_every_setting_is_documented_and_its_bounds_are_in_the_schema() -> None:
    drawn = schema()
    text = json.dumps(drawn)
    names = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
    for path, field in settings_of(RunConfig):
        assert field.metadata.get("description"), path
        assert json.dumps(field.metadata["description"]) in text, path
    for section in drawn["$defs"].values():
        assert section.get("additionalProperties") is False
    bounded = [f for _, f in settings_of(RunConfig) if set(names) & set(f.metadata)]
    assert len(bounded) > 50


def test_every_numeric_bound_of_classifiers_is_enforced(file: Path) -> None:
    tried = 0
    for path, field in settings_of(ClassifierConfig):
        for bound, step in (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0)):
            if bound in field.metadata:
                value = json.dumps({"model": "m.arrow", "training": {path: field.metadata[bound] + step}})
                said = problem(file, f"quality.classifiers=[{value}]")
                assert f"quality.classifiers[0].training.{path} = " in said
                tried += 1
    assert tried > 10


def test_every_numeric_bound_is_enforced(file: Path) -> None:
    tried = 0
    for path, field in settings_of(RunConfig):
        if any(
            part in path
            for part in (
                "sources.", "eval_sets.", "finetune.data.", "takedown.", "mixture.", "classifiers.", "lengths.",
            )
        ):  # fmt: skip
            continue
        for bound, step in (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0)):
            if bound in field.metadata:
                said = problem(file, f"{path}={field.metadata[bound] + step}")
                assert path in said
                tried += 1
    assert tried > 50
