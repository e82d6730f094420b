"""Judges in the quality stage: the same values for any parts, what a change redoes, and every bad setting."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from corpus.config import IngestConfig, RedactConfig, SourceConfig
from data_quality.filter_config import FilterConfig, RuleOverride
from data_quality.judges_config import BlocklistConfig, ClassifierConfig, ScorerConfig
from stages import explain
from stages.base import Resources, StageError
from stages.config import ClassifierStageConfig, QualityStageConfig, RunConfig
from stages.judges import judged_columns, listed_passages
from stages.plan import Selection
from stages.pool import WorkerPool
from stages.report_data import judges_of
from stages.runner import PlainBatches, StageResult
from stages.samples import samples
from stages.session import Session
from storage.outputs import Output
from tests.stages.toys import Silent

GOOD = [f"A careful description of house number {i}, its walls, its roof and its river garden." for i in range(120)]
BAD = [f"Buy cheap pills now!!! offer {i} casino bonus click here to win cash" for i in range(90)]
TRAINING = ClassifierConfig(bucket_bits=12, epochs=2)
SCORER = """
def shouting(frame):
    return frame["text"].str.count_matches("!")


def host(frame):
    return [None if url is None else url.split("/")[2] for url in frame["url"]]


def broken(frame):
    if any("number 77," in text for text in frame["text"]):
        raise ValueError("seventy-seven")
    return [1.0] * frame.height
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all runs read: two sources, further examples, lists, and a module of scorers."""
    found = tmp_path_factory.mktemp("judges")
    good = [
        {"text": text, "url": f"https://www.good.org/{i}", "license": "CC BY 4.0", "robots": "noai" if i % 3 else "all"}
        for i, text in enumerate(GOOD)
    ]
    bad = [{"text": text, "url": None if i % 2 else "http://spam.example/x"} for i, text in enumerate(BAD)]
    more = [{"text": text + " It is kept well."} for text in GOOD]
    for name, rows in {"good": good, "bad": bad, "more": more}.items():
        (found / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (found / "words.txt").write_text("# words\ncasino bonus\nriver\n", encoding="utf-8")
    (found / "hosts.txt").write_text("spam.example\n", encoding="utf-8")
    (found / "scorers_for_tests.py").write_text(SCORER, encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[WorkerPool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where workers look for scorers
        with WorkerPool(2) as found:
            yield found


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])


def judged(folder: Path, **changes: Any) -> QualityStageConfig:
    config = QualityStageConfig(
        classifiers=(
            ClassifierStageConfig(
                positive_sources=("good",), negative_sources=("bad",), training=TRAINING,
                positive=(SourceConfig(name="more", kind="jsonl", path=str(folder / "more.jsonl")),),
            ),
        ),
        blocklists=(
            BlocklistConfig(name="vice", path=str(folder / "words.txt")),
            BlocklistConfig(name="spam", kind="domains", path=str(folder / "hosts.txt")),
        ),
        scorers=(
            ScorerConfig(name="shout_score", function="scorers_for_tests:shouting", version="1", type="int"),
            ScorerConfig(
                name="host_label", function="scorers_for_tests:host", version="1", type="string", columns=("url",)
            ),
        ),
        rights=True,
    )  # fmt: skip
    return replace(config, **changes)


class Runs:
    """Runs over the folder in one workspace."""

    def __init__(self, folder: Path, workspace: Path, pool: WorkerPool) -> None:
        self.folder, self.workspace, self.pool = folder, workspace, pool
        self.outputs: dict[str, Output] = {}

    def config(self, quality: QualityStageConfig, **changes: Any) -> RunConfig:
        part_bytes, redact = changes.pop("part_bytes", 4000), changes.pop("redact", RedactConfig())
        sources = tuple(
            SourceConfig(name=name, kind="jsonl", path=str(self.folder / f"{name}.jsonl"), meta_fields=fields)
            for name, fields in (("good", ("license", "robots")), ("bad", ()))
        )
        ingest = IngestConfig(sources=sources, part_bytes=part_bytes, redact=redact)
        how = Resources(workers=2)
        return RunConfig(ingest=ingest, quality=quality, workspace=str(self.workspace), how=how, **changes)

    def run(self, quality: QualityStageConfig, until: str = "quality", **changes: Any) -> StageResult:
        session = Session(self.config(quality, **changes), Selection(until=until))
        with session.attempt():
            for stage in session.selected():
                result = session.run(stage, PlainBatches(self.pool, 0), Silent())
        self.outputs = dict(session.outputs)
        return result


@pytest.fixture
def runs(folder: Path, tmp_path: Path, pool: WorkerPool) -> Runs:
    return Runs(folder, tmp_path / "ws", pool)


def rows(output: Output) -> list[dict[str, Any]]:
    tables = [output.read(part) for part in output.parts("judgements")]
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["id"])


def digests(output: Output, kind: str) -> list[str]:
    return [part.digest for part in output.parts(kind)]


def test_judgements_stand_beside_the_documents_of_every_part(runs: Runs, folder: Path) -> None:
    result = runs.run(judged(folder))
    output, ingest = result.output, runs.outputs["ingest"]
    assert len(ingest.parts("documents")) > 3
    for part in ingest.parts("documents"):
        found = output.read(f"judgements/{part.stem}")
        assert found.column("id").equals(ingest.read(part, ["id"]).column("id"))
        assert found.column_names == ["id", *judged_columns(judged(folder))]
    assert output.counts["read"] == len(GOOD) + len(BAD)
    values = {name: [row[name] for row in rows(output)] for name in judged_columns(judged(folder))}
    assert sorted(values["vice_hits"]) == [1] * (len(GOOD) + len(BAD))
    assert sum(hits or 0 for hits in values["spam_hits"]) == values["spam_hits"].count(1) == 45
    assert values["spam_hits"].count(None) == 45
    assert values["shout_score"].count(3) == len(BAD)
    assert values["host_label"].count("www.good.org") == len(GOOD)
    assert values["licence"].count("CC-BY-4.0") == values["licence_class"].count("permissive") == len(GOOD)
    assert values["ai_opt_out"].count(1) == 80
    scores = dict(zip((row["vice_word_share"] for row in rows(output)), values["quality_score"], strict=True))
    good, bad = scores[1 / 15], scores[2 / 13]
    assert good > 0.8 > 0.2 > bad
    report = output.read_json("model_reports/quality_score")
    assert report["documents"]["positive"]["used"] == 2 * len(GOOD)
    assert report["test"]["auc"] == 1.0
    assert report["read"] == {"more": {"read": 120, "kept": 120, "dropped": {}, "quarantined": {}}}


def test_values_do_not_depend_on_the_parts(runs: Runs, folder: Path) -> None:
    many = runs.run(judged(folder)).output
    one = runs.run(judged(folder), part_bytes=1 << 20).output
    assert len(one.parts("judgements")) < len(many.parts("judgements"))
    assert rows(one) == rows(many)
    assert digests(one, "models") == digests(many, "models")
    assert digests(one, "model_reports") == digests(many, "model_reports")


def test_what_is_redone_for_which_change(runs: Runs, folder: Path, tmp_path: Path) -> None:
    first = runs.run(judged(folder))
    parts = len(first.output.parts("features"))
    assert first.units_done_here == 2 * parts
    assert not runs.run(judged(folder)).worked
    words = tmp_path / "elsewhere.txt"

    def with_words(text: str) -> StageResult:
        words.write_text(text, encoding="utf-8")
        lists = (BlocklistConfig(name="vice", path=str(words)), judged(folder).blocklists[1])
        return runs.run(judged(folder, blocklists=lists))

    # The same list from another place is the same output; comments change what is recorded, but no judgement.
    assert not with_words((folder / "words.txt").read_text()).worked
    commented = with_words("# another comment\nriver\nCASINO, Bonus\n")
    assert (commented.worked, commented.units_done_here) == (True, 0)
    changed = with_words("river\n")
    assert changed.units_done_here == parts
    assert digests(changed.output, "features") == digests(first.output, "features")
    fewer = runs.run(judged(folder, scorers=()))
    assert fewer.units_done_here == parts
    # A scorer of another version gives the same values here, but nobody can know that.
    scorers = tuple(replace(one, version="2") for one in judged(folder).scorers)
    assert runs.run(judged(folder, scorers=scorers)).units_done_here == parts


def test_a_scorers_source_names_its_values(runs: Runs, folder: Path) -> None:
    runs.run(judged(folder))
    source = folder / "scorers_for_tests.py"
    before = source.read_text()
    try:
        source.write_text(before + "\n# changed\n")
        with FreshProcesses(runs):
            assert runs.run(judged(folder)).units_done_here == len(runs.outputs["ingest"].parts("documents"))
    finally:
        source.write_text(before)


class FreshProcesses:
    """A pool whose workers have not imported the scorers yet."""

    def __init__(self, runs: Runs) -> None:
        self.runs, self.before = runs, runs.pool

    def __enter__(self) -> None:
        self.runs.pool = WorkerPool(1).__enter__()

    def __exit__(self, *error: Any) -> None:
        self.runs.pool.__exit__(*error)
        self.runs.pool = self.before


def test_a_trained_model_is_taken_as_it_is(runs: Runs, folder: Path, tmp_path: Path) -> None:
    first = runs.run(judged(folder)).output
    model = tmp_path / "frozen.arrow"
    model.write_bytes(first.store.read_bytes(first.part("models/quality_score").path))
    frozen = ClassifierStageConfig(model=str(model))
    again = runs.run(judged(folder, classifiers=(frozen,)))
    assert again.units_done_here == 0
    assert digests(again.output, "judgements") == digests(first, "judgements")
    assert not again.output.has("model_reports/quality_score")
    model.write_bytes(b"no model")
    with pytest.raises(StageError, match=r"frozen\.arrow cannot be read as an Arrow file"):
        runs.run(judged(folder, classifiers=(frozen,)))


def test_examples_are_treated_as_the_corpus_is(runs: Runs, folder: Path, tmp_path: Path) -> None:
    rows_ = [{"text": f"Write to me{i}@example.org about walls\r\nand roofs {i}."} for i in range(60)]
    (tmp_path / "mail.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_), encoding="utf-8")
    mail = SourceConfig(name="mail", kind="jsonl", path=str(tmp_path / "mail.jsonl"))
    classifier = ClassifierStageConfig(positive=(mail,), negative_sources=("bad",), training=TRAINING)
    plain = runs.run(judged(folder, classifiers=(classifier,))).output
    redacted = runs.run(judged(folder, classifiers=(classifier,)), redact=RedactConfig(kinds=("email",))).output
    assert digests(plain, "models") != digests(redacted, "models")


def test_lists_may_be_compressed(runs: Runs, folder: Path, tmp_path: Path) -> None:
    packed = tmp_path / "words.txt.gz"
    packed.write_bytes(gzip.compress((folder / "words.txt").read_bytes()))
    plain = runs.run(judged(folder)).output
    lists = (BlocklistConfig(name="vice", path=str(packed)), judged(folder).blocklists[1])
    assert digests(runs.run(judged(folder, blocklists=lists)).output, "judgements") == digests(plain, "judgements")


def test_rules_over_judgements_drop_and_are_explained(runs: Runs, folder: Path) -> None:
    rules = {
        "bad": RuleOverride(feature="quality_score", comparison="<", threshold=0.5),
        "rivers": RuleOverride(feature="vice_hits", comparison=">", threshold=0),
        "hosts": RuleOverride(expression="host_label = 'www.good.org' AND shout_score > 5"),
    }
    config = FilterConfig(presets=("respect-opt-out", "licence-permissive"), rules=rules, expect={})
    counts = runs.run(judged(folder), until="filter", filter=config).output.counts
    assert counts["dropped"] == {"respect-opt-out-opted-out": 80, "licence-permissive-unclear": 90, "rivers": 40}
    found = samples(runs.outputs, "rivers", 1)[0]
    assert found["measured"]["values"] == {"vice_hits": 1}
    passage = found["passages"][0]
    assert [passage["text"][start:end] for start, end in passage["marks"]] == ["river"]
    quality = runs.outputs["quality"]
    record = {"stages": {name: {"output": output.name} for name, output in runs.outputs.items()}}
    answer = explain.why(quality.store, record, found["id"])["documents"][0]
    assert answer["evidence"]["judgements"]["vice_hits"] == 1
    assert listed_passages(quality, "spam_hits", "http://spam.example/") == []
    assert listed_passages(quality, "vice_word_share", "é Casino-bonus") == [(2, 14)]


# ------------------------------------------------------------------------------------------------ what is refused


def broken(folder: Path, name: str) -> QualityStageConfig:
    scorers = {
        "missing module": ScorerConfig(name="a_score", function="nothing_here:f", version="1"),
        "missing function": ScorerConfig(name="a_score", function="scorers_for_tests:f", version="1"),
        "failing": ScorerConfig(name="a_score", function="scorers_for_tests:broken", version="1"),
        "wrong type": ScorerConfig(name="a_score", function="scorers_for_tests:host", version="1", columns=("url",)),
    }
    if name in scorers:
        return QualityStageConfig(scorers=(scorers[name],))
    lists = {"missing list": "none.txt", "empty list": "empty.txt", "bad line": "bad.txt"}
    (folder / "empty.txt").write_text("# nothing\n")
    (folder / "bad.txt").write_text("fine\n?!\n")
    if name in lists:
        return QualityStageConfig(blocklists=(BlocklistConfig(name="l", path=str(folder / lists[name])),))
    classifier = ClassifierStageConfig(
        positive_sources=("good",), negative_sources=("bad",), training=replace(TRAINING, held_out=0.02)
    )
    if name == "same examples":
        good = SourceConfig(name="copy", kind="jsonl", path=str(folder / "good.jsonl"))
        classifier = replace(classifier, negative_sources=(), negative=(good,))
    if name == "missing model":
        classifier = ClassifierStageConfig(model=str(folder / "none.arrow"))
    if name == "missing examples":
        gone = SourceConfig(name="gone", kind="jsonl", path=str(folder / "gone.jsonl"))
        classifier = replace(classifier, positive=(gone,))
    return QualityStageConfig(classifiers=(classifier,))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing module", "scorer 'a_score': there is no module nothing_here"),
        ("missing function", "scorers_for_tests has no function 'f'; it has broken, host, shouting"),
        ("failing", r"scorer 'a_score' .* fails on row \d+ of the part good-\S+: ValueError: seventy-seven"),
        ("wrong type", "gives String for the part .*, its type in the configuration is float"),
        ("missing list", "blocklist 'l': .*none.txt cannot be read"),
        ("empty list", "empty.txt: it has no entries"),
        ("bad line", r"bad.txt, line 2: '\?!' has no letter or digit"),
        ("same examples", "quality.classifiers, quality_score: of the negative side's 0 documents .120 stand in both"),
        ("missing model", "classifier 'quality_score': .*none.arrow cannot be read"),
        ("missing examples", "gone.jsonl"),
    ],
)
def test_every_fault_is_named(runs: Runs, folder: Path, name: str, message: str) -> None:
    with pytest.raises((StageError, FileNotFoundError, ValueError), match=message):
        runs.run(broken(folder, name))


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        ({"positive_sources": ("good",)}, "it has no negative examples"),
        ({"negative_sources": ("bad",)}, "it has no positive examples"),
        ({"positive_sources": ("good",), "negative_sources": ("good",)}, "good cannot be on both sides"),
        ({"model": "x.arrow", "positive_sources": ("good",)}, "a given model is not trained"),
    ],
)
def test_sides_that_cannot_be_are_refused(quality: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassifierStageConfig(**quality)


def test_a_configuration_that_contradicts_itself_is_refused(runs: Runs, folder: Path) -> None:
    stranger = ClassifierStageConfig(positive_sources=("godd",), negative_sources=("bad",))
    with pytest.raises(ValueError, match=r"quality_score: there is no source 'godd' in ingest.sources \(good, bad\)"):
        runs.config(QualityStageConfig(classifiers=(stranger,)))
    lists = (BlocklistConfig(name="a", path="x"), BlocklistConfig(name="a", path="y"))
    with pytest.raises(ValueError, match="two judges give the column a_hits, a_word_share"):
        runs.config(QualityStageConfig(blocklists=lists))
    for preset, words in (("respect-opt-out", "quality.rights=true"), ("licence-permissive", "quality.rights=true")):
        with pytest.raises(ValueError, match=words):
            runs.config(QualityStageConfig(), filter=FilterConfig(presets=(preset,)))
    rule = {"r": RuleOverride(feature="qualty_score", comparison="<", threshold=0.1)}
    with pytest.raises(ValueError, match="looks at what is not measured: no classifier, list or scorer"):
        runs.config(judged(folder), filter=FilterConfig(presets=("none",), rules=rule))


def test_the_report_shows_how_good_the_judges_are(runs: Runs, folder: Path) -> None:
    left_out = dict.fromkeys(("export_corpus", "tokenizer", "tokenize", "pretrain", "evaluate", "release"))
    rules = {"bad": RuleOverride(feature="quality_score", comparison="<", threshold=0.5)}
    config = FilterConfig(presets=("none",), rules=rules, expect={})
    result = runs.run(judged(folder), until="report", filter=config, **left_out)
    page = result.output.store.read_bytes(result.output.part("about/report").path).decode()
    section = page[page.index('id="judges"') :]
    section = section[: section.index("</section>")]
    report = runs.outputs["quality"].read_json("model_reports/quality_score")
    assert f"accuracy {report['test']['accuracy']:.2%} on {report['test']['documents']} held-out" in section
    assert "Reliability of quality_score" in section
    assert "What the lists found" in section
    assert '<th scope="row">opted out</th>' in section
    assert "<h3>quality_score</h3>" in page or "quality_score</" in page, "a histogram of what a rule looks at"
    found = judges_of(runs.outputs["quality"])
    assert found["documents"] == len(GOOD) + len(BAD)
    assert found["lists"] == [
        {"name": "vice", "entries": 2, "documents": 210, "hits": 210},
        {"name": "spam", "entries": 1, "documents": 45, "hits": 45},
    ]
    assert found["licences"] == {"permissive": 120, "none": 90, "opted out": 80}


def test_a_report_without_judges_has_no_section_on_them(runs: Runs) -> None:
    left_out = dict.fromkeys(("export_corpus", "tokenizer", "tokenize", "pretrain", "evaluate", "release"))
    result = runs.run(QualityStageConfig(), until="report", filter=FilterConfig(presets=("none",)), **left_out)
    assert not runs.outputs["quality"].parts("judgements")
    assert 'id="judges"' not in result.output.store.read_bytes(result.output.part("about/report").path).decode()
