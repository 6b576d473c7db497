"""The ``foldcast`` command.

Every subcommand is a thin function that imports its flow when it is called, so ``--help`` answers at once.
Expected failures end in one readable line and exit code 1; ``--debug`` shows the traceback behind it.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console

from infra.errors import FoldcastError
from infra.machine_faults import machine_fault
from infra.settings import private_orchestration, quiet_orchestration

_PROLOGUE = """Operational forecasts with the GraphCast family of machine-learned weather models.

Start with `foldcast demo`. Configuration: `foldcast.toml`, see docs/configuration.md."""

app = App(
    name="foldcast",
    help=_PROLOGUE,
    help_format="markdown",
    version=lambda: version("foldcast"),
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
checkpoint = App(name="checkpoint", help="Look into published params files.")
app.command(checkpoint)


def main() -> None:
    """Entry point: run a command, turn expected failures into a message and an exit code."""
    tokens = sys.argv[1:]
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    errors = Console(stderr=True)
    quiet_orchestration(debug=debug)
    try:
        app(tokens, exit_on_error=True)
    except (FoldcastError, ValueError) as error:  # a value type refuses what was typed with a ValueError
        if debug:
            raise
        errors.print(f"foldcast: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("foldcast: interrupted; what is done is kept, run the same command again to go on")
        sys.exit(130)
    except Exception as error:
        reason = machine_fault(error)
        if debug or reason is None:
            raise
        errors.print(f"foldcast: {reason}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


@app.command
def demo(output: Path = Path("demo-output")) -> None:
    """Run the whole pipeline on the bundled data and models: no network, server or accelerator.

    Example: `foldcast demo`

    Parameters
    ----------
    output
        Folder for everything that is written. Running it again resumes or skips what is done.
    """
    private_orchestration(output.resolve() / "prefect")
    from flows.demo import demo as run

    run(output=output)


@app.command
def forecast(
    *,
    model: str,
    init: str | None = None,
    members: int | None = None,
    steps: int | None = None,
    source: str | None = None,
    force: bool = False,
    submit: bool = False,
) -> None:
    """Run one cycle from its analyses to published products.

    Example: `foldcast forecast --model gencast --init 2026-01-01T00 --members 8`

    Parameters
    ----------
    model
        Name of a configured model.
    init
        Start of the forecast, UTC. Default: the newest cycle whose inputs are complete.
    members
        Ensemble size instead of the configured one.
    steps
        Number of model steps instead of the configured one.
    source
        Name of a configured source instead of the model's.
    force
        Run the cycle again even if it is published.
    submit
        Hand it to the Prefect server's workers instead of running it here.
    """
    from flows.forecast import forecast_command as run

    run(model=model, init=init, members=members, steps=steps, source=source, force=force, submit=submit)


@app.command
def rollout(
    *,
    checkpoint: str,
    dataset: str,
    stats: str,
    steps: int,
    output: str,
    members: int = 1,
    seed: int = 0,
    rng: Literal["operational", "reference"] = "operational",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    attention: str = "auto",
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
        Where the predictions go: .nc or .zarr.
    members
        Ensemble members (GenCast).
    seed
        Seed of the random keys.
    rng
        `reference` follows DeepMind's published recipe, `operational` folds in the init time as well.
    precision
        Compute type; auto takes the checkpoint family's own.
    attention
        GenCast's attention; auto chooses by backend.
    timings
        JSON file for compile and step seconds and memory peaks.
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


@checkpoint.command
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


@app.command
def plan(*, model: str, members: int | None = None, steps: int | None = None) -> None:
    """Say what a run would need against what this machine has, before it starts.

    Example: `foldcast plan --model gencast --members 50`

    Parameters
    ----------
    model
        Name of a configured model.
    members
        Ensemble size instead of the configured one.
    steps
        Number of model steps instead of the configured one.
    """
    from flows.plan import plan as run

    run(model=model, members=members, steps=steps)


@app.command
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


@app.command
def regrid(
    source: Path,
    output: Path,
    *,
    grid: float,
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


@app.command
def backfill(
    *,
    start: str,
    end: str,
    every: str = "24h",
    models: list[str] | None = None,
    max_parallel: int = 2,
    dry_run: bool = False,
    force: bool = False,
) -> None:
    """Run the cycles of a past period that are not published yet.

    Example: `foldcast backfill --start 2026-01-01 --end 2026-01-31 --every 24h --dry-run`

    Parameters
    ----------
    start
        First init time, UTC.
    end
        Last init time, included.
    every
        Time between cycles, e.g. 6h.
    models
        Names of configured models; default: all.
    max_parallel
        Cycles running at once.
    dry_run
        Only say what would be done.
    force
        Run published cycles again as well.
    """
    from flows.backfill import backfill_command as run

    run(
        start=start,
        end=end,
        every=every,
        models=models,
        max_parallel=max_parallel,
        dry_run=dry_run,
        force=force,
    )


@app.command
def verify(*, model: str, init: str | None = None) -> None:
    """Score published cycles against the analyses that have arrived since.

    Example: `foldcast verify --model gencast`

    Parameters
    ----------
    model
        Name of a configured model.
    init
        Only this cycle; default: all published cycles.
    """
    from flows.verification import verify as run

    run(model=model, init_times=[init] if init else None)


@app.command
def status(*, models: list[str] | None = None) -> None:
    """List cycles: state, members, age, latency after init time.

    Example: `foldcast status`

    Parameters
    ----------
    models
        Names of models; default: all in the store.
    """
    from flows.status import status as run

    run(models=models)


@app.command
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


@app.command
def nature_run(*, output: Path, years: float = 1.0, seed: int = 0) -> None:
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


@app.command
def evaluate_demo(
    *,
    archive: Path | None = None,
    days: int = 10,
    starts: int = 60,
    members: int = 8,
    ensemble_starts: int = 60,
    ensemble_days: int = 5,
    stable_days: int = 15,
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


@app.command
def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 4200,
    home: Path = Path("foldcast-server"),
    database_url: Annotated[str | None, Parameter(env_var="FOLDCAST_SERVER_DATABASE_URL")] = None,
    credentials: Annotated[str | None, Parameter(env_var="FOLDCAST_SERVER_CREDENTIALS")] = None,
    gpu_workers: int = 1,
    pages_port: int = 4201,
    metrics_port: int | None = None,
) -> None:
    """Start server, work pools, workers, deployments and UI on this machine.

    Example: `foldcast serve --port 4200`

    Parameters
    ----------
    host
        Address to bind to; anything but loopback needs credentials.
    port
        Port of the UI and API.
    home
        Folder of the server's database and logs.
    database_url
        PostgreSQL URL (postgresql+asyncpg://…); default: SQLite below home.
    credentials
        user:password for basic authentication.
    gpu_workers
        Workers for ensemble members on this machine, one per accelerator.
    pages_port
        Port of the products' pages, which the UI links to; 0 for none.
    metrics_port
        Port for Prometheus' scrapes; default: no metrics.
    """
    from flows.serve import serve as run

    run(
        host=host,
        port=port,
        home=home,
        database_url=database_url,
        credentials=credentials,
        gpu_workers=gpu_workers,
        pages_port=pages_port,
        metrics_port=metrics_port,
    )


if __name__ == "__main__":
    main()
