"""Several devices: four of the host's, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from model.networks import graphcast_graphs
from model.training.parallel import DeviceLayout
from model.training.partition import partition_structure
from tests.conftest import QUICK_COMPILATION
from tests.fakes.training_archive import write_archive, write_statistics
from tests.model.tiny import CONFIG, GRID


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    folder = tmp_path_factory.mktemp("sharded")
    write_statistics(folder / "statistics", write_archive(folder / "archive.zarr"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.sharded_training", str(folder)],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{QUICK_COMPILATION} --xla_force_host_platform_device_count=4",
        },
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("layout", ["data", "sample", "both", "sample, recomputed", "gencast, data"])
def test_devices_give_the_update_of_one_device(results: dict[str, dict[str, float]], layout: str) -> None:
    """The same global batch of four, a rollout of two steps; float32, other orders of summation."""
    one, several = results["gencast, one" if "gencast" in layout else "one"], results[layout]

    assert several["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert several["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-5)
    assert 0 < several["difference"] < 1e-4


def test_every_edge_is_in_one_part_and_between_the_same_nodes() -> None:
    parts = 4
    graphs = graphcast_graphs(CONFIG, GRID)
    structure = jax.tree.map(np.asarray, partition_structure(graphs, parts))
    points, vertices = structure.grid_features.shape[1], structure.mesh_features.shape[1] // parts
    # Vertex v is number v // 4 of device v % 4.
    vertex = np.arange(vertices * parts).reshape(vertices, parts).T.reshape(-1)

    edges = set()
    chunks = structure.grid_to_mesh
    for part in range(parts):
        receivers = chunks.receivers[part] + chunks.first_receivers[part][:, None]
        real = chunks.receivers[part] >= 0
        senders = chunks.senders[part][real] + part * points
        assert (chunks.receivers[part] < chunks.span).all()
        edges |= set(zip(senders.tolist(), vertex[receivers[real]].tolist(), strict=True))
    whole = graphs.grid_to_mesh
    assert edges == set(zip(whole.senders.tolist(), whole.receivers.tolist(), strict=True))

    mesh = []
    for part in range(parts):
        filled = structure.mesh.filled[part]
        own = structure.mesh.receivers[part][..., None] + part * vertices
        receivers = np.broadcast_to(own, filled.shape)[filled]
        senders = structure.mesh.senders[part][filled]
        mesh += list(zip(vertex[senders].tolist(), vertex[receivers].tolist(), strict=True))
    empty = np.zeros(graphs.mesh.senders.size, bool).reshape(-1, 6)
    empty[graphs.mesh.receivers[::6] < 12, -1] = True
    real = ~empty.reshape(-1)
    expected = zip(graphs.mesh.senders[real].tolist(), graphs.mesh.receivers[real].tolist(), strict=True)
    assert sorted(mesh) == sorted(expected)

    corners = structure.mesh_to_grid_senders.reshape(-1, 3)[: graphs.grid_features.shape[0]]
    np.testing.assert_array_equal(vertex[corners].reshape(-1), graphs.mesh_to_grid.senders)


def test_layouts_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one device"):
        DeviceLayout(data=0)
    with pytest.raises(ValueError, match=r"expected 3 × 400 = 1200, got 1"):
        DeviceLayout(data=3, sample=400).mesh(jax.local_devices()[:1])
