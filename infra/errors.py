"""Errors that arise where bytes and machines are touched; ``FoldcastError`` is the root of all of them."""

from __future__ import annotations

from model.errors import (
    CheckpointFileError,
    DoesNotFitError,
    FoldcastError,
    InvalidFieldError,
    UnknownOptionError,
)

__all__ = [
    "CheckpointFileError",
    "CheckpointMismatchError",
    "DoesNotFitError",
    "FoldcastError",
    "IncompleteCycleError",
    "InvalidFieldError",
    "MissingDataError",
    "PublicationError",
    "StoreError",
    "TransientSourceError",
    "UnknownModelError",
    "UnknownOptionError",
    "ValidationFailedError",
]


class TransientSourceError(FoldcastError):
    """A provider or store failed in a way that may pass (timeout, reset, 429, 5xx): retried."""


class MissingDataError(FoldcastError):
    """A provider does not have what was asked: not yet published, or not in its archive."""


class ValidationFailedError(FoldcastError):
    """A blocking validation check failed; the cycle is quarantined."""


class IncompleteCycleError(FoldcastError):
    """A cycle lacks members, steps or chunks, or they do not match their checksums."""


class CheckpointMismatchError(FoldcastError):
    """A rollout checkpoint belongs to another run, or is damaged beyond use."""


class PublicationError(FoldcastError):
    """A product could not be written, read back or admitted; nothing was made visible."""


class StoreError(FoldcastError):
    """An object store refused or failed for good (not found, forbidden, disk full)."""


class UnknownModelError(FoldcastError):
    """No model of that name is configured; the message lists the known ones."""
