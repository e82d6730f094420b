"""The settings of `filter`: presets, rules of one's own, contamination, gates. It imports no library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from storage.settings import STRICT, setting

Comparison = Literal["<", "<=", ">", ">=", "==", "!=", "in", "not in"]


@dataclass(frozen=True, kw_only=True)
class RuleOverride:
    """A changed rule of a preset (same name), or a rule of one's own (a new name)."""

    __pydantic_config__ = STRICT

    enabled: bool = setting("false switches the rule off.", True)
    feature: str | None = setting(
        "What it looks at: a feature, `source`, `url`, `date`, or `meta.<field>`. A rule of one's own needs it, or an "
        "expression.",
        None,
    )
    comparison: Comparison | None = setting("A document is dropped where `feature comparison threshold` is true.", None)
    threshold: float | str | tuple[str, ...] | dict[str, float] | None = setting(
        "What the feature is compared with: a number, a word, a list of words for in / not in, or a number for each "
        "language (of other languages nothing is dropped).",
        None,
    )
    expression: str | None = setting(
        "Instead of feature, comparison and threshold: a condition in Polars' SQL over features and metadata, true for "
        "what is dropped, e.g. (words < 30) | (language == 'de').",
        None,
        min_length=1,
        max_length=10_000,
    )
    reason: str | None = setting("One line for people: why such documents are dropped.", None)


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What is believed of a share; outside it the run stops before anything expensive."""

    __pydantic_config__ = STRICT

    min: float | None = setting("Smallest share that is believed.", None, ge=0, le=1)
    max: float | None = setting("Largest share that is believed.", None, ge=0, le=1)
    drift: float | None = setting(
        "How far it may lie from the last run's share, up or down (0.05: five points of a hundred).", None, ge=0, le=1
    )


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """What the `filter` stage drops. Any change here is a query over stored features, never a new scan."""

    __pydantic_config__ = STRICT

    presets: tuple[str, ...] = setting(
        "Sets of rules, applied in this order: gopher, gopher-repetition, c4, c4-datatrove, fineweb, fineweb-quality, "
        "fineweb-2, code, datatrove, none.",
        ("gopher", "gopher-repetition"),
    )
    rules: dict[str, RuleOverride] = setting(
        "Changes to rules by name, and rules of one's own (applied after the presets, sorted by name).",
        default_factory=dict,
    )
    contamination_overlap: float | None = setting(
        "A document is dropped if it holds at least this share of an evaluation item's n-grams; null: never.",
        0.5,
        gt=0,
        le=1,
    )
    expect: dict[str, Expectation] = setting(
        "Gates, by what is measured: kept_share, kept_share:source:NAME, kept_share:language:LABEL (of what was read "
        "there), share:source:NAME, share:language:LABEL (of all that is kept), hits:RULE (of all that was read); * "
        "stands for every name.",
        default_factory=lambda: {"kept_share": Expectation(min=0.01)},
    )
