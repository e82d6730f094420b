"""docs/rules.md shows the tables of `presets.py` as they are.

`python -m tests.data_quality.test_rules_document` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data_quality.presets import PRESETS, Rule

FILE = Path(__file__).resolve().parents[2] / "docs" / "rules.md"
BEGIN, END = "<!-- tables -->\n", "<!-- end of tables -->\n"


def tables() -> str:
    """Every preset's rules in order; those that an earlier preset has are named only."""
    pieces, shown = [], set[str]()
    for preset, rules in PRESETS.items():
        new = [rule for rule in rules if rule.name not in shown]
        shown.update(rule.name for rule in new)
        if new:
            pieces.append(f"### {preset}\n\n{_order(preset, rules)}| rule | drops where | meaning |\n|---|---|---|\n")
            pieces += [f"| `{rule.name}` | `{_condition(rule)}` | {rule.reason} |\n" for rule in new]
            pieces.append(f"\nFrom: {'; '.join(dict.fromkeys(rule.source for rule in new))}.\n\n")
    return "".join(pieces)


def _order(preset: str, rules: tuple[Rule, ...]) -> str:
    names = [rule.name for rule in rules]
    order = []
    for other in ("gopher-repetition", "gopher"):
        those = [rule.name for rule in PRESETS[other]]
        if preset != other and those and those[0] in names:
            order.append(f"{other} (after {names[names.index(those[0]) - 1]})")
    return f"With all of {', '.join(order)}.\n\n" if order else ""


def _condition(rule: Rule) -> str:
    if isinstance(rule.threshold, Mapping):
        example = ", ".join(f"{label} {rule.threshold[label]:g}" for label in ("de", "vi"))
        return f"{rule.feature} {rule.comparison} (by language: {example}, …)"
    return rule.condition


def test_the_document_shows_the_tables() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)] == tables()


def test_the_document_names_every_preset() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert all(f"`{preset}`" in text for preset in PRESETS)


if __name__ == "__main__":
    whole = FILE.read_text(encoding="utf-8")
    FILE.write_text(whole[: whole.index(BEGIN) + len(BEGIN)] + tables() + whole[whole.index(END) :], encoding="utf-8")
