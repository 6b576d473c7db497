"""GraphCast with GenCast's transformer on the mesh instead of message passing; for newly trained models.

Encoder and decoder are GraphCast's. The vertices of the mesh attend to their k-hop neighbourhood; where GenCast's
normalisations follow the noise level, here they have a scale and an offset of their own: the encoding is the
constant 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.gencast.attention import Attention, build_attention
from model.gencast.attention_options import AttentionOptions
from model.gencast.configs import SparseTransformerConfig
from model.gencast.mesh_order import mesh_neighbourhood, mesh_order, renumbered
from model.gencast.noise_encoder import scale_and_offset
from model.gencast.sparse_transformer import (
    condition_layers,
    conditioned_norm,
    final_condition_path,
    linear_layers,
    run_blocks,
    stack_blocks,
    transformer_path,
)
from model.graphcast import GraphCastNetwork, Structure
from model.graphcast_config import ModelConfig, ProcessorConfig
from model.graphs.graph_network import Parameters
from model.graphs.icosahedral_mesh import mesh_hierarchy
from model.graphs.model_graphs import ModelGraphs

_FINAL = "final"


@dataclass(frozen=True, kw_only=True)
class TransformerGraphCast(GraphCastNetwork):
    """The network with a transformer.

    Args:
        transformer: its configuration.
        attention: in the banded order of the mesh's vertices.
        order: number of the vertex at each place of that order, (mesh,).
    """

    transformer: SparseTransformerConfig
    attention: Attention
    order: tuple[int, ...]

    @classmethod
    def of(cls, config: ModelConfig, *, inputs: int, outputs: int) -> TransformerGraphCast:
        """The network of a configuration, whose processor is a transformer."""
        processor = config.processor or ProcessorConfig(kind="sparse_transformer")
        transformer = SparseTransformerConfig(
            attention_k_hop=processor.attention_k_hop,
            d_model=config.latent_size,
            num_layers=config.gnn_msg_steps,
            num_heads=processor.num_heads,
            ffw_hidden=processor.ffw_hidden or 2 * config.latent_size,
        )
        mesh = mesh_hierarchy(config.mesh_size)[-1]
        order = mesh_order(mesh)
        return cls(
            config=config,
            inputs=inputs,
            outputs=outputs,
            transformer=transformer,
            attention=build_attention(
                mesh_neighbourhood(renumbered(mesh, order), transformer.attention_k_hop),
                AttentionOptions(),
                platform="cpu",  # plain products and sums, which every device has
                num_heads=transformer.num_heads,
                channels_per_head=transformer.channels_per_head,
            ),
            order=tuple(order.tolist()),
        )

    @property
    def _message_passing_steps(self) -> int:
        return 0

    def _processor_structure(self, graphs: ModelGraphs, size: int, dtype: jnp.dtype) -> Any:
        return {
            "order": jnp.asarray(self.order),
            "places": jnp.asarray(np.argsort(self.order)),
            "masks": jax.tree.map(jnp.asarray, self.attention.masks()),
        }

    def _other_shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        for path, inputs, outputs, bias, _ in linear_layers(self.transformer):
            shapes[path] = {**({"b": (outputs,)} if bias else {}), "w": (inputs, outputs)}
        latent = self.config.latent_size
        for path in condition_layers(self.transformer):
            shapes[path] = {"b": (2 * latent,), "w": (1, 2 * latent)}
        return shapes

    def initial_parameters(self, key: jax.Array) -> dict[str, dict[str, jax.Array]]:
        """As GraphCast's; blocks and normalisations begin as the identity, as GenCast's do."""
        params = super().initial_parameters(key)
        for path, scale in self._initial_scales():
            params[path]["w"] = params[path]["w"] * scale
        return params

    def _initial_scales(self) -> Iterator[tuple[str, float]]:
        for path, *_, variance in linear_layers(self.transformer):
            yield path, float(np.sqrt(variance))
        for path in condition_layers(self.transformer):
            yield path, 0.0

    def needed_in_forward(self, params: Parameters) -> Parameters:
        """All but the transformer's, which are stacked in the embedding."""
        prefix = f"{transformer_path(self.transformer)}/"
        return {name: values for name, values in params.items() if not name.startswith(prefix)}

    def _embed_mesh_edges(self, params: Parameters, structure: Structure) -> None:
        return None

    def _stack_processor(self, params: Parameters) -> dict[str, Any]:
        final = params[final_condition_path(self.transformer)]
        return {**stack_blocks(params, self.transformer), _FINAL: final}

    def _process(self, steps: Parameters, structure: Any, edges: Any, mesh: jax.Array) -> jax.Array:
        blocks = {name: values for name, values in steps.items() if name != _FINAL}
        mesh = super()._process(blocks, structure, edges, mesh[structure["order"]])
        final = scale_and_offset(steps[_FINAL], jnp.ones(1))
        return conditioned_norm(mesh, final)[structure["places"]]

    def _message_steps(
        self, steps: Parameters, structure: Any, edges: Any, mesh: jax.Array
    ) -> tuple[Any, jax.Array]:
        return edges, run_blocks(
            steps,
            self.transformer,
            attention=self.attention,
            masks=structure["masks"],
            encoding=jnp.ones(1),
            nodes=mesh,
        )
