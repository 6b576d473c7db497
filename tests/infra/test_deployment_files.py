"""Container image, Kubernetes manifests and Terraform, as far as they can be judged without a cluster."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml

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


def test_readers_see_published_cycles_only(terraform: dict[str, Any]) -> None:
    documents = {
        name.strip('"'): body for d in terraform["data"] for _, v in d.items() for name, body in v.items()
    }
    reader = str(documents["reader"])
    assert "Put" not in reader
    assert "/cycles/*" in reader
    assert "/runs" not in reader


def test_terraform_names_a_template_that_exists(terraform: dict[str, Any]) -> None:
    for name in re.findall(r"work_pools/([\w.-]+\.json)", str(terraform)):
        assert (INFRA / "work_pools" / name).is_file()
