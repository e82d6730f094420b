"""What all tests share: telemetry off, the public test data where it is at hand, object storage on loopback."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.filesystem import Store

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

BUCKET = "workspace"
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public test data that lies beside a checkout (never inside it)."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the public test data (../shared/data) is not on this machine")
    return folder


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


@pytest.fixture(params=["local", "s3"])
def shared_store(request: pytest.FixtureRequest) -> Store:
    """The same test on the kinds of store that several processes can share."""
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found
