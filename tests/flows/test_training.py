"""The training flow and the command, on a tiny archive."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import temporary_settings

from flows import cli
from flows.serve import client_settings
from flows.training import _Curves, sparkline, train, train_command, training
from infra.errors import CheckpointMismatchError, FoldcastError
from infra.local_services import LocalServer
from model.checkpoint_file import read_checkpoint
from tasks.training import prepare
from tasks.training_settings import read_training_settings
from tests.fakes.training_archive import write_archive, write_statistics

CONFIG = """
archive = "archive.zarr"
statistics = "statistics"
output = "{output}"
resolution = 30.0
end = 2001-03-15T18:00:00Z
family = "graphcast"
checkpoint_every = 2
rematerialise = "auto"

[task]
input_variables = ["2m_temperature", "geopotential", "year_progress_sin", "land_sea_mask"]
target_variables = ["2m_temperature", "geopotential"]
forcing_variables = ["year_progress_sin"]
pressure_levels = [500, 850]
input_duration = "12h"

[model]
resolution = 30.0
mesh_size = 1
latent_size = 8
gnn_msg_steps = 1
hidden_layers = 1
radius_query_fraction_edge_length = 0.6

[[stages]]
updates = {updates}
peak_learning_rate = 1e-2

[evaluation]
start = 2001-03-16T00:00:00Z
starts = 2
steps = 2
every = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    write_statistics(folder / "statistics", write_archive(folder / "archive.zarr"))
    return folder


def configured(folder: Path, output: str, *, updates: int = 6) -> Path:
    path = folder / f"{output}.toml"
    path.write_text(CONFIG.format(output=output, updates=updates))
    return path


def test_the_command_prints_losses_skill_and_where_the_file_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_command(configured(folder, "printed"))
    printed = "".join(capsys.readouterr().out.split())

    assert "update1of6:loss" in printed
    assert printed.count("fieldgeopotential500,leadtime12h,rmse") == 2
    assert "printed/params.npz" in printed
    assert read_checkpoint((folder / "printed" / "params.npz").read_bytes()).config.latent_size == 8


def test_a_training_killed_by_the_kernel_ends_with_the_same_bits(folder: Path) -> None:
    train_command(configured(folder, "whole", updates=40))
    config = configured(folder, "killed", updates=40)
    command = [sys.executable, "-m", "flows.cli", "train", "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list((folder / "killed" / "checkpoints").glob("[1-9]*")):
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    train_command(config)

    whole, killed = (
        read_checkpoint((folder / name / "params.npz").read_bytes()).params for name in ("whole", "killed")
    )
    for module, parameters in whole.items():
        for name, array in parameters.items():
            np.testing.assert_array_equal(killed[module][name], array, err_msg=f"{module}: {name}")


def test_another_training_in_the_same_folder_is_refused(folder: Path) -> None:
    train_command(configured(folder, "first"))
    other = configured(folder, "first")
    other.write_text(other.read_text().replace("peak_learning_rate = 1e-2", "peak_learning_rate = 2e-2"))

    with pytest.raises(CheckpointMismatchError, match="give this training another folder"):
        train_command(other)


@pytest.mark.server
def test_the_flow_shows_loss_skill_and_progress(folder: Path, prefect_server: LocalServer) -> None:
    config = configured(folder, "flow")
    with temporary_settings(client_settings(prefect_server)):
        written = training(str(config))
        artifacts = asyncio.run(latest_artifacts())

    assert written == str(folder / "flow" / "params.npz")
    losses = json.loads(artifacts["training-loss"].data)
    assert [row["update"] for row in losses] == [str(update) for update in range(1, 7)]
    assert {"loss", "gradient_norm", "learning_rate", "geopotential"} <= set(losses[0])
    skill = json.loads(artifacts["training-skill"].data)
    assert {(row["update"], row["field"]) for row in skill} >= {
        ("3", "geopotential 500"),
        ("6", "2m_temperature"),
    }
    assert "mean RMSE of geopotential 500" in artifacts["training-skill"].description


@pytest.mark.server
def test_a_flow_that_goes_on_shows_the_whole_curve(folder: Path, prefect_server: LocalServer) -> None:
    config = configured(folder, "interrupted", updates=8)
    # The fifth update dies with its process; the checkpoint after the fourth is the newest.
    curves = _Curves(prepare(read_training_settings(config)))
    for report in islice(train(config), 5):
        curves.add(report)

    with temporary_settings(client_settings(prefect_server)):
        training(str(config))
        losses, skill = shown(asyncio.run(latest_artifacts()))
        training(str(config))  # nothing is left to do
        assert shown(asyncio.run(latest_artifacts())) == (losses, skill)
    assert [row["update"] for row in losses] == [str(update) for update in range(1, 9)]
    assert sorted({row["update"] for row in skill}) == ["3", "6", "8"]


def shown(artifacts: dict[str, Any]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows of the curves of loss and skill."""
    losses, skill = (json.loads(artifacts[f"training-{name}"].data) for name in ("loss", "skill"))
    return losses, skill


async def latest_artifacts() -> dict[str, object]:
    async with get_client() as client:
        return {artifact.key: artifact for artifact in await client.read_latest_artifacts()}


def test_a_curve_in_a_line() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5.0, 5.0]) == "▁▁"
    assert sparkline([]) == ""
    assert len(sparkline([float(n) for n in range(1000)])) <= 60


def test_without_the_extra_the_command_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [name for name in sys.modules if name.startswith(("flows.training", "tasks.training"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "optax", None)
    monkeypatch.setattr(sys, "argv", ["foldcast", "train", "--config", str(folder / "any.toml")])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 1
    assert "pip install 'foldcast[train]'" in capsys.readouterr().err


def test_a_file_that_is_no_training_is_one_readable_line(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("[store]\nroot = 'here'\n")

    with pytest.raises(FoldcastError) as refused:
        train_command(tmp_path / "other.toml")
    assert "archive: Field required" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "pydantic" not in str(refused.value)
