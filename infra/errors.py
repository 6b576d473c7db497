"""Foldcast's errors: each says what was expected, what came, and which cycle, member, path or variable."""

from __future__ import annotations


class FoldcastError(Exception):
    """Base of all expected failures; the command line shows its message without a traceback."""


class TransientSourceError(FoldcastError):
    """A provider or store failed in a way that may pass (timeout, reset, 429, 5xx): retried."""


class MissingDataError(FoldcastError):
    """A provider does not have what was asked: not yet published, or not in its archive."""


class InvalidFieldError(FoldcastError):
    """Data that arrived are not what they should be: damaged, wrong units, wrong grid, NaN, out of range."""


class ValidationFailedError(FoldcastError):
    """A blocking validation check failed; the cycle is quarantined."""


class IncompleteCycleError(FoldcastError):
    """A cycle lacks members, steps or chunks, or they do not match their checksums."""


class CheckpointMismatchError(FoldcastError):
    """A rollout checkpoint belongs to another run, or is damaged beyond use."""


class CheckpointFileError(FoldcastError):
    """A model params file is not what it should be."""


class DoesNotFitError(FoldcastError):
    """A run needs more memory or storage than the machine has; the message says what would fit."""


class PublicationError(FoldcastError):
    """A product could not be written, read back or admitted; nothing was made visible."""


class UnknownModelError(FoldcastError):
    """No model of that name is configured; the message lists the known ones."""


class StoreError(FoldcastError):
    """An object store refused or failed for good (not found, forbidden, disk full)."""
