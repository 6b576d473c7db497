"""Model graphs on disk, by what determines them: built once on a machine, then read in seconds.

A file is one uncompressed ``.npz`` of arrays, named after the graphs and the version of their layout. It is
written under a temporary name and renamed; a damaged one is built again.
"""

from __future__ import annotations

import uuid
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from model.graphs.model_graphs import EdgeSet, GridMeshGraphs, ModelGraphs

_LAYOUT_VERSION = 1
_KINDS: dict[str, type[GridMeshGraphs]] = {"ModelGraphs": ModelGraphs, "GridMeshGraphs": GridMeshGraphs}


def graph_cache(folder: Path) -> Callable[[str, Callable[[], Any]], Any]:
    """A ``model.networks.GraphStore`` that keeps graphs in a folder.

    Args:
        folder: made when the first graphs are written.
    """

    def fetch(name: str, build: Callable[[], GridMeshGraphs]) -> GridMeshGraphs:
        path = folder.expanduser() / f"{name}-v{_LAYOUT_VERSION}.npz"
        if path.is_file():
            try:
                return _read(path)
            except (zipfile.BadZipFile, OSError, ValueError, KeyError):
                path.unlink(missing_ok=True)
        graphs = build()
        _write(path, graphs)
        return graphs

    return fetch


def _write(path: Path, graphs: GridMeshGraphs) -> None:
    arrays: dict[str, Any] = {"kind": np.array(type(graphs).__name__)}
    for field in fields(graphs):
        value = getattr(graphs, field.name)
        if isinstance(value, EdgeSet):
            arrays.update({f"{field.name}:{part.name}": getattr(value, part.name) for part in fields(value)})
        else:
            arrays[field.name] = np.asarray(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.tmp.npz")
    try:
        np.savez(partial, **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> GridMeshGraphs:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        kind = _KINDS[str(archive["kind"])]
        values: dict[str, Any] = {}
        for field in fields(kind):
            if field.name in archive:
                array = archive[field.name]
                values[field.name] = tuple(array.tolist()) if field.name == "level_sizes" else array
            else:
                values[field.name] = EdgeSet(
                    **{part.name: archive[f"{field.name}:{part.name}"] for part in fields(EdgeSet)}
                )
    return kind(**values)
