"""What the report shows, read from the outputs of a run: small tables and histograms, never a corpus in memory.

Documents are scanned part by part; only counts, a few texts and a few places are kept. It knows no HTML.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from data_quality.columns import FEATURES, JUDGEMENTS, column, where_stored
from data_quality.feature_table import FEATURE_TYPES
from data_quality.tally import by, frame_of
from stages import explain
from stages.graph import ORDER
from stages.report_clusters import largest_clusters, similarities
from stages.samples import by_reason
from stages.selected import CUTTERS
from storage.outputs import Output

Row = dict[str, Any]
Check = Callable[[], None]

FEATURES_SHOWN = 12
QUARANTINED_SHOWN = 3
ITEMS_SHOWN = 25
"""Items of an evaluation set that are listed with the document that shares most with them."""
POINTS_SHOWN = 600
"""Points of a curve: what a screen can show. More steps are averaged."""


@dataclass
class Histogram:
    """Numbers of documents in bins. Counts on a logarithmic scale have a bin of their own for 0, left of all others.

    `edges[i] <= value < edges[i + 1]`; what lies outside is counted in the first or the last bin.
    """

    edges: list[float]
    logarithmic: bool
    counts: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of_lengths(cls) -> Histogram:
        """Whole numbers from 0: two bins for every doubling, one for 0."""
        edges = sorted({0.0, *(float(round(2 ** (k / 2))) for k in range(81))})
        return cls(edges, True)

    @classmethod
    def even(cls, low: float, high: float, bins: int) -> Histogram:
        """Bins of equal width."""
        return cls([low + (high - low) * i / bins for i in range(bins + 1)], False)

    def add(self, series: str, values: Any) -> None:
        """Count the values (a numpy array without nulls) of a series."""
        import numpy as np

        edges = np.asarray(self.edges)
        last = np.nextafter(edges[-1], -math.inf)
        counted, _ = np.histogram(np.clip(values, edges[0], last), edges)
        before = self.counts.setdefault(series, [0] * (len(self.edges) - 1))
        self.counts[series] = [a + b for a, b in zip(before, counted.tolist(), strict=True)]

    def trimmed(self) -> Histogram:
        """The same without empty bins at both ends; no bins at all if nothing was counted."""
        totals = [sum(column) for column in zip(*self.counts.values(), strict=True)]
        filled = [i for i, total in enumerate(totals) if total]
        if not filled:
            return Histogram([], self.logarithmic, {name: [] for name in self.counts})
        low, high = filled[0], filled[-1] + 1
        counts = {name: numbers[low:high] for name, numbers in self.counts.items()}
        return Histogram(self.edges[low : high + 1], self.logarithmic, counts)


@dataclass(frozen=True)
class Scan:
    """What one pass over features and decisions of all documents found."""

    sources: list[Row]
    """source, documents, bytes, selected, selected_bytes, one row a source."""
    languages: list[Row]
    """language (None: not identified), documents, selected; the commonest first."""
    lengths: Histogram
    """UTF-8 bytes of documents; series "selected" and "dropped"."""
    features: dict[str, Histogram]
    """Values of features that rules look at; series "documents"."""


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows. What the run left out is None or empty."""

    lineage: list[Row]
    funnel: list[Row]
    summary: Row
    scan: Scan
    files: list[Row]
    """source, files, bytes, records, written, quarantined, tombstones, one row a source."""
    quarantined: list[Row]
    normalised: dict[str, int]
    cuts: list[Row]
    judges: Row
    """documents, classifiers (name: what was measured), lists, licences (class: documents)."""
    repeats: Row | None
    rules: list[Row]
    """The rules in force, each with `condition`, `first` (documents it is the reason of), `hits` (all it would drop)
    and `alone` (those that no other rule would drop)."""
    overlaps: list[tuple[str, str, int]]
    """Pairs of rules and the documents that both would drop."""
    groups: list[Row]
    """What became of the documents of each source and language: source, language, reason, documents, bytes."""
    duplicates: Row
    contamination: Row
    samples: dict[str, list[Row]]
    tokens: Row | None
    tokenizer: Row | None
    training: Row | None
    evaluation: Row | None
    finetuning: Row | None
    release: Row | None


