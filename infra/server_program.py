"""Prefect's server with transactions that wait on SQLite: ``python -m infra.server_program MODULE ARGUMENTS…``.

A transaction that reads before it writes fails at once with "database is locked" where another has written in
between, however long it may wait; one that is a writer's from its beginning waits. Prefect begins most of its
transactions the first way, and no setting changes that; here all begin the second. PostgreSQL has no such words.

No transaction may wait for another of the same request then, not even to read; Prefect's do not.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

from sqlalchemy import Engine, event


def begin_as_writer(
    _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
) -> tuple[str, Any]:
    """SQLAlchemy's ``before_cursor_execute``: the statement and parameters to execute instead."""
    return ("BEGIN IMMEDIATE" if statement == "BEGIN DEFERRED" else statement), parameters


def main() -> None:
    """Run a module that starts Prefect's server in this process as the main program."""
    event.listen(Engine, "before_cursor_execute", begin_as_writer, retval=True)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
