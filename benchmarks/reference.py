"""Time the reference implementation on the same files, from a checkout that is on the path."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import haiku as hk
import jax
import numpy as np
import xarray as xr

from benchmarks.cases import Case
from model.graphcast import ModelConfig


def measure_reference(case: Case, folder: Path, *, precision: str, steps: int) -> dict[str, Any]:
    """Time repeated single steps of the reference."""
    from graphcast import casting, checkpoint, data_utils, gencast, graphcast, nan_cleaning, normalization

    is_graphcast = isinstance(case.config, ModelConfig)
    kind = graphcast.CheckPoint if is_graphcast else gencast.CheckPoint
    with (folder / "params.npz").open("rb") as file:
        loaded = checkpoint.load(file, kind)
    statistics = {
        name: xr.load_dataset(folder / f"{name}_by_level.nc")
        for name in ("mean", "stddev", "diffs_stddev", "min")
    }
    dataset = xr.load_dataset(folder / "dataset.nc", decode_timedelta=True)
    inputs, targets, forcings = data_utils.extract_inputs_targets_forcings(
        dataset,
        target_lead_times=slice(str(case.task.step), str(case.task.step)),
        **{field: getattr(loaded.task_config, field) for field in loaded.task_config},
    )

    @hk.transform_with_state
    def forward(inputs: xr.Dataset, targets: xr.Dataset, forcings: xr.Dataset) -> xr.Dataset:
        if is_graphcast:
            predictor = graphcast.GraphCast(loaded.model_config, loaded.task_config)
        else:
            predictor = gencast.GenCast(
                sampler_config=loaded.sampler_config,
                task_config=loaded.task_config,
                denoiser_architecture_config=loaded.denoiser_architecture_config,
                noise_config=loaded.noise_config,
                noise_encoder_config=loaded.noise_encoder_config,
            )
        predictor = casting.Bfloat16Cast(predictor, enabled=precision == "bfloat16")
        predictor = normalization.InputsAndResiduals(
            predictor,
            diffs_stddev_by_level=statistics["diffs_stddev"],
            mean_by_level=statistics["mean"],
            stddev_by_level=statistics["stddev"],
        )
        if not is_graphcast:
            predictor = nan_cleaning.NaNCleaner(
                predictor=predictor,
                reintroduce_nans=True,
                fill_value=statistics["min"],
                var_to_clean="sea_surface_temperature",
            )
        return predictor(inputs, targets_template=targets, forcings=forcings)

    # As in the published notebooks the parameters are arguments, not constants to be folded.
    step = jax.jit(lambda params, rng, *data: forward.apply(params, {}, rng, *data)[0])
    arguments = (loaded.params, jax.random.PRNGKey(0), inputs, targets * np.nan, forcings)
    began = time.perf_counter()
    compiled = step.lower(*arguments).compile()
    compile_seconds = time.perf_counter() - began
    wall, processor = [], []
    for _ in range(steps):
        start, start_processor = time.perf_counter(), time.process_time()
        jax.tree.map(np.asarray, compiled(*arguments))
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    return {
        "compile_seconds": compile_seconds,
        "first_step_seconds": compile_seconds + wall[0],
        "step_seconds": wall,
        "processor_seconds": processor,
    }