def gather(outputs: Mapping[str, Output], samples: int, *, check: Check = lambda: None) -> ReportData:
    """Read everything the page shows.

    Parameters
    ----------
    outputs
        Complete outputs by stage; ingest to select must be there, all others may be missing.
    samples
        Documents shown for every reason.
    check
        Called often; raises if the work must stop.
    """
    ordered = {stage: outputs[stage] for stage in ORDER if stage in outputs}
    rules = _rules(ordered["filter"])
    shown = _features_to_show(rules)
    return ReportData(
        lineage=[_facts(output) for output in ordered.values()],
        funnel=explain.funnel(ordered),
        summary=explain.summary(ordered),
        scan=_scan(ordered, shown, check),
        files=_files(ordered["ingest"]),
        quarantined=_quarantined(ordered["ingest"]),
        normalised=ordered["ingest"].read_json("about/normalised") if ordered["ingest"].has("about/normalised") else {},
        cuts=_cuts([ordered[name] for name in CUTTERS if name in ordered], check),
        repeats=_json(ordered, "repeats", "about/repeats"),
        judges=judges_of(ordered["quality"], check),
        rules=rules,
        overlaps=[(a, b, number) for a, b, number in ordered["filter"].read_json("about/tally")["pairs"]],
        groups=frame_of(ordered["select"].read_json("about/tally")["groups"]).to_dicts(),
        duplicates=_duplicates(ordered, check),
        contamination=_contamination(ordered, check),
        samples=by_reason(ordered, samples),
        tokens=_json(ordered, "tokenize", "summary/tokens"),
        tokenizer=_json(ordered, "tokenizer", "tokenizer/report"),
        training=_training(ordered.get("pretrain"), "result/training"),
        evaluation=_json(ordered, "evaluate", "result/evaluation"),
        finetuning=_training(ordered.get("finetune"), "result/finetuning"),
        release=_release(ordered.get("release")),
    )


def _json(outputs: Mapping[str, Output], stage: str, part: str) -> Row | None:
    return dict(outputs[stage].read_json(part)) if stage in outputs else None


# ------------------------------------------------------------------------------------------------ the run


def _facts(output: Output) -> Row:
    """How an output came to be, for the lineage."""
    manifest = output.manifest
    parts = output.parts()
    own = [part for part in parts if part.path.startswith(output.folder + "/")]
    return {
        "stage": output.stage,
        "version": manifest["version"],
        "folder": output.folder,
        "fingerprint": output.fingerprint,
        "digest": output.digest,
        "inputs": {name: value["fingerprint"] for name, value in manifest["inputs"].items()},
        "seconds": float(manifest["timings"].get("seconds", 0.0)),
        "units": manifest["timings"].get("units"),
        "units_reused": manifest["timings"].get("units_reused"),
        "parts": len(parts),
        "bytes": sum(part.bytes for part in own),
        "bytes_shared": sum(part.bytes for part in parts) - sum(part.bytes for part in own),
        "kept": manifest["counts"]["kept"],
        "software": manifest["software"],
        "git": manifest["git"],
        "numerics": manifest["numerics"],
    }


# ------------------------------------------------------------------------------------------------ documents


def _parts(outputs: Mapping[str, Output], check: Check) -> Iterator[str]:
    """The stems of all document parts."""
    for part in outputs["ingest"].parts("documents"):
        check()
        yield part.stem


def _rules(output: Output) -> list[Row]:
    tally, first = output.read_json("about/tally"), output.counts["dropped"]
    limit = output.manifest["parameters"].get("contamination_overlap")
    contamination = {
        "name": "contamination",
        "feature": "overlap",
        "comparison": ">=",
        "threshold": limit,
        "reason": "shares text with an evaluation set",
        "source": "",
        "expression": None,
        "condition": f"overlap >= {limit}",
    }
    table: list[Row] = [*([contamination] if limit is not None else []), *output.read_json("about/rules")]
    return [
        {
            **rule,
            "first": first.get(rule["name"], 0),
            "hits": tally["hits"].get(rule["name"], 0),
            "alone": tally["alone"].get(rule["name"], 0),
        }
        for rule in table
    ]


def _features_to_show(rules: list[Row]) -> list[str]:
    """Numeric features of the rules that hit most; what rules see in `meta` or in expressions is none of them."""
    found: list[str] = []
    for rule in sorted(rules, key=lambda rule: -int(rule["hits"])):
        known = column(rule["feature"])
        numeric = known is not None and known.type == "number" and known.kind in (FEATURES, JUDGEMENTS)
        if numeric and rule["hits"] and rule["feature"] not in found:
            found.append(rule["feature"])
    return found[:FEATURES_SHOWN]


