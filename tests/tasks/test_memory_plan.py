"""What the plan says of a worker's host memory, against measured peaks; what it offers where that is too much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infra.devices import Machine
from tasks.memory_plan import Choice, MemoryPlan
from tests.model.rollout.test_memory import model

GIB = 2**30
CPU = Machine(platform="cpu", device_kind="cpu", devices=1, device_bytes=None, host_bytes=64 * GIB)
GPU = Machine(
    platform="gpu", device_kind="NVIDIA H100", devices=1, device_bytes=80 * GIB, host_bytes=512 * GIB
)


def plan(name: str, machine: Machine, **choice: object) -> MemoryPlan:
    file, grid = model(name)
    settings = {"precision": "float32", "members_per_program": 1, **choice}
    return MemoryPlan(checkpoint=file, grid=grid, machine=machine, choice=Choice(**settings))  # type: ignore[arg-type]


# Peak resident memory of ``python -m benchmarks.measure`` (without Prefect, about 0.3 GB): load, compile, steps.
@pytest.mark.parametrize(("precision", "measured"), [("float32", 2.53e9), ("bfloat16", 1.95e9)])
def test_a_step_of_graphcast_small_is_foreseen(precision: str, measured: float) -> None:
    need = plan("graphcast-small", CPU, precision=precision).need
    assert measured < need.host < 1.7 * measured


def test_the_compiled_program_corrects_the_estimate_of_its_neighbours() -> None:
    estimated = plan("graphcast-small", GPU, members_per_program=4)
    compiled = replace(estimated, compiled=2 * estimated.need.device)
    assert compiled.need.device == pytest.approx(2 * estimated.need.device, rel=1e-6)
    tight = replace(GPU, device_bytes=estimated.need.device)
    assert replace(estimated, machine=tight).problems() == []
    assert replace(compiled, machine=tight).problems() != []
    assert replace(compiled, machine=tight).problems(tolerance=2.01) == []
    assert len(list(replace(compiled, machine=tight).remedies())) > 0


def test_dense_attention_that_does_not_fit_is_answered_with_the_devices_own() -> None:
    dense = plan("gencast-mini", GPU, attention="mha")
    own = plan("gencast-mini", GPU, attention="fused_banded_mha", precision="bfloat16")
    tight = replace(GPU, device_bytes=(dense.need.device + own.need.device) // 2)
    remedies = list(replace(dense, machine=tight).remedies())
    assert any("attention=fused_banded_mha" in remedy for remedy in remedies)


def test_a_quarter_degree_on_a_small_card_is_sent_to_a_coarser_model() -> None:
    small = replace(GPU, device_bytes=8 * GIB)
    [remedy] = plan("graphcast-quarter-degree", small).remedies()
    assert remedy.startswith("a checkpoint of such a model at 1°")
