"""The charts of the report, as Plotly figures that say nothing about colours: light, dark and print have their own.

Each function returns a `Chart`: the figure as plain JSON values, one sentence for those who cannot see it, and its
numbers where no table of the page has them. A trace's colour is named by its role in `meta`; `report_assets` says
which colour that is.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.report_data import Histogram

Row = Mapping[str, Any]
LABEL = 42
"""Characters of a name on an axis."""


@dataclass(frozen=True)
class Chart:
    """A figure (`data` and `layout`), what it shows in words, and a table of its numbers (header, rows)."""

    data: list[dict[str, Any]]
    layout: dict[str, Any]
    says: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()


def label(text: Any, most: int = LABEL) -> str:
    """Text from documents as a chart may show it: shortened, and nothing of it is taken for Plotly's markup."""
    whole = " ".join(visible(str(text)).split())
    return html.escape(whole if len(whole) <= most else whole[: most - 1] + "…", quote=False)


def visible(text: str) -> str:
    """Text whose invisible characters cannot mislead: control characters and changes of direction are shown."""
    return text.translate(_VISIBLE)


_VISIBLE: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: "\u2421",
    **{code: f"⟨U+{code:04X}⟩" for code in range(0x80, 0xA0)},
    **{
        code: f"⟨U+{code:04X}⟩"
        for code in (
            *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0x061C, 0xFEFF,
            *range(0xFFF9, 0xFFFC),
        )
    },
}  # fmt: skip
# The joiners U+200C and U+200D belong to scripts and emoji: they change nothing but the shape of their neighbours.
del _VISIBLE[0x200C], _VISIBLE[0x200D]


def _chart(
    traces: Sequence[Mapping[str, Any]],
    says: str,
    *,
    height: int = 300,
    header: tuple[str, ...] = (),
    rows: Sequence[tuple[Any, ...]] = (),
    **layout: Any,
) -> Chart:
    """A chart checked by Plotly: a property it does not know is an error here, not an empty box in the page."""
    import plotly.graph_objects as go

    figure = go.Figure(data=[dict(trace) for trace in traces], layout={"height": height, "template": "none", **layout})
    values = figure.to_plotly_json()
    values["layout"].pop("template", None)
    return Chart([_plain(trace) for trace in values["data"]], _plain(values["layout"]), says, header, tuple(rows))


