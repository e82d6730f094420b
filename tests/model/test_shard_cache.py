"""What training on shards of an object store promises: the batches of local ones, bounded copies, errors by name."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from model import train
from model.config import TrainingConfig
from model.data import Loader, TokenShard, TokenShardError, TokenStream
from model.shard_cache import ShardCache
from model.token_data import read_token_data
from storage.filesystem import Store, digest_bytes
from tests.model.token_files import END, VOCABULARY, command, documents, environment, job_values, write_job, write_shard

SHARDS, TIME = 6, 32
CONFIG = TrainingConfig(sequence_length=TIME, seed=3)


@pytest.fixture
def remote(tmp_path: Path, s3_store: Store) -> list[dict[str, Any]]:
    """What a job file says of six shards on S3, the same as `0.arrow` … `5.arrow` on disk."""
    found = []
    for number in range(SHARDS):
        file = write_shard(tmp_path / f"{number}.arrow", documents(30, number))
        data = file.read_bytes()
        s3_store.create(file.name, data)
        facts = {"path": f"{s3_store.url}/{file.name}", "tokens": TokenShard(file).length}
        found.append({**facts, "bytes": len(data), "digest": digest_bytes(data)})
    return found


def loader_of(shards: list[dict[str, Any]], cache: ShardCache) -> Loader:
    data = read_token_data({"train": shards, "digest": "blake2b:01", "end_id": END}, VOCABULARY, "tokens")
    return data.training(CONFIG, Loader, cache)


def local_loader(folder: Path) -> Loader:
    paths = [folder / f"{number}.arrow" for number in range(SHARDS)]
    return Loader(TokenStream(paths, VOCABULARY, END), TIME, shuffle_seed=3, document_mask=True)


def copies(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.is_file()]


def mapped(folder: Path) -> set[str]:
    """Copies that this process maps; those that were removed end with "(deleted)"."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split(None, 5)[5] for line in lines if str(folder) in line}


@pytest.mark.parametrize("room", [SHARDS, 2])
def test_batches_are_those_of_local_shards_and_copies_stay_in_their_limit(
    tmp_path: Path, remote: list[dict[str, Any]], room: int
) -> None:
    limit = room * max(shard["bytes"] for shard in remote)
    folder = tmp_path / "cache"
    cache = ShardCache(folder, limit)
    loader, local = loader_of(remote, cache), local_loader(tmp_path)
    assert copies(folder) == []  # none before it is read
    assert loader.sequences == local.sequences > 10 * SHARDS
    # With room for two, every batch fetches shards again.
    for start in range(0, 2 * loader.sequences if room == SHARDS else 48, 4):
        ours, theirs = (some.batch(range(start, start + 4)) for some in (loader, local))
        assert torch.equal(ours.tokens, theirs.tokens)
        assert torch.equal(ours.targets, theirs.targets)
        assert ours.boundaries is not None
        assert torch.equal(ours.boundaries, theirs.boundaries)  # type: ignore[arg-type]
        assert sum(file.stat().st_size for file in copies(folder)) <= limit
        # What was removed is let go of at the next download, and its room on the disk is free.
        assert len(mapped(folder)) <= len(copies(folder)) + 4
    assert len(copies(folder)) == room
    cache.close()


def test_announced_shards_come_in_the_background(tmp_path: Path, remote: list[dict[str, Any]]) -> None:
    folder = tmp_path / "cache"
    cache = ShardCache(folder, 2 * sum(shard["bytes"] for shard in remote))
    loader = loader_of(remote, cache)
    loader.announce(range(20))
    needed = {int(sequence) * TIME for sequence in loader.locate(range(20)).sequences}
    stream = loader.by_number[0].stream
    shards = {stream.starts.searchsorted(place, side="right") for start in needed for place in (start, start + TIME)}
    deadline = time.monotonic() + 20
    while len([file for file in copies(folder) if file.suffix != ".partial"]) < len(shards):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not any(shard.is_open for shard in stream.shards)
    cache.close()


