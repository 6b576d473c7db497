import dataclasses
import itertools
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
import xarray as xr

import tasks.training
import tasks.training_update
from infra.errors import CheckpointMismatchError, DoesNotFitError, FoldcastError, MissingDataError
from infra.training_archive import StoredField
from model.checkpoint_file import read_checkpoint
from model.errors import InvalidFieldError
from model.training import rematerialisation
from model.training.family_losses import EnsembleLoss
from model.training.rematerialisation import KEEP_ALL, LEVELS, Rematerialisation
from tasks.training import prepare, updates
from tasks.training_settings import TrainingSettings, read_training_settings
from tasks.training_update import build_update
from tests.fakes.training_archive import MODEL, TASK, write_archive, write_statistics

END = datetime(2001, 3, 15, 18, tzinfo=UTC)
HELD_OUT = {"start": datetime(2001, 3, 16, tzinfo=UTC)}
STAGES = (
    {"updates": 3, "batch_size": 2, "warmup_updates": 1},
    {"updates": 2, "rollout_steps": 2, "accumulate": 2},
)


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


def test_initial_parameters_do_not_follow_the_environment(data: Path, tmp_path: Path) -> None:
    expected = prepare(settings(data, tmp_path)).fingerprint
    jax.config.update("jax_default_prng_impl", "rbg")
    try:
        assert prepare(settings(data, tmp_path)).fingerprint == expected
    finally:
        jax.config.update("jax_default_prng_impl", "threefry2x32")


def test_the_loss_falls_and_skill_is_reported(data: Path, tmp_path: Path) -> None:
    evaluation = HELD_OUT | {"starts": 2, "steps": 3, "every": 20, "field": "geopotential 500"}
    stages = ({"updates": 40, "batch_size": 2, "peak_learning_rate": 1e-2},)
    reports = list(updates(prepare(settings(data, tmp_path, end=END, stages=stages, evaluation=evaluation))))

    losses = [report.metrics["loss"] for report in reports]
    skill = [report.skill for report in reports if report.skill is not None]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert len(skill) == 2
    rmse = [float(scores["rmse"].sel(field="geopotential 500").mean()) for scores in skill]
    assert rmse[-1] < float(skill[-1]["persistence_rmse"].sel(field="geopotential 500").mean())
    assert read_checkpoint((tmp_path / "params.npz").read_bytes()).description == "a tiny model"


def test_training_stops_when_skill_no_longer_grows(data: Path, tmp_path: Path) -> None:
    evaluation = HELD_OUT | {"starts": 1, "steps": 1, "every": 1, "patience": 2}
    # Without updates worth the name the second and third evaluations bring no gain.
    stages = ({"updates": 6, "peak_learning_rate": 1e-30},)
    stopping = settings(data, tmp_path, end=END, stages=stages, evaluation=evaluation)
    reports = list(updates(prepare(stopping)))

    assert [report.update for report in reports if report.stopped] == [len(reports) - 1]
    assert len(reports) < 6
    # Started again it stays where it is.
    assert list(updates(prepare(stopping))) == []


def test_evaluations_on_what_is_trained_on_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FoldcastError, match="that training does not see, got 24 that it does"):
        next(updates(prepare(settings(data, tmp_path, evaluation={"steps": 2}))))
    with pytest.raises(FoldcastError, match="got 8 that it does, from 2001-03-16"):
        next(updates(prepare(settings(data, tmp_path, evaluation=HELD_OUT | {"steps": 2}))))


def test_a_loss_that_is_no_number_ends_the_training_before_it_is_kept(data: Path, tmp_path: Path) -> None:
    stages = ({"updates": 6, "peak_learning_rate": 1e30},)
    with pytest.raises(FoldcastError, match=r"update [1-5]: expected finite losses and gradients"):
        list(updates(prepare(settings(data, tmp_path, stages=stages, checkpoint_every=1))))

    assert not (tmp_path / "params.npz").exists()


