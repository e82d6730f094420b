"""What the loader promises: order by arithmetic, nothing copied, the same batch for any division, lineage both ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data import IGNORED, Loader, TokenShard, TokenShardError, TokenStream
from model.permutation import SMALL, Permutation
from storage.schemas import token_schema
from tests.model.token_files import END, VOCABULARY, documents, write_shard

TIME = 16


@pytest.fixture
def made(tmp_path: Path) -> list[list[list[int]]]:
    """Three shards, the middle one without documents, with an empty and a very short document among the others."""
    first = [*documents(20, 1, 40), [], [END], *documents(5, 2, 90)]
    shards = [first, [], documents(15, 3, 30)]
    for number, shard in enumerate(shards):
        write_shard(tmp_path / f"{number}.arrow", shard)
    return shards


def open_stream(folder: Path, end_id: int | None = END) -> TokenStream:
    return TokenStream([folder / f"{number}.arrow" for number in range(3)], VOCABULARY, end_id)


# ----------------------------------------------------------------------------------------------------------- order


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.integers(1, 300), st.integers(SMALL - 2, SMALL + 70_000)), st.integers(0, 9), st.integers(0, 5))
def test_the_order_is_a_permutation_with_an_inverse(size: int, seed: int, epoch: int) -> None:
    order = Permutation(size, seed, epoch)
    everything = np.arange(size)
    shuffled = order.forward(everything)
    assert shuffled.dtype == np.int64
    assert np.array_equal(np.sort(shuffled), everything)
    assert np.array_equal(order.inverse(shuffled), everything)


@given(st.integers(SMALL, 2**52), st.integers(0, 2**63), st.integers(0, 1000), st.data())
def test_positions_in_huge_corpora_are_found_without_a_table(
    size: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    order = Permutation(size, seed, epoch)
    index = data.draw(st.integers(0, size - 1))
    image = int(order.forward([index])[0])
    assert 0 <= image < size
    assert int(order.inverse([image])[0]) == index


def test_the_order_never_changes_between_versions() -> None:
    assert Permutation(10, 1, 0).forward(np.arange(10)).tolist() == [1, 5, 9, 6, 7, 2, 8, 4, 0, 3]
    assert Permutation(1_000_000, 1, 0).forward(np.arange(5)).tolist() == [267195, 428673, 327879, 656632, 208115]


@pytest.mark.parametrize("size", [SMALL - 1, SMALL + 4321])
def test_epochs_and_seeds_are_shuffled_differently_and_look_random(size: int) -> None:
    everything = np.arange(size)
    orders = [Permutation(size, seed, epoch).forward(everything) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert abs(np.corrcoef(everything, order)[0, 1]) < 0.02
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
        assert np.count_nonzero(order == everything) < 12  # one on average
    for i in range(3):
        assert np.count_nonzero(orders[i] == orders[i - 1]) < 12


# ---------------------------------------------------------------------------------------------------------- stream


def test_a_stream_is_the_concatenation_of_all_documents(tmp_path: Path, made: list[list[list[int]]]) -> None:
    stream = open_stream(tmp_path)
    flat = [token for shard in made for document in shard for token in document]
    starts = np.cumsum([0] + [len(document) for shard in made for document in shard])
    assert len(stream) == len(flat)
    assert stream.documents == sum(map(len, made))
    random = np.random.default_rng(0)
    for _ in range(200):
        start, stop = sorted(random.integers(0, len(flat) + 1, 2).tolist())
        if start < stop:
            assert stream.read(start, stop).tolist() == flat[start:stop]
            expected = sorted({s for s in starts.tolist() if start < s < stop})
            assert stream.document_starts(start, stop).tolist() == expected


def test_tokens_are_views_of_the_file(tmp_path: Path, made: list[list[list[int]]]) -> None:
    shard = TokenShard(tmp_path / "0.arrow")
    before = pa.total_allocated_bytes()
    shards = [TokenShard(tmp_path / "0.arrow") for _ in range(3)]
    assert pa.total_allocated_bytes() == before
    assert not any(s.tokens.flags.owndata or s.ids.flags.owndata for s in shards)
    assert shard.tokens.dtype == np.uint16


def test_documents_and_positions_lead_to_each_other(tmp_path: Path, made: list[list[list[int]]]) -> None:
    stream = open_stream(tmp_path)
    loader = Loader(stream, TIME, shuffle_seed=5, document_mask=True)
    before = 2 * loader.sequences + 7
    shown: dict[str, list[int]] = {}
    ids = [(shard.ids[row].tobytes().hex(), number, row)
           for number, shard in enumerate(stream.shards) for row in range(len(shard.ids))]  # fmt: skip
    owners = [name for name, number, row in ids for _ in made[number][row]]
    for position in range(before):
        begin = loader.sequence_at(position) * TIME
        expected = list(dict.fromkeys(owners[begin : begin + TIME + 1]))
        assert loader.documents_at(position) == expected
        for name in expected:
            shown.setdefault(name, []).append(position)
    for name, _, _ in ids:
        assert loader.positions_of(name, before) == shown.get(name, [])


# ---------------------------------------------------------------------------------------------------------- batches


def test_every_token_but_the_first_is_a_target_once_an_epoch(tmp_path: Path, made: list[list[list[int]]]) -> None:
    stream = open_stream(tmp_path)
    loader = Loader(stream, TIME, shuffle_seed=3, document_mask=False)
    for epoch in range(2):
        positions = range(epoch * loader.sequences, (epoch + 1) * loader.sequences)
        order = [loader.sequence_at(position) for position in positions]
        assert sorted(order) == list(range(loader.sequences))
        targets = loader.batch(positions).targets[np.argsort(order)].flatten()
        assert targets.tolist() == stream.read(1, loader.sequences * TIME + 1).tolist()


def test_the_global_batch_is_the_same_however_it_is_divided(tmp_path: Path, made: list[list[list[int]]]) -> None:
    loader = Loader(open_stream(tmp_path), TIME, shuffle_seed=3, document_mask=True)
    whole = loader.batch(range(40, 52))
    for parts in (2, 3, 4, 6, 12):
        size = 12 // parts
        fresh = Loader(open_stream(tmp_path), TIME, shuffle_seed=3, document_mask=True)
        pieces = [fresh.batch(range(40 + i * size, 40 + (i + 1) * size)) for i in reversed(range(parts))][::-1]
        assert torch.equal(torch.cat([piece.tokens for piece in pieces]), whole.tokens)
        assert torch.equal(torch.cat([piece.targets for piece in pieces]), whole.targets)


def test_a_document_starts_at_the_end_token_before_it(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.arrow", [[5, 6, END], [7, END], [8, 9, 10, END]])
    stream = TokenStream([tmp_path / "s.arrow"], VOCABULARY, END)
    batch = Loader(stream, 8, shuffle_seed=None, document_mask=True).batch([0])
    assert batch.tokens.tolist() == [[5, 6, END, 7, END, 8, 9, 10]]
    assert batch.targets.tolist() == [[6, END, 7, END, 8, 9, 10, END]]
    assert batch.document_ids is not None
    assert batch.document_ids.tolist() == [[0, 0, 1, 1, 2, 2, 2, 2]]


def test_without_end_tokens_first_tokens_are_not_predicted(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.arrow", [[5, 6], [7], [8, 9, 10, 11, 12, 13]])
    stream = TokenStream([tmp_path / "s.arrow"], VOCABULARY, None)
    batch = Loader(stream, 8, shuffle_seed=None, document_mask=True).batch([0])
    assert batch.targets.tolist() == [[6, IGNORED, IGNORED, 9, 10, 11, 12, 13]]
    assert batch.document_ids is not None
    assert batch.document_ids.tolist() == [[0, 0, 1, 2, 2, 2, 2, 2]]


# ----------------------------------------------------------------------------------------------------------- errors


def test_errors_name_the_shard(tmp_path: Path, made: list[list[list[int]]]) -> None:
    with pytest.raises(TokenShardError, match=r"gone\.arrow does not exist"):
        TokenShard(tmp_path / "gone.arrow")

    whole = (tmp_path / "0.arrow").read_bytes()
    (tmp_path / "cut.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TokenShardError, match=r"cut\.arrow is damaged"):
        TokenShard(tmp_path / "cut.arrow")

    schema = pa.schema([("id", pa.binary(16)), ("tokens", pa.list_(pa.int64()))])
    with pa.OSFile(str(tmp_path / "other.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=schema))
    with pytest.raises(TokenShardError, match=r"other\.arrow needs a column 'tokens' of large_list"):
        TokenShard(tmp_path / "other.arrow")

    schema = token_schema(pa.uint16())
    with pa.OSFile(str(tmp_path / "two.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for _ in range(2):
            writer.write_batch(pa.RecordBatch.from_pylist([], schema=schema))
    with pytest.raises(TokenShardError, match=r"two\.arrow holds 2 record batches"):
        TokenShard(tmp_path / "two.arrow")

    small = TokenStream([tmp_path / "0.arrow"], 8, END)
    with pytest.raises(TokenShardError, match=r"0\.arrow holds token \d+ but the vocabulary has 8"):
        small.read(0, len(small))

    with pytest.raises(TokenShardError, match=r"1\.arrow …\) hold 0 tokens, too few"):
        Loader(TokenStream([tmp_path / "1.arrow"], 64, END), TIME, shuffle_seed=0, document_mask=True)

    with pytest.raises(TokenShardError, match="no token shards"):
        TokenStream([], 64, END)

    wrong_end = Loader(open_stream(tmp_path, end_id=63), TIME, shuffle_seed=None, document_mask=True)
    with pytest.raises(
        TokenShardError, match=r"0\.arrow ends document [0-9a-f]{32} with token 0, but tokens\.end_id is 63"
    ):
        wrong_end.batch(range(8))