def test_what_is_announced_takes_no_more_than_half_of_the_room(tmp_path: Path, remote: list[dict[str, Any]]) -> None:
    largest = max(shard["bytes"] for shard in remote)
    cache = ShardCache(tmp_path / "cache", 4 * largest)
    loader = loader_of(remote, cache)
    for start in range(0, loader.sequences, 10):
        loader.announce(range(start, start + 10))  # all shards
    time.sleep(1.0)
    assert 1 <= len(copies(tmp_path / "cache")) <= 2
    batch = loader.batch(range(20))  # those that were not announced come when they are read
    assert torch.equal(batch.tokens, local_loader(tmp_path).batch(range(20)).tokens)
    cache.close()


@pytest.mark.parametrize("announced", [False, True])
def test_a_changed_shard_is_named(
    tmp_path: Path, s3_store: Store, remote: list[dict[str, Any]], announced: bool
) -> None:
    whole = s3_store.read_bytes("4.arrow")
    s3_store.replace("4.arrow", whole[:-1] + bytes([whole[-1] ^ 1]))
    cache = ShardCache(tmp_path / "cache", 10**9)
    loader = loader_of(remote, cache)
    if announced:
        loader.announce(range(loader.sequences))
    with pytest.raises(TokenShardError, match=rf"token shard {s3_store.url}/4\.arrow has other content"):
        loader.batch(range(loader.sequences))
    assert len(copies(tmp_path / "cache")) < SHARDS
    cache.close()


def test_a_shard_that_is_gone_is_named(tmp_path: Path, s3_store: Store, remote: list[dict[str, Any]]) -> None:
    s3_store.remove("2.arrow")
    loader = loader_of(remote, ShardCache(tmp_path / "cache", 10**9))
    with pytest.raises(TokenShardError, match=r"2\.arrow does not exist"):
        loader.batch(range(loader.sequences))


def test_remote_shards_need_their_size_and_digest(remote: list[dict[str, Any]]) -> None:
    for field in ("bytes", "digest"):
        shard = {key: value for key, value in remote[0].items() if key != field}
        with pytest.raises(ValueError, match=r"tokens\.train\[1\] = .* give its `bytes` and its `digest`"):
            read_token_data({"train": [remote[0], shard], "digest": "blake2b:01"}, VOCABULARY, "tokens")


def test_remote_shards_need_a_cache(remote: list[dict[str, Any]]) -> None:
    data = read_token_data({"train": remote, "digest": "blake2b:01"}, VOCABULARY, "tokens")
    with pytest.raises(ValueError, match="need a cache of copies"):
        data.training(CONFIG, Loader, None)


def job_over(folder: Path, remote: list[dict[str, Any]], **resources: Any) -> dict[str, Any]:
    values = job_values(folder)
    values["tokens"] = {**values["tokens"], "train": remote[:-1], "validation": remote[-1:]}
    values["resources"] |= {"cache_folder": str(folder / "cache"), **resources}
    return values


def test_training_from_an_object_store_ends_with_the_tensors_of_a_local_one(
    tmp_path: Path, remote: list[dict[str, Any]]
) -> None:
    # A megabyte: more than all of them.
    result = train.pretrain(train.parse_job(job_over(tmp_path, remote, cache_megabytes=1)))
    local = job_values(tmp_path, attempt="local")
    paths = [str(tmp_path / f"{number}.arrow") for number in range(SHARDS)]
    local["tokens"] |= {"train": paths[:-1], "validation": paths[-1:]}
    local["output"] = str(tmp_path / "local")
    assert train.pretrain(train.parse_job(local))["tensor_digest"] == result["tensor_digest"]
    assert len(copies(tmp_path / "cache")) == SHARDS


@pytest.mark.parametrize("processes", [0, 2])
def test_a_changed_shard_ends_the_training_with_its_name(
    tmp_path: Path, s3_store: Store, remote: list[dict[str, Any]], processes: int
) -> None:
    s3_store.replace("1.arrow", bytes(remote[1]["bytes"]))
    values = job_over(tmp_path, remote, processes=max(1, processes))
    job = write_job(values, tmp_path / "job.json")
    ended = subprocess.run(command(job, processes), env=environment(), capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "1.arrow has other content in the store than its digest says" in ended.stderr
    assert "Traceback" not in ended.stderr or processes  # torchrun adds its own
