from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from infra.errors import InvalidFieldError, MissingDataError
from infra.grib import decode
from infra.retry import RetryPolicy
from infra.sources.gfs import Gfs
from infra.sources.source import FieldRequest
from tests.tools.grib_fields import axes, message, weather
from tests.tools.loopback import serving

INIT = datetime(2026, 1, 1, 6, tzinfo=UTC)
BEFORE = INIT - timedelta(hours=6)
NO_WAIT = RetryPolicy(attempts=2, sleep=lambda _: None)


def together(u: bytes, v: bytes) -> bytes:
    body, offset = b"", 16
    while offset < len(v) - 4:
        length = int.from_bytes(v[offset : offset + 4], "big")
        body += v[offset : offset + length] if v[offset + 4] >= 4 else b""
        offset += length
    whole = u[:-4] + body + b"7777"
    return whole[:8] + len(whole).to_bytes(8, "big") + whole[16:]


def write(root: Path, init_time: datetime, hour: int, pieces: list[tuple[str, str, bytes]]) -> None:
    """A file with its inventory; a piece named ``UGRD+VGRD`` is one message with two lines.

    A level may be followed by a colon and the sixth column (``surface:0-6 hour acc fcst``).
    """
    folder = root / f"gfs.{init_time:%Y%m%d}/{init_time:%H}/atmos"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"gfs.t{init_time:%H}z.pgrb2.0p25.f{hour:03d}"
    lines, data = [], b""
    for number, (parameters, level, raw) in enumerate(pieces, start=1):
        for i, parameter in enumerate(parameters.split("+"), start=1):
            label = f"{number}.{i}" if "+" in parameters else f"{number}"
            when = level.partition(":")[2] or "anl"
            place = level.partition(":")[0]
            lines.append(f"{label}:{len(data)}:d={init_time:%Y%m%d%H}:{parameter}:{place}:{when}:")
        data += raw
    (folder / name).write_bytes(data)
    (folder / f"{name}.idx").write_text("\n".join(lines) + "\n")