def test_analyses_that_stay_on_disk_give_the_same_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = list(updates(prepare(settings(data, tmp_path / "memory"))))
    monkeypatch.setattr(tasks.training, "host_memory_available", lambda: 1000)
    on_disk = prepare(settings(data, tmp_path / "disk"))

    assert isinstance(on_disk.series.fields["geopotential"], StoredField)
    assert [report.metrics for report in updates(on_disk)] == [report.metrics for report in in_memory]


def test_a_training_is_told_by_what_its_files_hold(data: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.zarr"
    shutil.copytree(data / "archive.zarr", moved)
    known = prepare(settings(data, tmp_path / "a")).fingerprint
    assert prepare(settings(data, tmp_path / "b", archive=moved)).fingerprint == known

    with xr.open_zarr(moved, consolidated=False) as archive:
        changed = archive.load() * 1.01
    changed.drop_encoding().to_zarr(moved, mode="w", consolidated=False)
    assert prepare(settings(data, tmp_path / "b", archive=moved)).fingerprint != known


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


def test_recomputed_steps_give_the_same_training(data: Path, tmp_path: Path) -> None:
    """To rounding; the gradients themselves are compared in float64 in tests/model/training/test_gradients.py."""
    everything = {
        "encoder": True,
        "decoder": True,
        "message_steps": 1,
        "edge_chunks": True,
        "rollout_steps": True,
    }
    kept = list(updates(prepare(settings(data, tmp_path / "kept"))))
    again = list(updates(prepare(settings(data, tmp_path / "again", rematerialise=everything))))

    for before, after in zip(kept, again, strict=True):
        assert after.metrics == pytest.approx(before.metrics, rel=1e-3)


def test_the_first_level_that_fits_is_chosen_and_kept(data: Path, tmp_path: Path) -> None:
    list(updates(prepare(settings(data, tmp_path, rematerialise="auto", device_memory=10**9))))
    chosen = json.loads((tmp_path / "rematerialisation.json").read_text())
    assert chosen == dataclasses.asdict(LEVELS[0])

    # What was chosen holds when the training goes on, whatever memory there is then.
    (tmp_path / "rematerialisation.json").write_text(json.dumps(dataclasses.asdict(LEVELS[-1])))
    preparation = prepare(settings(data, tmp_path, rematerialise="auto", device_memory=10**9))
    optimizer = optax.sgd(1.0)
    update = build_update(
        preparation.settings,
        preparation.loss,
        optimizer,
        preparation.checkpoint.params,
        preparation.settings.curriculum().stages,
        lambda stage: None,
    )
    assert update.loss.network.recompute == LEVELS[-1]  # type: ignore[attr-defined]


def test_a_training_begun_before_levels_were_kept_goes_on_keeping_everything(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GenCast's wrote checkpoints and no choice; a choice made now would round otherwise."""
    auto = settings(
        data, tmp_path, family="gencast", model=ONE_EVALUATION, rematerialise="auto", device_memory=10**9
    )
    preparation = prepare(auto)
    asked: list[object] = []

    def choose(*arguments: object) -> Rematerialisation:
        asked.append(arguments)
        return LEVELS[-1]

    monkeypatch.setattr(tasks.training_update, "least_saving_that_fits", choose)

    def level() -> Rematerialisation:
        update = build_update(
            auto, preparation.loss, optax.sgd(1.0), preparation.checkpoint.params,
            auto.curriculum().stages, lambda stage: None,
        )  # fmt: skip
        return update.loss.network.denoiser.recompute  # type: ignore[attr-defined, no-any-return]

    (auto.checkpoints / "200").mkdir(parents=True)
    assert level() == KEEP_ALL
    assert not asked
    assert not (tmp_path / "rematerialisation.json").exists()
    (auto.checkpoints / "200").rmdir()
    assert level() == LEVELS[-1], "a training that has no checkpoint yet chooses"


def test_what_does_not_fit_or_cannot_be_shared_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rematerialisation, "LEVELS", LEVELS[::4])  # each is a program to compile
    with pytest.raises(DoesNotFitError, match="no level of recomputation fits into 1000 bytes"):
        next(updates(prepare(settings(data, tmp_path, rematerialise="auto", device_memory=1000))))
    with pytest.raises(FoldcastError, match=r"expected 2 × 512 = 1024, got"):
        next(
            updates(
                prepare(
                    settings(
                        data,
                        tmp_path,
                        devices={"data": 2, "sample": 512},
                        stages=({"updates": 1, "batch_size": 2},),
                    )
                )
            )
        )
    with pytest.raises(ValueError, match=r"multiples of 4 devices, got \[2, 1\]"):
        settings(data, tmp_path, devices={"data": 4})


def test_training_goes_on_from_a_smaller_model(data: Path, tmp_path: Path) -> None:
    list(updates(prepare(settings(data, tmp_path / "small"))))
    small = prepare(
        settings(
            data,
            tmp_path / "same",
            family=None,
            task=None,
            model=None,
            initialize_from=tmp_path / "small" / "params.npz",
        )
    )
    large = prepare(
        settings(
            data,
            tmp_path / "large",
            family=None,
            task=None,
            model=MODEL | {"latent_size": 16, "gnn_msg_steps": 2},
            initialize_from=tmp_path / "small" / "params.npz",
        )
    )
    batch, keys = small.series.batch(np.array([3]), 1), jax.random.split(jax.random.PRNGKey(0), 1)
    before, after = (float(p.loss(p.checkpoint.params, batch, keys)[0]) for p in (small, large))
    assert after == pytest.approx(before, rel=1e-4)

    reports = list(updates(large))
    assert len(reports) == 5
    read = read_checkpoint((tmp_path / "large" / "params.npz").read_bytes())
    assert (read.config.latent_size, read.config.gnn_msg_steps) == (16, 2)
    with pytest.raises(FoldcastError, match="multiple of the latent size 8"):
        prepare(
            settings(
                data,
                tmp_path / "odd",
                family=None,
                task=None,
                model=MODEL | {"latent_size": 12},
                initialize_from=tmp_path / "small" / "params.npz",
            )
        )


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


ONE_EVALUATION = {
    "denoiser_architecture_config": {
        "sparse_transformer_config": {
            "attention_k_hop": 2,
            "d_model": 8,
            "num_layers": 1,
            "num_heads": 2,
            "ffw_hidden": 8,
        },
        "mesh_size": 1,
        "latent_size": 8,
    },
    "sampler_config": {
        "num_noise_levels": 1,
        "max_noise_level": 200.0,
        "min_noise_level": 200.0,
        "stochastic_churn_rate": 0.0,
    },
}
ENSEMBLE = {"updates": 1, "ensemble_members": 2, "peak_learning_rate": 1e-2}


def test_a_stage_may_score_an_ensemble(data: Path, tmp_path: Path) -> None:
    chosen = settings(data, tmp_path, family="gencast", model=ONE_EVALUATION, stages=(ENSEMBLE,))
    preparation = prepare(chosen)

    reports = list(updates(preparation))

    # The score is in standard deviations of a step's change: of order one for a model that knows nothing.
    assert 0 < reports[0].metrics["loss"] < 10
    fresh, trained = preparation.checkpoint.params, params_of(tmp_path)
    changes = [
        float(np.abs(trained[module][name] - fresh[module][name]).max())
        for module in fresh
        for name in fresh[module]
    ]
    assert max(changes) > 1e-4
    assert read_checkpoint((tmp_path / "params.npz").read_bytes()).config.sampler_config.num_noise_levels == 1


def test_each_stage_has_its_own_loss(data: Path, tmp_path: Path) -> None:
    stages = ({"updates": 1, "warmup_updates": 0}, ENSEMBLE)
    preparation = prepare(settings(data, tmp_path, family="gencast", model=ONE_EVALUATION, stages=stages))

    losses = tasks.training._losses(preparation)

    assert losses[0] is preparation.loss
    assert isinstance(losses[2], EnsembleLoss)
    assert (losses[2].of, losses[2].members) == (preparation.loss, 2)


def test_a_model_that_draws_no_samples_has_no_ensemble_to_score(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FoldcastError, match="draws no samples, got 2"):
        next(updates(prepare(settings(data, tmp_path, stages=(ENSEMBLE,)))))
