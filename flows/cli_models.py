"""Commands around a model: alone on published files, its inputs and its making; ``flows.cli`` has the others."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cyclopts import App

from flows.cli_options import Attention, Count, NotNegative, PositiveNumber, PredictionsFile, Resolution


def add_model_commands(app: App) -> None:
    """Give an application the commands of this module."""
    checkpoint = App(name="checkpoint", help="Look into published params files.")
    checkpoint.command(show)
    app.command(checkpoint)
    for command in (rollout, decode, regrid, train, nature_run, evaluate_demo):
        app.command(command)


def rollout(
    *,
    checkpoint: str,
    dataset: str,
    stats: str,
    steps: Count,
    output: PredictionsFile,
    members: Count = 1,
    seed: NotNegative = 0,
    rng: Literal["operational", "reference"] = "operational",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    attention: Attention = "auto",
    timings: Path | None = None,
) -> None:
    """Run a model alone, on DeepMind's own file formats.

    Example: `foldcast rollout --checkpoint params.npz --dataset in.nc --stats stats --steps 4 --output o.nc`

    Parameters
    ----------
    checkpoint
        Params file as published (.npz): a path or a gs://, s3:// or https:// URL.
    dataset
        Example dataset file with at least two frames.
    stats
        Folder or URL of the *_by_level.nc statistics.
    steps
        Number of model steps.
    output
        Where the predictions go: .nc or .zarr. It appears when all of them are there.
    members
        Ensemble members; a GraphCast, whose members would all be equal, takes one.
    seed
        Seed of the random keys.
    rng
        `reference` follows DeepMind's published recipe, `operational` folds in the init time as well.
    precision
        Compute type; auto goes by the device: float32 on CPUs, bfloat16 on accelerators that have it.
    attention
        GenCast's attention; auto chooses by backend.
    timings
        JSON file for compile and step seconds (member by member within a step) and memory peaks.
    """
    from tasks.standalone import rollout as run

    run(
        checkpoint=checkpoint,
        dataset=dataset,
        stats=stats,
        steps=steps,
        output=output,
        members=members,
        seed=seed,
        rng=rng,
        precision=precision,
        attention=attention,
        timings=timings,
    )


def show(path: str) -> None:
    """Say what a params file is: family, configuration, parameters, licence, memory it needs.

    Example: `foldcast checkpoint show params.npz`

    Parameters
    ----------
    path
        Path or URL of the .npz file.
    """
    from tasks.standalone import show_checkpoint as run

    run(path)


def decode(source: Path, output: Path) -> None:
    """Decode a GRIB file to NetCDF with canonical names and units, on its own grid.

    Example: `foldcast decode analysis.grib2 analysis.nc`

    Parameters
    ----------
    source
        GRIB 1 or 2 file.
    output
        NetCDF file to write.
    """
    from flows.decode import decode_file, print_summary

    print_summary(decode_file(source, output), output)


def regrid(
    source: Path,
    output: Path,
    *,
    grid: Resolution,
    method: Literal["auto", "subset", "linear", "conservative", "nearest"] = "auto",
) -> None:
    """Bring a GRIB or NetCDF file to a regular grid with poles.

    Example: `foldcast regrid analysis.grib2 analysis-1deg.nc --grid 1.0 --method linear`

    Parameters
    ----------
    source
        File to read.
    output
        NetCDF file to write.
    grid
        Spacing of the target grid in degrees.
    method
        Interpolation; auto takes a subset of points where the grids allow it, else linear.
    """
    from flows.decode import print_summary, regrid_file

    print_summary(regrid_file(source, output, resolution=grid, method=method), output)


def train(*, config: Path) -> None:
    """Train or fine-tune a model as a configuration file says.

    Example: `foldcast train --config training.toml`

    Parameters
    ----------
    config
        TOML file, see docs/training.md.
    """
    from flows.training import train_command as run

    run(config)


def nature_run(*, output: Path, years: PositiveNumber = 1.0, seed: NotNegative = 0) -> None:
    """Run a general circulation model freely and archive its analyses.

    Example: `foldcast nature-run --years 2 --output nature-run`

    Parameters
    ----------
    output
        Folder of the archive.
    years
        Simulated years after the spin-up.
    seed
        Seed of the initial perturbation.
    """
    from flows.nature_run import nature_run_command as run

    run(output=output, years=years, seed=seed)


def evaluate_demo(
    *,
    archive: Path | None = None,
    days: Count = 10,
    starts: Count = 60,
    members: Count = 8,
    ensemble_starts: Count = 60,
    ensemble_days: Count = 5,
    stable_days: Count = 15,
) -> None:
    """Print the skill of the bundled models against persistence and climatology.

    Example: `foldcast evaluate-demo --days 3 --ensemble-days 2`

    Parameters
    ----------
    archive
        Zarr store of held-out analyses. Default: the twelve bundled days, which leave room for few starts.
    days
        Lead time of the deterministic model; at most 5 with the bundled days.
    starts
        Its forecasts, evenly over the archive.
    members
        Of the ensemble.
    ensemble_starts
        Forecasts of the ensemble.
    ensemble_days
        Lead time of the ensemble.
    stable_days
        Length of the one long forecast that is watched for stability.
    """
    from flows.skill import evaluate_demo as run

    run(
        archive=archive,
        days=days,
        starts=starts,
        members=members,
        ensemble_starts=ensemble_starts,
        ensemble_days=ensemble_days,
        stable_days=stable_days,
    )
