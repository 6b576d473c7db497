"""Container image, Kubernetes manifests and Terraform, as far as they can be judged without a cluster."""

from __future__ import annotations

import json
import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml

from infra import layout
from infra.settings import Settings
from infra.work_pool_setup import POOLS, QUEUE_PRIORITIES
from model.cycle import Cycle

CYCLE = Cycle(model="m", init_time=datetime(2026, 1, 1, tzinfo=UTC))
INFRA = Path(__file__).resolve().parents[2] / "infra"
DOCKERFILE = (INFRA / "docker" / "Dockerfile").read_text()
MANIFESTS = list(yaml.safe_load_all((INFRA / "kubernetes" / "foldcast.yaml").read_text()))
DEPLOYMENTS = [manifest for manifest in MANIFESTS if manifest["kind"] == "Deployment"]


@pytest.fixture(scope="module")
def terraform() -> dict[str, Any]:
    with open(INFRA / "terraform" / "main.tf") as file:
        return hcl2.load(file)


def test_base_images_are_pinned_to_a_patch_release() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-\S+", base) for base in bases)


def test_the_image_runs_as_an_unprivileged_user_with_a_health_check() -> None:
    last_stage = DOCKERFILE[DOCKERFILE.rindex("FROM ") :]
    users = re.findall(r"^USER (\S+)", last_stage, flags=re.MULTILINE)
    assert users
    assert users[-1] not in ("root", "0")
    assert "HEALTHCHECK" in last_stage


def test_everything_the_image_copies_exists(repository: Path) -> None:
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.MULTILINE):
        for source in line.split()[:-1]:
            assert (repository / source).exists(), source


def test_every_manifest_names_its_kind_and_namespace() -> None:
    for manifest in MANIFESTS:
        assert manifest["apiVersion"]
        assert manifest["metadata"]["name"]
        assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "foldcast"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["metadata"]["name"])
def test_workers_are_confined_and_watched(deployment: dict[str, Any]) -> None:
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for container in pod["containers"]:
        assert not container["image"].endswith(":latest")
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["livenessProbe"]
        assert container["resources"]["limits"]["memory"]


def test_the_role_lets_workers_run_jobs_and_nothing_else() -> None:
    (role,) = [manifest for manifest in MANIFESTS if manifest["kind"] == "Role"]
    writable = {
        resource
        for rule in role["rules"]
        for resource in rule["resources"]
        if set(rule["verbs"]) - {"get", "list", "watch"}
    }
    assert writable == {"jobs"}


def test_policies_grant_named_actions_on_the_bucket_only(terraform: dict[str, Any]) -> None:
    text = str(terraform["data"])
    actions = set(re.findall(r"s3:\w+\*?|s3:\*", text)) - {"s3:prefix"}
    assert actions == {
        "s3:ListBucket",
        "s3:GetBucketLocation",
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:AbortMultipartUpload",
    }


def test_every_claim_and_configuration_the_jobs_mount_is_made(repository: Path) -> None:
    made = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in MANIFESTS}
    for template in (INFRA / "work_pools").glob("kubernetes-*.json"):
        document = json.loads(template.read_text())
        claim = document["variables"]["properties"]["cache_claim"]["default"]
        assert ("PersistentVolumeClaim", claim) in made, template.name
        for name in re.findall(r'"configMap": \{\s*"name": "([^"]+)"', template.read_text()):
            assert ("ConfigMap", name) in made, template.name


def test_the_bucket_is_ruled_where_the_store_lies(terraform: dict[str, Any]) -> None:
    [configuration] = [m for m in MANIFESTS if m["kind"] == "ConfigMap"]
    settings = Settings.model_validate(tomllib.loads(configuration["data"]["foldcast.toml"]))
    prefix = next(v["prefix"] for v in map(_unquoted, terraform["variable"]) if "prefix" in v)
    assert settings.store.root.split("/", 3)[3] + "/" == str(prefix["default"]).strip('"')
    assert settings.models
    rules = str(terraform["resource"])
    for part in (layout.runs_prefix(CYCLE), layout.fields_prefix()):
        assert "${var.prefix}" + part.split("/")[0] + "/" in rules


def _unquoted(block: dict[str, Any]) -> dict[str, Any]:
    return {name.strip('"'): value for name, value in block.items()}


def test_pools_and_queues_are_those_of_the_code(terraform: dict[str, Any]) -> None:
    local: dict[str, Any] = {}
    for block in terraform["locals"]:
        local |= block
    assert set(_unquoted(local["pools"])) == {pool.name for pool in POOLS}
    assert _unquoted(local["queues"]) == QUEUE_PRIORITIES


def test_readers_see_published_cycles_only(terraform: dict[str, Any]) -> None:
    documents = {
        name.strip('"'): body for d in terraform["data"] for _, v in d.items() for name, body in v.items()
    }
    reader = str(documents["reader"])
    assert "Put" not in reader
    assert "local.readable" in reader
    [readable] = [str(block["readable"]) for block in terraform["locals"] if "readable" in block]
    assert "cycles/*" in readable
    assert "runs" not in reader + readable


def test_terraform_names_a_template_that_exists(terraform: dict[str, Any]) -> None:
    for name in re.findall(r"work_pools/([\w.-]+\.json)", str(terraform)):
        assert (INFRA / "work_pools" / name).is_file()
