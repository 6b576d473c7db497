import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.checkpoint_file import read_checkpoint
from model.forcings import forcing_fields
from model.networks import graphcast_graphs, graphcast_network
from model.normalization import channel_scaling
from model.step import ModelStep
from model.training.losses import autoregressive_loss, loss_weights, weighted_squared_error
from tests.model.parity import load_case
from tests.model.tiny import GRID, TASK


def test_weights_have_mean_one_and_follow_area_and_pressure() -> None:
    weights = loss_weights(TASK, GRID)
    assert weights.area.mean() == pytest.approx(1, abs=1e-6)
    # Area between latitudes: rows at 0° and at the pole of a 30° grid, sin 15° · 2 against 1 − sin 75°.
    rows = weights.area.reshape(GRID.shape)[:, 0]
    assert rows[3] / rows[0] == pytest.approx(2 * np.sin(np.pi / 12) / (1 - np.sin(5 * np.pi / 12)), rel=1e-5)
    np.testing.assert_allclose(weights.level, [1, 500 / 1350, 850 / 1350, 1], rtol=1e-6)
    assert weights.variable == {"2m_temperature": 1.0, "temperature": 1.0, "total_precipitation_6hr": 0.1}


def test_loss_of_a_constant_error_is_the_sum_of_the_weights() -> None:
    weights = loss_weights(TASK, GRID)
    target = jnp.zeros((weights.area.size, 4))
    total, by_variable = weighted_squared_error(target + 2.0, target, weights)
    assert {name: float(loss) for name, loss in by_variable.items()} == pytest.approx(
        {"2m_temperature": 4.0, "temperature": 4.0, "total_precipitation_6hr": 4.0}, rel=1e-5
    )
    assert float(total) == pytest.approx(4 + 4 + 0.4, rel=1e-5)


@pytest.mark.parametrize("case", ["graphcast_small_f32", "graphcast_operational_f32"])
def test_loss_and_gradient_norms_agree_with_the_reference(parity_dir: Path, case: str) -> None:
    loaded = load_case(parity_dir / case)
    reference = json.loads((loaded.folder / "loss.json").read_text())
    checkpoint = read_checkpoint(loaded.params.read_bytes())
    task, grid, example = checkpoint.task, loaded.example.grid, loaded.example
    network = graphcast_network(checkpoint.config, task)
    structure = network.structure(graphcast_graphs(checkpoint.config, grid))
    model_step = ModelStep(task=task, grid=grid, scaling=channel_scaling(task, loaded.statistics))

    def values(name: str) -> jax.Array:
        dims = ("time", "level", "latitude", "longitude")
        return jnp.asarray(example.frames[name].transpose(*dims, missing_dims="ignore").values)

    count = example.frames.sizes["time"]
    times = [example.init_time + (index - 1) * task.step for index in range(count)]
    by_time = [forcing_fields(task.forcing_variables, time, grid, given=example.given) for time in times]
    forcings = {name: jnp.stack([fields[name] for fields in by_time]) for name in task.forcing_variables}

    def loss(params: dict) -> tuple[jax.Array, dict[str, jax.Array]]:
        embedding = network.embed_structure(params, structure)
        return autoregressive_loss(
            lambda features: network.forward(params, structure, embedding, features),
            model_step,
            loss_weights(task, grid),
            statics={name: jnp.asarray(example.initial_condition[name].values) for name in task.statics},
            frames={name: values(name)[:2] for name in task.time_inputs},
            forcings=forcings,
            targets={name: values(name)[2:] for name in task.target_variables},
        )

    params = jax.tree.map(jnp.asarray, checkpoint.params)
    (total, by_variable), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert float(total) == pytest.approx(reference["loss"], rel=1e-4)
    assert {n: float(v) for n, v in by_variable.items()} == pytest.approx(
        reference["loss_by_variable"], rel=1e-4
    )
    for path, norm in reference["grad_l2_norm"].items():
        module, _, name = path.rpartition("/")
        assert float(jnp.linalg.norm(gradient[module][name])) == pytest.approx(norm, rel=1e-3), path
