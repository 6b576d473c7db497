"""The configuration of the GraphCast family, as it stands in params files."""

from __future__ import annotations

from dataclasses import dataclass

MESSAGE_PASSING = "message_passing"
GATED_MESSAGE_PASSING = "gated_message_passing"
SPARSE_TRANSFORMER = "sparse_transformer"
PROCESSORS = (MESSAGE_PASSING, GATED_MESSAGE_PASSING, SPARSE_TRANSFORMER)


@dataclass(frozen=True, kw_only=True)
class ProcessorConfig:
    """What a newly trained model has on the mesh; published ones have message passing and no such entry.

    Args:
        kind: ``"message_passing"``; ``"gated_message_passing"``, whose messages are multiplied by gates between 0
            and 1 that depend on the edge and both its vertices (after Bresson & Laurent 2017); or
            ``"sparse_transformer"``, GenCast's attention to the neighbourhood.
        attention_k_hop: reach of the attention in edges of the finest mesh.
        num_heads: of the attention; they divide the latent size.
        ffw_hidden: width of the transformer's feed-forward layers; None for twice the latent size.
    """

    kind: str
    attention_k_hop: int = 8
    num_heads: int = 4
    ffw_hidden: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in PROCESSORS:
            raise ValueError(f"processor kind: expected one of {', '.join(PROCESSORS)}, got {self.kind!r}")
        for name in ("attention_k_hop", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A published GraphCast checkpoint's ``model_config``, field by field, and the processor of newer ones.

    Args:
        resolution: of the grid, degrees.
        mesh_size: refinements of the icosahedron.
        latent_size: features of a node or edge inside the network.
        gnn_msg_steps: message-passing steps on the mesh, or layers of the transformer.
        hidden_layers: hidden layers of each MLP.
        radius_query_fraction_edge_length: reach of the grid-to-mesh edges as a fraction of the longest mesh edge.
        mesh2grid_edge_normalization_factor: divisor of the mesh-to-grid edge features; None for the longest.
        processor: None for message passing, as in all published files.
    """

    resolution: float
    mesh_size: int
    latent_size: int
    gnn_msg_steps: int
    hidden_layers: int
    radius_query_fraction_edge_length: float
    mesh2grid_edge_normalization_factor: float | None = None
    processor: ProcessorConfig | None = None

    def __post_init__(self) -> None:
        for name in ("resolution", "latent_size", "gnn_msg_steps", "radius_query_fraction_edge_length"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        if self.mesh_size < 0 or self.hidden_layers < 0:
            raise ValueError(
                f"mesh_size, hidden_layers: expected at least 0, got {self.mesh_size}, {self.hidden_layers}"
            )
        processor = self.processor
        if processor and processor.kind == SPARSE_TRANSFORMER and self.latent_size % processor.num_heads:
            raise ValueError(
                f"num_heads: expected a divisor of the latent size {self.latent_size}, got {processor.num_heads}"
            )

    @property
    def processor_kind(self) -> str:
        """One of ``PROCESSORS``."""
        return MESSAGE_PASSING if self.processor is None else self.processor.kind
