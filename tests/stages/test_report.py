"""The report: complete, safe against what documents hold, and silent about what a run left out."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.config import IngestConfig, SourceConfig
from data_quality.contamination import build_index
from data_quality.feature_table import FEATURE_SCHEMA
from data_quality.quality_config import DecontaminateConfig
from data_quality.tally import tally
from stages import report_charts as charts
from stages import report_html
from stages.base import Context, Resources
from stages.config import RunConfig
from stages.report import Report, make
from stages.report_clusters import STEPS, largest_clusters, similarities
from stages.report_data import Histogram, gather, thinned
from stages.report_models import Occasion
from stages.report_page import page
from storage.filesystem import Store
from storage.manifests import Counts
from storage.outputs import Output, PartWriter, complete
from storage.schemas import CUTS, DECISIONS, DOCUMENTS, ID_INDEX, LEDGER, OVERLAPS, QUARANTINE

EVIL = "</script><script>alert('x')</script><!-- <img src=x onerror=alert(1)> \u202egnp.exe \x07 \u2028 & \"quoted\""
OCCASION = Occasion("trial", "./workspace", datetime(2026, 5, 17, 9, 30, tzinfo=UTC), {"revision": "a" * 40})
DATA_STAGES = ("ingest", "quality", "sketch", "decontaminate", "filter", "deduplicate", "select")


# ------------------------------------------------------------------------------------------------ a small run


def identity(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Run:
    """Writes outputs as the stages do, with few documents: (text, source, reason of filter, keeper)."""

    def __init__(self, folder: Path, documents: list[tuple[str, str, str | None, str | None]]) -> None:
        self.store = Store(str(folder))
        self.outputs: dict[str, Output] = {}
        half = (len(documents) + 1) // 2
        self.parts = {"a-00000": documents[:half], "b-00000": documents[half:]} if documents else {}
        self.number = len(documents)
        for stage in DATA_STAGES:
            getattr(self, stage)()

    def write(
        self, stage: str, fill: Any, counts: Counts, parameters: Any = None, inputs: tuple[str, ...] = ()
    ) -> None:
        folder = f"outputs/{stage}/{stage[:4]}0123"
        writer = PartWriter(self.store, folder, "unit")
        fill(writer)
        self.outputs[stage] = complete(
            self.store, folder, stage=stage, version=1, fingerprint=f"{stage[:4]}0123", parameters=parameters or {},
            inputs={name: self.outputs[name] for name in inputs}, parts=writer.parts, counts=counts, numerics={},
            timings={"seconds": 75.5, "units": 2, "units_reused": 0}, software={"python": "3.11"},
            git={"revision": "b" * 40},
        )  # fmt: skip

    def ingest(self) -> None:
        def fill(writer: PartWriter) -> None:
            for stem, rows in self.parts.items():
                table = [
                    {"id": identity(text), "text": text, "source": source, "uri": f"<b>{stem}.jsonl", "record": i,
                     "url": None, "date": None, "meta": None}
                    for i, (text, source, _, _) in enumerate(rows)
                ]  # fmt: skip
                writer.parquet(f"documents/{stem}", pa.Table.from_pylist(table, DOCUMENTS), DOCUMENTS)
            bad = {"source": "web", "uri": EVIL, "record": 9, "error": "bad-json", "message": EVIL, "excerpt": EVIL}
            writer.parquet("quarantine/a-00000", pa.Table.from_pylist([bad], QUARANTINE), QUARANTINE)
            line = {"source": "web", "uri": "x", "bytes": 5000, "etag": "", "records": self.number + 1,
                    "written": self.number, "duplicates": 0, "skipped": 0, "quarantined": 1, "reasons": "{}",
                    "status": "read"}  # fmt: skip
            writer.parquet("about/ledger", pa.Table.from_pylist([line], LEDGER), LEDGER)
            writer.json("about/normalised", {"unicode_nfc": 2})
            places = [
                {"id": identity(row[0]), "part": f"documents/{stem}", "row": i}
                for stem, rows in self.parts.items()
                for i, row in enumerate(rows)
            ]
            index = pa.Table.from_pylist(sorted(places, key=lambda place: place["id"]), ID_INDEX)
            writer.parquet("index/ids", index, ID_INDEX)

        counts = Counts(self.number + 1, self.number, {}, {"bad-json": 1})
        self.write("ingest", fill, counts)

    def quality(self) -> None:
        def fill(writer: PartWriter) -> None:
            for stem, rows in self.parts.items():
                columns: dict[str, Any] = {"id": [identity(text) for text, *_ in rows]}
                for field in FEATURE_SCHEMA:
                    if field.name == "language":
                        columns[field.name] = ["en" if i else None for i in range(len(rows))]
                    elif field.name in ("bytes", "words", "non_symbol_words"):
                        columns[field.name] = [len(text.encode()) for text, *_ in rows]
                    elif field.name != "id":
                        columns[field.name] = [None if pa.types.is_string(field.type) else 0] * len(rows)
                writer.parquet(f"features/{stem}", pa.table(columns, schema=FEATURE_SCHEMA), FEATURE_SCHEMA)

        self.write("quality", fill, Counts(self.number, self.number), inputs=("ingest",))

    def sketch(self) -> None:
        self.write("sketch", lambda writer: None, Counts(self.number, self.number), inputs=("ingest",))

    def decontaminate(self) -> None:
        def fill(writer: PartWriter) -> None:
            texts = ["item", "an item of more than five words"]
            items = [{"id": identity(t), "text": t, "source": "exam", "uri": EVIL, "record": 0} for t in texts]
            writer.parquet("eval_items/exam", pa.Table.from_pylist(items, DOCUMENTS), DOCUMENTS)
            named = [{"eval_set": "exam", "eval_item": EVIL * at, "text": t} for at, t in enumerate(texts)]
            index = build_index(pa.Table.from_pylist(named), DecontaminateConfig())
            writer.bytes("index/ngrams", index.to_npz(), ".npz")
            writer.json("about/sets", {"exam": {"read": 4, "kept": 2, "quarantined": {"bad-json": 2}}})
            for stem, rows in self.parts.items():
                hits = [
                    {"id": identity(text), "eval_set": "exam", "eval_item": EVIL, "overlap": 0.75, "text": EVIL}
                    for text, _, reason, _ in rows
                    if reason == "contamination"
                ]
                writer.parquet(f"overlaps/{stem}", pa.Table.from_pylist(hits, OVERLAPS), OVERLAPS)

        self.write("decontaminate", fill, Counts(self.number, self.number), inputs=("ingest",))

    def decide(self, stage: str, reason: Any, parameters: Any, more: Any, needs: tuple[str, ...]) -> None:
        dropped: dict[str, int] = {}

        def fill(writer: PartWriter) -> None:
            for stem, rows in self.parts.items():
                table = []
                for text, _source, ruled, keeper in rows:
                    found = reason(ruled, keeper)
                    if found:
                        dropped[found] = dropped.get(found, 0) + 1
                    near = keeper is not None and keeper != text
                    table.append(
                        {"id": identity(text), "dropped_by": found, "hits": [found] if found else [],
                         "keeper": identity(keeper) if keeper and stage != "filter" else None,
                         "similarity": (0.9 if near else 1.0) if keeper and stage != "filter" else None,
                         "method": ("near" if near else "exact") if keeper and stage != "filter" else None,
                         "split": "train" if stage == "select" and not found else None, "repeats": None}
                    )  # fmt: skip
                writer.parquet(f"decisions/{stem}", pa.Table.from_pylist(table, DECISIONS), DECISIONS)
            described = pl.DataFrame(
                [
                    (source, "en" if i else None, len(text.encode()), reason(ruled, keeper))
                    for rows in self.parts.values()
                    for i, (text, source, ruled, keeper) in enumerate(rows)
                ],
                schema={"source": pl.String, "language": pl.String, "bytes": pl.Int64, "reason": pl.String},
                orient="row",
            )
            names = tuple(sorted(set(described["reason"].drop_nulls())))
            fired = np.array([[found == name for name in names] for found in described["reason"]], dtype=bool)
            writer.json("about/tally", tally(described, names, fired.reshape(described.height, len(names))))
            more(writer)

        folder = f"outputs/{stage}/{stage[:4]}0123"
        writer = PartWriter(self.store, folder, "unit")
        fill(writer)
        counts = Counts(self.number, self.number - sum(dropped.values()), dict(dropped))
        dropped.clear()
        self.write(stage, fill, counts, parameters, needs)

    def filter(self) -> None:
        rules = [
            {"name": "too-short", "feature": "non_symbol_words", "comparison": "<", "threshold": 50,
             "reason": "fewer than 50 words", "source": "somebody 2021", "expression": None,
             "condition": "non_symbol_words < 50"},
            {"name": "never", "feature": "hash_ratio", "comparison": ">", "threshold": 0.1, "reason": "", "source": "",
             "expression": None, "condition": "hash_ratio > 0.1"},
            {"name": "wrong-language", "feature": "language", "comparison": "not in", "threshold": ["en", "de"],
             "reason": "another language", "source": "", "expression": None,
             "condition": "language not in [en, de]"},
        ]  # fmt: skip
        self.decide(
            "filter", lambda ruled, keeper: ruled, {"contamination_overlap": 0.5},
            lambda writer: writer.json("about/rules", rules), ("ingest", "quality", "decontaminate"),
        )  # fmt: skip

    def deduplicate(self) -> None:
        statistics = {"documents": self.number, "exact": 1, "near": 1, "candidates": 2, "verified": 2, "capped": 0,
                      "without_words": 0, "buckets": {"2": 3}}  # fmt: skip
        self.decide(
            "deduplicate", lambda ruled, keeper: "filter" if ruled else "near-duplicate" if keeper else None,
            {"threshold": 0.8, "bands": 18, "rows": 6, "mode": "keep-one"},
            lambda writer: writer.json("about/duplicates", statistics), ("ingest", "quality", "sketch", "filter"),
        )  # fmt: skip

    def select(self) -> None:
        self.decide(
            "select", lambda ruled, keeper: "filter" if ruled else "deduplicate" if keeper else None, {},
            lambda writer: None, ("ingest", "quality", "deduplicate"),
        )  # fmt: skip

    def models(self) -> None:
        """The stages from tokenizer to release."""
        tokens = {"vocabulary_size": 300, "end_id": 0, "end_token": True, "sources": [
            {"split": "train", "source": "web", "documents": 2, "rows": 2, "tokens": 40, "end_tokens": 2, "bytes": 90},
        ]}  # fmt: skip
        report = {"documents": 2, "bytes": 90, "tokens": 40, "bytes_per_token": 2.25, "vocabulary_size": 300,
                  "vocabulary_used": 30, "dtype": "uint16", "round_trip_failures": 1, "round_trip_example": EVIL,
                  "longest_tokens": [{"token": EVIL, "bytes": 80, "count": 1}]}  # fmt: skip
        self.write("tokenizer", lambda w: w.json("tokenizer/report", report), Counts(2, 2), inputs=("select",))
        self.write("tokenize", lambda w: w.json("summary/tokens", tokens), Counts(2, 2), inputs=("tokenizer",))
        lines = [
            {"step": i, "loss": 7.0 - i / 10, "learning_rate": 1e-3, "gradient_norm": 1.0, "seconds": 0.5,
             "tokens": 100 * i, "tokens_per_second": 200.0}
            for i in range(1, 11)
        ] + [{"step": 10, "validation_loss": 6.25}]  # fmt: skip
        metrics = "".join(json.dumps(line) + "\n" for line in lines).encode()

        def pretrain(writer: PartWriter) -> None:
            writer.bytes("about/metrics", metrics, ".jsonl")
            losses = {"first": 6.9, "last": 6.0, "validation": 6.25}
            part = {"sequences": 5, "tokens": 640, "padding": 16, "padding_share": 0.025, "lost": 7}
            packing = {**part, "sources": {"web": part, EVIL: {**part, "lost": 3}}}
            writer.json("result/training", {
                "losses": losses, "step": 10, "tokens": 1000, "tensor_digest": "blake2b:ab", "packing": packing,
                "validation_sources": {"web": 6.125, EVIL: 6.375},
            })  # fmt: skip

        shape = {"layers": 2, "width": 64, "heads": 2, "max_positions": 128}
        recipe = {"batch_sequences": 8, "sequence_length": 128, "precision": "fp32", "packing": "pack"}
        parameters = {"model": shape, "training": recipe}
        self.write("pretrain", pretrain, Counts(2, 2), parameters, ("tokenize",))
        score = {"documents": 1, "tokens": 9, "bytes": 30, "loss": 2.0, "perplexity": 7.389, "bits_per_byte": 0.8656}
        nothing = {"documents": 0, "tokens": 0, "bytes": 0, "loss": None, "perplexity": None, "bits_per_byte": None}
        evaluation = {"sets": {"exam": nothing, "validation": {**score, "sources": {"web": score, EVIL: score}}},
                      "samples": [{"prompt": "", "text": EVIL}, {"prompt": EVIL, "text": "and so on"}]}  # fmt: skip
        self.write("evaluate", lambda w: w.json("result/evaluation", evaluation), Counts(1, 1), inputs=("pretrain",))

        def finetune(writer: PartWriter) -> None:
            writer.bytes("metrics/steps", metrics, ".jsonl")
            scores = {"accuracy": 0.75, "macro_f1": 0.7}
            by_class = {name: {"precision": 1.0, "recall": 0.5, "f1": 0.667, "support": 2} for name in (EVIL, "b")}
            writer.json("result/finetuning", {
                **scores, "loss": 0.5, "confusion": [[1, 1], [0, 2]], "per_class": by_class, "classes": [EVIL, "b"],
                "baselines": {"bag_of_words": scores, "majority": scores}, "label": "meta.package",
                "examples": {"train": 9, "test": 4, "train_labelled": 9, "test_labelled": 4},
            })  # fmt: skip

        self.write("finetune", finetune, Counts(13, 13), inputs=("pretrain",))

        def release(writer: PartWriter) -> None:
            writer.json("model/config", {})
            model = {"architecture": "LlamaForCausalLM", "parameters": 1234, "logit_difference": 1e-7}
            writer.json("result/release", {"model": model})

        self.write("release", release, Counts(1, 1), inputs=("pretrain", "evaluate", "finetune"))


DOCUMENTS_OF_RUN: list[tuple[str, str, str | None, str | None]] = [
    ("the first text that stays " * 20, "web", None, None),
    (EVIL, "web", "too-short", None),
    ("the first text that stayed " * 20, "web", None, "the first text that stays " * 20),
    ("مرحبا بالعالم " * 10, "books", None, None),
    ("the answer of the exam", "web", "contamination", None),
    ("the first text that stays " * 20, "books", None, "the first text that stays " * 20),
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path, DOCUMENTS_OF_RUN)


# ------------------------------------------------------------------------------------------------ reading a page


class Reader(HTMLParser):
    """Text, elements and attributes of a page; unbalanced elements are an error."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.headings: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append((self.seen[-1][1], data))
        elif not self.open or self.open[-1] != "style":
            self.text.append(data)
            if self.open and self.open[-1] == "h2":
                self.headings.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def render(run: Run, occasion: Occasion = OCCASION, samples: int = 3) -> str:
    return page(gather(run.outputs, samples), occasion)


