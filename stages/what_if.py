"""What would be kept and dropped under other rules: answered from stored features, without writing anything.

The answer is what `filter` itself would decide, by the same code; how it goes on at `deduplicate` is said as far as it
is known. Nothing here needs Prefect or a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_quality.filter_config import FilterConfig
from stages.base import StageError
from stages.decided import part_frame, rules_of, verdict
from stages.filter import Filter
from stages.samples import described
from storage.fingerprint import canonical
from storage.outputs import Output

if TYPE_CHECKING:
    import polars as pl

    from data_quality.rules import Verdict

NEEDS = ("ingest", "quality", "decontaminate")
IN, OUT = "in", "out"


def what_if(outputs: Mapping[str, Output], before: FilterConfig, after: FilterConfig, samples: int) -> dict[str, Any]:
    """What changes between two sets of rules.

    Parameters
    ----------
    outputs
        Complete outputs of a run by stage; ingest, quality and decontaminate are needed.
    samples
        Documents shown of those that come in, and of those that go out.

    Returns
    -------
    dict
        `changes` (rule, condition before, condition after), `read`, `kept` and `bytes` (before, after), `in` and `out`
        (documents, bytes), `sources` and `languages` (rows with the same numbers), `rules` (first reasons and hits,
        before and after), `samples` ("in", "out": as `stages.samples.described`), and `later`: what is known of
        deduplication.

    Raises
    ------
    StageError
        If the run lacks one of the outputs, a rule is wrong or a column is not stored.
    """
    from data_quality.tally import frame_of, total

    missing = [stage for stage in NEEDS if stage not in outputs]
    if missing:
        raise StageError(f"this run has no complete output of {', '.join(missing)}: run it until then first")
    both = (*rules_of(before), *rules_of(after))
    found = _Found(_deduplicated(outputs, before))
    for part in outputs["ingest"].parts("documents"):
        ids, frame = part_frame(outputs, part.stem, both)
        then = verdict(outputs, part.stem, ids, frame, before)
        now = verdict(outputs, part.stem, ids, frame, after)
        found.add(outputs, part.stem, ids, frame, then, now, samples)
    then_total, now_total, moved = total(found.before), total(found.after), total(found.moved)
    sums = {IN: [0, 0], OUT: [0, 0]}
    for side, documents, size in frame_of(moved["groups"]).select("reason", "documents", "bytes").iter_rows():
        sums[side] = [sums[side][0] + documents, sums[side][1] + size]
    return {
        "changes": _changes(before, after),
        "read": then_total["read"],
        **_kept(then_total, now_total),
        IN: dict(zip(("documents", "bytes"), sums[IN], strict=True)),
        OUT: dict(zip(("documents", "bytes"), sums[OUT], strict=True)),
        "sources": _by(then_total, now_total, moved, "source"),
        "languages": _by(then_total, now_total, moved, "language"),
        "rules": _by_rule(then_total, now_total),
        "samples": {
            side: described(outputs, chosen, rules_of(before if side == IN else after))
            for side, chosen in found.samples(samples).items()
        },
        "later": found.later(outputs),
    }


@dataclass
class _Found:
    """What is gathered part by part."""

    deduplicated: Output | None
    before: list[Any] = field(default_factory=list)
    after: list[Any] = field(default_factory=list)
    moved: list[Any] = field(default_factory=list)
    chosen: dict[str, list[pl.DataFrame]] = field(default_factory=lambda: {IN: [], OUT: []})
    ids: dict[str, list[Any]] = field(default_factory=lambda: {IN: [], OUT: []})
    keepers: list[Any] = field(default_factory=list)
    out_in_use: int = 0

    def add(
        self, outputs: Mapping[str, Output], stem: str, ids: Any, frame: Any, then: Verdict, now: Verdict, most: int
    ) -> None:
        import polars as pl

        from data_quality.tally import tally

        described = frame.select("source", "language", "bytes")
        reasons = {"then": pl.Series(pl.from_arrow(then.reasons)), "now": pl.Series(pl.from_arrow(now.reasons))}
        self.before.append(tally(described.with_columns(reason=reasons["then"]), then.names, then.fired))
        self.after.append(tally(described.with_columns(reason=reasons["now"]), now.names, now.fired))
        rows = described.with_columns(
            id=pl.Series(pl.from_arrow(ids)), part=pl.lit(stem), row=pl.int_range(len(ids), eager=True), **reasons
        )
        came, went = pl.Series(~then.kept & now.kept), pl.Series(then.kept & ~now.kept)
        sides = [described.filter(mask).with_columns(reason=pl.lit(side)) for side, mask in ((IN, came), (OUT, went))]
        self.moved.append(tally(pl.concat(sides)))
        for side, mask, reason in ((IN, came, "then"), (OUT, went, "now")):
            of_side = rows.filter(mask)
            self.ids[side].append(of_side["id"])
            picked = of_side.sort("id", "row").head(most)
            self.chosen[side].append(picked.select("id", "part", "row", pl.col(reason).alias("reason")))
        if self.deduplicated is not None:
            decided = self.deduplicated.read(f"decisions/{stem}", ["dropped_by", "keeper"])
            decisions = pl.DataFrame({name: pl.from_arrow(decided.column(name)) for name in decided.column_names})
            self.out_in_use += int((went & decisions["dropped_by"].is_null()).sum())
            self.keepers.append(decisions.filter(pl.Series(then.kept) & pl.col("dropped_by").is_not_null())["keeper"])

    def samples(self, most: int) -> dict[str, pl.DataFrame]:
        import polars as pl

        return {
            side: pl.concat(frames).sort("id", "part", "row").head(most)
            for side, frames in self.chosen.items()
            if frames
        }

    def later(self, outputs: Mapping[str, Output]) -> dict[str, Any] | None:
        """What deduplication has decided so far about documents that go out, and about texts that come in."""
        import polars as pl

        if self.deduplicated is None:
            return None
        empty = pl.Series("id", [], dtype=pl.Binary)
        out, came = (pl.concat([empty, *self.ids[side]]) for side in (OUT, IN))
        keepers = pl.concat([empty, *self.keepers])
        copies = came.len() - came.n_unique()
        if came.len():
            for part in self.deduplicated.parts("decisions"):
                table = self.deduplicated.read(part, ["id", "dropped_by"])
                decided = pl.DataFrame({name: pl.from_arrow(table.column(name)) for name in table.column_names})
                kept = decided.filter(pl.col("dropped_by").is_null())["id"]
                copies += came.unique().is_in(kept.implode()).sum()
        return {
            "out_in_use": self.out_in_use,
            "out_dropped_already": out.len() - self.out_in_use,
            "duplicates_set_free": int(keepers.is_in(out.implode()).sum()) if out.len() else 0,
            "in_exact_copies": int(copies),
            "in_to_compare": came.len() - int(copies),
        }


def _deduplicated(outputs: Mapping[str, Output], before: FilterConfig) -> Output | None:
    """The output of deduplicate, if it was made from what the rules of `before` keep."""
    if "deduplicate" not in outputs or "filter" not in outputs:
        return None
    same = canonical(outputs["filter"].manifest["parameters"]) == canonical(Filter(before).parameters())
    return outputs["deduplicate"] if same else None


def _changes(before: FilterConfig, after: FilterConfig) -> list[list[str]]:
    """What differs between two sets of rules: name, condition before, condition after."""
    then, now = ({rule.name: rule.condition for rule in rules_of(config)} for config in (before, after))
    limits = (before.contamination_overlap, after.contamination_overlap)
    then["contamination"], now["contamination"] = ("off" if one is None else f"overlap >= {one:g}" for one in limits)
    found = [
        [name, then.get(name, "off"), now.get(name, "off")]
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]
    order = [[name for name in one if name in then and name in now] for one in (then, now)]
    if order[0] != order[1]:
        found.append(["order", ", ".join(order[0]), ", ".join(order[1])])
    return found


def _kept(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    from data_quality.tally import by

    found: dict[str, Any] = {}
    for name, unit in (("kept", "documents"), ("bytes", "bytes")):
        found[name] = [sum(kept for _, kept in by(one, "source", unit).values()) for one in (then, now)]
    return found


def _by(then: Mapping[str, Any], now: Mapping[str, Any], moved: Mapping[str, Any], what: str) -> list[dict[str, Any]]:
    """One row a source or language: read, kept before and after in documents and bytes, in, out."""
    import polars as pl

    from data_quality.tally import by, frame_of

    sides = frame_of(moved["groups"]).group_by(what, "reason").agg(pl.col("documents").sum())
    crossed = {(name, side): number for name, side, number in sides.iter_rows()}
    size_then, size_now, kept_now = by(then, what, "bytes"), by(now, what, "bytes"), by(now, what)
    return [
        {
            what: name,
            "read": read,
            "kept": [kept, kept_now[name][1]],
            "bytes": [size_then[name][1], size_now[name][1]],
            IN: crossed.get((name, IN), 0),
            OUT: crossed.get((name, OUT), 0),
        }
        for name, (read, kept) in by(then, what).items()
    ]


def _by_rule(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a rule that hits: documents it is the first reason of, and all it would drop, before and after."""
    import polars as pl

    from data_quality.tally import frame_of

    first: list[dict[str, int]] = []
    for one in (then, now):
        groups = frame_of(one["groups"]).drop_nulls("reason").group_by("reason").agg(pl.col("documents").sum())
        first.append(dict(groups.select("reason", "documents").iter_rows()))
    rows = []
    for name in {**then["hits"], **now["hits"]}:
        hits = [then["hits"].get(name, 0), now["hits"].get(name, 0)]
        if any(hits):
            rows.append({"rule": name, "first": [some.get(name, 0) for some in first], "hits": hits})
    return rows
