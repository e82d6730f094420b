"""Tallies add up however documents are cut; gates name every share that is outside, and what else moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_quality.filter_config import Expectation
from data_quality.gates import check_expectations, check_gates, shares
from data_quality.presets import PRESETS
from data_quality.tally import by, tally, total

NAMES = ("contamination", "short", "long")
Row = tuple[str, str | None, int, tuple[bool, bool, bool]]

rows_of = st.lists(
    st.tuples(
        st.sampled_from(["web", "books"]),
        st.sampled_from(["en", "de", None]),
        st.integers(0, 50),
        st.tuples(st.booleans(), st.booleans(), st.booleans()),
    ),
    max_size=30,
)


def tallied(rows: list[Row]) -> Any:
    reasons = [next((name for name, hit in zip(NAMES, row[3], strict=True) if hit), None) for row in rows]
    frame = pl.DataFrame(
        {
            "source": [row[0] for row in rows],
            "language": [row[1] for row in rows],
            "bytes": [row[2] for row in rows],
            "reason": reasons,
        },
        schema={"source": pl.String, "language": pl.String, "bytes": pl.Int64, "reason": pl.String},
    )
    return tally(frame, NAMES, np.array([row[3] for row in rows], dtype=bool).reshape(-1, 3))


@settings(deadline=None, max_examples=100)
@given(rows=rows_of, cut=st.integers(0, 30), shuffled=st.randoms())
def test_a_tally_is_what_plain_counting_gives_however_documents_are_cut(
    rows: list[Row], cut: int, shuffled: Any
) -> None:
    whole = total([tallied(rows)])
    moved = list(rows)
    shuffled.shuffle(moved)
    assert total([tallied(moved[:cut]), tallied(moved[cut:])]) == whole
    assert whole["read"] == len(rows) == sum(documents for *_, documents, _ in whole["groups"])
    assert whole["hits"] == {name: sum(row[3][i] for row in rows) for i, name in enumerate(NAMES)}
    assert whole["alone"] == {name: sum(row[3][i] and sum(row[3]) == 1 for row in rows) for i, name in enumerate(NAMES)}
    both = {(a, b): number for a, b, number in whole["pairs"]}
    for i, a in enumerate(NAMES):
        for j in range(i + 1, 3):
            number = sum(row[3][i] and row[3][j] for row in rows)
            assert both.get((a, NAMES[j]), 0) == number
    for what, column in (("source", 0), ("language", 1)):
        for name, (read, kept) in by(whole, what, "bytes").items():
            assert read == sum(row[2] for row in rows if row[column] == name)
            assert kept == sum(row[2] for row in rows if row[column] == name and not any(row[3]))


KEEP, SHORT = (False, False, False), (False, True, False)
BEFORE = tallied([("web", "en", 9, KEEP)] * 60 + [("web", "de", 9, KEEP)] * 20 + [("books", None, 9, SHORT)] * 20)
AFTER = tallied([("web", "en", 9, KEEP)] * 50 + [("web", "de", 9, SHORT)] * 30 + [("books", None, 9, SHORT)] * 20)


def test_shares_are_of_what_their_names_say() -> None:
    found = {name: (share.part, share.whole) for name, share in shares(BEFORE).items()}
    assert found == {
        "kept_share": (80, 100),
        "kept_share:source:web": (80, 80),
        "kept_share:source:books": (0, 20),
        "kept_share:language:en": (60, 60),
        "kept_share:language:de": (20, 20),
        "share:source:web": (80, 80),
        "share:source:books": (0, 80),
        "share:language:en": (60, 80),
        "share:language:de": (20, 80),
        "hits:contamination": (0, 100),
        "hits:short": (20, 100),
        "hits:long": (0, 100),
    }


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ({"kept_share": Expectation(min=0.5, max=0.9)}, []),
        ({"kept_share": Expectation(min=0.51)}, ["kept_share at least 51.0%"]),
        ({"kept_share": Expectation(max=0.49)}, ["kept_share at most 49.0%"]),
        ({"kept_share": Expectation(drift=0.3)}, []),
        ({"kept_share": Expectation(drift=0.29)}, ["kept_share within 29 points of before"]),
        ({"share:language:de": Expectation(min=0.1)}, ["share:language:de at least 10.0%"]),
        ({"share:language:fr": Expectation(min=0.1)}, ["share:language:fr at least 10.0%"]),
        ({"kept_share:source:books": Expectation(min=0.1)}, ["kept_share:source:books at least 10.0%"]),
        ({"hits:short": Expectation(max=0.5)}, []),
        ({"hits:*": Expectation(drift=0.05)}, ["hits:short within 5 points of before"]),
        (
            {"share:language:*": Expectation(drift=0.1)},
            ["share:language:de within 10 points of before", "share:language:en within 10 points of before"],
        ),
    ],
)
def test_gates_name_what_is_outside(expect: dict[str, Expectation], said: list[str]) -> None:
    table = check_gates(AFTER, BEFORE, expect)
    outside = [line.split()[0] for line in table.splitlines()[2:] if "moved too" not in line]
    assert outside == [one.split()[0] for one in said]
    for one in said:
        assert one.partition(" ")[2] in table


def test_the_table_says_before_and_now_and_what_else_moved_most() -> None:
    table = check_gates(AFTER, BEFORE, {"hits:short": Expectation(drift=0.05), "kept_share": Expectation(drift=0.9)})
    assert table.splitlines() == [
        "one share is not as expected",
        "  share                   before             now                expected",
        "  hits:short              20.0% (20 of 100)  50.0% (50 of 100)  "
        "within 5 points of before (filter.expect.hits:short)",
        "  kept_share:language:de  100.0% (20 of 20)  0.0% (0 of 30)     moved too",
        "  kept_share:source:web   100.0% (80 of 80)  62.5% (50 of 80)   moved too",
        "  kept_share              80.0% (80 of 100)  50.0% (50 of 100)  moved too",
        "  share:language:de       25.0% (20 of 80)   0.0% (0 of 50)     moved too",
        "  share:language:en       75.0% (60 of 80)   100.0% (50 of 50)  moved too",
    ]


def test_without_a_run_before_nothing_has_drifted_and_of_nothing_there_are_no_shares() -> None:
    expect = {"kept_share": Expectation(min=0.1, drift=0.0)}
    assert check_gates(AFTER, None, expect) == ""
    assert check_gates(AFTER, tallied([]), expect) == ""
    assert check_gates(tallied([]), BEFORE, {"kept_share": Expectation(min=0.1)}) == ""
    assert check_gates(AFTER, AFTER, expect) == ""


@pytest.mark.parametrize(
    ("key", "expected", "message"),
    [
        ("kept_shore", Expectation(min=0.1), "did you mean kept_share?"),
        ("kept_share:web", Expectation(min=0.1), "a gate is kept_share, kept_share:source:NAME"),
        ("share:source:", Expectation(min=0.1), "a gate is kept_share"),
        ("gopher-hashes", Expectation(min=0.1), "did you mean hits:gopher-hashes?"),
        ("hits:gopher-hash", Expectation(min=0.1), "no rule of this name applies; did you mean gopher-hashes?"),
        ("kept_share", Expectation(), "it expects nothing"),
        ("kept_share", Expectation(min=0.5, max=0.1), "min 0.5 is above max 0.1"),
    ],
)
def test_a_gate_that_names_nothing_or_holds_nothing_is_refused(key: str, expected: Expectation, message: str) -> None:
    with pytest.raises(ValueError, match=f"filter.expect.{key}: ") as caught:
        check_expectations({key: expected}, PRESETS["gopher"], "contamination")
    assert message in str(caught.value)


def test_gates_may_name_contamination_every_rule_and_groups_there_may_not_be() -> None:
    keys = ("hits:contamination", "hits:*", "share:source:*", "kept_share:language:fr", "kept_share:source:my:web")
    expect = {key: Expectation(drift=0.1) for key in keys}
    check_expectations(expect, PRESETS["gopher"], "contamination")
