"""The root of Foldcast's errors, and those that pure computation raises.

Each says what was expected, what came, and which cycle, member, path or variable. Errors that only arise
where bytes and machines are touched are in ``infra.errors``.
"""

from __future__ import annotations


class FoldcastError(Exception):
    """Base of all expected failures; the command line shows its message without a traceback."""


class InvalidFieldError(FoldcastError):
    """Data are not what they should be: damaged, wrong units, wrong grid, NaN, out of range."""


class CheckpointFileError(FoldcastError):
    """A model params file is not what it should be."""


class DoesNotFitError(FoldcastError):
    """A run needs more memory or storage than the machine has; the message says what would fit."""


class UnknownOptionError(FoldcastError):
    """A named choice (attention, precision, rng mode, …) is not among the allowed, which are listed."""
