"""Every kind of store a workspace may lie on: a local disk, memory, and S3 over its real protocol on loopback."""

from __future__ import annotations

import functools
import json
import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import leases, manifests, outputs, runs
from storage.filesystem import Store

BUCKET = "workspace"


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """An empty bucket on moto's S3 server on 127.0.0.1, which the environment points at while tests run."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs")
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("werkzeug"), "disabled", True)  # a line a request, kept for every test
        # S3 decides a conditional write in one step; moto looks and writes in two, so its threads must take turns.
        turn = threading.Lock()

        def one_at_a_time(method: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                with turn:
                    return method(*arguments, **options)

            return call

        for name in ("put_object", "_key_response_post"):
            patch.setattr(S3Response, name, one_at_a_time(getattr(S3Response, name)))
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        for key, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(key, value)
        for key in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "HTTP_PROXY", "http_proxy"):
            patch.delenv(key, raising=False)
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}"
        server.stop()


@pytest.fixture
def s3_store(s3_url: str) -> Store:
    """A store below a prefix of its own in the bucket."""
    return Store(f"{s3_url}/{secrets.token_hex(4)}/ws")


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    """A store in a folder of its own."""
    return Store(tmp_path / "workspace")


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    """The same test on every kind of store."""
    if request.param == "memory":
        return Store(f"memory://{secrets.token_hex(4)}/ws")
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.fixture(params=["local", "s3"])
def shared_store(request: pytest.FixtureRequest) -> Store:
    """The same test on the kinds of store that several processes can share."""
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

    def checked_receipt(value: Any, where: str) -> bytes:
        data = receipt_bytes(value, where)
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
