"""Normalising repairs how text is written, says what it did, and changes nothing the second time."""

from __future__ import annotations

import gzip
import json
import re
import tarfile
import unicodedata
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from ftfy.badness import MOJIBAKE_CATEGORIES, is_bad
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import NormaliseConfig
from corpus.normalise import _COMPOSING, _is_clean, _steps, is_suspicious, normalise

ALL = NormaliseConfig()
OFF = NormaliseConfig(
    unicode_nfc=False,
    fix_encoding=False,
    control_characters=False,
    line_ends=False,
    trailing_white_space=False,
    zero_width=False,
    white_space=False,
    blank_lines=False,
)
TRICKY = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("ÃÂâ€™œ“”\xa0 \n\r\t\x85\x92\u2028\ufeff\ud83d\ude00é\u0301aЗ°вЂкΒΞ¢├"),
        st.sampled_from("\xad\u200b\u2060\u200d\u2003\u3000\u1780\u17d2\n\n\n\u093c\u0958\u1100\u1161"),
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
    zero_width=st.booleans(),
    white_space=st.booleans(),
    blank_lines=st.booleans(),
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
        ("wo\u200brd joi\u2060ner hy\xadphen f\u2061(x)", "word joiner hyphen f(x)", ("zero_width",)),
        ("hyphen\xad\nated, and\xad \nso on", "hyphen-\nated, and-\nso on", ("zero_width", "trailing_white_space")),
        ("ខ្ញុំ\u200b\u200bស្រឡាញ់\u200b ភាសា\u200b", "ខ្ញុំ\u200bស្រឡាញ់ ភាសា", ("zero_width",)),
        ("ខ្ញុំ\u200bស្រឡាញ់", "ខ្ញុំ\u200bស្រឡាញ់", ()),
        (
            "می\u200cخواهم 👩\u200d👩\u200d👧 \u200fא\u200e ❤\ufe0f",
            "می\u200cخواهم 👩\u200d👩\u200d👧 \u200fא\u200e ❤\ufe0f",
            (),
        ),
        ("10\u202f000\xa0€ a\u2003b", "10 000 € a b", ("white_space",)),
        ("全角\u3000空白\t|", "全角\u3000空白\t|", ()),
        ("line\xa0\nend", "line\nend", ("white_space", "trailing_white_space")),
        ("a\n\n\nb\n\n\n\n\n\nc", "a\n\n\nb\n\n\nc", ("blank_lines",)),
        ("e\u2060\u0301", "é", ("zero_width", "unicode_nfc")),
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
    assert normalise(text, OFF) == (text, ())


@settings(max_examples=300, deadline=None)
@given(text=TRICKY)
def test_what_comes_out_is_valid_utf8_without_control_characters(text: str) -> None:
    fixed, _ = normalise(text, ALL)
    fixed.encode()
    assert not {character for character in fixed if ord(character) < 32} - {"\t", "\n"}


@settings(max_examples=1000, deadline=None)
@given(text=TRICKY)
def test_what_looks_clean_is_left_alone_by_every_repair(text: str) -> None:
    once, _ = normalise(text, ALL)
    for some in (text, once):
        if _is_clean(some):
            assert [name for name, repair in _steps(ALL) if repair(some) != some] == []


@settings(max_examples=500, deadline=None)
@given(text=TRICKY)
def test_clean_text_is_found_to_be_clean_at_once(text: str) -> None:
    once, _ = normalise(text, ALL)
    beyond_repair = not once or is_bad(once) or "\u200b" in once or once[0] == "\n"
    assert _is_clean(once) or beyond_repair


def test_all_characters_that_normal_form_c_may_change_are_known() -> None:
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    seconds = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    for character in characters:
        composed = unicodedata.decomposition(character)
        if composed and not composed.startswith("<"):
            seconds |= {chr(int(code, 16)) for code in composed.split()[1:]}
    missed = [
        character
        for character in characters
        if (unicodedata.combining(character) or unicodedata.normalize("NFC", character) != character)
        or character in seconds
        if not _COMPOSING.match(character)
    ]
    assert missed == []


def test_the_fast_look_for_mojibake_agrees_with_ftfy_on_all_neighbours() -> None:
    ranges = re.findall("(.)(?:-(.))?", "".join(MOJIBAKE_CATEGORIES.values()), re.DOTALL)
    characters = {chr(code) for first, last in ranges for code in range(ord(first), ord(last or first) + 1)}
    characters |= set("ŒœŠŸžÂÃÎÐØÙ°µ·´–—βаяў \xa0a中́🙂")
    found = 0
    for first, second in product(sorted(characters), repeat=2):
        for text in (f"{first}{second}", f"x{first}{second}Ù…x", f"{second}“{first}² {first} ", f"С{first}В{second}"):
            bad = is_bad(text)
            found += bad
            assert is_suspicious(text) == bad, ascii(text)
    assert found > 10_000


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
    only = replace(OFF, fix_encoding=True)
    wild = json.loads((shared_data / "encoding" / "ftfy" / "in-the-wild.json").read_text())
    changed = [case for case in wild if normalise(case["original"], only)[0] != case["original"]]
    assert len(changed) > 0.8 * len(wild)
    with gzip.open(shared_data / "text" / "wikipedia_en_30_articles.txt.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            assert "fix_encoding" not in normalise(line, only)[1] or is_bad(line)


@pytest.mark.parametrize("name", ["in-the-wild", "synthetic", "negative"])
def test_cases_of_mojibake_come_out_as_ftfy_expects(name: str, shared_data: Path) -> None:
    cases = json.loads((shared_data / "encoding" / "ftfy" / f"{name}.json").read_text())
    only = replace(OFF, fix_encoding=True)
    for case in cases:
        assert normalise(case["original"], only)[0] == case.get("fixed-encoding", case["fixed"]), case["label"]


def test_long_text_is_repaired_in_the_lines_that_need_it_as_ftfy_would(shared_data: Path) -> None:
    import ftfy

    cases = json.loads((shared_data / "encoding" / "ftfy" / "in-the-wild.json").read_text())
    text = "\n".join(f"{case['original']}\nCafé – “naïve”\nplain" for case in cases)
    fixed = "\n".join(f"{ftfy.fix_encoding(case['original'])}\nCafé – “naïve”\nplain" for case in cases)
    assert normalise(text, replace(OFF, fix_encoding=True)) == (fixed, ("fix_encoding",))


def test_code_and_tables_keep_their_layout(shared_data: Path) -> None:
    with tarfile.open(shared_data / "text" / "python_peps.tar.gz") as archive:
        for member in archive.getmembers()[::10]:
            if file := archive.extractfile(member):
                text = file.read().decode("utf-8", "replace").replace("\r\n", "\n")
                lines = [line.rstrip(" \t") for line in text.split("\n")]
                kept = normalise(text, ALL)[0].split("\n")
                assert [line for line in kept if line] == [
                    re.sub("[\xa0\u2002-\u200a\u202f]", " ", line).rstrip().replace("\x0c", "").replace("\ufeff", "")
                    for line in lines
                    if line.strip("\x0c ")
                ]


def test_naughty_strings_settle(shared_data: Path) -> None:
    for text in json.loads((shared_data / "encoding" / "blns.json").read_text()):
        once, _ = normalise(text, ALL)
        assert normalise(once, ALL) == (once, ())
