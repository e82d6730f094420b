"""Every kind of store a workspace may lie on: a local disk, memory, and S3 over its real protocol on loopback."""

from __future__ import annotations

import functools
import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from storage import leases, manifests, outputs, runs
from storage.filesystem import Store


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    """The same test on every kind of store."""
    if request.param == "memory":
        return Store(f"memory://{secrets.token_hex(4)}/ws")
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found


SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"


@functools.cache
def schema_of(kind: str) -> Any:
    """The validator of docs/schemas/<kind>.schema.json."""
    from jsonschema import Draft202012Validator

    schema = json.loads((SCHEMAS / f"{kind}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


@pytest.fixture(autouse=True)
def what_is_written_fits_the_published_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold every manifest, receipt, run record and lease that a test has written against docs/schemas."""
    build, receipt_bytes, run_bytes = manifests.build, outputs.json_bytes, runs.json_bytes
    take_number = leases.Lease._take_number

    def checked_build(**values: Any) -> dict[str, Any]:
        manifest = build(**values)
        schema_of("manifest").validate(json.loads(json.dumps(manifest)))
        return manifest

    def checked_receipt(value: Any, where: str, **form: Any) -> bytes:
        data = receipt_bytes(value, where, **form)
        if f"/{outputs.RECEIPTS}/" in where and not where.endswith("notes"):
            schema_of("receipt").validate(json.loads(data))
        return data

    def checked_run(value: Any, where: str) -> bytes:
        data = run_bytes(value, where)
        schema_of("run").validate(json.loads(data))
        return data

    def checked_lease(lease: leases.Lease) -> None:
        take_number(lease)
        schema_of("lease").validate(lease.store.read_json(lease._path(lease.number)))

    monkeypatch.setattr(manifests, "build", checked_build)
    monkeypatch.setattr(outputs, "json_bytes", checked_receipt)
    monkeypatch.setattr(runs, "json_bytes", checked_run)
    monkeypatch.setattr(leases.Lease, "_take_number", checked_lease)