# ------------------------------------------------------------------------------------------------ the page


def test_a_whole_run_has_every_section(run: Run) -> None:
    run.models()
    text = render(run)
    reader = read(text)
    assert reader.headings == [
        "Funnel", "Sources", "Lengths and languages", "Rules", "Features", "Duplicates", "Contamination", "Samples",
        "Tokens", "Training", "Evaluation", "Fine-tuning", "Release", "Lineage", "How to go on",
    ]  # fmt: skip
    assert len(text.encode()) < 4_000_000
    links = [attributes["href"] for tag, attributes in reader.seen if tag == "a"]
    ids = {attributes.get("id") for _, attributes in reader.seen}
    assert all(link and link.startswith("#") and link[1:] in ids for link in links)


def test_a_run_without_models_leaves_their_sections_out(run: Run) -> None:
    reader = read(render(run))
    assert not {"Tokens", "Training", "Evaluation", "Fine-tuning", "Release"} & set(reader.headings)
    assert {"Funnel", "Duplicates", "Lineage"} <= set(reader.headings)


def test_a_run_of_no_documents_has_a_report(tmp_path: Path) -> None:
    empty = Run(tmp_path, [])
    reader = read(render(empty))
    assert "Funnel" in reader.headings
    assert "Samples" not in reader.headings


