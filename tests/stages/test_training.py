"""The stages from tokens to a release, small: text changed while it is shown, length buckets, a chat template."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus.config import IngestConfig, SourceConfig, TokenizerConfig
from data_quality.duplicates_config import DeduplicateConfig
from data_quality.filter_config import FilterConfig
from data_quality.select_config import SelectConfig
from model.augment_config import AugmentConfig
from model.config import LengthSegment, MixtureSegment, ModelConfig, TrainingConfig
from model.finetune_config import EvaluateConfig, FinetuneConfig, GenerateConfig
from stages.base import Resources, StageError
from stages.config import EvaluateStageConfig, FinetuneStageConfig, PretrainConfig, RunConfig
from stages.explain import why
from stages.plan import Selection
from stages.pool import WorkerPool
from stages.runner import PlainBatches
from stages.session import Session
from tests.stages.toys import Silent

WORDS = "stone river mill grain bread flour water wheel house field road bridge green small old new".split()  # noqa: SIM905
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[SourceConfig, ...]:
    folder = tmp_path_factory.mktemp("in")
    made = []
    for name, ending in (("web", "."), ("notes", "!")):
        chosen = np.random.default_rng(len(name))
        lines = []
        for number in range(100):
            sentences = [" ".join(chosen.choice(WORDS, 8)) + ending for _ in range(int(chosen.integers(1, 9)))]
            lines.append(json.dumps({"text": " ".join([*sentences, f"{number}{ending}"])}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
        made.append(SourceConfig(name=name, kind="jsonl", path=str(folder / f"{name}.jsonl")))
    return tuple(made)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, sources: tuple[SourceConfig, ...]) -> RunConfig:
    folder = tmp_path_factory.mktemp("run")
    (folder / "synonyms.tsv").write_text("river\tstream\tbrook\nstone\trock\n")
    augment = AugmentConfig(
        token_noise=0.05, token_dropout=0.05, span_masking=0.1, mask_token="<|mask|>", sentence_shuffle=0.5,
        synonym_rate=0.5, synonyms=str(folder / "synonyms.tsv"),
    )  # fmt: skip
    return RunConfig(
        ingest=IngestConfig(sources=sources),
        filter=FilterConfig(presets=("none",)),
        deduplicate=DeduplicateConfig(mode="only-report"),
        select=SelectConfig(validation_share=0.2),
        tokenizer=TokenizerConfig(
            vocabulary_size=400, special_tokens=("<|endoftext|>", "<|mask|>", "<|user|>", "<|assistant|>"),
            chat_template=TEMPLATE,
        ),
        pretrain=PretrainConfig(
            model=ModelConfig(layers=1, width=32, heads=2, kv_heads=1, max_positions=64),
            training=TrainingConfig(
                sequence_length=64, batch_sequences=4, steps=6, warmup_steps=1, checkpoint_every=3, validate_every=0,
                validation_sequences=6, packing="buckets", shortest_bucket=16, augment=augment,
                lengths=(LengthSegment(start=0, length=16), LengthSegment(start=13, length=64)),
            ),
            mixture=(MixtureSegment(weights={"web": 2, "notes": 1}),),
        ),
        evaluate=EvaluateStageConfig(
            scoring=EvaluateConfig(max_documents=4), generate=GenerateConfig(prompts=("",), max_tokens=4)
        ),
        finetune=FinetuneStageConfig(
            training=FinetuneConfig(max_documents=40, max_test_documents=10, max_length=32, steps=4, augment=augment)
        ),
        export_corpus=None,
        workspace=str(folder / "ws"),
        how=Resources(workers=1),
    )  # fmt: skip


@pytest.fixture(scope="module")
def session(config: RunConfig) -> Session:
    return made(config, "report")


def made(config: RunConfig, last: str) -> Session:
    session = Session(config, Selection(until=last))
    with WorkerPool(1) as pool, session.attempt():
        for name in session.selected():
            session.run(name, PlainBatches(pool, 0), Silent())
    return session


def test_training_tells_its_packing_and_its_losses_by_source(session: Session) -> None:
    result = session.outputs["pretrain"].read_json("result/training")
    assert result["step"] == 6
    assert set(result["validation_sources"]) == set(result["packing"]["sources"]) == {"web", "notes"}
    tokens = session.outputs["tokenize"].read_json("summary/tokens")["sources"]
    for name, part in result["packing"]["sources"].items():
        train = next(row for row in tokens if (row["split"], row["source"]) == ("train", name))
        assert part["tokens"] - part["padding"] + part["lost"] == train["tokens"]
    training = session.outputs["pretrain"]
    lines = training.store.read_bytes(training.part("metrics/steps").path).splitlines()
    last = json.loads(lines[-1])
    assert last["validation_sources"] == result["validation_sources"]
    written = session.outputs["report"].local_file("about/report").read_text()
    assert "buckets: " in written
    assert "validation loss, source notes" in written


def test_why_names_every_step_that_showed_a_document(session: Session) -> None:
    record = {"stages": {name: {"output": output.name.rpartition("/")[2]} for name, output in session.outputs.items()}}
    tokens = session.outputs["tokenize"]
    shown = 0
    for part in tokens.parts("train-parquet"):
        for row in tokens.read(part, ["id"]).to_pylist():
            [found] = why(session.store, record, row["id"].hex())["documents"]
            times = found["evidence"]["training"]["times"]
            shown += len(times)
            assert all(1 <= time["step"] <= 6 and 0 <= time["row"] < 4 for time in times)
    assert shown >= 24


def test_the_table_of_synonyms_is_kept_and_names_the_output(
    session: Session, config: RunConfig, tmp_path: Path
) -> None:
    from stages.finetune import Finetune
    from stages.pretrain import Pretrain

    assert config.pretrain is not None
    assert config.finetune is not None
    for stage in ("pretrain", "finetune"):
        kept = session.outputs[stage].read_json("data/synonyms")
        assert kept == {"river": ["stream", "brook"], "stone": ["rock"]}
        told = session.outputs[stage].read_json("checkpoint/config")["training"]["augment"]["synonyms"]
        assert told == session.outputs[stage].manifest["parameters"]["training"]["augment"]["synonyms"]

    def named(path: Path) -> tuple[Any, Any]:
        assert config.pretrain is not None
        assert config.finetune is not None
        augment = dataclasses.replace(config.pretrain.training.augment, synonyms=str(path))
        training = dataclasses.replace(config.pretrain.training, augment=augment)
        tuning = dataclasses.replace(config.finetune.training, augment=augment)
        return (
            Pretrain(dataclasses.replace(config.pretrain, training=training)).parameters(),
            Finetune(dataclasses.replace(config.finetune, training=tuning)).parameters(),
        )

    (tmp_path / "same.json").write_text('{"stone": ["rock"], "river": ["stream", "brook"]}')
    (tmp_path / "other.tsv").write_text("river\tbrook\tstream\nstone\trock\n")
    before = named(Path(config.pretrain.training.augment.synonyms))
    assert named(tmp_path / "same.json") == before
    assert all(a != b for a, b in zip(named(tmp_path / "other.tsv"), before, strict=True))
    (tmp_path / "bad.tsv").write_text("river\n")
    with pytest.raises(StageError, match=r"pretrain\.training\.augment\.synonyms: .*bad\.tsv, line 1: 'river' has no"):
        named(tmp_path / "bad.tsv")
    assert Pretrain(config.pretrain).needs == ("tokenizer", "tokenize")
    assert Pretrain(PretrainConfig()).needs == ("tokenize",)


def test_a_release_with_a_chat_template_is_applied_by_transformers(session: Session) -> None:
    transformers = pytest.importorskip("transformers")
    files = list(session.outputs["release"].parts("model"))
    folder = session.outputs["release"].local_folder(files)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    messages = [{"role": "user", "content": "old mill"}, {"role": "assistant", "content": "new <|user|>"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>old mill<|assistant|>new <|user|><|assistant|>"
    own = session.outputs["tokenizer"].local_file("tokenizer/chat-template").read_text()
    assert own == tokenizer.chat_template == TEMPLATE
    ids = tokenizer.apply_chat_template(messages[:1], tokenize=True, return_dict=True, return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0]) == "<|user|>old mill"
    assert model(ids).logits.shape[:2] == ids.shape
    classifier = {part.stem for part in session.outputs["release"].parts("classifier")}
    assert "chat_template" not in classifier
