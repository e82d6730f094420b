"""How the command line prints: plans, runs, outputs, answers, as tables and short texts with rich."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stages.graph import ORDER
from stages.plan import PlanRow
from stages.progress import readable_bytes, readable_seconds
from storage.garbage import Garbage

_STYLES = {
    "done": "green", "kept": "green", "resume": "cyan", "run": "cyan", "running": "cyan", "changed": "yellow",
    "damaged": "red", "locked": "magenta", "failed": "red", "stopped": "red", "interrupted": "yellow", "dropped": "red",
    "quarantined": "red", "left out": "dim", "unknown yet": "dim",
}  # fmt: skip
_WIDE = 160
"""Columns where the output is no terminal, so that files and pipes get whole lines."""


def new_console() -> Console:
    """A console as wide as the terminal, or wide enough for whole lines."""
    return Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)


def new_table(*columns: str) -> Table:
    """A table without lines; a column whose name ends in > stands right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        name, right, _ = column.partition(">")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    return table


def _state(state: str) -> str:
    return f"[{_STYLES.get(state, 'default')}]{escape(state)}[/]"


def plan(name: str, workspace: str, rows: Sequence[PlanRow]) -> None:
    """The plan of a run."""
    console = new_console()
    console.print(f"[bold]Plan of run {escape(name)}[/] in {escape(workspace)}")
    table = new_table("stage", "state", "disk>", "time>", "why")
    for row in rows:
        disk = readable_bytes(row.bytes) if row.bytes is not None else ""
        took = readable_seconds(row.seconds) if row.seconds is not None else ""
        table.add_row(row.stage, _state(row.state), disk, took, escape(row.why))
    console.print(table)


def summary(found: Mapping[str, Any]) -> None:
    """What a run came to: funnel, tokens, losses, scores, text, where the results lie."""
    console = new_console()
    if found.get("funnel"):
        console.print("\n[bold]Funnel[/]")
        table = new_table("stage", "read>", "kept>", "dropped>", "quarantined>", "by")
        for row in found["funnel"]:
            if not row["read"]:
                continue  # the report reads no documents
            reasons = {**row["dropped"], **row["quarantined"]}
            ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
            table.add_row(
                row["stage"],
                f"{row['read']:,}",
                f"{row['kept']:,}",
                f"{sum(row['dropped'].values()):,}",
                f"{sum(row['quarantined'].values()):,}",
                escape(", ".join(f"{reason} {number:,}" for reason, number in ranked[:6])),
            )
        console.print(table)
    if found.get("tokens"):
        tokens: dict[str, int] = {}
        for row in found["tokens"]:
            tokens[row["split"]] = tokens.get(row["split"], 0) + row["tokens"]
        console.print(f"\n[bold]Tokens[/]  {', '.join(f'{split} {number:,}' for split, number in tokens.items())}")
    if found.get("losses"):
        losses = [f"{k} {v:.4f}" for k, v in found["losses"].items() if isinstance(v, int | float)]
        console.print(f"[bold]Losses[/]  {', '.join(losses)}")
    for name, scores in (found.get("evaluation") or {}).items():
        console.print(
            f"[bold]Held-out text[/] {escape(name)}: perplexity {scores['perplexity']:,.2f}, "
            f"{scores['bits_per_byte']:.3f} bits per byte ({scores['documents']:,} documents)"
        )
    if found.get("finetuning"):
        _finetuning(console, found["finetuning"])
    for sample in (found.get("samples") or [])[:1]:
        console.print("\n[bold]A sample of generated text[/]")
        console.print(escape(f"{sample['prompt']}{sample['text']}"))
    for what in ("release", "report"):
        if found.get(what):
            console.print(f"\n[bold]{what.capitalize()}[/]  {escape(str(found[what]))}", soft_wrap=True)


def _finetuning(console: Console, tuned: Mapping[str, Any]) -> None:
    console.print(
        f"\n[bold]Fine-tuning[/] by {escape(str(tuned['label']))}: {tuned['classes']} classes, "
        f"{tuned['test_documents']:,} test documents"
    )
    table = new_table("", "accuracy>", "macro F1>")
    rows = {"fine-tuned": tuned, **tuned["baselines"]}
    for name, scores in rows.items():
        table.add_row(escape(str(name)), f"{scores['accuracy']:.3f}", f"{scores['macro_f1']:.3f}")
    console.print(table)


def runs(workspace: str, records: Sequence[Mapping[str, Any]]) -> None:
    """All runs of a workspace."""
    console = new_console()
    if not records:
        console.print(f"There are no runs in {escape(workspace)} yet.")
        return
    table = new_table("run", "status", "stages done>", "attempts>", "updated", "message")
    for record in records:
        done = sum(1 for entry in record["stages"].values() if entry.get("status") == "done")
        attempt = record["attempts"][-1]
        table.add_row(
            record["name"],
            _state(record["status"]),
            str(done),
            str(len(record["attempts"])),
            record["updated"],
            escape(_first_line(attempt)),
        )
    console.print(table)


