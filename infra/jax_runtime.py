"""What JAX is told about this machine. Nothing here happens at import."""

from __future__ import annotations

from pathlib import Path

import jax


def hold_random_numbers() -> None:
    """Use the generator that results are defined by, whatever the environment asks JAX for."""
    jax.config.update("jax_default_prng_impl", "threefry2x32")
    jax.config.update("jax_threefry_partitionable", True)


def enable_compilation_cache(folder: Path) -> None:
    """Keep compiled programs in a folder, so that a second start does not compile again; hold random numbers.

    Args:
        folder: made when needed; may be shared by processes.
    """
    hold_random_numbers()
    jax.config.update("jax_compilation_cache_dir", str(folder.expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
