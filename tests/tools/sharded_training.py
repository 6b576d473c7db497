"""One update on one device and over four, for a test that runs it in a process with four host devices.

``python -m tests.tools.sharded_training FOLDER``: FOLDER holds ``archive.zarr`` and ``statistics``, as
``tests.fakes.training_archive`` writes them. Prints, as JSON by name of a layout, the loss, the norm of the gradient
and the largest difference of a gradient from that on one device, in units of the largest entry of its array.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from model.graphs.graph_network import Parameters
from model.training.training import initial_state
from tasks.training import Preparation, _batch, _batch_shapes, prepare
from tasks.training_settings import TrainingSettings
from tasks.training_update import build_update
from tests.fakes.training_archive import MODEL, TASK

GENCAST = {
    "family": "gencast",
    "model": {
        "denoiser_architecture_config": {
            "sparse_transformer_config": {
                "attention_k_hop": 2,
                "d_model": 8,
                "num_layers": 1,
                "num_heads": 2,
                "ffw_hidden": 8,
                "attn_winit_final_mult": 1.0,
                "ffw_winit_final_mult": 1.0,
            },
            "mesh_size": 1,
            "latent_size": 8,
        }
    },
    "stages": ({"updates": 1, "batch_size": 4},),
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "one": {},
    "data": {"devices": {"data": 4}},
    "sample": {"devices": {"sample": 4}},
    "both": {"devices": {"data": 2, "sample": 2}},
    "sample, recomputed": {
        "devices": {"sample": 4},
        "rematerialise": {
            "encoder": True,
            "decoder": True,
            "message_steps": 1,
            "edge_chunks": True,
            "rollout_steps": True,
        },
    },
    "gencast, one": GENCAST,
    "gencast, data": GENCAST | {"devices": {"data": 4}},
}


def main(folder: Path) -> dict[str, dict[str, float]]:
    """The figures of each layout."""
    results: dict[str, dict[str, float]] = {}
    references: dict[str, Parameters] = {}
    for name, changes in LAYOUTS.items():
        preparation = prepare(
            TrainingSettings.model_validate(
                {
                    "archive": folder / "archive.zarr",
                    "resolution": 30.0,
                    "statistics": folder / "statistics",
                    "output": folder / "output",
                    "family": "graphcast",
                    "task": TASK,
                    "model": MODEL | {"gnn_msg_steps": 2},
                    "stages": ({"updates": 1, "rollout_steps": 2, "batch_size": 4},),
                }
                | changes
            )
        )
        metrics, gradients = gradient(preparation)
        reference = references.setdefault(str(preparation.settings.family), gradients)
        results[name] = metrics | {"difference": largest_difference(gradients, reference)}
    return results


def gradient(preparation: Preparation) -> tuple[dict[str, float], Parameters]:
    """Loss and gradient, which this rule keeps as its state."""
    params = jax.tree.map(np.asarray, preparation.checkpoint.params)
    rule = optax.trace(decay=0.0)
    update = build_update(
        preparation.settings,
        preparation.loss,
        rule,
        params,
        preparation.settings.curriculum().stages,
        functools.partial(_batch_shapes, preparation),
    )
    state, metrics = update(initial_state(params, rule), _batch(preparation, 0))
    figures = {name: float(metrics[name]) for name in ("loss", "gradient_norm")}
    return figures, jax.tree.map(np.asarray, state.optimizer.trace)


def largest_difference(gradients: Parameters, reference: Parameters) -> float:
    """Relative to the largest entry of each array."""
    differences = jax.tree.map(
        lambda a, b: np.abs(a - b).max() / max(np.abs(b).max(), 1e-30), gradients, reference
    )
    return float(max(jax.tree.leaves(differences)))


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
