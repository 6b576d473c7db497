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
from infra.supervision import ServiceError

_PROGRAM = (
    "infra.server_program uvicorn --factory prefect.server.api.server:create_app --lifespan on --log-level error "
    "--host 127.0.0.1"
)
_MOST_STARTS = 3
_LIGHT = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
"""What tells Prefect's application, of itself, that it is the temporary server: no UI, the fewest services."""


class ShelteredServer(SubprocessASGIServer):
    """Prefect's, but in a session of its own and tied to this process.

    Once made it is the instance that Prefect starts when it first needs a server, and stops at the interpreter's end.
    Where it ends at its start, Prefect takes its port for taken and starts it again, for minutes: a few times will do.
    """

    _starts = 0

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        _let_go(self.server_process)  # one that has ended
        log_file = PREFECT_HOME.value() / "logs" / "temporary-server.log"
        if self._starts == _MOST_STARTS:
            raise ServiceError(
                f"Prefect's temporary server: ended {self._starts} times at its start; see {log_file}"
            )
        installed = Path(prefect.__file__).parents[1]
        command = [*_PROGRAM.split(), "--port", str(self.port), "--app-dir", str(installed)]
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with open(log_file, "ab", buffering=0) as log:  # off the command's own output
            log.write(f"start {self._starts} on port {self.port}\n".encode())  # a full disk is told here
            self._starts += 1
            return tied_process(command, child_environment(**_LIGHT, **settings), log=log)

    def stop(self) -> None:
        process = self.server_process
        super().stop()
        _let_go(process)


def _let_go(process: subprocess.Popen[Any] | None) -> None:
    if process is not None and process.stdin is not None:
        process.stdin.close()
