"""Params files as DeepMind publishes them: a flat ``.npz`` whose keys are paths joined with colons.

``params:<haiku module path>:<w|b|scale|offset>`` hold the parameters; ``task_config:…`` and the family's own
configurations hold dataclass fields, tuples by index; ``description`` and ``license`` are texts. Nothing in a
file is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import io
import types
import typing
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.errors import CheckpointFileError
from model.gencast.configs import GenCastConfig
from model.graphcast import ModelConfig
from model.graphs.graph_network import Parameters
from model.task import TaskConfig

_SEPARATOR = ":"

FamilyConfig = ModelConfig | GenCastConfig


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """A params file, read.

    Args:
        params: arrays by Haiku module path and parameter name.
        task: what the model takes and gives.
        config: of its network; the type tells the family.
        description, license: the publisher's words.
    """

    params: Parameters
    task: TaskConfig
    config: FamilyConfig
    description: str
    license: str

    @property
    def family(self) -> str:
        """``"graphcast"`` or ``"gencast"``."""
        return "graphcast" if isinstance(self.config, ModelConfig) else "gencast"

    @property
    def parameter_count(self) -> int:
        """How many numbers the parameters are."""
        return sum(array.size for module in self.params.values() for array in module.values())


def read_checkpoint(content: bytes, *, name: str = "checkpoint") -> CheckpointFile:
    """Read a params file.

    Args:
        content: of the file.
        name: what to call it in errors.

    Raises:
        CheckpointFileError: truncated, not a params file, with pickled arrays, or with missing or wrong fields.
    """
    tree = _nest(_read_arrays(content, name))
    if not isinstance(tree.get("params"), dict) or not isinstance(tree.get("task_config"), dict):
        raise CheckpointFileError(
            f"{name}: expected a params file with 'params:…' and 'task_config:…', got keys {_some(tree)}"
        )
    try:
        task = _parse(TaskConfig, tree["task_config"], "task_config")
        config: FamilyConfig
        if "model_config" in tree:
            config = _parse(ModelConfig, tree["model_config"], "model_config")
        elif "denoiser_architecture_config" in tree:
            fields = {field.name for field in dataclasses.fields(GenCastConfig)}
            config = _parse(GenCastConfig, {key: tree[key] for key in fields & tree.keys()}, "")
        else:
            raise CheckpointFileError(
                f"expected 'model_config' (GraphCast) or 'denoiser_architecture_config' (GenCast), got {_some(tree)}"
            )
    except (CheckpointFileError, ValueError, TypeError) as error:
        raise CheckpointFileError(f"{name}: {error}") from error
    return CheckpointFile(
        params=_parse_params(tree["params"], name),
        task=task,
        config=config,
        description=str(tree.get("description", "")),
        license=str(tree.get("license", "")),
    )


def write_checkpoint(checkpoint: CheckpointFile) -> bytes:
    """The content of the params file, as ``read_checkpoint`` and DeepMind's own reader take it."""
    configs = (
        {"model_config": checkpoint.config}
        if isinstance(checkpoint.config, ModelConfig)
        else {
            field.name: getattr(checkpoint.config, field.name)
            for field in dataclasses.fields(checkpoint.config)
        }
    )
    tree = {
        "params": checkpoint.params,
        **configs,
        "task_config": checkpoint.task,
        "description": checkpoint.description,
        "license": checkpoint.license,
    }
    buffer = io.BytesIO()
    np.savez(buffer, **_flatten(tree))
    return buffer.getvalue()


