"""The report's section on judges: how good classifiers are on held-out documents, what lists and metadata found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages import report_charts as charts
from stages.report_data import ReportData
from stages.report_html import Html, element, figure, join, paragraph, share, table

Row = Mapping[str, Any]


def judges(data: ReportData) -> Html:
    """A table and a chart of reliability a classifier, and what lists and metadata found."""
    found = data.judges
    pieces = [_classifier(name, report) for name, report in found["classifiers"].items()]
    if found["lists"]:
        rows = [
            (row["name"], row["entries"], row["documents"], share(row["documents"], found["documents"]), row["hits"])
            for row in found["lists"]
        ]
        header = ("list", "entries", "documents with hits", "share", "hits")
        pieces.append(table("What the lists found", header, rows))
    if found["licences"]:
        classes = [(name, number, share(number, found["documents"])) for name, number in found["licences"].items()]
        pieces.append(table("Licences and opt-outs by metadata", ("class", "documents", "share"), classes))
    return join(pieces)


def _classifier(name: str, report: Row) -> Html:
    if not report:
        return paragraph(f"{name}: a model that was given; how good it is stands in the run that trained it.")
    counts, test = report["documents"], report["test"]
    sides = [
        (side, *(counts[side][key] for key in ("given", "used", "train", "calibration", "test")))
        for side in ("positive", "negative")
    ]
    said = (
        f"{name}: accuracy {test['accuracy']:.2%} on {test['documents']:,} held-out documents (always saying the "
        f"commoner side: {test['majority']:.2%}), AUC {_number(test['auc'])}, expected calibration error "
        f"{test['expected_calibration_error']:.4f} "
        f"({report['test_uncalibrated']['expected_calibration_error']:.4f} before Platt scaling). "
        f"{counts['in_both_sides']:,} documents stood on both sides and taught neither."
        f"{_unread(report.get('read', {}))}"
    )
    header = ("side", "given", "used", "trained on", "calibrated on", "measured on")
    return join(
        [
            paragraph(said),
            element(
                "div",
                figure(charts.reliability(test["reliability"]), f"Reliability of {name}"),
                table("Examples", header, sides),
                class_="pair",
            ),
        ]
    )


def _unread(read: Row) -> str:
    lost = {name: sum(counts["quarantined"].values()) for name, counts in read.items()}
    said = ", ".join(f"{number:,} of {name}" for name, number in lost.items() if number)
    return f" Records that could not be read: {said}." if said else ""


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
