"""Compute a small ensemble of a published model in a process of its own, and print what came out as JSON.

``XLA_FLAGS`` of the environment decide how many devices the process has.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import jax
import xarray as xr

from flows.ensemble import forecast_ensemble
from infra import layout
from infra.analyses import write_analysis
from infra.forecast_store import open_forecast
from infra.manifests import load_member_manifest
from infra.object_store import ObjectStore
from infra.settings import ModelSettings, RunSettings, Settings, StoreSettings
from model.cycle import Cycle
from model.deepmind_format import read_example


def compute(case: Path, folder: Path, *, members: int, steps: int, block_size: int) -> dict:
    """The members of a parity case, computed by the controller in this process.

    Args:
        case: folder with ``params.npz``, ``dataset.nc`` and statistics.
        folder: where the store and the caches go.
        members: how many.
        steps: model steps.
        block_size: members per block.

    Returns:
        Number of devices, the devices that were used, and the sha256 of each member's values.
    """
    example = read_example(xr.load_dataset(case / "dataset.nc", engine="h5netcdf", decode_timedelta=True))
    cycle = Cycle(model="parity", init_time=example.init_time)
    store = ObjectStore(root=str(folder / "store"))
    write_analysis(store, layout.initial_condition(cycle), example.initial_condition)
    model = ModelSettings(
        checkpoint=str(case / "params.npz"),
        statistics=str(case),
        trained_on="era5",
        source="none",
        resolution=example.grid.resolution,
        members=members,
        steps=steps,
        block_size=block_size,
        checkpoint_every=1,
        precision="float32",
    )
    settings = Settings(
        store=StoreSettings(root=store.root),
        run=RunSettings(cache=str(folder / "cache")),
        models={"parity": model},
    )
    result = forecast_ensemble(cycle, settings)
    forecast = open_forecast(store, result.forecast_store, members=result.members).load()
    manifests = [load_member_manifest(store, cycle, result.run, member) for member in result.members]
    return {
        "devices": jax.local_device_count(),
        "used": sorted({manifest.device for manifest in manifests if manifest is not None}),
        "members": [
            hashlib.sha256(
                b"".join(forecast[name].sel(member=member).values.tobytes() for name in sorted(forecast))
            ).hexdigest()
            for member in result.members
        ],
    }


if __name__ == "__main__":
    json.dump(
        compute(
            Path(sys.argv[1]),
            Path(sys.argv[2]),
            members=int(sys.argv[3]),
            steps=int(sys.argv[4]),
            block_size=int(sys.argv[5]),
        ),
        sys.stdout,
    )
