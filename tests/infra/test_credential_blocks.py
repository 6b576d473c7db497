"""Credentials from blocks of a real Prefect server, checked by an S3 server that lets nobody else in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import httpx
import pytest
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.serve import client_settings
from infra.credential_blocks import CredentialsError, read_credentials
from infra.errors import StoreError, TransientSourceError
from infra.local_services import LocalServer
from infra.settings import SourceSettings, StoreSettings
from infra.sources import make_source
from infra.sources.cds import Cds
from tests.conftest import free_port
from tests.fakes.s3 import S3Server

pytestmark = pytest.mark.server


@contextmanager
def kept(server: LocalServer, block: str, value: Any) -> Iterator[None]:
    """This process talks to the server, which keeps a block."""
    with temporary_settings(client_settings(server)):
        Secret(value=value).save(block, overwrite=True)
        yield


@pytest.fixture
def guarded(s3_server: S3Server) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Endpoint and bucket of an S3 server that asks for the keys, and the keys."""
    bucket, endpoint = s3_server.new_bucket(), s3_server.options["endpoint_url"]
    anyone = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    iam = boto3.client("iam", endpoint_url=endpoint, **anyone)
    iam.create_user(UserName=bucket)
    key = iam.create_access_key(UserName=bucket)["AccessKey"]
    document = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
    iam.put_user_policy(UserName=bucket, PolicyName="s3", PolicyDocument=document)
    httpx.post(f"{endpoint}/moto-api/reset-auth", content="0")
    try:
        yield (
            endpoint,
            bucket,
            {"access_key": key["AccessKeyId"], "secret_key": key["SecretAccessKey"]},
        )
    finally:
        httpx.post(f"{endpoint}/moto-api/reset-auth", content="inf")


def test_the_keys_in_a_block_open_a_store_that_lets_nobody_else_in(
    prefect_server: LocalServer, guarded: tuple[str, str, dict[str, str]]
) -> None:
    endpoint, bucket, keys = guarded
    refused = StoreSettings.model_validate(
        {"root": f"s3://{bucket}", "endpoint_url": endpoint, "access_key": "test", "secret_key": "test"}
    )
    with pytest.raises(StoreError, match="permission denied"):
        refused.open().write("a", b"1")
    settings = StoreSettings(root=f"s3://{bucket}/prod", credentials_block="foldcast-store")
    with kept(prefect_server, "foldcast-store", {**keys, "endpoint_url": endpoint}):
        store = settings.open()
    store.write("a", b"1")
    assert store.read("a") == b"1"
    shown = f"{settings!r} {settings.model_dump_json()} {store!r} {store}"
    assert not any(key in shown for key in keys.values())


def test_a_providers_key_comes_from_a_block_too(prefect_server: LocalServer) -> None:
    settings = SourceSettings(type="cds", kind="era5", credentials_block="cds")
    typed = '{"key": "hush", "name": "another"}'  # as somebody may type it into the UI
    with kept(prefect_server, "cds", typed):
        source = make_source("cds", settings)
    assert isinstance(source, Cds)
    assert (source.key, source.name) == ("hush", "cds")
    assert "hush" not in f"{settings!r}{source!r}"


@pytest.mark.parametrize(
    ("block", "value"),
    [
        ("text", "hush"),
        ("half", {"access_key": "hush"}),
        ("number", {"access_key": "hush", "secret_key": 1}),
        ("more", {"access_key": "hush", "secret_key": "hush", "hush": "hush"}),
    ],
)
def test_a_block_that_holds_something_else_is_not_echoed(
    prefect_server: LocalServer, block: str, value: Any
) -> None:
    settings = StoreSettings(root="s3://b", credentials_block=block)
    with (
        kept(prefect_server, block, value),
        pytest.raises(CredentialsError, match=r"JSON|access_key") as wrong,
    ):
        settings.open()
    assert "hush" not in str(wrong.value)


def test_a_block_that_is_not_there_is_named(prefect_server: LocalServer) -> None:
    with (
        temporary_settings(client_settings(prefect_server)),
        pytest.raises(CredentialsError, match=r"'absent'.*found none"),
    ):
        read_credentials("absent")


def test_a_password_in_the_servers_address_is_not_echoed(prefect_server: LocalServer) -> None:
    address = prefect_server.api_url.replace("http://", "http://admin:hush@")
    with (
        temporary_settings({**client_settings(prefect_server), PREFECT_API_URL: address}),
        pytest.raises(CredentialsError) as wrong,
    ):
        read_credentials("absent")
    assert prefect_server.api_url in str(wrong.value)
    assert "hush" not in str(wrong.value)


def test_a_server_that_is_away_may_be_back_later() -> None:
    settings = {PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with (
        temporary_settings(settings),
        pytest.raises(TransientSourceError, match=r"'absent'.*cannot be reached"),
    ):
        read_credentials("absent")


def test_without_a_server_there_are_no_blocks() -> None:
    with (
        temporary_settings({PREFECT_API_URL: None}),
        pytest.raises(CredentialsError, match="PREFECT_API_URL"),
    ):
        read_credentials("foldcast-store")


def test_a_folder_needs_none() -> None:
    assert StoreSettings(root="folder", credentials_block="foldcast-store").open().root == "folder"
