"""What each family is trained by, for batches and from named fields: the published losses, ready for an update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp

from model.gencast.gencast import GenCastNetwork, NoiseBasis
from model.gencast.structure import DenoiserStructure
from model.graphcast import GraphCastNetwork, Structure
from model.graphs.graph_network import Parameters
from model.precision import accumulation_type, cast_parameters
from model.step import ModelStep
from model.training.ensemble_loss import ensemble_rollout_loss
from model.training.losses import LossWeights, autoregressive_loss, weighted_squared_error
from model.training.rematerialisation import Rematerialisation, recomputed

Batch = Any
"""A pytree of arrays with a leading axis over examples."""

Predict = Callable[[jax.Array, jax.Array], jax.Array]
"""Key of a step and features (grid, channel) to normalised targets, float32 (grid, channel)."""


class FamilyLoss(Protocol):
    """A family in training: its loss and, for evaluation, its prediction with the parameters at hand."""

    @property
    def model_step(self) -> ModelStep:
        """Between fields and channels."""

    @property
    def statics(self) -> Mapping[str, jax.Array]:
        """(latitude, longitude)."""

    @property
    def arrays(self) -> Any:
        """What lies on the device and never changes, as a pytree: a compiled program takes it as an argument."""

    def with_arrays(self, arrays: Any) -> Self:
        """The same with other arrays in place of ``arrays``."""

    def recomputing(self, recompute: Rematerialisation) -> Self:
        """The same, keeping for the backward pass what this says."""

    def __call__(
        self, params: Parameters, batch: Batch, keys: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Mean loss over a batch, whose examples have the keys (example, 2); each variable's unweighted share."""

    def predictor(self, params: Parameters) -> Predict:
        """One step of the model as it is."""


