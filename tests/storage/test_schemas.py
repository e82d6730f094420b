"""What the documentation says of the files of a workspace is what the code writes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from storage import leases, manifests, runs
from storage.manifests import Counts, Part
from storage.outputs import Receipt
from tests.storage.conftest import SCHEMAS, schema_of

KINDS = ("lease", "manifest", "receipt", "run")


def example(kind: str) -> Any:
    return json.loads((SCHEMAS / f"{kind}.example.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_each_schema_holds_its_example(kind: str) -> None:
    schema_of(kind).validate(example(kind))


def test_every_file_in_the_folder_is_named_in_its_readme() -> None:
    text = (SCHEMAS / "README.md").read_text()
    files = {path.name for path in SCHEMAS.iterdir()} - {"README.md"}
    assert files == {f"{kind}.{form}.json" for kind in KINDS for form in ("schema", "example")}
    assert set(re.findall(r"\]\(([^)]+)\)", text)) == files


def test_the_code_believes_the_examples() -> None:
    manifest = example("manifest")
    manifests.check(manifest, "the example")
    assert len({part.kind for part in manifests.parts_of(manifest)}) > 1
    receipt = Receipt.from_json(example("receipt"))
    Counts.from_json(receipt.counts, "the example").check("the example")
    assert set(receipt.parts) <= set(manifests.parts_of(manifest)), "the receipt is one of that output"
    run = example("run")
    assert run["stages"]["filter"]["output"] == manifest["fingerprint"]
    assert run["stages"]["filter"]["digest"] == manifests.content_digest(manifests.parts_of(manifest))


def test_the_schemas_name_the_fields_that_the_code_knows() -> None:
    assert set(schema_of("manifest").schema["required"]) == set(manifests._FIELDS)
    part = schema_of("manifest").schema["$defs"]["part"]
    assert part == schema_of("receipt").schema["$defs"]["part"]
    assert part["required"] == list(Part.__dataclass_fields__)
    assert set(schema_of("receipt").schema["required"]) == set(Receipt.__dataclass_fields__)
    for kind, version in (("manifest", manifests.SCHEMA_VERSION), ("run", runs.SCHEMA_VERSION)):
        assert schema_of(kind).schema["properties"]["schema_version"] == {"const": version}


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_and_missing_fields_are_told(kind: str) -> None:
    good = example(kind)
    for name in schema_of(kind).schema["required"]:
        assert not schema_of(kind).is_valid({key: value for key, value in good.items() if key != name}), name
    if kind != "run":
        assert not schema_of(kind).is_valid({**good, "unknown": 1})


def test_time_stamps_have_the_form_the_schema_asks_for() -> None:
    pattern = schema_of("run").schema["$defs"]["time"]["pattern"]
    assert re.fullmatch(pattern, leases.now())