def _empty_histogram(outputs: Mapping[str, Output], feature: str, check: Check) -> Histogram:
    import polars as pl

    if feature.endswith(("_share", "_ratio")) or feature in ("language_score", *_classifiers(outputs["quality"])):
        return Histogram.even(0.0, 1.0, 40)
    if feature.endswith("mean_word_length"):
        return Histogram.even(0.0, 20.0, 40)
    if feature.endswith("stop_words"):
        return Histogram.even(-0.5, 32.5, 33)
    if feature.endswith("_hits") or pa.types.is_integer(FEATURE_TYPES.get(feature, pa.null())):
        return Histogram.of_lengths()
    low, high = math.inf, -math.inf
    for stem in _parts(outputs, check):
        stored = _stored(outputs["quality"], stem, [feature])[feature]
        values = pl.Series(pl.from_arrow(stored)).fill_nan(None).drop_nulls()
        if len(values):
            low, high = min(low, float(values.min())), max(high, float(values.max()))  # type: ignore[arg-type]
    return Histogram.even(low, high, 40) if low < high else Histogram.even(min(low, 0.0), max(high, 1.0), 40)


def _stored(quality: Output, stem: str, names: list[str]) -> dict[str, pa.ChunkedArray]:
    """Columns of the quality stage for one part, wherever they lie."""
    found: dict[str, pa.ChunkedArray] = {}
    for kind, columns in where_stored(names).items():
        table = quality.read(f"{kind}/{stem}", columns)
        found |= {name: table.column(name) for name in columns}
    return found


def _classifiers(quality: Output) -> list[str]:
    return [part.stem for part in quality.parts("models")]


def judges_of(quality: Output, check: Check = lambda: None) -> Row:
    """What was measured of each classifier, and how many documents each list, scorer and licence class has."""
    import pyarrow.compute as pc

    counted: dict[str, list[int]] = {}
    licences: dict[str, int] = {}
    documents = 0
    for part in quality.parts("judgements"):
        check()
        table = quality.read(part)
        documents += table.num_rows
        for name in table.column_names:
            if name.endswith("_hits"):
                sums = counted.setdefault(name, [0, 0])
                sums[0] += pc.sum(pc.greater(table.column(name), 0)).as_py() or 0
                sums[1] += pc.sum(table.column(name)).as_py() or 0
        if "licence_class" in table.column_names:
            for row in pc.value_counts(table.column("licence_class")).to_pylist():
                licences[row["values"]] = licences.get(row["values"], 0) + row["counts"]
            licences["opted out"] = licences.get("opted out", 0) + (pc.sum(table.column("ai_opt_out")).as_py() or 0)
    entries = {part.stem: part.rows for part in quality.parts("lists")}
    return {
        "documents": documents,
        "classifiers": {
            part.stem: dict(quality.read_json(f"model_reports/{part.stem}"))
            if quality.has(f"model_reports/{part.stem}")
            else {}
            for part in quality.parts("models")
        },
        "lists": [
            {
                "name": name,
                "entries": number,
                "documents": counted[f"{name}_hits"][0],
                "hits": counted[f"{name}_hits"][1],
            }
            for name, number in entries.items()
        ],
        "licences": dict(sorted(licences.items(), key=lambda item: (-item[1], item[0]))),
    }


def _scan(outputs: Mapping[str, Output], features: list[str], check: Check) -> Scan:
    import polars as pl

    lengths = Histogram.of_lengths()
    histograms = {feature: _empty_histogram(outputs, feature, check) for feature in features}
    for stem in _parts(outputs, check):
        measured = _stored(outputs["quality"], stem, sorted({"bytes", *features}))
        decided = outputs["select"].read(f"decisions/{stem}", ["dropped_by"])
        frame = pl.DataFrame({name: pl.from_arrow(found) for name, found in measured.items()})
        frame = frame.with_columns(selected=pl.Series(pl.from_arrow(decided.column("dropped_by"))).is_null())
        for series, rows in (("selected", pl.col("selected")), ("dropped", ~pl.col("selected"))):
            lengths.add(series, frame.filter(rows)["bytes"].to_numpy())
        for feature, histogram in histograms.items():
            histogram.add("documents", frame[feature].cast(pl.Float64).fill_nan(None).drop_nulls().to_numpy())
    tally = outputs["select"].read_json("about/tally")
    return Scan(
        sources=_groups(tally, "source"),
        languages=_groups(tally, "language"),
        lengths=lengths.trimmed(),
        features={name: histogram.trimmed() for name, histogram in histograms.items()},
    )


