"""A store publishes a file whole, once, and never over another; on a local disk, in memory and over S3."""

from __future__ import annotations

import hashlib
import multiprocessing
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from storage import remote
from storage.filesystem import TEMPORARY_PREFIX, Store, digest_bytes

SPAWN = multiprocessing.get_context("spawn")


# ---------------------------------------------------------------- creating


def test_what_is_created_is_read_back(store: Store) -> None:
    store.create("a/b/c.txt", b"hello")
    assert store.exists("a/b/c.txt")
    assert not store.exists("a/b"), "a folder is not a file"
    assert store.size("a/b/c.txt") == 5
    assert store.read_bytes("a/b/c.txt") == b"hello"
    digest = f"sha256:{hashlib.sha256(b'hello').hexdigest()}"
    assert store.digest("a/b/c.txt") == digest
    assert store.has_digest("a/b/c.txt", digest)
    assert store.has_digest("a/b/c.txt", digest_bytes(b"hello")), "as older versions named files"
    assert not store.has_digest("a/b/c.txt", digest_bytes(b"hell"))
    with pytest.raises(ValueError, match="'md5:00' is not a digest of one of sha256, blake2b"):
        store.has_digest("a/b/c.txt", "md5:00")
    with store.open("a/b/c.txt") as first, store.open("a/b/c.txt") as second:
        assert first.read(3) == b"hel"
        assert second.read() == b"hello", "readers do not share a position"


def test_a_second_creation_fails_and_changes_nothing(store: Store) -> None:
    store.create("x.json", b"first")
    with pytest.raises(FileExistsError, match="already published"):
        store.create("x.json", b"second")
    with pytest.raises(FileExistsError, match="already published"):
        store.create("x.json", b"first")
    assert store.read_bytes("x.json") == b"first"
    assert store.listing() == {"x.json": 5}


def test_an_empty_file_counts_as_created(store: Store) -> None:
    store.create("marker", b"")
    assert store.size("marker") == 0
    with pytest.raises(FileExistsError):
        store.create("marker", b"")


