"""Real documents with the passages that made a rule drop them: for `gristmill samples` and `gristmill what-if`.

Documents are chosen by smallest id; ids are hashes of the texts, so the choice is fair and always the same.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data_quality import fineweb2
from data_quality.presets import Rule
from stages import explain
from stages.base import SettingError, StageError
from stages.duplicate_decisions import REASONS
from storage.outputs import Output

if TYPE_CHECKING:
    import polars as pl

Found = dict[str, Any]
KEPT = "kept"
MARKED_CHARACTERS = 200_000
"""Characters from the start of a document in which passages are looked for."""
AROUND = 120
"""Characters shown before and after a passage."""
PASSAGES = 4
"""Passages shown of a document beside its beginning."""
BEGINNING = 480


def samples(
    outputs: Mapping[str, Output],
    reason: str,
    number: int,
    *,
    source: str | None = None,
    language: str | None = None,
) -> list[Found]:
    """Documents that a reason dropped, or that were kept by all decisions there are.

    Parameters
    ----------
    reason
        A rule, "contamination", "exact-duplicate", "near-duplicate", a cap of select; or "kept".
    source, language
        Only documents of this source, of this language.

    Returns
    -------
    list
        One dictionary a document; see `described`.

    Raises
    ------
    StageError
        If the run has no decisions yet, or nothing was dropped by this reason: it says what there is.
    SettingError
        If there is no such reason.
    """
    if not any(stage in outputs for stage in explain.DECISIONS):
        raise StageError("this run has no finished filter yet: nothing is kept or dropped")
    chosen, reasons, others = _choose(outputs, reason, number, {"source": source, "language": language})
    if not chosen.height:
        if reason not in reasons:
            known = {KEPT, *reasons, *(rule.name for rule in _rules(outputs).values())}
            ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
            said = ", ".join(f"{name} {count:,}" for name, count in ranked)
            missing = "no document was kept" if reason == KEPT else f"nothing was dropped by {reason!r}"
            if reason not in known:
                missing = f"there is no rule or reason {reason!r}{_near(reason, known)}"
                raise SettingError(f"{missing}\n  documents by reason: {said}")
            raise StageError(f"{missing}\n  documents by reason: {said}")
        asked = {"source": source, "language": language}
        wanted = " and ".join(f"{name} {value!r}" for name, value in asked.items() if value)
        raise StageError(f"no document with the reason {reason!r} has {wanted}; there are: {', '.join(others)}")
    return described(outputs, chosen, [*_rules(outputs).values()])


def by_reason(outputs: Mapping[str, Output], number: int) -> dict[str, list[Found]]:
    """A few real documents for "kept" and for every reason there is, each as `described`.

    Reads the decisions of all parts and the text of the chosen rows only. Empty if nothing is decided yet.
    """
    import polars as pl

    frames = [_first(frame, number, "reason") for frame in _reasons(outputs)] if number else []
    if not frames:
        return {}
    found: dict[str, list[Found]] = {}
    for entry in described(outputs, _first(pl.concat(frames), number, "reason"), [*_rules(outputs).values()]):
        found.setdefault(str(entry["reason"]), []).append(entry)
    return {reason: found[reason] for reason in sorted(found)}


def described(outputs: Mapping[str, Output], chosen: pl.DataFrame, table: Sequence[Rule]) -> list[Found]:
    """What there is to see of chosen documents, in the order of their ids.

    Parameters
    ----------
    chosen
        `part`, `row`, `reason` of each document; further columns are passed on.

    Returns
    -------
    list
        id, source, uri, record, language, characters, excerpt, reason, `measured` (condition of the rule and the values
        it saw), `keeper` (of a duplicate: the document that stays, and how similar it is) and `passages`: characters
        before it, text, marks as ranges inside that text.
    """
    rules = {rule.name: rule for rule in table}
    found: list[Found] = []
    for (stem,), rows in chosen.sort("part", "row").group_by("part", maintain_order=True):
        at = rows["row"].to_numpy()
        documents = outputs["ingest"].read(f"documents/{stem}").take(at).to_pylist()
        features = outputs["quality"].read(f"features/{stem}").take(at).to_pylist()
        if outputs["quality"].has(f"judgements/{stem}"):
            judged = outputs["quality"].read(f"judgements/{stem}").take(at).to_pylist()
            features = [{**one, **other} for one, other in zip(features, judged, strict=True)]
        for row, document, measured in zip(rows.to_dicts(), documents, features, strict=True):
            known = {**measured, **document}
            rule = rules.get(row["reason"])
            spans = _spans(outputs, str(stem), known, row["reason"], rule)
            found.append(
                {
                    **{name: value for name, value in row.items() if name not in ("part", "row", "id")},
                    "id": document["id"].hex(),
                    **{name: document[name] for name in ("source", "uri", "record")},
                    "language": measured.get("language"),
                    "characters": len(document["text"]),
                    "excerpt": document["text"][: explain.EXCERPT],
                    "measured": _measured(rule, known),
                    "keeper": _keeper(outputs, str(stem), row["row"]) if row["reason"] in REASONS.values() else None,
                    "passages": passages(document["text"], spans),
                }
            )
    return sorted(found, key=lambda entry: str(entry["id"]))


def passages(text: str, spans: Sequence[tuple[int, int]]) -> list[Found]:
    """The beginning of a text and what stands around its first marked passages; `marks` count inside each `text`."""
    windows = [(0, min(BEGINNING, len(text)))]
    for start, end in spans[: 50 * PASSAGES]:
        low, high = max(0, start - AROUND), min(len(text), min(end, start + 2 * BEGINNING) + AROUND)
        if low <= windows[-1][1]:
            if windows[-1][1] - windows[-1][0] < 3 * BEGINNING:
                windows[-1] = (windows[-1][0], max(high, windows[-1][1]))
        elif len(windows) <= PASSAGES:
            windows.append((low, high))
    return [
        {
            "start": low,
            "text": text[low:high],
            "marks": [(max(a, low) - low, min(b, high) - low) for a, b in spans if a < high and b > low],
        }
        for low, high in windows
    ]


# ------------------------------------------------------------------------------------------------ choosing


def _choose(
    outputs: Mapping[str, Output], reason: str, number: int, wanted: Mapping[str, str | None]
) -> tuple[pl.DataFrame, dict[str, int], list[str]]:
    """The chosen documents, how many there are of every reason, and what the wanted columns hold for this reason."""
    import polars as pl

    frames: list[pl.DataFrame] = []
    counts: dict[str, int] = {}
    others: set[str] = set()
    for frame in _reasons(outputs):
        for name, count in frame["reason"].value_counts().iter_rows():
            counts[name] = counts.get(name, 0) + count
        frame = frame.filter(pl.col("reason") == reason)
        for name, value in wanted.items():
            if value is None or not frame.height:
                continue
            stored = ("ingest", "documents") if name == "source" else ("quality", "features")
            column = outputs[stored[0]].read(f"{stored[1]}/{frame['part'][0]}", [name]).column(name)
            frame = frame.with_columns(pl.Series(name, pl.from_arrow(column)).gather(frame["row"]))
            others.update(str(one) for one in frame[name].unique().drop_nulls())
            frame = frame.filter(pl.col(name) == value).drop(name)
        frames.append(_first(frame, number))
    chosen = _first(pl.concat(frames), number) if frames else pl.DataFrame()
    return chosen, counts, sorted(others)


def _reasons(outputs: Mapping[str, Output]) -> Iterator[pl.DataFrame]:
    """For every part, of every document: id, reason (KEPT if no decision there is dropped it), part, row."""
    import polars as pl

    stages = [stage for stage in explain.DECISIONS if stage in outputs]
    for part in outputs["ingest"].parts("documents") if stages else ():
        columns: dict[str, Any] = {}
        for stage in stages:
            table = outputs[stage].read(f"decisions/{part.stem}", ["id", "dropped_by"])
            columns["id"] = pl.from_arrow(table.column("id"))
            columns[stage] = pl.from_arrow(table.column("dropped_by"))
        # The first stage's word counts: later ones only say that an earlier one dropped it.
        yield pl.DataFrame(columns).select(
            "id", reason=pl.coalesce(*stages, pl.lit(KEPT)), part=pl.lit(part.stem), row=pl.int_range(pl.len())
        )


def _first(documents: pl.DataFrame, number: int, each: str | None = None) -> pl.DataFrame:
    """The documents of the smallest ids, in all or of each value of a column."""
    ordered = documents.sort("id", "part", "row")
    return ordered.head(number) if each is None else ordered.group_by(each, maintain_order=True).head(number)


def _rules(outputs: Mapping[str, Output]) -> dict[str, Rule]:
    """The rules of the run's filter by name."""
    rules = explain.rules_of(outputs["filter"]) if "filter" in outputs else []
    return {rule.name: rule for rule in rules}


