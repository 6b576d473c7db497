"""Secrets in the configuration do not come out anywhere: real output, logs, databases and objects are searched."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import cast

import psutil
import pytest
from prefect.automations import Automation
from prefect.blocks.system import Secret
from prefect.settings import temporary_settings
from pydantic import SecretStr

from flows.serve import client_settings
from infra.automations import create_automations
from infra.demo import INIT_TIME, bundled
from infra.local_services import LocalServer, ServiceError, running_server
from infra.settings import SettingsError, child_environment, load_settings
from tests.conftest import free_port
from tests.fakes.s3 import S3Server

ACCESS_KEY, SECRET_KEY = "access-key-never-shown", "secret-key-never-shown"
WEBHOOK = "http://127.0.0.1:9/hook?token=webhook-token-never-shown"
PROVIDER_KEY = "provider-key-never-shown"
PASSWORD = "password-never-shown"
NEVER = "never-shown"

KEYS = f"""
access_key = "{ACCESS_KEY}"
secret_key = "{SECRET_KEY}"
"""
BLOCK = "store-keys"

CONFIGURATION = """
webhook = "{webhook}"
[store]
root = "{root}"
endpoint_url = "{endpoint}"
{keys}
[run]
cache = "{cache}"
[sources.provider]
type = "nature-run"
kind = "nature-run"
roots = ["{analyses}"]
[sources.elsewhere]
type = "cds"
kind = "era5"
options = {{key = "{provider_key}"}}
[models.m]
checkpoint = "{checkpoint}"
statistics = "{statistics}"
trained_on = "nature-run"
source = "provider"
steps = 1
[models.m.products]
formats = ["zarr"]
events = []
"""


def configure(folder: Path, *, root: str, endpoint: str, keys: str = KEYS) -> Path:
    path = folder / "foldcast.toml"
    path.write_text(
        CONFIGURATION.format(
            webhook=WEBHOOK,
            root=root,
            endpoint=endpoint,
            keys=keys,
            cache=folder / "cache",
            analyses=bundled("analyses"),
            provider_key=PROVIDER_KEY,
            checkpoint=bundled("graphcast.npz"),
            statistics=bundled("graphcast_stats"),
        )
    )
    return path


def command(
    configuration: Path, *arguments: str, api_url: str | None = None
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with every log at its most talkative; what runs shows no secrets."""
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *arguments],
        env=child_environment(
            FOLDCAST_CONFIG=str(configuration),
            PREFECT_HOME=str(configuration.parent / "prefect"),
            PREFECT_LOGGING_LEVEL="DEBUG",
            PREFECT_LOGGING_EXTRA_LOGGERS="flows,tasks,infra,s3fs,fsspec",
            AWS_DEFAULT_REGION="us-east-1",
            **({"PREFECT_API_URL": api_url} if api_url else {}),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while True:
            try:
                output, errors = process.communicate(timeout=0.3)
                return subprocess.CompletedProcess(arguments, process.returncode, output, errors)
            except subprocess.TimeoutExpired:
                assert NEVER not in command_lines(process.pid)


def command_lines(pid: int) -> str:
    """Arguments and environment, as the system shows them, of a process and of all it started."""
    lines = []
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            lines.append(f"{process.cmdline()} {process.environ()}")
    return "\n".join(lines)


def files_with(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.server
@pytest.mark.parametrize("where", ["configuration", "block"])
def test_a_cycle_leaves_none_in_its_output_its_objects_or_its_database(
    tmp_path: Path, s3_server: S3Server, prefect_server: LocalServer, where: str
) -> None:
    root, endpoint = f"s3://{s3_server.new_bucket()}", s3_server.options["endpoint_url"]
    keys, api_url = KEYS, None
    if where == "block":
        keys, api_url = f'credentials_block = "{BLOCK}"', prefect_server.api_url
        with temporary_settings(client_settings(prefect_server)):
            Secret(value={"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}).save(BLOCK, overwrite=True)
    configuration = configure(tmp_path, root=root, endpoint=endpoint, keys=keys)
    init = f"{INIT_TIME:%Y-%m-%dT%H}"
    done = command(configuration, "forecast", "--model", "m", "--init", init, api_url=api_url)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Published" in done.stdout
    assert NEVER not in done.stdout + done.stderr
    store = load_settings(configure(tmp_path, root=root, endpoint=endpoint)).store.open()
    written = list(store.list(""))
    assert any(key.endswith("manifest.json") for key in written)
    assert [key for key in written if NEVER.encode() in store.read(key)] == []
    configuration.unlink()
    assert files_with(tmp_path, NEVER) + files_with(prefect_server.home, NEVER) == []


def test_a_store_that_cannot_be_reached_is_reported_without_its_keys(tmp_path: Path) -> None:
    configuration = configure(tmp_path, root="s3://nowhere/prod", endpoint=f"http://127.0.0.1:{free_port()}")
    for options in ((), ("--debug",)):
        done = command(configuration, *options, "status")
        assert done.returncode == 1
        assert "nowhere" in done.stderr
        assert NEVER not in done.stdout + done.stderr


def test_a_wrong_configuration_is_reported_without_its_secrets(tmp_path: Path) -> None:
    path = configure(tmp_path, root="s3://nowhere", endpoint="http://127.0.0.1:9")
    path.write_text(path.read_text().replace("steps = 1", "steps = 'many'").replace("key = ", "keys = ", 1))
    with pytest.raises(SettingsError) as wrong:
        load_settings(path)
    assert "steps" in str(wrong.value)
    assert NEVER not in str(wrong.value)


def test_settings_show_none(tmp_path: Path) -> None:
    settings = load_settings(configure(tmp_path, root="s3://nowhere", endpoint="http://127.0.0.1:9"))
    assert settings.store.secret_key is not None
    assert settings.store.secret_key.get_secret_value() == SECRET_KEY
    assert NEVER not in f"{settings!r}{settings}{settings.store.open()!r}"


@pytest.mark.server
def test_the_server_keeps_the_webhook_to_itself(prefect_server: LocalServer) -> None:
    with temporary_settings(client_settings(prefect_server)):
        assert create_automations(SecretStr(WEBHOOK))
        assert create_automations(None), "somebody else sets up again, without the secret"
        alert = cast(Automation, Automation.read(name="foldcast: late"))
        assert [action.type for action in alert.actions] == ["send-notification"]
    assert files_with(prefect_server.home, NEVER) == []


def test_a_database_that_cannot_be_reached_is_reported_without_its_password(tmp_path: Path) -> None:
    server = LocalServer(
        home=tmp_path,
        port=free_port(),
        database_url=SecretStr(f"postgresql+asyncpg://prefect:{PASSWORD}@127.0.0.1:{free_port()}/prefect"),
        credentials=SecretStr(f"admin:{PASSWORD}"),
    )
    with pytest.raises(ServiceError, match="server\\.log") as failed, running_server(server):
        pass
    assert (tmp_path / "logs" / "server.log").stat().st_size > 0
    assert NEVER not in f"{failed.value}{server!r}"
    assert files_with(tmp_path, NEVER) == []
