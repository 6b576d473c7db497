from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.errors import InvalidFieldError
from infra.grib import decode, experiment_versions
from infra.grib_field import opened, source_grid, values
from infra.grib_messages import fields, messages
from tests.tools.grib_fields import axes, message, weather

INIT = datetime(2026, 1, 1, 12, tzinfo=UTC)
RESOLUTION = 15.0


def raw(short_name: str, level: int | None = None, **options) -> bytes:
    latitude, longitude = axes(RESOLUTION)
    field = options.pop("field", None)
    init_time = options.pop("init_time", INIT)
    if field is None:
        field = weather(short_name, level, init_time, latitude, longitude)
    return message(short_name, field, latitude, longitude, init_time=init_time, level=level, **options)


def decoded(folder: Path, *raws: bytes, **options) -> xr.Dataset:
    path = folder / "fields.grib"
    path.write_bytes(b"".join(raws))
    return decode(path, **options)


def expected(short_name: str, level: int | None = None, time: datetime = INIT) -> np.ndarray:
    """The same weather on the canonical axes."""
    return weather(
        short_name, level, time, np.arange(-90.0, 91.0, RESOLUTION), np.arange(0.0, 360.0, RESOLUTION)
    )


def test_the_canonical_state_from_ecmwfs_order(tmp_path: Path) -> None:
    dataset = decoded(tmp_path, raw("t", 850), raw("t", 500), raw("2t"), raw("lsm"), raw("z"))
    assert dict(dataset.sizes) == {"time": 1, "level": 2, "latitude": 13, "longitude": 24}
    assert dataset["level"].values.tolist() == [500, 850]
    assert dataset["latitude"].values[[0, -1]].tolist() == [-90.0, 90.0]
    assert dataset["longitude"].values[[0, -1]].tolist() == [0.0, 345.0]
    assert dataset["time"].values[0] == np.datetime64("2026-01-01T12")
    assert dataset["temperature"].dims == ("time", "level", "latitude", "longitude")
    assert dataset["land_sea_mask"].dims == ("latitude", "longitude")
    assert {array.dtype for array in dataset.data_vars.values()} == {np.dtype("float32")}
    for level in (500, 850):  # 16-bit packing resolves a 70 K span to about 1 mK
        np.testing.assert_allclose(
            dataset["temperature"].sel(level=level)[0], expected("t", level), atol=2e-3
        )
    np.testing.assert_allclose(dataset["geopotential_at_surface"], expected("z"), atol=1.0)
    assert dataset["temperature"].attrs["units"] == "K"


@pytest.mark.parametrize("edition", [1, 2])
@pytest.mark.parametrize("packing", ["grid_simple", "grid_ccsds", "grid_second_order"])
def test_editions_and_packings_give_the_same_values(tmp_path: Path, edition: int, packing: str) -> None:
    if edition == 1 and packing == "grid_ccsds":
        pytest.skip("edition 1 has no CCSDS packing")
    dataset = decoded(tmp_path, raw("t", 500, edition=edition, packing=packing))
    np.testing.assert_allclose(dataset["temperature"][0, 0], expected("t", 500), atol=2e-3)


@pytest.mark.parametrize(("westward", "northward", "columns_first"), list(product([0, 1], repeat=3)))
def test_every_scan_order_gives_the_same_field(
    tmp_path: Path, westward: int, northward: int, columns_first: int
) -> None:
    latitude = np.linspace(-90, 90, 13) if northward else np.linspace(90, -90, 13)
    longitude = (345.0 - RESOLUTION * np.arange(24)) if westward else RESOLUTION * np.arange(24)
    field = weather("t", 500, INIT, latitude, longitude)
    coded = message(
        "t",
        field.T if columns_first else field,
        latitude,
        longitude,
        init_time=INIT,
        level=500,
        keys={"iScansNegatively": westward, "jPointsAreConsecutive": columns_first},
    )
    dataset = decoded(tmp_path, coded)
    np.testing.assert_allclose(dataset["temperature"][0, 0], expected("t", 500), atol=2e-3)


