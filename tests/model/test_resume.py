"""What resuming promises at every step: the same positions, the same batches to the last token, the same weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from model import train
from model.data import Ahead, Batch
from storage.filesystem import Store
from tests.model.token_files import END, VOCABULARY, job_values

torch.set_num_threads(1)

STEPS = 6
AUGMENT = {
    "token_noise": 0.1, "token_dropout": 0.1, "span_masking": 0.1, "mask_token": "<mask>", "sentence_shuffle": 1.0,
    "synonym_rate": 0.5, "synonyms": "synonyms.tsv",
}  # fmt: skip
MIXTURE = [
    {"start": 0, "weights": {"a": 2, "b": 1}, "seed": 1},
    {"start": 19, "weights": {"a": 1, "b": 3}, "seed": 2},
]
CASES: dict[str, dict[str, Any]] = {
    "cut": {},
    "pack": {"packing": "pack", "overlap": 3},
    "single": {"packing": "single"},
    "buckets": {"packing": "buckets", "shortest_bucket": 8},
    "lengths": {"lengths": [{"start": 0, "length": 8}, {"start": 21, "length": 16}, {"start": 33, "length": 32}]},
    "augment": {"packing": "pack", "augment": AUGMENT},
    "everything": {"packing": "buckets", "shortest_bucket": 8, "augment": AUGMENT,
                   "lengths": [{"start": 0, "length": 16}, {"start": 30, "length": 32}]},
}  # fmt: skip


def word_tokenizer(file: Path) -> str:
    """A tokenizer.json whose words are the tokens of the test shards."""
    words = {f"{number}." if number % 9 == 0 else str(number): number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken("0.", special=True), AddedToken("<mask>", special=True)])
    tokenizer.save(str(file))
    return str(file)


def prepared(folder: Path, case: str, *, mixed: bool) -> dict[str, Any]:
    settings = dict(CASES[case])
    values = job_values(
        folder, steps=STEPS, checkpoint_every=1, keep_checkpoints=9, validate_every=0, validation_sequences=0,
        warmup_steps=2, **settings,
    )  # fmt: skip
    values["model"]["layers"] = 1
    values["model"]["vocabulary_size"] = VOCABULARY + 1
    values["resources"]["micro_batch_sequences"] = 3
    if "augment" in settings:
        (folder / "synonyms.tsv").write_text("5\t6 7\n8\t9.\n")
        values["training"]["augment"] = {**AUGMENT, "synonyms": str(folder / "synonyms.tsv")}
        values["tokenizer"] = word_tokenizer(folder / "tokenizer.json")
    if mixed:
        values["tokens"]["train"] = [{"path": str(folder / f"{name}.arrow"), "source": name} for name in "ab"]
        values["tokens"]["plan"] = MIXTURE
    assert values["tokens"]["end_id"] == END
    return values


@pytest.mark.parametrize("mixed", [False, True], ids=["one source", "mixture"])
@pytest.mark.parametrize("case", list(CASES))
def test_a_run_resumed_at_any_step_takes_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, mixed: bool
) -> None:
    seen: list[tuple[range, list[Batch]]] = []

    class Watched(Ahead):
        def take(self, positions: range, last: int) -> list[Batch]:
            found = super().take(positions, last)
            seen.append((positions, found))
            return found

    monkeypatch.setattr(train, "Ahead", Watched)
    values = prepared(tmp_path, case, mixed=mixed)
    final = train.pretrain(train.parse_job(values))
    whole, seen = seen, []
    assert [positions for positions, _ in whole] == [range(8 * step, 8 * step + 8) for step in range(STEPS)]
    for step in range(1, STEPS):
        output = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "output", output)
        for checkpoint in (output / "checkpoints").iterdir():
            if int(checkpoint.name[:8]) > step:
                shutil.rmtree(checkpoint)
        seen = []
        again = train.pretrain(train.parse_job({**values, "output": str(output), "attempt": f"from-{step}"}))
        assert len(seen) == STEPS - step
        for (positions, batches), (wanted, others) in zip(seen, whole[step:], strict=True):
            assert positions == wanted
            for ours, theirs in zip(batches, others, strict=True):
                assert torch.equal(ours.tokens, theirs.tokens)
                assert torch.equal(ours.targets, theirs.targets)
                assert ours.boundaries is not None
                assert theirs.boundaries is not None
                assert torch.equal(ours.boundaries, theirs.boundaries)
        assert again["tensor_digest"] == final["tensor_digest"]
        assert again["packing"] == Store(values["output"]).read_json("final.json")["packing"]
