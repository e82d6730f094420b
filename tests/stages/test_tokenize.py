"""Token shards: nothing is lost between selection and shards, per split and source, in every form."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest
from tokenizers import Tokenizer

from corpus.config import IngestConfig, SourceConfig, TokenizeConfig, TokenizerConfig
from data_quality.duplicates_config import DeduplicateConfig
from data_quality.filter_config import FilterConfig
from data_quality.select_config import GroupLimits, SelectConfig
from stages.base import Resources, StageError
from stages.config import RunConfig
from stages.plan import Selection
from stages.pool import WorkerPool
from stages.runner import PlainBatches
from stages.session import Session
from storage.outputs import Output
from tests.stages.toys import Silent

WORDS = "stone river mill grain bread flour water wheel house field road bridge green small old new".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(2) as found:
        yield found


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[SourceConfig, ...]:
    """Two sources of a hundred different documents each; some hold the text of the end token."""
    folder = tmp_path_factory.mktemp("in")
    made = []
    for name, ending in (("web", "."), ("notes", "。中文的字符")):
        place = folder / name
        place.mkdir()
        chosen = np.random.default_rng(len(name))
        lines = []
        for number in range(100):
            text = " ".join(chosen.choice(WORDS, 40)) + f" {number}{ending}"
            lines.append(json.dumps({"text": text + (" <|endoftext|> said" if number % 10 == 0 else "")}))
        (place / "a.jsonl").write_text("\n".join(lines))
        made.append(SourceConfig(name=name, kind="jsonl", path=str(place)))
    return tuple(made)


def run(folder: Path, pool: WorkerPool, sources: tuple[SourceConfig, ...], **settings: Any) -> Mapping[str, Output]:
    last = settings.pop("last", "tokenize")
    config = RunConfig(
        ingest=IngestConfig(sources=sources),
        filter=FilterConfig(presets=("none",)),
        deduplicate=DeduplicateConfig(mode="only-report"),
        select=SelectConfig(validation_share=0.2, sources={"notes": GroupLimits(repeats=3)}),
        tokenizer=settings.pop("tokenizer", TokenizerConfig(vocabulary_size=400)),
        tokenize=TokenizeConfig(**settings),
        pretrain=None,
        evaluate=None,
        release=None,
        report=None,
        workspace=str(folder / "ws"),
        how=Resources(workers=2),
    )
    session = Session(config, Selection(until=last))
    with session.attempt():
        for name in session.selected():
            session.run(name, PlainBatches(pool, 0), Silent())
    return session.outputs


def shards(output: Output, kind: str) -> dict[str, pa.Table]:
    """Tables of the Arrow or Parquet parts of a kind, by stem."""
    found = {}
    for part in output.parts(kind):
        file = output.local_file(part)
        found[part.stem] = (
            pa.ipc.open_file(pa.memory_map(str(file))).read_all() if kind.endswith("-arrow") else output.read(part)
        )
    return found


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, pool: WorkerPool, sources: tuple[SourceConfig, ...]) -> Any:
    return run(tmp_path_factory.mktemp("all"), pool, sources, shard_tokens=4096, megatron=True, npy=True)


def test_tokens_in_shards_are_those_of_the_selected_documents_and_their_ends(outputs: Mapping[str, Output]) -> None:
    tokenizer = Tokenizer.from_file(str(outputs["tokenizer"].local_file("tokenizer/tokenizer")))
    tokenizer.encode_special_tokens = True
    texts: dict[tuple[str, str], dict[bytes, str]] = {}
    repeats: dict[bytes, int] = {}
    for part in outputs["ingest"].parts("documents"):
        documents = outputs["ingest"].read(part).to_pylist()
        decisions = outputs["select"].read(f"decisions/{part.stem}").to_pylist()
        for document, decision in zip(documents, decisions, strict=True):
            if decision["dropped_by"] is None:
                own = texts.setdefault((decision["split"], document["source"]), {})
                own[document["id"]] = document["text"]
                repeats[document["id"]] = decision["repeats"]
    summary = outputs["tokenize"].read_json("summary/tokens")
    shards_said = outputs["tokenize"].read_json("summary/shards")["shards"]
    rows = {(row["split"], row["source"]): row for row in summary["sources"]}
    assert rows.keys() == texts.keys()
    assert {source for _, source in rows} == {"web", "notes"}
    assert {split for split, _ in rows} == {"train", "validation"}
    for key, own in texts.items():
        tables = shards(outputs["tokenize"], f"{key[0]}-arrow")
        names = [shard["name"] for shard in shards_said if (shard["split"], shard["source"]) == key]
        written = [row for name in names for row in tables[name].to_pylist()]
        wanted = {
            identity: tokenizer.encode(text, add_special_tokens=False).ids + [summary["end_id"]]
            for identity, text in own.items()
        }
        assert {row["id"]: row["tokens"] for row in written} == wanted
        assert Counter(row["id"] for row in written) == {identity: repeats[identity] for identity in own}
        assert rows[key]["documents"] == len(own)
        assert rows[key]["rows"] == rows[key]["end_tokens"] == len(written)
        assert rows[key]["tokens"] == sum(len(wanted[identity]) * repeats[identity] for identity in own)
        assert rows[key]["bytes"] == sum(len(text.encode()) * repeats[identity] for identity, text in own.items())
    assert set(repeats.values()) == {1, 3}


def test_shards_keep_their_size_and_all_forms_hold_the_same(outputs: Mapping[str, Output]) -> None:
    output = outputs["tokenize"]
    for split in ("train", "validation"):
        arrow = shards(output, f"{split}-arrow")
        parquet = shards(output, f"{split}-parquet")
        assert arrow == parquet
        if split == "train":
            assert len(arrow) > 2
        for name, table in arrow.items():
            flat = table["tokens"].combine_chunks().flatten().to_numpy()
            assert len(flat) <= 4096 + 200
            assert np.array_equal(np.load(output.local_file(f"{split}-npy/{name}")), flat)
            binary = output.local_file(f"{split}-megatron/{name}.bin").read_bytes()
            index = output.local_file(f"{split}-megatron/{name}.idx").read_bytes()
            assert index[:9] == b"MMIDIDX\x00\x00"
            version, code, sequences, documents = struct.unpack_from("<QBQQ", index, 9)
            assert (version, code, sequences, documents) == (1, 8, len(table), len(table) + 1)
            lengths = np.frombuffer(index, "<i4", sequences, 34)
            pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
            assert np.frombuffer(index, "<i8", documents, 34 + 12 * sequences).tolist() == list(range(documents))
            assert len(index) == 34 + 12 * sequences + 8 * documents
            for length, pointer, row in zip(lengths, pointers, table["tokens"].to_pylist(), strict=True):
                assert np.frombuffer(binary, "<u2", length, pointer).tolist() == row


def test_the_tokens_of_a_shard_are_mapped_not_copied(outputs: Mapping[str, Output]) -> None:
    file = outputs["tokenize"].local_file(outputs["tokenize"].parts("train-arrow")[0])
    before = pa.total_allocated_bytes()
    reader = pa.ipc.open_file(pa.memory_map(str(file)))
    assert reader.num_record_batches == 1
    values = reader.get_batch(0).column("tokens").flatten()
    assert values.type == pa.uint16()
    assert values.to_numpy(zero_copy_only=True).nbytes > 1000
    assert pa.total_allocated_bytes() - before < 1000


def test_texts_with_the_end_token_go_to_the_library_and_a_sample_is_compared(outputs: Mapping[str, Output]) -> None:
    said = outputs["tokenize"].read_json("about/encoding")
    assert said["pattern"] == "gpt2"
    assert said["library"] == {"text of an added token": 20}
    assert said["compiled"] == 180
    assert said["compared"] >= 2


def test_the_library_gives_the_same_shards(
    tmp_path: Path, pool: WorkerPool, sources: tuple[SourceConfig, ...], outputs: Mapping[str, Output]
) -> None:
    other = run(tmp_path, pool, sources, shard_tokens=4096, encoder="library", parquet=False)["tokenize"]
    assert {part.kind for part in other.parts()} == {"train-arrow", "validation-arrow", "summary", "about"}
    kinds = ("train-arrow", "validation-arrow")
    digests = {part.name: part.digest for part in outputs["tokenize"].parts() if part.kind in kinds}
    assert {part.name: part.digest for part in other.parts() if part.kind in kinds} == digests
    assert other.read_json("about/encoding")["library"] == {"asked for": 200}
    assert other.read_json("about/encoding")["compared"] == 0


def test_without_end_token_and_without_arrow(
    tmp_path: Path, pool: WorkerPool, sources: tuple[SourceConfig, ...], outputs: Mapping[str, Output]
) -> None:
    output = run(tmp_path, pool, sources, end_token=False, arrow=False)["tokenize"]
    rows = output.read_json("summary/tokens")["sources"]
    assert all(row["end_tokens"] == 0 for row in rows)
    before = outputs["tokenize"].read_json("summary/tokens")["sources"]
    assert [row["tokens"] + row["rows"] for row in rows] == [row["tokens"] for row in before]
    assert {part.kind for part in output.parts()} == {"train-parquet", "validation-parquet", "summary", "about"}


def test_wide_tokens_are_int32_for_megatron() -> None:
    from corpus.token_exports import megatron_files, npy_bytes
    from storage.schemas import token_schema

    schema = token_schema(pa.uint32())
    table = pa.Table.from_pylist([{"id": bytes(16), "tokens": [70_000, 1]}, {"id": bytes(16), "tokens": []}], schema)
    data, index = megatron_files(table)
    assert np.frombuffer(data, "<i4").tolist() == [70_000, 1]
    assert index[17] == 4
    assert npy_bytes(table).endswith(np.array([70_000, 1], "<u4").tobytes())


def test_other_tokens_than_the_librarys_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from corpus.encoding.encoder import Encoder
    from corpus.tokenizer import TokenizerError, train_tokenizer
    from corpus.tokens import check_documents, encode_documents

    encoder = Encoder(train_tokenizer(["one two three"] * 9, TokenizerConfig(vocabulary_size=300)))
    texts = pa.array(["one two", "three"], pa.large_string())
    table = encode_documents(encoder, pa.array([b"a" * 16, b"b" * 16], pa.binary(16)), texts, 0, pa.uint16())
    assert check_documents(encoder, texts, table, 0) == 1
    wrong = pa.array(["one twO", "three"], pa.large_string())
    with pytest.raises(TokenizerError, match=r"document 6161.*gpt2.*other tokens"):
        check_documents(encoder, wrong, table, 0)


def test_the_sample_is_weighted_by_source_and_counted(
    tmp_path: Path, pool: WorkerPool, sources: tuple[SourceConfig, ...]
) -> None:
    config = TokenizerConfig(vocabulary_size=400, sample_bytes=8000, source_weights={"notes": 3})
    output = run(tmp_path, pool, sources, tokenizer=config, last="tokenizer")["tokenizer"]
    sample = output.read_json("about/sample")
    assert 4000 < sum(sample["bytes"].values()) < 14000
    assert 1.5 < sample["bytes"]["notes"] / sample["bytes"]["web"] < 6
    report = output.read_json("tokenizer/report")
    assert report["sources"].keys() == {"web", "notes"}
    assert sum(own["documents"] for own in report["languages"].values()) == report["documents"]
    assert report["lossless"]
    assert report["round_trip_failures"] == 0
    assert output.counts["read"] == output.counts["kept"] == sum(sample["documents"].values())


def test_a_source_that_is_not_there_has_no_weight(
    tmp_path: Path, pool: WorkerPool, sources: tuple[SourceConfig, ...]
) -> None:
    config = TokenizerConfig(vocabulary_size=400, source_weights={"books": 3})
    with pytest.raises(StageError, match=r"tokenizer\.source_weights\.books.*there are: notes, web"):
        run(tmp_path, pool, sources, tokenizer=config, last="tokenizer")


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_other_kinds_go_all_the_way(
    tmp_path: Path, pool: WorkerPool, sources: tuple[SourceConfig, ...], kind: str
) -> None:
    config = TokenizerConfig(kind=kind, vocabulary_size=400)  # type: ignore[arg-type]
    outputs = run(tmp_path, pool, sources, tokenizer=config)
    (reason,) = outputs["tokenize"].read_json("about/encoding")["library"]
    assert "not byte-level BPE" in reason
    rows = outputs["tokenize"].read_json("summary/tokens")["sources"]
    assert all(row["tokens"] > row["rows"] for row in rows)


def test_a_given_folder_is_known_by_its_content_and_brings_its_template(
    tmp_path: Path, pool: WorkerPool, sources: tuple[SourceConfig, ...], outputs: Mapping[str, Output]
) -> None:
    names = set()
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        json_file = outputs["tokenizer"].local_file("tokenizer/tokenizer")
        (folder / "tokenizer.json").write_bytes(json_file.read_bytes())
        (folder / "chat_template.jinja").write_text("{{ messages }}")
        (folder / "model.safetensors").write_text(name)
        config = TokenizerConfig(kind="folder", path=str(folder))
        output = run(tmp_path, pool, sources, tokenizer=config, last="tokenizer")["tokenizer"]
        assert output.local_file("tokenizer/chat-template").read_text() == "{{ messages }}"
        names.add(output.name)
    assert len(names) == 1
    config = TokenizerConfig(kind="folder", path=str(tmp_path / "one"), chat_template="{% for %}")
    with pytest.raises(StageError, match=r"tokenizer: tokenizer\.chat_template, line 1: not a Jinja template"):
        run(tmp_path, pool, sources, tokenizer=config, last="tokenizer")
    for kind, place, message in (
        ("folder", "none", "is not a folder"),
        ("folder", "ws", "holds no tokenizer"),
        ("file", "none", r"tokenizer\.path: .*none cannot be read"),
    ):
        config = TokenizerConfig(kind=kind, path=str(tmp_path / place))  # type: ignore[arg-type]
        with pytest.raises(StageError, match=message):
            run(tmp_path, pool, sources, tokenizer=config, last="tokenizer")
