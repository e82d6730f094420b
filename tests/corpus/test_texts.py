"""Whole arrays of texts: what comes out is what the functions for one text give, for every text."""

from __future__ import annotations

import unicodedata
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import texts
from corpus.config import NormaliseConfig
from corpus.normalise import NEVER_CLEAN, bad_neighbours, normalise
from corpus.text_kernels import find_unclean
from corpus.texts import blank_rows, content_ids, document_id, large_strings, normalise_texts

AS_FOUND = NormaliseConfig(**{step.name: False for step in fields(NormaliseConfig)})
CONFIGS = [
    NormaliseConfig(),
    NormaliseConfig(blank_lines=False),
    NormaliseConfig(trailing_white_space=False),
    NormaliseConfig(fix_encoding=False, unicode_nfc=False),
    AS_FOUND,
]
ODD = "ab.Z \t\n\r\v\x00\x1c\x7f\x85\xa0\xad\u0301\u200b\u2028\u3000\u1680"
ODD += "éüÃ©œŒÐÑØÙ“”…€ВГРСабвΒαў日本\ufffd\U0001f600\U00011131"


def check(some: list[str], config: NormaliseConfig) -> None:
    array = large_strings([text.encode() for text in ["before", *some, "behind"]])[1:-1]
    found, steps = normalise_texts(array, config)
    found.validate(full=True)
    expected = [normalise(text, config) for text in some]
    assert found.to_pylist() == [text for text, _ in expected]
    assert steps == {row: names for row, (_, names) in enumerate(expected) if names}
    assert blank_rows(array) == [row for row, text in enumerate(some) if not text or text.isspace()]
    assert content_ids(array).to_pylist() == [document_id(text) for text in some]


@settings(max_examples=300, deadline=None)
@given(
    some=st.lists(st.text(st.sampled_from(ODD), max_size=40) | st.text(st.sampled_from(" \t\nab"), max_size=300)),
    config=st.sampled_from(CONFIGS),
)
def test_an_array_is_repaired_as_each_of_its_texts_is(some: list[str], config: NormaliseConfig) -> None:
    check(some, config)


@settings(max_examples=100, deadline=None)
@given(some=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=300)))
def test_any_characters_at_all(some: list[str]) -> None:
    check(some, CONFIGS[0])


@pytest.mark.parametrize("around", [("", ""), ("x", "y"), ("x ", " y"), ("é", "é")])
def test_every_character_of_unicode(around: tuple[str, str]) -> None:
    every = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cs", "Cn", "Co")]
    check([character.join(around) for character in every], CONFIGS[0])


def test_no_pair_of_characters_that_may_be_mojibake_is_missed() -> None:
    """Characters that the table takes for alike are alike; `bad_neighbours` itself says what is suspicious."""
    classes, _ = texts._characters()
    known = [chr(code) for code in range(0x80, 0x10000) if classes[code] and not 0xD800 <= code < 0xE000]
    known = [character for character in known if not bad_neighbours(NEVER_CLEAN).fullmatch(character)]
    assert len(known) > 300
    every = large_strings([f"a{one}{other}b".encode() for one in known for other in [*known, "b", "-"]])
    rows, ragged = np.empty(len(every), np.int64), np.empty(len(every), np.bool_)
    offsets, data = texts.buffers(every)
    number = find_unclean(data, offsets, *texts._characters(), rows, ragged)
    found = set(rows[:number].tolist())
    suspicious = bad_neighbours("")
    missed = [text for row, text in enumerate(every.to_pylist()) if row not in found and suspicious.search(text)]
    assert missed == []
    assert len(found) < len(every) / 2


def test_long_texts_whatever_stands_where_in_them() -> None:
    """The compiled loop looks at blocks of 128 bytes: what is wrong is found at every place in one."""
    for wrong in (" \n", "\t\n", "\n\n\n\n", "\x0b", "\x7f", "\u200b", "â€™"):
        check(["x" * before + wrong + "y" * 300 for before in range(280)], CONFIGS[0])


def test_arrays_without_texts_and_texts_without_bytes() -> None:
    check([], CONFIGS[0])
    check(["", "", " ", ""], CONFIGS[0])
    nothing = pa.array([], pa.large_string())
    assert normalise_texts(nothing, CONFIGS[0]) == (nothing, {})
