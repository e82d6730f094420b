"""Questions people ask of a finished run: why was this document kept or dropped, what did the run come to.

Answers are plain dictionaries, found through the id index, the ledger and the manifests, never by scanning the corpus.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_quality.presets import Rule
from stages.base import StageError
from stages.difference import word_difference
from stages.graph import ORDER
from stages.selected import CUTTERS
from storage.filesystem import Store
from storage.outputs import Output, output_folder

_ID = re.compile(r"[0-9a-fA-F]{32}")
DECISIONS = ("filter", "deduplicate", "select")
EXCERPT = 600
COPIES_EXPLAINED = 20
"""Documents of one text that `why` tells about, the one that stays first: boilerplate may stand in a million places."""


def outputs_of(store: Store, record: Mapping[str, Any]) -> dict[str, Output]:
    """The complete outputs a run record names, by stage, in the order of the graph, that belong together.

    Of a stage that a gate stopped, it is the output that was stopped. After a run that ended early (`--until`, a gate,
    a failure) the record still names later outputs of the attempt before. Those were made from other inputs than the
    ones named now, and are left out.
    """
    found: dict[str, Output] = {}
    for stage in ORDER:
        entry = record.get("stages", {}).get(stage, {})
        name = entry.get("stopped" if entry.get("status") == "stopped" else "output")
        if not name:
            continue
        try:
            output = Output.open(store, output_folder(stage, str(name)))
        except FileNotFoundError:
            continue
        inputs = output.manifest["inputs"]
        if all(other in found and found[other].digest == entry["digest"] for other, entry in inputs.items()):
            found[stage] = output
    return found


def funnel(outputs: Mapping[str, Output]) -> list[dict[str, Any]]:
    """What every stage read, kept, dropped by reason and quarantined by error, from the manifests."""
    return [{"stage": stage, **output.counts} for stage, output in outputs.items()]


def summary(outputs: Mapping[str, Output]) -> dict[str, Any]:
    """What a run came to: funnel, tokens, losses, scores beside baselines, a sample of text, the report's path."""
    found: dict[str, Any] = {"funnel": funnel(outputs)}
    if "tokenize" in outputs:
        found["tokens"] = outputs["tokenize"].read_json("summary/tokens")["sources"]
    if "pretrain" in outputs:
        found["losses"] = outputs["pretrain"].read_json("result/training")["losses"]
    if "evaluate" in outputs:
        result = outputs["evaluate"].read_json("result/evaluation")
        found["evaluation"] = {
            name: {key: values[key] for key in ("documents", "perplexity", "bits_per_byte")}
            for name, values in result["sets"].items()
        }
        found["samples"] = result["samples"]
    if "finetune" in outputs:
        result = outputs["finetune"].read_json("result/finetuning")
        found["finetuning"] = {
            "label": result["label"],
            "classes": len(result["classes"]),
            "test_documents": result["examples"]["test"],
            "accuracy": result["accuracy"],
            "macro_f1": result["macro_f1"],
            "baselines": {
                name: {"accuracy": scores["accuracy"], "macro_f1": scores["macro_f1"]}
                for name, scores in result["baselines"].items()
            },
        }
    for stage, kind in (("release", "model"), ("report", "report")):
        if stage in outputs:
            part = next((p for p in outputs[stage].parts() if p.name.endswith(f"/{kind}")), None)
            if part is not None:
                path = part.path.rpartition("/")[0] if stage == "release" else part.path
                found[stage] = location(outputs[stage].store, path)
    return found


def location(store: Store, path: str) -> str:
    """Where people find a file of the store."""
    return str(store.local(path)) if store.is_local else f"{store.url}/{path}"


# ------------------------------------------------------------------------------------------------ one document


def why(store: Store, record: Mapping[str, Any], query: str) -> dict[str, Any]:
    """Everything known about one document, or one record that never became one.

    Parameters
    ----------
    query
        An id (32 hex digits), or `URI#RECORD` (a record of an input file, from 0).

    Returns
    -------
    dict
        `query`; `documents`: a list, for one text may stand in several places, the one that stays first, at most
        COPIES_EXPLAINED; and `more`, how many others there are. Each has `status` ("kept", "dropped", "quarantined",
        "not decided yet"), `reason`, the document's columns, an excerpt, and the evidence by stage.

    Raises
    ------
    StageError
        If the run has no documents yet, or nothing fits the query; the message says what was looked at.
    """
    outputs = outputs_of(store, record)
    if "ingest" not in outputs:
        raise StageError("this run has no finished ingest yet: there are no documents to ask about")
    if _ID.fullmatch(query):
        places = find_id(outputs["ingest"], bytes.fromhex(query))
        if not places:
            raise StageError(f"no document of this run has the id {query.lower()}")
        stays = _staying(outputs, places)
        places.sort(key=lambda found: found != stays)
        keepers = {bytes.fromhex(query): stays}
        told = [_explain(outputs, stem, row, keepers) for stem, row in places[:COPIES_EXPLAINED]]
        return {"query": query, "documents": told, "more": len(places) - len(told)}
    uri, mark, number = query.rpartition("#")
    if not mark or not number.isdigit():
        raise StageError(f"{query!r} is neither an id (32 hex digits) nor URI#RECORD, e.g. docs/a.jsonl.gz#17")
    return {"query": query, "documents": _find_record(outputs, uri, int(number)), "more": 0}


