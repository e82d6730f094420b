"""What packing promises: documents that fit are whole, every token is a target once, waste is told, lineage holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data import IGNORED, Loader, TokenStream
from model.order import Segment
from model.packing import CutSequences, PackedSequences, Packing, best_fit, packing_report
from model.parallel import Ranks
from tests.model.token_files import END, VOCABULARY, documents, write_shard

TIME = 16


def bins_one_by_one(sizes: list[int], length: int) -> list[int]:
    """Best fit, longest first, an item at a time."""
    rooms: list[int] = []
    bins = [0] * len(sizes)
    for item in sorted(range(len(sizes)), key=lambda item: (-sizes[item], item)):
        fitting = [room for room in rooms if room >= sizes[item]]
        if fitting:
            bins[item] = rooms.index(min(fitting))
        else:
            bins[item] = len(rooms)
            rooms.append(length)
        rooms[bins[item]] -= sizes[item]
    return bins


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(1, n), max_size=80))))
def test_bins_are_never_overfull_and_as_few_as_best_fit_makes_them(case: tuple[int, list[int]]) -> None:
    length, sizes = case
    bins = best_fit(sizes, length)
    filled = np.bincount(bins, weights=sizes) if sizes else np.empty(0)
    assert (filled <= length).all()
    assert (filled > 0).all()
    by_hand = bins_one_by_one(sizes, length)
    # Which of several bins with the same room is taken is free; how full bins are is not.
    wanted = np.bincount(by_hand, weights=sizes) if sizes else np.empty(0)
    assert sorted(filled) == sorted(wanted)


def test_packing_many_documents_takes_no_time_a_document() -> None:
    sizes = np.minimum(2048, np.random.default_rng(1).lognormal(5.5, 1.2, 1_000_000).astype(np.int64) + 1)
    bins = best_fit(sizes, 2048)
    filled = np.bincount(bins, weights=sizes)
    assert filled.max() <= 2048
    assert filled.sum() / (2048 * len(filled)) > 0.999


@pytest.fixture
def stream(tmp_path: Path) -> TokenStream:
    """Documents of 1 to 60 tokens in three shards, one of them empty; many are longer than a sequence."""
    shards = [[*documents(30, 1, 60), [], [END]], [], documents(25, 2, 12)]
    for number, shard in enumerate(shards):
        write_shard(tmp_path / f"{number}.arrow", shard)
    return TokenStream([tmp_path / f"{number}.arrow" for number in range(3)], VOCABULARY, END)


def whole_documents(stream: TokenStream) -> list[tuple[str, list[int]]]:
    return [
        (shard.ids[row].tobytes().hex(), shard.tokens[shard.offsets[row] : shard.offsets[row + 1]].tolist())
        for shard in stream.shards
        for row in range(len(shard.ids))
    ]


@pytest.mark.parametrize("end_id", [END, None])
@pytest.mark.parametrize("packing", ["pack", "single"])
@pytest.mark.parametrize("overlap", [0, 5])
def test_documents_that_fit_are_whole_and_every_token_is_a_target_once(
    stream: TokenStream, packing: Packing, overlap: int, end_id: int | None
) -> None:
    stream.end_id = end_id
    loader = Loader(stream, TIME, shuffle_seed=None, document_mask=True, packing=packing, overlap=overlap)
    batch = loader.batch(range(loader.sequences))
    assert batch.boundaries is not None
    assert batch.positions is not None
    skip = 0 if end_id is not None else 1
    expected = sorted(tuple(tokens[skip:]) for _, tokens in whole_documents(stream) if len(tokens) > skip)
    pieces = []
    for begin, end in zip(batch.boundaries[:-1].tolist(), batch.boundaries[1:].tolist(), strict=True):
        assert begin // TIME == (end - 1) // TIME  # inside one row
        inputs, targets = batch.tokens.flatten()[begin:end], batch.targets.flatten()[begin:end]
        assert batch.positions.flatten()[begin:end].tolist() == list(range(end - begin))
        valid = targets != IGNORED
        if not valid.any():
            assert (inputs == (end_id or 0)).all()  # padding
            continue
        assert torch.equal(inputs[1:][valid[:-1]], targets[:-1][valid[:-1]])  # each is read after it was predicted
        pieces.append((tuple(targets[valid].tolist()), int((~valid).sum()), int(inputs[0])))
    short = sorted(tokens for tokens, context, _ in pieces if len(tokens) + context < TIME)
    for tokens in expected:
        if len(tokens) < TIME:
            assert tokens in short
    assert sorted(t for tokens, _, _ in pieces for t in tokens) == sorted(t for tokens in expected for t in tokens)
    if end_id is not None:  # a document begins at the end token before it
        first_inputs = [first for tokens, context, first in pieces if not context and len(tokens) < TIME]
        assert first_inputs.count(END) >= sum(len(tokens) < TIME for tokens in expected)
    contexts = {context for _, context, _ in pieces}
    assert contexts == ({0, overlap} if overlap else {0})
    used = int((batch.targets != IGNORED).sum())
    counted = sum(len(tokens) + context for tokens, context, _ in pieces)
    report = packing_report(loader.layouts)
    assert report["padding"] == batch.targets.numel() - counted
    assert report["padding_share"] == pytest.approx(1 - counted / batch.targets.numel())
    assert used == sum(map(len, expected))
    assert report["lost"] == (
        0 if end_id is not None else sum(len(tokens) == 1 for _, tokens in whole_documents(stream))
    )


def test_one_document_a_row(stream: TokenStream) -> None:
    batch = Loader(stream, TIME, shuffle_seed=None, document_mask=True, packing="single").batch(range(10))
    assert batch.boundaries is not None
    for row in range(10):
        inside = [b for b in batch.boundaries.tolist() if row * TIME < b < (row + 1) * TIME]
        assert len(inside) <= 1  # where padding begins


def test_packing_wastes_less_than_a_row_a_document(stream: TokenStream) -> None:
    packed, single = PackedSequences(stream, TIME), PackedSequences(stream, TIME, single=True)
    assert packed.padding_share < 0.1 < single.padding_share
    assert packed.count < single.count


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 70), min_size=1, max_size=40),
    st.sampled_from([2, 4, 8, 16]),
    st.booleans(),
)
def test_buckets_show_every_token_once_in_rows_of_pieces_of_one_length(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], shortest: int, with_end: bool
) -> None:
    made = [
        [1 + (7 * row + i) % (VOCABULARY - 1) for i in range(size)] + [END] * with_end for row, size in enumerate(sizes)
    ]
    file = write_shard(tmp_path_factory.mktemp("buckets") / "s.arrow", made)
    stream = TokenStream([file], VOCABULARY, END if with_end else None)
    layout = PackedSequences(stream, TIME, shortest=shortest)
    skip = 0 if with_end else 1
    expected = sorted(token for document in made for token in document[skip:])
    if not layout.count:
        assert not expected
        return
    rows = layout.read(np.arange(layout.count))
    assert sorted(rows.targets[rows.targets != IGNORED].tolist()) == expected
    assert layout.padding == rows.targets.size - len(expected)
    assert layout.lost == (0 if with_end else sum(len(document) == 1 for document in made))
    assert rows.boundaries is not None
    allowed = {TIME // 2**k for k in range(9) if TIME // 2**k >= shortest}
    short_rows = 0
    for row in range(layout.count):
        inside = rows.boundaries[(rows.boundaries >= row * TIME) & (rows.boundaries <= (row + 1) * TIME)]
        lengths = np.diff(inside).tolist()
        if len(set(lengths)) == 1 and lengths[0] in allowed and (rows.targets[row] != IGNORED).all():
            assert not short_rows  # what is shorter comes last
            continue
        short_rows += 1
        assert all(length <= shortest for length in lengths[:-1])
    # What is left for best fit: ends of documents, and at most a row of the shortest pieces.
    left = sum((len(document) - skip) % shortest for document in made if len(document) > skip)
    assert short_rows <= 2 + 2 * left // TIME


def test_a_row_has_one_bucket_and_large_pieces_come_first(tmp_path: Path) -> None:
    made = [[token] * (size - 1) + [END] for token, size in enumerate([16, 8, 8, 24, 4, 4, 4, 4, 3], 1)]
    stream = TokenStream([write_shard(tmp_path / "s.arrow", made)], VOCABULARY, END)
    layout = PackedSequences(stream, 16, shortest=4)
    rows = layout.read(np.arange(layout.count))
    assert rows.boundaries is not None
    assert np.diff(rows.boundaries).tolist() == [16, 16, 8, 8, 4, 4, 4, 4, 4, 4, 3, 5]
    assert rows.targets[:, 0].tolist() == [1, 4, 2, 4, 7]  # the half of 24 that found no partner became quarters
    assert packing_report({"": layout}) == {
        "sequences": 5, "tokens": 80, "padding": 5, "padding_share": 5 / 80, "lost": 0,
    }  # fmt: skip


def test_what_cutting_leaves_out_is_counted_by_source(stream: TokenStream, tmp_path: Path) -> None:
    other = TokenStream([write_shard(tmp_path / "o.arrow", documents(9, 5, 40))], VOCABULARY, END)
    layouts = {name: CutSequences(each, TIME, tell_documents=True) for name, each in (("a", stream), ("b", other))}
    report = packing_report(layouts)
    for name, each in (("a", stream), ("b", other)):
        shown = {token for sequence in range(layouts[name].count) for token in range(*layouts[name].span(sequence)[0])}
        assert report["sources"][name]["lost"] == len(each) - len(shown)
    assert report["lost"] == sum(part["lost"] for part in report["sources"].values())
    assert report["padding"] == 0


@pytest.mark.parametrize("packing", ["cut", "pack", "single", "buckets"])
def test_documents_and_positions_lead_to_each_other(stream: TokenStream, packing: Packing) -> None:
    loader = Loader(stream, TIME, shuffle_seed=3, document_mask=True, packing=packing, shortest=4)
    before = loader.sequences + 11
    shown: dict[str, list[int]] = {}
    for position in range(before):
        for document in loader.documents_at(position):
            shown.setdefault(document, []).append(position)
    names = [name for name, tokens in whole_documents(stream) if tokens]
    assert set(shown) <= set(names)
    for name in names:
        assert loader.positions_of(name, before) == shown.get(name, [])
        assert [seen.epoch for seen in loader.seen(name, before)] == [
            p // loader.sequences for p in shown.get(name, [])
        ]


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("packing", ["cut", "pack", "single", "buckets"])
def test_the_global_batch_is_the_same_for_any_number_of_ranks_and_micro_batches(
    stream: TokenStream, tmp_path: Path, packing: Packing, mixed: bool
) -> None:
    other = TokenStream([write_shard(tmp_path / "o.arrow", documents(50, 5, 40))], VOCABULARY, END)
    plan = (Segment(0, {"a": 2, "b": 1}, 1), Segment(17, {"b": 3, "a": 1}, 2)) if mixed else ()

    def fresh() -> Loader:
        streams = {"a": stream, "b": other} if mixed else stream
        return Loader(streams, TIME, shuffle_seed=3, document_mask=True, plan=plan, packing=packing, shortest=4)

    positions = range(12, 24)
    whole = fresh().batch(positions)
    assert whole.positions is not None
    for ranks in (1, 2, 3, 4):
        for size in (1, 2, 3, 4):
            parts = []
            for rank in range(ranks):
                loader, mine = fresh(), Ranks(rank, ranks, torch.device("cpu"), None).share(positions)
                parts += [loader.batch(mine[first : first + size]) for first in range(0, len(mine), size)]
            assert torch.equal(torch.cat([part.tokens for part in parts]), whole.tokens)
            assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)
            inside = [part.positions for part in parts if part.positions is not None]
            assert torch.equal(torch.cat(inside), whole.positions)
