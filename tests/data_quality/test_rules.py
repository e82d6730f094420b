"""Rules as data: what a preset says is what drops, in the stated order, with every reason kept."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from data_quality.features import FEATURE_COLUMNS, FEATURE_TYPES, compute_features
from data_quality.filter_config import FilterConfig, RuleOverride
from data_quality.presets import KNOWN, PRESETS, Rule
from data_quality.quality_config import DecontaminateConfig, QualityConfig
from data_quality.rights import RIGHTS_COLUMNS
from data_quality.rules import CONTAMINATION, count_reasons, decide, resolve_rules
from storage.schemas import DECISIONS

GOOD: dict[str, Any] = {
    **{name: 0 for name, kind in FEATURE_TYPES.items() if kind != "string"},
    "words": 100,
    "non_symbol_words": 100,
    "mean_word_length": 5.0,
    "alphabetic_word_share": 0.95,
    "stop_words": 5,
    "language": "en",
    "language_score": 0.9,
}


def identifiers(count: int) -> pa.Array:
    return pa.array([number.to_bytes(16, "big") for number in range(count)], pa.binary(16))


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    schema = pa.schema(
        [
            *FEATURE_TYPES.items(),
            *RIGHTS_COLUMNS.items(),
            *((name, "string") for name in ("source", "url", "date", "meta")),
        ]
    )
    table = pl.from_arrow(pa.Table.from_pylist([{**GOOD, **row} for row in rows], schema=schema))
    assert isinstance(table, pl.DataFrame)
    return table


def decisions(rows: list[dict[str, Any]], config: FilterConfig | None = None) -> list[tuple[str | None, list[str]]]:
    table = decide(identifiers(len(rows)), frame(rows), None, config or FilterConfig())
    assert table.schema == DECISIONS
    return list(zip(table["dropped_by"].to_pylist(), table["hits"].to_pylist(), strict=True))


def test_the_presets_hold_the_thresholds_of_the_paper() -> None:
    table = [(rule.feature, rule.comparison, rule.threshold) for rule in PRESETS["gopher"]]
    assert table == [
        ("non_symbol_words", "<", 50),
        ("non_symbol_words", ">", 100_000),
        ("mean_word_length", "<", 3),
        ("mean_word_length", ">", 10),
        ("hash_ratio", ">", 0.1),
        ("ellipsis_ratio", ">", 0.1),
        ("bullet_line_share", ">", 0.9),
        ("ellipsis_line_share", ">", 0.3),
        ("alphabetic_word_share", "<", 0.8),
        ("stop_words", "<", 2),
    ]
    assert [(rule.feature, rule.comparison, rule.threshold) for rule in PRESETS["gopher-repetition"]] == [
        ("duplicate_line_share", ">", 0.30),
        ("duplicate_paragraph_share", ">", 0.30),
        ("duplicate_line_character_share", ">", 0.20),
        ("duplicate_paragraph_character_share", ">", 0.20),
        ("top_2_gram_character_share", ">", 0.20),
        ("top_3_gram_character_share", ">", 0.18),
        ("top_4_gram_character_share", ">", 0.16),
        ("duplicate_5_gram_character_share", ">", 0.15),
        ("duplicate_6_gram_character_share", ">", 0.14),
        ("duplicate_7_gram_character_share", ">", 0.13),
        ("duplicate_8_gram_character_share", ">", 0.12),
        ("duplicate_9_gram_character_share", ">", 0.11),
        ("duplicate_10_gram_character_share", ">", 0.10),
    ]


def test_one_name_is_one_rule_and_every_rule_says_why_and_whence() -> None:
    rules = [rule for preset in PRESETS.values() for rule in preset]
    assert all(KNOWN[rule.name] == rule for rule in rules)
    assert all(rule.reason and rule.source for rule in rules)
    assert all(rule.feature in {**FEATURE_TYPES, **RIGHTS_COLUMNS} for rule in rules)
    for preset in PRESETS.values():
        assert len({rule.name for rule in preset}) == len(preset)


def alone(rule: Rule, **changes: Any) -> FilterConfig:
    """A configuration of one preset's rule and no other."""
    preset = next(name for name, rows in PRESETS.items() if rule in rows)
    others = {other.name: RuleOverride(enabled=False) for other in PRESETS[preset] if other != rule}
    return FilterConfig(presets=(preset,), rules={**others, **changes})


