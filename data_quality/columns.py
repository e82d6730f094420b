"""What rules may look at: features, and what is known of a document beside its text. One table for all who ask.

Nothing is read here: a column's `kind` names the parts in which it lies, row for row with the documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from data_quality.feature_table import FEATURE_TYPES, how_to_measure

DOCUMENTS, FEATURES, JUDGEMENTS = "documents", "features", "judgements"
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


_RIGHTS = "set quality.rights=true; that reads metadata, not the text"
EXTRA: dict[str, Column] = {
    "licence": Column("text", JUDGEMENTS, "licence", _RIGHTS),
    "licence_class": Column("text", JUDGEMENTS, "licence_class", _RIGHTS),
    "ai_opt_out": Column("number", JUDGEMENTS, "ai_opt_out", _RIGHTS),
    "noindex": Column("number", JUDGEMENTS, "noindex", _RIGHTS),
}
"""Columns of the quality stage that are no features of the text as it stands."""

_JUDGED: tuple[tuple[str, Literal["number", "text"]], ...] = (
    ("_score", "number"), ("_hits", "number"), ("_word_share", "number"), ("_label", "text"),
)  # fmt: skip
"""How the names of columns end that classifiers, lists and scorers of a configuration give."""


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
    for ending, kind in _JUDGED:
        if name.endswith(ending):
            how = "no classifier, list or scorer of quality gives this column; add one, or correct the name"
            return Column(kind, JUDGEMENTS, name, how)
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
