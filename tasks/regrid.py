"""Decode and regrid: from raw files to fields on the model's grid, both in the object store."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import xarray as xr
from prefect import task
from prefect.cache_policies import NO_CACHE

from infra import layout
from infra.analyses import has_analysis, open_raw, write_shared_analysis
from infra.decoding import decode_files
from infra.interpolation import Method, regrid
from infra.object_store import ObjectStore
from infra.version import code_version
from model.grid import Grid
from tasks.ingest import is_transient

_OF_THE_SEA = ("sea_surface_temperature", "skin_temperature", "sea_ice_cover")
"""Skin temperature is only ever read as a stand-in for that of the sea."""


def regrid_analysis(
    store: ObjectStore, raw_key: str, grid: Grid, *, method: Method = "auto", cache: Path | None = None
) -> str:
    """Decode raw files and bring them to a grid, if that was not done before.

    Args:
        store: holds the raw files and takes the fields.
        raw_key: key of a raw manifest, from ``fetch_analysis``.
        grid: the model's.
        method: see ``infra.interpolation.regrid``.
        cache: folder that keeps interpolation weights.

    Returns:
        Key of the fields: ``infra.analyses.read_analysis`` reads them. Their attrs carry the provenance:
        ``source``, ``kind``, ``urls``, ``messages`` (sha256 of each raw message), ``regridding``,
        ``code_version``, ``stored_as`` (JSON: keys of the raw manifest and of the fields).

    Raises:
        MissingDataError: a variable or level is not in the files.
        InvalidFieldError: a file is damaged or its grid is not understood.
        StoreError: the raw files are not in the store.
    """
    with open_raw(store, raw_key) as (request, manifest, files):
        how = hashlib.sha256(json.dumps([raw_key, method, code_version()]).encode()).hexdigest()[:12]
        key = layout.analysis(manifest["source"], request.valid_time, grid.resolution, how)
        if has_analysis(store, key):
            return key
        own = manifest["kind"] == "nature-run"
        decoded = decode_files(files, request, grid=grid, trusted=own)
    fields = regrid(decoded, grid, method=method, masks=_sea_masks(decoded), cache=cache)
    fields.attrs |= {
        "source": manifest["source"],
        "kind": manifest["kind"],
        "urls": json.dumps(sorted({entry["url"].split("#")[0] for entry in manifest["files"]})),
        "code_version": code_version(),
        "stored_as": json.dumps({"raw": raw_key, "fields": key}),
    }
    write_shared_analysis(store, key, fields)
    return key


def _sea_masks(decoded: xr.Dataset) -> dict[str, np.ndarray]:
    """Where fields of the sea mean something, if the land-sea mask came with them on their own grid.

    A field with missing values of its own already says where; it is left as the provider made it.
    """
    if "land_sea_mask" not in decoded:
        return {}
    sea = decoded["land_sea_mask"].values <= 0.5
    return {name: sea for name in _OF_THE_SEA if name in decoded and not bool(decoded[name].isnull().any())}


regrid_analysis_task = task(
    name="decode and regrid",
    retries=2,
    retry_delay_seconds=30,
    retry_condition_fn=is_transient,
    timeout_seconds=1800,
    persist_result=False,
    cache_policy=NO_CACHE,
)(regrid_analysis)
