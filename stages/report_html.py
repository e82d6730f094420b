"""Pieces of HTML: escaping, numbers, tables, figures, and the graph of a run. Everything from outside is escaped here.

Texts of documents are untrusted. A string becomes HTML only through `escape`; `Html` marks what already is.
"""

from __future__ import annotations

import difflib
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stages.report_charts import Chart, visible


class Html(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


def escape(value: Any) -> Html:
    """Any value as HTML: strings escaped and made visible, numbers with separators, None as a dash."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html("–")
    if isinstance(value, bool):
        return Html("yes" if value else "no")
    if isinstance(value, int):
        return Html(f"{value:,}")
    if isinstance(value, float):
        return Html(f"{value:,.4g}")
    return Html(html.escape(visible(str(value))))


def join(pieces: Iterable[Any], between: str = "") -> Html:
    """Pieces, each escaped, one after the other; `between` is HTML."""
    return Html(between.join(escape(piece) for piece in pieces))


def element(name: str, *content: Any, **attributes: Any) -> Html:
    """`<name attributes>content</name>`; an attribute that is None is left out, `class_` is class, `_` is a hyphen."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(visible(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{join(content)}</{name}>")


def paragraph(*content: Any, **attributes: Any) -> Html:
    """A paragraph."""
    return element("p", *content, **attributes)


def code(value: Any) -> Html:
    """A name or value as it is typed."""
    return element("code", str(value))


# ------------------------------------------------------------------------------------------------ numbers


def share(part: float, whole: float) -> str:
    """A part of a whole in per cent; a dash if there is no whole."""
    if not whole:
        return "–"
    found = part / whole
    if not found:
        return "0%"
    return "<0.01%" if 0 < found < 1e-4 else f"{found:.2%}" if found < 0.0995 else f"{found:.1%}"


def size(number: float) -> str:
    """Bytes for people, by powers of 1,024."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if abs(number) < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:,.0f} {unit}" if unit == "bytes" or number >= 100 else f"{number:,.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def large(number: float) -> str:
    """A number of any size in at most four digits."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= limit:
            return f"{number / (1e3 if unit == 'k' else limit):,.3g}{unit}"
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.4g}"


# ------------------------------------------------------------------------------------------------ tables


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[Any]], *, foot: Sequence[Any] = ()) -> Html:
    """A table with a caption; the first cell of a row is its header, numbers stand right.

    A wide table scrolls inside its own box, which the keyboard reaches.
    """
    body = [_row(row) for row in rows]
    if not body:
        return Html("")
    head = element("tr", *(element("th", name, scope="col") for name in header))
    pieces = [element("caption", caption), element("thead", head), element("tbody", *body)]
    if foot:
        pieces.append(element("tfoot", _row(foot)))
    return element("div", element("table", *pieces), class_="scroll", tabindex="0", role="region", aria_label=caption)


def facts(caption: str, rows: Iterable[tuple[str, Any]]) -> Html:
    """A table of names and values; values that are None are left out."""
    pairs = [
        element("tr", element("th", name, scope="row"), element("td", value))
        for name, value in rows
        if value is not None
    ]
    body = element("tbody", *pairs)
    return element("table", element("caption", caption), body, class_="facts") if pairs else Html("")


def _row(cells: Sequence[Any]) -> Html:
    first, *rest = cells
    return element("tr", element("th", first, scope="row"), *(_cell(cell) for cell in rest))


def _cell(value: Any) -> Html:
    numeric = isinstance(value, int | float) or (isinstance(value, str) and bool(_NUMBER.fullmatch(value)))
    long = isinstance(value, str) and len(value) > LONG_CELL and not value.startswith("<code>")
    return element("td", value, class_="number" if numeric else "wide" if long else None)


LONG_CELL = 40
"""Characters from which a cell keeps some width when there is little room."""

_NUMBER = re.compile(r"[-–+]|<?[-+]?[\d,.]+(e[-+]?\d+)?(%|[kMGT]| (bytes|[KMGT]iB|s|h \d+ min|min \d+ s))?")


# ------------------------------------------------------------------------------------------------ figures


def figure(chart: Chart | None, title: str) -> Html:
    """A chart with its title, what it says in words, and its numbers for those who cannot see it."""
    if chart is None or not chart.data:
        return Html("")
    values = script_json({"data": chart.data, "layout": chart.layout})
    numbers = Html("")
    if chart.rows:
        summary = element("summary", "Numbers")
        numbers = element("details", summary, table(title, chart.header, chart.rows), class_="numbers")
    height = f"min-height:{int(chart.layout['height'])}px"
    return element(
        "figure",
        element("figcaption", element("strong", title), " ", chart.says),
        element("div", class_="chart", role="img", aria_label=f"{title}. {chart.says}", style=height),
        Html(f'<script type="application/json">{values}</script>'),
        numbers,
    )


