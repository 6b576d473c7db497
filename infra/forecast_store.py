"""The forecast store: every member's every step, one Zarr chunk per variable, member and lead time.

Zarr v3, an array per target variable with dims (member, lead_time, [level,] latitude, longitude). The index
along ``member`` is the global member number and index ``i`` along ``lead_time`` is ``i + 1`` model steps, so a
chunk's key says what it holds, whoever wrote it. The controller lays the arrays out once (metadata only) and
may lay them out larger later; workers write whole chunks. A chunk written twice holds the same bytes.
Members that were not computed read as NaN.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.codecs import BloscCodec
from zarr.core.buffer import Buffer
from zarr.storage import WrapperStore

from infra.errors import IncompleteCycleError, InvalidFieldError, StoreError
from infra.object_store import ObjectStore
from model.grid import Grid
from model.task import TaskConfig
from model.variables import VARIABLES

_COMPRESSOR = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")


def create_forecast_store(
    store: ObjectStore,
    key: str,
    *,
    task: TaskConfig,
    grid: Grid,
    init_time: datetime,
    members: int,
    steps: int,
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Lay out the store, or make an existing one large enough; writes metadata and coordinates only.

    Args:
        store: where.
        key: key of the Zarr group.
        task: gives the variables, levels and step.
        grid: gives latitude and longitude.
        init_time: start of the forecast.
        members: members 0…members−1 get room.
        steps: model steps to make room for.
        attrs: attributes of the group.

    Raises:
        InvalidFieldError: a store of another layout lies there.
    """
    if members < 1 or steps < 1:
        raise ValueError(f"expected at least one member and one step, got {members} and {steps}")
    group = zarr.open_group(
        _RecordingStore(store.zarr(key), objects=store, prefix=key), mode="a", zarr_format=3
    )
    if "lead_time" in group and "member" in group:
        members = max(members, _array(group, "member").shape[0])
        steps = max(steps, _array(group, "lead_time").shape[0])
    step_hours = int(task.step.total_seconds()) // 3600
    levels = np.asarray(task.pressure_levels, dtype=np.int32)
    _coordinate(group, "member", np.arange(members, dtype=np.int32), {"standard_name": "realization"})
    _coordinate(
        group,
        "lead_time",
        np.arange(1, steps + 1, dtype=np.int64) * step_hours,
        {"units": "hours", "dtype": "timedelta64[ns]", "standard_name": "forecast_period"},
    )
    _coordinate(group, "level", levels, {"units": "hPa", "standard_name": "air_pressure", "positive": "down"})
    _coordinate(group, "latitude", grid.latitude, {"units": "degrees_north", "standard_name": "latitude"})
    _coordinate(group, "longitude", grid.longitude, {"units": "degrees_east", "standard_name": "longitude"})
    _coordinate(
        group,
        "init_time",
        np.asarray(int(init_time.timestamp()) // 3600, dtype=np.int64),
        {"units": "hours since 1970-01-01", "standard_name": "forecast_reference_time"},
    )
    for name in task.target_variables:
        variable = VARIABLES[name]
        column = (len(levels),) if variable.on_levels else ()
        dims = ("member", "lead_time", *(["level"] if column else []), "latitude", "longitude")
        shape = (members, steps, *column, *grid.shape)
        described = {"long_name": name.replace("_", " "), "units": variable.units, "coordinates": "init_time"}
        if variable.standard_name:
            described["standard_name"] = variable.standard_name
        if variable.accumulation_hours:
            described["cell_methods"] = f"lead_time: sum (interval: {variable.accumulation_hours} hours)"
        _ensure(group, name, shape, (1, 1, *column, *grid.shape), dims, described)
    group.attrs.update({"Conventions": "CF-1.11", **(attrs or {})})


def open_forecast(store: ObjectStore, key: str, *, members: Sequence[int] | None = None) -> xr.Dataset:
    """The forecast, lazily.

    Returns:
        Dataset with dims (member, lead_time, level, latitude, longitude), scalar coordinate ``init_time``; its
        variables are in alphabetical order, since a store lists them in any.

    Args:
        store: where.
        key: key of the Zarr group.
        members: only these members; default all that have room.

    Raises:
        StoreError: there is no forecast store.
    """
    try:
        dataset = xr.open_zarr(store.zarr(key, read_only=True), chunks=None, consolidated=False)
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise StoreError(f"forecast store {store.url(key)}: could not be opened: {error}") from error
    dataset = dataset[sorted(dataset.data_vars)]
    return dataset if members is None else dataset.sel(member=list(members))


@dataclass(frozen=True, kw_only=True)
class ForecastWriter:
    """Writes whole steps into a store that was laid out before.

    Args:
        store: where.
        key: key of the Zarr group.
        variables: names of the variables that a step holds.
    """

    store: ObjectStore
    key: str
    variables: tuple[str, ...]

    @cached_property
    def _recorded(self) -> _RecordingStore:
        return _RecordingStore(self.store.zarr(self.key), objects=self.store, prefix=self.key)

    @cached_property
    def _arrays(self) -> dict[str, zarr.Array]:
        try:
            group = zarr.open_group(self._recorded, mode="r+", zarr_format=3)
            found = {name: group[name] for name in self.variables}
        except (FileNotFoundError, KeyError) as error:
            raise StoreError(
                f"forecast store {self.store.url(self.key)} was not laid out: {error}"
            ) from error
        return {
            name: array.with_config({"write_empty_chunks": True})
            for name, array in found.items()
            if isinstance(array, zarr.Array)
        }

    def write_step(self, member: int, step: int, fields: xr.Dataset) -> dict[str, str]:
        """Write all variables of one member's step, each as one whole object.

        Args:
            member: global member number.
            step: 0-based model step; its lead time is step + 1 model steps.
            fields: float32, dims ([level,] latitude, longitude), exactly the store's variables.

        Returns:
            sha256 of the stored bytes by chunk key, relative to the Zarr group.

        Raises:
            InvalidFieldError: a variable is missing, surplus or of another shape.
            TransientSourceError: the store failed in a way that may pass; the step may be written again.
        """
        names = set(map(str, fields.data_vars))
        if names != set(self._arrays):
            raise InvalidFieldError(
                f"member {member}, step {step}: expected variables {sorted(self._arrays)}, got {sorted(names)}"
            )
        checksums: dict[str, str] = {}
        for name, array in self._arrays.items():
            dims = _dimensions(array)[2:]
            values = fields[name].transpose(*dims).values
            if values.shape != array.shape[2:] or values.dtype != np.float32:
                raise InvalidFieldError(
                    f"member {member}, step {step}, {name}: expected float32 {array.shape[2:]}, "
                    f"got {values.dtype} {values.shape}"
                )
            array[member, step] = values
            chunk = chunk_key(name, member, step, column=len(dims) == 3)
            checksums[chunk] = self._recorded.checksums.pop(chunk)
        return checksums


def chunk_key(variable: str, member: int, step: int, *, column: bool) -> str:
    """Key of a chunk below the Zarr group."""
    return f"{variable}/c/{member}/{step}/" + ("0/0/0" if column else "0/0")


def chunk_step(key: str) -> int:
    """The step that a chunk key of ``chunk_key`` belongs to."""
    return int(key.split("/")[3])


def damaged_chunks(store: ObjectStore, key: str, checksums: Mapping[str, str]) -> dict[str, str]:
    """Chunks that are missing or whose stored bytes differ, with what is wrong.

    Args:
        store: where.
        key: key of the Zarr group.
        checksums: expected sha256 by chunk key.
    """
    wrong = {}
    for chunk, expected in checksums.items():
        try:
            got = hashlib.sha256(store.read(f"{key}/{chunk}")).hexdigest()
        except StoreError as error:
            wrong[chunk] = str(error)
            continue
        if got != expected:
            wrong[chunk] = f"expected sha256 {expected[:12]}…, got {got[:12]}…"
    return wrong


def expected_chunks(task: TaskConfig, member: int, steps: Iterable[int]) -> list[str]:
    """Keys of all chunks that a member must have."""
    return [
        chunk_key(name, member, step, column=VARIABLES[name].on_levels)
        for step in steps
        for name in task.target_variables
    ]


def verify_member(
    store: ObjectStore, key: str, task: TaskConfig, *, member: int, steps: int, checksums: Mapping[str, str]
) -> None:
    """Check that a member has every chunk once and that the stored bytes are those that were written.

    Raises:
        IncompleteCycleError: a checksum is not listed, or a chunk is missing or damaged.
    """
    expected = expected_chunks(task, member, range(steps))
    unlisted = [chunk for chunk in expected if chunk not in checksums]
    if unlisted:
        raise IncompleteCycleError(
            f"member {member}: expected {len(expected)} chunks in {store.url(key)}, the manifest lacks "
            f"{len(unlisted)}, first {unlisted[0]}"
        )
    wrong = damaged_chunks(store, key, {chunk: checksums[chunk] for chunk in expected})
    if wrong:
        first = next(iter(wrong))
        raise IncompleteCycleError(
            f"member {member}: {len(wrong)} of {len(expected)} chunks of {store.url(key)} are damaged, "
            f"first {first}: {wrong[first]}"
        )


class _RecordingStore(WrapperStore[Store]):
    """Puts every object whole through the object store and remembers the sha256 of its bytes."""

    def __init__(self, store: Store, *, objects: ObjectStore, prefix: str) -> None:
        super().__init__(store)
        self._objects = objects
        self._prefix = prefix
        self.checksums: dict[str, str] = {}

    def _with_store(self, store: Store) -> _RecordingStore:
        return type(self)(store, objects=self._objects, prefix=self._prefix)

    async def set(self, key: str, value: Buffer) -> None:
        data = value.to_bytes()
        self.checksums[key] = await asyncio.to_thread(self._objects.write, f"{self._prefix}/{key}", data)


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    found = group[name]
    if not isinstance(found, zarr.Array):
        raise InvalidFieldError(f"forecast store {group.store}: expected an array {name}, found a group")
    return found


def _dimensions(array: zarr.Array[Any]) -> tuple[str, ...]:
    return tuple(getattr(array.metadata, "dimension_names", None) or ())


def _coordinate(group: zarr.Group, name: str, values: np.ndarray, attrs: Mapping[str, Any]) -> None:
    dims = (name,) if values.ndim else ()
    if name in group:
        existing = np.asarray(_array(group, name)[...])
        common = min(np.size(existing), np.size(values))
        if np.ndim(existing) != values.ndim or not np.array_equal(
            np.ravel(existing)[:common], np.ravel(values)[:common]
        ):
            raise InvalidFieldError(
                f"forecast store {group.store}: coordinate {name} differs from what this run needs"
            )
        if np.size(existing) == np.size(values):
            return
    group.create_array(
        name,
        data=values,
        chunks=values.shape if values.ndim else "auto",
        dimension_names=dims or None,
        attributes=dict(attrs),
        overwrite=True,
    )


def _ensure(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dims: Sequence[str],
    attrs: Mapping[str, Any],
) -> None:
    if name not in group:
        group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dtype="float32",
            fill_value=float("nan"),
            compressors=[_COMPRESSOR],
            dimension_names=list(dims),
            attributes=dict(attrs),
        )
        return
    array = _array(group, name)
    if array.chunks != chunks:
        raise InvalidFieldError(
            f"forecast store {group.store}, {name}: expected chunks {chunks}, found {array.chunks}"
        )
    if array.shape != shape:
        array.resize(shape)
