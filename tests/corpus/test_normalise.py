"""Normalising repairs how text is written, says what it did, and changes nothing the second time."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import pytest
from ftfy.badness import is_bad
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import NormaliseConfig
from corpus.normalise import is_suspicious, normalise

ALL = NormaliseConfig()
TRICKY = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("ÃÂâ€™œ“”\xa0 \n\r\t\x85\x92\u2028\ufeff\ud83d\ude00é\u0301aЗ°вЂкΒΞ¢├"),
        st.sampled_from("abc ABC.,"),
    ),
    max_size=60,
)
SWITCHES = st.builds(
    NormaliseConfig,
    unicode_nfc=st.booleans(),
    fix_encoding=st.booleans(),
    control_characters=st.booleans(),
    line_ends=st.booleans(),
    trailing_white_space=st.booleans(),
)


@pytest.mark.parametrize(
    ("text", "expected", "steps"),
    [
        ("Plain ASCII.\n\n  Indented.", "Plain ASCII.\n\n  Indented.", ()),
        ("Zürich — “quoted” 中文", "Zürich — “quoted” 中文", ()),
        ("Itâ€™s a cafÃ©", "It’s a café", ("fix_encoding",)),
        ("a\r\nb\rc\x0cd\u2028e", "a\nb\nc\nd\ne", ("line_ends",)),
        ("\ufeffa\x00b\x1b[0m\x7f", "ab[0m", ("control_characters",)),
        ("e\u0301", "é", ("unicode_nfc",)),
        ("\n \n  a  \nb\t\n\n", "  a\nb", ("trailing_white_space",)),
        ("\ud83d\ude00 and \ud83d alone", "😀 and \ufffd alone", ("fix_encoding",)),
        ("ﬁne &amp; ｗide", "ﬁne &amp; ｗide", ()),
    ],
)
def test_what_each_repair_does(text: str, expected: str, steps: tuple[str, ...]) -> None:
    assert normalise(text, ALL) == (expected, steps)


@settings(max_examples=400, deadline=None)
@given(text=TRICKY, config=SWITCHES)
def test_normalising_twice_changes_nothing(text: str, config: NormaliseConfig) -> None:
    once, _ = normalise(text, config)
    assert normalise(once, config) == (once, ())


@settings(max_examples=300, deadline=None)
@given(text=TRICKY)
def test_with_everything_switched_off_text_stays_as_it_is(text: str) -> None:
    off = NormaliseConfig(
        unicode_nfc=False, fix_encoding=False, control_characters=False, line_ends=False, trailing_white_space=False
    )
    assert normalise(text, off) == (text, ())


@settings(max_examples=300, deadline=None)
@given(text=TRICKY)
def test_what_comes_out_is_valid_utf8_without_control_characters(text: str) -> None:
    fixed, _ = normalise(text, ALL)
    fixed.encode()
    assert not {character for character in fixed if ord(character) < 32} - {"\t", "\n"}


@settings(max_examples=1000, deadline=None)
@given(text=TRICKY)
def test_the_fast_look_for_mojibake_agrees_with_ftfy(text: str) -> None:
    assert is_suspicious(text) == is_bad(text)


def test_the_fast_look_agrees_with_ftfy_on_real_text(shared_data: Path, tmp_path: Path) -> None:
    texts: list[str] = []
    for name in ("in-the-wild", "synthetic", "negative", "known-failures"):
        cases = json.loads((shared_data / "encoding" / "ftfy" / f"{name}.json").read_text())
        texts += [case["original"] for case in cases]
    with gzip.open(shared_data / "langid" / "xquad_paragraphs_12_languages.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts += [" ".join(str(value) for value in json.loads(line).values()) for line in lines][::7]
    texts += json.loads((shared_data / "encoding" / "blns.json").read_text())
    with tarfile.open(shared_data / "encoding" / "chardet_229.tar.gz") as archive:
        for member in archive.getmembers()[::5]:
            if file := archive.extractfile(member):
                texts.append(file.read(20_000).decode("windows-1252", "replace"))
    assert len(texts) > 800
    assert [is_suspicious(text) for text in texts] == [is_bad(text) for text in texts]


def test_real_mojibake_is_repaired_and_real_text_is_left_alone(shared_data: Path) -> None:
    only = NormaliseConfig(
        unicode_nfc=False, control_characters=False, line_ends=False, trailing_white_space=False, fix_encoding=True
    )
    wild = json.loads((shared_data / "encoding" / "ftfy" / "in-the-wild.json").read_text())
    changed = [case for case in wild if normalise(case["original"], only)[0] != case["original"]]
    assert len(changed) > 0.8 * len(wild)
    with gzip.open(shared_data / "text" / "wikipedia_en_30_articles.txt.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            assert "fix_encoding" not in normalise(line, only)[1] or is_bad(line)


def test_naughty_strings_settle(shared_data: Path) -> None:
    for text in json.loads((shared_data / "encoding" / "blns.json").read_text()):
        once, _ = normalise(text, ALL)
        assert normalise(once, ALL) == (once, ())