def _groups(tally: Row, what: str) -> list[Row]:
    """What was read and selected by source or language, the largest first."""
    documents, sizes = by(tally, what), by(tally, what, "bytes")
    return [
        {
            what: name,
            "documents": read,
            "bytes": sizes[name][0],
            "selected": selected,
            "selected_bytes": sizes[name][1],
        }
        for name, (read, selected) in documents.items()
    ]


def _sums(frames: list[Any], key: str) -> list[Row]:
    """The groups of all parts as one table, the largest first."""
    import polars as pl

    if not frames:
        return []
    total = pl.concat(frames).group_by(key).agg(pl.all().sum())
    return list(total.sort(["documents", key], descending=[True, False], nulls_last=True).to_dicts())


def _files(ingest: Output) -> list[Row]:
    import polars as pl

    if not ingest.has("about/ledger"):
        return []
    ledger = pl.from_arrow(ingest.read("about/ledger"))
    assert isinstance(ledger, pl.DataFrame)
    # Rows of files that are gone have the counts of an earlier generation.
    there = pl.col("status").is_in(["read", "adopted"])
    return list(
        ledger.group_by("source", maintain_order=True)
        .agg(
            there.sum().cast(pl.Int64).alias("files"),
            pl.col("bytes", "records", "written", "quarantined").filter(there).sum(),
            (~there).sum().cast(pl.Int64).alias("tombstones"),
        )
        .to_dicts()
    )


def _quarantined(ingest: Output) -> list[Row]:
    """A few records of every error."""
    shown: dict[str, int] = {}
    found: list[Row] = []
    for part in ingest.parts("quarantine"):
        for row in ingest.read(part).slice(0, 1000).to_pylist():
            if shown.get(row["error"], 0) < QUARANTINED_SHOWN:
                shown[row["error"]] = shown.get(row["error"], 0) + 1
                found.append(row)
    return sorted(found, key=lambda row: (row["error"], row["source"], row["uri"], row["record"]))


def _cuts(outputs: Sequence[Output], check: Check) -> list[Row]:
    """Passages marked to be cut: reason, documents, passages, bytes."""
    import polars as pl

    frames = []
    for output, part in ((cutter, part) for cutter in outputs for part in cutter.parts("cuts")):
        check()
        spans = pl.DataFrame({"span": pl.Series(pl.from_arrow(output.read(part, ["spans"]).column("spans")))})
        one = spans.with_row_index("row").explode("span").drop_nulls().unnest("span")
        if one.height:
            frames.append(
                one.group_by("reason").agg(
                    documents=pl.col("row").n_unique().cast(pl.Int64),
                    passages=pl.len().cast(pl.Int64),
                    bytes=(pl.col("end") - pl.col("start")).sum(),
                )
            )
    return _sums(frames, "reason")


def _duplicates(outputs: Mapping[str, Output], check: Check) -> Row:
    output = outputs["deduplicate"]
    found: Row = {"parameters": output.manifest["parameters"], "statistics": {}}
    if output.has("about/duplicates"):
        found["statistics"] = output.read_json("about/duplicates")
    found["similarities"] = similarities(output, check)
    found["clusters"] = largest_clusters(outputs, check)
    return found


