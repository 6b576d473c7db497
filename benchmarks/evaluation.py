"""Time one evaluation of GenCast's denoiser: ``python -m benchmarks.evaluation [gencast-mini]``, one line of JSON.

A model step is 2·levels − 1 evaluations, minutes on a CPU; one evaluation tells the same about speed. With
``--reference CHECKOUT`` the reference implementation's is timed instead. ``processor_seconds`` is the time of all cores
together, which depends less than wall time on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from benchmarks.cases import CASES, Case, write_case
from model.checkpoint_file import read_checkpoint
from model.gencast.configs import GenCastConfig
from model.networks import GenCastOnGrid, build_network, checkpoint_grid

NOISE_LEVEL = 1.0


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    gencast = sorted(name for name, case in CASES.items() if isinstance(case.config, GenCastConfig))
    parser.add_argument("case", choices=gencast, nargs="?", default=gencast[0])
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--evaluations", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--reference", type=Path, help="checkout of the reference implementation to time")
    arguments = parser.parse_args()
    case = CASES[arguments.case]
    folder = arguments.folder / case.name
    write_case(case, folder)
    began, began_processor = time.perf_counter(), time.process_time()
    if arguments.reference:
        sys.path.insert(0, str(arguments.reference))
        evaluate = _reference(case, folder)
    else:
        evaluate = _ours(folder, precision=arguments.precision, attention=arguments.attention)
    prepared, prepared_processor = time.perf_counter() - began, time.process_time() - began_processor
    wall, processor = [], []
    for _ in range(arguments.evaluations):
        start, start_processor = time.perf_counter(), time.process_time()
        jax.block_until_ready(evaluate())
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    result = {
        "case": case.name,
        "implementation": "reference" if arguments.reference else "foldcast",
        "precision": "float32" if arguments.reference else arguments.precision,
        "prepare_seconds": prepared,
        "prepare_processor_seconds": prepared_processor,
        "evaluation_seconds": wall,
        "processor_seconds": processor,
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device": jax.local_devices()[0].device_kind,
    }
    print(json.dumps(result))


def _ours(folder: Path, *, precision: str, attention: str) -> Callable[[], Any]:
    """The compiled evaluation with its arguments."""
    checkpoint = read_checkpoint((folder / "params.npz").read_bytes())
    network = build_network(
        checkpoint,
        checkpoint_grid(checkpoint),
        precision=precision,
        attention=attention,
        platform=jax.default_backend(),
    )
    assert isinstance(network, GenCastOnGrid)
    params, structure, embedding, _ = network.prepare()
    denoiser = network.network.denoiser
    channels, points = denoiser.channels, embedding.grid.shape[0]
    random = np.random.default_rng(0)
    known = random.standard_normal((points, len(channels.conditioning_rows)), dtype=np.float32)
    noisy = random.standard_normal((points, channels.outputs), dtype=np.float32)
    conditioned = jax.jit(denoiser.condition)(params, embedding, jnp.asarray(known, precision))
    arguments = (params, structure, embedding, conditioned, jnp.asarray(noisy), jnp.float32(NOISE_LEVEL))
    program = jax.jit(denoiser.evaluate).lower(*arguments).compile()
    return lambda: program(*arguments)


def _reference(case: Case, folder: Path) -> Callable[[], Any]:
    from graphcast import checkpoint, data_utils, gencast, xarray_jax

    with (folder / "params.npz").open("rb") as file:
        loaded = checkpoint.load(file, gencast.CheckPoint)
    inputs, targets, forcings = data_utils.extract_inputs_targets_forcings(
        xr.load_dataset(folder / "dataset.nc", decode_timedelta=True),
        target_lead_times=slice(str(case.task.step), str(case.task.step)),
        **{field: getattr(loaded.task_config, field) for field in loaded.task_config},
    )

    @hk.transform
    def denoise(inputs: xr.Dataset, noisy: xr.Dataset, forcings: xr.Dataset, level: jax.Array) -> xr.Dataset:
        predictor = gencast.GenCast(
            loaded.task_config,
            loaded.denoiser_architecture_config,
            noise_encoder_config=loaded.noise_encoder_config,
        )
        levels = xarray_jax.DataArray(level, dims=("batch",))
        return predictor._preconditioned_denoiser(inputs, noisy, levels, forcings)

    arguments = (loaded.params, None, inputs, targets, forcings, jnp.full((1,), NOISE_LEVEL))
    program = jax.jit(denoise.apply).lower(*arguments).compile()
    return lambda: jax.tree.leaves(program(*arguments))


if __name__ == "__main__":
    main()
