"""Container image, Kubernetes manifests and Terraform, as far as they can be judged without a cluster."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hcl2
import kubernetes_validate
import pytest
import yaml
from prefect.utilities.templating import apply_values

from infra import layout
from infra.settings import Settings
from infra.work_pool_setup import MEMBER_QUEUES, POOLS, QUEUE_PRIORITIES, TRAINING_QUEUE, pools_of
from model.cycle import Cycle

CYCLE = Cycle(model="m", init_time=datetime(2026, 1, 1, tzinfo=UTC))
INFRA = Path(__file__).resolve().parents[2] / "infra"
DOCKERFILE = (INFRA / "docker" / "Dockerfile").read_text()
MANIFESTS = list(yaml.safe_load_all((INFRA / "kubernetes" / "foldcast.yaml").read_text()))
SECRET = yaml.safe_load((INFRA / "kubernetes" / "secret.example.yaml").read_text())
TEMPLATES = sorted((INFRA / "work_pools").glob("kubernetes-*.json"))
KUBERNETES_VERSION = "1.34"
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
    assert re.search(
        r"^HEALTHCHECK .*\\\n +CMD \[\"python\", \"-m\", \"infra.container_health\"\]",
        last_stage,
        re.MULTILINE,
    )


def test_the_dockerfiles_syntax_is_declared_where_docker_looks_for_it() -> None:
    assert DOCKERFILE.startswith("# syntax=docker/dockerfile:"), "after any other line it is a comment"


def test_the_image_has_what_workers_on_kubernetes_need(repository: Path) -> None:
    [extras] = re.findall(r'"\.\[([\w,-]+)\$', DOCKERFILE)
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    known = project["optional-dependencies"]
    assert {"kubernetes", "gcs"} <= set(extras.split(","))
    assert "prefect-kubernetes" in known["kubernetes"]
    assert {"gpu", "tpu"} <= set(known)


def test_a_linter_finds_nothing_in_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint has no build for this platform")
    done = subprocess.run(
        [hadolint, str(INFRA / "docker" / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


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
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["livenessProbe"]
        assert container["resources"]["limits"]["memory"]


def test_workers_of_members_are_documented_with_queues_that_leave_trainings_alone(repository: Path) -> None:
    text = (repository / "docs" / "operations.md").read_text()
    commands = re.findall(r"prefect worker start --pool gpu[^`\n]*", text)
    queues = [tuple(re.findall(r"--work-queue ([\w-]+)", command)) for command in commands]
    assert sorted(queues) == sorted([MEMBER_QUEUES, (TRAINING_QUEUE,)])
    assert all("--limit 1" in command for command in commands)


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
    granted = re.findall(r"store\.arn\}/([^'\"\]]+)", text)
    assert len(granted) == 2
    assert all(resource.startswith("${var.prefix}") for resource in granted), granted
    actions = set(re.findall(r"s3:\w+\*?|s3:\*", text)) - {"s3:prefix"}
    assert actions == {
        "s3:ListBucket",
        "s3:GetBucketLocation",
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:AbortMultipartUpload",
    }


def job_of(template: Path) -> dict[str, Any]:
    """The Job that a worker creates when a deployment sets nothing."""
    document = json.loads(template.read_text())
    properties = document["variables"]["properties"]
    defaults = {name: entry["default"] for name, entry in properties.items() if "default" in entry}
    job = apply_values(document["job_configuration"]["job_manifest"], defaults, remove_notset=True)
    container = job["spec"]["template"]["spec"]["containers"][0]
    # What the worker adds to every job: its name, the environment as a list, the command.
    job["metadata"]["generateName"] = "gpu-"
    container["env"] = [{"name": name, "value": value} for name, value in container["env"].items()]
    container["args"] = ["prefect", "flow-run", "execute"]
    return job


EVERYTHING = {
    **{f"{manifest['kind']} {manifest['metadata']['name']}": manifest for manifest in [*MANIFESTS, SECRET]},
    **{template.name: job_of(template) for template in TEMPLATES},
}


@pytest.mark.parametrize("manifest", EVERYTHING.values(), ids=EVERYTHING)
def test_kubernetes_knows_every_field(manifest: dict[str, Any]) -> None:
    """Against the API's own schema, in which a field that does not exist is an error."""
    pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
    if manifest["kind"] == "Job" and "generateName" in manifest["metadata"]:
        # Prefect's worker demands these two here, where Kubernetes ignores them.
        pod = {name: value for name, value in pod.items() if name not in ("parallelism", "completions")}
        template = {**manifest["spec"]["template"], "spec": pod}
        manifest = {**manifest, "spec": {**manifest["spec"], "template": template}}
    kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


def references(document: Any) -> Iterator[tuple[str, str]]:
    """Kind and name of everything that a document says is there."""
    named = {
        "secretRef": ("Secret", "name"),
        "secretKeyRef": ("Secret", "name"),
        "configMap": ("ConfigMap", "name"),
        "configMapRef": ("ConfigMap", "name"),
        "configMapKeyRef": ("ConfigMap", "name"),
        "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
        "roleRef": ("Role", "name"),
        "secret": ("Secret", "secretName"),
    }
    if isinstance(document, list):
        for each in document:
            yield from references(each)
    elif isinstance(document, dict):
        for key, value in document.items():
            if key in named:
                kind, field = named[key]
                yield kind, value[field]
            elif key in ("serviceAccountName", "serviceAccount"):
                yield "ServiceAccount", value
            elif key == "subjects":
                yield from ((subject["kind"], subject["name"]) for subject in value)
            else:
                yield from references(value)
            if key == "env" and isinstance(value, list):
                yield from (
                    ("Secret", entry["value"]) for entry in value if entry["name"].endswith("_SECRET_NAME")
                )


