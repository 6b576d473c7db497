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
    """Versions of JAX and of jaxlib, which has the compiler for CPUs; another may round otherwise.

    Those for GPUs and TPUs are in plugins (``jax-cuda12-pjrt``, ``libtpu``), whose versions are not told here: a
    controller without an accelerator has none of them.
    """
    return f"jax {metadata.version('jax')}, jaxlib {metadata.version('jaxlib')}"
