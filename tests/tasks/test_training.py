import dataclasses
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from infra.errors import CheckpointMismatchError, FoldcastError, MissingDataError
from model.checkpoint_file import read_checkpoint
from model.errors import InvalidFieldError
from tasks.training import prepare, updates
from tasks.training_settings import TrainingSettings, read_training_settings
from tests.fakes.training_archive import MODEL, TASK, write_archive, write_statistics

STAGES = (
    {"updates": 3, "batch_size": 2, "warmup_updates": 1},
    {"updates": 2, "rollout_steps": 2, "accumulate": 2},
)


@pytest.fixture(scope="module", autouse=True)
def _compile_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The same small programs come again and again: keep them for this module."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], str(tmp_path_factory.mktemp("programs")))
    jax.config.update(names[1], 0.0)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_statistics(folder / "statistics", write_archive(folder / "archive.zarr"))
    return folder


def settings(data: Path, output: Path, **changes: Any) -> TrainingSettings:
    fields: dict[str, Any] = {
        "archive": data / "archive.zarr",
        "resolution": 30.0,
        "statistics": data / "statistics",
        "output": output,
        "family": "graphcast",
        "task": TASK,
        "model": MODEL,
        "stages": STAGES,
        "optimizer": {"weight_decay": 0.01, "average_decay": 0.5},
        "checkpoint_every": 2,
        "description": "a tiny model",
    }
    return TrainingSettings.model_validate(fields | changes)


def params_of(output: Path) -> dict[str, dict[str, np.ndarray]]:
    return read_checkpoint((output / "params.npz").read_bytes()).params


def test_a_killed_training_ends_with_the_same_bits(data: Path, tmp_path: Path) -> None:
    whole = list(updates(prepare(settings(data, tmp_path / "whole"))))
    # Killed after the third update: the newest checkpoint is that of the second, which goes on with number 2.
    killed = list(itertools.islice(updates(prepare(settings(data, tmp_path / "killed"))), 3))
    resumed = list(updates(prepare(settings(data, tmp_path / "killed"))))

    assert [report.update for report in whole] == [0, 1, 2, 3, 4]
    assert [report.update for report in killed + resumed] == [0, 1, 2, 2, 3, 4]
    assert [report.metrics for report in resumed] == [report.metrics for report in whole[2:]]
    jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path / "killed"), params_of(tmp_path / "whole"))


def test_the_loss_falls_and_skill_is_reported(data: Path, tmp_path: Path) -> None:
    evaluation = {"starts": 2, "steps": 3, "every": 20, "field": "geopotential 500"}
    stages = ({"updates": 40, "batch_size": 2, "peak_learning_rate": 1e-2},)
    reports = list(updates(prepare(settings(data, tmp_path, stages=stages, evaluation=evaluation))))

    losses = [report.metrics["loss"] for report in reports]
    skill = [report.skill for report in reports if report.skill is not None]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert len(skill) == 2
    rmse = [float(scores["rmse"].sel(field="geopotential 500").mean()) for scores in skill]
    assert rmse[-1] < float(skill[-1]["persistence_rmse"].sel(field="geopotential 500").mean())
    assert read_checkpoint((tmp_path / "params.npz").read_bytes()).description == "a tiny model"


def test_training_stops_when_skill_no_longer_grows(data: Path, tmp_path: Path) -> None:
    evaluation = {"starts": 1, "steps": 1, "every": 1, "patience": 2}
    # Without updates worth the name the second and third evaluations bring no gain.
    stages = ({"updates": 6, "peak_learning_rate": 1e-30},)
    reports = list(updates(prepare(settings(data, tmp_path, stages=stages, evaluation=evaluation))))

    assert [report.update for report in reports if report.stopped] == [len(reports) - 1]
    assert len(reports) < 6


