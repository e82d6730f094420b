"""How the command line prints answers about decisions: what other rules would change, and documents with marks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from flows.show import new_console, new_table
from stages.progress import readable_bytes

GROUPS_SHOWN = 12
_SIDES = {"in": ("would come in", "green"), "out": ("would go out", "red")}


def what_if(answer: Mapping[str, Any]) -> None:
    """What other rules would change."""
    console = new_console()
    console.print(f"[bold]What if[/] in run {escape(answer['run'])}")
    for path, before, after in answer["changes"]:
        console.print(f"  {escape(path)}: {escape(_short(before))} → {escape(_short(after))}", soft_wrap=True)
    if not answer["changes"]:
        console.print("  nothing: these are the rules the run has")
    (kept, kept_now), (size, size_now) = answer["kept"], answer["bytes"]
    console.print(
        f"\nOf {answer['read']:,} documents, filter would keep {kept_now:,} instead of {kept:,}: "
        f"{_move(answer['in'], '+')}, {_move(answer['out'], '-')}; "
        f"{readable_bytes(size_now)} of text instead of {readable_bytes(size)}."
    )
    for what in ("source", "language"):
        _groups(console, what, answer[f"{what}s"])
    _rules(console, answer["rules"])
    _later(console, answer["later"])
    for side, documents in answer["samples"].items():
        title, style = _SIDES[side]
        for number, found in enumerate(documents, start=1):
            console.print(f"\n[bold {style}]{title}[/] ({number} of {answer[side]['documents']:,})")
            document(console, found)
    if answer["changes"]:
        said = " ".join(f"--set {shlex.quote(one)}" for one in answer["set"])
        console.print(f"\nTo have it so: gristmill run CONFIG {escape(said)}", soft_wrap=True)


def _move(side: Mapping[str, int], sign: str) -> str:
    return f"{sign}{side['documents']:,} ({readable_bytes(side['bytes'])})"


def _groups(console: Console, what: str, rows: Sequence[Mapping[str, Any]]) -> None:
    table = new_table(f"by {what}", "read>", "kept>", "would be>", "in>", "out>", "text>", "would be>")
    for row in rows[:GROUPS_SHOWN]:
        name = "not identified" if row[what] is None else str(row[what])
        size, size_now = row["bytes"]
        table.add_row(
            escape(name), f"{row['read']:,}", f"{row['kept'][0]:,}", f"{row['kept'][1]:,}", _number(row["in"], "+"),
            _number(row["out"], "-"), readable_bytes(size), readable_bytes(size_now),
        )  # fmt: skip
    console.print()
    console.print(table)
    if len(rows) > GROUPS_SHOWN:
        console.print(f"… and {len(rows) - GROUPS_SHOWN:,} more (--json has all)")


def _number(number: int, sign: str) -> str:
    return f"{sign}{number:,}" if number else ""


def _rules(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    changed = [row for row in rows if row["first"][0] != row["first"][1] or row["hits"][0] != row["hits"][1]]
    if not changed:
        return
    table = new_table("by rule", "first reason>", "would be>", "all hits>", "would be>")
    for row in changed:
        (first, first_now), (hits, hits_now) = row["first"], row["hits"]
        table.add_row(escape(row["rule"]), f"{first:,}", f"{first_now:,}", f"{hits:,}", f"{hits_now:,}")
    console.print()
    console.print(table)


def _later(console: Console, later: Mapping[str, Any] | None) -> None:
    text = "\nThese figures are final for filter. Deduplication and selection come after it"
    if later is None:
        console.print(f"{text}; this run has not deduplicated what these rules keep, so nothing is known of them yet.")
        return
    said = [
        f"{later['out_in_use']:,} of those that go out are in use today, {later['out_dropped_already']:,} are "
        "duplicates already and change nothing",
        f"{later['duplicates_set_free']:,} duplicates stand for a document that goes out, and one or more of them may "
        "take its place",
        f"{later['in_exact_copies']:,} of those that come in are exact copies of others and would be dropped again",
        f"{later['in_to_compare']:,} are still to be compared; near-copies among them are found by the run",
    ]
    console.print(f"{text}:")
    for one in said:
        console.print(f"  - {one}")


def samples(reason: str, documents: Sequence[Mapping[str, Any]]) -> None:
    """Documents that a reason dropped, or that were kept."""
    console = new_console()
    for number, found in enumerate(documents, start=1):
        console.print(f"{chr(10) if number > 1 else ''}[bold]{escape(reason)}[/] {number} of {len(documents)}")
        document(console, found)


def document(console: Console, found: Mapping[str, Any]) -> None:
    """One document: where it stands, what was measured, its marked passages."""
    place = f"{found['source']} {found['uri']}#{found['record']}"
    language = f", {found['language']}" if found["language"] else ""
    console.print(
        f"{found['id']} {escape(place)}{escape(language)}, {found['characters']:,} characters", soft_wrap=True
    )
    measured = found["measured"]
    if measured is not None:
        values = ", ".join(f"{name} = {_value(value)}" for name, value in measured["values"].items())
        console.print(
            f"  {escape(values)}; dropped where {escape(measured['drops_if'])}", style="yellow", soft_wrap=True
        )
    if found["keeper"] is not None:
        keeper = found["keeper"]
        place = f"{keeper['source']} {keeper['uri']}#{keeper['record']}"
        said = f"{place} {keeper['id']}, similarity {keeper['similarity']:.3f}"
        console.print(f"  stays: {escape(said)}", style="yellow", soft_wrap=True)
    marked = any(passage["marks"] for passage in found["passages"])
    if measured is not None and not marked:
        console.print("  (no passage to mark)", style="dim")
    for passage in found["passages"]:
        if passage["start"]:
            console.print(f"  … from character {passage['start']:,}", style="dim")
        console.print(_marked(passage, colours=console.is_terminal), soft_wrap=True)


def _marked(passage: Mapping[str, Any], *, colours: bool) -> Text:
    """A passage with its marks: in reverse on a terminal, between » and « elsewhere."""
    text, result, at = passage["text"], Text("  "), 0
    for start, end in passage["marks"]:
        result.append(_indented(text[at:start]))
        piece = _indented(text[start:end])
        result.append(piece if colours else f"»{piece}«", style="reverse" if colours else "")
        at = end
    return result.append(_indented(text[at:]))


def _indented(text: str) -> str:
    return "".join(c if c == "\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text).replace(
        "\n", "\n  "
    )


def _value(value: Any) -> str:
    return "nothing" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 100 else text[:99] + "…"
