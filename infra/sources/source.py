"""The one interface between Foldcast and whoever provides analyses.

A source *offers* variables, says what of a request is *available* now, and *fetches* raw files as
the provider wrote them (array stores: exact copies of the values). It neither converts units nor
interpolates: ``infra.decoding`` and ``infra.interpolation`` do, the same way for all sources.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from model.task import TaskConfig
from model.variables import VARIABLES

SourceKind = Literal["hres", "era5", "gfs", "nature-run"]
"""Which analyses a source gives; a model's weights must have been trained on the same kind."""

RawFormat = Literal["grib", "netcdf", "zarr"]

AUXILIARY_VARIABLES = {"skin_temperature": "K", "sea_ice_cover": "1"}
"""Variables no model takes, but from which one can be made, with their units."""


@dataclass(frozen=True, kw_only=True)
class FieldRequest:
    """What is wanted of one valid time.

    Args:
        valid_time: time-zone aware, on a whole hour; stored in UTC.
        variables: long names (statics, accumulated precipitation and auxiliary variables included), distinct.
        levels: hPa, ascending; may be empty if no variable lies on levels.
    """

    valid_time: datetime
    variables: tuple[str, ...]
    levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.valid_time.tzinfo is None:
            raise ValueError(f"valid_time: expected a time-zone aware datetime, got {self.valid_time!r}")
        utc = self.valid_time.astimezone(UTC)
        if utc != utc.replace(minute=0, second=0, microsecond=0):
            raise ValueError(f"valid_time: expected a whole hour, got {self.valid_time.isoformat()}")
        object.__setattr__(self, "valid_time", utc)
        unknown = [name for name in self.variables if name not in (*VARIABLES, *AUXILIARY_VARIABLES)]
        if unknown or not self.variables or len(set(self.variables)) != len(self.variables):
            raise ValueError(f"variables: expected distinct known long names, got {self.variables}")
        if list(self.levels) != sorted(set(self.levels)) or any(level <= 0 for level in self.levels):
            raise ValueError(f"levels: expected ascending positive hPa, got {self.levels}")
        if self.on_levels and not self.levels:
            raise ValueError(f"levels: expected some for {', '.join(self.on_levels)}, got none")

    @property
    def on_levels(self) -> tuple[str, ...]:
        """The requested variables that lie on pressure levels."""
        return tuple(name for name in self.variables if name in VARIABLES and VARIABLES[name].on_levels)

    @property
    def digest(self) -> str:
        """12 hex digits that tell this request from every other."""
        text = json.dumps([self.valid_time.isoformat(), sorted(self.variables), self.levels])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def for_task(cls, task: TaskConfig, valid_time: datetime, *, statics: bool = False) -> FieldRequest:
        """All that one frame of a model's initial condition takes, with or without its statics."""
        names = task.time_inputs + (task.statics if statics else ())
        return cls(valid_time=valid_time, variables=names, levels=task.pressure_levels)


@dataclass(frozen=True, kw_only=True)
class SourceOffer:
    """Which variables a source can give.

    Args:
        direct: long names the provider publishes as they are (up to names, units and order).
        derived: long name → the rule that makes it from what the provider publishes.
        unavailable: long name → why it cannot be had here, and what to configure instead.
        levels: pressure levels in hPa.
    """

    direct: frozenset[str]
    levels: tuple[int, ...]
    derived: Mapping[str, str] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)

    def lacks(self, request: FieldRequest) -> tuple[str, ...]:
        """What of a request this source can never give, each with its reason; empty if nothing."""
        reasons = [
            f"{name}: {self.unavailable.get(name, 'not offered by this source')}"
            for name in request.variables
            if name not in self.direct and name not in self.derived
        ]
        absent = [level for level in request.levels if level not in self.levels]
        if request.on_levels and absent:
            reasons.append(f"levels {absent} hPa: the source has {list(self.levels)}")
        return tuple(reasons)


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Whether a request could be fetched now.

    Args:
        complete: everything is there.
        missing: the absent pieces, as people name them (``"q 850 of 20260101T00Z step 0"``).
        source: where it was looked up (URL or path).
    """

    complete: bool
    missing: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """One fetched file, whole and checked.

    Args:
        path: on this machine.
        format: how it is written.
        url: where it came from.
        sha256: hex digest of every GRIB message in file order, or of the whole file (one entry) otherwise;
            a folder (Zarr) hashes the concatenation of its files in order of their relative paths.
        size: bytes.
    """

    path: Path
    format: RawFormat
    url: str
    sha256: tuple[str, ...]
    size: int


_DECISIVE = (
    "kind", "roots", "root", "endpoint", "path", "model", "product", "resolution", "preliminary", "pattern",
)  # fmt: skip


def source_fingerprint(source: Source) -> str:
    """8 hex digits over what of a source's configuration decides the values it gives; no secret is among it.

    Two sources of one name that differ in their roots, their product or their kind are told apart by it, so that
    nothing fetched before a change of configuration is taken for what comes after it.
    """
    decisive = [type(source).__name__, *((name, str(getattr(source, name, None))) for name in _DECISIVE)]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:8]


@runtime_checkable
class Source(Protocol):
    """A provider of analyses. Implementations are frozen dataclasses, safe to use from several threads."""

    @property
    def name(self) -> str:
        """The name it is configured under, e.g. ``"open-data"``; part of object keys."""

    @property
    def kind(self) -> SourceKind:
        """Which analyses these are."""

    def offers(self) -> SourceOffer:
        """What the source can give at all."""

    def available(self, request: FieldRequest) -> Availability:
        """Whether the request is complete at the provider now; cheap (indexes and headers only).

        Raises:
            TransientSourceError: the provider could not be asked.
        """

    def fetch(self, request: FieldRequest, folder: Path) -> tuple[RawFile, ...]:
        """Bring the request into ``folder``; pieces already there and sound are not fetched again.

        The files together decode to the requested variables, derived ones included; they may hold more.

        Raises:
            MissingDataError: the provider lacks something of the request; says what.
            TransientSourceError: it failed in a way that may pass, after the source's own retries.
            InvalidFieldError: it delivered something damaged.
        """
