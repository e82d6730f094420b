"""What the order of data promises: exact mixtures, nothing twice before all was seen once, appended segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.order import ALL, Order, PlanError, Segment, plan_digest, read_segments

SIZES = {"books": 70, "web": 300, "code": 41}
PLAN = (
    Segment(0, {"web": 3, "books": 1}, 1),
    Segment(777, {"web": 2, "books": 1, "code": 5}, 2),
    Segment(1500, {"code": 1}),
    Segment(1600, {"web": 1, "books": 1}, 3),
)


def shown(order: Order, positions: Sequence[int]) -> list[tuple[str, int, int]]:
    """(source, epoch, sequence) at positions."""
    found = order.locate(positions)
    return [
        (order.names[source], epoch, sequence)
        for source, epoch, sequence in zip(*(part.tolist() for part in found), strict=True)
    ]


def test_every_sequence_of_a_source_is_seen_once_before_any_is_seen_again_through_all_segments() -> None:
    seen = shown(Order(PLAN, SIZES, seed=5), range(4000))
    for source, size in SIZES.items():
        epochs: dict[int, list[int]] = {}
        last = 0
        for name, epoch, sequence in seen:
            if name == source:
                assert epoch in (last, last + 1)  # one epoch after the other
                last = epoch
                epochs.setdefault(epoch, []).append(sequence)
        assert len(epochs) > 2
        for epoch, sequences in epochs.items():
            assert len(set(sequences)) == len(sequences)
            if epoch != last:
                assert sorted(sequences) == list(range(size))


def test_blocks_hold_every_source_exactly_by_its_weight_and_are_shuffled() -> None:
    order = Order((Segment(0, {"web": 3, "books": 1, "code": 4}, 9),), SIZES, seed=1)
    block = 256
    orders = []
    for number in range(4):
        names = [name for name, _, _ in shown(order, range(number * block, (number + 1) * block))]
        assert Counter(names) == {"web": 96, "books": 32, "code": 128}
        orders.append(names)
    assert len({tuple(names) for names in orders}) == 4
    runs = sum(a != b for a, b in zip(orders[0], orders[0][1:], strict=False))
    assert 100 < runs < 200  # 151 expected where sources alternate by chance


def test_segments_that_are_appended_change_nothing_before_them() -> None:
    whole = shown(Order(PLAN, SIZES, seed=5), range(2000))
    for count in (1, 2, 3):
        begun = PLAN[:count]
        until = PLAN[count].start
        some = {source: size for source, size in SIZES.items() if any(source in s.weights for s in begun)}
        assert shown(Order(begun, some, seed=5), range(until)) == whole[:until]  # nor do sources that come later


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_positions_can_be_asked_for_in_any_way_and_lead_back(data: st.DataObject) -> None:
    sizes = data.draw(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 40), min_size=1))
    weights = st.dictionaries(st.sampled_from(sorted(sizes)), st.integers(1, 9), min_size=1)
    starts = sorted({0, *data.draw(st.lists(st.integers(1, 900), max_size=3))})
    plan = tuple(Segment(start, data.draw(weights), data.draw(st.integers(0, 3))) for start in starts)
    seed = data.draw(st.one_of(st.none(), st.integers(0, 9)))
    before = data.draw(st.integers(1, 1200))
    order = Order(plan, sizes, seed)
    everything = shown(order, range(before))
    some = data.draw(st.lists(st.integers(0, before - 1), max_size=20))
    assert shown(Order(plan, sizes, seed), some) == [everything[position] for position in some]
    source = data.draw(st.sampled_from(sorted(sizes)))
    wanted = sorted(data.draw(st.sets(st.integers(0, sizes[source] - 1), max_size=3)))
    expected = [(p, epoch) for p, (name, epoch, found) in enumerate(everything) if name == source and found in wanted]
    assert order.positions_of(source, wanted, before) == expected


def test_one_source_has_the_order_it_always_had() -> None:
    order = Order((Segment(0, {ALL: 1}),), {ALL: 10}, seed=1)
    assert [sequence for _, _, sequence in shown(order, range(10))] == [1, 5, 9, 6, 7, 2, 8, 4, 0, 3]


def test_mixtures_never_change_between_versions() -> None:
    order = Order((Segment(0, {"a": 1, "b": 2}, 3),), {"a": 9, "b": 11}, seed=4)
    assert shown(order, range(6)) == [
        ("b", 0, 9), ("a", 0, 3), ("a", 0, 6), ("b", 0, 7), ("a", 0, 1), ("a", 0, 8),
    ]  # fmt: skip
    assert plan_digest(PLAN) == "blake2b:1dde995ac67309013de0f559ab082c66"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "plan: it has no segment"),
        ([{"start": 5, "weights": {"a": 1}}], r"plan\[0\]\.start = 5 must be 0"),
        ([{"weights": {"a": 1}}, {"start": 0, "weights": {"a": 1}}], r"plan\[1\]\.start = 0 must be above 0"),
        ([{"weights": {}}], r"plan\[0\]\.weights = \{\} must name at least one source"),
        ([{"weights": {"a": 0.5}}], r"plan\[0\]\.weights\.a = 0\.5 must be a whole number from 1"),
        ([{"weights": {"a": True}}], r"plan\[0\]\.weights\.a = True must be"),
        ([{"weights": {"a": 1}, "begin": 1}], r"plan\[0\]: unknown field begin"),
    ],
)
def test_errors_of_plans_name_the_segment(values: list[dict[str, object]], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        read_segments(values)


def test_a_plan_names_only_sources_that_are_there() -> None:
    with pytest.raises(PlanError, match=r"plan\[1\]\.weights: no sequence of source 'wbe'; there are: 'web'"):
        Order((Segment(0, {"web": 1}), Segment(9, {"wbe": 1})), {"web": 3, "empty": 0}, seed=1)


def test_big_sources_are_mixed_without_a_table() -> None:
    sizes = {"web": 3_000_000_000, "books": 70_000}
    order = Order((Segment(0, {"web": 7, "books": 1}, 1),), sizes, seed=1)
    position = 40_000_000_000
    for name, epoch, sequence in shown(order, np.arange(position, position + 50)):
        assert 0 <= sequence < sizes[name]
        assert epoch == (11 if name == "web" else 71_428)