def _contamination(outputs: Mapping[str, Output], check: Check) -> Row:
    """Evaluation sets, how many of their items were found, and where the items are that share most with a document."""
    import polars as pl

    from data_quality.contamination import unsearched_items

    output = outputs["decontaminate"]
    limit = outputs["filter"].manifest["parameters"].get("contamination_overlap")
    read = output.read_json("about/sets")
    if not read:
        return {"limit": limit, "sets": [], "counts": {}}
    counts, unsearched = unsearched_items(output.store.read_bytes(output.part("index/ngrams").path))
    hit: dict[str, dict[str, set[bytes]]] = {name: {} for name in read}
    dropped: dict[str, set[bytes]] = {name: set() for name in read}
    best: dict[tuple[str, str], Row] = {}
    for stem in _parts(outputs, check):
        part = output.part(f"overlaps/{stem}")
        if not part.rows:
            continue
        overlaps = pl.from_arrow(output.read(part))
        assert isinstance(overlaps, pl.DataFrame)
        for (name, item), rows in overlaps.group_by("eval_set", "eval_item"):
            hit[str(name)].setdefault(str(item), set()).update(rows["id"])
            over = rows.filter(pl.col("overlap") >= (math.inf if limit is None else limit))
            dropped[str(name)].update(over["id"])
        chosen = overlaps.sort(["overlap", "id"], descending=[True, False])
        first = chosen.unique(["eval_set", "eval_item"], keep="first", maintain_order=True)
        for row in first.to_dicts():
            row["stem"] = stem
            named = (row["eval_set"], row["eval_item"])
            best[named] = min(best.get(named, row), row, key=lambda one: (-one["overlap"], one["id"]))
    sets = []
    for name in sorted(read):
        found = sorted((row for row in best.values() if row["eval_set"] == name), key=_by_overlap)[:ITEMS_SHOWN]
        shown = [
            {**row, "documents": len(hit[name][row["eval_item"]])}
            for one in found
            for row in _with_places(outputs["ingest"], one.pop("stem"), [one])
        ]
        sets.append(
            {
                "eval_set": name,
                "items": read[name]["kept"],
                "unread": read[name]["quarantined"],
                "unsearched": unsearched.get(name, 0),
                "items_hit": len(hit[name]),
                "documents": len(set().union(*hit[name].values())),
                "dropped": len(dropped[name]),
                "found": shown,
            }
        )
    return {"limit": limit, "sets": sets, "counts": counts}


def _by_overlap(row: Row) -> tuple[float, str]:
    return -row["overlap"], row["eval_item"]


def _with_places(ingest: Output, stem: str, rows: list[Row]) -> list[Row]:
    import polars as pl

    places = pl.from_arrow(ingest.read(f"documents/{stem}", ["id", "source", "uri", "record"]))
    assert isinstance(places, pl.DataFrame)
    wanted = places.filter(pl.col("id").is_in([row["id"] for row in rows])).to_dicts()
    by_id = {place["id"]: place for place in reversed(wanted)}
    return [{**row, **by_id.get(row["id"], {}), "id": row["id"].hex()} for row in rows]


# ------------------------------------------------------------------------------------------------ models


def _training(output: Output | None, result: str) -> Row | None:
    """A training's result, and its curves short enough to draw."""
    if output is None:
        return None
    lines = _lines(output, "about/metrics") or _lines(output, "metrics/steps")
    steps = [line for line in lines if "loss" in line]
    return {
        "result": output.read_json(result),
        "parameters": output.manifest["parameters"],
        "numerics": output.manifest["numerics"],
        "seconds": sum(line.get("seconds", 0.0) for line in steps),
        "steps": len(steps),
        "skipped": sum(1 for line in steps if line.get("skipped")),
        "curves": thinned(steps, ("loss", "learning_rate", "gradient_norm", "tokens_per_second")),
        "validation": [
            {"step": line["step"], "loss": line["validation_loss"]} for line in lines if "validation_loss" in line
        ],
    }


def _lines(output: Output, name: str) -> list[Row]:
    if not output.has(name):
        return []
    return [json.loads(line) for line in output.store.read_bytes(output.part(name).path).splitlines() if line.strip()]


def thinned(lines: list[Row], names: tuple[str, ...], points: int = POINTS_SHOWN) -> Row:
    """Curves over steps with at most `points` points: means of as many neighbours as that takes.

    Returns
    -------
    dict
        `step` (the last one of each mean), every name (None where nothing was measured), and `every`: steps a point.
    """
    every = max(1, -(-len(lines) // points))
    groups = [lines[i : i + every] for i in range(0, len(lines), every)]
    found: Row = {"every": every, "step": [group[-1]["step"] for group in groups]}
    for name in names:
        values = [[line[name] for line in group if line.get(name) is not None] for group in groups]
        found[name] = [sum(some) / len(some) if some else None for some in values]
    return found


def _release(output: Output | None) -> Row | None:
    if output is None:
        return None
    models = output.read_json("result/release")
    for kind, model in models.items():
        parts = output.parts(kind)
        model["folder"] = parts[0].path.rpartition("/")[0] if parts else ""
        model["bytes"] = sum(part.bytes for part in parts)
    return dict(models)
