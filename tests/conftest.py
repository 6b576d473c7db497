"""Fixtures shared by the whole suite."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.local_services import LocalServer, running_server
from infra.settings import NO_TELEMETRY

if TYPE_CHECKING:
    from tests.fakes.s3 import S3Server

_ROOT = Path(__file__).resolve().parent.parent

QUICK_COMPILATION = "--xla_backend_optimization_level=0"
"""For XLA_FLAGS: the suite compiles hundreds of programs and runs most of them once."""


def pytest_configure() -> None:
    """Have this process, and those that it starts, compile quickly."""
    os.environ.setdefault("XLA_FLAGS", QUICK_COMPILATION)


def pytest_collection_finish() -> None:
    """What is imported by now stays: leave it out of every garbage collection to come."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return _ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real data files; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("FOLDCAST_SHARED", _ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"real data files are not present ({folder.parent.name}/data)")
    return folder


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """The numerical parity cases that travel with the tests."""
    return _ROOT / "tests" / "data" / "parity"


@pytest.fixture(autouse=True, scope="session")
def _private_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep Prefect's database, caches and settings of the person who runs the tests out of the tests."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith("FOLDCAST_") and name != "FOLDCAST_SHARED"]:
        del os.environ[name]
    os.environ["PREFECT_HOME"] = str(home / "prefect")
    os.environ.update(NO_TELEMETRY)
    os.environ["MPLBACKEND"] = "agg"
    os.environ["MPLCONFIGDIR"] = str(home / "matplotlib")
    yield
    # At the interpreter's end Prefect logs that it stops its server, into a stream that pytest has closed.
    logging.raiseExceptions = False


@pytest.fixture(autouse=True)
def _compile_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same small programs come again and again: each process of the suite keeps its own in one folder.

    A test that keeps compiled programs in a folder of its own does not leave that folder to the next one.
    """
    jax = sys.modules.get("jax")
    if jax is not None:
        folder = str(tmp_path_factory.getbasetemp() / "programs")
        if jax.config.jax_compilation_cache_dir != folder:
            from jax.experimental.compilation_cache.compilation_cache import reset_cache

            jax.config.update("jax_compilation_cache_dir", folder)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
            reset_cache()


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A real Prefect server on loopback with its own database, shared by the tests marked ``server``."""
    server = LocalServer(home=tmp_path_factory.mktemp("prefect-server"), port=free_port())
    with running_server(server):
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server on loopback; give each test a bucket of its own with ``new_bucket``."""
    from tests.fakes.s3 import S3Server  # starting it imports a web server, which most tests do not need

    with S3Server() as server:
        yield server
