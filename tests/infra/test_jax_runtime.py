from pathlib import Path

import jax
import pytest

from infra.jax_runtime import enable_compilation_cache, hold_random_numbers


@pytest.fixture
def restored():
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
        "jax_default_prng_impl",
        "jax_threefry_partitionable",
    )
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_compiled_programs_are_kept_in_the_folder(tmp_path: Path, restored) -> None:
    enable_compilation_cache(tmp_path)
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)


def test_random_numbers_do_not_follow_the_environment(restored) -> None:
    expected = jax.random.split(jax.random.PRNGKey(3))
    jax.config.update("jax_default_prng_impl", "rbg")
    jax.config.update("jax_threefry_partitionable", False)
    hold_random_numbers()
    assert (jax.random.split(jax.random.PRNGKey(3)) == expected).all()
    assert jax.config.jax_threefry_partitionable