def find_id(ingest: Output, wanted: bytes) -> list[tuple[str, int]]:
    """Parts (stem) and rows of an id: a binary search over the row groups of the sorted index."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from storage.arrow_files import open_parquet

    threads = ingest.store.is_local
    with open_parquet(ingest.store, ingest.part("index/ids").path) as file:
        low, high = 0, file.num_row_groups
        while low < high:  # the first row group whose last id is not smaller
            middle = (low + high) // 2
            if file.read_row_group(middle, ["id"], use_threads=threads).column("id")[-1].as_py() < wanted:
                low = middle + 1
            else:
                high = middle
        found: list[tuple[str, int]] = []
        for group in range(low, file.num_row_groups):
            table = file.read_row_group(group, use_threads=threads)
            rows = table.filter(pc.equal(table.column("id"), pa.scalar(wanted, table.schema.field("id").type)))
            found += [(r["part"].partition("/")[2], r["row"]) for r in rows.to_pylist()]
            if table.column("id")[-1].as_py() > wanted:
                break
    return found


def _staying(outputs: Mapping[str, Output], places: Sequence[tuple[str, int]]) -> tuple[str, int] | None:
    """Of the places of one text the one that has no keeper: it stays, or stands for the others."""
    if "deduplicate" not in outputs:
        return None
    rows: dict[str, list[int]] = {}
    for stem, row in places:
        rows.setdefault(stem, []).append(row)
    for stem, of_stem in rows.items():
        decided = outputs["deduplicate"].read(f"decisions/{stem}", ["keeper", "dropped_by"]).take(of_stem)
        for row, decision in zip(of_stem, decided.to_pylist(), strict=True):
            if decision["keeper"] is None and decision["dropped_by"] != "filter":
                return stem, row
    return None


def keeper_place(outputs: Mapping[str, Output], keeper: bytes) -> tuple[str, int] | None:
    """Part (stem) and row of the document that stays for others; None if it is no longer among the documents."""
    return _staying(outputs, find_id(outputs["ingest"], keeper))


def _find_record(outputs: Mapping[str, Output], uri: str, number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for kind, stem, row in find_record(outputs["ingest"], uri, number):
        if kind == "documents":
            found.append(_explain(outputs, stem, row, {}))
        else:
            entry = _row(outputs["ingest"], f"quarantine/{stem}", row)
            reason = f"{entry.pop('error')}: {entry.pop('message')}"
            found.append({"status": "quarantined", "stage": "ingest", "reason": reason, **entry})
    return found


def find_record(ingest: Output, uri: str, number: int) -> list[tuple[str, str, int]]:
    """Where a record of an input file lies: kind ("documents" or "quarantine"), stem of the part, row.

    Raises
    ------
    StageError
        If there is no such file or record, or the record is by its kind no document; it says what there is.
    """
    import difflib

    import pyarrow as pa
    import pyarrow.compute as pc

    uri = stored_uri(ingest, uri)
    ledger = ingest.read("about/ledger")
    columns = (ledger.column(name).to_pylist() for name in ("source", "uri", "unit", "status"))
    names = {(source, name): (unit, status) for source, name, unit, status in zip(*columns, strict=True)}
    files = [(source, name) for source, name in names if uri == name or uri.startswith(f"{name}!/")]
    if not files:
        source, _, bare = uri.partition(":")
        files = [(of, name) for of, name in names if of == source and (bare == name or bare.startswith(f"{name}!/"))]
        uri = bare if files else uri
    if not files:
        near = difflib.get_close_matches(uri, [name for _, name in names], 1, 0.5)
        hint = f"; the nearest is {near[0]!r}" if near else ""
        raise StageError(f"no input file of this run is called {uri!r} (paths are relative to their source){hint}")
    found = []
    member = ""  # one of an archive
    for source, name in files:
        unit, status = names[source, name]
        for part in ingest.parts():
            if part.kind not in ("documents", "quarantine") or not is_of_unit(part.stem, unit):
                continue
            if status == "adopted":  # its documents name the files they were first read from
                found += [(part.kind, part.stem, number)] if number < part.rows else []
                continue
            table = ingest.read(part, ["source", "uri", "record"])
            if not member and uri == name:
                inside = table.filter(pc.starts_with(table.column("uri"), f"{name}!/"))
                member = inside.column("uri")[0].as_py() if inside.num_rows else ""
            hit = pc.and_(pc.equal(table.column("uri"), uri), pc.equal(table.column("record"), pa.scalar(number)))
            hit = pc.and_(hit, pc.equal(table.column("source"), source))
            found += [(part.kind, part.stem, row) for row in pc.indices_nonzero(hit).to_pylist()]
    if not found:
        if member:
            raise StageError(f"{uri} is an archive; its records are named by their member, e.g. {member}#0")
        rows = {(row["source"], row["uri"]): row for row in ledger.to_pylist()}
        told = ", ".join(
            f"{source}:{name} has {rows[source, name]['records']:,} records, {rows[source, name]['skipped']:,} of them "
            f"no documents {rows[source, name]['reasons']}"
            if rows[source, name]["skipped"]
            else f"{source}:{name} has {rows[source, name]['records']:,} records"
            for source, name in files
        )
        skipped = any(rows[of]["skipped"] and number < rows[of]["records"] for of in files)
        what = "this record was skipped, or is not there" if skipped else "there is no such record"
        raise StageError(f"{uri}#{number}: {what}; {told}, counted from 0")
    return found


def stored_uri(ingest: Output, uri: str) -> str:
    """A uri as the output has it: without the personal data in names, where they are redacted."""
    kinds = ingest.manifest["parameters"]["redact"]["kinds"]
    if not kinds:
        return uri
    from corpus.config import RedactConfig
    from corpus.redaction import Redactor

    redactor = Redactor(RedactConfig(kinds=tuple(kinds)))
    source, colon, bare = uri.partition(":")
    if colon and re.fullmatch(r"[a-z0-9-]+", source):
        return f"{source}:{'!/'.join(map(redactor.name, bare.split('!/')))}"
    return "!/".join(map(redactor.name, uri.split("!/")))


def is_of_unit(stem: str, unit: str) -> bool:
    """Whether a part belongs to a unit of ingest, or to one of those a large file was divided into."""
    return bool(unit) and stem.startswith(f"{unit}-")


def _explain(
    outputs: Mapping[str, Output], stem: str, row: int, keepers: dict[bytes, tuple[str, int] | None]
) -> dict[str, Any]:
    """The answer on one document; `keepers` says where those are that were looked up already, and learns of more."""
    document = _row(outputs["ingest"], f"documents/{stem}", row)
    text = document.pop("text")
    identity = document["id"]
    answer: dict[str, Any] = {
        "status": "not decided yet",
        "stage": None,
        "reason": None,
        **document,
        "id": identity.hex(),
        "part": f"documents/{stem}",
        "row": row,
        "bytes": len(text.encode()),
        "excerpt": text[:EXCERPT],
        "evidence": {},
    }
    evidence = answer["evidence"]
    if "quality" in outputs:
        features = _row(outputs["quality"], f"features/{stem}", row)
        evidence["features"] = {name: value for name, value in features.items() if name != "id"}
        if outputs["quality"].has(f"judgements/{stem}"):
            judged = _row(outputs["quality"], f"judgements/{stem}", row)
            evidence["judgements"] = {name: value for name, value in judged.items() if name != "id"}
    if "sketch" in outputs:
        evidence["shingles"] = _row(outputs["sketch"], f"signatures/{stem}", row)["shingles"]
    if "decontaminate" in outputs:
        overlaps = outputs["decontaminate"].read(f"overlaps/{stem}").to_pylist()
        evidence["overlaps"] = [
            {k: v for k, v in overlap.items() if k != "id"} for overlap in overlaps if overlap["id"] == identity
        ]
    cutters = [name for name in CUTTERS if name in outputs and outputs[name].has(f"cuts/{stem}")]
    if cutters:
        evidence["cuts"] = _cuts([_row(outputs[name], f"cuts/{stem}", row)["spans"] for name in cutters], text)
    decisions: dict[str, Any] = {}
    for stage in DECISIONS:
        if stage not in outputs:
            break
        decision = _row(outputs[stage], f"decisions/{stem}", row)
        decision = {k: v.hex() if isinstance(v, bytes) else v for k, v in decision.items() if k != "id"}
        decisions[stage] = {k: v for k, v in decision.items() if v not in (None, [])}
        if decision["dropped_by"] is not None:
            answer.update(status="dropped", stage=stage, reason=decision["dropped_by"])
            break
        answer.update(status="kept", stage=stage)
    evidence["decisions"] = decisions
    if "filter" in decisions:
        known = {**document, **evidence.get("features", {}), **evidence.get("judgements", {})}
        evidence["rules"] = _rules(outputs["filter"], decisions["filter"].get("hits", []), known)
    if "deduplicate" in decisions and outputs["deduplicate"].has(f"neighbours/{stem}"):
        neighbours = _row(outputs["deduplicate"], f"neighbours/{stem}", row)
        shown = ("cluster_size", "containment", "container", "capped")
        evidence["neighbours"] = {k: v.hex() if isinstance(v := neighbours[k], bytes) else v for k in shown}
        if neighbours["cluster_size"] and (grown := _grown(outputs["deduplicate"], identity)):
            evidence["neighbours"]["added_later"] = grown
    keeper = decisions.get("deduplicate", {}).get("keeper")
    if keeper:
        wanted = bytes.fromhex(keeper)
        if wanted not in keepers:
            keepers[wanted] = keeper_place(outputs, wanted)
        found = keepers[wanted]
        if found is not None:
            evidence["keeper"] = place(outputs["ingest"], *found)
            kept_text = _row(outputs["ingest"], f"documents/{found[0]}", found[1])["text"]
            if kept_text != text:
                evidence["difference"] = [list(passage) for passage in word_difference(kept_text, text)]
    if answer["status"] == "kept" and "tokenize" in outputs:
        evidence["tokens"] = _tokens(outputs["tokenize"], stem, identity)
        if "pretrain" in outputs:
            from stages.pretrain import seen_in_training

            times = seen_in_training(outputs, stem, identity.hex())
            evidence["training"] = {"shown": len(times), "times": times}
    return answer


def _grown(deduplicate: Output, identity: bytes) -> int:
    """How many documents of later generations were removed for a kept one."""
    import pyarrow.compute as pc

    tables = (deduplicate.read(part) for part in deduplicate.parts("growth"))
    return sum(
        pc.sum(some.filter(pc.equal(some.column("id"), identity)).column("added")).as_py() or 0 for some in tables
    )


def _cuts(lists: Sequence[Sequence[Mapping[str, Any]]], text: str) -> list[dict[str, Any]]:
    """The passages that are cut, in the order of the text, each with what it says."""
    data = text.encode()
    spans = sorted((span for spans in lists for span in spans), key=lambda span: (span["start"], span["end"]))
    return [{**span, "text": data[span["start"] : span["end"]].decode()[:EXCERPT]} for span in spans]


def _row(output: Output, name: str, row: int) -> dict[str, Any]:
    return dict(output.read(name).slice(row, 1).to_pylist()[0])


def place(ingest: Output, stem: str, row: int) -> dict[str, Any]:
    """Where a document comes from, and its beginning."""
    found = _row(ingest, f"documents/{stem}", row)
    return {
        "source": found["source"],
        "uri": found["uri"],
        "record": found["record"],
        "excerpt": found["text"][:EXCERPT],
    }


def _rules(output: Output, hits: list[str], known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rules that hit: what was measured, what drops, why and whose idea it is."""
    from data_quality.rules import columns_of

    found = []
    for rule in rules_of(output):
        if rule.name in hits:
            measured = {name: looked_up(known, name) for name in columns_of([rule])}
            found.append(
                {
                    "rule": rule.name,
                    "measured": measured[rule.feature] if [*measured] == [rule.feature] else measured,
                    "drops_if": rule.condition,
                    "reason": rule.reason,
                    "source": rule.source,
                }
            )
    return found


