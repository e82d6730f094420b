"""What does another threshold cost? Rules over stored features, beside a plain loop over them, and measuring again.

The rules of Gopher, FineWeb's own and those for code (31 in all), from the features file to who is dropped by what. The
plain loop asks the same rules one by one of rows that are dictionaries, and stops at the first that is true.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.documents import amounts, load_texts, save_documents
from benchmarks.timing import Benchmark, Result, Work, main
from data_quality.filter_config import FilterConfig
from data_quality.quality_config import QualityConfig

MEASURED = QualityConfig(identify_language=False)
RULES = FilterConfig(presets=("gopher", "gopher-repetition", "fineweb-quality", "code"))
COMPARED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}


def prepare(documents: Any, folder: Path) -> None:
    """Texts, and their features as `quality` stores them."""
    import pyarrow.parquet as pq

    from data_quality.features import compute_features

    save_documents(documents, folder)
    pq.write_table(compute_features(load_texts(folder), MEASURED), folder / "features.parquet", compression="zstd")


def stored(folder: Path) -> Work:
    """`judge` over the columns that the rules look at, read from the file."""
    import polars as pl

    from data_quality.rules import columns_of, resolve_rules

    ids, sizes = _ids(folder), amounts(load_texts(folder))
    needed = columns_of(resolve_rules(RULES))

    def work() -> Result:
        reasons = _judged(ids, pl.read_parquet(folder / "features.parquet", columns=needed))
        return Result(sizes, lambda: reasons)

    return work


def measured_again(folder: Path) -> Work:
    """`compute_features` on the texts in memory, then the same."""
    import polars as pl

    from data_quality.features import compute_features

    ids, texts = _ids(folder), load_texts(folder)
    compute_features(texts.slice(0, 10), MEASURED)

    def work() -> Result:
        frame = pl.from_arrow(compute_features(texts, MEASURED))
        assert isinstance(frame, pl.DataFrame)
        reasons = _judged(ids, frame)
        return Result(amounts(texts), lambda: reasons)

    return work


def loop(folder: Path) -> Work:
    """A plain loop over the rows of the file."""
    import pyarrow.parquet as pq

    from data_quality.rules import columns_of, resolve_rules

    sizes = amounts(load_texts(folder))
    rules = resolve_rules(RULES)
    needed = columns_of(rules)
    table: list[tuple[str, str, Any, Any]] = [
        (rule.name, rule.feature, COMPARED[str(rule.comparison)], rule.threshold) for rule in rules
    ]

    def work() -> Result:
        reasons = []
        for row in pq.read_table(folder / "features.parquet", columns=needed).to_pylist():
            found = (name for name, feature, compare, threshold in table if compare(row[feature], threshold))
            reasons.append(next(found, None))
        return Result(sizes, lambda: reasons)

    return work


def _ids(folder: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(folder / "documents.parquet", columns=["id"]).column("id").combine_chunks()


def _judged(ids: Any, frame: Any) -> Any:
    from data_quality.rules import judge

    return judge(ids, frame, None, RULES).reasons.to_pylist()


def judged(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """How many documents have the same reason."""
    mine = outcomes["gristmill"]
    kept = f"{sum(reason is None for reason in mine):,} of {len(mine):,} kept, all hits beside the first"
    return {"gristmill": kept} | {
        peer: f"same reason for {sum(a == b for a, b in zip(mine, theirs, strict=True)) / len(mine):.2%}"
        for peer, theirs in list(outcomes.items())[1:]
    }


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, reading the texts, compiling, computing the stored features.",
            prepare,
            {"gristmill": stored, "Python loop": loop, "measured again": measured_again},
            judged,
            documents=40_000,
            packages=("numpy", "polars", "pyarrow"),
        )
    )
