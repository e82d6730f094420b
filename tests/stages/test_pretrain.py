"""What pretraining promises before it starts: no shard is opened to know that they are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from model.config import MixtureSegment, TrainingConfig
from model.data import Loader, TokenShardError
from model.token_data import TokenData, read_token_data
from stages.base import StageError
from stages.config import PretrainConfig
from stages.pretrain import training_data
from storage.filesystem import Store, digest_bytes, json_bytes
from storage.manifests import Counts, Part
from storage.outputs import Output, complete
from tests.model.token_files import END, VOCABULARY, documents, write_shard

FOLDER = "outputs/tokenize/0123456789abcdef"
CONFIG = PretrainConfig(training=TrainingConfig(sequence_length=32))


def tokenized(store: Store, shards: int) -> Output:
    """An output of tokenize with so many real shards, all of the same small documents."""
    file = store.scratch() / "shard.arrow"
    data = write_shard(file, rows := documents(3, 1)).read_bytes()
    tokens, digest = sum(map(len, rows)), digest_bytes(data)
    parts, facts = [], []
    for number in range(shards):
        split = "train" if number % 100 else "validation"
        name = f"part-{number:05d}-0000"
        parts.append(
            Part(f"{split}-arrow/{name}", f"{FOLDER}/{split}-arrow/{name}.arrow", "0" * 32, 3, len(data), digest)
        )
        facts.append({"split": split, "name": name, "source": "web", "tokens": tokens})
        target = store.local(parts[-1].path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    summary = {"end_id": END, "end_token": True, "vocabulary_size": VOCABULARY}
    for name, value in (("summary/shards", {"end_once": True, "shards": facts}), ("summary/tokens", summary)):
        content = json_bytes(value, name)
        store.create(f"{FOLDER}/{name}.json", content)
        parts.append(Part(name, f"{FOLDER}/{name}.json", "0" * 32, 0, len(content), digest_bytes(content)))
    return complete(
        store, FOLDER, stage="tokenize", version=1, fingerprint=FOLDER.rpartition("/")[2], parameters={}, inputs={},
        parts=parts, counts=Counts(3 * shards, 3 * shards), numerics={}, timings={}, software={}, git={},
    )  # fmt: skip


def token_data(output: Output) -> TokenData:
    data = training_data(output, CONFIG)
    return read_token_data(data, data["vocabulary_size"], "tokens")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files that pyarrow maps from now on."""
    found: list[str] = []
    honest = pa.memory_map

    def noted(path: str, *arguments: Any) -> Any:
        found.append(Path(path).name)
        return honest(path, *arguments)

    monkeypatch.setattr(pa, "memory_map", noted)
    return found


def test_of_ten_thousand_shards_only_those_that_are_read_are_opened(local_store: Store, opened: list[str]) -> None:
    output = tokenized(local_store, 10_000)
    data = token_data(output)
    loader = data.training(CONFIG.training, Loader, None)
    assert len(data.train) == 9_900
    assert loader.sequences > 9_900
    assert opened == []
    batch = loader.batch(range(8))
    assert batch.tokens.shape == (8, 32)
    assert 1 <= len(opened) <= 16


def test_missing_and_cut_shards_are_found_by_their_sizes(local_store: Store, opened: list[str]) -> None:
    output = tokenized(local_store, 300)
    files = [local_store.local(part.path) for part in output.parts("train-arrow")]
    files[7].unlink()
    files[9].write_bytes(files[9].read_bytes()[:-1])
    with pytest.raises(
        StageError, match=r"2 cannot be used: .*part-00008-0000\.arrow is missing; .*has \d+ bytes where"
    ):
        training_data(output, CONFIG)
    assert opened == []


def test_damage_of_the_same_size_is_named_when_the_shard_is_read(local_store: Store) -> None:
    output = tokenized(local_store, 300)
    damaged = output.parts("train-arrow")[5]
    file = local_store.local(damaged.path)
    file.write_bytes(bytes(file.stat().st_size))
    loader = token_data(output).training(CONFIG.training, Loader, None)
    with pytest.raises(TokenShardError, match=r"part-00006-0000\.arrow is damaged"):
        loader.batch(range(loader.sequences))
    assert output.problems() == []
    assert output.problems([damaged], digests=True) == [f"{damaged.path} has other content than its digest says"]


def test_a_mixture_names_sources_that_are_there(local_store: Store) -> None:
    config = PretrainConfig(training=CONFIG.training, mixture=(MixtureSegment(weights={"wbe": 1}),))
    with pytest.raises(StageError, match=r"plan\[0\]\.weights\.wbe: no training document is of this source"):
        training_data(tokenized(local_store, 2), config)