def test_everything_that_is_named_is_made() -> None:
    made = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in [*MANIFESTS, SECRET]}
    made.add(("ServiceAccount", "default"))  # every namespace has it
    named = {reference for document in EVERYTHING.values() for reference in references(document)}
    assert named <= made
    for kind in ("Secret", "ConfigMap", "PersistentVolumeClaim", "ServiceAccount"):
        assert kind in {reference[0] for reference in named}, f"the search does not see any {kind}"


def test_every_pool_has_a_worker_and_a_template_of_its_own() -> None:
    arguments = {
        d["metadata"]["name"]: d["spec"]["template"]["spec"]["containers"][0]["args"] for d in DEPLOYMENTS
    }
    pools = pools_of("kubernetes")
    assert set(arguments) == {f"worker-{pool.name}" for pool in pools}
    for pool in pools:
        command = arguments[f"worker-{pool.name}"]
        assert command[:5] == ["prefect", "worker", "start", "--pool", pool.name]
        assert command[5:7] == ["--type", pool.type]
        assert "--no-create-pool-if-not-found" in command, "else it makes the pool from Prefect's template"
        assert "--with-healthcheck" in command
    assert {pool.template for pool in pools} == {template.name for template in TEMPLATES}


def test_containers_name_a_program_because_the_image_has_no_other_entry_point() -> None:
    """Prefect's workers start a flow run's container with the whole command ``prefect flow-run execute``."""
    assert re.findall(r"^ENTRYPOINT (.+)$", DOCKERFILE, flags=re.MULTILINE) == ['["tini", "-g", "--"]']
    [command] = re.findall(r"^CMD (.+)$", DOCKERFILE, flags=re.MULTILINE)
    assert json.loads(command)[0] == "prefect"
    for name, manifest in EVERYTHING.items():
        for container in manifest.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
            assert container["args"][0] in ("prefect", "foldcast"), name


def test_images_have_the_packages_version_and_the_pools_accelerator(repository: Path) -> None:
    version = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"]
    images = {
        name: container["image"]
        for name, manifest in EVERYTHING.items()
        for container in manifest.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ())
    }
    accelerators = {"kubernetes-gpu.json": "-gpu", "kubernetes-tpu.json": "-tpu"}
    assert images == {name: f"foldcast:{version}{accelerators.get(name, '')}" for name in images}


def test_workers_watch_their_namespace_only() -> None:
    """They have a Role there; without the setting the observer asks the whole cluster."""
    [role] = [manifest for manifest in MANIFESTS if manifest["kind"] == "Role"]
    for deployment in DEPLOYMENTS:
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        variables = {entry["name"]: entry["value"] for entry in container["env"]}
        namespaces = variables["PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES"]
        assert namespaces == role["metadata"]["namespace"]
        key = variables["PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_KEY"]
        assert key in SECRET["stringData"]
    for template in TEMPLATES:
        assert job_of(template)["metadata"]["namespace"] == role["metadata"]["namespace"]


def test_the_secrets_entries_are_settings() -> None:
    settings: dict[str, Any] = {}
    for name, value in SECRET["stringData"].items():
        if name.startswith("FOLDCAST_"):
            section, field = name.removeprefix("FOLDCAST_").lower().split("__")
            settings.setdefault(section, {})[field] = value
        else:
            assert name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")
    assert Settings.model_validate(settings).store.secret_key is not None


def test_the_bucket_is_ruled_where_the_store_lies(terraform: dict[str, Any], repository: Path) -> None:
    [configuration] = [m for m in MANIFESTS if m["kind"] == "ConfigMap"]
    settings = Settings.model_validate(tomllib.loads(configuration["data"]["foldcast.toml"]))
    prefix = next(v["prefix"] for v in map(_unquoted, terraform["variable"]) if "prefix" in v)
    quickstart = (repository / "docs" / "quickstart.md").read_text()
    documented = re.findall(r'^ *root = "(s3://[^"]+)"', quickstart, flags=re.MULTILINE)
    assert documented
    for root in (settings.store.root, *documented):
        assert root.split("/", 3)[3] + "/" == str(prefix["default"]).strip('"')
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
    parts = set(re.findall(r"(\w+)/\*", readable))
    page = layout.product(CYCLE, "run", "attempt", "index.html")
    for key in (layout.cycle_manifest(CYCLE), layout.latest("m"), page, layout.catalog("index.html")):
        assert key.split("/")[0] in parts, key
    for key in (layout.runs_prefix(CYCLE), layout.fields_prefix(), layout.quarantine(CYCLE, "reason.txt")):
        assert key.split("/")[0] not in parts, key
    assert "runs" not in reader


def test_terraform_names_a_template_that_exists(terraform: dict[str, Any]) -> None:
    for name in re.findall(r"work_pools/([\w.-]+\.json)", str(terraform)):
        assert (INFRA / "work_pools" / name).is_file()