def test_a_run_that_drops_nothing_has_a_report(tmp_path: Path) -> None:
    kept = Run(tmp_path, [("one text", "web", None, None), ("another text", "web", None, None)])
    assert "No rule dropped anything." in "".join(read(render(kept, samples=0)).text)


def test_nothing_in_a_document_becomes_markup(run: Run) -> None:
    run.models()
    reader = read(render(run, replace(OCCASION, run=EVIL)))
    assert not [tag for tag, _ in reader.seen if tag in ("img", "b") and tag == "img"]
    assert all(not name.startswith("on") for _, attributes in reader.seen for name in attributes)
    kinds = [attributes.get("type") for attributes, _ in reader.scripts]
    assert kinds.count(None) == 1  # the page's own; Plotly lies packed as text/plain, figures as JSON
    text = "".join(reader.text)
    assert "alert('x')" in text  # shown, as text
    assert "⟨U+202E⟩" in text
    assert "\u202e" not in text
    assert "\x07" not in text


def test_figures_are_json_that_cannot_end_its_script(run: Run) -> None:
    run.models()
    text = render(run)
    figures = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert len(figures) >= 10
    for figure in figures:
        assert "<" not in figure
        values = json.loads(figure)
        assert values["data"]
        assert "height" in values["layout"]
    assert len(figures) == text.count('class="chart"')