@dataclass(frozen=True, kw_only=True)
class GraphCastLoss:
    """The mean squared error over an autoregressive rollout, as a ``Loss``.

    Args:
        network, structure: in the precision's type.
        model_step: between fields and channels.
        weights: of variables, levels, areas.
        statics: (latitude, longitude).
        precision: type of the network's weights and activations; parameters and loss are float32.

    What is not kept for the backward pass, ``network.recompute`` says.
    """

    network: GraphCastNetwork
    structure: Structure
    model_step: ModelStep
    weights: LossWeights
    statics: Mapping[str, jax.Array]
    precision: str = "float32"

    @property
    def arrays(self) -> Any:
        """Graphs and statics."""
        return self.structure, dict(self.statics)

    def with_arrays(self, arrays: Any) -> Self:
        """The same with other graphs and statics."""
        return replace(self, structure=arrays[0], statics=arrays[1])

    def recomputing(self, recompute: Rematerialisation) -> Self:
        """The same, keeping for the backward pass what this says."""
        return replace(self, network=replace(self.network, recompute=recompute))

    def __call__(
        self, params: Parameters, batch: Batch, keys: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Mean over the batch; the keys have no effect."""
        predictor = self.predictor(params)

        def of_example(example: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
            return autoregressive_loss(
                lambda features: predictor(keys, features),
                self.model_step,
                self.weights,
                statics=self.statics,
                rematerialize=self.network.recompute.rollout_steps,
                **example,
            )

        return _mean(jax.vmap(of_example)(batch))

    def predictor(self, params: Parameters) -> Predict:
        """The network with these parameters; deterministic."""
        cast = cast_parameters(params, self.precision)
        embed = recomputed(self.network.embed_structure, when=self.network.recompute.encoder)
        embedding = embed(cast, self.structure)

        def predict(key: jax.Array, features: jax.Array) -> jax.Array:
            predicted = self.network.forward(cast, self.structure, embedding, features.astype(self.precision))
            return predicted.astype(accumulation_type(predicted.dtype))

        return predict


@dataclass(frozen=True, kw_only=True)
class GenCastLoss:
    """The denoising error of one step (Price et al. 2023, eq. 7–9), as a ``Loss``.

    Args:
        network, structure: in the precision's type.
        basis: of the noise.
        model_step, weights, statics, precision: as for ``GraphCastLoss``.
    """

    network: GenCastNetwork
    structure: DenoiserStructure
    basis: NoiseBasis
    model_step: ModelStep
    weights: LossWeights
    statics: Mapping[str, jax.Array]
    precision: str = "float32"

    @property
    def arrays(self) -> Any:
        """Graphs, noise and statics."""
        return self.structure, self.basis, dict(self.statics)

    def with_arrays(self, arrays: Any) -> Self:
        """The same with other graphs, noise and statics."""
        return replace(self, structure=arrays[0], basis=arrays[1], statics=arrays[2])

    def recomputing(self, recompute: Rematerialisation) -> Self:
        """The same, keeping for the backward pass what this says; a step is no rollout."""
        denoiser = replace(self.network.denoiser, recompute=recompute)
        return replace(self, network=replace(self.network, denoiser=denoiser))

    def __call__(
        self, params: Parameters, batch: Batch, keys: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Mean over the batch; each example has its own key, noise level and noise."""
        cast = cast_parameters(params, self.precision)

        def of_example(example: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            frames = example["frames"]
            truth = {name: field[0] for name, field in example["targets"].items()}
            features = self.model_step.features(self.statics, frames, example["forcings"])
            targets = self.model_step.normalized_targets(truth, frames)
            denoised, weight = self.network.denoising_pair(
                cast, self.structure, self.basis, key, features.astype(self.precision), targets
            )
            loss, by_variable = weighted_squared_error(denoised, targets, self.weights)
            return loss * weight, {name: value * weight for name, value in by_variable.items()}

        return _mean(jax.vmap(of_example)(batch, keys))

    def predictor(self, params: Parameters) -> Predict:
        """A sample of the diffusion with these parameters."""
        cast = cast_parameters(params, self.precision)
        denoiser = self.network.denoiser
        embed = recomputed(denoiser.embed_structure, when=denoiser.recompute.encoder)
        embedding = embed(cast, self.structure)

        def predict(key: jax.Array, features: jax.Array) -> jax.Array:
            features = features.astype(self.precision)
            return self.network.sample(cast, self.structure, embedding, self.basis, key, features)

        return predict


@dataclass(frozen=True, kw_only=True)
class EnsembleLoss:
    """The almost fair CRPS of a few members of a model that draws samples, rolled out, as a ``Loss``.

    Args:
        of: the model in training, its sampler as its configuration says.
        members: at least two.
        rematerialize_steps: keep only the states between the steps of a rollout for the backward pass.
    """

    of: GenCastLoss
    members: int
    rematerialize_steps: bool = False

    @property
    def model_step(self) -> ModelStep:
        """That of the model."""
        return self.of.model_step

    @property
    def statics(self) -> Mapping[str, jax.Array]:
        """Those of the model."""
        return self.of.statics

    @property
    def arrays(self) -> Any:
        """Those of the model."""
        return self.of.arrays

    def with_arrays(self, arrays: Any) -> Self:
        """The same with other arrays."""
        return replace(self, of=self.of.with_arrays(arrays))

    def recomputing(self, recompute: Rematerialisation) -> Self:
        """The same, keeping for the backward pass what this says."""
        return replace(self, of=self.of.recomputing(recompute), rematerialize_steps=recompute.rollout_steps)

    def __call__(
        self, params: Parameters, batch: Batch, keys: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Mean over the batch; each member of each example has its own key."""
        predictor = self.of.predictor(params)

        def of_example(example: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            return ensemble_rollout_loss(
                predictor,
                self.of.model_step,
                self.of.weights,
                jax.random.split(key, self.members),
                statics=self.of.statics,
                rematerialize=self.rematerialize_steps,
                **example,
            )

        return _mean(jax.vmap(of_example)(batch, keys))

    def predictor(self, params: Parameters) -> Predict:
        """That of the model."""
        return self.of.predictor(params)


def _mean(
    losses: tuple[jax.Array, dict[str, jax.Array]],
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean over the examples."""
    mean: tuple[jax.Array, dict[str, jax.Array]] = jax.tree.map(lambda array: jnp.mean(array, axis=0), losses)
    return mean