@pytest.mark.parametrize("rule", KNOWN.values(), ids=lambda rule: rule.name)
def test_every_rule_has_a_document_on_each_side_of_its_threshold(rule: Rule) -> None:
    if isinstance(rule.threshold, tuple):
        rows: list[dict[str, Any]] = [{rule.feature: rule.threshold[0]}, {rule.feature: "xx"}, {rule.feature: None}]
        assert [dropped for dropped, _ in decisions(rows, alone(rule))] == [None, rule.name, None]
        return
    thresholds = dict(rule.threshold) if isinstance(rule.threshold, Mapping) else {"en": rule.threshold}
    kind = {**FEATURE_TYPES, **RIGHTS_COLUMNS}[rule.feature]
    rows = []
    for language, threshold in thresholds.items():
        assert isinstance(threshold, int | float)
        if pa.types.is_integer(kind):
            below, above = threshold - 1, threshold + 1
        elif kind == pa.float32():  # 0.65 is no float32: what is stored for it is one of its neighbours
            below, above = (float(np.nextafter(np.float32(threshold), np.float32(side))) for side in (-9, 9))
        else:
            below, above = float(np.nextafter(threshold, -9)), float(np.nextafter(threshold, 1e9))
        rows += [{"language": language, rule.feature: value} for value in (below, threshold, above)]
    # Documents that fail this rule only: features are set one by one, whatever a real text could have.
    found = np.reshape([dropped == rule.name for dropped, _ in decisions(rows, alone(rule))], (-1, 3))
    expected = {"<": [True, False, False], ">": [False, False, True], "<=": [True, True, False]}
    expected["=="] = [False, True, False]
    if kind == pa.float32():
        found[:, 1] = expected[str(rule.comparison)][1]
    assert (found == expected[str(rule.comparison)]).all()


def test_of_a_language_without_a_threshold_nothing_is_dropped() -> None:
    rule = KNOWN["fineweb-2-long-words"]
    rows = [{"language": language, "mean_word_length": 99.0} for language in ("de", "en", None, "xx")]
    assert [dropped for dropped, _ in decisions(rows, alone(rule))] == [rule.name, None, None, None]
    changed = alone(rule, **{rule.name: RuleOverride(threshold={"en": 5.0})})
    assert [dropped for dropped, _ in decisions(rows, changed)] == [rule.name, rule.name, None, None]
    for_all = alone(rule, **{rule.name: RuleOverride(threshold=5.0)})
    assert [dropped for dropped, _ in decisions(rows, for_all)] == [rule.name] * 4


def test_presets_compose_and_a_rule_of_two_of_them_stands_once() -> None:
    config = FilterConfig(presets=("gopher", "fineweb", "code"))
    names = [rule.name for rule in resolve_rules(config)]
    assert len(names) == len(set(names)) == len(PRESETS["fineweb"]) + len(PRESETS["code"])
    assert names[: len(PRESETS["gopher"])] == [rule.name for rule in PRESETS["gopher"]]
    assert [rule.name for rule in resolve_rules(FilterConfig(presets=("fineweb",)))] == [
        rule.name for rule in PRESETS["fineweb"]
    ]


def test_a_good_document_is_kept_and_the_first_reason_stands_before_all_others() -> None:
    found = decisions([{}, {"stop_words": 0, "non_symbol_words": 3, "duplicate_line_share": 1.0}])
    assert found == [
        (None, []),
        ("gopher-too-few-words", ["gopher-too-few-words", "gopher-stop-words", "gopher-duplicate-lines"]),
    ]
    turned = FilterConfig(presets=("gopher-repetition", "gopher"))
    assert decisions([{"stop_words": 0, "duplicate_line_share": 1.0}], turned)[0][0] == "gopher-duplicate-lines"


def test_the_order_of_rules_in_the_configuration_means_nothing() -> None:
    own = {name: RuleOverride(feature="bytes", comparison=">", threshold=1) for name in ("b", "a", "c")}
    names = [rule.name for rule in resolve_rules(FilterConfig(presets=("none",), rules=own))]
    assert names == ["a", "b", "c"]


def test_null_and_nan_fire_no_rule() -> None:
    own = {
        "not-english": RuleOverride(feature="language", comparison="not in", threshold=("en",)),
        "english": RuleOverride(feature="language", comparison="==", threshold="en"),
        "unsure": RuleOverride(feature="language_score", comparison="<", threshold=0.5),
        "long": RuleOverride(feature="mean_word_length", comparison=">", threshold=1),
    }
    config = FilterConfig(presets=("none",), rules=own)
    rows = [
        {"language": None, "language_score": None, "mean_word_length": float("nan")},
        {"language": "de", "language_score": 0.4},
    ]
    assert decisions(rows, config) == [(None, []), ("long", ["long", "not-english", "unsure"])]


