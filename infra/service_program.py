"""A service as a child that does not outlive its parent: ``python -m infra.service_program MODULE ARGUMENTS…``.

Standard input is a pipe whose other end the parent holds and never writes to. However the parent ends, killed
without warning included, the system closes that end; then this process asks itself to stop, and soon insists.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

GRACE_SECONDS = 20.0
"""Between the request to stop and the end."""


def main() -> None:
    """Run a module as the main program, tied to the parent."""
    # A shell's background process is born deaf to SIGINT, and so is what it starts; but a worker that is to stop
    # interrupts itself.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = sys.argv[1:]
    parent = os.dup(sys.stdin.fileno())
    with open(os.devnull, "rb") as nothing:  # what this service starts must neither read nor keep the pipe
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    threading.Thread(target=_end_with, args=(parent,), name="end with parent", daemon=True).start()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with(parent: int) -> None:
    while os.read(parent, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
