"""One sha256 for the contents of a Dataset, whatever file or store it came from."""

from __future__ import annotations

import hashlib

import numpy as np
import xarray as xr


def dataset_sha256(dataset: xr.Dataset) -> str:
    """sha256 in hex over names, dims, types and values of all variables and coordinates; attrs do not count."""
    digest = hashlib.sha256()
    for name in sorted(map(str, dataset.variables)):
        variable = dataset[name]
        values = np.asarray(variable.values, order="C")
        if values.dtype.hasobject:
            raise TypeError(f"{name}: expected numbers or times, got {values.dtype}")
        digest.update(f"{name} {variable.dims} {values.dtype.str} {values.shape}".encode())
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
