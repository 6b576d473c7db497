"""Where observations are made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.errors import InvalidFieldError


@dataclass(frozen=True, kw_only=True)
class Stations:
    """Where observations are made; all arrays have shape (station,).

    Args:
        names: identifiers, distinct.
        latitude: degrees north.
        longitude: degrees east, in any of the usual ranges.
        height: metres above mean sea level; NaN where unknown.
    """

    names: tuple[str, ...]
    latitude: np.ndarray
    longitude: np.ndarray
    height: np.ndarray

    def __post_init__(self) -> None:
        shapes = {np.shape(array) for array in (self.latitude, self.longitude, self.height)}
        if shapes != {(len(self.names),)} or len(set(self.names)) != len(self.names):
            raise InvalidFieldError(
                f"stations: expected one place for each of {len(self.names)} distinct names, got shapes {shapes}"
            )
        if not (np.abs(self.latitude) <= 90).all() or not np.isfinite(self.longitude).all():
            raise InvalidFieldError("stations: expected latitudes within −90…90 and finite longitudes")
