"""What a model takes and gives: variables, levels, the length of its step."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from model.variables import COMPUTED_FORCINGS, STATICS, VARIABLES


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """A published checkpoint's ``task_config``, field by field.

    Args:
        input_variables: names of all inputs, forcings and statics included.
        target_variables: names of what the model predicts.
        forcing_variables: names known beforehand at every target time.
        pressure_levels: hPa, ascending.
        input_duration: two steps, as ``"12h"`` (GraphCast) or ``"24h"`` (GenCast).
    """

    input_variables: tuple[str, ...]
    target_variables: tuple[str, ...]
    forcing_variables: tuple[str, ...]
    pressure_levels: tuple[int, ...]
    input_duration: str

    def __post_init__(self) -> None:
        for field in ("input_variables", "target_variables", "forcing_variables"):
            unknown = [name for name in getattr(self, field) if name not in VARIABLES]
            if unknown:
                raise ValueError(f"{field}: unknown variables {unknown}; known: {sorted(VARIABLES)}")
        levels = self.pressure_levels
        if list(levels) != sorted(set(levels)) or not levels or levels[0] <= 0:
            raise ValueError(f"pressure_levels: expected ascending positive hPa, got {levels}")
        if not self.input_duration.endswith("h") or not self.input_duration[:-1].isdigit():
            raise ValueError(f"input_duration: expected hours such as '12h', got {self.input_duration!r}")
        if int(self.input_duration[:-1]) % 2:
            raise ValueError(f"input_duration: expected two whole-hour steps, got {self.input_duration!r}")

    @property
    def step(self) -> timedelta:
        """Time between two frames: half of input_duration (both families take two input frames)."""
        return timedelta(hours=int(self.input_duration[:-1]) // 2)

    @property
    def time_inputs(self) -> tuple[str, ...]:
        """Inputs with a time dimension that come from an analysis (neither computed forcing nor static)."""
        return tuple(n for n in self.input_variables if n not in COMPUTED_FORCINGS and n not in STATICS)

    @property
    def statics(self) -> tuple[str, ...]:
        """Inputs without a time dimension."""
        return tuple(n for n in self.input_variables if n in STATICS)
