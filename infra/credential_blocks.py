"""Credentials that the Prefect server keeps: a block of type ``Secret``, which settings name instead of the values.

They are asked for where a store or source is opened, by the process that opens it: configuration, parameters and
command lines hold the block's name alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from infra.errors import FoldcastError, TransientSourceError
from infra.failures import plain_url, readable_failure


class CredentialsError(FoldcastError):
    """A block of credentials is not there, or does not hold what it must; the message shows nothing of it."""


def read_credentials(block: str) -> Mapping[str, Any]:
    """What a ``Secret`` block of the server in ``PREFECT_API_URL`` holds: a JSON object.

    It is read once in each process, so that work under way goes on while the server is away.

    Raises:
        CredentialsError: no server is named, it has no such block, or the block holds something else.
        TransientSourceError: the server cannot be reached or does not answer as it should.
    """
    from prefect.settings import PREFECT_API_URL  # imports the whole orchestration client

    server = PREFECT_API_URL.value()
    if not server:
        raise CredentialsError(
            f"credentials_block {block!r}: expected the address of the server that keeps it in PREFECT_API_URL, "
            "found none"
        )
    return _read(server, block)


STORE_KEYS = ("access_key", "secret_key", "session_token")
"""What opens an S3 store; the token goes with temporary keys alone."""


def read_store_keys(block: str) -> dict[str, str]:
    """What such a block holds for a store: both keys, and possibly a token and the endpoint's URL.

    Raises:
        CredentialsError: as ``read_credentials``, or it holds something else.
    """
    kept = read_credentials(block)
    known = {*STORE_KEYS, "endpoint_url"}
    if not set(STORE_KEYS[:2]) <= set(kept) <= known or not all(isinstance(v, str) for v in kept.values()):
        raise CredentialsError(
            f"credentials_block {block!r}: expected texts under access_key and secret_key and, where needed, "
            "session_token and endpoint_url; got something else"
        )
    return dict(kept)


@lru_cache
def _read(server: str, block: str) -> Mapping[str, Any]:
    import httpx
    from prefect.blocks.system import Secret
    from prefect.exceptions import ObjectNotFound

    try:
        value = cast(Any, Secret).load(block, _sync=True).get()
    except ValueError as error:
        if isinstance(error.__cause__, ObjectNotFound):
            raise CredentialsError(
                f"credentials_block {block!r}: expected a block of type Secret with that name on "
                f"{plain_url(server)}, found none"
            ) from None
        raise
    except httpx.HTTPError as error:
        raise TransientSourceError(f"credentials_block {block!r}: {readable_failure(error)}") from None
    if not isinstance(value, dict):
        raise CredentialsError(f"credentials_block {block!r}: expected a JSON object, got something else")
    return value