def test_a_threshold_is_changed_and_a_rule_switched_off_by_name() -> None:
    config = FilterConfig(
        rules={
            "gopher-too-few-words": RuleOverride(threshold=10),
            "gopher-stop-words": RuleOverride(enabled=False),
        }
    )
    rows = [{"non_symbol_words": 20, "stop_words": 0}, {"non_symbol_words": 9, "stop_words": 0}]
    assert decisions(rows, config) == [(None, []), ("gopher-too-few-words", ["gopher-too-few-words"])]
    assert next(rule.name for rule in resolve_rules(config)) == "gopher-too-few-words"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FilterConfig(presets=("gofer",)), r"filter\.presets\[0\].*'gofer'; did you mean 'gopher'"),
        (
            FilterConfig(rules={"gopher-stop-word": RuleOverride(threshold=1)}),
            r"filter\.rules\.gopher-stop-word: .*did you mean 'gopher-stop-words'.*feature, comparison not given",
        ),
        (
            FilterConfig(presets=("gopher",), rules={"gopher-top-2-gram": RuleOverride(threshold=0.5)}),
            r"belongs to a preset that is not in filter\.presets \(gopher-repetition, fineweb\)",
        ),
        (
            FilterConfig(rules={"x": RuleOverride(feature="wrods", comparison="<", threshold=1)}),
            r"filter\.rules\.x\.feature: there is no feature 'wrods'; did you mean 'words'",
        ),
        (
            FilterConfig(rules={"x": RuleOverride(feature="words", comparison="<", threshold="many")}),
            r"filter\.rules\.x\.threshold: 'many', but words is a number",
        ),
        (
            FilterConfig(rules={"x": RuleOverride(feature="language", comparison="<", threshold="en")}),
            r"language is a word; compare it with",
        ),
        (
            FilterConfig(rules={"x": RuleOverride(feature="language", comparison="in", threshold="en")}),
            r"'en', but 'in' compares with a list",
        ),
        (
            FilterConfig(rules={"x": RuleOverride(feature="words", comparison="in", threshold=("1",))}),
            r"words is a number; compare it with",
        ),
        (
            FilterConfig(rules={CONTAMINATION: RuleOverride(feature="words", comparison="<", threshold=1)}),
            r"the name contamination is taken",
        ),
        (FilterConfig(rules={"gopher-hashes": RuleOverride(feature="language")}), r"filter\.rules\.gopher-hashes"),
        (FilterConfig(rules={"a:b": RuleOverride(feature="words", comparison="<", threshold=1)}), r"holds a colon"),
        (
            FilterConfig(rules={"x": RuleOverride(feature="words", expression="words < 3")}),
            r"filter\.rules\.x: it has an expression; feature cannot stand beside it",
        ),
        (
            FilterConfig(rules={"x": RuleOverride(expression="wrods < 3")}),
            r"filter\.rules\.x\.expression: there is no column 'wrods'; did you mean 'words'",
        ),
        (
            FilterConfig(rules={"x": RuleOverride(expression="words <")}),
            r"filter\.rules\.x\.expression: it cannot be read: .*it is: words <",
        ),
        (
            FilterConfig(rules={"x": RuleOverride(feature="meta", comparison="==", threshold="a")}),
            r"there is no feature 'meta'",
        ),
        (
            FilterConfig(rules={"x": RuleOverride(feature="source", comparison="<", threshold="a")}),
            r"source is a word; compare it with",
        ),
        (
            FilterConfig(rules={"x": RuleOverride(feature="words", comparison="<", threshold={})}),
            r"filter\.rules\.x\.threshold: it names no language",
        ),
    ],
)
def test_a_wrong_rule_is_refused_with_its_place_and_a_near_match(config: FilterConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_rules(config)


def overlap_frame(rows: list[tuple[int, float]]) -> pl.DataFrame:
    return pl.DataFrame(
        {"id": [number.to_bytes(16, "big") for number, _ in rows], "overlap": [overlap for _, overlap in rows]},
        schema={"id": pl.Binary, "overlap": pl.Float32},
    )


def test_contamination_is_the_first_reason_from_its_threshold_on() -> None:
    features = frame([{}, {"stop_words": 0}, {}, {}])
    overlaps = overlap_frame([(0, 0.1), (1, 0.9), (1, 0.2), (3, 0.05), (3, 0.0999), (77, 1.0)])
    table = decide(identifiers(4), features, overlaps, FilterConfig(contamination_overlap=0.1))
    assert table["dropped_by"].to_pylist() == [CONTAMINATION, CONTAMINATION, None, None]
    assert table["hits"].to_pylist() == [[CONTAMINATION], [CONTAMINATION, "gopher-stop-words"], [], []]
    never = decide(identifiers(4), features, overlaps, FilterConfig(contamination_overlap=None))
    assert never["dropped_by"].to_pylist() == [None, "gopher-stop-words", None, None]


def test_features_of_another_part_or_without_a_needed_column_are_refused() -> None:
    with pytest.raises(ValueError, match="2 ids but 1 rows of features"):
        decide(identifiers(2), frame([{}]), None, FilterConfig())
    with pytest.raises(ValueError, match="lack hash_ratio, stop_words"):
        decide(identifiers(1), frame([{}]).drop("stop_words", "hash_ratio"), None, FilterConfig())


def test_an_empty_part_has_an_empty_decision() -> None:
    assert decisions([]) == []


COMPARED = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.none() | st.sampled_from([0.0, 0.1, 0.3, 1 / 3, 0.5])), max_size=12),
    st.lists(
        st.tuples(
            st.sampled_from(["words", "hash_ratio"]),
            st.sampled_from(sorted(COMPARED)),
            st.sampled_from([0.3, 0.5, 1, -2]),
        ),
        max_size=4,
    ),
)
def test_decisions_are_what_plain_python_decides_and_counts_add_up(
    rows: list[tuple[int, float | None]], rules: list[tuple[str, Any, float]]
) -> None:
    own = {f"rule-{i}": RuleOverride(feature=f, comparison=c, threshold=t) for i, (f, c, t) in enumerate(rules)}
    config = FilterConfig(presets=("none",), rules=own)
    values = [{"words": words, "hash_ratio": ratio} for words, ratio in rows]
    table = decide(identifiers(len(values)), frame(values), None, config)
    expected = [
        [
            name
            for name, rule in sorted(own.items())
            if row[str(rule.feature)] is not None
            and COMPARED[str(rule.comparison)](row[str(rule.feature)], rule.threshold)
        ]
        for row in values
    ]
    assert table["hits"].to_pylist() == expected
    assert table["dropped_by"].to_pylist() == [hits[0] if hits else None for hits in expected]
    assert sum(count_reasons(table).values()) == sum(map(bool, expected))


