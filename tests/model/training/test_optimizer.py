import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model.training.optimizer import OptimizerConfig, build_optimizer


def params() -> dict[str, dict[str, jax.Array]]:
    return {
        "encoder/linear": {"w": jnp.full((2, 2), 2.0), "b": jnp.full(2, 2.0)},
        "decoder/linear": {"w": jnp.full((2, 2), 2.0)},
    }


def one_update(config: OptimizerConfig, gradient: float) -> dict[str, dict[str, jax.Array]]:
    optimizer = build_optimizer(config, lambda update: 0.1, params())
    gradients = jax.tree.map(lambda array: jnp.full(array.shape, gradient), params())
    changes, _ = optimizer.update(gradients, optimizer.init(params()), params())
    return optax.apply_updates(params(), changes)


def test_first_adamw_step_by_hand() -> None:
    after = one_update(OptimizerConfig(weight_decay=0.5), gradient=1e-3)

    # The first step of Adam is the learning rate times the sign; decay takes 0.1 · 0.5 · 2 off matrices alone.
    np.testing.assert_allclose(after["encoder/linear"]["w"], 2.0 - 0.1 - 0.1, rtol=1e-4)
    np.testing.assert_allclose(after["encoder/linear"]["b"], 2.0 - 0.1, rtol=1e-4)


def test_gradients_are_clipped_by_their_global_norm() -> None:
    # Ten gradients of 3 have norm 3·√10 and are scaled to norm 1; two steps keep Adam from hiding the scale.
    config = OptimizerConfig(clip_norm=1.0, weight_decay=0.0, beta1=0.0, beta2=0.0)
    optimizer = build_optimizer(config, lambda update: 1.0, params())
    gradients = jax.tree.map(lambda array: jnp.full(array.shape, 3.0), params())
    _, state = optimizer.update(gradients, optimizer.init(params()), params())

    second_moments = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (2,)]

    assert any(np.allclose(leaf, 1 / 10) for leaf in second_moments)


def test_frozen_parts_stay() -> None:
    after = one_update(OptimizerConfig(frozen=("encoder",)), gradient=1.0)

    np.testing.assert_array_equal(after["encoder/linear"]["w"], 2.0)
    assert (np.asarray(after["decoder/linear"]["w"]) < 2.0).all()


def test_a_frozen_part_must_exist() -> None:
    with pytest.raises(ValueError, match="processor"):
        build_optimizer(OptimizerConfig(frozen=("processor",)), lambda update: 0.1, params())


def test_muon_orthogonalises_matrices() -> None:
    config = OptimizerConfig(kind="muon", weight_decay=0.0)
    optimizer = build_optimizer(config, lambda update: 1.0, params())
    gradients = jax.tree.map(jnp.zeros_like, params())
    gradients["decoder/linear"]["w"] = jnp.array([[5.0, 0.0], [0.0, 0.1]])
    changes, _ = optimizer.update(gradients, optimizer.init(params()), params())

    singular = np.linalg.svd(np.asarray(changes["decoder/linear"]["w"]), compute_uv=False)

    # The gradient's singular values differ fiftyfold, the update's by what Newton–Schulz leaves.
    assert singular.max() / singular.min() < 2.0
