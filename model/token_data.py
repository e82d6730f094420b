"""What a job says of its data: token shards and their sources, the plan that mixes them, the end token."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from model.config import TrainingConfig
from model.order import ALL, Segment, read_segments
from model.schedule import Schedule
from model.shards import TokenStream

Kind = TypeVar("Kind", bound=Schedule)


@dataclass(frozen=True)
class Shard:
    """A token shard: where it lies, its tokens where they are known, and its source."""

    path: str
    tokens: int | None = None
    source: str = ALL


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

    def stream(self, shards: Sequence[Shard]) -> TokenStream:
        """Some of the shards as one stream."""
        return TokenStream(
            [shard.path for shard in shards],
            self.vocabulary_size,
            self.end_id,
            [shard.tokens for shard in shards],
        )

    def training(self, config: TrainingConfig, kind: type[Kind]) -> Kind:
        """The sequences to train on: of one stream, or, under a plan, of a stream for every source that it names."""
        named = {source for segment in self.plan for source in segment.weights}
        groups = {source: [shard for shard in self.train if shard.source == source] for source in sorted(named)}
        streams = {source: self.stream(shards) for source, shards in groups.items() if shards}
        return kind(
            streams if self.plan else self.stream(self.train),
            config.sequence_length,
            shuffle_seed=config.seed,
            document_mask=config.document_mask,
            plan=self.plan,
            packing=config.packing,
            overlap=config.overlap,
            shortest=config.shortest_bucket,
            end_once=self.end_once,
        )


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
                f"{where}[{number}] = {value!r} is neither a path nor an object with path, tokens, source"
            ) from None
    return tuple(found)
