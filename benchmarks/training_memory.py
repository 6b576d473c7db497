"""What each level of recomputation saves in training: ``python -m benchmarks.training_memory``.

Updates of the named sizes are compiled for the default backend, not run, and their memory is the compiler's own
account: parameters, optimiser and batch are shapes without values. One example, AdamW.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.cases import CASES, Case
from model.channels import count_channels, forcing_blocks, input_blocks, target_blocks
from model.graphcast import ModelConfig
from model.grid import Grid
from model.networks import graphcast_graphs, graphcast_network
from model.normalization import ChannelScaling
from model.step import ModelStep
from model.training.family_losses import GraphCastLoss
from model.training.losses import loss_weights
from model.training.optimizer import OptimizerConfig, build_optimizer
from model.training.parallel import DeviceLayout
from model.training.partition import PartitionedGraphCastLoss
from model.training.rematerialisation import LEVELS, Rematerialisation
from model.training.training import initial_state, make_update
from model.variables import VARIABLES

_GIBIBYTE = 2**30


def measure(
    case: Case, *, level: Rematerialisation, precision: str, rollout_steps: int, parts: int = 1
) -> dict[str, Any]:
    """Bytes that one update needs at its peak on each device.

    Args:
        parts: devices that share the example.
    """
    config, task = case.config, case.task
    if not isinstance(config, ModelConfig):
        raise ValueError(f"{case.name}: expected a GraphCast, got a GenCast")
    grid = Grid(resolution=case.resolution)
    network = graphcast_network(config, task)
    graphs = graphcast_graphs(config, grid)
    network = dataclasses.replace(network, recompute=level)
    loss = GraphCastLoss(
        network=network,
        structure=network.structure(graphs, dtype=jnp.dtype(precision)),
        model_step=ModelStep(task=task, grid=grid, scaling=_unit_scaling(case)),
        weights=loss_weights(task, grid),
        statics={name: jnp.zeros(grid.shape) for name in task.statics},
        precision=precision,
    )
    layout = DeviceLayout(sample=parts)
    if parts > 1:
        loss = PartitionedGraphCastLoss.of(loss, graphs, parts)
    params = jax.eval_shape(network.initial_parameters, jax.random.PRNGKey(0))
    optimizer = build_optimizer(OptimizerConfig(), lambda update: 1e-3, params)
    update = make_update(
        loss, optimizer, OptimizerConfig(), seed=0, layout=layout, devices=jax.local_devices()
    )
    state = jax.eval_shape(lambda: initial_state(_zeros(params), optimizer))
    return {
        "case": case.name,
        "precision": precision,
        "rollout_steps": rollout_steps,
        "devices": parts,
        "level": asdict(level),
        "backend": jax.default_backend(),
        "peak_bytes": update.peak_bytes(state, _batch_shapes(case, grid, rollout_steps)),
    }


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _unit_scaling(case: Case) -> ChannelScaling:
    inputs = count_channels(input_blocks(case.task)) + count_channels(forcing_blocks(case.task))
    outputs = count_channels(target_blocks(case.task))
    return ChannelScaling(
        input_mean=np.zeros(inputs, np.float32),
        input_stddev=np.ones(inputs, np.float32),
        target_mean=np.zeros(outputs, np.float32),
        target_stddev=np.ones(outputs, np.float32),
        target_is_change=np.ones(outputs, bool),
        fill_values={},
    )


def _batch_shapes(case: Case, grid: Grid, rollout_steps: int) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    levels = len(case.task.pressure_levels)

    def shapes(names: tuple[str, ...], frames: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            name: jax.ShapeDtypeStruct(
                (1, 1, frames, *([levels] if VARIABLES[name].on_levels else []), *grid.shape), jnp.float32
            )
            for name in names
        }

    return {
        "frames": shapes(case.task.time_inputs, 2),
        "targets": shapes(case.task.target_variables, rollout_steps),
        "forcings": shapes(case.task.forcing_variables, 2 + rollout_steps),
    }


def _name(level: dict[str, Any]) -> str:
    return ", ".join(
        name if value is True else f"{name} {value}" for name, value in level.items() if value
    ) or ("everything kept")


def main() -> None:
    """Parse the command line, compile and print a table and JSON."""
    sizes = [name for name, case in CASES.items() if isinstance(case.config, ModelConfig)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=sizes, help=f"of {', '.join(sizes)}")
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--rollout-steps", type=int, nargs="+", default=[1])
    parser.add_argument("--devices", type=int, default=1, help="that share an example")
    parser.add_argument("--levels", type=int, nargs="+", default=list(range(len(LEVELS))))
    arguments = parser.parse_args()
    results = []
    for name in arguments.cases:
        for steps in arguments.rollout_steps:
            for number in arguments.levels:
                found = measure(
                    CASES[name],
                    level=LEVELS[number],
                    precision=arguments.precision,
                    rollout_steps=steps,
                    parts=arguments.devices,
                )
                print(json.dumps(found), flush=True)
                results.append(found)
    table = Table("case", "steps", "not kept", "GiB", title=f"{arguments.precision}, {jax.default_backend()}")
    for found in results:
        size = f"{found['peak_bytes'] / _GIBIBYTE:.2f}"
        table.add_row(found["case"], str(found["rollout_steps"]), _name(found["level"]), size)
    Console().print(table)


if __name__ == "__main__":
    main()
