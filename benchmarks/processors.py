"""Skill, time and memory of the processors against their depth: ``python -m benchmarks.processors ARCHIVE HELD_OUT``.

Every variant is trained from nothing for the same processor time (all cores counted, compilation not), as the
bundled GraphCast is in its first stage but at a constant rate, and then forecasts held-out dates.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from infra.demo import bundled
from model.graphcast_config import PROCESSORS, ProcessorConfig
from model.training.evaluation import evaluate, make_forecast
from model.training.optimizer import build_optimizer
from model.training.training import initial_state
from tasks.training import _batch, _batch_shapes, prepare, read_series
from tasks.training_settings import TrainingSettings, read_training_settings
from tasks.training_update import build_update

_DAY = 4
"""Six-hourly steps."""
DAYS = (1, 3, 5)
_FIELD = "geopotential 500"


def settings_of(archive: Path, kind: str, depth: int, latent: int) -> TrainingSettings:
    """The bundled GraphCast's recipe with another processor, at one rate."""
    recipe = read_training_settings(bundled("training") / "graphcast.toml")
    model = {**(recipe.model or {}), "gnn_msg_steps": depth, "latent_size": latent}
    if kind != PROCESSORS[0]:
        processor = ProcessorConfig(kind=kind, attention_k_hop=8, num_heads=4)
        model["processor"] = dataclasses.asdict(processor)
    stage = {"updates": 10**6, "batch_size": 2, "warmup_updates": 60}
    rates = {"peak_learning_rate": 1.5e-3, "final_learning_rate": 1.5e-3}
    return recipe.model_copy(update={"archive": archive, "model": model, "stages": (stage | rates,)})


def measure(
    archive: Path, held_out: Path, kind: str, depth: int, *, latent: int, seconds: float
) -> dict[str, Any]:
    """Train one variant and score it."""
    preparation = prepare(settings_of(archive, kind, depth, latent))
    settings, params = preparation.settings, preparation.checkpoint.params
    optimizer = build_optimizer(settings.optimizer_config(), lambda update: 1.5e-3, params)
    shapes = functools.partial(_batch_shapes, preparation)
    stages = settings.curriculum().stages
    update = build_update(settings, preparation.loss, optimizer, params, stages, shapes)
    state = initial_state(params, optimizer)
    peak = update.peak_bytes(jax.eval_shape(lambda: initial_state(params, optimizer)), shapes(stages[0]))
    state, _ = update(state, _batch(preparation, 0))
    jax.block_until_ready(state)
    start, done = time.process_time(), 1
    while time.process_time() - start < seconds:
        state, metrics = update(state, _batch(preparation, done))
        done += 1
        jax.block_until_ready(state)
    spent = time.process_time() - start
    series = read_series(held_out, preparation.checkpoint.task, preparation.series.grid)
    steps = DAYS[-1] * _DAY
    starts = np.linspace(0, series.count(steps) - 1, 24).astype(int).tolist()
    with xr.open_dataset(bundled("climatology.nc"), engine="h5netcdf") as climatology:
        scores = evaluate(
            make_forecast(preparation.loss, ("geopotential",), steps=steps),
            state.average,
            series,
            starts,
            ("geopotential",),
            steps=steps,
            climatology=climatology.load(),
        ).sel(field=_FIELD, region="global")
    days = [day * _DAY - 1 for day in DAYS]
    return {
        "processor": kind,
        "depth": depth,
        "parameters": sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params)),
        "updates": done,
        "loss": float(metrics["loss"]),
        "seconds_per_example": spent / (done - 1) / stages[0].batch_size,
        "peak_bytes": peak,
        "rmse": scores["rmse"].values[days].tolist(),
        "acc": scores["acc"].values[days].tolist(),
    }


def main() -> None:
    """Parse the command line, train the variants one after the other, print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="Zarr store to train on")
    parser.add_argument("held_out", type=Path, help="Zarr store to score on")
    parser.add_argument("--processors", nargs="+", default=list(PROCESSORS), choices=PROCESSORS)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--latent", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=180, help="of processor time for each")
    arguments = parser.parse_args()
    table = Table(title=f"{arguments.seconds:g} s of processor time each, latent size {arguments.latent}")
    for heading in ("processor", "depth", "parameters", "updates", "s/example", "MiB", "z500 RMSE", "ACC"):
        table.add_column(heading)
    for kind in arguments.processors:
        for depth in arguments.depths:
            found = measure(
                arguments.archive,
                arguments.held_out,
                kind,
                depth,
                latent=arguments.latent,
                seconds=arguments.seconds,
            )
            print(json.dumps(found), flush=True)
            table.add_row(
                kind,
                str(depth),
                str(found["parameters"]),
                str(found["updates"]),
                f"{found['seconds_per_example']:.3f}",
                f"{found['peak_bytes'] / 2**20:.0f}",
                ", ".join(f"{value:.0f}" for value in found["rmse"]),
                ", ".join(f"{value:.2f}" for value in found["acc"]),
            )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
