"""Rollout checkpoints: what a member needs to continue on another machine, bit for bit.

One ``.npz`` archive (no pickle) per member and step, put whole: the frame window in float32, the carried key,
the run's fingerprint, the checksums of the chunks written so far, and a sha256 over all of it. The newest two
are kept, and every ``anchor_every``-th step until the cycle is published, so that a damaged chunk is computed
again from near by.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from infra import layout
from infra.errors import CheckpointMismatchError, FoldcastError, StoreError
from infra.object_store import ObjectStore
from model.cycle import Cycle, parse_init_time
from model.rollout.state import RolloutState

_FORMAT = 1
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RolloutCheckpoint:
    """A member's state with the checksums of everything it has written.

    Args:
        state: what the model continues from.
        chunks: sha256 of stored bytes by chunk key of all steps before ``state.step``.
        started_at_steps: the step at which each worker that contributed started.
        options: what each of them resolved: precision, attention, kind of device.
    """

    state: RolloutState
    chunks: Mapping[str, str] = field(default_factory=dict)
    started_at_steps: tuple[int, ...] = (0,)
    options: tuple[Mapping[str, Any], ...] = ()


class DamagedCheckpointError(FoldcastError):
    """The archive cannot be used; an older one may."""


def save(
    store: ObjectStore, cycle: Cycle, checkpoint: RolloutCheckpoint, *, run: str, fingerprint: str
) -> str:
    """Write a checkpoint; returns its key.

    Args:
        store: where.
        cycle: the cycle the member belongs to.
        checkpoint: what to write.
        run: short name of the run.
        fingerprint: the run's fingerprint, compared when the checkpoint is loaded.
    """
    key = layout.rollout_checkpoint(cycle, run, checkpoint.state.member, checkpoint.state.step)
    store.write(key, encode(checkpoint, fingerprint=fingerprint))
    return key


def load_newest(
    store: ObjectStore, cycle: Cycle, *, run: str, member: int, fingerprint: str, at_most: int | None = None
) -> RolloutCheckpoint | None:
    """The newest usable checkpoint of a member; None if there is none.

    Damaged, truncated and unknown-format checkpoints are passed over with a logged message.

    Args:
        store: where.
        cycle: the cycle the member belongs to.
        run: short name of the run.
        member: global member number.
        fingerprint: the run's fingerprint.
        at_most: only checkpoints whose next step is not beyond this.

    Raises:
        CheckpointMismatchError: a readable checkpoint belongs to another run, cycle or member.
    """
    for step, key in reversed(_stored(store, cycle, run, member)):
        if at_most is not None and step > at_most:
            continue
        try:
            checkpoint, found = decode(store.read(key))
        except (DamagedCheckpointError, StoreError) as error:
            _LOG.warning("rollout checkpoint %s is passed over: %s", store.url(key), error)
            continue
        state = checkpoint.state
        if found != fingerprint:
            raise CheckpointMismatchError(
                f"rollout checkpoint {store.url(key)}: expected fingerprint {fingerprint[:12]}… of {cycle}, "
                f"member {member}, found {found[:12]}…"
            )
        if (state.init_time, state.member, state.step) != (cycle.init_time, member, step):
            raise CheckpointMismatchError(
                f"rollout checkpoint {store.url(key)}: expected {cycle}, member {member}, step {step}, found "
                f"{state.init_time.isoformat()}, member {state.member}, step {state.step}"
            )
        return checkpoint
    return None


def prune(
    store: ObjectStore, cycle: Cycle, *, run: str, member: int, keep: int = 2, anchor_every: int | None = None
) -> None:
    """Remove all but the newest checkpoints of a member, and the anchors.

    Args:
        store: where.
        cycle: the cycle the member belongs to.
        run: short name of the run.
        member: global member number.
        keep: how many of the newest are kept.
        anchor_every: checkpoints at multiples of this step are kept too; None keeps no anchors.
    """
    for step, key in _stored(store, cycle, run, member)[:-keep]:
        if anchor_every is None or step % anchor_every:
            store.delete(key)


def encode(checkpoint: RolloutCheckpoint, *, fingerprint: str) -> bytes:
    """A checkpoint as the bytes of an ``.npz`` archive."""
    state = checkpoint.state
    arrays: dict[str, np.ndarray] = {"key": state.key}
    dims = {}
    for name in sorted(map(str, [*state.frames.data_vars, *state.frames.coords])):
        variable = state.frames[name]
        values = np.asarray(variable.values, order="C")
        if values.dtype.hasobject:
            raise TypeError(f"frames, {name}: expected numbers or times, got {values.dtype}")
        arrays[f"frames:{name}"] = values
        dims[name] = [list(map(str, variable.dims)), "coord" if name in state.frames.coords else "data"]
    header = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "member": state.member,
        "init_time": state.init_time.isoformat(),
        "step": state.step,
        "dims": dims,
        "chunks": dict(checkpoint.chunks),
        "started_at_steps": list(checkpoint.started_at_steps),
        "options": [dict(each) for each in checkpoint.options],
    }
    text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
    checksum = np.frombuffer(_checksum(text, arrays), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, header=text, checksum=checksum, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def decode(data: bytes) -> tuple[RolloutCheckpoint, str]:
    """The checkpoint and its fingerprint from the bytes of an archive.

    Raises:
        DamagedCheckpointError: it is truncated, changed, of another format or no checkpoint at all.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        text, checksum = arrays.pop("header"), arrays.pop("checksum")
        header: dict[str, Any] = json.loads(text.tobytes())
        if header["format"] != _FORMAT:
            raise DamagedCheckpointError(f"expected format {_FORMAT}, found {header['format']}")
        if _checksum(text, arrays) != checksum.tobytes():
            raise DamagedCheckpointError("its contents do not match its checksum")
        data_vars: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
        coords: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
        for name, (dims, role) in header["dims"].items():
            (coords if role == "coord" else data_vars)[name] = (tuple(dims), arrays[f"frames:{name}"])
        state = RolloutState(
            member=header["member"],
            init_time=parse_init_time(header["init_time"]),
            step=header["step"],
            key=arrays["key"],
            frames=xr.Dataset(data_vars, coords=coords),
        )
        checkpoint = RolloutCheckpoint(
            state=state,
            chunks=header["chunks"],
            started_at_steps=tuple(header["started_at_steps"]),
            options=tuple(header.get("options", ())),
        )
    except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedCheckpointError(f"not a whole rollout checkpoint: {error}") from error
    except NotImplementedError as error:
        raise DamagedCheckpointError(f"an archive of a kind that cannot be read: {error}") from error
    return checkpoint, header["fingerprint"]


def _checksum(header: np.ndarray, arrays: Mapping[str, np.ndarray]) -> bytes:
    digest = hashlib.sha256(header.tobytes())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.asarray(array, order="C").reshape(-1).view(np.uint8).data)
    return digest.digest()


def _stored(store: ObjectStore, cycle: Cycle, run: str, member: int) -> list[tuple[int, str]]:
    found = []
    for key in store.list(layout.rollout_checkpoints(cycle, run, member)):
        stem = key.rpartition("/")[2].removesuffix(".npz")
        if stem.isdigit():
            found.append((int(stem), key))
    return sorted(found)
