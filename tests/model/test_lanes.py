"""What the order for object stores promises: an exact shuffle with an inverse, few shards a rank, any world size."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import train
from model.checkpoint import CheckpointError, check_same_job
from model.config import TrainingConfig
from model.data import Loader, TokenShard
from model.lanes import Lanes, LaneShuffle, deal_lanes, positions_of_rank
from model.order import Order, PlanError, Segment
from model.shard_cache import ShardCache
from model.token_data import read_token_data
from storage.filesystem import Store, digest_bytes
from tests.model.test_order import shown
from tests.model.test_parallel import curves, launch
from tests.model.token_files import END, VOCABULARY, job_values, write_shard

LANES = st.builds(Lanes, st.integers(1, 6), st.integers(1, 7), st.integers(1, 4))


# ----------------------------------------------------------------------------------------------------------- order


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 700), LANES, st.integers(0, 5), st.integers(0, 9))
def test_an_epoch_shows_every_sequence_once_and_leads_back(size: int, lanes: Lanes, epoch: int, seed: int) -> None:
    order = LaneShuffle(size, lanes, seed, epoch, "web")
    everything = np.arange(size)
    found = order.forward(everything)
    assert np.array_equal(np.sort(found), everything)
    assert np.array_equal(order.inverse(found), everything)
    some = np.random.default_rng(seed).permutation(size)[:9]
    assert np.array_equal(LaneShuffle(size, lanes, seed, epoch, "web").forward(some), found[some])


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 700), LANES, st.integers(0, 5))
def test_lanes_keep_their_blocks_in_every_epoch_and_take_them_window_by_window(
    size: int, lanes: Lanes, epoch: int
) -> None:
    count, block = lanes.count, lanes.block_sequences
    blocks = size // (count * block)
    ordinals = np.arange(epoch * size, (epoch + 1) * size)
    found = LaneShuffle(size, lanes, 1, epoch, "web").forward(ordinals - epoch * size)
    laned = blocks * count * block
    assert np.array_equal(np.sort(found[laned:]), np.arange(laned, size))  # the rest comes last
    for lane in range(count):
        own = found[:laned][ordinals[:laned] % count == lane]  # of the lane's positions, in order
        assert set((own // block % count).tolist()) <= {lane}
        assert len(own) == blocks * block
        width = lanes.window_blocks * block
        for start in range(0, len(own), width):
            shown_blocks = Counter((own[start : start + width] // block).tolist())
            assert set(shown_blocks.values()) == {block}  # whole blocks


def test_windows_are_shuffled_evenly_and_differently_in_every_epoch_and_lane() -> None:
    lanes = Lanes(4, 50, 4)
    width = lanes.block_sequences * lanes.window_blocks
    places = np.zeros((width, 4))
    orders = []
    for epoch in range(40):
        found = LaneShuffle(4 * 50 * 8, lanes, 7, epoch, "web").forward(np.arange(4 * 50 * 8))
        for lane in range(4):
            own = found[(np.arange(len(found)) + epoch * len(found)) % 4 == lane]
            orders.append(tuple(own.tolist()))
            for window in (own[:width], own[width:]):
                ranks = np.argsort(np.argsort(window))
                assert abs(np.corrcoef(np.arange(width), ranks)[0, 1]) < 0.35  # five standard deviations
                places[np.arange(width), ranks * 4 // width] += 1
    assert len(set(orders)) == len(orders)
    # Where in a window a sequence of each quarter of its blocks comes: 320 windows, 80 expected in every cell.
    statistic = ((places - 80) ** 2 / 80).sum()
    freedom = (width - 1) * 3
    assert abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5
    firsts = Counter(order[0] // (4 * 50) for order in orders)  # the block from which the first sequence comes
    assert set(firsts) == set(range(8))
    assert max(firsts.values()) < 45  # 20 expected of each


PLAN = (Segment(0, {"web": 3, "books": 1}, 1), Segment(1200, {"web": 1, "code": 2}, 2), Segment(1800, {"books": 1}))
SIZES = {"books": 70, "web": 300, "code": 41}


def test_rows_take_one_source_in_the_proportion_of_the_weights() -> None:
    lanes = Lanes(4, 8, 2)
    seen = shown(Order(PLAN, SIZES, 5, lanes), range(2 * 256 * 4))
    rows = [{source for source, _, _ in seen[start : start + 4]} for start in range(0, len(seen), 4)]
    assert all(len(row) == 1 for row in rows)
    assert Counter(next(iter(row)) for row in rows[:256]) == {"web": 192, "books": 64}


def test_every_sequence_is_seen_once_before_any_is_seen_again_through_all_segments() -> None:
    seen = shown(Order(PLAN, SIZES, 5, Lanes(4, 8, 2)), range(4000))
    for source, size in SIZES.items():
        epochs: dict[int, list[int]] = {}
        for name, epoch, sequence in seen:
            if name == source:
                epochs.setdefault(epoch, []).append(sequence)
        assert len(epochs) > 2
        last = max(epochs)
        for epoch, sequences in epochs.items():
            assert len(set(sequences)) == len(sequences)
            assert epoch == last or sorted(sequences) == list(range(size))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_positions_can_be_asked_for_in_any_way_and_lead_back(data: st.DataObject) -> None:
    lanes = data.draw(LANES)
    sizes = data.draw(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 90), min_size=1))
    weights = st.dictionaries(st.sampled_from(sorted(sizes)), st.integers(1, 9), min_size=1)
    starts = sorted({0, *(lanes.count * row for row in data.draw(st.lists(st.integers(1, 300), max_size=3)))})
    plan = tuple(Segment(start, data.draw(weights), data.draw(st.integers(0, 3))) for start in starts)
    before = data.draw(st.integers(1, 1500))
    order = Order(plan, sizes, 2, lanes)
    everything = shown(order, range(before))
    some = data.draw(st.lists(st.integers(0, before - 1), max_size=20))
    assert shown(Order(plan, sizes, 2, lanes), some) == [everything[position] for position in some]
    source = data.draw(st.sampled_from(sorted(sizes)))
    wanted = sorted(data.draw(st.sets(st.integers(0, sizes[source] - 1), max_size=3)))
    expected = [(p, epoch) for p, (name, epoch, found) in enumerate(everything) if name == source and found in wanted]
    assert order.positions_of(source, wanted, before) == expected


def test_the_order_never_changes_between_versions() -> None:
    found = LaneShuffle(50, Lanes(2, 3, 2), 1, 1, "web").forward(np.arange(50))
    assert found[:16].tolist() == [2, 10, 37, 11, 1, 15, 38, 17, 0, 9, 36, 16, 20, 35, 32, 5]
    assert found[-4:].tolist() == [25, 41, 48, 49]


def test_big_sources_need_no_table_of_their_size() -> None:
    lanes = Lanes(64, 262_144, 4)
    order = Order((Segment(0, {"web": 7, "books": 1}),), {"web": 3_000_000_000, "books": 70_000}, 1, lanes)
    position = 39_999_999_936
    for name, epoch, _ in (seen := shown(order, np.arange(position, position + 64))):
        assert epoch == (11 if name == "web" else 71_428)
    assert len({sequence for _, _, sequence in seen}) == 64


@pytest.mark.parametrize(
    ("plan", "seed", "message"),
    [
        ((Segment(0, {"a": 1}), Segment(10, {"a": 1})), 1, r"plan\[1\]\.start = 10 must be a multiple of .*lanes = 4"),
        ((Segment(0, {"a": 1}),), None, "they need a seed"),
    ],
)  # fmt: skip
def test_plans_that_do_not_fit_lanes_are_refused(plan: tuple[Segment, ...], seed: int | None, message: str) -> None:
    with pytest.raises(PlanError if seed else ValueError, match=message):
        Order(plan, {"a": 9}, seed, Lanes(4, 2, 2))


def test_settings_that_do_not_fit_lanes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_sequences = 16 must be a multiple of training\.lanes = 6"):
        TrainingConfig(lanes=6)
    with pytest.raises(ValueError, match=r"training\.lanes = 8 needs training\.packing = 'cut' or 'single'"):
        TrainingConfig(lanes=8, packing="pack")
    job = train.parse_job(job_values(tmp_path, processes=3, lanes=8, batch_sequences=24))
    with pytest.raises(train.JobError, match=r"training\.lanes = 8 cannot be shared by 3 ranks"):
        train.check_sizes(job, train.Ranks(0, 3, torch.device("cpu"), None))


# ----------------------------------------------------------------------------------------------------------- ranks


@pytest.mark.parametrize("lanes", [12, 48, 240])
def test_most_lanes_stay_where_they_are_when_ranks_come_or_go(lanes: int) -> None:
    for fewer, more in ((1, 2), (2, 3), (3, 4), (4, 6), (2, 4), (6, 12)):
        before, after = deal_lanes(lanes, fewer), deal_lanes(lanes, more)
        assert Counter(after.tolist()) == dict.fromkeys(range(more), lanes // more)
        moved = int((before != after).sum())
        least = lanes - fewer * (lanes // more)  # what the new ranks must get
        naive = int((np.arange(lanes) % fewer != np.arange(lanes) % more).sum())
        assert least <= moved <= 1.25 * least + 2, (fewer, more)
        assert moved < naive or naive == least
    with pytest.raises(ValueError, match="12 lanes cannot be shared equally by 5 ranks"):
        deal_lanes(12, 5)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 6])
def test_ranks_share_every_step_among_themselves(ranks: int) -> None:
    owners = deal_lanes(12, ranks)
    for step in (range(24), range(240, 264)):
        shares = [positions_of_rank(step, owners, rank) for rank in range(ranks)]
        assert {len(share) for share in shares} == {24 // ranks}
        assert sorted(position for share in shares for position in share) == list(step)


SHARDS, TIME, ROWS = 32, 16, 40


@pytest.fixture
def remote(tmp_path: Path, s3_store: Store) -> list[dict[str, Any]]:
    """Shards on S3 of `ROWS` sequences each."""
    found = []
    for number in range(SHARDS):
        tokens = np.random.default_rng(number).integers(1, VOCABULARY, ROWS * TIME).tolist()
        file = write_shard(tmp_path / f"{number}.arrow", [[*tokens[:-1], END]])
        data = file.read_bytes()
        s3_store.create(file.name, data)
        facts = {"path": f"{s3_store.url}/{file.name}", "tokens": TokenShard(file).length}
        found.append({**facts, "bytes": len(data), "digest": digest_bytes(data)})
    return found


def test_a_rank_fetches_the_shards_of_its_lanes_only_in_every_epoch(
    tmp_path: Path, remote: list[dict[str, Any]]
) -> None:
    # Eight lanes, a block of four shards each, so that a block touches five shards: its last target is in the next.
    config = TrainingConfig(
        sequence_length=TIME, batch_sequences=8, lanes=8, block_sequences=4 * ROWS - 1, window_blocks=1, seed=2
    )
    data = read_token_data({"train": remote, "digest": "blake2b:01", "end_id": END}, VOCABULARY, "tokens")
    batches: dict[int, list[torch.Tensor]] = {}
    for ranks in (1, 2, 4):
        owners = deal_lanes(8, ranks)
        parts = []
        for rank in range(ranks):
            folder = tmp_path / f"{ranks}-{rank}"
            cache = ShardCache(folder, 10**9)
            loader = data.training(config, Loader, cache)
            steps = 2 * loader.sequences // 8
            tokens = {}
            for step in range(steps):
                mine = positions_of_rank(range(8 * step, 8 * step + 8), owners, rank)
                tokens |= dict(zip(mine, loader.batch(mine).tokens, strict=True))
            parts.append(tokens)
            fetched = sum(file.is_file() for file in folder.iterdir())
            # The rest of the epoch, up to eight sequences, may lie in any lane.
            assert fetched <= SHARDS // ranks * 5 / 4 + 1
            cache.close()
        whole = {position: row for part in parts for position, row in part.items()}
        batches[ranks] = [whole[position] for position in sorted(whole)]
        assert len(whole) == 8 * steps
    for ranks in (2, 4):
        assert torch.equal(torch.stack(batches[ranks]), torch.stack(batches[1]))


def test_trainings_in_lanes_are_the_same_on_one_and_two_ranks_and_may_change_their_number(tmp_path: Path) -> None:
    lanes = {"lanes": 4, "block_sequences": 8, "window_blocks": 2, "keep_checkpoints": 9}
    for processes in (1, 2):
        values = job_values(tmp_path, attempt=f"ranks-{processes}", **lanes)
        launch({**values, "output": str(tmp_path / f"ranks-{processes}")}, tmp_path, processes)
    shutil.copytree(tmp_path / "ranks-2", tmp_path / "alone")
    for checkpoint in (tmp_path / "alone" / "checkpoints").iterdir():
        if int(checkpoint.name[:8]) > 10:
            shutil.rmtree(checkpoint)
    values = job_values(tmp_path, attempt="alone", **lanes)
    train.pretrain(train.parse_job({**values, "output": str(tmp_path / "alone")}))
    one = curves(str(tmp_path / "ranks-1"))
    assert len(one) == 24 + 4
    for other in ("ranks-2", "alone"):
        for (step, expected), (same, got) in zip(one, curves(str(tmp_path / other)), strict=True):
            assert step == same
            assert got == pytest.approx(expected, rel=1e-4)
    shuffled = train.pretrain(train.parse_job({**job_values(tmp_path), "output": str(tmp_path / "shuffled")}))
    assert shuffled["losses"]["last"] != one[-1][1][0]  # another order of the data


def test_a_checkpoint_keeps_its_lanes() -> None:
    job = {"model": {}, "tokens": {"digest": "x"}, "training": {"seed": 0}}
    lanes = {"lanes": 4, "block_sequences": 8, "window_blocks": 2}
    off = {"lanes": 0, "block_sequences": 9, "window_blocks": 2}
    check_same_job(job, {**job, "training": {"seed": 0, **off}}, "c", 0)  # older checkpoints know of no lanes
    laned = {**job, "training": {"seed": 0, **lanes}}
    check_same_job(laned, laned, "c", 0)
    with pytest.raises(CheckpointError, match=r"training\.lanes = 0, the job says 4"):
        check_same_job(job, laned, "c", 0)
    with pytest.raises(CheckpointError, match=r"training\.window_blocks = 2, the job says 3"):
        check_same_job(laned, {**job, "training": {"seed": 0, **lanes, "window_blocks": 3}}, "c", 0)
