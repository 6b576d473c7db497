"""What went wrong in a line for people, as far as a user, a machine or a server is behind it."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from infra.errors import FoldcastError
from infra.machine_faults import behind, machine_fault

_LOG = logging.getLogger(__name__)

EXTRAS = {
    "asyncpg": "postgresql",
    "dinosaur": "nature-run",
    "gcsfs": "gcs",
    "jcm": "nature-run",
    "optax": "train",
    "orbax": "train",
    "prefect_kubernetes": "kubernetes",
}
"""Module → the extra of Foldcast that brings it."""


def readable_failure(error: BaseException) -> str | None:
    """What a user is told of an exception; None for one that is a fault of Foldcast itself.

    Args:
        error: anything raised. Expected failures speak for themselves. A full disk, a missing extra, a server that
            refuses or is not there, and files that are not what they must be, are told from the exception
            that reports them.
    """
    if isinstance(error, FoldcastError):
        return str(error)
    return machine_fault(error) or missing_extra(error) or _server_failure(error) or _system_failure(error)


@contextmanager
def told_as_failure(what: str) -> Iterator[None]:
    """Whatever the block raises, as a FoldcastError for people; of what is none, the log has the traceback.

    Args:
        what: that was tried, for the log.

    Raises:
        FoldcastError: the block's own, or one that says what it raised.
    """
    try:
        yield
    except FoldcastError:
        raise
    except Exception as error:
        _LOG.exception("%s", what)
        raise FoldcastError(readable_failure(error) or repr(error)) from error


def missing_extra(error: BaseException) -> str | None:
    """Which extra brings the module whose absence is behind an exception; None if there is none behind it."""
    for each in behind(error):
        module = (each.name or "").split(".")[0] if isinstance(each, ImportError) else ""
        if module in EXTRAS:
            extra = EXTRAS[module]
            return f"this needs the extra {extra!r}: pip install 'foldcast[{extra}]' (no module named {module!r})"
    return None


def _server_failure(error: BaseException) -> str | None:
    httpx, prefect = sys.modules.get("httpx"), sys.modules.get("prefect.exceptions")
    if httpx is not None and isinstance(error, httpx.HTTPStatusError):
        response = error.response
        hint = "; PREFECT_API_AUTH_STRING takes its user:password" if response.status_code == 401 else ""
        where = plain_url(str(response.url))
        return f"server {where}: refused with {response.status_code} {response.reason_phrase}{hint}"
    if httpx is not None and isinstance(error, httpx.TransportError):
        request = getattr(error, "_request", None)  # the property raises where there is none
        where = f" {plain_url(str(request.url))}" if request is not None else ""
        return f"server{where}: cannot be reached: {str(error) or type(error).__name__}"
    if prefect is not None and isinstance(error, prefect.ObjectNotFound):
        return f"Prefect server: does not have what is asked for: {error}"
    if isinstance(error, RuntimeError) and "ephemeral Prefect API server" in str(error):
        return "Prefect's temporary server: did not start in time; the machine is busy, or `foldcast serve` helps"
    return None


def _system_failure(error: BaseException) -> str | None:
    if isinstance(error, (ConnectionError, socket.gaierror, TimeoutError)) and str(error):
        return f"network: {error}"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return None


def plain_url(url: str) -> str:
    """A URL without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
