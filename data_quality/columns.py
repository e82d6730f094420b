"""What rules may look at: features, and what is known of a document beside its text. One table for all who ask.

Nothing is read here: a column's `kind` names the parts in which it lies, row for row with the documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from data_quality.feature_table import FEATURE_TYPES, how_to_measure

DOCUMENTS, FEATURES = "documents", "features"
META = "meta."
_FIELD = re.compile(r"meta(\.[^.'\[\]\\]+)+")


@dataclass(frozen=True)
class Column:
    """Something a rule can look at.

    Attributes
    ----------
    type
        `meta.<field>` is text, and a number where it is compared with one.
    kind
        Of the parts that hold it: `documents` of ingest, or parts of quality.
    stored
        Its name there: every `meta.<field>` lies in `meta`.
    how
        What to set so that it is there; empty if it always is.
    """

    type: Literal["number", "text"]
    kind: str
    stored: str
    how: str = ""


EXTRA: dict[str, Column] = {}
"""Columns of the quality stage that are no features of the text as it stands."""


def column(name: str) -> Column | None:
    """What a name stands for, or None if there is nothing of this name."""
    if name in ("source", "url", "date"):
        return Column("text", DOCUMENTS, name)
    if name.startswith(META):
        return Column("text", DOCUMENTS, "meta") if _FIELD.fullmatch(name) else None
    if name in EXTRA:
        return EXTRA[name]
    if name in FEATURE_TYPES:
        number = str(FEATURE_TYPES[name]) not in ("string", "large_string")
        return Column("number" if number else "text", FEATURES, name, how_to_measure(name))
    return None


def names() -> list[str]:
    """All names there are, but for the fields of `meta`."""
    return [*FEATURE_TYPES, *EXTRA, "source", "url", "date"]


def where_stored(wanted: Iterable[str]) -> dict[str, list[str]]:
    """The stored columns that hold these names, by kind of part.

    >>> where_stored(["words", "meta.licence", "meta.robots"])
    {'documents': ['meta'], 'features': ['words']}
    """
    found: dict[str, set[str]] = {}
    for name in wanted:
        known = column(name)
        if known is None:
            raise ValueError(f"there is no column {name!r} to look at")
        found.setdefault(known.kind, set()).add(known.stored)
    return {kind: sorted(found[kind]) for kind in sorted(found)}
