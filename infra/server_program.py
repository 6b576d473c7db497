"""Prefect's command with transactions that wait on SQLite: ``python -m infra.server_program server start``.

A transaction that reads before it writes fails at once with "database is locked" where another has written in
between, however long it may wait; one that stands in the queue of writers from its beginning waits. Prefect begins
most of its transactions the first way, and no setting changes that; here all begin the second. PostgreSQL
has no such words.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

from sqlalchemy import Engine, event


def begin_in_the_queue_of_writers(
    _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
) -> tuple[str, Any]:
    """SQLAlchemy's ``before_cursor_execute``: the statement and parameters to execute instead."""
    return ("BEGIN IMMEDIATE" if statement == "BEGIN DEFERRED" else statement), parameters


def main() -> None:
    """Run Prefect's command line as the main program."""
    event.listen(Engine, "before_cursor_execute", begin_in_the_queue_of_writers, retval=True)
    sys.argv[0] = "prefect"
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
