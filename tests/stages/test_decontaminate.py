"""Evaluation and fine-tuning sets of a run, planted in its corpus: every item is found, named, and quoted."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus.config import IngestConfig, SourceConfig
from data_quality.words import split_words
from stages.base import Resources, StageError
from stages.config import DecontaminateStageConfig, FinetuneStageConfig, RunConfig
from stages.decontaminate import make
from stages.pool import WorkerPool
from stages.runner import PlainBatches, StageResult, run_stage
from storage.filesystem import Store
from storage.outputs import Output
from tests.stages.corpora import Parts, inputs
from tests.stages.toys import Silent

ITEM = "Which of the seven planets of this system was found by the smallest telescope, and in which year was that?"
LABELLED = "The hotel was clean and the breakfast was the best we have had in all our weeks in this country."


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as found:
        yield found


def source(folder: Path, name: str, texts: list[str], **fields: Any) -> SourceConfig:
    (folder / name).mkdir(exist_ok=True)
    lines = "".join(json.dumps({"text": text, "label": "good"}) + "\n" for text in texts)
    (folder / name / "items.jsonl").write_text(lines)
    return SourceConfig(name=name, kind="jsonl", path=str(folder / name), **fields)


def config(sets: tuple[SourceConfig, ...], labelled: SourceConfig | None = None, **fields: Any) -> RunConfig:
    return RunConfig(
        ingest=IngestConfig(sources=(SourceConfig(name="web", kind="jsonl", path="in"),)),
        decontaminate=DecontaminateStageConfig(eval_sets=sets, **fields),
        finetune=FinetuneStageConfig(data=labelled, label="meta.label") if labelled else None,
    )


def run(store: Store, pool: WorkerPool, parts: Parts, settings: RunConfig) -> StageResult:
    read = {"ingest": inputs(store, parts)["ingest"]}
    return run_stage(make(settings), store, read, Resources(workers=2), PlainBatches(pool, 0), Silent())


def overlaps(output: Output, parts: Parts) -> list[tuple[str, str, str, float, str]]:
    """Text of the document, set, item, overlap, shared text."""
    found = []
    for stem, texts in parts.items():
        documents = dict(
            zip(
                inputs(output.store, parts)["ingest"].read(f"documents/{stem}", ["id"])["id"].to_pylist(),
                texts,
                strict=True,
            )
        )
        for row in output.read(f"overlaps/{stem}").to_pylist():
            found.append((documents[row["id"]], row["eval_set"], row["eval_item"], row["overlap"], row["text"]))
    return found


def test_the_fine_tuning_set_of_the_run_is_compared_too(tmp_path: Path, local_store: Store, pool: WorkerPool) -> None:
    sets = (source(tmp_path, "questions", [ITEM]),)
    labelled = source(tmp_path, "reviews", ["not this one", LABELLED], meta_fields=("label",))
    parts = {"web-0": [f"Someone writes: {LABELLED} And more.", "nothing"], "web-1": [f"A quiz. {ITEM}"]}
    output = run(local_store, pool, parts, config(sets, labelled)).output
    assert overlaps(output, parts) == [
        (parts["web-0"][0], "reviews", "items.jsonl#1", 1.0, LABELLED.rstrip(".")),
        (parts["web-1"][0], "questions", "items.jsonl#0", 1.0, ITEM.rstrip("?")),
    ]
    assert [part.name for part in output.parts("eval_items")] == ["eval_items/questions"], "these are scored"
    assert [(part.name, part.rows) for part in output.parts("finetune_items")] == [("finetune_items/reviews", 2)]
    without = run(local_store, pool, parts, config(sets, labelled, finetune_set=False)).output
    assert {row[1] for row in overlaps(without, parts)} == {"questions"}
    alone = run(local_store, pool, parts, config((), labelled)).output
    assert {row[1] for row in overlaps(alone, parts)} == {"reviews"}


def test_a_fine_tuning_set_needs_a_name_of_its_own(tmp_path: Path) -> None:
    sets = (source(tmp_path, "questions", [ITEM]),)
    with pytest.raises(ValueError, match=r"'questions' stands twice among .* and finetune\.data"):
        config(sets, sets[0])


def test_only_other_items_make_the_comparison_again(tmp_path: Path, local_store: Store, pool: WorkerPool) -> None:
    sets = (source(tmp_path, "questions", [ITEM]),)
    parts = {"web-0": [ITEM], "web-1": ["nothing"]}
    assert run(local_store, pool, parts, config(sets)).units_done_here == 2
    os.utime(tmp_path / "questions" / "items.jsonl", ns=(1, 1))
    assert run(local_store, pool, parts, config(sets)).units_done_here == 0
    source(tmp_path, "questions", [ITEM, LABELLED])
    assert run(local_store, pool, parts, config(sets)).units_done_here == 2


def test_items_that_cannot_be_read_are_counted(tmp_path: Path, local_store: Store, pool: WorkerPool) -> None:
    questions = source(tmp_path, "questions", [ITEM])
    with (tmp_path / "questions" / "items.jsonl").open("a") as file:
        file.write('{"question": "where did it go?"}\n{not json\n')
    output = run(local_store, pool, {"web-0": [ITEM]}, config((questions,))).output
    counts = {"read": 3, "kept": 1, "quarantined": {"bad-json": 1, "missing-text": 1}}
    assert output.read_json("about/sets") == {"questions": counts}
    other = replace(questions, text_field="body")
    expected = r"decontaminate\.eval_sets: .*none of its 3 records.*: see whether kind and text_field fit the file"
    with pytest.raises(StageError, match=expected):
        run(local_store, pool, {"web-0": [ITEM]}, config((other,)))
    expected = r"finetune\.data: .*none of its 3 records"
    with pytest.raises(StageError, match=expected):
        run(local_store, pool, {"web-0": [ITEM]}, config((), other))


def contexts(data: Any) -> list[str]:
    """The texts called "context", in a document of any shape."""
    if isinstance(data, dict):
        own = [data["context"]] if isinstance(data.get("context"), str) else []
        return own + [text for value in data.values() for text in contexts(value)]
    return [text for value in data for text in contexts(value)] if isinstance(data, list) else []


def test_real_items_planted_in_real_text_are_all_found_and_nothing_else_is(
    shared_data: Path, tmp_path: Path, local_store: Store, pool: WorkerPool
) -> None:
    def read(name: str) -> Any:
        return json.loads(gzip.decompress((shared_data / name).read_bytes()))

    outputs = [row["output"] for row in read("instructions/alpaca_en_800.json.gz")]
    items = {
        "alpaca": [text for text in outputs if len(split_words(text)) > 30][:200],
        "cmrc": sorted(set(contexts(read("qa/cmrc2018_dev.json.gz"))))[:100],
        "xquad": sorted(set(contexts(read("qa/xquad.en.part36.json.gz"))))[:20],
    }
    with tarfile.open(shared_data / "text/python_peps.tar.gz") as archive:
        files = [archive.extractfile(member) for member in archive if member.isfile()]
        host = [file.read().decode() for file in files if file is not None][:340]
    names = [(name, number) for name in items for number in range(len(items[name]))]
    planted: Parts = {"web-0": [], "web-1": []}
    expected = set()
    for place, text in enumerate(host):
        middle = text.find("\n\n", len(text) // 2)
        if place < len(names):
            name, number = names[place]
            # Capitals, quotation marks and line breaks must not hide it.
            disguised = items[name][number].replace(" ", "\n* ", 3).replace("a", "A", 5)
            text = f"{text[:middle]}\n«{disguised}»\n{text[middle:]}"
            expected.add((text, name, f"items.jsonl#{number}"))
        planted[f"web-{place % 2}"].append(text)
    sets = tuple(source(tmp_path, name, texts) for name, texts in items.items())
    found = overlaps(run(local_store, pool, planted, config(sets)).output, planted)
    whole = {row[:3] for row in found if row[3] == 1.0}
    assert expected <= whole
    assert {text for text, *_ in found} == {text for text, *_ in expected}, "the other documents share nothing"
    for text, name, item, overlap, shared in found:
        assert shared in text
        own = windows(items[name][int(item.partition("#")[2])])
        assert np.float32(len(own & windows(text)) / len(own)) == np.float32(overlap)


def windows(text: str) -> set[tuple[str, ...]]:
    """All sequences of 13 words."""
    words = split_words(text)
    return {tuple(words[i : i + 13]) for i in range(len(words) - 12)}
