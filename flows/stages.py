"""One thin flow a stage, each a deployment of its own: `flows/stages.py:ingest`, … `flows/stages.py:export_corpus`.

Run by itself, such a flow works on its stage only: what the stage reads must be complete. The pipeline calls the same
flows inline.
"""

from __future__ import annotations

from prefect import Flow, flow

from flows.driving import current_drive, driving, enter_flow, read_config, reference
from stages.config import RunConfig
from stages.graph import ORDER, module_name
from stages.plan import Selection

StageFlow = Flow[..., dict[str, str]]


def _stage_flow(stage: str) -> StageFlow:
    def run(
        config: RunConfig | None = None,
        config_file: str | None = None,
        overrides: list[str] | None = None,
        force: bool = False,
    ) -> dict[str, str]:
        enter_flow()
        drive = current_drive()
        if drive is not None:
            return reference(drive.run(stage))
        settings = read_config(config, config_file, overrides or [])
        selection = Selection(only=stage, force=(stage,) if force else ())
        with driving(settings, selection) as own:
            own.session.plan()
            return reference(own.run(stage))

    run.__name__ = run.__qualname__ = module_name(stage)
    run.__doc__ = f"""Bring the stage {stage} of a run to completion; what it reads must be complete.

    Args:
        config: The whole configuration of the run; or leave it out and name a file.
        config_file: A configuration file on the machine the flow runs on.
        overrides: Changes to it, such as "pretrain.training.steps=50".
        force: Make a new output even if there is one already.
    """
    return flow(name=stage, persist_result=False)(run)


ingest = _stage_flow("ingest")
quality = _stage_flow("quality")
sketch = _stage_flow("sketch")
decontaminate = _stage_flow("decontaminate")
filter = _stage_flow("filter")
deduplicate = _stage_flow("deduplicate")
select = _stage_flow("select")
export_corpus = _stage_flow("export-corpus")
tokenizer = _stage_flow("tokenizer")
tokenize = _stage_flow("tokenize")
pretrain = _stage_flow("pretrain")
evaluate = _stage_flow("evaluate")
finetune = _stage_flow("finetune")
release = _stage_flow("release")
report = _stage_flow("report")

STAGE_FLOWS: dict[str, StageFlow] = {stage: globals()[module_name(stage)] for stage in ORDER}
"""The flow of every stage."""

__all__ = ["STAGE_FLOWS", *(module_name(stage) for stage in ORDER)]