def test_the_page_names_no_address_and_allows_only_its_own_scripts(run: Run) -> None:
    text = render(run)
    reader = read(text)
    policy = next(a["content"] for tag, a in reader.seen if tag == "meta" and a.get("http-equiv"))
    assert policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    own = next(code for attributes, code in reader.scripts if "type" not in attributes)
    assert base64.b64encode(hashlib.sha256(own.encode()).digest()).decode() in policy
    for tag, attributes in reader.seen:
        assert tag not in ("link", "iframe", "img", "object", "base", "form")
        assert "src" not in attributes


def test_charts_and_tables_can_be_read_without_seeing_them(run: Run) -> None:
    run.models()
    reader = read(render(run))
    shown = [attributes for tag, attributes in reader.seen if attributes.get("class") == "chart"]
    assert shown
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 20 for a in shown)
    tables = [tag for tag, _ in reader.seen if tag in ("table", "caption")]
    assert tables.count("table") == tables.count("caption")
    heads = [attributes for tag, attributes in reader.seen if tag == "th"]
    assert all(attributes.get("scope") in ("col", "row") for attributes in heads)


def test_the_funnel_adds_up_before_the_readers_eyes(run: Run) -> None:
    text = "".join(read(render(run)).text)
    assert "= 6 + 0 + 1" in text  # ingest: 7 records, 1 quarantined
    assert "= 4 + 2 + 0" in text  # filter
    assert "= 2 + 4 + 0" in text  # deduplicate
    assert "≠" not in text


