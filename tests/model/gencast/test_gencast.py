"""GenCast against the published implementation's numbers: samples, losses, gradients, forms of attention."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from model.checkpoint_file import CheckpointFile, read_checkpoint, write_checkpoint
from model.deepmind_format import Example, read_example
from model.errors import UnknownOptionError
from model.forcings import forcing_fields
from model.forecaster import load_forecaster
from model.gencast.attention_options import AttentionOptions
from model.gencast.configs import GenCastConfig
from model.gencast.gencast import (
    GenCastNetwork,
    NoiseBasis,
    gencast_graphs,
    gencast_network,
    gencast_structure,
    noise_basis,
)
from model.gencast.structure import DenoiserStructure
from model.normalization import Statistics, channel_scaling
from model.precision import cast_parameters
from model.rollout.rng import base_key, member_key
from model.step import ModelStep
from model.training.losses import loss_weights, weighted_squared_error


@dataclass(frozen=True, kw_only=True)
class Case:
    """The parity case, read."""

    folder: Path
    checkpoint: CheckpointFile
    example: Example
    statistics: Statistics

    @property
    def config(self) -> GenCastConfig:
        assert isinstance(self.checkpoint.config, GenCastConfig)
        return self.checkpoint.config

    @property
    def model_step(self) -> ModelStep:
        task = self.checkpoint.task
        scaling = channel_scaling(task, self.statistics)
        return ModelStep(task=task, grid=self.example.grid, scaling=scaling)

    def weather(self) -> tuple[dict, dict, dict, dict]:
        """Statics, input window, forcings and first target, as arrays by name."""
        task, example = self.checkpoint.task, self.example
        statics = {name: example.initial_condition[name].values for name in task.statics}
        frames = {name: example.initial_condition[name].values for name in task.time_inputs}
        times = [example.init_time + step * task.step for step in (-1, 0, 1)]
        by_time = [forcing_fields(task.forcing_variables, time, example.grid) for time in times]
        forcings = {name: np.stack([fields[name] for fields in by_time]) for name in by_time[0]}
        targets = {name: example.frames[name].values[2] for name in task.target_variables}
        return statics, frames, forcings, targets


@pytest.fixture(scope="module")
def case(parity_dir: Path) -> Case:
    folder = parity_dir / "gencast_f32"
    files = ("mean", "stddev", "diffs_stddev", "min")
    mean, stddev, diffs, minimum = (xr.load_dataset(folder / f"{name}_by_level.nc") for name in files)
    return Case(
        folder=folder,
        checkpoint=read_checkpoint((folder / "params.npz").read_bytes()),
        example=read_example(xr.load_dataset(folder / "dataset.nc")),
        statistics=Statistics(mean=mean, stddev=stddev, diffs_stddev=diffs, minimum=minimum),
    )


def network_of(case: Case, attention: str = "auto") -> GenCastNetwork:
    return gencast_network(case.config, case.checkpoint.task, attention=AttentionOptions(kind=attention))


def test_rollout_of_two_members_matches_the_published_implementation(case: Case) -> None:
    expected = xr.load_dataset(case.folder / "predictions.nc")
    # The file says splash attention, as all published ones do: it must load where that cannot run.
    transformer = case.config.denoiser_architecture_config.sparse_transformer_config
    architecture = dataclasses.replace(
        case.config.denoiser_architecture_config,
        sparse_transformer_config=dataclasses.replace(
            transformer, attention_type="splash_mha", mask_type="lazy"
        ),
    )
    config = dataclasses.replace(case.config, denoiser_architecture_config=architecture)
    content = write_checkpoint(dataclasses.replace(case.checkpoint, config=config))
    forecaster = load_forecaster(content, case.statistics, grid=case.example.grid)
    condition, init_time = case.example.initial_condition, case.example.init_time
    for member in (0, 1):
        key = member_key(base_key(0, init_time, "reference"), member)
        state = forecaster.initial_state(condition, init_time=init_time, member=member, key=key)
        # Tolerances of the parity cases: shares of the spread of a step's change.
        for step, tolerance in enumerate((2e-4, 1e-3)):
            ((state, fields),) = forecaster.advance([state], condition)
            for name in case.checkpoint.task.target_variables:
                reference = expected[name].isel(sample=member, batch=0, time=step).values
                spread = case.statistics.diffs_stddev[name].values
                scaled = (fields[name].values - reference) / spread.reshape((-1, 1, 1)[-reference.ndim :])
                assert np.nanmax(np.abs(scaled)) <= tolerance, name
                np.testing.assert_array_equal(np.isnan(fields[name].values), np.isnan(reference))
    assert np.isnan(fields["sea_surface_temperature"].values).any()


def test_loss_and_gradients_match_the_published_implementation(case: Case) -> None:
    expected = json.loads((case.folder / "loss.json").read_text())
    network, step = network_of(case), case.model_step
    graphs = gencast_graphs(case.config, case.example.grid)
    statics, frames, forcings, targets = case.weather()
    features = step.features(statics, frames, forcings)
    normalized = step.normalized_targets(targets, frames)
    weights = loss_weights(case.checkpoint.task, case.example.grid)
    basis = noise_basis(case.example.grid)

    @jax.jit
    def loss_and_gradient(params: dict, structure: DenoiserStructure, basis: NoiseBasis) -> tuple:
        def loss(params: dict) -> tuple[jax.Array, dict[str, jax.Array]]:
            pair = network.denoising_pair(
                params, structure, basis, jax.random.PRNGKey(0), features, normalized
            )
            total, by_variable = weighted_squared_error(pair[0], normalized, weights)
            return pair[1] * total, by_variable

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, by_variable), gradient = loss_and_gradient(
        case.checkpoint.params, gencast_structure(network, graphs), basis
    )
    assert float(loss) == pytest.approx(expected["loss"], rel=1e-4)
    assert by_variable.keys() == expected["loss_by_variable"].keys()
    for name, value in expected["loss_by_variable"].items():
        assert float(by_variable[name]) == pytest.approx(value, rel=1e-4), name
    for path, norm in expected["grad_l2_norm"].items():
        module, _, name = path.rpartition("/")
        assert float(jnp.linalg.norm(gradient[module][name])) == pytest.approx(norm, rel=1e-3), path


def test_the_network_is_the_same_with_every_attention(case: Case) -> None:
    graphs = gencast_graphs(case.config, case.example.grid)
    statics, frames, forcings, targets = case.weather()
    features = case.model_step.features(statics, frames, forcings)
    normalized = case.model_step.normalized_targets(targets, frames)

    def evaluated(attention: str) -> np.ndarray:
        network = network_of(case, attention)

        @jax.jit
        def evaluate(params: dict, structure: DenoiserStructure) -> jax.Array:
            denoiser = network.denoiser
            embedding = denoiser.embed_structure(params, structure)
            conditioned = denoiser.condition(params, embedding, features)
            return denoiser.evaluate(params, structure, embedding, conditioned, normalized, jnp.float32(2))

        return np.asarray(evaluate(case.checkpoint.params, gencast_structure(network, graphs)))

    dense = evaluated("mha")
    for attention in ("auto", "triblockdiag_mha", "fused_banded_mha"):
        np.testing.assert_allclose(evaluated(attention), dense, atol=2e-5, err_msg=attention)


def test_unknown_attention_is_refused_before_anything_is_built(case: Case) -> None:
    content = (case.folder / "params.npz").read_bytes()
    with pytest.raises(UnknownOptionError, match=r"expected one of auto, splash_mha.*got 'flash'"):
        load_forecaster(content, case.statistics, grid=case.example.grid, attention="flash")


NOISE_LEVELS = (0.05, 1.0, 20.0)
REFERENCE_BFLOAT16_DEVIATION = {
    "10m_u_component_of_wind": (0.00364, 0.004452, 0.00764),
    "10m_v_component_of_wind": (0.003433, 0.007501, 0.012255),
    "2m_temperature": (0.003594, 0.006334, 0.01371),
    "geopotential": (0.003408, 0.007408, 0.013187),
    "mean_sea_level_pressure": (0.003505, 0.007562, 0.014358),
    "sea_surface_temperature": (0.003625, 0.006291, 0.01125),
    "specific_humidity": (0.00349, 0.007685, 0.013331),
    "temperature": (0.003503, 0.007289, 0.013576),
    "total_precipitation_12hr": (0.003577, 0.009619, 0.021084),
    "u_component_of_wind": (0.003504, 0.008033, 0.014523),
    "v_component_of_wind": (0.003463, 0.008048, 0.01405),
    "vertical_velocity": (0.00352, 0.008157, 0.013959),
}
"""Root mean square difference between DeepMind's denoiser in bfloat16 (its ``casting`` wrapper) and in float32, at
these noise levels, with the case's weights and normalised random weather, on one CPU."""


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_deviates_no_more_than_the_references(case: Case, precision: str) -> None:
    network = network_of(case, "auto")
    denoiser = network.denoiser
    graphs = gencast_graphs(case.config, case.example.grid)
    directions = denoiser.edge_directions(case.checkpoint.params, graphs)
    random = np.random.default_rng(0)
    points = case.example.grid.shape[0] * case.example.grid.shape[1]
    known = random.standard_normal((points, len(denoiser.channels.conditioning_rows)))
    unit = random.standard_normal((points, denoiser.channels.outputs)).astype(np.float32)

    def denoised(dtype: str) -> dict[float, np.ndarray]:
        params = cast_parameters(case.checkpoint.params, dtype)
        structure = gencast_structure(network, graphs, dtype=jnp.dtype(dtype))

        @jax.jit
        def evaluate(params: dict, structure: DenoiserStructure, level: jax.Array) -> jax.Array:
            embedding = denoiser.embed_structure(params, structure, directions)
            conditioned = denoiser.condition(params, embedding, jnp.asarray(known, dtype))
            noisy = unit * jnp.sqrt(1 + level**2)
            return denoiser.evaluate(params, structure, embedding, conditioned, noisy, level)

        return {level: np.asarray(evaluate(params, structure, jnp.float32(level))) for level in NOISE_LEVELS}

    half, full = denoised(precision), denoised("float32")
    bounds = np.cumsum([block.channels for block in network.targets])[:-1]
    for number, level in enumerate(NOISE_LEVELS):
        assert half[level].dtype == np.float32
        by_variable = np.split(half[level] - full[level], bounds, axis=1)
        for block, difference in zip(network.targets, by_variable, strict=True):
            limit = REFERENCE_BFLOAT16_DEVIATION[block.variable][number]
            assert 0 < float(np.sqrt((difference**2).mean())) <= limit, (level, block.variable)
