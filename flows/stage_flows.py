"""One thin flow a stage, each a deployment of its own: `flows.stage_flows.ingest`, … `flows.stage_flows.export_corpus`.

Run by itself, such a flow works on its stage only: what the stage reads must be complete. The pipeline chains the same
work as inline subflows. Flows are made when asked for, since drawing the form of one takes a tenth of a second.
"""

from __future__ import annotations

import functools

from prefect import Flow, flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.driving import Drive, driving, enter_flow, read_config, reference
from stages.config import RunConfig
from stages.graph import ORDER, module_name
from stages.plan import Selection

StageFlow = Flow[..., dict[str, str]]

ENTRYPOINTS = {module_name(stage): stage for stage in ORDER}
"""The names of the flows of this module, and their stages."""


def __getattr__(name: str) -> StageFlow:
    if name not in ENTRYPOINTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return stage_flow(ENTRYPOINTS[name])


@functools.cache
def stage_flow(stage: str) -> StageFlow:
    """The flow that brings one stage of a run to completion."""

    def run(
        config: RunConfig | None = None,
        config_file: str | None = None,
        overrides: list[str] | None = None,
        force: bool = False,
    ) -> dict[str, str]:
        enter_flow()
        settings = read_config(config, config_file, overrides or [])
        selection = Selection(only=stage, force=(stage,) if force else ())
        with driving(settings, selection) as drive:
            return reference(drive.run(stage))

    run.__name__ = run.__qualname__ = module_name(stage)
    run.__doc__ = f"""Bring the stage {stage} of a run to completion; what it reads must be complete.

    Args:
        config: The whole configuration of the run; or leave it out and name a file.
        config_file: A configuration file on the machine the flow runs on.
        overrides: Changes to it, such as "pretrain.training.steps=50".
        force: Make a new output even if there is one already.
    """
    return flow(name=stage, persist_result=False)(run)


def run_inline(drive: Drive, stage: str) -> dict[str, str]:
    """Run one stage as a subflow of the pipeline, which holds the configuration."""

    def run(run: str, force: bool) -> dict[str, str]:
        enter_flow()
        return reference(drive.run(stage))

    run.__name__ = run.__qualname__ = module_name(stage)
    run.__doc__ = f"The stage {stage} of a pipeline run."
    subflow = Flow(run, name=stage, flow_run_name="{run} " + stage, persist_result=False, validate_parameters=False)
    # Stopping a flow's heartbeat takes a second. The pipeline has one, and they live and die together.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        return subflow(run=drive.session.config.name, force=stage in drive.session.selection.force)
