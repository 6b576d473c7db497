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
