"""Writes `docs/features.md`, every feature with formula and source, from `feature_table.py`.

Run by a person when features change (`python -m data_quality.feature_page`); a test says when that was forgotten.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pyarrow as pa

from data_quality import feature_table
from data_quality.feature_table import FEATURES, Feature

_VIEWS = {
    "text": "The text as written",
    "c4": "The lines that C4 leaves, as TensorFlow Datasets' code",
    "c4-datatrove": "The lines that C4 leaves, as datatrove's code",
    "fineweb": "The lines that C4 leaves where FineWeb asks",
    "url": "The URL",
    "cut": "The text with cuts applied",
}
_NOTES = {
    "c4": "Measured always, whatever `quality.cuts` says: rules for what C4 would drop need no new scan.",
    "fineweb": "FineWeb runs C4's rules first, without the one on end marks, and its own on what they leave.",
    "url": "Null where a document has no URL, or no host can be read in it.",
    "cut": "The same features of the text as it leaves the house, with `quality.cuts` applied.",
}
_ON_REQUEST = "Measured only where asked for"


def page() -> str:
    """The page, in Markdown."""
    terms = (feature_table.__doc__ or "").partition("\n\n")[2].partition("Terms, the same")[2]
    defined = re.sub(r"^(\S.*)\n    ", r"**\1** — ", f"Terms, the same{terms}", flags=re.MULTILINE)
    defined = re.sub(r"\n    ", " ", defined).replace("\n**", "\n\n**")
    defined = re.sub(r"(?<!\n)\n(?!\n)", " ", re.sub(r"\n{3,}", "\n\n", defined)).strip()
    parts = [
        "# Features",
        "What the quality stage measures of every document, and stores in `features/<part>.parquet`: one row a "
        "document, in the order of its part. Nothing is dropped by it; rules over these columns are another stage's. "
        "Made by `python -m data_quality.feature_page`, not edited by hand.",
        "## Terms",
        defined,
    ]
    always = [feature for feature in FEATURES if not feature.setting]
    for view, title in _VIEWS.items():
        rows = [feature for feature in always if feature.view == view]
        if rows:
            parts += [f"## {title}", *([_NOTES[view]] if view in _NOTES else []), _table(rows)]
    parts += [
        f"## {_ON_REQUEST}",
        "These are columns of the file only where a setting asks for them; a change of it measures the texts again. So "
        "do the other settings of `quality.features`: `stop_words`, `short_line_characters`, `identify_language`, "
        "`language_characters`. The sizes of n-grams are in the features' names.",
    ]
    for setting in dict.fromkeys(feature.setting for feature in FEATURES if feature.setting):
        rows = [feature for feature in FEATURES if feature.setting == setting]
        if setting.endswith("measure_cut"):
            names = ", ".join(f"`{feature.name}`" for feature in rows)
            parts += [f"### `{setting}`", f"{_NOTES['cut']} {names}."]
        else:
            parts += [f"### `{setting}`", _table(rows)]
    return "\n\n".join(parts) + "\n"


def _table(features: list[Feature]) -> str:
    lines = ["| name | type | formula | source |", "|---|---|---|---|"]
    for feature in features:
        formula = feature.formula.replace("|", "\\|")
        lines.append(f"| `{feature.name}` | {_type(feature.type)} | {formula} | {feature.source} |")
    return "\n".join(lines)


def _type(type_: pa.DataType) -> str:
    return {"double": "float64", "float": "float32"}.get(str(type_), str(type_))


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "docs" / "features.md"
    target.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{target}: {len(FEATURES)} features\n")
