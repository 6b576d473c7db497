from dataclasses import replace

import numpy as np
import pytest

from model.errors import InvalidFieldError
from model.normalization import channel_scaling
from tests.model.tiny import TASK, statistics


def test_changes_take_the_spread_of_differences_and_new_variables_their_own() -> None:
    scaling = channel_scaling(TASK, statistics())
    # Targets: 2m_temperature, temperature on two levels, total_precipitation_6hr, which is no input.
    np.testing.assert_array_equal(scaling.target_stddev, [0.5, 0.5, 0.5, 2.0])
    np.testing.assert_array_equal(scaling.target_mean, [0, 0, 0, 1])
    np.testing.assert_array_equal(scaling.target_is_change, [True, True, True, False])
    assert scaling.input_mean.shape == (10,)
    np.testing.assert_array_equal(scaling.input_stddev, 2)


def test_levels_are_selected_and_repeated_for_each_frame() -> None:
    stats = statistics()
    mean = stats.mean.reindex(level=[300, 500, 850], fill_value=0.0)
    mean["temperature"] = ("level", np.float32([9, 1, 2]))
    scaling = channel_scaling(TASK, replace(stats, mean=mean))
    # Inputs: 2m_temperature (2), day_progress_sin (2), land_sea_mask (1), temperature (2 times of 2 levels).
    np.testing.assert_array_equal(scaling.input_mean[5:9], [1, 2, 1, 2])


def test_what_is_missing_is_named() -> None:
    stats = statistics()
    with pytest.raises(InvalidFieldError, match="mean statistics: expected 'land_sea_mask'"):
        channel_scaling(TASK, replace(stats, mean=stats.mean.drop_vars("land_sea_mask")))
    with pytest.raises(InvalidFieldError, match=r"temperature: missing levels \[850\]"):
        channel_scaling(TASK, replace(stats, stddev=stats.stddev.sel(level=[500])))
    with pytest.raises(InvalidFieldError, match="expected positive, finite spreads"):
        channel_scaling(TASK, replace(stats, diffs_stddev=stats.diffs_stddev * 0))
    with pytest.raises(InvalidFieldError, match=r"diffs_stddev_by_level: 2m_temperature: .* got nan"):
        channel_scaling(TASK, replace(stats, diffs_stddev=stats.diffs_stddev * np.nan))
    # A target that is no input is scaled by its own spread.
    no_rain = stats.stddev.assign(total_precipitation_6hr=0.0)
    with pytest.raises(InvalidFieldError, match=r"^stddev_by_level: total_precipitation_6hr: .* got 0\.0"):
        channel_scaling(TASK, replace(stats, stddev=no_rain))
    ocean = replace(TASK, input_variables=(*TASK.input_variables, "sea_surface_temperature"))
    named = replace(stats, mean=stats.mean.assign(sea_surface_temperature=280.0))
    named = replace(named, stddev=stats.stddev.assign(sea_surface_temperature=10.0))
    with pytest.raises(
        InvalidFieldError, match=r"min_by_level: expected 'sea_surface_temperature'.*no such file"
    ):
        channel_scaling(ocean, named)


@pytest.mark.parametrize("hours", [1, 6, 12])
def test_changes_over_another_step_are_refused_where_the_file_says_so(hours: int) -> None:
    said = statistics()
    said = replace(said, diffs_stddev=said.diffs_stddev.assign_attrs(timestep_hours=np.int32(hours)))
    if hours == 6:
        channel_scaling(TASK, said)
    else:
        with pytest.raises(InvalidFieldError, match=rf"model's step of 6 h, got those over {hours} h"):
            channel_scaling(TASK, said)


def progress(hours: float, *, longitudes: int = 72) -> dict[str, float]:
    """Spread of the changes of the forcings' sines in so many hours, over the globe and over a year of steps."""
    at = np.arange(0, 365.25 * 24, hours)
    local = 2 * np.pi * (at[:, None] / 24 + np.arange(longitudes) / longitudes)
    return {
        "day_progress_sin": float(np.diff(np.sin(local), axis=0).std()),
        "year_progress_sin": float(np.diff(np.sin(2 * np.pi * at / (365.25 * 24))).std()),
    }


def test_changes_over_another_step_are_noticed_by_the_hour_of_the_day() -> None:
    stats = statistics()
    channel_scaling(TASK, replace(stats, diffs_stddev=stats.diffs_stddev.assign(progress(6))))
    for other in (1, 3, 12, 24):
        with pytest.raises(
            InvalidFieldError, match=r"step of 6 h, in which day_progress_sin changes by 1\.000"
        ):
            channel_scaling(TASK, replace(stats, diffs_stddev=stats.diffs_stddev.assign(progress(other))))


def test_placeholders_say_nothing_about_the_step() -> None:
    stats = statistics()
    placeholders = {"day_progress_sin": 0.5, "year_progress_sin": 0.5}
    channel_scaling(TASK, replace(stats, diffs_stddev=stats.diffs_stddev.assign(placeholders)))
