"""What a model in training is worth: forecasts from held-out dates, scored against what came.

The scores are those of verification (``model.diagnostics.scores``), so a figure here means what it means there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from model.channels import INPUT_FRAMES
from model.diagnostics.climatology import climatological_mean
from model.diagnostics.scores import Region, ensemble_statistics, scores, total
from model.graphs.graph_network import Parameters
from model.step import forcings_around
from model.training.examples import AnalysisSeries
from model.training.family_losses import FamilyLoss
from model.variables import VARIABLES

Forecast = Callable[
    [Parameters, Mapping[str, jax.Array], Mapping[str, jax.Array], jax.Array], dict[str, jax.Array]
]
"""Parameters, input window, forcings and keys (member, 2) to fields (member, step, [level,] latitude, longitude)."""

GLOBE = (Region(name="global", south=-90.0, north=90.0),)


def make_forecast(loss: FamilyLoss, variables: Sequence[str], *, steps: int) -> Forecast:
    """The compiled function that makes a forecast of so many steps and keeps some of its variables."""

    def forecast(
        params: Parameters,
        frames: Mapping[str, jax.Array],
        forcings: Mapping[str, jax.Array],
        keys: jax.Array,
    ) -> dict[str, jax.Array]:
        predict = loss.predictor(params)

        def one_step(
            carried: tuple[dict[str, jax.Array], jax.Array], index: jax.Array
        ) -> tuple[tuple[dict[str, jax.Array], jax.Array], dict[str, jax.Array]]:
            window, key = carried
            key, this = jax.random.split(key)
            features = loss.model_step.features(loss.statics, window, forcings_around(forcings, index))
            predicted = predict(this, features)
            fields = loss.model_step.fields(predicted, window)
            return (loss.model_step.next_frames(window, fields), key), {n: fields[n] for n in variables}

        return jax.lax.map(
            lambda key: jax.lax.scan(one_step, (dict(frames), key), jnp.arange(steps))[1], keys
        )

    compiled: Forecast = jax.jit(forecast)
    return compiled


def evaluate(
    forecast: Forecast,
    params: Parameters,
    series: AnalysisSeries,
    starts: Sequence[int],
    variables: Sequence[str],
    *,
    steps: int,
    members: int = 1,
    seed: int = 0,
    climatology: xr.Dataset | None = None,
) -> xr.Dataset:
    """Scores of forecasts from some of a series' examples.

    Args:
        forecast: from ``make_forecast`` for these variables and steps.
        starts: numbers of examples of the series.
        members: of each forecast; one for a deterministic model.
        seed: of the members' keys.
        climatology: harmonic climatology; without it there is no anomaly correlation.

    Returns:
        As ``model.diagnostics.scores.scores`` over all starts, for the globe.

    Raises:
        ValueError: no starts.
    """
    if not len(starts):
        raise ValueError("starts: expected at least one forecast, got none")
    return scores(
        total(
            _statistics(forecast, params, series, start, variables, steps, members, seed, climatology)
            for start in starts
        )
    )


def _statistics(
    forecast: Forecast,
    params: Parameters,
    series: AnalysisSeries,
    start: int,
    variables: Sequence[str],
    steps: int,
    members: int,
    seed: int,
    climatology: xr.Dataset | None,
) -> xr.Dataset:
    example = jax.tree.map(lambda array: array[0], series.batch(np.array([start]), steps))
    base = jax.random.fold_in(jax.random.PRNGKey(seed), start)
    keys = jax.vmap(lambda member: jax.random.fold_in(base, member))(jnp.arange(members))
    fields = forecast(params, example["frames"], example["forcings"], keys)
    last = start + (INPUT_FRAMES - 1) * series.stride
    valid = series.times[last + series.stride * np.arange(1, steps + 1)]
    lead = valid - series.times[last]
    usual = None
    if climatology is not None:
        known = [name for name in variables if name in climatology]
        usual = climatological_mean(climatology[known], valid).rename(time="lead_time")
        usual = usual.assign_coords(lead_time=lead)
    return ensemble_statistics(
        _dataset(fields, series, member=True, lead_time=lead),
        _dataset({name: example["targets"][name] for name in variables}, series, lead_time=lead),
        grid=series.grid,
        persistence=_dataset(
            {name: example["frames"][name][-1] for name in variables if name in example["frames"]}, series
        ),
        climatology=usual,
        regions=GLOBE,
    )


def _dataset(
    fields: Mapping[str, jax.Array | np.ndarray],
    series: AnalysisSeries,
    *,
    member: bool = False,
    lead_time: np.ndarray | None = None,
) -> xr.Dataset:
    leading = ("member",) * member + ("lead_time",) * (lead_time is not None)
    coords = {"latitude": series.grid.latitude, "longitude": series.grid.longitude}
    if lead_time is not None:
        coords["lead_time"] = lead_time
    coords["level"] = np.array(series.task.pressure_levels)
    return xr.Dataset(
        {
            name: (
                (*leading, *(("level",) if VARIABLES[name].on_levels else ()), "latitude", "longitude"),
                np.asarray(values),
            )
            for name, values in fields.items()
        },
        coords=coords,
    )