# ------------------------------------------------------------------------------------------------ what is gathered


def test_what_packing_costs_and_losses_by_source_are_told(run: Run) -> None:
    run.models()
    text = "".join(read(render(run)).text)
    assert "pack: 5 sequences a pass" in text
    assert text.count("16 of 640 tokens (2.50%)") == 3  # in all, and of both sources
    assert "tokens in no sequence, source web" in text
    assert "6.1250" in text
    assert "6.3750" in text


def test_rules_tell_first_reasons_from_all_hits(run: Run) -> None:
    rules = {rule["name"]: rule for rule in gather(run.outputs, 1).rules}
    assert (rules["too-short"]["first"], rules["too-short"]["hits"]) == (1, 1)
    assert rules["contamination"]["threshold"] == 0.5
    assert rules["never"]["hits"] == 0


def test_sources_and_languages_count_every_document_once(run: Run) -> None:
    scan = gather(run.outputs, 1).scan
    assert {row["source"]: (row["documents"], row["selected"]) for row in scan.sources} == {
        "web": (4, 1),
        "books": (2, 1),
    }
    assert sum(row["documents"] for row in scan.languages) == 6
    assert sum(map(sum, scan.lengths.counts.values())) == 6
    assert sum(scan.features["non_symbol_words"].counts["documents"]) == 6


