"""The same field of all members, tile by tile, in memory that does not grow with the ensemble.

Small ensembles stay in memory; a stack larger than its budget goes to a scratch file, each member written
once and read back in tiles that fit.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import numpy as np


class MemberStack(AbstractContextManager["MemberStack"]):
    """Float32 fields of ``members`` members, each (level, latitude, longitude).

    Args:
        members: how many.
        shape: (level, latitude, longitude) of one member.
        budget: bytes the stack may hold in memory; tiles are at most a quarter of that (one row at least).
        folder: where a scratch file may lie; default the system's.
    """

    def __init__(
        self, members: int, shape: tuple[int, int, int], *, budget: int, folder: Path | None = None
    ) -> None:
        self._members = members
        self._shape = shape
        self._tile_budget = max(budget // 4, 1)
        self._memory: np.ndarray | None = None
        self._file = -1
        if members * int(np.prod(shape)) * 4 <= budget:
            self._memory = np.zeros((members, *shape), dtype=np.float32)
        else:
            self._file, path = tempfile.mkstemp(prefix="members-", dir=folder)
            os.unlink(path)  # the space is freed with the descriptor, however the process ends
            os.ftruncate(self._file, members * int(np.prod(shape)) * 4)

    @property
    def spilled(self) -> bool:
        """Whether the stack lies in a scratch file."""
        return self._memory is None

    def put(self, index: int, field: np.ndarray) -> None:
        """Set one member's field, dims (level, latitude, longitude)."""
        if field.shape != self._shape:
            raise ValueError(f"member {index}: expected a field of shape {self._shape}, got {field.shape}")
        if self._memory is not None:
            self._memory[index] = field
            return
        data = np.ascontiguousarray(field, dtype=np.float32)
        _write_all(self._file, data.data.cast("B"), index * data.nbytes)

    def get(self, index: int) -> np.ndarray:
        """One member's field, zeros if never set."""
        if self._memory is not None:
            return self._memory[index]
        field = np.empty(self._shape, dtype=np.float32)
        _read_all(self._file, field.data.cast("B"), index * field.nbytes)
        return field

    def tiles(self) -> Iterator[tuple[int, slice, np.ndarray]]:
        """(level index, rows of latitude, array (member, latitude, longitude)) over the whole field."""
        levels, rows, columns = self._shape
        at_once = max(1, min(rows, self._tile_budget // (self._members * columns * 4)))
        for level in range(levels):
            for start in range(0, rows, at_once):
                band = slice(start, min(start + at_once, rows))
                if self._memory is not None:
                    yield level, band, self._memory[:, level, band]
                    continue
                tile = np.empty((self._members, band.stop - band.start, columns), dtype=np.float32)
                for index in range(self._members):
                    offset = (((index * levels) + level) * rows + start) * columns * 4
                    _read_all(self._file, tile[index].data.cast("B"), offset)
                yield level, band, tile

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._memory = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _write_all(file: int, data: memoryview, offset: int) -> None:
    while len(data):
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def _read_all(file: int, data: memoryview, offset: int) -> None:
    while len(data):
        count = os.preadv(file, [data], offset)
        if count == 0:
            raise OSError(f"scratch file ended at byte {offset}, {len(data)} bytes short")
        data, offset = data[count:], offset + count
