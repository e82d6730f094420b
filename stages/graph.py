"""The graph: which stages a run has, in which order, and what each reads."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from stages.base import Stage, StageError
from stages.config import RunConfig

ORDER = (
    "ingest",
    "quality",
    "sketch",
    "decontaminate",
    "filter",
    "deduplicate",
    "repeats",
    "select",
    "export-corpus",
    "tokenizer",
    "tokenize",
    "pretrain",
    "evaluate",
    "finetune",
    "release",
    "report",
)
"""All stages in an order in which every stage follows what it reads."""


def module_name(stage: str) -> str:
    """The module of a stage: `export-corpus` stands in `stages/export_corpus.py`."""
    return stage.replace("-", "_")


def make_stage(name: str, config: RunConfig) -> Stage[Any] | None:
    """The stage `name` of a run, or None if its section is null."""
    section = getattr(config, module_name(name))
    if section is None:
        return None
    module = importlib.import_module(f"stages.{module_name(name)}")
    stage: Stage[Any] = module.make(config)
    return stage


def make_stages(config: RunConfig) -> dict[str, Stage[Any]]:
    """All stages of a run by name, in order."""
    stages = {}
    for name in ORDER:
        stage = make_stage(name, config)
        if stage is not None:
            stages[name] = stage
    return stages


def check_name(name: str, stages: dict[str, Stage[Any]] | None = None) -> str:
    """`name` if it is a stage of this run; StageError with a near match otherwise."""
    known = list(stages) if stages is not None else list(ORDER)
    if name in known:
        return name
    if name in ORDER:
        raise StageError(f"the stage {name!r} is switched off in this configuration (its section is null)")
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise StageError(f"there is no stage {name!r}{hint} Stages are: {', '.join(known)}")


def below(name: str, stages: dict[str, Stage[Any]]) -> list[str]:
    """All stages that read, directly or not, what `name` makes."""
    found: set[str] = {name}
    for other, stage in stages.items():
        if found & set(stage.needs):
            found.add(other)
    return [other for other in stages if other in found and other != name]


def above(name: str, stages: dict[str, Stage[Any]]) -> list[str]:
    """All stages that `name` reads, directly or not."""
    found: set[str] = set()
    waiting = list(stages[name].needs)
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += stages[other].needs
    return [other for other in stages if other in found]
