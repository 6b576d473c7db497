"""The nature run source on the bundled archive and on one of its own."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from infra.demo import FIRST_ANALYSIS, INIT_TIME, LAST_ANALYSIS, bundled
from infra.errors import InvalidFieldError, MissingDataError
from infra.grib import decode
from infra.sources.nature_run import NatureRun
from infra.sources.source import FieldRequest, Source

SURFACE = ("2m_temperature", "total_precipitation_12hr", "sea_surface_temperature", "land_sea_mask")


def request(valid_time: datetime = INIT_TIME, variables: tuple[str, ...] = SURFACE) -> FieldRequest:
    return FieldRequest(valid_time=valid_time, variables=variables, levels=(500,))


def test_the_bundled_archive_is_whole() -> None:
    source = NatureRun()
    assert isinstance(source, Source)
    time = FIRST_ANALYSIS
    while time <= LAST_ANALYSIS:
        assert source.available(request(time, ("geopotential", "land_sea_mask"))).complete
        time += timedelta(hours=6)
    assert not source.available(request(LAST_ANALYSIS + timedelta(hours=6), ("geopotential",))).complete


def test_twelve_hour_precipitation_is_the_sum_of_two_files(tmp_path: Path) -> None:
    files = NatureRun().fetch(request(), tmp_path)
    assert [file.path.name for file in files] == ["20211227_18z.grib2", "20211228_00z.grib2", "statics.grib2"]
    fields = decode([file.path for file in files], variables=SURFACE, valid_times=[INIT_TIME])
    six = [
        decode(file.path, variables=["total_precipitation_6hr"])["total_precipitation_6hr"].values[0]
        for file in files[:2]
    ]
    twelve = fields["total_precipitation_12hr"].values[0]
    np.testing.assert_allclose(twelve, six[0] + six[1], atol=1e-9)
    assert 1e-4 < twelve.mean() < 3e-3  # between 0.2 and 6 mm a day
    land = fields["land_sea_mask"].values >= 0.5
    np.testing.assert_array_equal(np.isnan(fields["sea_surface_temperature"].values[0]), land)


def test_fetching_again_leaves_sound_files_and_replaces_damaged_ones(tmp_path: Path) -> None:
    one = request(variables=("2m_temperature",))
    (first,) = NatureRun().fetch(one, tmp_path)
    stamp = first.path.stat().st_mtime_ns
    (again,) = NatureRun().fetch(one, tmp_path)
    assert again == first
    assert first.path.stat().st_mtime_ns == stamp
    first.path.write_bytes(first.path.read_bytes()[:1000])
    assert NatureRun().fetch(one, tmp_path) == (first,)
    assert first.path.stat().st_size == first.size


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    empty = NatureRun(roots=(str(tmp_path / "none"),))
    late = request(datetime(2030, 1, 1, 6, tzinfo=UTC), ("2m_temperature",))
    assert empty.available(late).missing == ("20300101/06z.grib2",)
    with pytest.raises(MissingDataError, match=r"20300101/06z\.grib2"):
        empty.fetch(late, tmp_path)
    with pytest.raises(
        MissingDataError, match="vertical_velocity: the nature run's archive does not hold it"
    ):
        NatureRun().fetch(request(variables=("vertical_velocity",)), tmp_path)
    with pytest.raises(MissingDataError, match=r"levels \[10\]"):
        NatureRun().fetch(
            FieldRequest(valid_time=INIT_TIME, variables=("temperature",), levels=(10,)), tmp_path
        )


def test_the_next_root_is_asked_and_damage_is_reported(tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "20211228").mkdir(parents=True)
    shutil.copy(bundled("analyses") / "20211228" / "00z.grib2", own / "20211228")
    source = NatureRun(roots=(str(tmp_path / "none"), str(own)))
    (file,) = source.fetch(request(variables=("2m_temperature",)), tmp_path / "work")
    assert file.url.startswith(str(own))
    whole = own / "20211228" / "00z.grib2"
    whole.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(InvalidFieldError):
        source.fetch(request(variables=("2m_temperature",)), tmp_path / "work")


def test_two_may_copy_the_same_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, original, second = request(variables=("land_sea_mask",)), os.replace, []

    def replace(source: Path, target: Path) -> None:
        if not second:  # just before the first has its file, another comes, begins and ends
            second.append(True)
            NatureRun().fetch(wanted, tmp_path)
        original(source, target)

    monkeypatch.setattr(os, "replace", replace)
    (file,) = NatureRun().fetch(wanted, tmp_path)
    assert list(tmp_path.iterdir()) == [file.path]
