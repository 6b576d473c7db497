"""The estimate against what XLA says of the compiled programs, and against the sizes it is made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.cases import CASES
from infra.demo import bundled
from model.checkpoint_file import CheckpointFile, read_checkpoint
from model.grid import Grid
from model.networks import checkpoint_grid
from model.rollout.memory import memory_needed
from tests.model.tiny import checkpoint

# ``NetworkForecaster.compiled_memory()``: arguments + outputs + temporaries of the program for one CPU, JAX 0.10,
# attention "auto", in MB; taken with random weights for the published sizes.
COMPILED = [
    ("graphcast-small", "float32", 1, 1615.2),
    ("graphcast-small", "float32", 2, 2552.4),
    ("graphcast-small", "bfloat16", 1, 1733.1),
    ("graphcast-quarter-degree", "float32", 1, 23374.8),
    ("graphcast-quarter-degree", "bfloat16", 1, 25189.9),
    ("gencast-mini", "float32", 1, 1620.5),
    ("gencast-mini", "bfloat16", 1, 1956.5),
    ("graphcast.npz", "float32", 1, 13.0),
    ("graphcast.npz", "float32", 4, 34.4),
    ("graphcast.npz", "bfloat16", 1, 19.8),
    ("gencast.npz", "float32", 1, 21.4),
]
PARAMETERS = {
    "graphcast-small": 35_979_347,
    "graphcast-quarter-degree": 36_350_000,
    "gencast-mini": 57_492_612,
}


def model(name: str) -> tuple[CheckpointFile, Grid]:
    if name.endswith(".npz"):
        file = read_checkpoint(bundled(name).read_bytes(), name=name)
        return file, checkpoint_grid(file)
    case = CASES[name]
    parameters = {"all": {"w": np.broadcast_to(np.float32(0), (PARAMETERS[name],))}}
    file = CheckpointFile(params=parameters, task=case.task, config=case.config, description="", license="")
    return file, Grid(resolution=case.resolution)


@pytest.mark.parametrize(("name", "precision", "members", "compiled"), COMPILED)
def test_the_estimate_is_within_a_tenth_of_the_compiled_program(
    name: str, precision: str, members: int, compiled: float
) -> None:
    file, grid = model(name)
    estimate = memory_needed(file, grid, precision=precision, members=members) / 1e6
    assert estimate == pytest.approx(compiled, rel=0.1)


def test_members_add_weather_and_activations_but_not_weights() -> None:
    file = checkpoint()
    one, two, three = (
        memory_needed(file, Grid(resolution=30.0), precision="float32", members=m) for m in (1, 2, 3)
    )
    assert two - one == three - two
    assert two < 2 * one


def test_half_precision_halves_what_an_accelerator_holds_and_nothing_on_a_cpu() -> None:
    file, grid = model("graphcast-small")

    def need(precision: str, platform: str) -> int:
        return memory_needed(file, grid, precision=precision, platform=platform)

    assert 0.45 < need("bfloat16", "gpu") / need("float32", "gpu") < 0.7
    assert need("bfloat16", "cpu") > need("float32", "cpu")


def test_attention_is_counted_as_each_kind_holds_it() -> None:
    # Mesh 4 has 2562 vertices in rings of 80; 16 hops reach 1280 of them to either side. Three arrays of four
    # heads in float32 are 48 bytes for each (query, key).
    file, grid = model("gencast-mini")

    def need(kind: str, precision: str = "float32") -> int:
        return memory_needed(file, grid, precision=precision, attention=kind, platform="gpu")

    without = memory_needed(file, grid, precision="float32", attention="splash_mha", platform="tpu")
    assert need("mha") - without == 48 * 2562**2
    assert need("triblockdiag_mha") == need("mha"), "three blocks of 1280 are all of this mesh"
    assert need("blocked_mha") - without == 48 * 256 * 2562
    assert need("fused_banded_mha", "bfloat16") < need("triblockdiag_mha", "bfloat16")


def test_a_quarter_degree_needs_what_is_published() -> None:
    # DeepMind states about 60 GB for GenCast at 0.25° on a GPU, with block-tridiagonal attention.
    file, _ = model("gencast-mini")
    architecture = file.config.denoiser_architecture_config  # type: ignore[union-attr]
    large = replace(
        file, config=replace(file.config, denoiser_architecture_config=replace(architecture, mesh_size=6))
    )  # type: ignore[type-var]
    need = memory_needed(
        large, Grid(resolution=0.25), precision="float32", attention="triblockdiag_mha", platform="gpu"
    )
    assert 40e9 < need < 80e9
