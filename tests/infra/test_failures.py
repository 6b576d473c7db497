"""What users are told, and what keeps its traceback."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import httpx
import pytest
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from infra.errors import StoreError
from infra.failures import EXTRAS, readable_failure


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def refused(url: str, code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", url)
    return PrefectHTTPStatusError("refused", request=request, response=httpx.Response(code, request=request))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (StoreError("key: not found"), "key: not found"),
        (
            ModuleNotFoundError("No module named 'optax'", name="optax"),
            "this needs the extra 'train': pip install 'foldcast[train]' (no module named 'optax')",
        ),
        (
            FileNotFoundError(2, "No such file or directory", "a/b.toml"),
            "a/b.toml: no such file or directory",
        ),
        (NotADirectoryError(20, "Not a directory", "a/b"), "a/b: not a directory"),
        (ConnectionRefusedError(111, "Connection refused"), "network: [Errno 111] Connection refused"),
        (
            refused("http://admin:hush@prefect:4200/api/flow_runs?key=hush", 401),
            "server http://prefect:4200/api/flow_runs: refused with 401 Unauthorized; "
            "PREFECT_API_AUTH_STRING takes its user:password",
        ),
        (
            httpx.ConnectError(
                "All connection attempts failed", request=httpx.Request("GET", "http://host:1/api")
            ),
            "server http://host:1/api: cannot be reached: All connection attempts failed",
        ),
        (httpx.ReadTimeout(""), "server: cannot be reached: ReadTimeout"),
        (
            ObjectNotFound(ValueError("x"), help_message="no such deployment"),
            "Prefect server: does not have what is asked for: no such deployment",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_a_user_or_a_machine_got_wrong_is_said_in_a_line(error: Exception, message: str) -> None:
    assert readable_failure(raised(error)) == message


def test_an_extra_is_named_behind_the_error_of_the_library_that_looked_for_it() -> None:
    cause = ModuleNotFoundError("No module named 'gcsfs'", name="gcsfs")
    told = readable_failure(raised(ImportError("Please install gcsfs"), cause))
    assert told is not None
    assert "pip install 'foldcast[gcs]'" in told


@pytest.mark.parametrize(
    "error",
    [
        ValueError("operands could not be broadcast together with shapes (3,) (4,)"),
        KeyError("lead_time"),
        TypeError("got an unexpected keyword argument"),
        ModuleNotFoundError("No module named 'infra.moved'", name="infra.moved"),
        PermissionError(1, "Operation not permitted"),
        RuntimeError("oops"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_fault_of_foldcast_is_not_put_down_to_the_user(error: Exception) -> None:
    assert readable_failure(raised(error)) is None


def test_every_extra_that_is_named_brings_its_module(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    brings = {"orbax": "orbax-checkpoint", "dinosaur": "jcm", "prefect_kubernetes": "prefect-kubernetes"}
    for module, extra in EXTRAS.items():
        names = {re.split(r"[<>=\[]", requirement)[0] for requirement in extras[extra]}
        assert brings.get(module, module) in names, module
        assert not names & {re.split(r"[<>=\[]", need)[0] for need in project["dependencies"]}
