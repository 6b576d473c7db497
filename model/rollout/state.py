"""What a member needs in order to continue from where it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import xarray as xr


@dataclass(frozen=True, kw_only=True)
class RolloutState:
    """A member between two steps; lives on the host.

    Args:
        member: global member number.
        init_time: start of the forecast, time-zone aware.
        step: the next step to compute, from 0.
        key: the carried random key, raw threefry data: uint32, shape (2,).
        frames: the model's input window: float32 numpy, dims (time=2, [level,] latitude, longitude).
    """

    member: int
    init_time: datetime
    step: int
    key: np.ndarray
    frames: xr.Dataset

    def __post_init__(self) -> None:
        if self.member < 0 or self.step < 0:
            raise ValueError(f"expected member ≥ 0 and step ≥ 0, got member {self.member}, step {self.step}")
        if self.init_time.tzinfo is None:
            raise ValueError(f"init_time: expected a time-zone aware datetime, got {self.init_time!r}")
        if self.key.dtype != np.uint32 or self.key.shape != (2,):
            raise ValueError(f"key: expected uint32 of shape (2,), got {self.key.dtype} {self.key.shape}")
