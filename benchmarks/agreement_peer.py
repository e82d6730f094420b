"""What datatrove's filters say of texts: run by `benchmarks.agreement` with the interpreter that has datatrove.

Reads JSON lines {"text": …, "words": "given" | "own"} and writes one JSON line each: reason by filter, null for kept,
and the CPU seconds of the first four.
"""

from __future__ import annotations

import json
import re
import sys
import time
from functools import lru_cache
from typing import Any

import datatrove.pipeline.filters.fineweb_quality_filter as fineweb_module
import datatrove.pipeline.filters.gopher_quality_filter as quality_module
import datatrove.pipeline.filters.gopher_repetition_filter as repetition_module
import numpy as np
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils.text import split_into_words as own_words

from data_quality.words import OWN_WORD, SPACE, character_classes


def _characters(*kinds: int) -> str:
    """All characters of these classes, as they stand in a set of a regular expression."""
    own = np.flatnonzero(np.diff(np.isin(character_classes(), kinds), prepend=False, append=False)).reshape(-1, 2)
    return "".join(f"\\U{first:08x}-\\U{last - 1:08x}" for first, last in own.tolist())


_WORD = re.compile(f"[{_characters(OWN_WORD)}]|[^{_characters(SPACE, OWN_WORD)}]+")


@lru_cache(maxsize=5)  # as datatrove keeps its own words
def given_words(text: str, language: str = "") -> list[str]:
    """Words by the definition of `data_quality/feature_table.py`."""
    return _WORD.findall(text)


def say(made: Any, document: Document) -> str | None:
    """The reason of a filter, null if it keeps the document."""
    try:
        result = made.filter(document)
    except ZeroDivisionError:
        return "zero-division"
    return None if result is True else result[1]


def main(source: str, target: str) -> None:
    filters = {
        "gopher": GopherQualityFilter(),
        "gopher-repetition": GopherRepetitionFilter(),
        "c4": C4QualityFilter(),
        "fineweb": FineWebQualityFilter(),
    }
    unmarked = C4QualityFilter(filter_no_terminal_punct=False)
    with open(source, encoding="utf-8") as lines, open(target, "w", encoding="utf-8") as out:
        for line in lines:
            row = json.loads(line)
            words = own_words if row["words"] == "own" else given_words
            for module in (quality_module, repetition_module, fineweb_module):
                module.split_into_words = words
            found: dict[str, Any] = {}
            began = time.process_time()
            for name, made in filters.items():
                found[name] = say(made, Document(text=row["text"], id=""))
            found["seconds"] = time.process_time() - began
            cut = Document(text=row["text"], id="")
            found["c4, then fineweb"] = say(unmarked, cut)
            if found["c4, then fineweb"] is None:
                found["c4, then fineweb"] = say(filters["fineweb"], cut)
            out.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