def run(record: Mapping[str, Any]) -> None:
    """One run: its stages and its attempts."""
    console = new_console()
    console.print(f"[bold]Run {escape(record['name'])}[/]: {_state(record['status'])}")
    table = new_table("stage", "status", "output", "time>")
    entries = record["stages"]
    for stage in sorted(entries, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)):
        entry = entries[stage]
        took = readable_seconds(entry["seconds"]) if entry.get("seconds") is not None else ""
        table.add_row(stage, _state(str(entry.get("status", ""))), str(entry.get("output", "")), took)
    console.print(table)
    table = new_table("attempt>", "started", "ended", "status", "process", "message")
    for attempt in record["attempts"]:
        table.add_row(
            str(attempt["number"]),
            attempt["started"],
            attempt["ended"] or "",
            _state(attempt["status"]),
            f"{attempt['pid']} on {attempt['host']}",
            escape(_first_line(attempt)),
        )
    console.print(table)
    message = str(record["attempts"][-1].get("message", ""))
    if "\n" in message:
        console.print(f"\n{escape(message)}", soft_wrap=True)


def _first_line(attempt: Mapping[str, Any]) -> str:
    return str(attempt.get("message", "")).partition("\n")[0]


def stage(found: Mapping[str, Any]) -> None:
    """The output of a stage."""
    console = new_console()
    manifest = found["manifest"]
    counts = manifest["counts"]
    console.print(f"[bold]{manifest['stage']}[/] of run {escape(found['run'])}")
    table = new_table("", "")
    table.add_row("folder", escape(found["folder"]))
    table.add_row("content", found["digest"])
    table.add_row("version", str(manifest["version"]))
    for name, value in manifest["inputs"].items():
        table.add_row(f"reads {name}", value["fingerprint"])
    for name, value in {**manifest["timings"], **manifest["numerics"]}.items():
        table.add_row(name, escape(str(value)))
    console.print(table)
    table = new_table("documents", "number>")
    table.add_row("read", f"{counts['read']:,}")
    table.add_row("kept", f"{counts['kept']:,}")
    for kind in ("dropped", "quarantined"):
        for reason, number in sorted(counts[kind].items(), key=lambda item: (-item[1], item[0])):
            table.add_row(f"{kind}: {escape(reason)}", f"{number:,}")
    console.print(table)
    kinds: dict[str, list[int]] = {}
    for part in manifest["parts"]:
        entry = kinds.setdefault(part["name"].split("/", 1)[0], [0, 0, 0])
        for index, value in enumerate((1, part["rows"], part["bytes"])):
            entry[index] += value
    table = new_table("parts", "files>", "rows>", "disk>")
    for kind, (files, rows, size) in sorted(kinds.items()):
        table.add_row(kind, f"{files:,}", f"{rows:,}", readable_bytes(size))
    console.print(table)
    if found.get("judges", {}).get("documents"):
        _judges(console, found["judges"])
    if "ledger" in found:
        _ledger(console, found["ledger"])
    for reason, documents in (found.get("samples") or {}).items():
        console.print(f"\n{_state(reason)}")
        for document in documents:
            _document(console, document)


def _judges(console: Console, found: Mapping[str, Any]) -> None:
    if found["classifiers"]:
        header = ("classifier", "held out>", "accuracy>", "majority>", "AUC>", "calibration error>", "positive>")
        table = new_table(*header, "negative>", "on both sides>")
        for name, report in found["classifiers"].items():
            if not report:
                table.add_row(escape(name), "", "", "", "", "", "given", "given", "")
                continue
            test, counts = report["test"], report["documents"]
            auc = "" if test["auc"] is None else f"{test['auc']:.4f}"
            numbers = [counts[side]["used"] for side in ("positive", "negative")]
            table.add_row(
                escape(name),
                f"{test['documents']:,}",
                f"{test['accuracy']:.2%}",
                f"{test['majority']:.2%}",
                auc,
                f"{test['expected_calibration_error']:.4f}",
                *(f"{number:,}" for number in (*numbers, counts["in_both_sides"])),
            )
        console.print(table)
    if found["lists"]:
        table = new_table("list", "entries>", "documents with hits>", "hits>")
        for row in found["lists"]:
            numbers = [row[key] for key in ("entries", "documents", "hits")]
            table.add_row(escape(row["name"]), *(f"{number:,}" for number in numbers))
        console.print(table)
    if found["licences"]:
        table = new_table("licence class", "documents>")
        for name, number in found["licences"].items():
            table.add_row(escape(name), f"{number:,}")
        console.print(table)


def _ledger(console: Console, rows: Sequence[Mapping[str, Any]], most: int = 40) -> None:
    table = new_table(
        "source", "file", "disk>", "records>", "written>", "copies>", "skipped>", "quarantined>", "status", "why"
    )
    for row in rows[:most]:
        table.add_row(
            row["source"],
            escape(row["uri"]),
            readable_bytes(row["bytes"]),
            f"{row['records']:,}",
            f"{row['written']:,}",
            f"{row['duplicates']:,}",
            f"{row['skipped']:,}",
            f"{row['quarantined']:,}",
            row["status"],
            escape(", ".join(f"{name} {number:,}" for name, number in json.loads(row["reasons"]).items())),
        )
    console.print(table)
    if len(rows) > most:
        console.print(f"… and {len(rows) - most:,} more files (--json lists 1,000)")


