"""Fine-tuning a checkpoint in the published form on an archive of other analyses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from infra.errors import FoldcastError, MissingDataError
from model.checkpoint_file import read_checkpoint
from model.errors import InvalidFieldError
from tasks.training import prepare, updates
from tasks.training_settings import TrainingSettings
from tests.model.parity import load_case

FROZEN = ("grid2mesh_gnn", "mesh_gnn")


@pytest.fixture(scope="module")
def published(parity_dir: Path) -> Path:
    return parity_dir / "graphcast_operational_f32"


@pytest.fixture(scope="module")
def archive(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The case's analyses as an archive."""
    example = load_case(published).example
    statics = ("geopotential_at_surface", "land_sea_mask")
    dataset = example.frames.merge(example.initial_condition[list(statics)].reset_coords(drop=True))
    first = np.datetime64(example.init_time.replace(tzinfo=None), "ns") - np.timedelta64(6, "h")
    dataset = dataset.assign_coords(time=first + np.arange(dataset.sizes["time"]) * np.timedelta64(6, "h"))
    path = tmp_path_factory.mktemp("archive") / "analyses.zarr"
    dataset.drop_encoding().drop_attrs().to_zarr(path, consolidated=False)
    return path


def settings(published: Path, archive: Path, output: Path, **changes: Any) -> TrainingSettings:
    fields: dict[str, Any] = {
        "archive": archive,
        "resolution": 10.0,
        "statistics": published,
        "output": output,
        "initialize_from": published / "params.npz",
        "optimizer": {"frozen": FROZEN, "average_decay": 0.0},
        "stages": ({"updates": 2, "peak_learning_rate": 1e-4},),
    }
    return TrainingSettings.model_validate(fields | changes)


def test_frozen_parts_stay_and_the_rest_learns(published: Path, archive: Path, tmp_path: Path) -> None:
    list(updates(prepare(settings(published, archive, tmp_path))))

    before = read_checkpoint((published / "params.npz").read_bytes())
    after = read_checkpoint((tmp_path / "params.npz").read_bytes())
    assert (after.task, after.config) == (before.task, before.config)
    changed = {
        module
        for module, parameters in before.params.items()
        if any((after.params[module][name] != array).any() for name, array in parameters.items())
    }
    # The decoder's mesh nodes reach no output: weight decay alone moves them, and it leaves normalisations as they are.
    assert changed == {module for module in before.params if not module.startswith(FROZEN)} - {
        "mesh2grid_gnn/~_networks_builder/processor_nodes_0_mesh_nodes_layer_norm"
    }


def test_another_grid_is_refused_with_the_reason(published: Path, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidFieldError, match="expected 10°, on which the checkpoint was trained, got 5°"):
        prepare(settings(published, archive, tmp_path, resolution=5.0))
    finer = tmp_path / "finer.zarr"
    with xr.open_zarr(archive, consolidated=False) as dataset:
        dataset.load().isel(longitude=slice(0, 18)).drop_encoding().to_zarr(finer, consolidated=False)
    with pytest.raises(InvalidFieldError, match="the model works on 10°"):
        prepare(settings(published, finer, tmp_path))


def test_a_lack_of_levels_is_refused_with_the_reason(published: Path, archive: Path, tmp_path: Path) -> None:
    fewer = tmp_path / "fewer.zarr"
    with xr.open_zarr(archive, consolidated=False) as dataset:
        levels = dataset["level"].values.tolist()
        dataset.load().isel(level=slice(1, None)).drop_encoding().to_zarr(fewer, consolidated=False)
    with pytest.raises(MissingDataError, match=rf"expected levels \[{levels[0]}\] hPa"):
        prepare(settings(published, fewer, tmp_path))


def test_frozen_parts_that_are_none_are_refused(published: Path, archive: Path, tmp_path: Path) -> None:
    wrong = settings(published, archive, tmp_path, optimizer={"frozen": ("decoder",)})
    with pytest.raises(FoldcastError, match=r"no parameters begin with \['decoder'\]"):
        next(updates(prepare(wrong)))