def check_parameter_shapes(
    params: Mapping[str, Mapping[str, Any]], expected: Mapping[str, Mapping[str, tuple[int, ...]]]
) -> None:
    """Compare names and shapes with those the configuration asks for.

    Raises:
        CheckpointFileError: naming the first few that are missing, unknown or of another shape.
    """
    got = {f"{m}:{n}": tuple(a.shape) for m, names in params.items() for n, a in names.items()}
    wanted = {f"{m}:{n}": tuple(shape) for m, names in expected.items() for n, shape in names.items()}
    problems = [
        f"{name}: missing, expected shape {wanted[name]}" for name in sorted(wanted.keys() - got.keys())
    ]
    problems += [f"{name}: not a parameter of this model" for name in sorted(got.keys() - wanted.keys())]
    problems += [
        f"{name}: expected shape {wanted[name]}, got {got[name]}"
        for name in sorted(wanted.keys() & got.keys())
        if wanted[name] != got[name]
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointFileError(
            "parameters do not fit the configuration: " + "; ".join(problems[:3]) + more
        )


def _read_arrays(content: bytes, name: str) -> dict[str, np.ndarray]:
    try:
        archive = np.load(io.BytesIO(content), allow_pickle=False)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise CheckpointFileError(
            f"{name}: expected a whole .npz archive, got {len(content)} bytes that are none "
            f"(truncated or another kind of file)"
        ) from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise CheckpointFileError(f"{name}: expected an .npz archive, got a single array")
    arrays = {}
    with archive:
        for key in archive.files:
            try:
                arrays[key] = archive[key]
            except (
                ValueError,
                zipfile.BadZipFile,
                zlib.error,
                OSError,
                EOFError,
                NotImplementedError,
            ) as error:
                raise CheckpointFileError(
                    f"{name}: entry {key!r}: expected a plain array, got a pickled or damaged one ({error})"
                ) from error
    return arrays


def _nest(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(_SEPARATOR)
        node = tree
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise CheckpointFileError(f"key {key!r}: {part!r} is both a value and a group")
        node[last] = value
    return tree


def _flatten(tree: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(tree):
        items = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
    elif isinstance(tree, (tuple, list)):
        items = {str(index): value for index, value in enumerate(tree)}
    else:
        items = dict(tree)
    flat: dict[str, Any] = {}
    for key, value in items.items():
        if value is None:
            continue
        if dataclasses.is_dataclass(value) or isinstance(value, (dict, tuple, list)):
            flat.update({f"{key}{_SEPARATOR}{path}": leaf for path, leaf in _flatten(value).items()})
        else:
            flat[key] = value
    return flat


def _parse(kind: Any, value: Any, path: str) -> Any:
    """A nested group or array as the annotated type; None where an optional field is absent."""
    if isinstance(kind, types.UnionType):
        (kind,) = [option for option in typing.get_args(kind) if option is not type(None)]
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise CheckpointFileError(f"{path}: expected fields, got one value")
        hints = typing.get_type_hints(kind)
        fields = {field.name: field for field in dataclasses.fields(kind)}
        unknown = sorted(value.keys() - fields.keys())
        missing = sorted(
            name
            for name, field in fields.items()
            if name not in value and field.default is dataclasses.MISSING
        )
        if unknown or missing:
            raise CheckpointFileError(f"{path}: missing fields {missing}, unknown fields {unknown}")
        return kind(**{name: _parse(hints[name], value[name], f"{path}{_SEPARATOR}{name}") for name in value})
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, dict) or sorted(value, key=_index) != [str(i) for i in range(len(value))]:
            raise CheckpointFileError(f"{path}: expected entries 0, 1, 2, …")
        return tuple(_parse(typing.get_args(kind)[0], value[str(i)], path) for i in range(len(value)))
    if isinstance(value, dict) or value.shape != ():
        raise CheckpointFileError(f"{path}: expected one {kind.__name__}")
    return kind(value.item())


def _index(text: str) -> int:
    return int(text) if text.isdigit() else -1


def _parse_params(tree: Mapping[str, Any], name: str) -> dict[str, dict[str, np.ndarray]]:
    for module, parameters in tree.items():
        if not isinstance(parameters, dict) or any(isinstance(leaf, dict) for leaf in parameters.values()):
            raise CheckpointFileError(f"{name}: params:{module}: expected arrays by name, as Haiku has them")
        for parameter, array in parameters.items():
            if not np.issubdtype(array.dtype, np.floating):
                raise CheckpointFileError(
                    f"{name}: params:{module}:{parameter}: expected floating point, got {array.dtype}"
                )
    return {module: dict(parameters) for module, parameters in tree.items()}


def _some(tree: Mapping[str, Any]) -> str:
    keys = sorted(tree)
    return ", ".join(keys[:6]) + (", …" if len(keys) > 6 else "") if keys else "none"
