"""Decisions on stored evidence: what-if is what a real rerun gives, reruns touch nothing above, gates compare runs."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.config import from_values
from stages import explain
from stages.base import GateError, StageError
from stages.plan import Selection
from stages.pool import WorkerPool
from stages.runner import PlainBatches, StageResult
from stages.samples import samples
from stages.session import Session
from stages.what_if import what_if
from storage import runs
from storage.filesystem import Store
from storage.outputs import Output
from tests.stages.toys import Silent

STAGES = ("ingest", "quality", "sketch", "decontaminate", "filter", "deduplicate", "select")
SYLLABLES = ("ba", "ke", "ri", "mo", "lun", "ta", "ves", "do", "shi", "gar")


def texts() -> list[dict[str, Any]]:
    """Documents of all kinds: good ones of all lengths, lists, repetitions, German, copies, near-copies."""
    rows: list[dict[str, Any]] = []
    chance = random.Random(7)

    def word() -> str:
        return "".join(chance.choices(SYLLABLES, k=chance.randint(1, 3)))

    for i in range(60):
        number = 1 + i % 12 * 2
        sentences = [f"The {word()} and that {word()} {word()} have been {word()} to {word()}." for _ in range(number)]
        rows.append({"text": " ".join(sentences), "licence": ("CC0", "CC-BY", "none")[i % 3], "lang": "en"})
    rows += [{"text": "\n".join(f"- the item {i} {j} of that list" for j in range(9)), "lang": "en"} for i in range(8)]
    rows += [{"text": "\n".join(["The same line and that is it."] * (i + 2)), "lang": "en"} for i in range(8)]
    rows += [{"text": f"Der Hund und die Katze {i} gehen zum Fluss. " * (i + 1), "lang": "de"} for i in range(8)]
    rows += [{"text": rows[5]["text"], "lang": "en"}, {"text": rows[11]["text"] + " Very much so.", "lang": "en"}]
    rows += [{"text": "", "lang": "en"}, {"text": "short", "lang": "en"}]
    return rows


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as found:
        yield found


class Run:
    """A corpus of two sources, and runs over it until the selection."""

    def __init__(self, folder: Path, pool: WorkerPool) -> None:
        self.folder, self.pool = folder, pool
        rows = texts()
        for name, some in (("web", rows[::2]), ("books", rows[1::2])):
            (folder / name).mkdir()
            (folder / name / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
        self.values: dict[str, Any] = {
            "name": "r",
            "workspace": str(folder / "ws"),
            "ingest": {
                "sources": [
                    {"name": name, "kind": "jsonl", "path": str(folder / name), "meta_fields": ["licence", "lang"]}
                    for name in ("web", "books")
                ],
                "part_bytes": 8192,
            },
            "filter": {"expect": {"kept_share": {"min": 0.0}}},
            "how": {"workers": 2},
        }

    def run(self, *changes: str, until: str = "select", **values: Any) -> dict[str, StageResult]:
        session = Session(from_values({**self.values, **values}, "test", changes), Selection(until=until))
        results = {}
        with session.attempt():
            for name in STAGES[: STAGES.index(until) + 1]:
                results[name] = session.run(name, PlainBatches(self.pool, 0), Silent())
        return results

    def record(self, name: str = "r") -> dict[str, Any]:
        found = runs.load(Store(self.values["workspace"]), name)
        assert found is not None
        return found

    def outputs(self, name: str = "r") -> dict[str, Output]:
        return explain.outputs_of(Store(self.values["workspace"]), self.record(name))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pool: WorkerPool) -> Run:
    found = Run(tmp_path_factory.mktemp("decisions"), pool)
    found.run()
    return found


CHANGES: list[list[str]] = [
    ["filter.rules.gopher-too-few-words.threshold=20"],
    ["filter.rules.gopher-too-few-words.threshold=150", "filter.rules.gopher-stop-words.enabled=false"],
    ["filter.presets=[gopher, gopher-repetition, fineweb-quality]"],
    ["filter.presets=[none]"],
    ["filter.presets=[gopher-repetition, gopher]"],
    ["filter.rules.german.expression=meta.lang = 'de' OR words < 90"],
    ["filter.rules.licence={feature: meta.licence, comparison: '==', threshold: none}"],
    ["filter.presets=[fineweb]", "filter.rules.fineweb-few-sentences.threshold=4"],
    ["filter.presets=[c4, c4-datatrove, code]"],
]


def decided(output: Output) -> pl.DataFrame:
    frames = [pl.from_arrow(output.read(part)) for part in output.parts("decisions")]
    return pl.concat([frame for frame in frames if isinstance(frame, pl.DataFrame)])


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: changes[0].partition("=")[2])
def test_what_if_is_what_a_real_rerun_gives(run: Run, changes: list[str]) -> None:
    before = from_values(run.values, "test")
    after = from_values(run.values, "test", changes)
    outputs = run.outputs()
    answer = what_if(outputs, before.filter, after.filter, 100)
    results = run.run(*changes, until="filter", name="other")
    assert {name: result.worked for name, result in results.items() if name != "filter"} == dict.fromkeys(
        ("ingest", "quality", "sketch", "decontaminate"), False
    )
    old, new = outputs["filter"], results["filter"].output
    assert answer["read"] == new.counts["read"] == old.counts["read"]
    assert answer["kept"] == [old.counts["kept"], new.counts["kept"]]
    then, now = decided(old), decided(new)
    assert then["id"].equals(now["id"])
    came = then["dropped_by"].is_not_null() & now["dropped_by"].is_null()
    went = then["dropped_by"].is_null() & now["dropped_by"].is_not_null()
    assert (answer["in"]["documents"], answer["out"]["documents"]) == (came.sum(), went.sum())
    assert [found["id"] for found in answer["samples"]["in"]] == [i.hex() for i in then["id"].filter(came).sort()]
    assert [found["id"] for found in answer["samples"]["out"]] == [i.hex() for i in then["id"].filter(went).sort()]
    for row in answer["rules"]:
        counts = [frame["hits"].explode().eq(row["rule"]).sum() for frame in (then, now)]
        assert row["hits"] == counts
        assert row["first"] == [frame["dropped_by"].eq(row["rule"]).sum() for frame in (then, now)]
    for what in ("source", "language"):
        tallies = [output.read_json("about/tally")["groups"] for output in (old, new)]
        column = ("source", "language").index(what)
        for row in answer[f"{what}s"]:
            for i, groups in enumerate(tallies):
                kept = [group for group in groups if group[column] == row[what] and group[2] is None]
                assert row["kept"][i] == sum(group[3] for group in kept)
                assert row["bytes"][i] == sum(group[4] for group in kept)
            assert row["kept"][1] - row["kept"][0] == row["in"] - row["out"]
    assert answer["bytes"] == [sum(row["bytes"][i] for row in answer["sources"]) for i in (0, 1)]


def test_what_if_says_what_deduplication_has_decided(run: Run) -> None:
    outputs = run.outputs()
    before = from_values(run.values, "test").filter
    after = from_values(run.values, "test", ["filter.presets=[none]"]).filter
    deduplicated = decided(outputs["deduplicate"])
    later = what_if(outputs, after, before, 0)["later"]
    assert later is None  # this run has deduplicated what other rules keep
    nothing = what_if(outputs, before, before, 0)
    assert nothing["changes"] == []
    assert nothing["later"] == {
        "out_in_use": 0, "out_dropped_already": 0, "duplicates_set_free": 0, "in_exact_copies": 0, "in_to_compare": 0,
    }  # fmt: skip
    all_out = from_values(run.values, "test", ["filter.rules.x.expression=bytes >= 0"]).filter
    later = what_if(outputs, before, all_out, 0)["later"]
    gone = deduplicated.filter(pl.col("dropped_by").is_in(["exact-duplicate", "near-duplicate"]))
    assert len(gone) >= 2
    assert later["out_in_use"] == outputs["deduplicate"].counts["kept"]
    assert later["out_dropped_already"] == len(gone) == later["duplicates_set_free"]
    in_again = what_if(outputs, before, after, 0)
    ids = decided(outputs["filter"]).with_columns(kept=deduplicated["dropped_by"].is_null())
    came = ids.filter(pl.col("dropped_by").is_not_null())["id"]
    new = came.unique().filter(~came.unique().is_in(ids.filter("kept")["id"].implode()))
    assert in_again["later"]["in_to_compare"] == len(new)
    assert in_again["later"]["in_exact_copies"] == len(came) - len(new)


def test_decisions_do_not_depend_on_parts_or_their_order(run: Run, tmp_path: Path, pool: WorkerPool) -> None:
    other = Run(tmp_path, pool)
    other.values["ingest"]["part_bytes"] = 1 << 20
    other.values["ingest"]["sources"].reverse()
    changes = [
        "filter.presets=[gopher, c4]",
        "filter.rules.x.expression=meta.lang = 'de'",
        "select.sources={web: {max_share: 0.4, repeats: 2}}",
        "select.languages={en: {max_documents: 40}}",
        "select.validation_share=0.3",
    ]
    parts, whole = [], []
    for one in (run, other):
        results = one.run(*changes, name="parts")
        parts.append(len(results["ingest"].output.parts("documents")))
        columns = [decided(results["filter"].output)["id"].to_frame()]
        for stage in STAGES[4:]:
            columns.append(decided(results[stage].output).drop("id").select(pl.all().name.prefix(f"{stage}-")))
        whole.append(pl.concat(columns, how="horizontal").sort("id", "deduplicate-dropped_by", "select-dropped_by"))
    assert parts[0] > parts[1]
    assert whole[0].equals(whole[1])
    assert len(whole[0]["select-dropped_by"].unique()) >= 5


def test_a_gate_that_compares_with_the_last_run_stops_before_the_next_stage(run: Run) -> None:
    run.run(name="gated")
    tight = "filter.expect={kept_share: {drift: 0.05}, 'hits:*': {drift: 0.1}}"
    run.run(tight, name="gated")  # the same decisions: nothing moved
    change = "filter.rules.gopher-too-few-words.threshold=200"
    with pytest.raises(GateError) as caught:
        run.run(tight, change, name="gated")
    said = str(caught.value)
    assert said.startswith("filter: 2 shares are not as expected\n  share")
    assert "hits:gopher-too-few-words" in said
    assert "within 5 points of before (filter.expect.kept_share)" in said
    with pytest.raises(GateError):  # asked again, the answer is the same: what was stopped is no base to compare with
        run.run(tight, change, name="gated")
    record = run.record("gated")
    assert record["stages"]["filter"]["stopped"] != record["stages"]["filter"]["output"]
    assert record["status"] == record["stages"]["filter"]["status"] == "stopped"
    outputs = run.outputs("gated")
    assert "deduplicate" not in outputs  # made from other decisions
    assert samples(outputs, "gopher-too-few-words", 1)[0]["measured"]["drops_if"] == "non_symbol_words < 200"
    results = run.run("filter.expect={kept_share: {drift: 1.0}}", change, name="gated")  # decides nothing anew
    assert not results["filter"].worked
    run.run(tight, change, name="gated")  # and this is now what the next run is compared with


def test_an_output_that_passed_at_first_is_judged_again_by_a_narrower_gate(run: Run) -> None:
    run.run(name="narrow", until="filter")
    with pytest.raises(GateError, match=r"share:language:fr .*at least 1\.0% \(filter\.expect\.share:language:fr\)"):
        run.run("filter.expect={'share:language:fr': {min: 0.01}}", name="narrow", until="filter")


def test_a_change_of_words_or_of_a_threshold_that_moves_nothing_redoes_nothing_below(run: Run) -> None:
    run.run(name="same")
    reworded = run.run("filter.rules.gopher-hashes.reason=too many hashes", name="same")
    assert not any(result.worked for result in reworded.values())
    moved = run.run("filter.rules.gopher-hashes.threshold=0.11", name="same")
    assert {name for name, result in moved.items() if result.worked} == {"filter"}


def test_samples_show_real_documents_with_marks(run: Run) -> None:
    outputs = run.outputs()
    reasons = decided(outputs["filter"])["dropped_by"].drop_nulls().unique().to_list()
    for reason in reasons:
        found = samples(outputs, reason, 3)
        assert found == samples(outputs, reason, 3)
        assert [one["id"] for one in found] == sorted(one["id"] for one in found)
        for one in found:
            assert one["measured"]["rule"] == reason
            document = explain.why(Store(run.values["workspace"]), run.record(), one["id"])["documents"][0]
            for passage in one["passages"]:
                assert document["excerpt"][: len(passage["text"])] or passage["start"]
    repeated = samples(outputs, "gopher-duplicate-lines", 1)[0]
    passage = repeated["passages"][0]
    marked = [passage["text"][a:b] for a, b in passage["marks"]]
    assert marked
    assert all("The same line and that is it." in one for one in marked)
    assert {one["source"] for one in samples(outputs, "kept", 100, source="books")} == {"books"}
    assert {one["language"] for one in samples(outputs, "kept", 100, language="en")} == {"en"}
    assert len(samples(outputs, "kept", 4)) == 4
    near = samples(outputs, "near-duplicate", 1)[0]
    assert near["keeper"]["similarity"] >= 0.8


@pytest.mark.parametrize(
    ("reason", "options", "message"),
    [
        ("gopher-stop-word", {}, "there is no rule or reason 'gopher-stop-word'; did you mean 'gopher-stop-words'"),
        ("gopher-hashes", {}, "nothing was dropped by 'gopher-hashes'\n  documents by reason: "),
        ("kept", {"source": "wbe"}, "no document with the reason 'kept' has source 'wbe'; there are: books, web"),
        ("kept", {"language": "fr"}, "no document with the reason 'kept' has language 'fr'; there are: "),
    ],
)
def test_samples_that_are_not_there_are_explained(run: Run, reason: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(StageError) as caught:
        samples(run.outputs(), reason, 3, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("trusted", ["web", "books"])
def test_the_keeper_of_a_copy_is_the_document_that_stays(
    run: Run, trusted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.run("filter.presets=[none]", f"deduplicate.source_order=[{trusted}]", name="copies")
    store, outputs = Store(run.values["workspace"]), run.outputs("copies")
    (copy,) = samples(outputs, "exact-duplicate", 9)
    assert copy["keeper"]["source"] == trusted
    stays, removed = explain.why(store, run.record("copies"), copy["id"])["documents"]
    assert [stays["status"], stays["source"]] == ["kept", trusted]
    assert "keeper" not in stays["evidence"]
    assert removed["reason"] == "exact-duplicate"
    place = {name: stays[name] for name in ("source", "uri", "record", "excerpt")}
    assert removed["evidence"]["keeper"] == place
    assert "difference" not in removed["evidence"]
    monkeypatch.setattr(explain, "COPIES_EXPLAINED", 1)
    assert explain.why(store, run.record("copies"), copy["id"]) == {
        "query": copy["id"], "documents": [stays], "more": 1
    }  # fmt: skip


def test_why_counts_what_later_generations_removed_for_a_document(tmp_path: Path, pool: WorkerPool) -> None:
    grown, change = Run(tmp_path, pool), ("filter.presets=[none]", "deduplicate.incremental=true")
    text = texts()[7]["text"]
    identity = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def neighbours() -> dict[str, Any]:
        grown.run(*change)
        answer = explain.why(Store(grown.values["workspace"]), grown.record(), identity)
        found: dict[str, Any] = answer["documents"][0]["evidence"]["neighbours"]
        return {name: found.get(name) for name in ("cluster_size", "added_later")}

    assert neighbours() == {"cluster_size": 1, "added_later": None}
    rows = [{"text": text}, {"text": f"{text} Very much so."}, {"text": "Of another kind altogether."}]
    (tmp_path / "web" / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert neighbours() == {"cluster_size": 1, "added_later": 2}
