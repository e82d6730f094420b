"""What means the same has one fingerprint; what has no exact form is refused by name."""

from __future__ import annotations

import enum
import json
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.fingerprint import canonical, canonical_json, differences, fingerprint, hash_of

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)


def shuffled(value: Any, random: Any) -> Any:
    """The same value with other key orders, and tuples for lists here and there."""
    if isinstance(value, dict):
        items = [(key, shuffled(inner, random)) for key, inner in value.items()]
        random.shuffle(items)
        return OrderedDict(items)
    if isinstance(value, list):
        made = [shuffled(inner, random) for inner in value]
        return tuple(made) if random.random() < 0.5 else made
    return value


@given(values, st.randoms(use_true_random=False))
def test_the_order_of_keys_and_the_kind_of_sequence_do_not_matter(value: Any, random: Any) -> None:
    other = shuffled(value, random)
    assert canonical_json(other) == canonical_json(value)
    assert hash_of(other) == hash_of(value)
    assert differences(canonical(value), canonical(other)) == []


@given(values)
def test_the_canonical_form_is_its_own_and_survives_json(value: Any) -> None:
    plain = canonical(value)
    assert canonical(plain) == plain
    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)


@given(values, values)
def test_there_are_differences_exactly_if_the_hashes_differ(before: Any, after: Any) -> None:
    before, after = canonical(before), canonical(after)
    assert bool(differences(before, after)) == (hash_of(before) != hash_of(after))


def test_a_fingerprint_is_pinned() -> None:
    # Outputs on disk bear it: if this changes, every workspace is made again.
    parameters = {"threshold": 0.2, "names": ["a", "ü"], "deep": {"none": None, "flag": True}}
    assert fingerprint("filter", 1, parameters, {"quality": "blake2b:00"}) == "bab7d12e2331177d"


def test_every_ingredient_changes_the_fingerprint() -> None:
    base = fingerprint("filter", 1, {"a": 1}, {"quality": "d"})
    assert len(base) == 16
    others = [
        fingerprint("select", 1, {"a": 1}, {"quality": "d"}),
        fingerprint("filter", 2, {"a": 1}, {"quality": "d"}),
        fingerprint("filter", 1, {"a": 2}, {"quality": "d"}),
        fingerprint("filter", 1, {"a": 1.0}, {"quality": "d"}),
        fingerprint("filter", 1, {"a": True}, {"quality": "d"}),
        fingerprint("filter", 1, {"a": 1, "b": None}, {"quality": "d"}),
        fingerprint("filter", 1, {"a": 1}, {"quality": "e"}),
        fingerprint("filter", 1, {"a": 1}, {"sketch": "d"}),
    ]
    assert len({base, *others}) == 1 + len(others)


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True)
class Config:
    seed: int = 1
    inner: Inner = field(default_factory=Inner)


def test_dataclasses_are_their_fields() -> None:
    assert canonical(Config()) == {"seed": 1, "inner": {"rate": 0.1}}
    assert canonical({"x": (Config(), -0.0)}) == {"x": [{"seed": 1, "inner": {"rate": 0.1}}, 0.0]}
    assert math.copysign(1, canonical(-0.0)) == 1, "-0.0 equals 0.0"


class Colour(enum.Enum):
    RED = "red"


class Word(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "value",
    [
        float("nan"), float("inf"), -float("inf"), {1, 2}, frozenset(), print, lambda: 1, object(), b"bytes",
        bytearray(b"x"), memoryview(b"x"), range(3), Config, np.float32(1), np.int64(1), np.zeros(2), 1j, Colour.RED,
        Word.RED, "\ud800", {"\ud800": 1}, {1: 2}, {None: 1}, iter([1]), Ellipsis,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_has_no_exact_form_is_refused_by_name(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^rules\.deep\[1\]"):
        canonical({"deep": [0, value]}, "rules")
    with pytest.raises(TypeError):
        fingerprint("filter", 1, {"x": value}, {})


def test_differences_name_each_field() -> None:
    before = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": "x", "same": [1, {"x": 2}]}
    after = {"a": 1.0, "b": {"c": [1, 3]}, "e": "x", "f": 5, "same": [1, {"x": 2}]}
    assert differences(before, after) == [("a", 1, 1.0), ("b.c[1]", 2, 3), ("b.d", None, None), ("f", None, 5)]
    assert differences([1, 2], [1]) == [("", [1, 2], [1])]
