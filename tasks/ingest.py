"""Fetch: from a data provider to raw files in the object store."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from infra.analyses import has_raw, raw_folder, raw_manifest_key, store_raw
from infra.errors import MissingDataError, TransientSourceError
from infra.object_store import ObjectStore
from infra.sources.source import FieldRequest, Source

FETCH_TIMEOUT_SECONDS = 1800


def is_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a failed task run may succeed if tried again (Prefect's ``retry_condition_fn``)."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TransientSourceError)


def fetch_analysis(source: Source, request: FieldRequest, store: ObjectStore) -> str:
    """Bring a request's raw files into the store, if they are not there.

    Returns:
        Key of the manifest of the raw files.

    Raises:
        MissingDataError: the source cannot give a variable, or has not published it yet.
        TransientSourceError: it failed in a way that may pass; what arrived whole is not fetched again.
        InvalidFieldError: what it delivered is damaged.
    """
    key = raw_manifest_key(source, request)
    if has_raw(store, key):
        return key
    lacking = source.offers().lacks(request)
    if lacking:
        raise MissingDataError(f"source {source.name!r} cannot give {'; '.join(lacking)}")
    with raw_folder(store, source, request.valid_time) as folder:
        return store_raw(store, source, request, source.fetch(request, folder))


fetch_analysis_task = task(
    name="fetch analysis",
    retries=4,
    retry_delay_seconds=exponential_backoff(backoff_factor=15),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
    timeout_seconds=FETCH_TIMEOUT_SECONDS,
    persist_result=False,
    cache_policy=NO_CACHE,
)(fetch_analysis)
