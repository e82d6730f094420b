"""What a job says of its data: token shards and their sources, the plan that mixes them, the end token."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from model.config import TrainingConfig, TrainingResources
from model.lanes import Lanes
from model.order import ALL, Segment, read_segments
from model.schedule import Schedule
from model.shard_cache import ShardCache
from model.shards import TokenShard, TokenStream
from storage.cache import RemoteFile
from storage.filesystem import Store, is_file_digest, is_local, private_folder

Kind = TypeVar("Kind", bound=Schedule)


@dataclass(frozen=True)
class Shard:
    """A token shard: where it lies, its tokens where they are known, and its source.

    `bytes` and `digest` ("sha256:hex") of the file are what a shard of a remote store (`path` is a URL) needs.
    """

    path: str
    tokens: int | None = None
    source: str = ALL
    bytes: int | None = None
    digest: str | None = None

    @property
    def is_remote(self) -> bool:
        """Whether it lies in a store that cannot be mapped into memory."""
        return not is_local(self.path)


@dataclass(frozen=True)
class TokenData:
    """The data of a training.

    `digest` names what the shards hold: of all of them, or, where a plan may get new sources, by source.
    `end_once`: the end token stands nowhere but at the end of documents.
    """

    train: tuple[Shard, ...]
    validation: tuple[Shard, ...]
    plan: tuple[Segment, ...]
    digest: str | Mapping[str, str]
    end_id: int | None
    end_once: bool
    vocabulary_size: int

    def identity(self) -> dict[str, Any]:
        """What a checkpoint belongs to, without paths."""
        found: dict[str, Any] = {"digest": self.digest, "end_id": self.end_id}
        if self.plan:
            found["plan"] = [dataclasses.asdict(segment) for segment in self.plan]
        return found

    def shard_cache(self, resources: TrainingResources) -> ShardCache | None:
        """What keeps copies of the shards that lie in remote stores; None if there are none."""
        if not any(shard.is_remote for shard in (*self.train, *self.validation)):
            return None
        folder = Path(resources.cache_folder).expanduser() if resources.cache_folder else private_folder("shards")
        return ShardCache(folder, resources.cache_megabytes * 1_000_000)

    def stream(self, shards: Sequence[Shard], copies: ShardCache | None) -> TokenStream:
        """Some of the shards as one stream."""
        if copies is None and any(shard.is_remote for shard in shards):
            raise ValueError("token shards of a remote store need a cache of copies; see TokenData.shard_cache")
        store = cache(Store)

        def opened(shard: Shard) -> TokenShard:
            if not shard.is_remote:
                return TokenShard(shard.path, shard.tokens)
            folder, _, name = shard.path.rpartition("/")
            remote = RemoteFile(store(folder), name, shard.bytes or 0, shard.digest or "")
            return TokenShard(shard.path, shard.tokens, remote, copies)

        return TokenStream([opened(shard) for shard in shards], self.vocabulary_size, self.end_id)

    def training(self, config: TrainingConfig, kind: type[Kind], copies: ShardCache | None) -> Kind:
        """The sequences to train on: of one stream, or, under a plan, of a stream for every source that it names."""
        named = {source for segment in self.plan for source in segment.weights}
        groups = {source: [shard for shard in self.train if shard.source == source] for source in sorted(named)}
        streams = {source: self.stream(shards, copies) for source, shards in groups.items() if shards}
        return kind(
            streams if self.plan else self.stream(self.train, copies),
            config.sequence_length,
            shuffle_seed=config.seed,
            document_mask=config.document_mask,
            plan=self.plan,
            packing=config.packing,
            overlap=config.overlap,
            shortest=config.shortest_bucket,
            end_once=self.end_once,
            lanes=lanes_of(config),
        )


def lanes_of(config: TrainingConfig) -> Lanes | None:
    """The lanes of a training; None where sequences are shuffled as a whole."""
    return Lanes(config.lanes, config.block_sequences, config.window_blocks) if config.lanes else None


def read_token_data(values: Mapping[str, Any], vocabulary_size: int, where: str) -> TokenData:
    """The data of a job file's `tokens`.

    Raises
    ------
    ValueError
        Naming the field that is wrong; KeyError of one that is missing.
    """
    return TokenData(
        train=_shards(values["train"], f"{where}.train"),
        validation=_shards(values.get("validation", ()), f"{where}.validation"),
        plan=read_segments(values["plan"]) if values.get("plan") else (),
        digest=values["digest"],
        end_id=values.get("end_id"),
        end_once=bool(values.get("end_once", False)),
        vocabulary_size=vocabulary_size,
    )


def _shards(values: Iterable[Any], where: str) -> tuple[Shard, ...]:
    found = []
    for number, value in enumerate(values):
        try:
            found.append(Shard(value) if isinstance(value, str) else Shard(**value))
        except TypeError:
            raise ValueError(
                f"{where}[{number}] = {value!r} is neither a path nor an object with path, tokens, source, bytes, "
                "digest"
            ) from None
        if found[-1].is_remote and (found[-1].bytes is None or not is_file_digest(found[-1].digest)):
            raise ValueError(
                f"{where}[{number}] = {value!r} lies in a remote store: give its `bytes` and its `digest` (sha256:hex)"
            )
    return tuple(found)
