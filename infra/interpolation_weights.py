"""Interpolation weights and spectral transforms from MIR, made once and kept.

MIR runs as a short-lived program (``infra.mir_program``); its matrices are stored as scipy's ``.npz``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
import scipy.sparse

from infra import mir_program
from infra.errors import InvalidFieldError
from infra.grib import SpectralTransform
from infra.grib_field import SourceGrid
from infra.settings import child_environment
from model.grid import Grid

MIR_TIMEOUT_SECONDS = 900.0
"""Until MIR is ended: a stalled disk would keep it, and the worker, for ever."""

WeightedMethod = Literal["linear", "conservative", "nearest"]
_MIR_METHODS: dict[WeightedMethod, str] = {
    "linear": "linear",
    "conservative": "grid-box-average",
    "nearest": "nearest-neighbour",
}


def weights(
    source: str, grid: Grid, *, method: WeightedMethod, cache: Path | None = None
) -> scipy.sparse.csr_array:
    """The sparse matrix (target points, source points) of an interpolation; rows sum to 1.

    Args:
        source: grid as MIR writes it; points run from north to south, west to east, or in HEALPix order.
        grid: the target; its points run from north to south here too.
        method: linear (on triangles), conservative (grid-box average) or nearest.
        cache: folder that keeps the matrices.

    Raises:
        InvalidFieldError: MIR does not know the grid or cannot interpolate from it.
    """
    target = _mir_target(grid)
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="foldcast-mir-") as folder:
            return _make_weights(source, target, _MIR_METHODS[method], Path(folder, "weights.npz"))
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", source).strip("-")
    digest = hashlib.sha256(json.dumps([source, target, method]).encode()).hexdigest()[:12]
    path = cache / f"{readable[:60]}-to-{grid.resolution:g}-{method}-{digest}.npz"
    if path.exists():
        try:
            return scipy.sparse.csr_array(scipy.sparse.load_npz(BytesIO(path.read_bytes())))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # damaged: make it again
            path.unlink(missing_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".writing-") as folder:
        temporary = Path(folder, "weights.npz")
        matrix = _make_weights(source, target, _MIR_METHODS[method], temporary)
        os.replace(temporary, path)
    return matrix


def _make_weights(source: str, target: str, method: str, path: Path) -> scipy.sparse.csr_array:
    _run_mir("weights", source, target, method, str(path))
    return scipy.sparse.csr_array(scipy.sparse.load_npz(path))


def _run_mir(*arguments: str) -> None:
    with tempfile.TemporaryDirectory(prefix="foldcast-mir-") as own_cache:
        try:
            finished = subprocess.run(
                [sys.executable, mir_program.__file__, *arguments],
                env=child_environment(MIR_CACHE_PATH=own_cache),
                capture_output=True,
                text=True,
                check=False,
                timeout=MIR_TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise InvalidFieldError(
                f"MIR did not {' '.join(arguments[:4])} within {MIR_TIMEOUT_SECONDS:g} s"
            ) from error
    if finished.returncode != 0:
        lines = [line for line in finished.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else "no reason given"
        raise InvalidFieldError(f"MIR could not {' '.join(arguments[:4])}: {reason}")


def _mir_target(grid: Grid) -> str:
    return f"{{grid: [{grid.resolution:.10g}, {grid.resolution:.10g}]}}"


def spectral_transform(grid: Grid) -> SpectralTransform:
    """What ``infra.grib.decode`` takes for spherical harmonics: MIR evaluates them on ``grid``."""

    def transform(messages: Sequence[bytes]) -> tuple[SourceGrid, list[np.ndarray]]:
        with tempfile.TemporaryDirectory(prefix="foldcast-mir-") as folder:
            source, out = Path(folder, "in.grib"), Path(folder, "out.npy")
            source.write_bytes(b"".join(messages))
            rows, columns = grid.shape
            _run_mir("transform", str(source), _mir_target(grid), str(rows), str(columns), str(out))
            fields = np.load(out, allow_pickle=False)[:, ::-1]
        return (
            SourceGrid(
                gridded=True,
                latitude=grid.latitude.astype(np.float64),
                longitude=grid.longitude.astype(np.float64),
                specification="",
                order=None,
            ),
            list(fields),
        )

    return transform
