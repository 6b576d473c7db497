"""The version of the installed package: part of every run's fingerprint."""

from __future__ import annotations

from importlib import metadata


def code_version() -> str:
    """The installed version, or ``"unknown"`` in a checkout that was not installed."""
    try:
        return metadata.version("foldcast")
    except metadata.PackageNotFoundError:
        return "unknown"
