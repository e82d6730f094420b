"""Which documents are worth training on: rules of presets and of one's own over stored columns, never a scan of text.

`resolve_rules` makes the table that applies, `judge` evaluates it, `decide` keeps the first reason in table order and
all of them beside it. The published rules stand in `presets.py`, what rules may look at in `columns.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_quality.columns import DOCUMENTS, META, Column, column, names
from data_quality.filter_config import FilterConfig, RuleOverride
from data_quality.presets import KNOWN, PRESETS, Rule
from storage.arrow_files import cast
from storage.schemas import DECISIONS

if TYPE_CHECKING:
    import polars as pl

CONTAMINATION = "contamination"
"""The reason of documents that hold an evaluation item. It stands before all rules: the number of documents it
drops is then a fact about the corpus and does not move with quality thresholds."""

RESERVED = (CONTAMINATION, "kept", "filter", "deduplicate", "select")
_ORDERED = ("<", "<=", ">", ">=")
_LISTED = ("in", "not in")


# ------------------------------------------------------------------------------------------------ the table


def resolve_rules(config: FilterConfig, measured: Collection[str] | None = None) -> tuple[Rule, ...]:
    """The rules that apply, in the order in which they give their reason.

    Presets in the order of the configuration (a rule named by two of them once), then rules of one's own sorted by
    name, since the order of keys in a YAML mapping means nothing. Contamination is not among them: it is no feature.

    Parameters
    ----------
    measured
        The features that are stored, if that is known: a rule that looks at another one is refused.

    Raises
    ------
    ValueError
        Naming the field, the value and a near match, if a preset, a rule, a column or a comparison is unknown, if
        a rule of one's own is incomplete, if a threshold does not fit its column, or if a column is not stored.
    """
    rules: dict[str, Rule] = {}
    for i, preset in enumerate(config.presets):
        if preset not in PRESETS:
            raise ValueError(f"filter.presets[{i}]: there is no preset {preset!r}{_near(preset, PRESETS)}")
        rules.update({rule.name: rule for rule in PRESETS[preset] if rule.name not in rules})
    for name in sorted(config.rules):
        override = config.rules[name]
        if name in KNOWN and name not in rules:
            homes = ", ".join(preset for preset, rows in PRESETS.items() if KNOWN[name] in rows)
            raise ValueError(
                f"filter.rules.{name}: this rule belongs to a preset that is not in filter.presets ({homes}); "
                "add the preset, or give a rule of your own another name"
            )
        rule = _changed(rules[name], override) if name in rules else _own_rule(name, override)
        _check(rule)
        if override.enabled:
            rules[name] = rule
        else:
            rules.pop(name, None)
    if measured is not None:
        _check_measured(rules.values(), measured)
    return tuple(rules.values())


def columns_of(rules: Iterable[Rule]) -> list[str]:
    """The names of all columns that rules look at, sorted."""
    found: set[str] = set()
    for rule in rules:
        found.update(_columns_of(rule))
    return sorted(found)


def _columns_of(rule: Rule) -> list[str]:
    if rule.expression is not None:
        from data_quality.expressions import roots

        return roots(rule.expression)
    return [rule.feature, *(["language"] if isinstance(rule.threshold, Mapping) else [])]


def _changed(rule: Rule, override: RuleOverride) -> Rule:
    """A rule of a preset with what its override says; a reason that holds the old numbers goes with them."""
    changes = {
        field.name: value
        for field in fields(override)
        if field.name != "enabled" and (value := getattr(override, field.name)) is not None
    }
    threshold = changes.get("threshold")
    if isinstance(threshold, Mapping) and isinstance(rule.threshold, Mapping):
        changes["threshold"] = {**rule.threshold, **threshold}
    if "expression" in changes:
        _check_alone(rule.name, override)
        changes |= {"feature": "", "comparison": None, "threshold": None}
    changed = replace(rule, **changes)
    if changes and "reason" not in changes:
        changed = replace(changed, reason=changed.condition)
    return changed


def _own_rule(name: str, override: RuleOverride) -> Rule:
    where = f"filter.rules.{name}"
    if name in RESERVED or ":" in name or "," in name:
        raise ValueError(f"{where}: the name {name} is taken (or holds a colon or comma); give the rule another one")
    if override.expression is not None:
        _check_alone(name, override)
        return Rule(name, "", None, None, override.reason or override.expression, "own rule", override.expression)
    missing = [key for key in ("feature", "comparison", "threshold") if getattr(override, key) is None]
    if missing:
        raise ValueError(
            f"{where}: there is no rule of this name{_near(name, KNOWN)}; a rule of your own needs feature, comparison "
            f"and threshold ({', '.join(missing)} not given), or an expression"
        )
    rule = Rule(name, str(override.feature), override.comparison, override.threshold, "", "own rule")
    return replace(rule, reason=override.reason or rule.condition)


def _check_alone(name: str, override: RuleOverride) -> None:
    beside = [key for key in ("feature", "comparison", "threshold") if getattr(override, key) is not None]
    if beside:
        raise ValueError(f"filter.rules.{name}: it has an expression; {', '.join(beside)} cannot stand beside it")


def _check(rule: Rule) -> None:
    where = f"filter.rules.{rule.name}"
    if rule.expression is not None:
        from data_quality.expressions import UnknownColumnError, parse

        try:
            parse(rule.expression)
        except UnknownColumnError as error:
            raise ValueError(f"{where}.expression: {error}{_near(error.name, names())}") from None
        except ValueError as error:
            raise ValueError(f"{where}.expression: {error}; it is: {rule.expression}") from None
        return
    known = column(rule.feature)
    if known is None:
        raise ValueError(f"{where}.feature: there is no feature {rule.feature!r}{_near(rule.feature, names())}")
    _check_threshold(rule, known)


def _check_threshold(rule: Rule, known: Column) -> None:
    where, threshold = f"filter.rules.{rule.name}", rule.threshold
    listed, text = rule.comparison in _LISTED, known.type == "text"
    if listed != isinstance(threshold, tuple):
        wanted = "a list" if listed else "one value"
        raise ValueError(f"{where}.threshold: {threshold!r}, but {rule.comparison!r} compares with {wanted}")
    if listed and not text:
        raise ValueError(f"{where}.comparison: {rule.feature} is a number; compare it with <, <=, > or >=")
    if isinstance(threshold, Mapping) and not threshold:
        raise ValueError(f"{where}.threshold: it names no language")
    number = isinstance(threshold, int | float | Mapping)
    if rule.feature.startswith(META) and number:
        return
    if text and rule.comparison in _ORDERED and rule.feature != "date":
        raise ValueError(f"{where}.comparison: {rule.feature} is a word; compare it with ==, !=, in or not in")
    if not listed and number == text:
        kind = "a word" if text else "a number"
        raise ValueError(f"{where}.threshold: {threshold!r}, but {rule.feature} is {kind}")


def _check_measured(rules: Iterable[Rule], measured: Collection[str]) -> None:
    """Refuse rules that look at what the quality stage was not told to measure."""
    lacking: dict[str, list[str]] = {}
    for rule in rules:
        for name in _columns_of(rule):
            known = column(name)
            if known is not None and known.kind != DOCUMENTS and name not in measured:
                lacking.setdefault(known.how, []).append(rule.name)
    if lacking:
        said = (
            f"{', '.join(found[:3])}{f' and {len(found) - 3} more' if len(found) > 3 else ''} "
            f"{'look' if len(found) > 1 else 'looks'} at what is not measured: {how}"
            for how, found in lacking.items()
        )
        raise ValueError("filter: " + "; ".join(said))


def _near(name: str, known: Iterable[str]) -> str:
    choices = list(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f" (there are: {', '.join(choices)})" if len(choices) <= 40 else ""


# ------------------------------------------------------------------------------------------------ decisions


@dataclass(frozen=True)
class Verdict:
    """What the rules say of the documents of a part.

    Attributes
    ----------
    names
        Contamination, then the rules in table order.
    fired
        bool[documents, names]: whether the rule would drop the document.
    """

    names: tuple[str, ...]
    fired: npt.NDArray[np.bool_]

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """bool[documents]: whether no rule would drop it."""
        return np.asarray(~self.fired.any(axis=1))

    @property
    def reasons(self) -> pa.StringArray:
        """The first rule that drops each document; null for those kept."""
        return pa.array(self.names, pa.string()).take(pa.array(self.fired.argmax(axis=1), mask=self.kept))

    def table(self, ids: pa.Array) -> pa.Table:
        """DECISIONS, row for row with `ids`."""
        # Row by row, each row's columns in table order: just the layout of a list array.
        rows, columns = np.nonzero(self.fired)
        bounds = np.searchsorted(rows, np.arange(len(ids) + 1))
        hits = pa.array(self.names, pa.string()).take(pa.array(columns))
        table = pa.table(
            {
                "id": ids,
                "dropped_by": self.reasons,
                "hits": pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), hits),
            }
        )
        for field in DECISIONS:
            if field.name not in table.column_names:
                table = table.append_column(field, pa.nulls(len(ids), field.type))
        return cast(table, DECISIONS)


def judge(ids: pa.Array, frame: pl.DataFrame, contamination: pl.DataFrame | None, config: FilterConfig) -> Verdict:
    """Evaluate every rule on every document of a part.

    Parameters
    ----------
    ids
        binary(16) ids of the part, in order.
    frame
        The columns that the rules look at (`columns_of`), row for row with `ids`; metadata as the JSON text `meta`.
    contamination
        Rows of OVERLAPS (`id` and `overlap` are read) of any documents, or None where nothing was compared.
    config
        Presets, rules and the contamination threshold.

    A null fires no rule: what was not measured is no reason to drop. NaN is null. Numbers are compared as float64.

    Raises
    ------
    ValueError
        If the lengths differ, a column that a rule needs is missing, a rule is wrong (see `resolve_rules`), or an
        expression cannot be computed for some value; names the rule.
    """
    if len(ids) != frame.height:
        raise ValueError(f"{len(ids)} ids but {frame.height} rows of features: they must be of the same part")
    rules = resolve_rules(config)
    prepared = _prepare(frame, columns_of(rules))
    fired = np.empty((len(ids), 1 + len(rules)), dtype=np.bool_)
    fired[:, 0] = _contaminated(ids, contamination, config.contamination_overlap)
    for i, flags in enumerate(_flags(prepared, rules), start=1):
        fired[:, i] = flags.to_numpy()
    return Verdict((CONTAMINATION, *(rule.name for rule in rules)), fired)


def decide(ids: pa.Array, frame: pl.DataFrame, contamination: pl.DataFrame | None, config: FilterConfig) -> pa.Table:
    """DECISIONS of a part, row for row with `ids`: parameters and errors as for `judge`.

    `dropped_by` is the first reason in the order: contamination, presets, own rules; `hits` are all.
    """
    return judge(ids, frame, contamination, config).table(ids)


def count_reasons(decisions: pa.Table) -> dict[str, int]:
    """How many documents each reason dropped, sorted by name; those kept are not in it."""
    counted = pc.value_counts(decisions.column("dropped_by").drop_null())
    return dict(sorted((row["values"], row["counts"]) for row in counted.to_pylist()))


def _prepare(frame: pl.DataFrame, wanted: Sequence[str]) -> pl.DataFrame:
    """The columns as rules see them: numbers as float64 without NaN, words as text, fields taken out of `meta`."""
    import polars as pl

    prepared: list[pl.Expr] = []
    lacking = []
    for name in wanted:
        known = column(name)
        assert known is not None  # resolve_rules refused it
        if known.stored not in frame.columns:
            lacking.append(name)
        elif name.startswith(META):
            path = "".join(f"['{step}']" for step in name.removeprefix(META).split("."))
            prepared.append(pl.col("meta").str.json_path_match(f"${path}").alias(name))
        elif known.type == "number":
            # NaN would count as greater than any number; and integers are compared as numbers, not cut to integers.
            prepared.append(pl.col(known.stored).cast(pl.Float64).fill_nan(None).alias(name))
        else:
            prepared.append(pl.col(known.stored).cast(pl.String).alias(name))
    if lacking:
        raise ValueError(f"the features lack {', '.join(lacking)}, which rules need: run the quality stage again")
    return frame.select(prepared)


def _flags(prepared: pl.DataFrame, rules: Sequence[Rule]) -> list[pl.Series]:
    """Whether each rule fires, one boolean series without nulls a rule."""
    from polars.exceptions import PolarsError

    try:
        return prepared.select(_fires(rule).alias(str(i)) for i, rule in enumerate(rules)).get_columns()
    except PolarsError:
        for rule in rules:
            try:
                prepared.select(_fires(rule))
            except PolarsError as error:
                reason = str(error).strip().partition("\n")[0]
                raise ValueError(f"filter.rules.{rule.name}: {rule.condition} cannot be computed: {reason}") from error
        raise


def _fires(rule: Rule) -> pl.Expr:
    import polars as pl

    if rule.expression is not None:
        from data_quality.expressions import parse

        return parse(rule.expression).fill_null(pl.lit(value=False))
    feature, threshold = pl.col(rule.feature), rule.threshold
    if isinstance(threshold, int | float | Mapping):
        feature = feature.cast(pl.Float64, strict=False).fill_nan(None)
    if isinstance(threshold, tuple):
        found = feature.is_in(list(threshold))
        return (found if rule.comparison == "in" else ~found).fill_null(False)
    other: Any = pl.lit(threshold) if not isinstance(threshold, Mapping) else _by_language(threshold)
    compared: dict[str, pl.Expr] = {
        "<": feature < other,
        "<=": feature <= other,
        ">": feature > other,
        ">=": feature >= other,
        "==": feature == other,
        "!=": feature != other,
    }
    return compared[str(rule.comparison)].fill_null(False)


def _by_language(thresholds: Mapping[str, float]) -> pl.Expr:
    import polars as pl

    labels, values = list(thresholds), [float(value) for value in thresholds.values()]
    return pl.col("language").replace_strict(labels, values, default=None, return_dtype=pl.Float64)


def _contaminated(ids: pa.Array, contamination: pl.DataFrame | None, threshold: float | None) -> npt.NDArray[np.bool_]:
    import polars as pl

    if contamination is None or threshold is None:
        return np.zeros(len(ids), dtype=np.bool_)
    # Overlaps are float32: 0.1 as a float32 is above 0.1, so the threshold is rounded the same way.
    high = contamination.filter(pl.col("overlap").cast(pl.Float32) >= pl.lit(threshold, dtype=pl.Float32))
    found = pa.array(high.get_column("id").unique().to_list(), ids.type)
    return np.asarray(pc.is_in(ids, value_set=found).to_numpy(zero_copy_only=False), dtype=np.bool_)
