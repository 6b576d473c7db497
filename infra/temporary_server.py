"""Prefect's temporary server, which a command without a server starts, out of reach of Ctrl-C.

Prefect starts it in the command's own process group. There a terminal's Ctrl-C would end it before the flow run
can report its end to it, which Prefect's client then tries for more than a minute; and a command that is killed
would leave it behind.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import prefect
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_HOME, get_current_settings

from infra.local_services import tied_process
from infra.settings import child_environment

_PROGRAM = (
    "uvicorn --factory prefect.server.api.server:create_app --lifespan on --log-level error --host 127.0.0.1"
)
_LIGHT = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
"""What tells Prefect's application, of itself, that it is the temporary server: no UI, the fewest services."""


class ShelteredServer(SubprocessASGIServer):
    """Prefect's, but in a session of its own and tied to this process.

    Once made it is the instance that Prefect starts when it first needs a server, and stops at the interpreter's end.
    """

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        installed = Path(prefect.__file__).parents[1]
        command = [*_PROGRAM.split(), "--port", str(self.port), "--app-dir", str(installed)]
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        logs = PREFECT_HOME.value() / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with open(logs / "temporary-server.log", "wb") as log:  # the command tells what matters to its user
            return tied_process(command, child_environment(**_LIGHT, **settings), log=log)

    def stop(self) -> None:
        process = self.server_process
        super().stop()
        if process is not None and process.stdin is not None:
            process.stdin.close()
