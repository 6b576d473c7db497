"""What a file system's or client library's failure means: may it pass on its own, or not?"""

from __future__ import annotations

import errno

from infra.errors import StoreError, TransientSourceError

_PERMANENT_ERRNOS = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR}
_CONNECTION_ERRORS = frozenset(
    {
        "botocore.ConnectionError",  # nobody answers at the endpoint
        "botocore.FlexibleChecksumError",
        "botocore.HTTPClientError",
        "botocore.IncompleteReadError",
        "botocore.ResponseParserError",  # an answer that was cut
        "aiohttp.ClientError",
        "gcsfs.HttpError",
    }
)


class translated:
    """Turns a file system's exceptions into Foldcast's: a StoreError lasts, a TransientSourceError may pass."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise StoreError(f"could not {self._action}: no such object") from error
        if isinstance(error, PermissionError):
            raise StoreError(f"could not {self._action}: permission denied") from error
        if isinstance(error, OSError) and error.errno in _PERMANENT_ERRNOS:
            raise StoreError(f"could not {self._action}: {error}") from error
        if isinstance(error, (OSError, TimeoutError)) or (error is not None and _may_pass(error)):
            raise TransientSourceError(f"could not {self._action}: {error}") from error


def _may_pass(error: BaseException) -> bool:
    """Whether a client library's own exception is about the connection (they are not all OSErrors)."""
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    return not kinds.isdisjoint(_CONNECTION_ERRORS)
