"""The whole run as one flow: the plan first, then the stages in order, each as an inline subflow."""

from __future__ import annotations

from typing import Literal

from prefect import flow

from flows.driving import Drive, driving, enter_flow, read_config, reference
from flows.stage_flows import run_inline
from stages import explain
from stages.config import RunConfig
from stages.plan import Selection
from stages.runner import stage_fingerprint, standing
from stages.samples import by_reason
from tasks.artifacts import publish_plan, publish_summary

StageName = Literal[
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
]
SAMPLES = 3


@flow(name="pipeline", persist_result=False)
def pipeline(
    config: RunConfig | None = None,
    config_file: str | None = None,
    overrides: list[str] | None = None,
    from_stage: StageName | None = None,
    until_stage: StageName | None = None,
    only_stage: StageName | None = None,
    force: list[StageName] | None = None,
) -> dict[str, dict[str, str]]:
    """From raw text to a released model; what is complete already is not done again.

    Args:
        config: The whole configuration of the run; or leave it out and name a file.
        config_file: A configuration file on the machine the flow runs on.
        overrides: Changes to it, such as "pretrain.training.steps=50".
        from_stage: Work on this stage and those after it; what comes before must be complete.
        until_stage: Work on this stage and what it reads only.
        only_stage: Work on this stage only.
        force: Make new outputs of these stages even if there are some already.
    """
    enter_flow()
    settings = read_config(config, config_file, overrides or [])
    selection = Selection(from_stage, until_stage, only_stage, tuple(force or ()))
    with driving(settings, selection) as drive:
        publish_plan(drive.plan)
        made = {}
        for stage in drive.session.selected():
            if is_complete(drive, stage):
                made[stage] = reference(drive.take(stage))
            else:
                made[stage] = run_inline(drive, stage)
        outputs = drive.session.outputs
        publish_summary(explain.summary(outputs), by_reason(outputs, SAMPLES) if "select" in outputs else {})
    return made


def is_complete(drive: Drive, stage: str) -> bool:
    """Whether a stage needs no work, so that it needs no flow run either."""
    session = drive.session
    if stage in session.selection.force:
        return False
    fingerprint = stage_fingerprint(session.stages[stage], session.inputs_of(stage))
    return standing(session.store, stage, fingerprint).output is not None
