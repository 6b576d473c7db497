from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infra.errors import CheckpointMismatchError, StoreError
from infra.training_checkpoints import TrainingCheckpoints


def state(value: float) -> dict[str, jax.Array]:
    return {"w": jnp.full((2, 3), value, jnp.float32), "update": jnp.int32(7)}


def test_the_newest_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    with TrainingCheckpoints(tmp_path, fingerprint="a") as checkpoints:
        checkpoints.save(1, state(0.5))
        checkpoints.save(2, state(1 / 3), notes={"best": 0.1})

    with TrainingCheckpoints(tmp_path, fingerprint="a") as checkpoints:
        restored = checkpoints.restore(state(0.0))
        assert checkpoints.newest() == 2

    assert restored is not None
    assert restored[1] == {"best": 0.1}
    jax.tree.map(np.testing.assert_array_equal, restored[0], state(1 / 3))
    assert jax.tree.map(lambda leaf: leaf.dtype, restored[0]) == jax.tree.map(
        lambda leaf: leaf.dtype, state(0.0)
    )


def test_there_may_be_none(tmp_path: Path) -> None:
    with TrainingCheckpoints(tmp_path, fingerprint="a") as checkpoints:
        assert checkpoints.newest() is None
        assert checkpoints.restore(state(0.0)) is None


def test_another_training_is_refused(tmp_path: Path) -> None:
    with TrainingCheckpoints(tmp_path, fingerprint="a") as checkpoints:
        checkpoints.save(1, state(0.5))

    with (
        TrainingCheckpoints(tmp_path, fingerprint="b") as checkpoints,
        pytest.raises(CheckpointMismatchError, match="training b, got those of a"),
    ):
        checkpoints.restore(state(0.0))


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    with TrainingCheckpoints(tmp_path, fingerprint="a", keep=2) as checkpoints:
        for update in (1, 2, 3):
            checkpoints.save(update, state(float(update)))

    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ["2", "3"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path: Path) -> None:
    with TrainingCheckpoints(tmp_path, fingerprint="a") as checkpoints:
        checkpoints.save(1, state(0.5))
        checkpoints.save(2, state(0.25))
    for path in (tmp_path / "2" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:3])

    with TrainingCheckpoints(tmp_path, fingerprint="a") as checkpoints:
        restored = checkpoints.restore(state(0.0))
        assert restored is not None
        jax.tree.map(np.testing.assert_array_equal, restored[0], state(0.5))
        checkpoints.save(2, state(0.125))
    with TrainingCheckpoints(tmp_path, fingerprint="a") as checkpoints:
        assert checkpoints.newest() == 2


def test_only_damaged_checkpoints_are_no_fresh_start(tmp_path: Path) -> None:
    with TrainingCheckpoints(tmp_path, fingerprint="a") as checkpoints:
        checkpoints.save(1, state(0.5))
    for path in (tmp_path / "1" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")

    with (
        TrainingCheckpoints(tmp_path, fingerprint="a") as checkpoints,
        pytest.raises(StoreError, match="got only damaged ones"),
    ):
        checkpoints.restore(state(0.0))