def test_geopotential_height_becomes_geopotential_unless_that_is_there(tmp_path: Path) -> None:
    from_height = decoded(tmp_path, raw("gh", 500))
    np.testing.assert_allclose(from_height["geopotential"][0, 0], expected("z", 500), atol=1.0)
    marked = raw("z", 500, field=np.full((13, 24), 55000.0))
    both = decoded(tmp_path, raw("gh", 500), marked)
    assert both["geopotential"].values == pytest.approx(55000.0)


def test_specific_humidity_from_relative_only_where_there_is_no_other(tmp_path: Path) -> None:
    dataset = decoded(
        tmp_path,
        raw("t", 500),
        raw("r", 500),
        raw("t", 850),
        raw("r", 850),
        raw("q", 850),
        variables=["specific_humidity"],
    )
    assert list(dataset) == ["specific_humidity"]
    np.testing.assert_allclose(dataset["specific_humidity"].sel(level=850)[0], expected("q", 850), atol=1e-6)
    # by hand at one point: T and r there, e_s over water above 273.16 K or the mixture below
    t, r = float(expected("t", 500)[6, 0]), float(expected("r", 500)[6, 0])
    liquid = np.clip((t - 250.16) / 23.0, 0, 1) ** 2
    saturation = 611.21 * (
        liquid * np.exp(17.502 * (t - 273.16) / (t - 32.19))
        + (1 - liquid) * np.exp(22.587 * (t - 273.16) / (t + 0.7))
    )
    vapour = r / 100 * saturation
    by_hand = 0.621981 * vapour / (50000 - 0.378019 * vapour)
    assert float(dataset["specific_humidity"].sel(level=500)[0, 6, 0]) == pytest.approx(by_hand, rel=2e-3)
    assert "e_s" in dataset["specific_humidity"].attrs["derivation"]


def test_missing_points_are_nan(tmp_path: Path) -> None:
    field = expected("2t")
    field[3, 4] = 9999.0
    latitude, longitude = np.linspace(-90, 90, 13), RESOLUTION * np.arange(24)
    coded = message("sst", field, latitude, longitude, init_time=INIT, missing=9999.0)
    sst = decoded(tmp_path, coded)["sea_surface_temperature"][0]
    assert np.isnan(sst).sum() == 1
    assert np.isnan(sst[3, 4])


def test_ensemble_members_get_a_dimension(tmp_path: Path) -> None:
    raws = [raw("t", 500, number=n, field=np.full((13, 24), 250.0 + n)) for n in (0, 1, 7)]
    dataset = decoded(tmp_path, *raws)
    assert dataset["number"].values.tolist() == [0, 1, 7]
    assert dataset["temperature"].mean(("latitude", "longitude")).values.ravel().tolist() == [250, 251, 257]


def test_final_era5_is_preferred_to_preliminary_and_both_are_recorded(tmp_path: Path) -> None:
    final = raw("2t", edition=1, expver="0001", field=np.full((13, 24), 280.0))
    preliminary = raw("2t", edition=1, expver="0005", field=np.full((13, 24), 290.0))
    later = raw("2t", edition=1, expver="0005", init_time=INIT + timedelta(hours=6))
    dataset = decoded(tmp_path, preliminary, final, later)
    assert dataset["2m_temperature"][0].values == pytest.approx(280.0)
    assert experiment_versions(dataset) == {"20260101T12Z": ["0001"], "20260101T18Z": ["0005"]}


def test_two_different_messages_for_one_field_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFieldError, match=r"two different messages for 2t .*message 1 .*message 2"):
        decoded(tmp_path, raw("2t"), raw("2t", field=np.full((13, 24), 280.0)))
    assert decoded(tmp_path, raw("2t"), raw("2t")).sizes["time"] == 1  # the same one twice does no harm


def test_precipitation_of_six_and_twelve_hours_from_totals(tmp_path: Path) -> None:
    steps = {step: np.full((13, 24), 0.001 * step) for step in (6, 12)}
    raws = [raw("tp", step=step, field=field) for step, field in steps.items()]
    valid = INIT + timedelta(hours=12)
    dataset = decoded(tmp_path, *raws, valid_times=[valid])
    assert dataset["total_precipitation_6hr"].values == pytest.approx(0.006, rel=1e-4)
    assert dataset["total_precipitation_12hr"].values == pytest.approx(0.012, rel=1e-4)


