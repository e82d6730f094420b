"""Sections of the report about tokens, models and the run itself; see `stages/report_page.py`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stages import report_charts as charts
from stages.report_data import ReportData
from stages.report_html import (
    Html,
    code,
    duration,
    element,
    excerpt,
    facts,
    figure,
    graph,
    join,
    large,
    paragraph,
    share,
    size,
    table,
)  # fmt: skip

Row = Mapping[str, Any]
DEFAULT_WORKSPACE = "./workspace"
CLASSES_SHOWN = 25


@dataclass(frozen=True)
class Occasion:
    """Which run the page is about, and when it was written."""

    run: str
    workspace: str
    written: datetime
    git: Mapping[str, Any] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------ head


def header(data: ReportData, occasion: Occasion) -> Html:
    """Name, when, from which code, and the numbers that matter."""
    revision = str(occasion.git.get("revision", ""))[:12]
    said: list[Any] = [f"Written {occasion.written:%Y-%m-%d %H:%M} UTC"]
    if revision:
        changed = ", with local changes" if occasion.git.get("changed") else ""
        said.append(join(["git ", code(revision), changed]))
    said.append(f"{len(data.lineage)} stages")
    pairs = (element("div", element("dt", name), element("dd", value)) for name, value in _tiles(data))
    tiles = element("dl", *pairs, class_="tiles")
    return element("header", element("h1", occasion.run), paragraph(join(said, " · "), class_="soft"), tiles)


def _tiles(data: ReportData) -> list[tuple[str, Html]]:
    counts = {row["stage"]: row for row in data.funnel}
    read, selected = counts["ingest"]["read"], counts["select"]["kept"]
    text = sum(row["selected_bytes"] for row in data.scan.sources)
    tiles = [
        ("records read", _tile(large(read), f"{len(data.files)} sources" if len(data.files) != 1 else "one source")),
        ("documents selected", _tile(large(selected), f"{share(selected, read)}, {size(text)} of text")),
    ]
    if data.tokens:
        train = sum(row["tokens"] for row in data.tokens["sources"] if row["split"] == "train")
        tiles.append(("training tokens", _tile(large(train), f"vocabulary of {data.tokens['vocabulary_size']:,}")))
    if data.training:
        found = data.training["result"]["losses"]
        last = found["last"] if found["validation"] is None else found["validation"]
        name = "training loss" if found["validation"] is None else "validation loss"
        if last is not None:
            tiles.append((name, _tile(f"{last:.3f}", f"after {data.training['steps']:,} steps")))
    if data.evaluation and data.evaluation["sets"]:
        name, found = _first_set(data.evaluation["sets"])
        if found["bits_per_byte"] is not None:
            tiles.append(("bits per byte", _tile(f"{found['bits_per_byte']:.3f}", f"on {name}")))
    if data.finetuning:
        result = data.finetuning["result"]
        words = result["baselines"]["bag_of_words"]["accuracy"]
        tiles.append(("fine-tuned accuracy", _tile(f"{result['accuracy']:.1%}", f"bag of words {words:.1%}")))
    seconds = sum(row["seconds"] for row in data.lineage)
    tiles.append(("time of all stages", _tile(duration(seconds), "as each took when it was made")))
    parts, disk = sum(row["parts"] for row in data.lineage), sum(row["bytes"] for row in data.lineage)
    tiles.append(("disk of all outputs", _tile(size(disk), f"{parts:,} files")))
    return tiles


def _tile(value: str, note: str) -> Html:
    return join([value, element("small", note)])


def _first_set(sets: Mapping[str, Row]) -> tuple[str, Row]:
    name = "validation" if "validation" in sets else next(iter(sets))
    return name, sets[name]


# ------------------------------------------------------------------------------------------------ tokens


def tokens(data: ReportData) -> Html:
    """Tokens by split and source, and what the tokeniser does."""
    pieces: list[Any] = []
    if data.tokens:
        rows = [
            (
                row["split"], row["source"], row["documents"], row["rows"], row["tokens"], row["end_tokens"],
                size(row["bytes"]), f"{row['bytes'] / row['tokens']:.2f}" if row["tokens"] else None,
            )
            for row in data.tokens["sources"]
        ]  # fmt: skip
        totals = [sum(row[name] for row in data.tokens["sources"]) for name in ("documents", "rows", "tokens")]
        header = ("split", "source", "documents", "rows", "tokens", "end tokens", "text", "bytes per token")
        foot = ("in all", "", *totals) if len(rows) > 1 else ()
        pieces.append(table("Tokens by split and source (rows count repeats)", header, rows, foot=foot))
    if data.tokenizer:
        pieces.append(element("h3", "Tokeniser"))
        pieces.append(_tokenizer(data.tokenizer))
    return join(pieces)


def _tokenizer(report: Row) -> Html:
    used, total = report["vocabulary_used"], report["vocabulary_size"]
    said = (
        f"On {report['documents']:,} documents ({size(report['bytes'])}, held-out ones first): "
        f"{_number(report['bytes_per_token'])} bytes per token; {total - used:,} of {total:,} tokens "
        f"({share(total - used, total)}) do not occur; ids are {report['dtype']}."
    )
    failures = report["round_trip_failures"]
    pieces = [paragraph(said)]
    if failures:
        pieces.append(paragraph(f"{failures:,} texts are not given back by decoding. The first begins:"))
        pieces.append(excerpt(report["round_trip_example"] or ""))
    else:
        pieces.append(paragraph("Decoding gave every one of them back as it was."))
    for name in ("source", "language"):
        found = report.get(f"{name}s", {})
        rows = [
            (key, row["documents"], size(row["bytes"]), _number(row["bytes_per_token"])) for key, row in found.items()
        ]
        if len(rows) > 1:
            pieces.append(table(f"Bytes per token by {name}", (name, "documents", "text", "bytes per token"), rows))
    tokens = report["longest_tokens"]
    longest = [(element("bdi", code(_shown(row["token"]))), row["bytes"], row["count"]) for row in tokens]
    summary = element("summary", "Longest tokens")
    shown = table("Longest tokens and how often they occur in these documents", ("token", "bytes", "occurs"), longest)
    pieces.append(element("details", summary, shown) if longest else Html(""))
    return join(pieces)


def _shown(token: str) -> str:
    return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")[:120]


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


# ------------------------------------------------------------------------------------------------ training


def training(data: ReportData) -> Html:
    """Loss, learning rate, speed."""
    found = data.training
    if not found:
        return Html("")
    result, parameters = found["result"], found["parameters"]
    shape, recipe = parameters["model"], parameters["training"]
    seconds = found["seconds"]
    rows = [
        (
            "model",
            f"{shape['layers']} layers of width {shape['width']}, {shape['heads']} heads, "
            f"up to {shape['max_positions']:,} positions",
        ),
        (
            "a step",
            f"{recipe['batch_sequences']:,} sequences of {recipe['sequence_length']:,} tokens, {recipe['precision']}",
        ),
        ("steps", found["steps"]),
        ("tokens trained on", result.get("tokens")),
        *_packing(recipe, result),
        ("steps skipped (not finite)", found["skipped"]),
        ("tokens per second", large(result["tokens"] / seconds) if seconds and "tokens" in result else None),
        ("time in steps", duration(seconds) if seconds else None),
        ("training loss, first and last", _both(result["losses"]["first"], result["losses"]["last"])),
        ("validation loss", _number(result["losses"]["validation"], 4)),
        *((f"validation loss, source {name}", _number(loss, 4)) for name, loss in _by_source(result)),
        ("digest of the tensors", code(result["tensor_digest"]) if "tensor_digest" in result else None),
    ]
    return join(
        [
            figure(charts.losses(found), "Loss"),
            element(
                "div",
                figure(charts.curve(found, "learning_rate", "learning rate"), "Learning rate"),
                figure(charts.curve(found, "tokens_per_second", "tokens per second"), "Speed"),
                class_="pair",
            ),
            facts("Training", rows),
            element("details", element("summary", "Numerics"), _numerics(found["numerics"])),
        ]
    )


def _packing(recipe: Row, result: Row) -> list[tuple[str, Any]]:
    """How documents became sequences, and what that cost."""
    report = result.get("packing")
    if not report:
        return []
    rows: list[tuple[str, Any]] = [("packing", f"{recipe['packing']}: {report['sequences']:,} sequences a pass")]
    for name, part in (("", report), *sorted(report.get("sources", {}).items())):
        of = f", source {name}" if name else ""
        rows.append(
            (
                f"padding of a pass{of}",
                f"{part['padding']:,} of {part['tokens']:,} tokens ({share(part['padding'], part['tokens'])})",
            )
        )
        rows.append((f"tokens in no sequence{of}", part["lost"]))
    return rows


def _by_source(result: Row) -> list[tuple[str, float]]:
    return sorted(result.get("validation_sources", {}).items())


def _both(first: float | None, last: float | None) -> str:
    return f"{_number(first, 4)} → {_number(last, 4)}"


def _numerics(values: Row) -> Html:
    note = "What floating point depended on: equality is promised where all of these are equal."
    rows = [(name, code("none" if value is None else value)) for name, value in sorted(values.items())]
    return join([paragraph(note, class_="soft"), facts("Numerics", rows)])


def evaluation(data: ReportData) -> Html:
    """Scores by set and source, and texts the model wrote."""
    if not data.evaluation:
        return Html("")
    rows = []
    for name, found in data.evaluation["sets"].items():
        rows.append((name, "all", *_score(found)))
        inner = found.get("sources", {})
        if len(inner) > 1:
            rows += [(name, source, *_score(values)) for source, values in inner.items()]
    header = ("set", "source", "documents", "tokens", "text", "perplexity", "bits per byte")
    note = "Perplexity depends on the tokeniser; bits per byte does not, and is the figure to compare models by."
    pieces = [paragraph(note, class_="soft"), table("Held-out text", header, rows)]
    if data.evaluation["samples"]:
        pieces.append(element("h3", "Generated text"))
        pieces.append(paragraph("Prompts are marked; a text without one began with nothing.", class_="soft"))
        for sample in data.evaluation["samples"]:
            begun = element("mark", sample["prompt"]) if sample["prompt"] else ""
            pieces.append(excerpt(join([begun, str(sample["text"])])))
    return join(pieces)


def _score(found: Row) -> tuple[Any, ...]:
    return (
        found["documents"], found["tokens"], size(found["bytes"]), _number(found["perplexity"], 2),
        _number(found["bits_per_byte"]),
    )  # fmt: skip


def finetuning(data: ReportData) -> Html:
    """Scores beside the baselines, by class, and what was taken for what."""
    found = data.finetuning
    if not found:
        return Html("")
    result = found["result"]
    baselines = result["baselines"]
    named = {"fine-tuned": result, "bag of words": baselines["bag_of_words"], "majority": baselines["majority"]}
    compared = [(name, values["accuracy"], values["macro_f1"]) for name, values in named.items()]
    examples = result["examples"]
    said = join(
        [
            f"{len(result['classes'])} classes by ", code(result.get("label", "label")),
            f"; trained on {examples['train']:,} documents, tested on {examples['test']:,}. "
            "Majority always says the commonest class.",
        ]
    )  # fmt: skip
    rows = [(name, f"{accuracy:.4f}", f"{f1:.4f}") for name, accuracy, f1 in compared]
    pieces = [
        paragraph(said),
        element(
            "div", figure(charts.scores(compared), "Scores"), figure(charts.losses(found), "Loss of fine-tuning"),
            class_="pair",
        ),
        table("Scores on the test documents", ("", "accuracy", "macro-F1"), rows),
    ]  # fmt: skip
    classes, matrix = list(result["classes"]), result["confusion"]
    shown = sorted(range(len(classes)), key=lambda i: (-sum(matrix[i]), i))[:CLASSES_SHOWN]
    part = [[matrix[i][j] for j in shown] for i in shown]
    title = (
        "Confusion matrix" if len(shown) == len(classes) else f"Confusion matrix of the {len(shown)} largest classes"
    )
    pieces.append(figure(charts.confusion(part, [classes[i] for i in shown]), title))
    by_class = [
        (name, values["support"], f"{values['precision']:.3f}", f"{values['recall']:.3f}", f"{values['f1']:.3f}")
        for name, values in sorted(result["per_class"].items(), key=lambda pair: (-pair[1]["support"], pair[0]))
    ]
    header = ("class", "test documents", "precision", "recall", "F1")
    pieces.append(element("details", element("summary", "Scores by class"), table("Scores by class", header, by_class)))
    return join(pieces)


def release(data: ReportData) -> Html:
    """The folders others load."""
    if not data.release:
        return Html("")
    rows = [
        (
            kind, model["architecture"], model["parameters"], size(model["bytes"]), f"{model['logit_difference']:.1e}",
            code(model["folder"]),
        )
        for kind, model in sorted(data.release.items(), reverse=True)
    ]  # fmt: skip
    header = ("", "architecture", "parameters", "on disk", "largest difference of logits", "folder in the workspace")
    note = "Each folder was read again and its logits compared with those of the checkpoint before it was published."
    return join([paragraph(note, class_="soft"), table("Released models", header, rows)])


# ------------------------------------------------------------------------------------------------ the run


def lineage(data: ReportData) -> Html:
    """Which output came from which, and by what."""
    nodes = {row["stage"]: (duration(row["seconds"]), tuple(row["inputs"])) for row in data.lineage}
    rows = [
        (
            row["stage"], row["version"], code(row["folder"].rpartition("/")[2]), code(_digest(row["digest"])),
            ", ".join(row["inputs"]) or None, duration(row["seconds"]), _units(row), size(row["bytes"]),
            code(str(row["git"].get("revision", ""))[:10]) if row["git"].get("revision") else None,
        )
        for row in data.lineage
    ]  # fmt: skip
    header = ("stage", "version", "output", "content", "reads", "time", "parts of work", "disk", "git")
    note = join(
        [
            "An output lies in ", code("outputs/STAGE/OUTPUT"), " of the workspace and is named by the fingerprint of "
            "what made it. “content” is the digest of its files; whoever has the same one has the same bytes.",
        ]
    )  # fmt: skip
    software = {(name, version) for row in data.lineage for name, version in row["software"].items()}
    seen: dict[str, list[str]] = {}
    for name, version in sorted(software):
        seen.setdefault(name, []).append(version)
    versions = [(name, " and ".join(found)) for name, found in seen.items()]
    disk = sum(row["bytes"] for row in data.lineage)
    total = sum(row["seconds"] for row in data.lineage)
    foot = ("in all", "", "", "", "", duration(total), "", size(disk), "")
    return join(
        [
            graph(nodes),
            paragraph(note, class_="soft"),
            table("Outputs of the run", header, rows, foot=foot),
            element("details", element("summary", "Software"), table("Versions", ("package", "version"), versions)),
        ]
    )


def _digest(digest: str) -> str:
    return digest.partition(":")[2][:16]


def _units(row: Row) -> str | None:
    if row["units"] is None:
        return None
    return f"{row['units']:,}" + (f" ({row['units_reused']:,} reused)" if row["units_reused"] else "")


def going_on(data: ReportData, occasion: Occasion) -> Html:
    """What one may do next, as commands."""
    where = "" if occasion.workspace == DEFAULT_WORKSPACE else f" --workspace {shlex.quote(occasion.workspace)}"
    reasons = sorted(data.samples, key=lambda reason: reason == "kept")
    document = next((entry["id"] for reason in reasons for entry in data.samples[reason]), None)
    rules = [rule for rule in data.rules if rule["name"] != "contamination"]
    busiest = max(rules, key=lambda rule: int(rule["hits"]), default=None)
    run = shlex.quote(occasion.run)
    rows: list[tuple[str, Any]] = [(f"gristmill status {run}{where}", "how every stage of the run stands")]
    if document:
        rows.append((f"gristmill why {document} --run {run}{where}", "all evidence and the decision on one document"))
    if busiest is not None and busiest["hits"]:
        change = f"--set filter.rules.{busiest['name']}.enabled=false"
        rows.append((f"gristmill plan CONFIG {change}", "what would be done anew without the busiest rule"))
        rows.append((f"gristmill run CONFIG {change}", "filter and what follows, nothing before it"))
    if data.training:
        rows.append(
            (f"gristmill generate {shlex.quote('Return the ')} --run {run}{where}", "text from the trained model")
        )
        rows.append(("gristmill run CONFIG --set pretrain.training.steps=…", "a longer training, on the same tokens"))
    rows.append((f"gristmill verify {run}{where}", "digests and sums of everything on disk"))
    rows.append((f"gristmill gc{where}", "what no run needs any more is removed"))
    shown = [(code(command), meaning) for command, meaning in rows]
    return table("CONFIG is the file the run was started with", ("command", "what it does"), shown)