def test_fine_tuning_starts_from_a_checkpoint_and_keeps_frozen_parts(data: Path, tmp_path: Path) -> None:
    list(updates(prepare(settings(data, tmp_path / "first"))))
    again = settings(
        data,
        tmp_path / "second",
        family=None,
        task=None,
        model=None,
        initialize_from=tmp_path / "first" / "params.npz",
        optimizer={"frozen": ("grid2mesh_gnn", "mesh_gnn")},
        stages=({"updates": 2},),
    )
    list(updates(prepare(again)))

    before, after = params_of(tmp_path / "first"), params_of(tmp_path / "second")
    for module in before:
        for name in before[module]:
            same = bool((before[module][name] == after[module][name]).all())
            trained = module.startswith("mesh2grid_gnn")
            assert same or trained, f"{module}: {name}"
    decoder = "mesh2grid_gnn/~_networks_builder/decoder_nodes_grid_nodes_mlp/~/linear_1"
    assert (before[decoder]["w"] != after[decoder]["w"]).any()


def test_another_grid_or_levels_are_refused(data: Path, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "coarse.zarr", resolution=45.0)

    with pytest.raises(InvalidFieldError, match=r"works on 30°; latitude"):
        prepare(settings(data, tmp_path, archive=archive))
    with pytest.raises(MissingDataError, match=r"levels \[1000\]"):
        prepare(settings(data, tmp_path, task=TASK | {"pressure_levels": (500, 1000)}))
    with pytest.raises(MissingDataError, match="expected analyses"):
        prepare(settings(data, tmp_path, start=datetime(2010, 1, 1, tzinfo=UTC)))


def test_a_changed_training_does_not_resume(data: Path, tmp_path: Path) -> None:
    list(updates(prepare(settings(data, tmp_path))))

    with pytest.raises(CheckpointMismatchError):
        next(updates(prepare(settings(data, tmp_path, seed=1))))


def directional_derivatives(data: Path, output: Path, steps: int, **changes: Any) -> tuple[float, float]:
    preparation = prepare(settings(data, output, **changes))
    batch = preparation.series.batch(np.array([0, 5]), steps)
    key = jax.random.PRNGKey(3)
    params = jax.tree.map(jnp.asarray, preparation.checkpoint.params)
    loss = jax.jit(lambda params: preparation.loss(params, batch, key)[0])
    gradient = jax.jit(jax.grad(lambda params: preparation.loss(params, batch, key)[0]))(params)
    norm = float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))))
    width = 1e-4
    ahead, behind = (
        float(loss(jax.tree.map(lambda p, g, s=sign: p + s * width / norm * g, params, gradient)))
        for sign in (1, -1)
    )
    return norm, (ahead - behind) / (2 * width)


def test_the_gradient_through_a_rollout_is_that_of_finite_differences(data: Path, tmp_path: Path) -> None:
    norm, slope = directional_derivatives(data, tmp_path, 2)

    # Along the gradient the loss rises by its norm. Networks compute in float32: differences over 2e-4 of a loss
    # of order 10 with a slope near 80 are good to about 1e-3.
    assert slope == pytest.approx(norm, rel=5e-3)


def test_rematerialised_steps_give_the_same_gradient(data: Path, tmp_path: Path) -> None:
    kept = prepare(settings(data, tmp_path))
    again = dataclasses.replace(kept.loss, rematerialize_steps=True)  # type: ignore[type-var]
    batch = kept.series.batch(np.array([1]), 3)
    key = jax.random.PRNGKey(0)

    gradients = [
        jax.jit(jax.grad(lambda params, loss=loss: loss(params, batch, key)[0]))(kept.checkpoint.params)
        for loss in (kept.loss, again)
    ]

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), *gradients)


def test_the_file_is_read_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "training.toml").write_text(
        'archive = "a.zarr"\nresolution = 5.0\nstatistics = "/s"\noutput = "out"\n'
        'initialize_from = "p.npz"\n[[stages]]\nupdates = 3\n',
        encoding="utf-8",
    )

    read = read_training_settings(tmp_path / "training.toml")

    assert (read.archive, read.statistics, read.output) == (tmp_path / "a.zarr", Path("/s"), tmp_path / "out")


def test_a_file_that_says_too_little_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.toml"
    path.write_text(
        'archive = "a.zarr"\nresolution = 5.0\nstatistics = "s"\noutput = "o"\nstages = [{updates = 1}]\n'
    )

    with pytest.raises(FoldcastError, match="expected family, task and model"):
        read_training_settings(path)
