"""How gradients become updates: clipping, AdamW (or Muon), frozen parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import optax

from model.graphs.graph_network import Parameters


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimiser; its defaults are GraphCast's (Lam et al. 2023, supplement 4.5).

    Args:
        kind: ``"adamw"``, or ``"muon"``, which orthogonalises the momentum of weight matrices (Jordan et al.
            2024) and treats all else as AdamW; it needs fewer examples where a gradient is dear.
        beta1, beta2: decay of the moments.
        weight_decay: of weight matrices; biases, scales and offsets are left alone.
        clip_norm: largest global norm of a gradient.
        average_decay: decay of the running average of the parameters; 0 for none.
        muon_rms: root mean square of Muon's update of a matrix, in units of the learning rate.
        frozen: beginnings of module paths whose parameters stay as they are.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    clip_norm: float = 32.0
    average_decay: float = 0.999
    muon_rms: float = 0.2
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("adamw", "muon"):
            raise ValueError(f"kind: expected 'adamw' or 'muon', got {self.kind!r}")
        for name in ("beta1", "beta2", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 0 to below 1, got {getattr(self, name)}")
        if self.weight_decay < 0 or self.clip_norm <= 0:
            raise ValueError(
                f"expected weight_decay ≥ 0 and clip_norm > 0, got {self.weight_decay}, {self.clip_norm}"
            )


def build_optimizer(
    config: OptimizerConfig, learning_rate: optax.Schedule, params: Parameters
) -> optax.GradientTransformation:
    """The optimiser for parameters of these names.

    Args:
        learning_rate: of the number of the update.

    Raises:
        ValueError: a frozen part that no parameter belongs to.
    """
    unknown = [part for part in config.frozen if not any(module.startswith(part) for module in params)]
    if unknown:
        raise ValueError(f"frozen: no parameters begin with {unknown}; modules are {sorted(params)[:5]}, …")
    decayed = _is_matrix(params)
    if config.kind == "adamw":
        rule = optax.adamw(
            learning_rate, b1=config.beta1, b2=config.beta2, weight_decay=config.weight_decay, mask=decayed
        )
    else:
        rule = optax.contrib.muon(
            learning_rate,
            beta=config.beta2,
            adam_b1=config.beta1,
            adam_b2=config.beta2,
            weight_decay=config.weight_decay,
            weight_decay_mask=decayed,
            consistent_rms=config.muon_rms,
        )
    transformation = optax.chain(optax.clip_by_global_norm(config.clip_norm), rule)
    if not config.frozen:
        return transformation
    labels = {
        module: {name: "frozen" if module.startswith(config.frozen) else "trained" for name in parameters}
        for module, parameters in params.items()
    }
    return optax.multi_transform({"trained": transformation, "frozen": optax.set_to_zero()}, labels)


def _is_matrix(params: Parameters) -> dict[str, dict[str, Any]]:
    return {
        module: {name: array.ndim > 1 for name, array in parameters.items()}
        for module, parameters in params.items()
    }
