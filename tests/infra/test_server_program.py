"""On SQLite, transactions that read before they write wait for each other instead of failing."""

from __future__ import annotations

import asyncio
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy.exc import OperationalError

from infra.local_services import LocalServer
from infra.server_program import begin_as_writer, main


def engine_at(path: Path) -> sa.Engine:
    """An engine that begins transactions as Prefect's does."""
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30.0, "check_same_thread": False})

    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")

    sa.event.listen(engine, "connect", connected)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN DEFERRED"))
    return engine


def add_one(connection: sa.Connection, found: int) -> None:
    connection.execute(sa.text("UPDATE counter SET value = :value"), {"value": found + 1})


def read(connection: sa.Connection) -> int:
    return int(connection.execute(sa.text("SELECT value FROM counter")).scalar_one())


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    engine = engine_at(tmp_path / "database")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE counter (value INTEGER)"))
        connection.execute(sa.text("INSERT INTO counter VALUES (0)"))
    return engine


def test_as_prefect_begins_them_the_later_one_fails_without_waiting(engine: sa.Engine) -> None:
    with engine.connect() as first, engine.connect() as second:
        found = read(first)
        with second.begin():
            add_one(second, read(second))
        with pytest.raises(OperationalError, match="database is locked"):
            add_one(first, found)


def test_begun_as_writers_they_wait_and_none_is_lost(engine: sa.Engine) -> None:
    sa.event.listen(engine, "before_cursor_execute", begin_as_writer, retval=True)

    def count(times: int) -> None:
        for _ in range(times):
            with engine.begin() as connection:
                add_one(connection, read(connection))

    with ThreadPoolExecutor(4) as pool:
        for counted in [pool.submit(count, 25) for _ in range(4)]:
            counted.result()
    with engine.connect() as connection:
        assert read(connection) == 100


def test_prefect_still_begins_them_so(tmp_path: Path) -> None:
    executed: list[str] = []

    async def one_transaction() -> None:
        configuration = AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{tmp_path / 'database'}")
        engine = await configuration.engine()
        sa.event.listen(
            engine.sync_engine, "before_cursor_execute", lambda *given: executed.append(str(given[2]))
        )
        async with await configuration.session(engine) as session, configuration.begin_transaction(session):
            await session.execute(sa.text("SELECT 1"))
        await engine.dispose()

    asyncio.run(one_transaction())
    assert executed == ["BEGIN DEFERRED", "SELECT 1"]


def test_what_is_run_begins_them_as_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[tuple[str, list[str], bool]] = []

    def seen(module: str, **_: Any) -> None:
        run.append((module, sys.argv, sa.event.contains(sa.Engine, "before_cursor_execute", begin_as_writer)))

    monkeypatch.setattr(runpy, "run_module", seen)
    monkeypatch.setattr(sys, "argv", ["server_program", "prefect", "server", "start"])
    try:
        main()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", begin_as_writer)
    assert run == [("prefect", ["prefect", "server", "start"], True)]


@pytest.mark.server
def test_the_server_is_started_so(prefect_server: LocalServer) -> None:
    lines = [process.cmdline() for process in psutil.Process().children(recursive=True)]
    assert any(line[1:4] == ["-m", "infra.service_program", "infra.server_program"] for line in lines)
