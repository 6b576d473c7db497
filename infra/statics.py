"""Orography and land-sea mask on the model's grid: the same for all cycles, so made once and kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import xarray as xr

from infra import layout
from infra.analyses import has_analysis, read_analysis, write_shared_analysis
from infra.decoding import decode_files
from infra.errors import MissingDataError
from infra.interpolation import Method, regrid
from infra.object_store import ObjectStore
from infra.sources.source import FieldRequest, Source, source_fingerprint
from infra.version import code_version
from model.grid import Grid
from model.variables import STATICS


def prepare_statics(
    source: Source,
    store: ObjectStore,
    grid: Grid,
    request: FieldRequest,
    *,
    method: Method = "auto",
    cache: Path | None = None,
) -> xr.Dataset:
    """Surface geopotential and land-sea mask of a source, from the store or, the first time, from the source.

    Args:
        source: gives them.
        store: keeps them.
        grid: the model's.
        request: any request to the source; its valid_time is when the statics are taken, should they be
            needed.
        method: see ``infra.interpolation.regrid``.
        cache: folder that keeps interpolation weights.

    Returns:
        ``geopotential_at_surface`` (m² s⁻²) and ``land_sea_mask`` (share of land) without time, float32.

    Raises:
        MissingDataError: the source has none; name another source for them.
    """
    how = hashlib.sha256(
        json.dumps([source_fingerprint(source), method, code_version()]).encode()
    ).hexdigest()
    key = layout.statics(source.name, grid.resolution, how[:12])
    if has_analysis(store, key):
        return read_analysis(store, key)
    wanted = FieldRequest(valid_time=request.valid_time, variables=tuple(sorted(STATICS)))
    lacking = source.offers().lacks(wanted)
    if lacking:
        raise MissingDataError(f"source {source.name!r} has no statics: {'; '.join(lacking)}")
    with TemporaryDirectory(prefix="foldcast-statics-") as folder:
        files = source.fetch(wanted, Path(folder))
        decoded = decode_files(files, wanted, grid=grid, trusted=source.kind == "nature-run")
    fields = regrid(decoded, grid, method=method, cache=cache)
    fields.attrs |= {"source": source.name, "stored_as": json.dumps({"fields": key})}
    write_shared_analysis(store, key, fields)
    return read_analysis(store, key)
