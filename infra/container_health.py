"""The image's health check: whether the worker in this container still polls its pool.

``python -m infra.container_health`` asks what Prefect's worker reports of itself, which Kubernetes' probes ask too.
A container that runs one flow run has no worker; Prefect watches the flow run's own heartbeat.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

HEALTH_URL = "http://127.0.0.1:8080/health"
"""Where ``prefect worker start --with-healthcheck`` answers."""

_SECONDS = 8.0
_FIRST_PROCESS = Path("/proc/1/cmdline")


def is_healthy(arguments: Sequence[str], *, url: str = HEALTH_URL, seconds: float = _SECONDS) -> bool:
    """Whether a container does its work.

    Args:
        arguments: of its first process.
        url: where the worker reports.
        seconds: it has to answer.
    """
    if "worker" not in arguments:
        return True
    try:
        with urlopen(url, timeout=seconds) as response:
            return response.status == HTTPStatus.OK
    except (URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(0 if is_healthy(_FIRST_PROCESS.read_text().split("\0")) else 1)
