import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import tasks.standalone
from infra.errors import CheckpointFileError, InvalidFieldError, StoreError
from model.deepmind_format import read_example
from model.forecaster import Forecaster
from tasks.standalone import rollout, show_checkpoint
from tests.model import tiny


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOLDCAST_RUN__CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tasks.standalone.enable_compilation_cache", lambda folder: None)
    (tmp_path / "params.npz").write_bytes(tiny.params_file())
    statistics = tiny.statistics()
    for name in ("mean", "stddev", "diffs_stddev"):
        getattr(statistics, name).to_netcdf(tmp_path / f"{name}_by_level.nc")
    condition = tiny.initial_condition()
    times = condition["time"].values
    example = condition.rename(latitude="lat", longitude="lon").assign_coords(time=times - times[0])
    in_time = example[["2m_temperature", "temperature"]].expand_dims("batch")
    example = in_time.assign(land_sea_mask=example["land_sea_mask"])
    example.assign_coords(datetime=(("batch", "time"), times[None])).to_netcdf(tmp_path / "dataset.nc")
    return tmp_path


def run(folder: Path, **options) -> None:
    rollout(
        **{
            "checkpoint": str(folder / "params.npz"),
            "dataset": str(folder / "dataset.nc"),
            "stats": str(folder),
            "steps": 2,
            "output": str(folder / "out.nc"),
            **options,
        }
    )


def test_example_is_read_as_it_was_meant(inputs: Path) -> None:
    example = read_example(xr.load_dataset(inputs / "dataset.nc", decode_timedelta=True))
    assert example.init_time == tiny.INIT_TIME
    assert example.grid == tiny.GRID
    np.testing.assert_array_equal(
        example.initial_condition["temperature"], tiny.initial_condition()["temperature"]
    )
    assert example.initial_condition["land_sea_mask"].dims == ("latitude", "longitude")


def test_steps_and_timings_are_written(inputs: Path) -> None:
    run(inputs, timings=inputs / "t.json")
    out = xr.load_dataset(inputs / "out.nc", decode_timedelta=True)
    assert dict(out.sizes) == {"batch": 1, "time": 2, "level": 2, "lat": 7, "lon": 12}
    assert np.isfinite(out["temperature"]).all()
    timings = json.loads((inputs / "t.json").read_text())
    assert len(timings["step_seconds"]) == 2
    assert timings["compile_seconds"] > 0
    assert timings["peak_host_bytes"] > 0
    assert timings["device"] == "cpu"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "at least one step"),
        ({"members": 2}, "members: expected 1 of a graphcast model without a perturbation.*got 2"),
        ({"dataset": "nowhere.nc"}, "dataset: expected a file"),
        ({"dataset": "params.npz"}, "expected a NetCDF file"),
        ({"stats": "nowhere"}, "statistics: expected a folder"),
    ],
)
def test_bad_arguments_are_named(inputs: Path, options: dict, message: str) -> None:
    options = {k: str(inputs / v) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(InvalidFieldError, match=message):
        run(inputs, **options)


class _SaidToBeStochastic:
    """The tiny model under the name of another family."""

    family = "gencast"

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster = forecaster

    def __getattr__(self, name: str) -> Any:
        return getattr(self._forecaster, name)


def test_a_stochastic_models_members_are_written(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = tasks.standalone.load_forecaster
    monkeypatch.setattr(
        tasks.standalone, "load_forecaster", lambda *a, **options: _SaidToBeStochastic(load(*a, **options))
    )
    run(inputs, members=2, timings=inputs / "t.json")
    out = xr.load_dataset(inputs / "out.nc", decode_timedelta=True)
    assert dict(out.sizes) == {"sample": 2, "batch": 1, "time": 2, "level": 2, "lat": 7, "lon": 12}
    assert np.isfinite(out["temperature"]).all()
    assert len(json.loads((inputs / "t.json").read_text())["step_seconds"]) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "out.txt"}, r"expected a name ending in \.nc or \.zarr, got 'out\.txt'"),
        ({"output": "absent/out.nc"}, "expected a folder to write into, found none at .*absent"),
        ({"timings": "absent/t.json"}, "expected a folder to write into, found none at .*absent"),
    ],
)
def test_where_it_writes_is_looked_at_first(inputs: Path, options: dict, message: str) -> None:
    (inputs / "params.npz").unlink()  # what is wrong is said before anything is read
    with pytest.raises(StoreError, match=message):
        run(inputs, **{name: inputs / place for name, place in options.items()})


def test_checkpoint_is_described(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_checkpoint(str(inputs / "params.npz"))
    shown = capsys.readouterr().out
    for expected in ("graphcast", "tiny", "mesh_size", "500, 850", "30°, 7 × 12", "6 h", "bfloat16"):
        assert expected in shown
    [on_cpu] = [line for line in shown.splitlines() if "memory on a CPU" in line]
    assert on_cpu.endswith("in bfloat16 (a CPU computes it in float32 copies)")
    (inputs / "bad.npz").write_bytes(b"no")
    with pytest.raises(CheckpointFileError, match=r"bad\.npz"):
        show_checkpoint(str(inputs / "bad.npz"))