def test_a_published_file_cannot_be_published_over(store: Store, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.bin").write_bytes(b"%d" % number)
    store.publish(tmp_path / "1.bin", "parts/a.bin")
    with pytest.raises(FileExistsError):
        store.publish(tmp_path / "2.bin", "parts/a.bin")
    assert store.read_bytes("parts/a.bin") == b"1"
    assert (tmp_path / "2.bin").exists(), "the loser keeps its file"


def test_files_sent_in_several_parts_are_exclusive_too(
    s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda size, chunksize=None: 5 << 20)
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_bytes(b"1" * (11 << 20))
    second.write_bytes(b"2" * (11 << 20))
    s3_store.publish(first, "large.bin")
    with pytest.raises(FileExistsError):
        s3_store.publish(second, "large.bin")
    assert s3_store.size("large.bin") == 11 << 20
    assert s3_store.digest("large.bin") == f"sha256:{hashlib.sha256(first.read_bytes()).hexdigest()}"


def test_a_file_where_a_folder_is_needed_is_not_taken_for_a_lost_race(local_store: Store) -> None:
    local_store.create("a", b"")
    for path in ("a/b", "a/b/c"):
        with pytest.raises(NotADirectoryError):
            local_store.create(path, b"")


def test_publishing_from_another_disk_copies(
    local_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    real = os.link
    source = tmp_path / "source"
    source.write_bytes(b"data")

    def link(file: Any, target: Any) -> None:
        if Path(file) == source:
            raise OSError(errno.EXDEV, "another device")
        real(file, target)

    monkeypatch.setattr(os, "link", link)
    local_store.publish(source, "folder/file")
    assert local_store.listing() == {"folder/file": 4}
    with pytest.raises(FileExistsError):
        local_store.publish(source, "folder/file")


def test_a_file_system_without_hard_links_is_refused_with_advice(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def link(file: Any, target: Any) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match="no hard links"):
        local_store.create("x", b"")


# ---------------------------------------------------------------- races


def _race(url: str, path: str, number: int, start: Any, results: Any) -> None:
    store = Store(url)
    start.wait()
    try:
        store.create(path, b"%d" % number * 100_000)
    except FileExistsError as error:
        results.put((number, "lost", error.errno))
    else:
        results.put((number, "won", None))


def test_of_two_processes_publishing_one_name_one_wins(local_store: Store) -> None:
    import errno

    start, results = SPAWN.Barrier(2), SPAWN.Queue()
    racers = [SPAWN.Process(target=_race, args=(local_store.url, "x/y", n, start, results)) for n in (1, 2)]
    for racer in racers:
        racer.start()
    outcomes = sorted(results.get(timeout=30) for _ in racers)
    for racer in racers:
        racer.join()
    winner = next(number for number, outcome, _ in outcomes if outcome == "won")
    assert sorted(outcome for _, outcome, _ in outcomes) == ["lost", "won"]
    assert [number for _, outcome, number in outcomes if outcome == "lost"] == [errno.EEXIST]
    assert local_store.read_bytes("x/y") == b"%d" % winner * 100_000


def test_of_many_threads_publishing_one_name_one_wins(store: Store) -> None:
    barrier = threading.Barrier(6)

    def attempt(number: int) -> bool:
        barrier.wait()
        try:
            # All write the same bytes: who won must be known even so.
            store.create("x/y", b"same")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(attempt, range(6))) == 1
    assert store.listing() == {"x/y": 4}


def test_a_reader_never_sees_half_a_file(shared_store: Store) -> None:
    size = 3 << 20
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for path, length in shared_store.listing().items():
                seen.add(length)
                seen.add(len(shared_store.read_bytes(path)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(6):
        shared_store.create(f"{number}.bin", bytes(size))
    done.set()
    watcher.join()
    assert seen <= {size}


def test_a_replaced_file_is_always_one_of_the_versions(store: Store) -> None:
    versions = {bytes([number]) * 200_000 for number in range(5)}
    store.replace("record.json", bytes(200_000))
    seen: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(store.read_bytes("record.json"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for version in sorted(versions):
        store.replace("record.json", version)
    done.set()
    watcher.join()
    assert seen <= versions
    assert store.read_bytes("record.json") == max(versions)


# ---------------------------------------------------------------- answers that get lost


@pytest.fixture
def lose_answers(monkeypatch: pytest.MonkeyPatch, s3_url: str) -> Any:
    """Make S3 answer an operation with a status, before or after doing it, a number of times."""
    from moto.s3.responses import S3Response

    def install(name: str, times: int, status: int, code: str, *, after: bool) -> list[int]:
        real, left = getattr(S3Response, name), [times]

        def call(*arguments: Any, **options: Any) -> Any:
            opens_upload = name == "_key_response_post" and "uploadId" not in str(arguments)
            if left[0] <= 0 or opens_upload:
                return real(*arguments, **options)
            left[0] -= 1
            if after:
                real(*arguments, **options)
            body = f"<Error><Code>{code}</Code><Message>on purpose</Message></Error>"
            return status, {"content-type": "application/xml"}, body

        monkeypatch.setattr(S3Response, name, call)
        return left

    return install


def test_a_file_that_arrived_although_the_answer_did_not_is_ours(s3_store: Store, lose_answers: Any) -> None:
    s3_store.create("warm", b"")
    left = lose_answers("put_object", 1, 500, "InternalError", after=True)
    s3_store.create("x", b"data")
    assert left == [0]
    assert s3_store.read_bytes("x") == b"data"
    with pytest.raises(FileExistsError):
        s3_store.create("x", b"data")


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (404, "NoSuchUpload")])
def test_a_file_in_parts_that_arrived_although_the_answer_did_not_is_ours(
    s3_store: Store, lose_answers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, code: str
) -> None:
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda size, chunksize=None: 5 << 20)
    (tmp_path / "x").write_bytes(bytes(11 << 20))
    s3_store.create("warm", b"")
    left = lose_answers("_key_response_post", 1, status, code, after=True)
    s3_store.publish(tmp_path / "x", "x")
    assert left == [0]
    assert s3_store.size("x") == 11 << 20


def test_a_conflict_is_tried_again_while_the_name_is_free(s3_store: Store, lose_answers: Any) -> None:
    s3_store.create("warm", b"")
    left = lose_answers("put_object", 2, 409, "ConditionalRequestConflict", after=False)
    s3_store.create("x", b"data")
    assert left == [0]
    assert s3_store.read_bytes("x") == b"data"


def test_a_conflict_over_a_taken_name_is_a_lost_race(s3_store: Store, lose_answers: Any) -> None:
    s3_store.create("x", b"first")
    lose_answers("put_object", 1, 409, "ConditionalRequestConflict", after=False)
    with pytest.raises(FileExistsError):
        s3_store.create("x", b"second")
    assert s3_store.read_bytes("x") == b"first"


def test_a_conflict_that_stays_is_an_error_not_a_lost_race(
    s3_store: Store, lose_answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_store.create("warm", b"")
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    lose_answers("put_object", 99, 409, "ConditionalRequestConflict", after=False)
    with pytest.raises(OSError, match="on purpose") as caught:
        s3_store.create("x", b"data")
    assert not isinstance(caught.value, FileExistsError)


def test_a_store_that_ignores_the_condition_is_refused(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = Store(f"{s3_url}/careless")
    real = store._remote.files.put_file
    monkeypatch.setattr(
        store._remote.files, "put_file", lambda file, path, mode, **more: real(file, path, mode="overwrite", **more)
    )
    with pytest.raises(OSError, match="cannot create a file exclusively"):
        store.create("x", b"data")
    assert store.listing() == {}


def test_a_missing_bucket_is_said_as_such(s3_url: str) -> None:
    store = Store("s3://no-such-bucket/ws")
    with pytest.raises(FileNotFoundError):
        store.create("x", b"")
    assert store.listing() == {}
    assert not store.exists("x")


# ---------------------------------------------------------------- listing


def test_listing_names_what_lies_below_a_folder_and_nothing_else(store: Store) -> None:
    for path in ("a/1", "a/b/2", "ab/3", "a.txt"):
        store.create(path, path.encode())
    assert store.listing() == {"a.txt": 5, "a/1": 3, "a/b/2": 5, "ab/3": 4}
    assert list(store.listing()) == sorted(store.listing())
    assert store.listing("a") == store.listing("a/") == store.listing("./a") == {"a/1": 3, "a/b/2": 5}
    assert store.listing("a/1") == {}, "a file is not a folder"
    assert store.listing("nothing/here") == {}
    assert store.folders("a") == ["b"]
    assert store.folders("") == ["a", "ab"]
    assert store.folders("nothing") == []


def test_a_new_file_is_seen_at_once_by_others(shared_store: Store) -> None:
    other = Store(shared_store.url)
    assert not other.exists("a/1")
    assert other.listing("a") == {}
    assert other.folders("a") == []
    shared_store.create("a/b/1", b"12")
    assert other.exists("a/b/1")
    assert other.size("a/b/1") == 2
    assert other.listing("a") == {"a/b/1": 2}
    assert other.folders("a") == ["b"]
    shared_store.replace("a/b/1", b"123")
    assert other.size("a/b/1") == 3


def test_unfinished_files_are_not_listed(store: Store) -> None:
    with store.temporary("a/x") as file:
        file.write_bytes(b"half")
        assert file.name.startswith(TEMPORARY_PREFIX)
        assert store.listing() == {}
        file_kept = file
    assert not file_kept.exists(), "and they are removed"


# ---------------------------------------------------------------- the rest


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a/..", "a\0b"])
def test_paths_outside_are_refused(store: Store, path: str) -> None:
    for call in (store.exists, store.read_bytes, store.listing, store.remove, store.remove_tree, store.size):
        with pytest.raises(ValueError, match="not a path inside"):
            call(path)
    with pytest.raises(ValueError, match="not a path inside"):
        store.create(path, b"")
    with pytest.raises(ValueError, match="not a path inside"):
        store.replace(path, b"")


def test_missing_files_raise_file_not_found(store: Store) -> None:
    for call in (store.size, store.read_bytes, store.read_json, store.digest):
        with pytest.raises(FileNotFoundError):
            call("no/such/file")


def test_removing_is_idempotent_and_never_empties_the_store(store: Store) -> None:
    for path in ("a/1", "a/b/2", "c"):
        store.create(path, b"")
    store.remove("c")
    store.remove("c")
    store.remove_tree("a")
    store.remove_tree("a")
    assert store.listing() == {}
    for everything in ("", ".", "./"):
        with pytest.raises(ValueError, match="name a folder"):
            store.remove_tree(everything)


def test_json_is_sorted_and_refuses_what_json_cannot_express(store: Store) -> None:
    store.create_json("a.json", {"b": "ü", "a": [1, None]})
    assert store.read_bytes("a.json").decode().replace("\n", "").replace(" ", "") == '{"a":[1,null],"b":"ü"}'
    with pytest.raises(ValueError, match=r"bad\.json cannot be written"):
        store.create_json("bad.json", {"loss": float("nan")})
    store.create("broken.json", b"{")
    with pytest.raises(ValueError, match=r"broken\.json is not valid JSON"):
        store.read_json("broken.json")


def test_fetch_copies_whole(store: Store, tmp_path: Path) -> None:
    store.create("a/x", b"data")
    target = tmp_path / "deep" / "copy"
    store.fetch("a/x", target)
    assert target.read_bytes() == b"data"
    with pytest.raises(FileNotFoundError):
        store.fetch("a/y", tmp_path / "deep" / "other")
    assert [p.name for p in target.parent.iterdir()] == ["copy"]


def test_stores_are_told_apart_by_url_and_travel_by_pickle(store: Store) -> None:
    store.create("x", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert hash(copy) == hash(store)
    assert copy.read_bytes("x") == b"1"
    assert copy != Store("memory://elsewhere")


def _read_in_child(store: Store, path: str, results: Any) -> None:
    results.put((store.read_bytes(path), store.listing()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_store_works_in_child_processes(shared_store: Store, method: str) -> None:
    shared_store.create("x", b"1")
    context = multiprocessing.get_context(method)
    results = context.Queue()
    child = context.Process(target=_read_in_child, args=(shared_store, "x", results))
    child.start()
    assert results.get(timeout=30) == (b"1", {"x": 1})
    child.join()
    assert child.exitcode == 0


def test_memory_stores_with_different_prefixes_do_not_meet() -> None:
    one, two, root = Store("memory://one"), Store("memory://two/deep/"), Store("memory://")
    one.create("x", b"1")
    two.create("x", b"2")
    assert (one.listing(), two.read_bytes("x")) == ({"x": 1}, b"2")
    assert root.read_bytes("two/deep/x") == b"2"
    assert {"one/x", "two/deep/x"} <= root.listing().keys()
    one.remove_tree("x")
    one.remove("x")
    two.remove("x")


def test_local_urls_name_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Store("ws").create("x", b"1")
    for url in ("./ws", tmp_path / "ws", f"file://{tmp_path}/ws", f"local://{tmp_path}/ws"):
        assert Store(url) == Store("ws")
        assert Store(url).read_bytes("x") == b"1"


def test_remote_scratch_is_private_and_local_scratch_lies_inside(store: Store) -> None:
    folder = store.scratch()
    assert folder.is_dir()
    if store.is_local:
        assert folder.parent == store.root
    else:
        assert folder.stat().st_mode & 0o077 == 0
