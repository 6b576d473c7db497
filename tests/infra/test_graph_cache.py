from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from infra.graph_cache import graph_cache
from model.graphs.icosahedral_mesh import mesh_hierarchy
from model.graphs.model_graphs import EdgeSet, GridMeshGraphs, grid_mesh_graphs, model_graphs
from model.grid import Grid

GRID = Grid(resolution=30.0)


def build() -> GridMeshGraphs:
    return model_graphs(latitude=GRID.latitude, longitude=GRID.longitude, mesh_size=1, radius_fraction=0.6)


def build_without_mesh() -> GridMeshGraphs:
    mesh = mesh_hierarchy(1)[-1]
    return grid_mesh_graphs(latitude=GRID.latitude, longitude=GRID.longitude, mesh=mesh, radius_fraction=0.6)


def never() -> GridMeshGraphs:
    raise AssertionError("built again")


def assert_equal(left: GridMeshGraphs, right: GridMeshGraphs) -> None:
    assert type(left) is type(right)
    for field in fields(left):
        a, b = getattr(left, field.name), getattr(right, field.name)
        if isinstance(a, EdgeSet):
            for part in fields(a):
                np.testing.assert_array_equal(getattr(a, part.name), getattr(b, part.name))
        else:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", [build, build_without_mesh])
def test_graphs_are_built_once_and_come_back_whole(tmp_path: Path, kind) -> None:
    first = graph_cache(tmp_path)("small", kind)
    assert_equal(first, kind())
    assert_equal(graph_cache(tmp_path)("small", never), first)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_a_damaged_file_is_built_again(tmp_path: Path) -> None:
    graph_cache(tmp_path)("small", build)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    assert_equal(graph_cache(tmp_path)("small", build), build())
    assert_equal(graph_cache(tmp_path)("small", never), build())


def test_other_graphs_have_other_files(tmp_path: Path) -> None:
    graph_cache(tmp_path)("one", build)
    with pytest.raises(AssertionError, match="built again"):
        graph_cache(tmp_path)("other", never)
