"""What do quality rules cost beside datatrove? Its four filter families together, and our features for such rules.

Both read one Parquet file of documents with one thread. "gristmill" measures all of its features but the language
(which datatrove's four do not ask for either) and writes a file of them; "with datatrove's formulas" adds those that
give datatrove's decisions (`agreement`). datatrove's GopherRepetition, GopherQuality, C4Quality and FineWebQuality
filters have their defaults and write nothing: "every text" lets each see every text, as features do; "chained" lets
each see what those before it leave, C4's rule on end marks off, in FineWeb's order. "our words" replaces spaCy's words
on that side by the definition of this side; sentences stay spaCy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.datatrove import peers, version
from benchmarks.features import CONFIG, part_to_file, prepare
from benchmarks.timing import Benchmark, main

FORMULAS = replace(CONFIG, datatrove_words="attached")


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """What each came to."""
    notes = {}
    for name, found in outcomes.items():
        if name.startswith("gristmill"):
            notes[name] = f"{found['columns']} features, a file of {found['file'] / 1e6:.1f} MB"
        else:
            kept = ", ".join(f"{number:,}" for number in found)
            notes[name] = f"{version()}; kept {kept}"
    return notes


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, compiling, loading spaCy, twenty texts to warm up.",
            prepare,
            {
                "gristmill": part_to_file,
                "gristmill, with datatrove's formulas": partial(part_to_file, config=FORMULAS),
                **peers(
                    "filters",
                    {
                        "datatrove, every text": {"words": "own", "chained": False},
                        "datatrove, every text, our words": {"words": "given", "chained": False},
                        "datatrove, chained": {"words": "own", "chained": True},
                        "datatrove, chained, our words": {"words": "given", "chained": True},
                    },
                ),
            },
            judge,
            packages=("numba", "numpy", "pyarrow"),
            repetitions=3,
        )
    )
