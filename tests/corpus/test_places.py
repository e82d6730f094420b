"""Places: whatever is listed is read or accounted for, faults of the way do not show, and errors say what to do."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import multiprocessing
import os
import secrets
import socket
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from email.utils import formatdate
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.config import SourceConfig
from corpus.sources import BadRecord, Found, InputFile, Record, SourceError, open_source, remote
from corpus.sources.files import find_root, list_files, local_listing, open_input
from corpus.sources.remote import without_credentials
from corpus.sources.remote_reading import LARGEST_BLOCK, RemoteReader
from tests.faults import KINDS, Faults, faulty


def source(path: Path | str, kind: Any = "jsonl", **settings: Any) -> SourceConfig:
    return SourceConfig(name="web", kind=kind, path=str(path), **settings)


def uris(path: Path | str, kind: Any = "jsonl", **settings: Any) -> list[str]:
    return [file.uri for file in open_source(source(path, kind, **settings)).inventory()]


def read(config: SourceConfig) -> list[tuple[str, Found]]:
    opened = open_source(config)
    return [(file.uri, found) for file in opened.inventory() for found in opened.records(file)]


def texts(config: SourceConfig) -> list[str]:
    return [found.text if isinstance(found, Record) else f"!{found}" for _, found in read(config)]


def lines(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number of tries, with shorter waits, and no proxy between a test and its server."""
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.002)
    monkeypatch.setattr(remote, "LONGEST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(remote, "REQUEST_TRIES", 1)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def quickly_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that keep silent are given up soon."""
    monkeypatch.setattr(remote, "SILENCE_SECONDS", 0.4)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without the superuser's right to read everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others may enter too."""
    import shutil
    import tempfile

    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


# --- a local disk: what is there instead -----------------------------------------------------------------------------


def test_a_path_that_does_not_exist_is_told_with_what_is_nearest(tmp_path: Path) -> None:
    (tmp_path / "corpus-2023").mkdir()
    (tmp_path / "corpus-2024").mkdir()
    with pytest.raises(SourceError) as caught:
        uris(tmp_path / "corpus-2032" / "deep")
    message = str(caught.value)
    assert "corpus-2032/deep' does not exist" in message
    assert f"'{tmp_path}' holds corpus-2023, corpus-2024; did you mean 'corpus-202" in message


def test_files_of_another_kind_are_counted_by_ending_and_the_kind_is_guessed(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.txt.gz").write_bytes(b"")
    for number in range(4):
        (tmp_path / f"{number}.dat").write_bytes(b"")
    with pytest.raises(SourceError, match=r"12 other files, .*: \.txt\.gz \(8\), \.dat \(4\); did you mean kind: text"):
        uris(tmp_path)


def test_an_empty_folder_a_glob_that_matches_nothing_and_patterns_that_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / ".hidden.jsonl").write_bytes(b"")
    with pytest.raises(SourceError, match="is there and holds no files that are not hidden"):
        uris(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b"")
    with pytest.raises(SourceError, match=r"\.jsonl \(1\); none matches '\*\.json'"):
        uris(f"{tmp_path}/*.json")
    with pytest.raises(SourceError, match=r"exclude \('a\*',\); below .* 1 other files"):
        uris(tmp_path, exclude=("a*",))


def test_a_folder_that_cannot_be_listed_stops_the_run_unless_it_is_excluded(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(lines("a"))
    (folder / "closed").mkdir()
    (folder / "closed" / "b.jsonl").write_bytes(lines("b"))
    (folder / "closed").chmod(0)
    with as_nobody():
        with pytest.raises(
            SourceError, match=r"the folder '.*/closed' cannot be listed: Permission denied.*closed/\*\*"
        ):
            uris(folder)
        assert uris(folder, exclude=("closed/**",)) == ["a.jsonl"]
        assert uris(folder / "a.jsonl") == ["a.jsonl"]
        assert uris(f"{folder}/*.jsonl") == ["a.jsonl"]
    (folder / "closed").chmod(0o755)
    assert uris(folder) == ["a.jsonl", "closed/b.jsonl"]


def test_a_file_nobody_may_read_is_one_bad_record(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(lines("a"))
    (folder / "b.jsonl").write_bytes(lines("b"))
    (folder / "a.jsonl").chmod(0)
    with as_nobody():
        found = read(source(folder))
    assert [record.error if isinstance(record, BadRecord) else record.text for _, record in found] == [  # type: ignore[union-attr]
        "cannot-open",
        "b",
    ]


def test_links_to_nothing_circles_pipes_and_sockets_are_listed_and_cannot_be_opened(folder: Path) -> None:
    (folder / "good.jsonl").write_bytes(lines("good"))
    (folder / "linked.jsonl").symlink_to("good.jsonl")
    (folder / "broken.jsonl").symlink_to("nowhere")
    (folder / "circle.jsonl").symlink_to("circle.jsonl")
    os.mkfifo(folder / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.jsonl"))
        found = dict(read(source(folder)))
    assert {uri: record.error if isinstance(record, BadRecord) else "" for uri, record in found.items()} == {
        "good.jsonl": "",
        "linked.jsonl": "",
        "broken.jsonl": "cannot-open",
        "circle.jsonl": "cannot-open",
        "pipe.jsonl": "cannot-open",
        "socket.jsonl": "cannot-open",
    }
    listed = {file.uri: (file.bytes, file.etag) for file in open_source(source(folder)).inventory()}
    assert listed["broken.jsonl"] == listed["pipe.jsonl"] == (0, "missing")


def test_a_link_that_may_have_been_a_folder_stops_the_run_unless_it_is_excluded(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines("a"))
    (tmp_path / "disk2").symlink_to(tmp_path / "not-mounted")
    (tmp_path / "README.md").symlink_to("nothing")
    with pytest.raises(SourceError, match=r"disk2' leads to nothing .*exclude 'disk2'"):
        uris(tmp_path)
    assert uris(tmp_path, exclude=("disk2",)) == ["a.jsonl"]


def test_a_link_that_heals_after_the_inventory_does_not_slip_in(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to("target")
    opened = open_source(source(tmp_path))
    [file] = opened.inventory()
    (tmp_path / "target").write_bytes(lines("late"))
    with pytest.raises(SourceError, match="changed after the inventory"):
        list(opened.records(file))


def test_folders_reached_in_several_ways_are_listed_once_under_their_own_name(tmp_path: Path) -> None:
    for name in ("m/deep/a.jsonl", "z/b.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a-link").symlink_to("m")
    (tmp_path / "m" / "deep" / "above").symlink_to(tmp_path)
    (tmp_path / "z" / "other").symlink_to("../m/deep")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "c.jsonl").write_bytes(b"")
    (tmp_path / "o2").symlink_to(outside)
    (tmp_path / "o1").symlink_to(outside)
    assert uris(tmp_path) == ["m/deep/a.jsonl", "o1/c.jsonl", "z/b.jsonl"]


@pytest.mark.parametrize(
    "name",
    ["line\nfeed.jsonl", "bell\x07 tab\t.jsonl", "[a]*?.jsonl", "%41 #?.jsonl", "a::b.jsonl", "ü" * 120 + ".jsonl"],
)
def test_any_name_that_is_utf8_is_listed_and_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(lines("strange name"))
    (tmp_path / "a.jsonl").write_bytes(lines("other"))
    assert dict(read(source(tmp_path)))[name] == Record(0, "strange name")
    assert read(source(tmp_path / name)) == [(name, Record(0, "strange name"))]


def test_files_and_folders_may_vanish_while_they_are_listed(tmp_path: Path) -> None:
    (tmp_path / "stays.jsonl").write_bytes(b"")
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in range(30):
                (tmp_path / f"d{number}").mkdir()
                (tmp_path / f"d{number}" / "x.jsonl").write_bytes(b"")
            for number in range(30):
                (tmp_path / f"d{number}" / "x.jsonl").unlink()
                (tmp_path / f"d{number}").rmdir()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(60):
            assert "stays.jsonl" in {uri for uri, _, _ in local_listing(str(tmp_path))}
    finally:
        stop.set()
        thread.join()


def test_home_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_bytes(lines("a"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("~/data", "~/data/*.jsonl", "data/", "data/a.jsonl", "./data", "*/a.jsonl", "file://~/data"):
        assert texts(source(path)) == ["a"], path
    monkeypatch.chdir(tmp_path / "data")
    for path in (".", "a.jsonl", "*.jsonl"):
        assert texts(source(path)) == ["a"], path


# --- URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@host/a.jsonl",
        "https://hunter2@host/a.jsonl",
        "ftp://user:hunter2@host/a",
        "s3://KEYID:hunter2@bucket/key",
        "s3://bucket/key?key=KEYID&secret=hunter2",
        "https://account.blob.core.windows.net/c/a.jsonl?sv=1&sig=hunter2",
        "https://bucket.s3.amazonaws.com/a?X-Amz-Credential=hunter2&X-Amz-Signature=hunter2",
        "zip://a.jsonl::https://user:hunter2@host/a.zip",
        "simplecache::https://host/a?access_token=hunter2#x",
    ],
)
def test_a_url_with_credentials_is_refused_and_they_are_not_repeated(url: str) -> None:
    with pytest.raises(SourceError, match="must not hold credentials") as caught:
        find_root(url)
    assert "hunter2" not in str(caught.value)
    assert "***" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/some@key:with/colon",
        "abfs://container@account.dfs.core.windows.net/x",
        "hf://datasets/user/name@refs%2Fconvert%2Fparquet/x",
        "github://owner:repository@main/folder",
        "sftp://user@host/folder",
        "https://host:8080/a.jsonl?page=3&monkey=1",
        "zip://*.jsonl::s3://bucket/a.zip",
    ],
)
def test_a_url_without_credentials_is_left_as_it_is(url: str) -> None:
    assert without_credentials(url) == url


@pytest.mark.parametrize(("wrong", "right"), [("s4", "s3"), ("S3", "s3"), ("htpp", "http"), ("memry", "memory")])
def test_an_unknown_protocol_gets_a_near_match(wrong: str, right: str) -> None:
    with pytest.raises(SourceError, match=f"there is no protocol '{wrong}'; did you mean '{right}'"):
        find_root(f"{wrong}://bucket/x")


@pytest.mark.parametrize(
    ("url", "module", "install"),
    [
        ("gs://bucket/x", "gcsfs", "pip install gcsfs"),
        ("gcs://bucket/x", "gcsfs", "pip install gcsfs"),
        ("az://container/x", "adlfs", "pip install adlfs"),
        ("abfs://container@account.dfs.core.windows.net/x", "adlfs", "pip install adlfs"),
        ("s3://bucket/x", "s3fs", r"pip install 'gristmill\[s3\]'"),
        ("zip://a.jsonl::s3://bucket/a.zip", "s3fs", r"pip install 'gristmill\[s3\]'"),
        ("https://host/a.jsonl", "fsspec.implementations.http", "pip install aiohttp"),
        ("hf://datasets/a/b", "huggingface_hub", "pip install huggingface_hub"),
    ],
)
def test_a_missing_package_is_named_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, url: str, module: str, install: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    known: dict[str, Any] = {}
    for name in ("_registry", "registry"):  # what is imported already
        monkeypatch.setattr(sys.modules["fsspec.registry"], name, known)
    with pytest.raises(SourceError, match=f"is not installed; {install}"):
        find_root(url)


def test_every_protocol_with_advice_is_one_that_fsspec_knows() -> None:
    # abfss is made known by adlfs itself
    assert set(remote._PACKAGES) - {"abfss"} <= set(fsspec.available_protocols())


@pytest.fixture
def memory() -> Iterator[str]:
    name = secrets.token_hex(4)
    yield f"memory://{name}"
    if (system := fsspec.filesystem("memory")).exists(f"/{name}"):
        system.rm(f"/{name}", recursive=True)


def put(url: str, data: bytes) -> None:
    with fsspec.open(url, "wb") as file:
        file.write(data)


def test_members_of_a_zip_are_read_wherever_it_lies(tmp_path: Path, memory: str, s3_url: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.jsonl", "b.jsonl", "deep/c.jsonl.gz", "notes.txt"):
            archive.writestr(name, gzip.compress(lines(name)) if name.endswith("gz") else lines(name))
    (tmp_path / "x.zip").write_bytes(packed.getvalue())
    remote_zip = f"{s3_url}/{secrets.token_hex(4)}.zip"
    for place in (f"{tmp_path}/x.zip", f"file://{tmp_path}/x.zip", f"{memory}/x.zip", remote_zip):
        put(place, packed.getvalue())
        assert texts(source(f"zip://*.jsonl::{place}")) == ["a.jsonl", "b.jsonl"]
        assert texts(source(f"zip://::{place}")) == ["a.jsonl", "b.jsonl", "deep/c.jsonl.gz"]
        assert texts(source(f"zip://deep::{place}")) == ["deep/c.jsonl.gz"]
        assert texts(source(f"zip://b.jsonl::{place}")) == ["b.jsonl"]
    with pytest.raises(SourceError, match=r"below .* there are 4 other files"):
        uris(f"zip://*.csv::{tmp_path}/x.zip")
    for wrong in (f"zip://*.jsonl::{tmp_path}/missing.zip", "zip://a.jsonl"):
        with pytest.raises(SourceError, match="cannot be opened"):
            uris(wrong)
    (tmp_path / "x.zip").write_bytes(b"PK no zip")
    with pytest.raises(SourceError, match=r"cannot be opened.*not a zip"):
        uris(f"zip://*.jsonl::{tmp_path}/x.zip")


def test_a_cache_before_a_place_changes_nothing_and_is_never_stale(memory: str, s3_url: str) -> None:
    for place in (memory, f"{s3_url}/{secrets.token_hex(4)}"):
        for version in ("one", "two, longer"):
            put(f"{place}/x/a.jsonl", lines(version))
            for cache in ("simplecache", "filecache"):
                assert texts(source(f"{cache}::{place}/x")) == [version]


def test_an_inventory_is_taken_anew_every_time(memory: str, s3_url: str) -> None:
    for place in (memory, f"{s3_url}/{secrets.token_hex(4)}"):
        opened = open_source(source(place))
        for number in range(3):
            put(f"{place}/{number}.jsonl", lines(str(number)))
            assert [file.uri for file in opened.inventory()] == [f"{n}.jsonl" for n in range(number + 1)]
        put(f"{place}/0.jsonl", lines("other"))
        changed = opened.inventory()[0]
        assert list(opened.records(changed)) == [Record(0, "other")]


# --- S3 --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(s3_url: str) -> tuple[str, Any]:
    """(name, client) of an empty bucket."""
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    name = f"b-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=name)
    return name, client


@pytest.fixture
def s3_faults(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """Faults of a proxy that stands before S3."""
    import s3fs

    _, _, address = os.environ["AWS_ENDPOINT_URL"].partition("://")
    host, _, port = address.partition(":")
    with faulty((host, int(port)), seed=7) as (url, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        s3fs.S3FileSystem.clear_instance_cache()
        yield faults
        faults.share = 0.0
    s3fs.S3FileSystem.clear_instance_cache()


def test_thousands_of_keys_are_listed_in_one_order_and_markers_of_folders_are_no_files(
    bucket: tuple[str, Any],
) -> None:
    from moto.s3.models import s3_backends

    name, client = bucket
    expected = [f"{number % 7}/{number:05d}.jsonl" for number in range(2300)]
    for uri in expected:  # into the server's store itself: by requests it takes half a minute
        s3_backends["123456789012"]["aws"].put_object(name, f"data/{uri}", uri.encode())
    for key in ("data/", "data/empty/", "data/3/", "data/4.jsonl/", "data/.hidden/x.jsonl", "data-2/y.jsonl"):
        client.put_object(Bucket=name, Key=key, Body=b"")
    client.put_object(Bucket=name, Key="data//double//a.jsonl", Body=lines("odd key"))
    found = open_source(source(f"s3://{name}/data")).inventory()
    assert [file.uri for file in found] == sorted([*expected, "/double//a.jsonl"])
    assert found == open_source(source(f"s3://{name}/data/")).inventory()
    assert all(file.bytes == len(file.uri) and file.etag for file in found[1:])
    assert list(open_source(source(f"s3://{name}/data")).records(found[0])) == [Record(0, "odd key")]
    assert uris(f"s3://{name}/data/3/*.jsonl") == [uri[2:] for uri in sorted(expected) if uri.startswith("3/")]
    assert uris(f"s3://{name}/data/3/00003.jsonl") == ["00003.jsonl"]


def test_the_latest_version_of_an_object_is_the_one_that_counts(bucket: tuple[str, Any]) -> None:
    name, client = bucket
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    for text in ("first", "second"):
        client.put_object(Bucket=name, Key="a.jsonl", Body=lines(text))
        client.put_object(Bucket=name, Key="gone.jsonl", Body=lines(text))
    client.delete_object(Bucket=name, Key="gone.jsonl")
    assert texts(source(f"s3://{name}")) == ["second"]


def test_a_missing_bucket_or_prefix_is_told(bucket: tuple[str, Any]) -> None:
    name, client = bucket
    client.put_object(Bucket=name, Key="corpus/a.jsonl", Body=b"")
    with pytest.raises(
        SourceError, match=rf"'s3://{name}/corpse' does not exist; '{name}' holds corpus; did you mean 'corp"
    ):
        uris(f"s3://{name}/corpse")
    with pytest.raises(SourceError, match="'s3://no-such-bucket-here/x' does not exist"):
        uris("s3://no-such-bucket-here/x")
    with pytest.raises(SourceError, match="name of the bucket must be given"):
        uris("s3://*/x")


@pytest.fixture(scope="module")
def corpus_files() -> dict[str, bytes]:
    """Several files whose records all differ; some span many blocks."""
    import random

    random_source = random.Random(5)

    def document() -> str:
        return random_source.randbytes(random_source.randrange(20, 400)).hex()

    files = {f"{n}.jsonl.gz": gzip.compress(lines(*(document() for _ in range(400))), mtime=0) for n in range(3)}
    files["large.jsonl.gz"] = gzip.compress(lines(*(document() for _ in range(6000))), mtime=0)
    for number in range(2):
        packed = io.BytesIO()
        table = pa.table({"text": [document() for _ in range(2500)], "other": [document() for _ in range(2500)]})
        pq.write_table(table, packed, row_group_size=500, compression="zstd")
        files[f"{number}.parquet"] = packed.getvalue()
    return files


def both_kinds(path: str) -> list[tuple[str, Found]]:
    """The records of all files of a place, JSON lines and Parquet."""
    return read(source(path)) + read(source(path, "parquet"))


@pytest.fixture(scope="module")
def truth(corpus_files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Found]]:
    folder = tmp_path_factory.mktemp("truth")
    for name, data in corpus_files.items():
        (folder / name).write_bytes(data)
    found = both_kinds(str(folder))
    assert len(found) == 3 * 400 + 6000 + 2 * 2500
    return found


@pytest.mark.usefixtures("quickly_lost")
def test_a_source_on_s3_is_read_through_faults_as_if_there_were_none(
    bucket: tuple[str, Any],
    s3_faults: Faults,
    corpus_files: dict[str, bytes],
    truth: list[tuple[str, Found]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "REQUEST_TRIES", 2)
    name, client = bucket
    for key, data in corpus_files.items():
        client.put_object(Bucket=name, Key=f"in/{key}", Body=data)
    s3_faults.silence_seconds = 0.8
    s3_faults.share = 0.35
    for _ in range(10):  # which requests are met, and so how many faults there are, depends on their order
        assert both_kinds(f"s3://{name}/in") == truth
        if sum(s3_faults.done.values()) >= 8:
            break
    assert sum(s3_faults.done.values()) >= 8
    assert len(s3_faults.done) >= 5


@pytest.mark.usefixtures("quickly_lost")
@pytest.mark.parametrize("kind", ["503", "cut", "silent"])
def test_a_fault_of_s3_that_does_not_pass_is_an_oserror_that_names_file_and_position(
    bucket: tuple[str, Any],
    s3_faults: Faults,
    corpus_files: dict[str, bytes],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, client = bucket
    client.put_object(Bucket=name, Key="in/large.jsonl.gz", Body=corpus_files["large.jsonl.gz"])
    opened = open_source(source(f"s3://{name}/in"))
    [file] = opened.inventory()
    monkeypatch.setattr(remote, "TRIES", 2)
    s3_faults.kinds, s3_faults.silence_seconds = (kind,), 0.5
    records = opened.records(file)
    next(records)
    s3_faults.share = 1.0
    with pytest.raises((ConnectionError, TimeoutError), match=rf"{name}/in/large\.jsonl\.gz at byte \d+"):
        list(records)
    with pytest.raises((ConnectionError, TimeoutError), match=r"large\.jsonl\.gz"):
        list(opened.records(file))
    with pytest.raises((ConnectionError, TimeoutError), match=name):
        open_source(source(f"s3://{name}/in")).inventory()
    s3_faults.share = 0.0
    assert len(list(opened.records(file))) == 6000


def test_refusals_are_told_apart_from_faults(bucket: tuple[str, Any], s3_faults: Faults) -> None:
    name, client = bucket
    client.put_object(Bucket=name, Key="in/a.jsonl", Body=lines("a"))
    opened = open_source(source(f"s3://{name}/in"))
    [file] = opened.inventory()
    s3_faults.share, s3_faults.kinds = 1.0, ("403",)
    s3_faults.requests.clear()
    [found] = opened.records(file)
    assert isinstance(found, BadRecord)
    assert found.error == "cannot-open"
    assert len(s3_faults.requests) == 1
    s3_faults.kinds = ("401",)
    with pytest.raises(SourceError, match="credentials are missing, refused or expired"):
        list(opened.records(file))
    s3_faults.share = 0.0
    client.delete_object(Bucket=name, Key="in/a.jsonl")
    [found] = opened.records(file)
    assert isinstance(found, BadRecord)
    assert found.error == "cannot-open"


@pytest.mark.parametrize("what", ["replaced", "deleted"])
def test_an_object_that_is_replaced_while_it_is_read_is_never_spliced(
    bucket: tuple[str, Any], corpus_files: dict[str, bytes], what: str
) -> None:
    name, client = bucket
    before = corpus_files["large.jsonl.gz"]
    client.put_object(Bucket=name, Key="a.jsonl.gz", Body=before)
    opened = open_source(source(f"s3://{name}"))
    [file] = opened.inventory()
    records = opened.records(file)
    next(records)
    if what == "deleted":
        client.delete_object(Bucket=name, Key="a.jsonl.gz")
    else:
        client.put_object(Bucket=name, Key="a.jsonl.gz", Body=before[:-1] + b"?")
    with pytest.raises(SourceError, match=r"changed|vanished"):
        list(records)


def test_an_object_that_changed_since_the_inventory_is_refused(bucket: tuple[str, Any], memory: str) -> None:
    for place in (f"s3://{bucket[0]}", memory):
        put(f"{place}/a.jsonl", lines("first"))
        opened = open_source(source(place))
        [file] = opened.inventory()
        put(f"{place}/a.jsonl", lines("other"))
        with pytest.raises(SourceError, match=r"a\.jsonl changed after the inventory"):
            list(opened.records(file))


def read_in_worker(path: str) -> int:
    return len(both_kinds(path))


def test_workers_open_places_of_their_own(bucket: tuple[str, Any], corpus_files: dict[str, bytes]) -> None:
    name, client = bucket
    for key in ("0.jsonl.gz", "0.parquet"):
        client.put_object(Bucket=name, Key=key, Body=corpus_files[key])
    assert read_in_worker(f"s3://{name}") == 2900
    for way in ("spawn", "fork"):
        with ProcessPoolExecutor(1, multiprocessing.get_context(way)) as pool:
            assert pool.submit(read_in_worker, f"s3://{name}").result(60) == 2900


# --- web servers -----------------------------------------------------------------------------------------------------


class Site:
    """Files of a web server, and what it can do: send ranges, tell lengths and etags, answer HEAD."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = self.lengths = self.etags = self.heads = True
        self.modified = 1_700_000_000
        self.index_extra = ""
        self.encodings: dict[str, str] = {}
        self.redirects: dict[str, str] = {}


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        site, path = self.site, self.path
        if path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.redirects[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, kind = site.files.get(path), "application/octet-stream"
        if data is None and path.endswith("/") and any(name.startswith(path) for name in site.files):
            below = sorted({name[len(path) :].partition("/")[0::2][0] for name in site.files if name.startswith(path)})
            links = [name if f"{path}{name}" in site.files else f"{name}/" for name in below]
            page = "".join(f'<a href="{link}">{link}</a>\n' for link in links)
            page += site.index_extra if path == "/data/" else ""
            data, kind = page.encode(), "text/html; charset=utf-8"
        if data is None or (self.command == "HEAD" and not site.heads):
            self.send_response(404 if data is None else 405)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status, body = 200, data
        wanted = self.headers.get("Range", "")
        if wanted and site.ranges and data:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            status, body = 206, data[int(first) : int(last) + 1]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(body) - 1}/{len(data)}")
        if site.etags:
            self.send_header("ETag", f'"{blake2b(data, digest_size=8).hexdigest()}"')
        else:
            self.send_header("Last-Modified", formatdate(site.modified, usegmt=True))
        if path in site.encodings:
            self.send_header("Content-Encoding", site.encodings[path])
        if site.lengths:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "HEAD":
            return
        if site.lengths:
            self.wfile.write(body)
            return
        for begin in range(0, len(body), 60_000):
            piece = body[begin : begin + 60_000]
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    do_HEAD = do_GET

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()
            return
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[tuple[Site, tuple[str, int]]]:
    """(an empty site, the address of its server)."""
    found = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Pages", (_Pages,), {"site": found}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield found, ("127.0.0.1", server.server_port)
    server.shutdown()
    server.server_close()
    thread.join()


def address(site: tuple[Site, tuple[str, int]]) -> str:
    return f"http://{site[1][0]}:{site[1][1]}"


ABLE: dict[str, Callable[[Site], None]] = {
    "everything": lambda site: None,
    "no ranges": lambda site: setattr(site, "ranges", False),
    "no lengths": lambda site: setattr(site, "lengths", False),
    "no etags": lambda site: setattr(site, "etags", False),
    "no HEAD": lambda site: setattr(site, "heads", False),
    "nothing": lambda site: vars(site).update(ranges=False, lengths=False, etags=False, heads=False),
}


@pytest.mark.parametrize("able", ABLE)
def test_whatever_a_web_server_can_do_its_files_are_read(
    site: tuple[Site, tuple[str, int]], corpus_files: dict[str, bytes], truth: list[tuple[str, Found]], able: str
) -> None:
    site[0].files = {f"/in/{name}": data for name, data in corpus_files.items()}
    ABLE[able](site[0])
    assert both_kinds(f"{address(site)}/in/") == truth
    for name in ("large.jsonl.gz", "0.jsonl.gz"):
        [file] = open_source(source(f"{address(site)}/in/{name}")).inventory()
        assert file.uri == name
        assert file.etag
        assert file.bytes in (len(corpus_files[name]), 0)
        assert file.bytes or not site[0].lengths
        assert read(source(f"{address(site)}/in/{name}")) == [found for found in truth if found[0] == name]


def test_index_pages_are_followed_down_and_what_is_no_file_of_theirs_is_left_out(
    site: tuple[Site, tuple[str, int]],
) -> None:
    pages, url = site[0], address(site)
    for name in ("a.jsonl", "b%20c.jsonl", "2024/d.jsonl", "2024/deep/e.jsonl", ".hidden.jsonl", "notes.txt"):
        pages.files[f"/data/{name}"] = lines(name)
    pages.files["/other/f.jsonl"] = lines("not below")
    pages.index_extra = (
        '<a href="?C=M;O=A">sort</a> <a href="../">up</a> <a href="/">top</a> <a href="../other/f.jsonl">beside</a>'
        f'<a href="{url}/other/f.jsonl">absolute</a> <a href="a.jsonl#part">again</a> <a href="./a.jsonl">again</a>'
    )
    expected = ["2024/d.jsonl", "2024/deep/e.jsonl", "a.jsonl", "b%20c.jsonl"]
    assert uris(f"{url}/data/") == expected
    assert texts(source(f"{url}/data/")) == expected
    pages.redirects["/data"] = "/data/"
    assert uris(f"{url}/data") == expected
    assert uris(f"{url}/data/*.jsonl") == expected[2:]
    assert uris(f"{url}/data/2024/**/*.jsonl") == ["d.jsonl", "deep/e.jsonl"]
    pages.redirects["/latest.jsonl"] = "/data/2024/d.jsonl"
    assert read(source(f"{url}/latest.jsonl")) == [("latest.jsonl", Record(0, "2024/d.jsonl"))]
    with pytest.raises(SourceError, match="does not exist"):
        uris(f"{url}/nothing.jsonl")


def test_a_dead_link_of_an_index_page_is_a_file_that_cannot_be_opened(site: tuple[Site, tuple[str, int]]) -> None:
    site[0].files["/data/a.jsonl"] = lines("a")
    site[0].index_extra = '<a href="dead.jsonl">dead</a>'
    found = dict(read(source(f"{address(site)}/data/")))
    assert found["a.jsonl"] == Record(0, "a")
    dead = found["dead.jsonl"]
    assert isinstance(dead, BadRecord)
    assert dead.error == "cannot-open"


def test_what_a_server_calls_an_encoding_is_read_as_it_lies_there(site: tuple[Site, tuple[str, int]]) -> None:
    site[0].files["/a.jsonl.gz"] = gzip.compress(lines("packed"))
    site[0].encodings["/a.jsonl.gz"] = "gzip"
    assert texts(source(f"{address(site)}/a.jsonl.gz")) == ["packed"]


@pytest.mark.usefixtures("quickly_lost")
@pytest.mark.parametrize("able", ["everything", "no etags", "no ranges"])
def test_a_web_source_is_read_through_faults_as_if_there_were_none(
    site: tuple[Site, tuple[str, int]],
    corpus_files: dict[str, bytes],
    truth: list[tuple[str, Found]],
    able: str,
) -> None:
    site[0].files = {f"/in/{name}": data for name, data in corpus_files.items()}
    ABLE[able](site[0])
    with faulty(site[1], seed=3) as (url, faults):
        faults.silence_seconds = 0.8
        faults.kinds = tuple(kind for kind in KINDS if able != "no ranges" or kind != "short")
        faults.share = 0.3
        for _ in range(3):
            assert both_kinds(f"{url}/in/") == truth
        assert sum(faults.done.values()) > 15
        assert len(faults.done) >= 5


@pytest.mark.usefixtures("quickly_lost")
@pytest.mark.parametrize("kind", ["429", "reset", "silent"])
def test_a_fault_of_a_web_server_that_does_not_pass_is_an_oserror_that_names_file_and_position(
    site: tuple[Site, tuple[str, int]], corpus_files: dict[str, bytes], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site[0].files["/in/large.jsonl.gz"] = corpus_files["large.jsonl.gz"]
    with faulty(site[1]) as (url, faults):
        monkeypatch.setattr(remote, "TRIES", 2)
        faults.kinds, faults.silence_seconds = (kind,), 0.5
        opened = open_source(source(f"{url}/in/"))
        [file] = opened.inventory()
        records = opened.records(file)
        next(records)
        faults.share = 1.0
        with pytest.raises((ConnectionError, TimeoutError), match=r"/in/large\.jsonl\.gz at byte \d+"):
            list(records)
        with pytest.raises((ConnectionError, TimeoutError), match=r"large\.jsonl\.gz"):
            list(opened.records(file))
        with pytest.raises((ConnectionError, TimeoutError), match="/in/"):
            open_source(source(f"{url}/in/")).inventory()


@pytest.mark.parametrize("able", ["everything", "no etags", "no ranges"])
def test_a_file_that_is_replaced_on_a_web_server_while_it_is_read_is_never_spliced(
    site: tuple[Site, tuple[str, int]], corpus_files: dict[str, bytes], able: str
) -> None:
    before = corpus_files["large.jsonl.gz"]
    site[0].files["/a.jsonl.gz"] = before
    ABLE[able](site[0])
    with faulty(site[1]) as (url, faults):
        opened = open_source(source(f"{url}/a.jsonl.gz"))
        [file] = opened.inventory()
        if able == "no ranges":  # one answer holds the whole old file: it must be cut to have to be asked for again
            faults.share, faults.kinds = 1.0, ("cut",)
            with contextlib.suppress(ConnectionError):
                list(opened.records(file))
            faults.share = 0.0
        records = opened.records(file)
        if able != "no ranges":
            next(records)
        site[0].files["/a.jsonl.gz"] = before[:-1] + b"?"
        site[0].modified += 60
        with pytest.raises(SourceError, match="changed after the inventory"):
            list(records)


def test_a_server_may_ask_for_a_pause(site: tuple[Site, tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    class Asking(Exception):
        status = 503
        headers = {"Retry-After": "7"}  # noqa: RUF012

    waited: list[float] = []
    monkeypatch.setattr(remote, "LONGEST_PAUSE_SECONDS", 5.0)
    monkeypatch.setattr("time.sleep", waited.append)
    answers = iter([Asking(), Asking(), None])

    def call() -> str:
        if (error := next(answers)) is not None:
            raise error
        return "done"

    assert remote.patiently("there", call) == "done"
    assert waited == [5.0, 5.0]


def test_no_new_try_begins_when_patience_is_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionError, match=r"5 tries.*'there'"):
        remote.patiently("there", call)
    assert len(calls) == 5
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(ConnectionError, match=r"1 tries.*'there'"):
        remote.patiently("there", call)
    assert len(calls) == 6


# --- the reader ------------------------------------------------------------------------------------------------------


CONTENT = bytes(range(256)) * 3000 + b"end"


@pytest.mark.parametrize("place", ["memory", "web", "web without ranges"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from(["read", "read", "start", "here", "end"]),
            st.integers(-400_000, 400_000) | st.integers(-50, 50),
        ),
        max_size=8,
    )
)
def test_a_reader_gives_what_a_file_gives(
    site: tuple[Site, tuple[str, int]], memory: str, place: str, moves: list[tuple[str, int]]
) -> None:
    if place == "memory":
        put(f"{memory}/x", CONTENT)
        url = f"{memory}/x"
    else:
        site[0].files["/x"] = CONTENT
        site[0].ranges = place == "web"
        url = f"{address(site)}/x"
    system, path = remote.connect(url)
    with RemoteReader(system, path, lambda size, marks: None) as reader, io.BytesIO(CONTENT) as plain:
        for move, number in moves:
            if move == "read":
                assert reader.read(number) == plain.read(number)
            else:
                whence = {"start": io.SEEK_SET, "here": io.SEEK_CUR, "end": io.SEEK_END}[move]
                base = {"start": 0, "here": plain.tell(), "end": len(CONTENT)}[move]
                if base + number < 0:
                    with pytest.raises(ValueError, match="before the start"):
                        reader.seek(number, whence)
                else:
                    assert reader.seek(number, whence) == plain.seek(number, whence)
            assert reader.tell() == plain.tell()
    assert reader.closed


def test_blocks_grow_where_reading_goes_in_order_and_stay_bounded(site: tuple[Site, tuple[str, int]]) -> None:
    site[0].files["/x.jsonl"] = bytes(40 << 20)
    with faulty(site[1]) as (url, faults):
        root = find_root(f"{url}/x.jsonl")
        [file] = list_files(source(f"{url}/x.jsonl"), ())
        with open_input(root, file) as stream:
            assert stream.read(10) == bytes(10)
            assert stream.read() == bytes((40 << 20) - 10)
            stream.seek(-100, io.SEEK_END)
            assert len(stream.read(100)) == 100
        ranges = [wanted.removeprefix("bytes=").split("-") for _, _, wanted in faults.requests if wanted]
        sizes = [int(last) - int(first) + 1 for first, last in ranges]
    assert sizes[0] == 1 << 18
    assert max(sizes) == LARGEST_BLOCK
    assert len(sizes) < 12
    assert sizes[-1] == 100


def test_columns_of_a_parquet_file_cost_about_their_own_bytes(site: tuple[Site, tuple[str, int]]) -> None:
    packed = io.BytesIO()
    table = pa.table(
        {"text": [f"text {n}" for n in range(2000)], "ballast": [secrets.token_bytes(2000) for _ in range(2000)]}
    )
    pq.write_table(table, packed, row_group_size=1000)
    site[0].files["/a.parquet"] = packed.getvalue()
    with faulty(site[1]) as (url, faults):
        assert len(texts(source(f"{url}/a.parquet", "parquet"))) == 2000
        ranges = [wanted.removeprefix("bytes=").split("-") for _, _, wanted in faults.requests if wanted]
    assert len(packed.getvalue()) > 4_000_000
    assert sum(int(last) - int(first) + 1 for first, last in ranges) < 2_000_000


def test_a_store_that_compares_nothing_is_asked_again_at_the_end(memory: str) -> None:
    data = lines(*(secrets.token_hex(500) for _ in range(1000)))
    put(f"{memory}/a.jsonl", data)
    opened = open_source(source(memory))
    [file] = opened.inventory()
    records = opened.records(file)
    next(records)
    put(f"{memory}/a.jsonl", data[:-9] + data[-9:].upper())
    with pytest.raises(SourceError, match="changed after the inventory"):
        list(records)


def test_a_file_that_was_never_there_cannot_be_opened_anywhere(memory: str, s3_url: str, site: Any) -> None:
    site[0].files["/in/a.jsonl"] = b""
    for place in (memory, f"{s3_url}/{secrets.token_hex(3)}", f"{address(site)}/in/"):
        if not place.startswith("http"):
            put(f"{place}/a.jsonl", b"")
        [found] = open_source(source(place)).records(InputFile("web", "gone.jsonl", 3, "1"))
        assert isinstance(found, BadRecord)
        assert found.error == "cannot-open"
