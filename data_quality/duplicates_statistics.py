"""What is counted of duplicates, and what that says of the recall."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from data_quality.duplicates_config import DeduplicateConfig

SIMILARITY_STEPS = 50


def count_fates(decided: pl.DataFrame, already: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Whole numbers that add up over documents: `exact`, `near`, `capped`, and `similarities`, near-duplicates by
    similarity in SIMILARITY_STEPS steps from 0 to 1, leaving out the documents whose text was removed `already`."""
    near = decided.filter(pl.col("method") == "near")
    seen = near.filter(~pl.col("number").is_in(pl.Series(already, dtype=pl.Int64).implode()))["similarity"].to_numpy()
    steps = np.minimum(seen * SIMILARITY_STEPS, SIMILARITY_STEPS - 1).astype(np.int64)
    return {
        "exact": int((decided["method"] == "exact").sum()),
        "near": near.height,
        "capped": int(decided["capped"].sum()),
        "similarities": np.bincount(steps, minlength=SIMILARITY_STEPS).tolist(),
    }


def add_statistics(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Adds numbers to numbers and, place by place, lists to lists."""
    for name, value in more.items():
        if isinstance(value, list):
            longest = max(len(value), len(total.get(name, [])))
            filled = [[*some, *([0] * (longest - len(some)))] for some in (total.get(name, []), value)]
            total[name] = [one + other for one, other in zip(*filled, strict=True)]
        else:
            total[name] = total.get(name, 0) + value


def summary(statistics: Mapping[str, Any], config: DeduplicateConfig) -> dict[str, Any]:
    """What people are told: the sums, bucket sizes by name, and the recall these bands and caps let expect.

    A near-duplicate of similarity s is found with P(s) = 1 - (1 - s^rows)^bands, so that behind each one found stand
    1 / P(s) - 1 missed ones; P is taken at the lower end of a bin of similarities. Every capped document may be one
    that was missed too: `recall_at_least` counts them all.
    """
    bins = []
    found = missed = 0.0
    for step, near in enumerate(statistics.get("similarities", [])):
        if near:
            low = max(step / SIMILARITY_STEPS, config.threshold)
            chance = 1 - (1 - low**config.rows) ** config.bands
            bins.append({"from": low, "near": near, "recall": chance, "missed": near / chance - near})
            found, missed = found + near, missed + near / chance - near
    names = {0: "2"} | {power: f"{2**power + 1}-{2 ** (power + 1)}" for power in range(1, 64)}
    buckets = statistics.get("buckets", [])
    capped = statistics.get("capped", 0)
    plain = {name: value for name, value in statistics.items() if not isinstance(value, list)}
    return {
        **plain,
        "buckets": {names[power]: number for power, number in enumerate(buckets) if number},
        "recall": found / (found + missed) if found else 1.0,
        "recall_at_least": found / (found + missed + capped) if found + capped else 1.0,
        "recall_by_similarity": bins,
    }
