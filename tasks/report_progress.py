"""Signs of life of a worker: a small object in the store for the controller, artifacts for people.

A thread of its own writes them, so that a long step does not look like a dead worker; it stops with the
process. Neither a failing store nor a failing server disturbs the computation.
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from infra.errors import FoldcastError
from infra.object_store import ObjectStore
from tasks.rollout import ProgressCallback, RolloutProgress

_LOG = logging.getLogger(__name__)
_SERVER_EVERY = 4


@contextmanager
def reported(
    store: ObjectStore,
    key: str,
    *,
    block: int,
    seconds: float,
    end_process: Callable[[int], object] = os._exit,
) -> Iterator[ProgressCallback]:
    """A progress callback whose latest call is reported at intervals while the body runs, and at its end.

    If the flow run is over for the server (the controller took it for lost and gave the block to another
    worker), the process ends: it would hold its device and compute what nobody waits for.

    Args:
        store: where the sign of life goes.
        key: its key.
        block: the block it is about.
        seconds: the interval.
        end_process: how the process ends, given its exit code.
    """
    reporter = _Reporter(store, key, block)
    stop = threading.Event()

    def work() -> None:
        beat = 0
        reporter.report(beat)
        while not stop.wait(seconds):
            beat += 1
            reporter.report(beat)
            if beat % _SERVER_EVERY == 0 and _is_over():
                _LOG.error("block %d: this attempt was given up; its process ends", block)
                end_process(1)

    with _meanwhile(work, stop):
        yield reporter.update
    reporter.report(-1)


@contextmanager
def load_shown(store: ObjectStore, signs: Sequence[str], *, key: str, seconds: float) -> Iterator[None]:
    """A table artifact with the load of every block's device, renewed at intervals while the body runs.

    Args:
        store: where the workers leave their signs of life.
        signs: keys of these.
        key: key of the artifact, in lower case, digits and dashes.
        seconds: the interval.
    """
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(seconds):
            try:
                rows = load_rows(store, signs)
                if rows:
                    create_table_artifact(table=rows, key=key, description="members, speed and memory")
            except Exception as error:
                _LOG.warning("the load could not be shown: %s", error)

    with _meanwhile(work, stop):
        yield


def load_rows(store: ObjectStore, signs: Sequence[str]) -> list[dict[str, Any]]:
    """The load of each block that has computed a step, as rows of a table."""
    documents = [json.loads(store.read(sign)) for sign in signs if store.exists(sign)]
    return [progress_row(document["block"], document) for document in documents if "member" in document]


@contextmanager
def _meanwhile(work: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    """Run something in a thread that knows the flow run, until the body ends."""
    run = contextvars.copy_context().run
    thread = threading.Thread(target=run, args=(work,), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _is_over() -> bool:
    """Whether the server holds this flow run for ended, though it runs."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return False
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(context.flow_run.id).state
    except Exception as error:
        _LOG.warning("the server could not be asked about this run: %s", error)
        return False
    return state is not None and state.is_final()


class _Reporter:
    def __init__(self, store: ObjectStore, key: str, block: int) -> None:
        self._store = store
        self._key = key
        self._block = block
        self._latest: RolloutProgress | None = None
        self._artifact: UUID | None = None

    def update(self, progress: RolloutProgress) -> None:
        self._latest = progress

    def report(self, beat: int) -> None:
        latest = self._latest
        document: dict[str, Any] = {"block": self._block, "beat": beat}
        context = FlowRunContext.get()
        if context is not None and context.flow_run is not None:
            document["flow_run"] = str(context.flow_run.id)
        if latest is not None:
            document |= asdict(latest)
        try:
            self._store.write(self._key, json.dumps(document).encode())
        except FoldcastError as error:
            _LOG.warning("no sign of life could be left: %s", error)
        if latest is None or context is None or (beat % _SERVER_EVERY and beat >= 0):
            return
        try:
            self._publish(latest)
        except Exception as error:
            _LOG.warning("progress could not be shown: %s", error)

    def _publish(self, latest: RolloutProgress) -> None:
        within = latest.step / latest.steps if latest.members_done < len(latest.members) else 0.0
        percent = min(100.0, 100.0 * (latest.members_done + within) / len(latest.members))
        if self._artifact is None:
            made = create_progress_artifact(
                percent, key=f"block-{self._block}-progress", description=f"members {_span(latest.members)}"
            )
            self._artifact = cast("UUID", made)  # no coroutine outside an event loop
        else:
            update_progress_artifact(self._artifact, percent)
        create_table_artifact(
            table=[progress_row(self._block, asdict(latest))], key=f"block-{self._block}", description="load"
        )


def progress_row(block: int, progress: dict[str, Any]) -> dict[str, Any]:
    """A block's progress as a row of a table."""
    memory = progress["memory"]
    return {
        "block": block,
        "members": _span(progress["members"]),
        "members done": progress["members_done"],
        "member": progress["member"],
        "step": f"{progress['step']}/{progress['steps']}",
        "s per step": round(progress["seconds_per_step"], 2),
        "device": progress["device"],
        "peak host GiB": round(memory["peak_host_bytes"] / 2**30, 2),
        "peak device GiB": round((memory["peak_device_bytes"] or 0) / 2**30, 2),
    }


def _span(members: Any) -> str:
    return f"{members[0]}–{members[-1]}" if len(members) > 1 else str(members[0])