def _near(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known - {name}), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


# ------------------------------------------------------------------------------------------------ what is shown


def _measured(rule: Rule | None, known: Mapping[str, Any]) -> Found | None:
    if rule is None:
        return None
    from data_quality.rules import columns_of

    found: Found = {"rule": rule.name, "reason": rule.reason, "drops_if": rule.condition}
    if isinstance(rule.threshold, Mapping):
        found["drops_if"] = f"{rule.feature} {rule.comparison} {rule.threshold.get(known['language'])}"
    return {**found, "values": {name: explain.looked_up(known, name) for name in columns_of([rule])}}


def _keeper(outputs: Mapping[str, Output], stem: str, row: int) -> Found:
    decision = outputs["deduplicate"].read(f"decisions/{stem}", ["keeper", "similarity"]).slice(row, 1).to_pylist()[0]
    found = explain.keeper_place(outputs, decision["keeper"])
    assert found is not None
    place = explain.place(outputs["ingest"], *found)
    return {"id": decision["keeper"].hex(), "similarity": decision["similarity"], **place}


def _spans(
    outputs: Mapping[str, Output], stem: str, known: Mapping[str, Any], reason: str, rule: Rule | None
) -> list[tuple[int, int]]:
    from data_quality.marks import marks, merged

    text = str(known["text"])[:MARKED_CHARACTERS]
    if reason == "contamination":
        import pyarrow.compute as pc

        overlaps = outputs["decontaminate"].read(f"overlaps/{stem}")
        shared = overlaps.filter(pc.equal(overlaps.column("id"), known["id"])).column("text").to_pylist()
        return merged((at, at + len(one)) for one in shared if one and (at := text.find(one)) >= 0)
    if rule is None or rule.expression is not None:
        return []
    if rule.feature.endswith(("_hits", "_word_share")):
        from stages.judges import listed_passages

        return merged(listed_passages(outputs["quality"], rule.feature, text))
    if isinstance(rule.threshold, Mapping):
        rule = Rule(rule.name, rule.feature, rule.comparison, rule.threshold.get(known["language"]), "", "")
    return marks(text, rule, _stop_words(outputs["quality"], rule.feature, known.get("language")))


def _stop_words(quality: Output, feature: str, language: str | None) -> Sequence[str]:
    """The list that a feature counts in documents of a language; empty if it counts none."""
    if not feature.endswith("stop_words"):
        return ()
    settings = quality.manifest["parameters"]["features"]
    if not feature.endswith("language_stop_words"):
        return tuple(settings["stop_words"])
    lists = settings["language_stop_words"]
    return tuple((fineweb2.stop_words() if isinstance(lists, str) else lists).get(str(language), ()))