def raw(short_name: str, level: int | None = None, init_time: datetime = INIT, **options) -> bytes:
    latitude, longitude = axes(15.0, first_longitude=0.0)
    field = weather(short_name, level, init_time, latitude, longitude)
    options = {"packing": "grid_simple", **options}
    return message(short_name, field, latitude, longitude, init_time=init_time, level=level, **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    write(
        folder,
        INIT,
        0,
        [
            ("HGT", "500 mb", raw("gh", 500)),
            ("TMP", "500 mb", raw("t", 500)),
            ("UGRD+VGRD", "500 mb", together(raw("u", 500), raw("v", 500))),
            ("RH", "500 mb", raw("r", 500)),
            ("TMP", "2 m above ground", raw("2t")),
        ],
    )
    rain = [("APCP", "surface:0-6 hour acc fcst", raw("tp", None, BEFORE, step=6))] * 2  # bucket and total
    write(folder, BEFORE, 6, [("TMP", "500 mb", raw("t", 500, BEFORE, step=6)), *rain])
    return folder


def test_a_state_from_inventories(root: Path, tmp_path: Path) -> None:
    names = (
        "u_component_of_wind",
        "v_component_of_wind",
        "geopotential",
        "specific_humidity",
        "2m_temperature",
        "total_precipitation_6hr",
    )
    request = FieldRequest(valid_time=INIT, variables=names, levels=(500,))
    with serving(root) as server:
        source = Gfs(roots=(server.url,), retry=NO_WAIT, parallel=2)
        assert source.available(request).complete
        files = source.fetch(request, tmp_path / "files")
        read = server.ranges("f000")
    section_0 = 16  # read to see where the file must end
    assert len([end for start, end in read if end - start > section_0]) == 1  # 500 hPa and 2 m lie end to end
    dataset = decode([file.path for file in files], variables=names, levels=(500,))
    assert set(dataset.data_vars) == set(names)
    latitude, longitude = np.arange(-90.0, 91.0, 15.0), np.arange(0.0, 360.0, 15.0)
    for name, short_name in (("u_component_of_wind", "u"), ("v_component_of_wind", "v")):
        expected = weather(short_name, 500, INIT, latitude, longitude)
        np.testing.assert_allclose(dataset[name][0, 0], expected, atol=2e-3)


def rain(init_time: datetime, start: int, end: int, metres: float) -> bytes:
    latitude, longitude = axes(15.0, first_longitude=0.0)
    field = np.full((latitude.size, longitude.size), metres)
    keys = {"stepRange": f"{start}-{end}"}
    options = {"init_time": init_time, "step": end, "packing": "grid_simple", "keys": keys}
    return message("tp", field, latitude, longitude, **options)


def test_twelve_hours_of_rain_are_those_since_the_start_of_the_run(tmp_path: Path) -> None:
    root, start = tmp_path / "archive", INIT - timedelta(hours=12)
    bucket = ("APCP", "surface:6-12 hour acc fcst", rain(start, 6, 12, 0.006))
    total = ("APCP", "surface:0-12 hour acc fcst", rain(start, 0, 12, 0.010))
    write(root, start, 12, [bucket, total])
    request = FieldRequest(valid_time=INIT, variables=("total_precipitation_12hr",))
    source = Gfs(roots=(str(root),), retry=NO_WAIT)
    assert source.available(request).complete
    files = source.fetch(request, tmp_path / "files")
    dataset = decode([f.path for f in files], variables=request.variables, valid_times=[INIT])
    np.testing.assert_allclose(dataset["total_precipitation_12hr"], 0.010, rtol=1e-4)
    write(root, start, 12, [bucket])
    (reason,) = source.available(request).missing
    assert "APCP:surface:0-12 hour acc fcst (total_precipitation_12hr)" in reason


def test_gdas_ends_after_nine_hours_so_two_runs_give_twelve(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    for back, metres in ((12, 0.004), (6, 0.003)):
        start = INIT - timedelta(hours=back)
        write(root, start, 6, [("APCP", "surface:0-6 hour acc fcst", rain(start, 0, 6, metres))])
    for path in sorted(root.rglob("gfs*"), reverse=True):
        path.rename(path.with_name(path.name.replace("gfs", "gdas")))
    request = FieldRequest(valid_time=INIT, variables=("total_precipitation_12hr",))
    files = Gfs(roots=(str(root),), product="gdas", retry=NO_WAIT).fetch(request, tmp_path / "files")
    dataset = decode([f.path for f in files], variables=request.variables, valid_times=[INIT])
    np.testing.assert_allclose(dataset["total_precipitation_12hr"], 0.007, rtol=1e-4)


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    request = FieldRequest(valid_time=INIT, variables=("vertical_velocity",), levels=(500,))
    source = Gfs(roots=(str(root),), retry=NO_WAIT)
    with pytest.raises(MissingDataError, match=r"VVEL:500 mb \(vertical_velocity\) in gfs.20260101/06"):
        source.fetch(request, tmp_path)
    assert not source.available(request).complete


@pytest.mark.parametrize("kept", [0.4, 0.999])
def test_a_file_still_being_written_is_not_complete(root: Path, tmp_path: Path, kept: float) -> None:
    (file,) = root.glob("gfs.20260101/06/atmos/*.f000")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    request = FieldRequest(valid_time=INIT, variables=("geopotential",), levels=(500,))
    source = Gfs(roots=(str(root),), retry=NO_WAIT)
    (reason,) = source.available(request).missing
    assert f"there are {int(kept * len(whole))} yet" in reason
    file.write_bytes(whole)
    assert source.available(request).complete


def test_mislabelled_winds_are_refused(root: Path, tmp_path: Path) -> None:
    # As once published: what the inventory calls UGRD holds the vertical velocity.
    write(root, INIT, 0, [("UGRD", "500 mb", raw("w", 500)), ("VGRD", "500 mb", raw("u", 500))])
    request = FieldRequest(valid_time=INIT, variables=("u_component_of_wind",), levels=(500,))
    with pytest.raises(InvalidFieldError, match=r"index promises u at 500.*the message holds w at 500"):
        Gfs(roots=(str(root),), retry=NO_WAIT).fetch(request, tmp_path)


def test_a_broken_inventory_is_refused(root: Path, tmp_path: Path) -> None:
    (index,) = root.glob("gfs.20260101/06/atmos/*.idx")
    index.write_text("<html>\n")
    request = FieldRequest(valid_time=INIT, variables=("temperature",), levels=(500,))
    with pytest.raises(InvalidFieldError, match="line 1: expected number:offset:date"):
        Gfs(roots=(str(root),), retry=NO_WAIT).fetch(request, tmp_path)
