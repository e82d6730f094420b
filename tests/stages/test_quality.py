"""The quality stage: what it writes for each configuration, whatever the parts, and what it says of bad settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from corpus.config import IngestConfig, SourceConfig
from data_quality.feature_table import feature_schema
from data_quality.quality_config import CutsConfig, QualityConfig
from stages.base import Resources, StageError
from stages.config import QualityStageConfig, RunConfig
from stages.plan import Selection
from stages.pool import WorkerPool
from stages.runner import PlainBatches, StageResult
from stages.session import Session
from storage.outputs import Output
from tests.stages.toys import Silent


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as found:
        yield found


TEXTS = [
    "The cat sat on the mat, and it was warm.\nMenu\nWe use cookies on this page.",
    "Der Hund liegt in der Sonne, und die Katze sieht ihm dabei zu.",
    "the the the the cat",
    "中文和日本語のテキスト。",
    "",
]


class Corpus:
    """A folder of JSON lines and the runs over it."""

    def __init__(self, folder: Path, pool: WorkerPool) -> None:
        self.folder, self.workspace, self.pool = folder / "in", folder / "ws", pool
        self.folder.mkdir()

    def write(self, name: str, texts: list[str]) -> None:
        rows = [
            {"text": text, "url": f"https://www.example.org/{i}" if i % 2 else None} for i, text in enumerate(texts)
        ]
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def run(self, quality: QualityStageConfig, part_bytes: int = 1 << 20) -> StageResult:
        source = SourceConfig(name="web", kind="jsonl", path=str(self.folder))
        ingest = IngestConfig(sources=(source,), part_bytes=part_bytes)
        config = RunConfig(ingest=ingest, quality=quality, workspace=str(self.workspace), how=Resources(workers=2))
        session = Session(config, Selection(until="quality"))
        with session.attempt():
            for stage in ("ingest", "quality"):
                result = session.run(stage, PlainBatches(self.pool, 0), Silent())
        return result


@pytest.fixture
def corpus(tmp_path: Path, pool: WorkerPool) -> Corpus:
    found = Corpus(tmp_path, pool)
    found.write("a.jsonl", TEXTS)
    return found


def rows(output: Output) -> list[dict[str, Any]]:
    tables = [output.read(part) for part in output.parts("features")]
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["id"])


def test_every_configuration_writes_its_own_columns(corpus: Corpus) -> None:
    for config in (
        QualityConfig(),
        QualityConfig(measure_cut=True, datatrove_words="separate", unigram_table="corpus"),
        QualityConfig(language_stop_words={"de": ("der", "und")}),
    ):
        output = corpus.run(QualityStageConfig(features=config, cuts=CutsConfig(producers=("c4-lines",)))).output
        part = output.parts("features")[0]
        assert output.read(part).schema.names == feature_schema(config).names
    assert [row["url_domain"] for row in rows(output)].count("example.org") == 2
    assert output.manifest["numerics"]["public_suffix_list"].startswith("tld ")


def test_cut_features_are_those_of_the_text_that_leaves(corpus: Corpus) -> None:
    config = QualityStageConfig(features=QualityConfig(measure_cut=True), cuts=CutsConfig(producers=("c4-lines",)))
    found = {row["words"]: row for row in rows(corpus.run(config).output)}
    assert (found[17]["cut_words"], found[17]["c4_words"], found[17]["c4_sentences"]) == (10, 10, 1)
    with pytest.raises(StageError, match="measure_cut: there are no cuts"):
        corpus.run(QualityStageConfig(features=QualityConfig(measure_cut=True)))


def test_the_word_table_of_a_corpus_does_not_depend_on_its_parts(corpus: Corpus) -> None:
    config = QualityStageConfig(features=QualityConfig(unigram_table="corpus", unigram_words=5))
    one = corpus.run(config).output
    (corpus.folder / "a.jsonl").unlink()
    for i, text in enumerate(reversed(TEXTS)):
        corpus.write(f"{i}.jsonl", [text])
    parted = corpus.run(config).output
    tables = [output.read("unigrams/table").to_pylist() for output in (one, parted)]
    assert tables[0] == tables[1]
    assert tables[0][0] == {"word": "the", "count": 6}
    assert len(tables[0]) == 5
    assert len(parted.parts("features")) == 4  # the empty text is no document

    def text_features(output: Output) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if not k.startswith("url_")} for row in rows(output)]

    assert text_features(one) == text_features(parted)
    assert text_features(one)[0]["unigram_log_probability"] <= 0


def test_a_user_s_word_table_is_read_and_its_content_counts(corpus: Corpus, tmp_path: Path) -> None:
    file = tmp_path / "words.csv"
    config = QualityStageConfig(features=QualityConfig(unigram_table=str(file)))
    with pytest.raises(StageError, match=r"unigram_table: .*words\.csv cannot be read"):
        corpus.run(config)
    file.write_text("word,count\nThe,3\nthe,1\ncat,4\n")
    first = corpus.run(config)
    assert first.output.read("unigrams/table").to_pylist() == [
        {"word": "cat", "count": 4},
        {"word": "the", "count": 4},
    ]
    assert not corpus.run(config).worked
    file.write_text("word,count\nthe,3\ncat,5\n")
    assert corpus.run(config).worked
    for text, message in (
        ("word,number\nthe,1\n", "has no column count"),
        ("word,count\nthe,0\n", "row 1 needs a word and a positive whole count"),
        ("word,count\nthe,1\ncat,x\n", "row 2 needs a word"),
        ("word,count\n", "holds no words"),
    ):
        file.write_text(text)
        with pytest.raises(StageError, match=message):
            corpus.run(config)


def test_stop_words_by_language_need_the_language(corpus: Corpus) -> None:
    config = QualityConfig(identify_language=False, language_stop_words={"de": ("der",)})
    with pytest.raises(StageError, match=r"needs quality\.features\.identify_language"):
        corpus.run(QualityStageConfig(features=config))