def test_clusters_show_the_keeper_beside_its_members(run: Run) -> None:
    clusters = largest_clusters(run.outputs, lambda: None)
    assert [cluster["size"] for cluster in clusters] == [2]
    near, exact = clusters[0]["members"]
    assert near["text"].startswith("the first text that stayed")
    assert near["keeper_text"].startswith("the first text that stays ")
    assert (near["identical"], exact["identical"]) == (False, True)
    assert clusters[0]["keeper"]["source"] == "web"


def test_no_removal_is_drawn_below_a_threshold_on_the_border_of_two_bins(run: Run) -> None:
    borders = [step / 20 for step in range(21)]
    rows = [
        {"id": identity(str(one)), "dropped_by": "near-duplicate", "hits": ["near-duplicate"], "keeper": identity("k"),
         "similarity": one, "method": "near", "split": None, "repeats": None}
        for one in borders
    ]  # fmt: skip
    decisions = pa.Table.from_pylist(rows, DECISIONS)
    run.write("borders", lambda w: w.parquet("decisions/a", decisions, DECISIONS), Counts(21, 21))
    expected = [1 - step % 2 for step in range(STEPS)]
    expected[-1] = 1
    assert similarities(run.outputs["borders"], lambda: None) == expected


def test_evaluation_items_are_told_apart_by_found_not_found_and_not_looked_for(run: Run) -> None:
    data = gather(run.outputs, 1)
    assert data.contamination["counts"] == {
        "items": 2, "short_items": 1, "stock_items": 0, "ngrams": 1, "stock_phrases": 0
    }  # fmt: skip
    (exam,) = data.contamination["sets"]
    assert [exam[name] for name in ("items", "unsearched", "items_hit", "documents", "dropped")] == [2, 1, 1, 1, 1]
    (found,) = exam["found"]
    assert [found[name] for name in ("eval_item", "overlap", "documents", "source")] == [EVIL, 0.75, 1, "web"]
    shown = read(page(data, OCCASION))
    assert "Not looked for: 1 items of too few words" in " ".join(shown.text)
    at = shown.text.index("Records that could not be read: not looked for")
    assert shown.text[at + 4 :][:3] == ["exam", "bad-json", "2"]


