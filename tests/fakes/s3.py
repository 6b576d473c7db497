"""An S3 server on loopback for tests."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

_COUNTER = itertools.count()


class S3Server:
    """A running server; use it as a context manager."""

    def __enter__(self) -> S3Server:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.address = (host, port)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    @property
    def options(self) -> Mapping[str, Any]:
        """fsspec options of this server."""
        return self.options_at(f"http://{self.address[0]}:{self.address[1]}")

    def options_at(self, endpoint: str, **config: Any) -> dict[str, Any]:
        """fsspec options that reach this server through another address."""
        return {
            "endpoint_url": endpoint,
            "key": "test",
            "secret": "test",
            "client_kwargs": {"region_name": "us-east-1"},
            **({"config_kwargs": config} if config else {}),
        }

    def new_bucket(self) -> str:
        """Name of a new, empty bucket."""
        name = f"bucket-{next(_COUNTER)}"
        boto3.client(
            "s3",
            endpoint_url=self.options["endpoint_url"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        ).create_bucket(Bucket=name)
        return name
