"""Types of the command line's options: what is typed is judged before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from infra.errors import FoldcastError

_DATABASES = ("postgresql+asyncpg://", "sqlite+aiosqlite://")


class OptionError(FoldcastError):
    """Options do not go together, or one whose value is not to be shown is wrong; the message names the option."""


def _init_time(_: object, value: str | None) -> None:
    if value is not None:
        from model.cycle import Cycle, parse_init_time

        Cycle(model="any", init_time=parse_init_time(value))


def _interval(_: object, value: str) -> None:
    from model.cycle import parse_interval

    parse_interval(value)


def _attention(_: object, value: str) -> None:
    from tasks.standalone import check_attention

    try:
        check_attention(value)
    except FoldcastError as error:
        raise ValueError(str(error)) from None


def _predictions(_: object, value: str) -> None:
    from infra.prediction_files import SUFFIXES

    if Path(value).suffix not in SUFFIXES:
        raise ValueError(f"Expected a name ending in {' or '.join(SUFFIXES)}")


def _resolution(_: object, value: float) -> None:
    from model.grid import Grid

    Grid(resolution=value)


Count = Annotated[int, Parameter(validator=Number(gte=1))]
NotNegative = Annotated[int, Parameter(validator=Number(gte=0))]
Port = Annotated[int, Parameter(validator=Number(gte=1, lte=65535))]
PortOrNone = Annotated[int, Parameter(validator=Number(gte=0, lte=65535))]
InitTime = Annotated[str, Parameter(validator=_init_time)]
Interval = Annotated[str, Parameter(validator=_interval)]
Attention = Annotated[str, Parameter(validator=_attention)]
PredictionsFile = Annotated[str, Parameter(validator=_predictions)]
Resolution = Annotated[float, Parameter(validator=_resolution)]
PositiveNumber = Annotated[float, Parameter(validator=Number(gt=0))]


def check_period(start: str, end: str) -> None:
    """Raises OptionError unless a period ends at or after its start."""
    from model.cycle import parse_init_time

    if parse_init_time(end) < parse_init_time(start):
        raise OptionError(f"--end: expected a time at or after --start {start}, got {end}")


def check_server(host: str, database_url: str | None, credentials: str | None) -> None:
    """Raises OptionError for a server that cannot be started so; it shows no secret. Empty is none."""
    from infra.local_services import is_loopback

    if not credentials and not is_loopback(host):
        raise OptionError(f"--host {host}: expected --credentials with anything but loopback, got none")
    if credentials and not all(credentials.partition(":")):
        raise OptionError("--credentials: expected user:password")
    if database_url and not database_url.startswith(_DATABASES):
        raise OptionError("--database-url: expected postgresql+asyncpg://user:password@host/database")
