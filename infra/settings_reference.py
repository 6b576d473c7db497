"""The configuration reference, from the settings classes: ``python -m infra.settings_reference FILE``."""

from __future__ import annotations

import sys
import types
import typing
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from infra.settings import (
    EventSettings,
    ModelSettings,
    PointSettings,
    ProductSettings,
    RunSettings,
    Settings,
    SourceSettings,
    StationSettings,
    StoreSettings,
)

_SECTIONS: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("Top level", Settings, "Fields and tables at the top of `foldcast.toml`."),
    ("[store]", StoreSettings, "Where everything lies."),
    ("[run]", RunSettings, "How work is handed out."),
    ("[sources.NAME]", SourceSettings, "One table for each provider of analyses."),
    ("[models.NAME]", ModelSettings, "One table for each model; NAME is lower-case letters, digits, dashes."),
    ("[models.NAME.stations]", StationSettings, "Station observations its forecasts are scored against."),
    ("[models.NAME.products]", ProductSettings, "What is made from the members."),
    ("[[models.NAME.products.events]]", EventSettings, "An event whose probability is published."),
    ("[[models.NAME.products.points]]", PointSettings, "A point with a meteogram."),
)

_INTRODUCTION = """# Configuration

Generated from the settings classes by `make docs`; do not edit.

Foldcast reads one TOML file: `foldcast.toml` in the working folder, or the one that `FOLDCAST_CONFIG` names.
Every field can be set in the environment as well, which wins: `FOLDCAST_` and the path of the field with
double underscores, as in `FOLDCAST_STORE__ROOT` or `FOLDCAST_MODELS__GENCAST__MEMBERS`. Relative paths are
relative to the file's folder. Durations are ISO 8601 (`PT10H`) or seconds.
"""


def reference() -> str:
    """The whole reference as Markdown."""
    parts = [_INTRODUCTION]
    for title, section, text in _SECTIONS:
        parts.append(f"## `{title}`\n\n{text}\n" if title.startswith("[") else f"## {title}\n\n{text}\n")
        parts.append("| field | type | default | meaning |\n|---|---|---|---|")
        parts += [_row(name, field) for name, field in section.model_fields.items()]
        parts.append("")
    return "\n".join(parts)


def _row(name: str, field: FieldInfo) -> str:
    cells = (f"`{name}`", _type(field.annotation), _default(field), field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(a) for a in arguments if a is not type(None))
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"table of {_type(arguments[1])}"
    names = {Any: "any", str: "text", int: "integer", float: "number", bool: "true or false"}
    if annotation in names:
        return names[annotation]
    return {"SecretStr": "secret", "timedelta": "duration"}.get(annotation.__name__, "table")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, timedelta):
        return f"{value.total_seconds() / 3600:g} h"
    if value is PydanticUndefined or (
        isinstance(value, tuple) and any(isinstance(v, BaseModel) for v in value)
    ):
        return "see its table"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
