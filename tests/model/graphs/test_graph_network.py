import jax.numpy as jnp
import numpy as np

from model.graphs.graph_network import (
    first_layer_parts,
    layer_norm,
    linear,
    mlp_after_first_layer,
    multi_layer_perceptron,
)

RANDOM = np.random.default_rng(0)
PARAMS = {
    "mlp/~/linear_0": {"w": jnp.asarray(RANDOM.normal(size=(5, 4)), jnp.float32), "b": jnp.ones(4)},
    "mlp/~/linear_1": {"w": jnp.asarray(RANDOM.normal(size=(4, 3)), jnp.float32), "b": jnp.zeros(3)},
    "norm": {"scale": jnp.array([1.0, 2.0, 3.0]), "offset": jnp.array([0.0, 0.0, 1.0])},
}


def test_split_first_layer_gives_what_the_concatenation_gives() -> None:
    left, right = (jnp.asarray(RANDOM.normal(size=(6, n)), jnp.float32) for n in (2, 3))
    whole = multi_layer_perceptron(PARAMS, "mlp", jnp.concatenate([left, right], axis=1), hidden_layers=1)
    of_left, of_right = first_layer_parts(PARAMS, "mlp", [2, 3])
    first = left @ of_left + right @ of_right + PARAMS["mlp/~/linear_0"]["b"]
    parts = mlp_after_first_layer(PARAMS, "mlp", first, hidden_layers=1)
    np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=1e-5)


def test_hidden_layers_are_followed_by_swish_and_the_last_is_not() -> None:
    x = np.asarray(RANDOM.normal(size=(2, 5)), np.float32)
    hidden = x @ np.asarray(PARAMS["mlp/~/linear_0"]["w"]) + 1
    hidden = hidden / (1 + np.exp(-hidden))
    expected = hidden @ np.asarray(PARAMS["mlp/~/linear_1"]["w"])
    got = multi_layer_perceptron(PARAMS, "mlp", jnp.asarray(x), hidden_layers=1)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        multi_layer_perceptron(PARAMS, "mlp", jnp.asarray(x), hidden_layers=0),
        linear(PARAMS, "mlp/~/linear_0", jnp.asarray(x)),
    )


def test_layer_norm_of_a_hand_computed_row() -> None:
    # Mean 2, variance 2/3: (1, 2, 3) becomes ∓1.2247; then scale and offset.
    got = layer_norm(PARAMS, "norm", jnp.array([[1.0, 2.0, 3.0]]))
    np.testing.assert_allclose(got, [[-1.22474, 0.0, 1 + 3 * 1.22474]], atol=1e-4)
    assert layer_norm(PARAMS, "norm", jnp.ones((1, 3), jnp.bfloat16)).dtype == jnp.bfloat16
