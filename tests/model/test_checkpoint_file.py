import io
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint_file import check_parameter_shapes, read_checkpoint, write_checkpoint
from model.errors import CheckpointFileError
from model.gencast.configs import GenCastConfig
from model.graphcast import ModelConfig
from model.networks import graphcast_network
from tests.model.tiny import TASK, checkpoint, params_file

CASES = {
    "graphcast_small_f32": ModelConfig,
    "graphcast_operational_f32": ModelConfig,
    "gencast_f32": GenCastConfig,
}


@pytest.mark.parametrize("case", CASES)
def test_published_form_is_read_and_written_without_a_difference(parity_dir: Path, case: str) -> None:
    content = (parity_dir / case / "params.npz").read_bytes()
    read = read_checkpoint(content)
    assert isinstance(read.config, CASES[case])
    assert read.family == case.split("_")[0]
    with np.load(io.BytesIO(content)) as before, np.load(io.BytesIO(write_checkpoint(read))) as after:
        assert set(before.files) == set(after.files)
        for key in before.files:
            np.testing.assert_array_equal(before[key], after[key])


def test_fields_come_with_their_types(parity_dir: Path) -> None:
    read = read_checkpoint((parity_dir / "graphcast_operational_f32" / "params.npz").read_bytes())
    assert read.config == ModelConfig(
        resolution=10.0,
        mesh_size=2,
        latent_size=16,
        gnn_msg_steps=2,
        hidden_layers=1,
        radius_query_fraction_edge_length=0.6,
    )
    assert "total_precipitation_6hr" not in read.task.input_variables
    assert read.task.pressure_levels[:3] == (50, 100, 150)
    assert (read.description, read.license) == ("random weights for numerical parity", "none")
    assert read.parameter_count == 18195


def arrays() -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(params_file())) as archive:
        return {key: archive[key] for key in archive.files}


def packed(contents: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **contents)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [0, 10, 2000])
def test_truncated_file_is_refused(size: int) -> None:
    with pytest.raises(CheckpointFileError, match=r"params\.npz: expected a whole \.npz archive"):
        read_checkpoint(params_file()[:size], name="params.npz")


def test_damaged_entry_is_refused() -> None:
    content = bytearray(params_file())
    content[len(content) // 3] ^= 0xFF
    with pytest.raises(CheckpointFileError):
        read_checkpoint(bytes(content))


def test_foreign_archive_is_refused() -> None:
    with pytest.raises(CheckpointFileError, match=r"expected a params file .* got keys weights"):
        read_checkpoint(packed({"weights": np.zeros(3)}))
    single = io.BytesIO()
    np.save(single, np.zeros(3))
    with pytest.raises(CheckpointFileError, match="got a single array"):
        read_checkpoint(single.getvalue())


def test_pickled_array_is_never_loaded() -> None:
    poisoned = packed({**arrays(), "description": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(CheckpointFileError, match="'description': expected a plain array, got a pickled"):
        read_checkpoint(poisoned)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_config:mesh_size": None}, r"missing fields \['mesh_size'\]"),
        ({"model_config:colour": np.array(1)}, r"unknown fields \['colour'\]"),
        ({"model_config:mesh_size": np.arange(2)}, "expected one int"),
        ({"model_config:latent_size": np.array(0)}, "latent_size: expected a positive number, got 0"),
        ({"task_config:pressure_levels:0": None}, "expected entries 0, 1, 2"),
        ({"task_config:input_variables:0": np.array("moon_phase")}, "unknown variables"),
        ({"params:x:w": np.arange(3)}, "params:x:w: expected floating point, got int64"),
        ({"params:x": np.zeros(3)}, "params:x: expected arrays by name"),
    ],
)
def test_wrong_fields_are_named(change: dict[str, np.ndarray | None], message: str) -> None:
    contents = {key: value for key, value in (arrays() | change).items() if value is not None}
    with pytest.raises(CheckpointFileError, match=message):
        read_checkpoint(packed(contents))


def test_file_of_no_known_family_is_refused() -> None:
    contents = {key: value for key, value in arrays().items() if not key.startswith("model_config")}
    with pytest.raises(CheckpointFileError, match="expected 'model_config' \\(GraphCast\\)"):
        read_checkpoint(packed(contents))


def test_parameters_must_have_the_names_and_shapes_of_the_configuration() -> None:
    good = checkpoint()
    expected = graphcast_network(good.config, TASK).parameter_shapes()
    check_parameter_shapes(good.params, expected)
    name = "mesh_gnn/~_networks_builder/encoder_edges_mesh_mlp/~/linear_0"
    wider = {**expected, name: {"w": (4, 9), "b": (8,)}}
    with pytest.raises(CheckpointFileError, match=r"linear_0:w: expected shape \(4, 9\), got \(4, 8\)"):
        check_parameter_shapes(good.params, wider)
    with pytest.raises(CheckpointFileError, match="missing, expected shape"):
        check_parameter_shapes({}, expected)
    with pytest.raises(CheckpointFileError, match="not a parameter of this model"):
        check_parameter_shapes({**good.params, "extra": {"w": np.zeros(1)}}, expected)