def script_json(value: Any) -> str:
    """JSON that can stand inside a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def excerpt(text: Any, *, cut: bool = False) -> Html:
    """A passage of a document as it stands, in its own direction of writing."""
    return element("pre", text, "…" if cut else "", class_="excerpt", dir="auto")


def marked(text: str, marks: Sequence[tuple[int, int]], *, cut: bool = False, begun: bool = False) -> Html:
    """A passage of a document with some of it marked; `begun` and `cut` say that there is text before and after."""
    pieces: list[Any] = ["…"] if begun else []
    at = 0
    for start, end in marks:
        pieces += [text[at:start], element("mark", text[start:end])]
        at = end
    return excerpt(join([*pieces, text[at:]]), cut=cut)


def differing(text: str, other: str) -> Html:
    """`text` with the words marked that `other` does not have in that place."""
    mine, theirs = _WORDS.findall(text), _WORDS.findall(other)
    pieces: list[Any] = []
    matcher = difflib.SequenceMatcher(None, theirs, mine, autojunk=False)
    for kind, _, _, start, end in matcher.get_opcodes():
        passage = "".join(mine[start:end])
        if passage:
            pieces.append(passage if kind == "equal" else element("mark", passage))
    return element("pre", *pieces, class_="excerpt", dir="auto")


_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


# ------------------------------------------------------------------------------------------------ the graph

_WIDTH, _HEIGHT, _ACROSS, _DOWN = 90, 38, 104, 50  # ten columns fit the page


def graph(nodes: Mapping[str, tuple[str, Sequence[str]]]) -> Html:
    """The stages of a run and what each reads, from left to right.

    Parameters
    ----------
    nodes
        Name to (second line, what it reads). Inputs that lead here by a longer way as well are not drawn: every
        stage reads the documents, and a line from each to `ingest` would tell nothing.
    """
    names = list(nodes)
    above = {name: _reached(name, nodes) for name in names}
    edges = []
    for name in names:
        needs = [need for need in nodes[name][1] if need in nodes]
        edges += [(need, name) for need in needs if not any(need in above[other] for other in needs)]
    column = dict.fromkeys(names, 0)
    for name in names:  # names come in an order in which every stage follows what it reads
        column[name] = max((column[a] + 1 for a, b in edges if b == name), default=0)
    rows: dict[int, list[str]] = {}
    for name in names:
        rows.setdefault(column[name], []).append(name)
    most = max((len(row) for row in rows.values()), default=1)
    place = {
        name: (4 + number * _ACROSS, 4 + ((most - len(row)) / 2 + i) * _DOWN)
        for number, row in rows.items()
        for i, name in enumerate(row)
    }
    drawn = [_edge(place[a], place[b]) for a, b in edges] + [_node(name, nodes[name][0], place[name]) for name in names]
    width, height = 8 + _WIDTH + (len(rows) - 1) * _ACROSS, 8 + _HEIGHT + (most - 1) * _DOWN
    picture = element(
        "svg", *drawn, viewBox=f"0 0 {width} {height}", width=width, height=height, class_="graph", role="img",
        aria_label="Graph of the stages: " + "; ".join(f"{b} reads {a}" for a, b in edges),
    )  # fmt: skip
    return element("div", picture, class_="scroll", tabindex="0", role="region", aria_label="Graph of the stages")


def _reached(name: str, nodes: Mapping[str, tuple[str, Sequence[str]]]) -> set[str]:
    """Everything a stage reads, directly or not."""
    found: set[str] = set()
    waiting = [need for need in nodes[name][1] if need in nodes]
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += [need for need in nodes[other][1] if need in nodes]
    return found


def _edge(start: tuple[float, float], end: tuple[float, float]) -> Html:
    x1, y1 = start[0] + _WIDTH, start[1] + _HEIGHT / 2
    x2, y2 = end[0], end[1] + _HEIGHT / 2
    middle = x2 - (_ACROSS - _WIDTH) / 2
    bend = f"C{middle:g},{y1:g} {middle:g},{y2:g} {x2:g},{y2:g}"
    return Html(f'<path class="edge" d="M{x1:g},{y1:g} H{middle - 3:g} {bend}"/>')


def _node(name: str, second: str, place: tuple[float, float]) -> Html:
    x, y = place
    return Html(
        f'<g><rect class="node" x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="5"/>'
        f'<text class="name" x="{x + _WIDTH / 2:g}" y="{y + 17:g}">{escape(name)}</text>'
        f'<text class="fact" x="{x + _WIDTH / 2:g}" y="{y + 31:g}">{escape(second)}</text></g>'
    )