def test_precipitation_that_adds_up_to_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFieldError, match="20260101T12Z to 20260101T15Z"):
        decoded(tmp_path, raw("tp", step=3, field=np.ones((13, 24))))


def test_every_raw_message_is_recorded_with_its_checksum(tmp_path: Path) -> None:
    raws = [raw("t", 500), raw("2t")]
    dataset = decoded(tmp_path, *raws)
    recorded = {entry["sha256"] for entry in json.loads(dataset.attrs["messages"])}
    assert recorded == {hashlib.sha256(each).hexdigest() for each in raws}


def test_absent_combinations_are_nan_and_listed(tmp_path: Path) -> None:
    dataset = decoded(tmp_path, raw("t", 500), raw("t", 850), raw("u", 500))
    assert json.loads(dataset.attrs["absent"]) == ["u_component_of_wind at 850 hPa, valid 20260101T12Z"]
    assert np.isnan(dataset["u_component_of_wind"].sel(level=850)).all()


def test_two_grids_are_refused(tmp_path: Path) -> None:
    latitude, longitude = axes(30.0)
    other = message("u", np.zeros((7, 12)), latitude, longitude, init_time=INIT, level=500)
    with pytest.raises(InvalidFieldError, match="expected one grid"):
        decoded(tmp_path, raw("t", 500), other)


def test_both_editions_in_one_file_are_one_state(tmp_path: Path) -> None:
    dataset = decoded(tmp_path, raw("t", 500), raw("u", 500, edition=1))
    assert dict(dataset.sizes) == {"time": 1, "level": 1, "latitude": 13, "longitude": 24}
    np.testing.assert_allclose(dataset["u_component_of_wind"][0, 0], expected("u", 500), atol=2e-3)


def test_nothing_wanted_is_an_error_that_says_what_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(InvalidFieldError, match="wanted vertical_velocity on levels 850"):
        decoded(tmp_path, raw("t", 500), variables=["vertical_velocity"], levels=[850])


def test_unknown_parameters_can_be_kept(tmp_path: Path) -> None:
    dataset = decoded(tmp_path, raw("2t", keys={"shortName": "2d"}), keep_unknown=True)
    assert list(dataset) == ["2d_heightAboveGround_2"]


def test_ecmwf_open_data_as_wgrib2_reads_it(shared_data: Path) -> None:
    folder = shared_data / "ecmwf_open_data"
    first = next(messages(folder / "20240101000000-0h-oper-fc.grib2.0-10"))
    with opened(first, where="first") as handle:
        grid = source_grid(handle)
        got = values(handle, grid, factor=1.0)
    assert got.shape == (451, 900)
    dump = np.fromfile(folder / "ecmwf-realtime-oper-fc-0-le.bin", dtype="<f4").reshape(451, 900)
    # the dump is in the message's own order: from north to south, eastwards from 180°
    np.testing.assert_array_equal(got, np.roll(dump[::-1], -450, axis=1))


def test_real_members_as_cfgrib_reads_them(shared_data: Path) -> None:
    path = shared_data / "cfgrib" / "era5-levels-members.grib"
    ours = decode(path)
    with xr.open_dataset(path, engine="cfgrib", indexpath="") as theirs:
        theirs = theirs.load().sortby("latitude").sortby("isobaricInhPa")
    assert ours["number"].size == 10
    for name, short_name in (("temperature", "t"), ("geopotential", "z")):
        reference = theirs[short_name].transpose("time", "number", "isobaricInhPa", "latitude", "longitude")
        np.testing.assert_array_equal(ours[name].values, reference.values.astype(np.float32))