def _plain(value: Any) -> Any:
    """JSON values only; numbers that JSON does not have are null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _counts(most: int) -> dict[str, Any]:
    """How an axis of counts is labelled: whole numbers only."""
    return {"tickformat": "~s"} if most > 10 else {"tickformat": "d", "dtick": 1}


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "none"


# ------------------------------------------------------------------------------------------------ documents


def funnel(rows: Sequence[Row]) -> Chart:
    """From what was read to what was selected: kept, dropped here, dropped before."""
    steps = [row for row in rows if row["stage"] in ("ingest", "filter", "deduplicate", "select")]
    read = max((row["read"] for row in steps), default=0)
    names = [row["stage"] for row in steps]
    kept = [row["kept"] for row in steps]
    here = [
        sum(n for reason, n in row["dropped"].items() if reason not in names) + sum(row["quarantined"].values())
        for row in steps
    ]
    before = [read - k - h for k, h in zip(kept, here, strict=True)]
    series = (("kept", kept, "kept"), ("dropped or put aside here", here, "dropped"), ("gone before", before, "faint"))
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "y": names,
            "x": values,
            "name": name,
            "meta": {"role": role},
            "hovertemplate": "%{y}: %{x:,} " + name + "<extra></extra>",
        }
        for name, values, role in series
    ]
    last: Row = steps[-1] if steps else {"kept": 0, "stage": "nothing"}
    says = f"Of {read:,} records read, {last['kept']:,} ({_share(last['kept'], read)}) are left after {last['stage']}."
    return _chart(
        traces,
        says,
        height=110 + 40 * len(steps),
        barmode="stack",
        yaxis={"autorange": "reversed", "automargin": True},
        xaxis={"title": {"text": "documents"}, **_counts(read)},
    )


def shares_by_group(rows: Sequence[Row], key: str, what: str, most: int = 12) -> Chart:
    """Documents selected and dropped by source or language, the largest groups first."""
    shown: list[Row] = list(rows[:most])
    rest = rows[most:]
    if rest:
        sums = {name: sum(row[name] for row in rest) for name in ("documents", "selected")}
        shown.append({key: f"{len(rest):,} others", **sums})
    names = [label("not identified" if row[key] is None else row[key], 64) for row in shown]
    selected = [row["selected"] for row in shown]
    dropped = [row["documents"] - row["selected"] for row in shown]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "y": names,
            "x": values,
            "name": name,
            "meta": {"role": role},
            "hovertemplate": "%{y}: %{x:,} " + name + "<extra></extra>",
        }
        for name, values, role in (("selected", selected, "kept"), ("dropped", dropped, "dropped"))
    ]
    first = f" The largest is {shown[0][key] or 'not identified'} with {shown[0]['documents']:,}." if shown else ""
    return _chart(
        traces,
        f"Documents by {what}: {len(rows):,} in all.{first}",
        height=110 + 26 * len(shown),
        header=(what, "documents", "selected"),
        rows=[(n, row["documents"], row["selected"]) for n, row in zip(names, shown, strict=True)],
        barmode="stack",
        yaxis={"autorange": "reversed", "automargin": True, "type": "category"},
        xaxis={"title": {"text": "documents"}, **_counts(max((row["documents"] for row in shown), default=0))},
    )


def lengths(histogram: Histogram) -> Chart:
    """How long documents are: selected and dropped ones, on a logarithmic scale."""
    names = ("selected", "dropped")
    traces = [
        _bars(histogram, series, series, "kept" if series == "selected" else "dropped", "bytes") for series in names
    ]
    total = {series: sum(histogram.counts.get(series, [])) for series in names}
    middle = _median(histogram)
    says = f"Lengths of {sum(total.values()):,} documents in bytes of UTF-8."
    if middle:
        says += f" The median is {middle}."
    return _chart(
        traces,
        says,
        header=("bytes", *names),
        rows=_bin_rows(histogram, names),
        barmode="stack",
        bargap=0.04,
        xaxis={"title": {"text": "bytes of UTF-8"}, **_log_axis(histogram)},
        yaxis={
            "title": {"text": "documents"},
            **_counts(max(map(sum, zip(*histogram.counts.values(), strict=True)), default=0)),
        },
    )


def feature(histogram: Histogram, name: str, rules: Sequence[Row]) -> Chart:
    """Values of one feature, with what the rules in force drop shaded and their thresholds drawn in."""
    bars = _bars(histogram, "documents", "documents", "kept", "")
    low = _place(histogram, histogram.edges[0], 0) if histogram.edges else 0.0
    high = _place(histogram, histogram.edges[-1], len(histogram.edges) - 1) if histogram.edges else 1.0
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    said = []
    for rule in rules:
        said.append(f"{rule['name']} drops where {rule['condition']} ({rule['hits']:,} hits)")
        if not rule["hits"] or not isinstance(rule["threshold"], int | float):
            continue  # a threshold far from all values would leave them no room
        at = _at(histogram, float(rule["threshold"]), rule["comparison"])
        below = rule["comparison"] in ("<", "<=")
        start, end = (min(low, at), at) if below else (at, max(high, at))
        low, high = min(low, at), max(high, at)
        area = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "x0": start, "x1": end}
        shapes.append({**area, "line": {"width": 0}, "opacity": 0.16, "layer": "below", "name": "dropped"})
        line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": at, "x1": at}
        shapes.append({**line, "line": {"width": 2, "dash": "dash"}, "name": "dropped"})
        notes.append(
            {
                "x": at,
                "y": 1,
                "yref": "paper",
                "yanchor": "bottom",
                "showarrow": False,
                "text": f"{rule['comparison'].replace('<', '&lt;')} {_short(rule['threshold'])}",
            }
        )
    top = math.log10(max([1, *histogram.counts.get("documents", [])])) + 0.15
    axis: dict[str, Any] = {"title": {"text": label(name)}, "range": [low, high] if high > low else None}
    return _chart(
        [bars],
        "; ".join(said) + "." if said else f"Values of {name}.",
        height=240,
        header=(name, "documents"),
        rows=_bin_rows(histogram, ("documents",)),
        showlegend=False,
        bargap=0.04,
        shapes=shapes,
        annotations=notes,
        xaxis={**axis, **(_log_axis(histogram) if histogram.logarithmic else {})},
        yaxis={"title": {"text": "documents (log)"}, "type": "log", "range": [-0.3, top], **_DECADES},
    )


def overlaps(hits: Sequence[tuple[str, int]], pairs: Sequence[tuple[str, str, int]]) -> Chart:
    """Of the documents that one rule (a row) would drop, the share that another (a column) would drop too."""
    names = [name for name, _ in hits]
    both = {(a, b): number for first, second, number in pairs for a, b in ((first, second), (second, first))}
    both |= {(name, name): number for name, number in hits}
    shares = [[both.get((a, b), 0) / number for b in names] for a, number in hits]
    trace = {
        "type": "heatmap",
        "z": shares,
        "x": list(range(len(names))),
        "y": list(range(len(names))),
        "customdata": [
            [f"{both.get((a, b), 0):,} of {number:,} of {label(a)} are of {label(b)} too" for b in names]
            for a, number in hits
        ],
        "hovertemplate": "%{customdata} (%{z:.1%})<extra></extra>",
        "meta": {"role": "scale"},
        "zmin": 0,
        "zmax": 1,
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"tickformat": ".0%", "thickness": 12},
    }
    ranked = sorted((pair for pair in pairs if {*pair[:2]} <= {*names}), key=lambda pair: (-pair[2], pair[0], pair[1]))
    says = "Of the documents that the rule of a row would drop, the share that the rule of a column would drop too."
    if ranked:
        says += f" Most have {ranked[0][0]} and {ranked[0][1]} in common: {ranked[0][2]:,}."
    axis = {"tickmode": "array", "tickvals": list(range(len(names))), "automargin": True, "showgrid": False}
    numbers = [str(number) for number in range(1, len(names) + 1)]  # names of columns have no room on a phone
    ticks = [f"{label(name, 36)} {number}" for name, number in zip(names, numbers, strict=True)]
    return _chart(
        [trace],
        says,
        height=110 + 20 * len(names),
        header=("rule", "rule", "documents of both"),
        rows=ranked[:100],
        xaxis={**axis, "ticktext": numbers, "tickangle": -90},
        yaxis={**axis, "ticktext": ticks, "autorange": "reversed"},
    )


_DECADES = {"dtick": 1, "tickformat": "~s"}


def _place(histogram: Histogram, edge: float, number: int) -> float:
    """Where an edge stands on the axis: logarithmic bins are drawn by their powers of ten, 0 left of them."""
    if not histogram.logarithmic:
        return edge
    return math.log10(edge) if edge > 0 else math.log10(max(1.0, histogram.edges[number + 1])) - 0.3


def _at(histogram: Histogram, value: float, comparison: str) -> float:
    """Where a threshold stands on the axis: of whole numbers, between the last that is kept and the first dropped."""
    whole = histogram.logarithmic or (bool(histogram.edges) and histogram.edges[0] % 1 == 0.5)
    if whole and comparison in ("<=", ">"):
        value += 1
    if not histogram.logarithmic:
        return value - 0.5 if whole else value
    return math.log10(value) if value > 0 else -0.3


def _bars(histogram: Histogram, series: str, name: str, role: str, unit: str) -> dict[str, Any]:
    places = [_place(histogram, edge, i) for i, edge in enumerate(histogram.edges)]
    ranges = [_range(histogram, i) for i in range(len(places) - 1)]
    return {
        "type": "bar",
        "x": [(a + b) / 2 for a, b in itertools.pairwise(places)],
        "width": [b - a for a, b in itertools.pairwise(places)],
        "y": histogram.counts.get(series, [0] * len(ranges)),
        "customdata": ranges,
        "name": name,
        "meta": {"role": role},
        "hovertemplate": "%{customdata} " + unit + ": %{y:,} " + name + "<extra></extra>",
    }


def _range(histogram: Histogram, number: int) -> str:
    low, high = histogram.edges[number], histogram.edges[number + 1]
    if not histogram.logarithmic:
        return f"{_short(low)} to {_short(high)}"
    return f"{int(low):,}" if high - low <= 1 else f"{int(low):,} to {int(high) - 1:,}"


def _bin_rows(histogram: Histogram, names: Sequence[str]) -> list[tuple[Any, ...]]:
    columns = [histogram.counts.get(name, []) for name in names]
    return [(_range(histogram, i), *numbers) for i, numbers in enumerate(zip(*columns, strict=True)) if any(numbers)]


def _log_axis(histogram: Histogram) -> dict[str, Any]:
    high = math.ceil(math.log10(max(10.0, histogram.edges[-1] if histogram.edges else 10.0)))
    units = ("1", "10", "100", "1k", "10k", "100k", "1M", "10M", "100M", "1G", "10G", "100G", "1T")
    return {"tickmode": "array", "tickvals": list(range(high + 1)), "ticktext": list(units[: high + 1])}


def _median(histogram: Histogram) -> str:
    totals = [sum(column) for column in zip(*histogram.counts.values(), strict=True)]
    half, passed = sum(totals) / 2, 0
    for number, total in enumerate(totals):
        passed += total
        if passed >= half and total:
            return _range(histogram, number)
    return ""


def _short(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


# ------------------------------------------------------------------------------------------------ duplicates


def candidate_curve(bands: int, rows: int, threshold: float) -> Chart:
    """P(candidate | s) = 1 - (1 - s^rows)^bands (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.4.2)."""
    grid = [i / 200 for i in range(201)]
    curve = [1 - (1 - s**rows) ** bands for s in grid]
    found = 1 - (1 - threshold**rows) ** bands
    trace = {"type": "scatter", "mode": "lines", "x": grid, "y": curve, "name": "P(candidate)"}
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": threshold, "x1": threshold}
    note = {"x": threshold, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
    return _chart(
        [{**trace, "meta": {"role": "kept"}, "hovertemplate": "s = %{x:.3f}: P = %{y:.4f}<extra></extra>"}],
        f"With {bands} bands of {rows} rows, a pair of similarity {threshold} (the threshold) is compared with "
        f"probability {found:.4f}.",
        height=260,
        header=("similarity", "P(candidate)"),
        rows=[(f"{s / 10:.1f}", f"{1 - (1 - (s / 10) ** rows) ** bands:.4f}") for s in range(1, 11)],
        showlegend=False,
        shapes=[{**line, "line": {"width": 2, "dash": "dash"}, "name": "dropped"}],
        annotations=[{**note, "text": f"threshold {threshold}"}],
        xaxis={"title": {"text": "Jaccard similarity s"}, "range": [0, 1]},
        yaxis={"title": {"text": "P(candidate | s)"}, "range": [0, 1.02]},
    )


def similarity_histogram(counts: Sequence[int], threshold: float) -> Chart:
    """How similar removed near-duplicates are to their keepers."""
    first = min((i for i, n in enumerate(counts) if n), default=int(threshold * len(counts)))
    width = 1 / len(counts)
    bars = {
        "type": "bar",
        "x": [(i + 0.5) * width for i in range(first, len(counts))],
        "width": [width] * (len(counts) - first),
        "y": list(counts[first:]),
        "meta": {"role": "dropped"},
        "hovertemplate": "%{x:.3f}: %{y:,} documents<extra></extra>",
    }
    return _chart(
        [bars],
        f"Exact similarity of {sum(counts):,} near-duplicates to the document that stays for them.",
        height=260,
        header=("similarity", "documents"),
        rows=[(f"{i * width:.3f} to {(i + 1) * width:.3f}", n) for i, n in enumerate(counts) if n],
        showlegend=False,
        bargap=0.04,
        xaxis={"title": {"text": "similarity to the keeper"}, "range": [min(threshold, first * width), 1.0]},
        yaxis={"title": {"text": "documents"}, **_counts(max(counts, default=0))},
    )


# ------------------------------------------------------------------------------------------------ models


def losses(training: Row) -> Chart:
    """Training loss over steps and, where there is one, validation loss."""
    curves, validation = training["curves"], training["validation"]
    every = curves["every"]
    name = "training loss" if every == 1 else f"training loss, mean of {every} steps"
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": curves["step"],
            "y": curves["loss"],
            "name": name,
            "meta": {"role": "kept"},
        }
    ]
    if validation:
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [point["step"] for point in validation],
                "y": [point["loss"] for point in validation],
                "name": "validation loss",
                "meta": {"role": "dropped"},
            }
        )
    measured = [loss for loss in curves["loss"] if loss is not None]
    says = f"Training loss from {measured[0]:.3f} to {measured[-1]:.3f}" if measured else "No loss was measured"
    says += f" over {training['steps']:,} steps."
    if validation:
        says += f" Validation loss at the end {validation[-1]['loss']:.3f}."
    return _chart(
        traces,
        says,
        header=("step", "validation loss"),
        rows=[(point["step"], f"{point['loss']:.4f}") for point in validation],
        hovermode="x unified",
        xaxis={"title": {"text": "step"}},
        yaxis={"title": {"text": "loss (nats a token)" if validation else "loss"}},
    )


def curve(training: Row, name: str, title: str) -> Chart | None:
    """One measured value over steps, or None where it was not measured."""
    values = [value for value in training["curves"].get(name, []) if value is not None]
    if not values:
        return None
    trace = {"type": "scatter", "mode": "lines", "x": training["curves"]["step"], "y": training["curves"][name]}
    return _chart(
        [{**trace, "name": title, "meta": {"role": "kept"}, "hovertemplate": "step %{x}: %{y:.4~g}<extra></extra>"}],
        f"From {min(values):.4g} to {max(values):.4g}, {values[-1]:.4g} at the end.",
        height=220,
        showlegend=False,
        xaxis={"title": {"text": "step"}},
        yaxis={"title": {"text": title}, "rangemode": "tozero", "exponentformat": "power", "automargin": True},
    )


def scores(rows: Sequence[tuple[str, float, float]]) -> Chart:
    """Accuracy and macro-F1 of the fine-tuned model beside its baselines."""
    names = [name for name, _, _ in rows]
    traces = [
        {
            "type": "bar",
            "x": names,
            "y": [row[column] for row in rows],
            "text": [f"{row[column]:.3f}" for row in rows],
            "textposition": "outside",
            "cliponaxis": False,
            "name": title,
            "meta": {"role": role},
            "hovertemplate": "%{x}: %{y:.4f}<extra>" + title + "</extra>",
        }
        for column, title, role in ((1, "accuracy", "kept"), (2, "macro-F1", "second"))
    ]
    says = "; ".join(f"{name}: accuracy {accuracy:.3f}, macro-F1 {f1:.3f}" for name, accuracy, f1 in rows)
    return _chart(traces, says + ".", height=290, barmode="group", yaxis={"range": [0, 1.08], "tickformat": ".0%"})


def reliability(rows: Sequence[Row]) -> Chart:
    """Share of positive documents in bins of the score; calibrated scores lie on the diagonal."""
    bins = [f"{row['from']:.1f} to {row['to']:.1f}" for row in rows]
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [0, 1],
            "y": [0, 1],
            "name": "calibrated",
            "meta": {"role": "second"},
            "line": {"dash": "dot"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": [row["mean_score"] for row in rows],
            "y": [row["positive_share"] for row in rows],
            "customdata": [row["documents"] for row in rows],
            "name": "held-out documents",
            "meta": {"role": "kept"},
            "hovertemplate": "score %{x:.2f}: %{y:.1%} positive of %{customdata:,} documents<extra></extra>",
        },
    ]
    total = sum(row["documents"] for row in rows)
    off = max((abs(row["mean_score"] - row["positive_share"]) for row in rows), default=0.0)
    return _chart(
        traces,
        f"Scores of {total:,} held-out documents; no bin is farther from the diagonal than {off:.2f}.",
        header=("score", "documents", "mean score", "positive"),
        rows=[
            (name, row["documents"], f"{row['mean_score']:.3f}", f"{row['positive_share']:.1%}")
            for name, row in zip(bins, rows, strict=True)
        ],
        height=290,
        xaxis={"title": {"text": "mean score"}, "range": [0, 1]},
        yaxis={"title": {"text": "share of positive documents"}, "range": [0, 1.05], "tickformat": ".0%"},
    )


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Chart:
    """Rows are true classes, columns predicted ones; shades are shares of the row."""
    names = [f"{label(name, 24)}" for name in classes]
    sums = [max(1, sum(row)) for row in matrix]
    trace = {
        "type": "heatmap",
        "z": [[n / total for n in row] for row, total in zip(matrix, sums, strict=True)],
        # Names may be cut to the same letters, so cells stand at numbers.
        "x": list(range(len(names))),
        "y": list(range(len(names))),
        "text": [[str(n) if n else "" for n in row] for row in matrix],
        "customdata": [[f"{a} taken for {b}" for b in names] for a in names],
        "texttemplate": "%{text}",
        "hovertemplate": "%{customdata}: %{text}, %{z:.1%} of the class<extra></extra>",
        "meta": {"role": "scale"},
        "zmin": 0,
        "zmax": 1,
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"title": {"text": "share"}, "tickformat": ".0%", "thickness": 12},
    }
    right = sum(row[i] for i, row in enumerate(matrix))
    axis = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names, "automargin": True}
    return _chart(
        [trace],
        f"Confusion matrix of {len(classes)} classes: {right:,} of {sum(map(sum, matrix)):,} on the diagonal.",
        height=190 + 26 * len(names),
        xaxis={"title": {"text": "predicted"}, **axis, "side": "bottom", "showgrid": False},
        yaxis={"title": {"text": "true"}, **axis, "autorange": "reversed", "showgrid": False},
    )
