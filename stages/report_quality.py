"""The report's sections on decisions: what became of each source and language, which rules hit, on what values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages import report_charts as charts
from stages.report_data import ReportData
from stages.report_html import Html, code, element, figure, join, paragraph, share, size, table

Row = Mapping[str, Any]
RULES_COMPARED = 20
NOT_IDENTIFIED = "not identified"


# ------------------------------------------------------------------------------------------------ groups


def languages(data: ReportData) -> Html:
    """How long the documents are, and in which languages."""
    if not data.scan.sources:
        return Html("")
    pieces = [figure(charts.lengths(data.scan.lengths), "Length of documents")]
    if any(row["language"] is not None for row in data.scan.languages):
        pieces.append(
            figure(charts.shares_by_group(data.scan.languages, "language", "language"), "Documents by language")
        )
        pieces.append(fates(data, "language"))
    return join(pieces)


def fates(data: ReportData, what: str) -> Html:
    """What became of the documents of each source or language: the funnel of each."""
    reasons = {row["reason"] for row in data.groups if row["reason"] is not None}
    later = sorted(reasons - {"filter", "deduplicate"})
    found: dict[str | None, dict[str | None, list[int]]] = {}
    for row in data.groups:
        sums = found.setdefault(row[what], {}).setdefault(row["reason"], [0, 0])
        sums[0] += row["documents"]
        sums[1] += row["bytes"]
    rows = []
    for name, by_reason in sorted(found.items(), key=lambda item: -sum(n for n, _ in item[1].values())):
        read, text = (sum(sums[i] for sums in by_reason.values()) for i in (0, 1))
        kept, kept_text = by_reason.get(None, [0, 0])
        dropped = [by_reason.get(reason, [0, 0])[0] for reason in ("filter", "deduplicate", *later)]
        rows.append(
            (
                NOT_IDENTIFIED if name is None else name,
                read,
                size(text),
                *dropped,
                kept,
                share(kept, read),
                size(kept_text),
            )
        )
    header = (what, "documents", "text", "by rules", "duplicates", *later, "selected", "share", "text selected")
    return table(f"What became of the documents of each {what}", header, rows)


# ------------------------------------------------------------------------------------------------ rules


def rules(data: ReportData) -> Html:
    """Which rules hit: as the first reason, in all, alone; and which hit the same documents."""
    if not data.rules:
        return paragraph("No rules are in force.")
    read = next((row["read"] for row in data.funnel if row["stage"] == "filter"), 0)
    hitting = sorted((rule for rule in data.rules if rule["hits"]), key=lambda rule: -rule["hits"])
    silent = [rule["name"] for rule in data.rules if not rule["hits"]]
    rows = [
        (
            code(rule["name"]), rule["first"], rule["hits"], share(rule["hits"], read), rule["alone"],
            rule["condition"], rule["reason"],
        )
        for rule in hitting
    ]  # fmt: skip
    header = ("rule", "first reason", "all hits", "of all read", "alone", "drops where", "meaning")
    note = (
        "The first rule that drops a document, in the order of the table in force, is its reason; every rule that "
        "would drop it is counted among the hits. Alone are documents that no other rule would drop: what is kept if "
        "the rule is switched off."
    )
    pieces = [paragraph(note, class_="soft")]
    pieces.append(table("Rules that hit", header, rows) or paragraph("No rule dropped anything."))
    compared = hitting[:RULES_COMPARED]
    if len(compared) > 1:
        chart = charts.overlaps([(rule["name"], rule["hits"]) for rule in compared], data.overlaps)
        pieces.append(figure(chart, "Rules that hit the same documents"))
    origins = sorted({rule["source"] for rule in hitting if rule["source"]})
    if origins:
        pieces.append(paragraph("From: ", "; ".join(origins), ".", class_="soft"))
    if silent:
        pieces.append(paragraph("In force without a hit: ", join((code(name) for name in silent), ", "), "."))
    return join(pieces)


def features(data: ReportData) -> Html:
    """Values of the features that the busiest rules look at."""
    shown = []
    for name, histogram in data.scan.features.items():
        looking = [rule for rule in data.rules if rule["feature"] == name]
        shown.append(figure(charts.feature(histogram, name, looking), name))
    if not shown:
        return Html("")
    note = "All documents by the features of the rules that hit most. What the rules in force drop is shaded."
    return join([paragraph(note, class_="soft"), element("div", *shown, class_="pair")])
