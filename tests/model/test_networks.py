from dataclasses import replace
from pathlib import Path

import pytest

from model.checkpoint_file import read_checkpoint
from model.errors import InvalidFieldError
from model.grid import Grid
from model.networks import checkpoint_grid
from tests.model.tiny import checkpoint


def test_graphcast_says_its_grid() -> None:
    assert checkpoint_grid(checkpoint()) == Grid(resolution=30.0)
    with pytest.raises(InvalidFieldError, match="expected 30°, on which the checkpoint was trained, got 15°"):
        checkpoint_grid(checkpoint(), Grid(resolution=15.0))


@pytest.mark.parametrize(
    ("description", "resolution"),
    [("GenCast 0p25deg <2019", 0.25), ("GenCast 1p0deg Mini <2019", 1.0), ("demo, resolution 7.5", 7.5)],
)
def test_gencast_says_it_in_its_description(parity_dir: Path, description: str, resolution: float) -> None:
    silent = read_checkpoint((parity_dir / "gencast_f32" / "params.npz").read_bytes())
    assert checkpoint_grid(replace(silent, description=description)) == Grid(resolution=resolution)
    with pytest.raises(InvalidFieldError, match="expected the grid to be named"):
        checkpoint_grid(silent)
    assert checkpoint_grid(silent, Grid(resolution=10.0)) == Grid(resolution=10.0)
