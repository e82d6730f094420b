"""Differences say whose every word is, and stay short and quick whatever the texts."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from stages.difference import KEEPER, SAME, THIS, word_difference

words = st.lists(st.sampled_from(["a", "bb", "語", ",", "[x]"]), max_size=6).map(" ".join)


@given(keeper=words, text=words)
def test_both_texts_can_be_read_from_their_difference(keeper: str, text: str) -> None:
    passages = word_difference(keeper, text)
    assert "".join(passage for whose, passage in passages if whose != THIS) == keeper
    assert "".join(passage for whose, passage in passages if whose != KEEPER) == text


def test_what_is_the_same_is_shortened_next_to_what_is_not() -> None:
    common = [f"w{number}" for number in range(100)]
    passages = word_difference(" ".join([*common, "old", *common]), " ".join([*common, "new", "er", *common]))
    assert [whose for whose, _ in passages] == [SAME, KEEPER, THIS, SAME]
    assert passages[0][1].startswith(" …") or passages[0][1].startswith("…")
    assert passages[0][1].endswith("w98 w99 ")
    assert passages[1:3] == [(KEEPER, "old"), (THIS, "new er")]
    assert passages[3][1].startswith(" w0 w1 ")
    assert passages[3][1].endswith("…")


def test_long_texts_are_cut() -> None:
    started = time.process_time()
    passages = word_difference("x y " * 200_000 + "end", "y z " * 200_000 + "end")
    assert any("…" in passage for _, passage in passages)
    assert sum(len(passage) for _, passage in passages) < 100_000
    assert time.process_time() - started < 30
