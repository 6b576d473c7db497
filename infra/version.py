"""Which versions compute: part of every run's fingerprint."""

from __future__ import annotations

from importlib import metadata


def code_version() -> str:
    """The installed version, or ``"unknown"`` in a checkout that was not installed."""
    try:
        return metadata.version("foldcast")
    except metadata.PackageNotFoundError:
        return "unknown"


def compiler_version() -> str:
    """Versions of JAX and of jaxlib, which has its compiler; another may round otherwise."""
    return f"jax {metadata.version('jax')}, jaxlib {metadata.version('jaxlib')}"
