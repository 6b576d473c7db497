"""MIR, ECMWF's interpolation package, as a program of its own.

MIR logs to standard output and keeps its caches for as long as it lives; as a short-lived process it does
neither to a worker. ``infra.interpolation_weights`` runs this file by its path, so it imports nothing of
Foldcast.

    python mir_program.py weights SOURCE_GRID TARGET_GRID METHOD OUT.npz
    python mir_program.py transform IN.grib TARGET_GRID ROWS COLUMNS OUT.npy
"""

from __future__ import annotations

import sys

import numpy as np


def make_weights(source: str, target: str, method: str, out: str) -> None:
    """Write the sparse matrix (target points, source points) of an interpolation."""
    from mir.weight_matrix import WeightMatrix

    WeightMatrix.from_regrid(source, target, interpolation=method).to_npz(out)


def transform_spectral(path: str, target: str, rows: int, columns: int, out: str) -> None:
    """Write the fields of all messages of a file on the target grid, float32 (message, row, column)."""
    import eccodes
    import mir

    fields = []
    with open(path, "rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            message = eccodes.codes_get_message(handle)
            eccodes.codes_release(handle)
            output = mir.ArrayOutput()
            mir.Job(grid=target).execute(mir.GribMemoryInput(message), output)
            fields.append(np.asarray(output.values(), dtype=np.float32).reshape(rows, columns))
    np.save(out, np.stack(fields))


def main(arguments: list[str]) -> None:
    """Run one of the two commands above."""
    command, *rest = arguments
    if command == "weights":
        make_weights(*rest)
    elif command == "transform":
        path, target, rows, columns, out = rest
        transform_spectral(path, target, int(rows), int(columns), out)
    else:
        raise SystemExit(f"expected 'weights' or 'transform', got {command!r}")


if __name__ == "__main__":
    main(sys.argv[1:])