def test_decisions_do_not_depend_on_how_documents_are_cut_into_parts_or_ordered() -> None:
    texts = ["the cat and the dog " * n for n in range(1, 40)] + ["", "中文 " * 60, "word " * 500]
    whole = compute_features(pa.array(texts, pa.large_string()), QualityConfig(identify_language=False))
    features = pl.from_arrow(whole)
    assert isinstance(features, pl.DataFrame)
    ids = identifiers(len(texts))
    once = decide(ids, features, None, FilterConfig())
    parts = [decide(ids.slice(i, 10), features.slice(i, 10), None, FilterConfig()) for i in range(0, len(texts), 10)]
    assert pa.concat_tables(parts).combine_chunks().equals(once.combine_chunks())
    turned = decide(ids.take(pa.array(range(len(texts) - 1, -1, -1))), features.reverse(), None, FilterConfig())
    assert turned.take(list(range(len(texts) - 1, -1, -1))).combine_chunks().equals(once.combine_chunks())


def test_metadata_is_looked_at_like_features() -> None:
    own = {
        "licence": RuleOverride(feature="meta.licence", comparison="not in", threshold=("CC0", "CC-BY")),
        "old": RuleOverride(feature="date", comparison="<", threshold="2010"),
        "opted-out": RuleOverride(expression="meta.robots.ai LIKE '%noai%'"),
        "score": RuleOverride(feature="meta.score", comparison="<", threshold=0.5),
        "site": RuleOverride(expression="url LIKE '%.example/%'"),
        "source": RuleOverride(feature="source", comparison="==", threshold="junk"),
    }
    rows: list[dict[str, Any]] = [
        {"meta": '{"licence":"CC0","robots":{"ai":"all"},"score":0.5}', "date": "2010-01-01", "source": "web"},
        {"meta": '{"licence":"all rights","robots":{"ai":["noai","noimageai"]},"score":0.49}', "date": "2009-12-31"},
        {"meta": '{"licence":null,"score":"high"}', "url": "http://a.example/x", "source": "junk"},
        {"meta": None},
    ]
    hits = [hit for _, hit in decisions(rows, FilterConfig(presets=("none",), rules=own))]
    assert hits == [[], ["licence", "old", "opted-out", "score"], ["site", "source"], []]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("words > avg(words)", "more than one document"),
        ("count(*) > 3", "more than one document"),
        ("row_number() OVER (ORDER BY words) < 3", "more than one document"),
        ("lag(words) OVER (ORDER BY words) < 3", "more than one document"),
        ("words > (SELECT 1)", "more than one document"),
        ("median(words) < 3", "more than one document"),
        ("quantile_cont(words, 0.5) < words", "more than one document"),
        ("corr(words, lines) < 3", "more than one document"),
        ("first(words) < 3", "more than one document"),
        ("date > current_date", "differs from one run to the next"),
        ("words + lines", "no condition"),
        ("1 = 1", "names no column"),
        ("meta = 'x'", "names `meta` as a whole"),
        ("words < 'many'", "cannot be computed"),
        ("nosuch(words) < 3", "unsupported function"),
        ("words < 3; DROP TABLE x", "cannot be read"),
    ],
)
def test_an_expression_that_is_no_condition_on_one_document_is_refused(expression: str, message: str) -> None:
    config = FilterConfig(presets=("none",), rules={"x": RuleOverride(expression=expression)})
    with pytest.raises(ValueError, match=r"filter\.rules\.x\.expression") as caught:
        resolve_rules(config)
    assert message in str(caught.value)
    assert expression in str(caught.value)


