"""What the length curriculum promises: the same tokens and targets at the same positions, in parts that see less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import LengthSegment, ModelConfig, TrainingConfig
from model.curriculum import in_parts, lengths_at
from model.data import IGNORED, Batch, Loader, TokenStream
from model.parallel import Ranks
from model.transformer import Transformer
from tests.model.token_files import END, VOCABULARY, documents, write_shard

TIME = 32
SEGMENTS = (LengthSegment(start=0, length=8), LengthSegment(start=6, length=16), LengthSegment(start=11, length=32))

torch.set_num_threads(1)


@pytest.fixture
def loader(tmp_path: Path) -> Loader:
    stream = TokenStream([write_shard(tmp_path / "s.arrow", documents(40, 1, 60))], VOCABULARY, END)
    return Loader(stream, TIME, shuffle_seed=2, document_mask=True)


def test_lengths_follow_the_segments() -> None:
    assert lengths_at(SEGMENTS, range(13)).tolist() == [8] * 6 + [16] * 5 + [32] * 2


def test_tokens_and_targets_stay_and_parts_are_told_apart_as_well_as_documents(loader: Loader) -> None:
    for positions in (range(4), range(4, 9), range(9, 14), range(12, 15), [3, 12, 7]):
        whole = loader.batch(positions)
        parts = in_parts(whole, SEGMENTS, positions)
        assert torch.equal(parts.tokens.flatten(), whole.tokens.flatten())
        assert torch.equal(parts.targets.flatten(), whole.targets.flatten())
        assert whole.boundaries is not None
        assert parts.boundaries is not None
        added = {
            row * TIME + begin
            for row, length in enumerate(lengths_at(SEGMENTS, positions).tolist())
            for begin in range(0, TIME, length)
        }
        assert set(parts.boundaries.tolist()) == set(whole.boundaries.tolist()) | added
    assert in_parts(whole, (), positions) is whole


def test_the_global_batch_is_the_same_for_any_number_of_ranks_and_micro_batches(loader: Loader) -> None:
    positions = range(2, 14)
    whole = in_parts(loader.batch(positions), SEGMENTS, positions)
    assert whole.positions is not None
    for ranks in (1, 2, 3, 4):
        for size in (1, 2, 3, 4):
            shares = [Ranks(rank, ranks, torch.device("cpu"), None).share(positions) for rank in range(ranks)]
            some = [share[first : first + size] for share in shares for first in range(0, len(share), size)]
            parts = [in_parts(loader.batch(own), SEGMENTS, own) for own in some]
            assert torch.equal(torch.cat([part.tokens.flatten() for part in parts]), whole.tokens.flatten())
            assert torch.equal(torch.cat([part.targets.flatten() for part in parts]), whole.targets.flatten())
            places = [part.positions.flatten() for part in parts if part.positions is not None]
            assert torch.equal(torch.cat(places), whole.positions.flatten())


def test_steps_of_one_length_become_shorter_rows_and_others_give_the_same_losses(loader: Loader) -> None:
    model = Transformer(ModelConfig(layers=2, width=32, heads=2, kv_heads=2, max_positions=TIME), VOCABULARY)
    model.initialise(1)
    short = in_parts(loader.batch(range(4)), SEGMENTS, range(4))
    assert short.tokens.shape == (16, 8)
    together = in_parts(loader.batch([0, 1, 2, 3, 12]), SEGMENTS, [0, 1, 2, 3, 12])
    assert together.tokens.shape == (5, TIME)
    with torch.no_grad():
        ours = model(short.tokens, boundaries=short.boundaries).reshape(4, TIME, -1)
        theirs = model(together.tokens, boundaries=together.boundaries)[:4]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_without_a_document_mask_parts_are_all_that_is_told_apart() -> None:
    batch = Batch(torch.arange(64).view(2, 32), torch.full((2, 32), IGNORED), None)
    same = in_parts(batch, SEGMENTS, [0, 1])
    assert same.tokens.shape == (8, 8)
    assert same.boundaries is None
    mixed = in_parts(batch, SEGMENTS, [5, 6])
    assert mixed.boundaries is not None
    assert np.diff(mixed.boundaries).tolist() == [8] * 4 + [16] * 2


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([(4, 8)], r"training\.lengths\[0\]\.start = 4 must be 0"),
        ([(0, 8), (0, 16)], r"training\.lengths\[1\]\.start = 0 must be above 0"),
        ([(0, 24)], r"training\.lengths\[0\]\.length = 24 must divide training\.sequence_length = 32"),
    ],
)
def test_errors_of_curricula_name_the_segment(lengths: list[tuple[int, int]], message: str) -> None:
    segments = tuple(LengthSegment(start=start, length=length) for start, length in lengths)
    with pytest.raises(ValueError, match=message):
        TrainingConfig(sequence_length=32, lengths=segments)


@pytest.mark.parametrize(("length", "shortest"), [(96, 64), (100, 64), (32, 64)])
def test_buckets_are_halves_of_the_sequence(loader: Loader, length: int, shortest: int) -> None:
    with pytest.raises(ValueError, match=r"must be training\.shortest_bucket = 64 times a power of two"):
        TrainingConfig(sequence_length=length, packing="buckets", shortest_bucket=shortest)
    with pytest.raises(ValueError, match="pieces of 0 tokens are no buckets"):
        Loader(loader.streams[""], TIME, shuffle_seed=2, document_mask=True, packing="buckets")
    assert TrainingConfig(sequence_length=192, packing="buckets", shortest_bucket=96).shortest_bucket == 96