def rules_of(output: Output) -> list[Rule]:
    """The rules in force of a filter's output."""
    found = []
    for row in output.read_json("about/rules"):
        row["threshold"] = tuple(row["threshold"]) if isinstance(row["threshold"], list) else row["threshold"]
        found.append(Rule(**{name: row[name] for name in Rule.__dataclass_fields__}))
    return found


def looked_up(known: Mapping[str, Any], name: str) -> Any:
    """What a rule sees of a document under a name: a feature, a column, or a field of `meta`."""
    if not name.startswith("meta."):
        return known.get(name)
    value = json.loads(known["meta"]) if known.get("meta") else None
    for step in name.split(".")[1:]:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _tokens(output: Output, stem: str, identity: bytes) -> list[dict[str, Any]]:
    """Where the document's tokens stand: shard, row, how many."""
    import pyarrow.compute as pc

    kinds = ("train-arrow", "validation-arrow")
    if not any(part.kind in kinds for part in output.parts()):
        kinds = ("train-parquet", "validation-parquet")
    found = []
    for part in output.parts():
        if part.kind in kinds and part.stem.rpartition("-")[0] == stem:
            table = read_shard(output, part)
            for row in pc.indices_nonzero(pc.equal(table.column("id"), identity)).to_pylist():
                found.append({"shard": part.path, "row": row, "tokens": len(table.column("tokens")[row])})
    return found


def read_shard(output: Output, part: Any) -> Any:
    from storage.arrow_files import read_ipc

    return read_ipc(output.local_file(part)) if part.path.endswith(".arrow") else output.read(part)