def test_expressions_see_features_metadata_and_text_in_quotes() -> None:
    own = {
        "a": RuleOverride(expression="(words < 30) | (language == 'de')"),
        "b": RuleOverride(expression="\"meta.some-field\" IN ('now', 'it is meta.x')"),
        "c": RuleOverride(expression="NOT (lines BETWEEN 1 AND 3) AND language IS NOT NULL"),
        "d": RuleOverride(expression="mean_word_length > 1"),
    }
    rows: list[dict[str, Any]] = [
        {"words": 29, "language": "en", "lines": 2, "mean_word_length": float("nan")},
        {"words": 30, "language": "de", "lines": 4, "meta": '{"some-field":"it is meta.x"}'},
        {"words": 30, "language": None, "lines": 0, "meta": '{"some-field":"now"}', "mean_word_length": 1.0},
    ]
    hits = [hit for _, hit in decisions(rows, FilterConfig(presets=("none",), rules=own))]
    assert hits == [["a"], ["a", "b", "c", "d"], ["b"]]


def test_an_expression_that_fails_on_a_value_names_its_rule() -> None:
    config = FilterConfig(presets=("none",), rules={"x": RuleOverride(expression="CAST(meta.n AS DOUBLE) > 1")})
    assert [hit for _, hit in decisions([{"meta": '{"n":2}'}], config)] == [["x"]]
    with pytest.raises(ValueError, match=r"filter\.rules\.x: CAST\(meta\.n AS DOUBLE\) > 1 cannot be computed"):
        decisions([{"meta": '{"n":"many"}'}], config)


def test_a_rule_over_what_is_not_measured_is_refused_with_what_to_set() -> None:
    config = FilterConfig(presets=("datatrove",), rules={"x": RuleOverride(expression="meta.a = 'b' AND words < 3")})
    resolve_rules(config)
    with pytest.raises(ValueError, match=r"datatrove-.* and 20 more look at what is not measured: .*measures the text"):
        resolve_rules(config, FEATURE_COLUMNS.names)
    resolve_rules(FilterConfig(rules=config.rules), FEATURE_COLUMNS.names)


def test_the_settings_are_read_from_plain_data() -> None:
    adapter = TypeAdapter(FilterConfig)
    config = adapter.validate_python(
        {
            "presets": ["gopher"],
            "rules": {
                "gopher-too-few-words": {"threshold": 20},
                "no-german": {"feature": "language", "comparison": "in", "threshold": ["de"]},
            },
            "expect": {"kept_share": {"min": 0.2}},
        }
    )
    assert config.rules["gopher-too-few-words"].threshold == 20
    assert config.rules["no-german"].threshold == ("de",)
    assert len(resolve_rules(config)) == len(PRESETS["gopher"]) + 1
    with pytest.raises(ValidationError):
        adapter.validate_python({"rule": {}})
    with pytest.raises(ValidationError):
        adapter.validate_python({"rules": {"x": {"comparison": "=<"}}})
    TypeAdapter(QualityConfig).validate_python({"stop_words": ["der", "die"], "language_characters": 100})
    TypeAdapter(DecontaminateConfig).validate_python({"ngram": 8})
