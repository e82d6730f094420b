"""prefect.yaml deploys the pipeline and every stage, with forms that show the whole configuration and schedules off."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml

from flows.config import load_config
from stages.graph import ORDER, module_name
from tests.flows.conftest import REPOSITORY, TestServer, clean_environment

_LOAD = """
import json, sys
from prefect.flows import load_flow_from_entrypoint
found = {}
for line in json.load(sys.stdin):
    flow = load_flow_from_entrypoint(line["entrypoint"], use_placeholder_flow=False)
    flow.validate_parameters(line["parameters"])
    found[line["entrypoint"]] = {"name": flow.name, "schema": flow.parameters.model_dump()}
from flows.pipeline import StageName
from typing import get_args
print(json.dumps({"flows": found, "stages": get_args(StageName)}))
"""


@pytest.fixture(scope="module")
def deployments() -> list[dict[str, Any]]:
    return list(yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"])


def test_the_pipeline_and_every_stage_are_deployed_with_schedules_off(deployments: list[dict[str, Any]]) -> None:
    assert [d["name"] for d in deployments] == ["pipeline", *ORDER]
    for deployment in deployments:
        assert deployment["concurrency_limit"]["limit"] == 1
        assert deployment["work_pool"]["name"] == "local"
        assert deployment["schedules"]
        assert not any(schedule["active"] for schedule in deployment["schedules"])
        load_config(REPOSITORY / deployment["parameters"]["config_file"], deployment["parameters"]["overrides"])


def test_entrypoints_are_flows_that_take_the_parameters(deployments: list[dict[str, Any]]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOAD],
        input=json.dumps(deployments),
        env=clean_environment(PREFECT_API_URL="http://127.0.0.1:9/api"),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert tuple(answer["stages"]) == ORDER
    flows = answer["flows"]
    assert flows["flows.pipeline.pipeline"]["name"] == "pipeline"
    for stage in ORDER:
        assert flows[f"flows.stage_flows.{module_name(stage)}"]["name"] == stage
    for flow in flows.values():
        parameters = flow["schema"]
        assert all(value.get("description") for value in parameters["properties"].values())
        rate = parameters["definitions"]["TrainingConfig"]["properties"]["learning_rate"]
        assert rate["exclusiveMinimum"] == 0
        assert rate["description"] == "Peak learning rate."


def test_a_server_takes_all_deployments(prefect_server: TestServer, deployments: list[dict[str, Any]]) -> None:
    pool = prefect_server.python("-m", "prefect", "work-pool", "create", "local", "--type", "process")
    assert pool.returncode == 0, pool.stdout + pool.stderr
    done = prefect_server.python("-m", "prefect", "--no-prompt", "deploy", "--all")
    assert done.returncode == 0, done.stdout + done.stderr
    known = prefect_server.ask("deployments/filter", {"limit": 100})
    assert {d["name"] for d in known} == {d["name"] for d in deployments}
