"""A file somewhere else as a Python file, read in ranges where it is looked at."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import ClassVar

from infra.errors import FoldcastError


class RangeFile(io.RawIOBase):
    """A seekable file over a function that reads ranges.

    Args:
        read: (start, length) → those bytes.
        size: of the file.
    """

    AT_ONCE: ClassVar[int] = 64 * 1024
    """Bytes that a buffer above it should take at once."""

    def __init__(self, *, read: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read_range = read
        self._size = size
        self._position = 0
        self.failure: FoldcastError | None = None
        """Why a read failed; libraries in between may report something else."""

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fill a buffer from the position on."""
        length = max(min(len(buffer), self._size - self._position), 0)
        if not length:
            return 0
        try:
            data = self._read_range(self._position, length)
        except FoldcastError as error:
            self.failure = error
            raise OSError(str(error)) from error
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