def takedown(found: Any, path: str | None) -> None:
    """What a takedown touches, and what to do next."""
    console = new_console()
    table = new_table("source", "file", "record>", "id")
    for entry in found.entries:
        number = "all" if entry.record is None else f"{entry.record:,}"
        table.add_row(entry.source, escape(entry.uri or "all files"), number, entry.id)
    console.print(table)
    for title, names in (("Files that hold it", found.shards), ("Computed from it", found.outputs)):
        console.print(f"\n[bold]{title}[/]" + ("" if names else ": none"))
        for name in names:
            console.print(f"  {escape(name)}", soft_wrap=True)
    if path is None:
        console.print("\nNothing was changed (--dry-run).")
    else:
        console.print(
            f"\nNoted in {escape(path)}. Run every configuration of this workspace again: ingest and what follows are "
            "made without it. Then `gristmill gc` removes the old files.",
            soft_wrap=True,
        )


def _document(console: Console, document: Mapping[str, Any]) -> None:
    console.print(
        f"[bold]{document.get('id', '')}[/] {escape(document['source'])} {escape(document['uri'])}#{document['record']}"
    )
    excerpt = " ".join(str(document["excerpt"]).split())
    console.print(f"  {escape(excerpt[:300])}", style="dim")


def why(answer: Mapping[str, Any]) -> None:
    """All that is known about one document."""
    console = new_console()
    for document in answer["documents"]:
        reason = f": {escape(str(document['reason']))}" if document.get("reason") else ""
        at = f" by {document['stage']}" if document.get("stage") else ""
        console.print(f"{_state(document['status'])}{at}{reason}")
        _document(console, document)
        table = new_table("", "")
        skipped = {"status", "stage", "reason", "id", "excerpt", "evidence", "source", "uri", "record"}
        for name, value in document.items():
            if name not in skipped and value is not None:
                table.add_row(name, escape(str(value)))
        evidence = dict(document.get("evidence") or {})
        difference = evidence.pop("difference", None)
        for name, value in evidence.items():
            for label, text in _flat(name, value):
                table.add_row(escape(label), escape(text))
        console.print(table)
        if difference:
            marks = {"same": "{}", "keeper": "[red strike]{}[/]", "this": "[green bold]{}[/]"}
            plain = {"same": "{}", "keeper": "[-{}-]", "this": "{{+{}+}}"}
            told = marks if console.is_terminal else plain
            said = "struck out … bold" if console.is_terminal else "[-…-] … {+…+}"
            console.print(
                f"Beside its keeper ({said}: what only the keeper has, what only this text has):", markup=False
            )
            shown = escape if console.is_terminal else str
            pieces = (told[whose].format(shown(passage)) for whose, passage in difference)
            console.print("".join(pieces), soft_wrap=True, markup=console.is_terminal)
    if answer["more"]:
        console.print(f"… and {answer['more']:,} more documents of this text")


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    """Nested evidence as rows of a table."""
    if isinstance(value, Mapping):
        return [row for key, inner in value.items() for row in _flat(f"{name}.{key}", inner)]
    if isinstance(value, list):
        if all(not isinstance(inner, Mapping | list) for inner in value):
            return [(name, ", ".join(str(inner) for inner in value))] if value else []
        return [row for number, inner in enumerate(value) for row in _flat(f"{name}[{number}]", inner)]
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return [(name, text)]


def verified(workspace: str, results: Sequence[Mapping[str, Any]]) -> None:
    """What verifying found."""
    console = new_console()
    table = new_table("stage", "output", "parts>", "disk>", "")
    for result in results:
        state = "[red]damaged[/]" if result["problems"] else "[green]good[/]" if result["complete"] else "in work"
        size = readable_bytes(result["bytes"])
        table.add_row(result["stage"], result["output"], f"{result['parts']:,}", size, state)
    console.print(table)
    problems = [problem for result in results for problem in result["problems"]]
    for problem in problems:
        console.print(f"[red]{escape(problem)}[/]", soft_wrap=True)
    good = sum(1 for result in results if result["complete"] and not result["problems"])
    console.print(f"{good} of {len(results)} outputs in {escape(workspace)} are complete and intact.")


def garbage(found: Garbage, *, dry_run: bool) -> None:
    """What was or would be removed."""
    console = new_console()
    emptied = {f"{folder} (all but parts in use)": sum(files.values()) for folder, files in found.emptied.items()}
    for path, size in {**found.folders, **emptied, **found.files}.items():
        console.print(f"{'would remove' if dry_run else 'removed'} {escape(path)} ({readable_bytes(size)})")
    number = len(found.folders) + len(emptied) + len(found.files)
    verb = "would be freed" if dry_run else "freed"
    console.print(f"{readable_bytes(found.bytes)} {verb} by {number} removals; {len(found.kept)} outputs are kept.")
