"""Which documents are worth training on, as rows of a table over the features: no class a rule, no scan of the text.

A rule drops a document where `feature comparison threshold` is true. Presets are named rows; `FilterConfig.rules`
changes them by name or adds one's own. `decide` keeps the first reason in table order and all of them beside it.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from data_quality.features import FEATURE_COLUMNS
from data_quality.quality_config import Comparison, FilterConfig, RuleOverride
from storage.arrow_files import cast
from storage.schemas import DECISIONS

CONTAMINATION = "contamination"
"""The reason of documents that hold an evaluation item. It stands before all rules: the number of documents it
drops is then a fact about the corpus and does not move with quality thresholds."""

KEPT_SHARE = "kept_share"

_COMPARISONS: dict[Comparison, Callable[[pl.Expr, Any], pl.Expr]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "in": lambda feature, words: feature.is_in(list(words)),
    "not in": lambda feature, words: ~feature.is_in(list(words)),
}

Threshold = float | str | tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """One row of the table: drop a document where `feature comparison threshold`."""

    name: str
    feature: str
    comparison: Comparison
    threshold: Threshold
    reason: str
    source: str


_QUALITY = "Rae et al. 2021 (arXiv 2112.11446), appendix A1.1, quality filtering"
_REPETITION = "Rae et al. 2021 (arXiv 2112.11446), appendix A1.1, repetition removal, table A1"


def _repetition(name: str, feature: str, threshold: float, reason: str) -> Rule:
    return Rule(f"gopher-{name}", feature, ">", threshold, reason, _REPETITION)


PRESETS: dict[str, tuple[Rule, ...]] = {
    "none": (),
    "gopher": (
        Rule("gopher-too-few-words", "non_symbol_words", "<", 50, "fewer than 50 words", _QUALITY),
        Rule("gopher-too-many-words", "non_symbol_words", ">", 100_000, "more than 100,000 words", _QUALITY),
        Rule("gopher-short-words", "mean_word_length", "<", 3, "words of under 3 characters on average", _QUALITY),
        Rule("gopher-long-words", "mean_word_length", ">", 10, "words of over 10 characters on average", _QUALITY),
        Rule("gopher-hashes", "hash_ratio", ">", 0.1, "more than one # in ten words", _QUALITY),
        Rule("gopher-ellipses", "ellipsis_ratio", ">", 0.1, "more than one ellipsis in ten words", _QUALITY),
        Rule("gopher-bullet-lines", "bullet_line_share", ">", 0.9, "over 90% of lines start with a bullet", _QUALITY),
        Rule("gopher-ellipsis-lines", "ellipsis_line_share", ">", 0.3, "over 30% of lines end with ...", _QUALITY),
        Rule("gopher-alphabetic-words", "alphabetic_word_share", "<", 0.8, "under 80% of words have letters", _QUALITY),
        Rule("gopher-stop-words", "stop_words", "<", 2, "fewer than two different stop words", _QUALITY),
    ),
    "gopher-repetition": (
        _repetition("duplicate-lines", "duplicate_line_share", 0.30, "over 30% of lines are repeats"),
        _repetition("duplicate-paragraphs", "duplicate_paragraph_share", 0.30, "over 30% of paragraphs are repeats"),
        _repetition(
            "duplicate-line-characters",
            "duplicate_line_character_share",
            0.20,
            "over 20% of characters are in repeated lines",
        ),
        _repetition(
            "duplicate-paragraph-characters",
            "duplicate_paragraph_character_share",
            0.20,
            "over 20% of characters are in repeated paragraphs",
        ),
        *(
            _repetition(
                f"top-{n}-gram",
                f"top_{n}_gram_character_share",
                threshold,
                f"over {threshold:.0%} of characters are one sequence of {n} words",
            )
            for n, threshold in ((2, 0.20), (3, 0.18), (4, 0.16))
        ),
        *(
            _repetition(
                f"duplicate-{n}-grams",
                f"duplicate_{n}_gram_character_share",
                threshold,
                f"over {threshold:.0%} of characters are in repeated sequences of {n} words",
            )
            for n, threshold in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
        ),
    ),
}


def resolve_rules(config: FilterConfig) -> tuple[Rule, ...]:
    """The rules that apply, in the order in which they give their reason.

    Presets in the order of the configuration (a rule named by two of them once), then rules of one's own sorted by
    name, since the order of keys in a YAML mapping means nothing. Contamination is not among them: it is no feature.

    Raises
    ------
    ValueError
        Naming the field, the value and a near match, if a preset, a rule, a feature or a comparison is unknown, if
        a rule of one's own is incomplete, or if a threshold does not fit its feature.
    """
    rules: dict[str, Rule] = {}
    for i, preset in enumerate(config.presets):
        if preset not in PRESETS:
            raise ValueError(f"filter.presets[{i}]: there is no preset {preset!r}{_near(preset, PRESETS)}")
        rules.update({rule.name: rule for rule in PRESETS[preset] if rule.name not in rules})
    known = {rule.name: rule for preset in PRESETS.values() for rule in preset}
    for name in sorted(config.rules):
        override = config.rules[name]
        if name in rules:
            changes = {field.name: getattr(override, field.name) for field in fields(override)}
            enabled = changes.pop("enabled")
            changes = {key: value for key, value in changes.items() if value is not None}
            rules[name] = replace(rules[name], **changes)
            if changes and "reason" not in changes:  # the preset's words hold its own numbers
                rule = rules[name]
                rules[name] = replace(rule, reason=f"{rule.feature} {rule.comparison} {rule.threshold}")
            _check(rules[name])
            if not enabled:
                del rules[name]
        elif name in known:
            raise ValueError(
                f"filter.rules.{name}: this rule belongs to a preset that is not in filter.presets; "
                "add the preset, or give a rule of your own another name"
            )
        else:
            rule = _own_rule(name, override, known)
            if override.enabled:
                rules[name] = rule
    return tuple(rules.values())


def decide(
    ids: pa.Array,
    features: pl.DataFrame,
    contamination: pl.DataFrame | None,
    config: FilterConfig,
) -> pa.Table:
    """Which documents of a part are dropped, and why.

    Parameters
    ----------
    ids
        binary(16) ids of the part, in order.
    features
        FEATURE_COLUMNS (an `id` column is ignored), row for row with `ids`.
    contamination
        Rows of OVERLAPS (`id` and `overlap` are read) of any documents, or None where nothing was compared.
    config
        Presets, rules and the contamination threshold.

    Returns
    -------
    pa.Table
        DECISIONS, row for row with `ids`. `dropped_by` is the first reason in the order: contamination, presets, own
        rules; `hits` are all. A null feature fires no rule: what was not measured is no reason to drop. NaN is null.

    Raises
    ------
    ValueError
        If the lengths differ, a feature that a rule needs is missing, or a rule is wrong (see `resolve_rules`).
    """
    if len(ids) != features.height:
        raise ValueError(f"{len(ids)} ids but {features.height} rows of features: they must be of the same part")
    rules = resolve_rules(config)
    lacking = sorted({rule.feature for rule in rules} - set(features.columns))
    if lacking:
        raise ValueError(f"the features lack {', '.join(lacking)}, which rules need: run the quality stage again")
    names = pa.array([CONTAMINATION, *(rule.name for rule in rules)], pa.string())
    fired = np.empty((len(ids), len(names)), dtype=np.bool_)
    fired[:, 0] = _contaminated(ids, contamination, config.contamination_overlap)
    flags = features.select(_fires(rule).alias(rule.name) for rule in rules)
    for i, rule in enumerate(rules, start=1):
        fired[:, i] = flags.get_column(rule.name).to_numpy()
    # Row by row, each row's columns in table order: just the layout of a list array.
    rows, columns = np.nonzero(fired)
    bounds = np.searchsorted(rows, np.arange(len(ids) + 1))
    hits = pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), names.take(pa.array(columns)))
    kept = ~fired.any(axis=1)
    dropped_by = names.take(pa.array(fired.argmax(axis=1), mask=kept))
    table = pa.table({"id": ids, "dropped_by": dropped_by, "hits": hits})
    for field in DECISIONS:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(ids), field.type))
    return cast(table, DECISIONS)


def count_reasons(decisions: pa.Table) -> dict[str, int]:
    """How many documents each reason dropped, sorted by name; those kept are not in it."""
    counted = pc.value_counts(decisions.column("dropped_by").drop_null())
    return dict(sorted((row["values"], row["counts"]) for row in counted.to_pylist()))


def check_gates(kept: int, dropped: Mapping[str, int], config: FilterConfig) -> list[str]:
    """What is outside the expected ranges of `filter.expect`, one message a gate; empty if all is well.

    Parameters
    ----------
    kept, dropped
        Documents kept, and dropped by reason, over all parts.

    Raises
    ------
    ValueError
        If a gate names neither kept_share nor a rule that applies, or its min is above its max.
    """
    read = kept + sum(dropped.values())
    allowed = [KEPT_SHARE, CONTAMINATION, *(rule.name for rule in resolve_rules(config))]
    messages = []
    for name in sorted(config.expect):
        expected = config.expect[name]
        if name not in allowed:
            raise ValueError(
                f"filter.expect.{name}: neither {KEPT_SHARE} nor a rule that applies{_near(name, allowed)}"
            )
        low = 0.0 if expected.min is None else expected.min
        high = 1.0 if expected.max is None else expected.max
        if low > high:
            raise ValueError(f"filter.expect.{name}: min {low} is above max {high}")
        if read == 0:
            continue  # an empty corpus has no shares; what reads nothing fails elsewhere
        documents = kept if name == KEPT_SHARE else dropped.get(name, 0)
        share = documents / read
        if not low <= share <= high:
            what = "kept" if name == KEPT_SHARE else f"dropped by {name}"
            messages.append(
                f"filter.expect.{name}: {documents:,} of {read:,} documents ({share:.1%}) were {what}; "
                f"expected {low:.1%} to {high:.1%}"
            )
    return messages


def _own_rule(name: str, override: RuleOverride, known: Mapping[str, Rule]) -> Rule:
    missing = [key for key in ("feature", "comparison", "threshold") if getattr(override, key) is None]
    if missing:
        raise ValueError(
            f"filter.rules.{name}: there is no rule of this name{_near(name, known)}, and a rule of your own "
            f"needs feature, comparison and threshold ({', '.join(missing)} not given)"
        )
    if name in (CONTAMINATION, KEPT_SHARE):
        raise ValueError(f"filter.rules.{name}: the name {name} is taken; give the rule another one")
    assert override.feature is not None
    assert override.comparison is not None
    assert override.threshold is not None
    reason = override.reason or f"{override.feature} {override.comparison} {override.threshold}"
    rule = Rule(name, override.feature, override.comparison, override.threshold, reason, "own rule")
    _check(rule)
    return rule


def _check(rule: Rule) -> None:
    where = f"filter.rules.{rule.name}"
    if rule.feature not in FEATURE_COLUMNS.names:
        raise ValueError(
            f"{where}.feature: there is no feature {rule.feature!r}{_near(rule.feature, FEATURE_COLUMNS.names)}"
        )
    if rule.comparison not in _COMPARISONS:
        raise ValueError(f"{where}.comparison: {rule.comparison!r} is none of {', '.join(_COMPARISONS)}")
    listed = rule.comparison in ("in", "not in")
    text = pa.types.is_string(FEATURE_COLUMNS.field(rule.feature).type)
    if listed != isinstance(rule.threshold, tuple):
        wanted = "a list" if listed else "one value"
        raise ValueError(f"{where}.threshold: {rule.threshold!r}, but {rule.comparison!r} compares with {wanted}")
    if listed and not text:
        raise ValueError(f"{where}.comparison: {rule.feature} is a number; compare it with <, <=, > or >=")
    if text and rule.comparison not in ("==", "!=", "in", "not in"):
        raise ValueError(f"{where}.comparison: {rule.feature} is a word; compare it with ==, !=, in or not in")
    if not listed and isinstance(rule.threshold, str) != text:
        kind = "a word" if text else "a number"
        raise ValueError(f"{where}.threshold: {rule.threshold!r}, but {rule.feature} is {kind}")


def _fires(rule: Rule) -> pl.Expr:
    feature = pl.col(rule.feature)
    if not pa.types.is_string(FEATURE_COLUMNS.field(rule.feature).type):
        # NaN would count as greater than any number; and integers are compared as numbers, not cut to integers.
        feature = feature.cast(pl.Float64).fill_nan(None)
    return _COMPARISONS[rule.comparison](feature, rule.threshold).fill_null(False)


def _contaminated(ids: pa.Array, contamination: pl.DataFrame | None, threshold: float | None) -> npt.NDArray[np.bool_]:
    if contamination is None or threshold is None:
        return np.zeros(len(ids), dtype=np.bool_)
    # Overlaps are float32: 0.1 as a float32 is above 0.1, so the threshold is rounded the same way.
    high = contamination.filter(pl.col("overlap").cast(pl.Float32) >= pl.lit(threshold, dtype=pl.Float32))
    found = pa.array(high.get_column("id").unique().to_list(), ids.type)
    return np.asarray(pc.is_in(ids, value_set=found).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _near(name: str, known: Iterable[str]) -> str:
    choices = list(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f" (there are: {', '.join(choices)})"
