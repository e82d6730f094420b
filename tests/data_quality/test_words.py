"""Words are the same for every Python, every script and every user of the tables."""

from __future__ import annotations

import re

import numpy as np
import pytest

from data_quality.words import character_classes, fold_table, split_words, unicode_version


def test_tables_cover_all_code_points_and_cannot_be_changed_by_a_caller() -> None:
    classes, folds = character_classes(), fold_table()
    assert classes.shape == folds.shape == (0x110000,)
    assert classes.dtype == np.uint8
    assert folds.dtype == np.uint32
    assert set(np.unique(classes)) == {0, 1, 2, 3}
    assert character_classes() is classes
    assert unicode_version()
    with pytest.raises(ValueError, match="read-only"):
        classes[0] = 1


def test_folding_is_idempotent_and_never_leaves_unicode() -> None:
    folds = fold_table()
    assert folds.max() < 0x110000
    assert np.array_equal(folds[folds], folds)


def test_folding_keeps_the_class_of_a_character() -> None:
    classes, folds = character_classes(), fold_table()
    changed = np.flatnonzero(folds != np.arange(folds.size))
    assert np.array_equal(classes[changed], classes[folds[changed]])


def test_ascii_words_are_those_of_a_regular_expression() -> None:
    text = "".join(map(chr, range(128))) + " The quick_brown fox's 3.14 e-mail: A@b.C\tx\r\ny"
    assert split_words(text) == re.findall(r"\w+", text.lower())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n\u3000\u200b", []),
        ("... !?", []),
        ("東京タワー2号", ["東", "京", "タ", "ワ", "ー", "2", "号"]),
        ("日本GPT-4語", ["日", "本", "gpt", "4", "語"]),
        ("ไทย ๑๒", ["ไ", "ท", "ย", "๑๒"]),
        ("ΣΊΣΥΦΟΣ ẞ ſ", ["σίσυφοσ", "ß", "s"]),
        ("İI", ["İi"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("می\u200cروم", ["می\u200cروم"]),
        ("ok ❤\ufe0f yes", ["ok", "yes"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("\U00030000\U00031350x", ["\U00030000", "\U00031350", "x"]),
    ],
)
def test_words_of_many_scripts(text: str, words: list[str]) -> None:
    assert split_words(text) == words