def test_repeats_are_shown_by_reason_and_by_what_stands_in_most_documents(run: Run) -> None:
    def fill(writer: PartWriter) -> None:
        span = {"start": 0, "end": 2048, "replacement": "", "reason": "repeated-line"}
        for stem, rows in run.parts.items():
            table = [{"id": identity(text), "spans": [span]} for text, *_ in rows]
            writer.parquet(f"cuts/{stem}", pa.Table.from_pylist(table, CUTS), CUTS)
        most = [{"kind": "line", "text": EVIL, "documents": 77}]
        writer.json("about/repeats", {"totals": {}, "hash_collisions": 0, "most": most})

    assert "What stands in most documents" not in render(run)
    run.write("repeats", fill, Counts(run.number, run.number), inputs=("ingest", "deduplicate"))
    [cuts] = [row for row in gather(run.outputs, 3).cuts if row["reason"] == "repeated-line"]
    assert (cuts["documents"], cuts["passages"], cuts["bytes"]) == (run.number, run.number, 2048 * run.number)
    text = "".join(read(render(run)).text)
    assert "What stands in most documents" in text
    assert "77" in text
    assert "alert('x')" in text, "quoted, not run"


def test_an_excerpt_begins_where_the_first_difference_is_in_sight(tmp_path: Path) -> None:
    long = "word " * 1000
    run = Run(tmp_path, [(long + "end", "web", None, None), (long + "END", "web", None, long + "end")])
    member = largest_clusters(run.outputs, lambda: None)[0]["members"][0]
    assert member["start"] > 4000
    assert member["text"].endswith("END")
    assert member["keeper_text"].endswith("end")


@given(st.lists(st.integers(0, 10**12)), st.lists(st.floats(-5, 50)))
def test_histograms_count_every_value_once(lengths: list[int], values: list[float]) -> None:
    first, second = Histogram.of_lengths(), Histogram.even(0.0, 1.0, 40)
    first.add("documents", np.asarray(lengths, dtype=np.float64))
    second.add("documents", np.asarray(values, dtype=np.float64))
    assert sum(first.trimmed().counts["documents"]) == len(lengths)
    assert sum(second.trimmed().counts["documents"]) == len(values)


@given(st.integers(0, 2000), st.integers(1, 50))
def test_thinned_curves_are_short_and_keep_the_last_step(steps: int, points: int) -> None:
    lines = [{"step": i + 1, "loss": float(i)} for i in range(steps)]
    found = thinned(lines, ("loss", "other"), points)
    assert len(found["step"]) <= points
    assert not steps or found["step"][-1] == steps
    assert set(found["other"]) <= {None}
    if found["every"] and steps % found["every"] == 0 and steps:
        assert np.mean(found["loss"]) == pytest.approx((steps - 1) / 2)


@given(st.text())
def test_text_from_outside_comes_back_as_text(text: str) -> None:
    reader = read(str(report_html.element("p", text, title=text)))
    assert [tag for tag, _ in reader.seen] == ["p"]
    assert "".join(reader.text) == charts.visible(text).replace("\r\n", "\n").replace("\r", "\n")


@given(st.text(max_size=80), st.text(max_size=80))
def test_marking_differences_loses_no_text(one: str, other: str) -> None:
    shown = "".join(read(str(report_html.differing(one, other))).text)
    assert shown == charts.visible(one)


def test_labels_of_charts_are_no_markup_of_plotly() -> None:
    assert charts.label("<a href='x'>here</a>") == "&lt;a href='x'&gt;here&lt;/a&gt;"
    assert len(charts.label("x" * 1000)) <= charts.LABEL


def test_the_graph_draws_no_line_that_a_longer_way_tells() -> None:
    nodes = {"ingest": ("", ()), "quality": ("", ("ingest",)), "filter": ("", ("ingest", "quality"))}
    drawn = str(report_html.graph(nodes))
    assert drawn.count('class="edge"') == 2
    assert "filter reads quality" in drawn


