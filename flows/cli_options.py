"""Types of the command line's options: what is typed is judged before anything is loaded."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number


def _init_time(_: object, value: str | None) -> None:
    if value is not None:
        from model.cycle import Cycle, parse_init_time

        Cycle(model="any", init_time=parse_init_time(value))


def _resolution(_: object, value: float) -> None:
    from model.grid import Grid

    Grid(resolution=value)


Count = Annotated[int, Parameter(validator=Number(gte=1))]
NotNegative = Annotated[int, Parameter(validator=Number(gte=0))]
Port = Annotated[int, Parameter(validator=Number(gte=1, lte=65535))]
PortOrNone = Annotated[int, Parameter(validator=Number(gte=0, lte=65535))]
InitTime = Annotated[str, Parameter(validator=_init_time)]
Resolution = Annotated[float, Parameter(validator=_resolution)]
PositiveNumber = Annotated[float, Parameter(validator=Number(gt=0))]