def test_real_ifs_fields_as_cfgrib_reads_them(shared_data: Path) -> None:
    path = shared_data / "earthkit_data" / "pl_regular_ll.grib"
    ours = decode(path)
    with xr.open_dataset(path, engine="cfgrib", indexpath="") as theirs:
        theirs = theirs.load().sortby("latitude").sortby("isobaricInhPa")
    flat = theirs.stack(valid=("time", "step")).sortby("valid_time")
    np.testing.assert_array_equal(ours["time"].values, flat["valid_time"].values)
    for name, short_name in (
        ("temperature", "t"),
        ("u_component_of_wind", "u"),
        ("v_component_of_wind", "v"),
    ):
        reference = flat[short_name].transpose("valid", "isobaricInhPa", "latitude", "longitude")
        np.testing.assert_array_equal(ours[name].values, reference.values.astype(np.float32))


def test_gfs_u_and_v_of_one_message_are_both_there_and_differ(shared_data: Path) -> None:
    path = shared_data / "gfs" / "gfs.t12z.pgrbf120.2p5deg.grib2"
    ours = decode(path, variables=["u_component_of_wind", "v_component_of_wind"], levels=[500])
    with xr.open_dataset(
        path,
        engine="cfgrib",
        indexpath="",
        filter_by_keys={"typeOfLevel": "isobaricInhPa", "shortName": "u"},
    ) as theirs:
        reference = theirs["u"].sel(isobaricInhPa=500).sortby("latitude").values
    np.testing.assert_array_equal(ours["u_component_of_wind"].values.squeeze(), reference.astype(np.float32))
    u, v = (ours[f"{name}_component_of_wind"].values for name in "uv")
    assert np.isfinite(v).all()
    assert abs(np.corrcoef(u.ravel(), v.ravel())[0, 1]) < 0.5


def test_gaussian_and_reduced_gaussian_grids_keep_their_points(shared_data: Path) -> None:
    regular = decode(shared_data / "cfgrib" / "regular_gg_pl.grib")
    assert (regular.attrs["grid"], dict(regular.sizes)) == (
        "F48",
        {"time": 1, "latitude": 96, "longitude": 192},
    )
    # the first latitude of F48, and every N48 point count, from ECMWF's grid documentation
    assert float(regular["latitude"][-1]) == pytest.approx(88.572169, abs=1e-6)
    reduced = decode(shared_data / "metview" / "t_n48.grib")
    assert (reduced.attrs["grid"], reduced.sizes["points"]) == ("N48", 13280)
    octahedral = decode(shared_data / "earthkit_data" / "O32_global.grib2", keep_unknown=True)
    assert (octahedral.attrs["grid"], octahedral.sizes["points"]) == ("O32", 4 * 32 * (32 + 9))


def test_the_corrupted_file_is_refused_with_the_place(shared_data: Path) -> None:
    with pytest.raises(InvalidFieldError, match=r"era5-levels-corrupted.grib at byte 0: expected .* '7777'"):
        decode(shared_data / "cfgrib" / "era5-levels-corrupted.grib")


def test_truncated_anywhere_a_file_is_refused(tmp_path: Path) -> None:
    whole = raw("t", 500) + raw("u", 500)
    path = tmp_path / "cut.grib"
    for length in range(1, len(whole), 97):
        path.write_bytes(whole[:length])
        if length == len(raw("t", 500)):
            continue
        with pytest.raises(InvalidFieldError, match="expected"):
            decode(path)


def test_fields_of_single_messages_are_the_messages(tmp_path: Path) -> None:
    assert fields(raw("t", 500), where="") == [raw("t", 500)]


@pytest.mark.parametrize("packing", ["grid_simple", "grid_ccsds"])
def test_a_value_of_9999_beside_missing_points_is_a_value(tmp_path: Path, packing: str) -> None:
    latitude, longitude = axes(30.0)
    field = np.full((latitude.size, longitude.size), 9999.0)
    field[0], field[1, 1] = -1.0, 20000.0
    coded = message("msl", field, latitude, longitude, init_time=INIT, missing=-1.0, packing=packing, bits=24)
    (tmp_path / "a.grib").write_bytes(coded)
    got = decode(tmp_path / "a.grib")["mean_sea_level_pressure"].values
    assert np.isnan(got).sum() == longitude.size
    assert (got == 9999.0).sum() == field.size - longitude.size - 1