# ------------------------------------------------------------------------------------------------ the stage


def config(**changes: Any) -> RunConfig:
    return RunConfig(ingest=IngestConfig(sources=(SourceConfig(name="web", kind="jsonl", path="x"),)), **changes)


def test_the_stage_reads_all_other_stages_of_its_run() -> None:
    assert make(config()).needs[-1] == "release"
    short = make(config(release=None, finetune=None, evaluate=None, pretrain=None))
    assert short.needs[-1] == "tokenize"
    assert "report" not in short.needs


def test_the_stage_survives_pickling_and_is_named_by_its_run() -> None:
    stage = make(config(name="nightly", workspace="s3://bucket/here"))
    again = pickle.loads(pickle.dumps(stage))
    assert isinstance(again, Report)
    assert (again.needs, again.run, again.workspace) == (stage.needs, "nightly", "s3://bucket/here")
    assert again.parameters() == stage.parameters()
    assert stage.parameters() == make(config(name="nightly")).parameters()
    assert stage.parameters() != make(config(name="weekly")).parameters()


def test_the_stage_writes_one_page_that_adds_up_to_nothing(run: Run, tmp_path: Path) -> None:
    run.models()
    stage = make(config(export_corpus=None))
    inputs = run.outputs
    (unit,) = stage.units(inputs, PartWriter(run.store, "outputs/report/x", "start").finish())
    writer = PartWriter(run.store, "outputs/report/x", unit.key)
    stage.run_unit(unit, inputs, writer, Context(Resources(), tmp_path, "x", "a", lambda _: None, lambda: None))
    receipt = writer.finish()
    assert [part.name for part in receipt.parts] == ["about/report"]
    assert receipt.parts[0].path.endswith("about/report.html")
    assert receipt.counts == {"read": 0, "kept": 0, "dropped": {}, "quarantined": {}}


def test_overlaps_of_rules_are_shares_of_the_row(run: Run) -> None:
    chart = charts.overlaps([("a", 10), ("b", 4), ("c", 1)], [("a", "b", 3), ("b", "c", 1)])
    assert chart.data[0]["z"] == [[1.0, 0.3, 0.0], [0.75, 1.0, 0.25], [0.0, 1.0, 1.0]]
    assert chart.rows == (("a", "b", 3), ("b", "c", 1))
    assert "Most have a and b in common: 3." in chart.says


def test_what_became_of_each_source_and_language_adds_up(run: Run) -> None:
    data = gather(run.outputs, 2)
    for what in ("source", "language"):
        by_name: dict[Any, int] = {}
        for row in data.groups:
            by_name[row[what]] = by_name.get(row[what], 0) + row["documents"]
        found = {row[what]: row["documents"] for row in getattr(data.scan, f"{what}s")}
        assert by_name == found
        assert sum(found.values()) == len(DOCUMENTS_OF_RUN)
    text = render(run)
    assert "What became of the documents of each source" in text
    assert "What became of the documents of each language" in text


def test_thresholds_of_whole_numbers_stand_between_kept_and_dropped() -> None:
    counts = Histogram.of_lengths()
    counts.add("documents", np.array([0, 1, 2, 3, 60, 100]))
    for comparison, at in (("<", 3), (">=", 3), ("<=", 4), (">", 4)):
        rule = {"name": "r", "comparison": comparison, "threshold": 3, "hits": 1, "condition": ""}
        line = charts.feature(counts.trimmed(), "words", [rule]).layout["shapes"][1]
        assert line["x0"] == pytest.approx(np.log10(at))
    few = Histogram.even(-0.5, 32.5, 33)
    few.add("documents", np.array([0, 1, 2]))
    rule = {"name": "r", "comparison": "<", "threshold": 2, "hits": 1, "condition": ""}
    assert charts.feature(few.trimmed(), "stop_words", [rule]).layout["shapes"][1]["x0"] == 1.5
