"""The ``foldcast`` command.

Every subcommand is a thin function that imports its flow when it is called, so ``--help`` answers at once.
What a user or a machine got wrong ends in one readable line, with the traceback behind ``--debug``; any other
exception is a fault of Foldcast and keeps its traceback. The exit code is 2 where the command line is wrong by
itself, otherwise 1.
"""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from flows.cli_models import add_model_commands
from flows.cli_options import (
    Count,
    InitTime,
    Interval,
    NotNegative,
    OptionError,
    Port,
    PortOrNone,
    check_period,
    check_server,
)
from infra.failures import readable_failure
from infra.machine_faults import behind
from infra.settings import private_orchestration, quiet_orchestration
from infra.terminal import command_console

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
add_model_commands(app)

_TALKATIVE = ("gcsfs", "great_expectations")
"""Libraries that log the traceback of a failure that is told anyway."""
_IN_RED: dict[str, Any] = {"style": "red", "highlight": False, "soft_wrap": True}


def main() -> None:
    """Entry point: run a command, turn expected failures into a message and an exit code."""
    tokens = sys.argv[1:]
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    errors = command_console(stderr=True)
    quiet_orchestration(debug=debug)
    if not debug:
        for library in _TALKATIVE:
            logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        command = " ".join(("foldcast", *(error.command_chain or ())))
        said = str(error)
        end = "" if said.endswith(("?", ".")) else "."
        errors.print(f"foldcast: {said}{end} See `{command} --help`.", **_IN_RED)
        sys.exit(2)
    except (Exception, KeyboardInterrupt) as error:
        if _is_interruption(error) and not (debug and isinstance(error, Exception)):
            errors.print("foldcast: interrupted; what is done is kept, run the same command again to go on")
            sys.exit(130)
        reason = readable_failure(error)
        if reason is None:
            error.add_note(
                "This is a fault of Foldcast, not of what was asked; please report it with the lines above."
            )
        if debug or reason is None:
            raise
        errors.print(f"foldcast: {reason}", **_IN_RED)
        sys.exit(2 if isinstance(error, OptionError) else 1)


def _is_interruption(error: BaseException) -> bool:
    """Whether Ctrl-C is all that happened.

    A flow run whose server went at the same moment finds nobody to report it to. Anything else that fails
    meanwhile, a checkpoint that cannot be written say, is a failure of its own.
    """
    if isinstance(error, KeyboardInterrupt):
        return True
    from httpx import TransportError

    nobody_there = isinstance(error, (ConnectionError, TransportError))
    return nobody_there and any(isinstance(each, KeyboardInterrupt) for each in behind(error))


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
    init: InitTime | None = None,
    members: Count | None = None,
    steps: Count | None = None,
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
        Check, make and publish the products of a published cycle again. Its initial condition and its members
        are taken from the store where they are whole.
    submit
        Hand it to the Prefect server's workers instead of running it here.
    """
    from flows.forecast import forecast_command as run

    run(model=model, init=init, members=members, steps=steps, source=source, force=force, submit=submit)


@app.command
def plan(*, model: str, members: Count | None = None, steps: Count | None = None) -> None:
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
def backfill(
    *,
    start: InitTime,
    end: InitTime,
    every: Interval = "24h",
    models: list[str] | None = None,
    max_parallel: Count = 2,
    dry_run: bool = False,
    force: bool = False,
) -> None:
    """Run the cycles of a past period that are not published yet, at the hours that their models start at.

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
        Cycles running at once on the workers; in this process they run one after the other.
    dry_run
        Only say what would become of each cycle, with what the sources have now; the exit code is 1 where one would
        fail.
    force
        Make and publish the products of published cycles again as well.
    """
    check_period(start, end)
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
def verify(*, model: str, init: InitTime | None = None, stations: bool = False) -> None:
    """Score published cycles against the analyses, or the station reports, that have arrived since.

    Example: `foldcast verify --model gencast`

    Parameters
    ----------
    model
        Name of a configured model.
    init
        Only this cycle; default: all published cycles.
    stations
        Show the scores against the station reports configured for the model.
    """
    from flows.verification import verify as run

    run(model=model, init_times=[init] if init else None, stations=stations)


@app.command
def status(*, models: list[str] | None = None) -> None:
    """List cycles: state, members, age, latency after init time.

    States: published; running (a run holds it); quarantined (inputs or products failed a check); unfinished (begun,
    and nobody is at it).

    Example: `foldcast status`

    Parameters
    ----------
    models
        Names of models; default: all in the store.
    """
    from flows.status import status as run

    run(models=models)


@app.command
def set_up(
    *,
    pools: Literal["process", "docker", "kubernetes"] = "process",
    prefect_file: Path = Path("prefect.yaml"),
) -> None:
    """Make pools, queues, limits, automations and deployments on the Prefect server of PREFECT_API_URL.

    `foldcast serve` does the same for the server it starts. May be repeated, after an upgrade say.

    Example: `foldcast set-up --pools kubernetes`

    Parameters
    ----------
    pools
        What workers start flow runs with: processes, containers on GPU hosts, or Kubernetes jobs.
    prefect_file
        The file that declares the deployments.
    """
    from flows.set_up import set_up_command as run

    run(pools=pools, prefect_file=prefect_file)


@app.command
def serve(
    *,
    host: str = "127.0.0.1",
    port: Port = 4200,
    home: Path = Path("foldcast-server"),
    database_url: Annotated[str | None, Parameter(env_var="FOLDCAST_SERVER_DATABASE_URL")] = None,
    credentials: Annotated[str | None, Parameter(env_var="FOLDCAST_SERVER_CREDENTIALS")] = None,
    gpu_workers: NotNegative = 1,
    training_workers: NotNegative = 0,
    pages_port: PortOrNone = 4201,
    metrics_port: Port | None = None,
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
    training_workers
        Workers that train; without one a training waits in its queue.
    pages_port
        Port of the products' pages, which the UI links to; 0 for none.
    metrics_port
        Port for Prometheus' scrapes; default: no metrics.
    """
    check_server(host, database_url, credentials)
    from flows.serve import serve as run

    run(
        host=host,
        port=port,
        home=home,
        database_url=database_url,
        credentials=credentials,
        gpu_workers=gpu_workers,
        training_workers=training_workers,
        pages_port=pages_port,
        metrics_port=metrics_port,
    )


if __name__ == "__main__":
    main()
