"""Base job templates of the work pools: complete, consistent, and asking for the right nodes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import is_valid_schema
from prefect.utilities.templating import apply_values
from prefect.workers.process import ProcessJobConfiguration

from infra.automations import DEAD_RUN_AFTER
from infra.work_pool_setup import (
    CONTROLLER_SLOTS,
    MEMBER_QUEUES,
    QUEUE_PRIORITIES,
    TRAINING_QUEUE,
    local_pools,
)

FOLDER = Path(__file__).resolve().parents[2] / "infra" / "work_pools"
TEMPLATES = sorted(FOLDER.glob("*.json"))
PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name).read_text())


def with_defaults(template: dict[str, Any]) -> dict[str, Any]:
    """The job configuration as the worker fills it in when a deployment sets nothing."""
    properties = template["variables"]["properties"]
    defaults = {name: entry["default"] for name, entry in properties.items() if "default" in entry}
    return apply_values(template["job_configuration"], defaults, remove_notset=True)


def pod(name: str) -> dict[str, Any]:
    return with_defaults(read(name))["job_manifest"]["spec"]["template"]["spec"]


def test_there_is_a_template_for_each_kind_of_pool() -> None:
    assert [path.stem for path in TEMPLATES] == [
        "docker-gpu", "kubernetes-controller", "kubernetes-gpu", "kubernetes-tpu", "process"
    ]  # fmt: skip


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_placeholder_is_declared_and_every_variable_used(path: Path) -> None:
    template = read(path.name)
    used = set(PLACEHOLDER.findall(json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    assert {"command", "env", "labels", "name"} <= used, "what every Prefect worker fills in"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_variables_are_a_schema_whose_defaults_fit(path: Path) -> None:
    variables = read(path.name)["variables"]
    is_valid_schema(variables, preprocess=False)
    kinds = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}
    for name, entry in variables["properties"].items():
        assert entry["title"], name
        assert entry["description"], name
        if "default" in entry:
            assert isinstance(entry["default"], kinds[entry["type"]]), name
        if "enum" in entry:
            assert entry["default"] in entry["enum"], name


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_dead_runs_are_told_by_their_silence(path: Path) -> None:
    environment = read(path.name)["variables"]["properties"]["env"]["default"]
    assert 3 * int(environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) <= DEAD_RUN_AFTER.total_seconds()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_no_secret_and_no_telemetry(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"password|secret_key|api_key", text, re.IGNORECASE)
    assert read(path.name)["variables"]["properties"]["env"]["default"]["DO_NOT_TRACK"] == "1"


@pytest.mark.parametrize("name", ["kubernetes-controller.json", "kubernetes-gpu.json", "kubernetes-tpu.json"])
def test_a_kubernetes_job_is_whole_and_runs_without_rights(name: str) -> None:
    job = with_defaults(read(name))["job_manifest"]
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["spec"]["backoffLimit"] == 0, "Foldcast retries, Kubernetes must not"
    spec = pod(name)
    assert (spec["restartPolicy"], spec["parallelism"], spec["completions"]) == ("Never", 1, 1)
    assert spec["securityContext"]["runAsNonRoot"] is True
    [container] = spec["containers"]
    assert container["name"] == "prefect-job", "the Kubernetes worker looks for this name"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]


def test_gpu_jobs_ask_for_nvidia_nodes() -> None:
    spec = pod("kubernetes-gpu.json")
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    [request] = with_defaults(read("docker-gpu.json"))["container_create_kwargs"]["device_requests"]
    assert request == {"Driver": "nvidia", "Count": 1, "Capabilities": [["gpu"]]}


def test_tpu_jobs_ask_for_a_whole_host_of_a_topology() -> None:
    spec = pod("kubernetes-tpu.json")
    assert spec["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "2x2x1",
    }
    chips = spec["containers"][0]["resources"]["limits"]["google.com/tpu"]
    assert chips == 2 * 2 * 1, "as many chips as the topology has"
    assert "nodeSelector" not in pod("kubernetes-controller.json")


async def _configure(template: dict[str, Any], values: dict[str, Any]) -> ProcessJobConfiguration:
    return await ProcessJobConfiguration.from_template_and_values(template, values)


def test_prefects_process_worker_accepts_its_template() -> None:
    import asyncio

    configuration = asyncio.run(_configure(read("process.json"), {"env": {"A": "1"}}))
    assert configuration.env["A"] == "1"
    assert configuration.stream_output is True


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_backfills_and_trainings_leave_places_to_real_time_cycles(workers: int) -> None:
    pools = {pool.name: pool for pool in local_pools(workers)}
    assert CONTROLLER_SLOTS - sum(pools["controller"].queue_limits.values()) >= 3
    assert pools["gpu"].queue_limits.get("backfill", workers) == max(1, workers - 1)
    assert min(QUEUE_PRIORITIES, key=QUEUE_PRIORITIES.__getitem__) == "realtime"
    assert TRAINING_QUEUE not in MEMBER_QUEUES
