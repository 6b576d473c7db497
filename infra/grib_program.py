"""GRIB decoding as a program of its own: ``infra.decoding`` starts it, a damaged message may kill it.

Reads a request (JSON) from standard input and writes the decoded fields as NetCDF. What is wrong with the
files is said on standard error, with exit status 3. It imports as little as it can: it starts for every
decoding.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime

from infra.errors import InvalidFieldError
from infra.grib import SpectralTransform, decode

INVALID_FIELD = 3
"""Exit status for an InvalidFieldError; its message is the last line of standard error."""


def main() -> None:
    """Decode what the request on standard input asks for."""
    request = json.load(sys.stdin)
    times = request["valid_times"]
    try:
        dataset = decode(
            request["paths"],
            variables=request["variables"],
            levels=request["levels"],
            valid_times=None if times is None else [datetime.fromisoformat(time) for time in times],
            spectral=_spectral(request["spectral_grid"]),
            keep_unknown=request["keep_unknown"],
        )
    except InvalidFieldError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(INVALID_FIELD) from None
    dataset.to_netcdf(request["out"], engine="h5netcdf")


def _spectral(resolution: float | None) -> SpectralTransform | None:
    if resolution is None:
        return None
    from infra.interpolation_weights import spectral_transform
    from model.grid import Grid

    return spectral_transform(Grid(resolution=resolution))


if __name__ == "__main__":
    main()
