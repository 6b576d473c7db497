"""Solar radiation at the top of the atmosphere, as ERA5's ``toa_incident_solar_radiation`` has it.

The flux is integrated over the hour ending at the valid time. Sun and orbit follow the formulas of the forecast
system that made ERA5, in the form in which they are published with ECCC's GEM (``sucst.F90``, ``fctast.cdk``,
``fcttim.cdk``); the yearly total solar irradiance is that of IFS cycle 41r2.

Times are carried as float32 days since J2000.0, whose grain in this century is 42 to 84 s. The published models
were given radiation computed so; the deviation from exact time is below half a percent and is kept.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

_J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)
_JULIAN_YEAR_DAYS = 365.25
_SECONDS_PER_DAY = 86400
_OBLIQUITY = 0.409093
_BINS = 360
_HOUR_SECONDS = 3600

_FIRST_IRRADIANCE_YEAR = 1951
_IRRADIANCE_SCALE = 0.9965
"""ERA5 lowers the irradiance series to agree with more recent observations of the sun."""
_SOLAR_CYCLE_1996_2008 = (
    1365.6121, 1365.7399, 1366.1021, 1366.3851, 1366.6836, 1366.6022, 1366.6807, 1366.2300, 1366.0480,
    1365.8545, 1365.8107, 1365.7240, 1365.6918,
)  # fmt: skip
_IRRADIANCE = np.array(
    (
        1365.7765, 1365.7676, 1365.6284, 1365.6564, 1365.7773, 1366.3109, 1366.6681, 1366.6328, 1366.3828,
        1366.2767, 1365.9199, 1365.7484, 1365.6963, 1365.6976, 1365.7341, 1365.9178, 1366.1143, 1366.1644,
        1366.2476, 1366.2426, 1365.9580, 1366.0525, 1365.7991, 1365.7271, 1365.5345, 1365.6453, 1365.8331,
        1366.2747, 1366.6348, 1366.6482, 1366.6951, 1366.2859, 1366.1992, 1365.8103, 1365.6416, 1365.6379,
        1365.7899, 1366.0826, 1366.6479, 1366.5533, 1366.4457, 1366.3021, 1366.0286, 1365.7971, 1365.6996,
        *_SOLAR_CYCLE_1996_2008 * 3,
    )
)  # fmt: skip
"""W m⁻² for each year from 1951; from 1996 a solar cycle of 13 years repeats, to 2034."""


def total_solar_irradiance(time: datetime) -> float:
    """Total solar irradiance at one astronomical unit, W m⁻², as ERA5 has it.

    A year's value stands at its middle, with linear interpolation between. Before the middle of 1951 and after
    that of 2034 the nearest year's value holds.

    Args:
        time: time-zone aware.
    """
    time = time.astimezone(UTC)
    start = datetime(time.year, 1, 1, tzinfo=UTC)
    length = datetime(time.year + 1, 1, 1, tzinfo=UTC) - start
    middles = _FIRST_IRRADIANCE_YEAR + 0.5 + np.arange(_IRRADIANCE.size)
    year = time.year + (time - start) / length
    return float(np.interp(year, middles, _IRRADIANCE_SCALE * _IRRADIANCE))


def incident_solar_radiation(time: datetime, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Energy that comes in at the top of the atmosphere in the hour up to ``time``.

    Args:
        time: end of the hour, time-zone aware.
        latitude, longitude: of the grid, degrees, shape (latitude,) and (longitude,).

    Returns:
        J m⁻², float32, shape (latitude, longitude).
    """
    days = np.float32((time - _J2000).total_seconds() / _SECONDS_PER_DAY)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        radiation = _integrate(
            jnp.float32(days),
            jnp.radians(jnp.asarray(latitude, jnp.float32)),
            jnp.radians(jnp.asarray(longitude, jnp.float32)),
            jnp.float32(total_solar_irradiance(time)),
        )
    return np.asarray(radiation)


@partial(jax.jit)
def _integrate(
    days: jax.Array, latitude: jax.Array, longitude: jax.Array, irradiance: jax.Array
) -> jax.Array:
    """Trapezoidal rule over the hour; latitudes one after the other to keep memory small."""
    offsets = np.linspace(-_HOUR_SECONDS, 0, _BINS + 1) / _SECONDS_PER_DAY
    times = days + jnp.asarray(offsets, jnp.float32)
    years = times / _JULIAN_YEAR_DAYS
    sin_declination = _sin_declination(years)
    cos_declination = jnp.sqrt(1.0 - sin_declination**2)
    solar_time = times % 1.0 + _equation_of_time(years) / _SECONDS_PER_DAY
    cos_hour_angle = jnp.cos(2.0 * jnp.pi * solar_time + longitude[:, None])
    flux = irradiance * (1.0 / _solar_distance(years)) ** 2
    weights = flux * jnp.full(times.shape, _HOUR_SECONDS / _BINS).at[jnp.array([0, -1])].mul(0.5)

    def row(angle: jax.Array) -> jax.Array:
        elevation = jnp.cos(angle) * cos_declination * cos_hour_angle + jnp.sin(angle) * sin_declination
        return (weights * jnp.maximum(elevation, 0.0)).sum(axis=-1)

    return jax.lax.map(row, latitude)


def _sin_declination(years: jax.Array) -> jax.Array:
    """Of the sun, from its ecliptic longitude."""
    anomaly = 1.7535 + 6.283076 * years
    ecliptic_longitude = (
        4.8952
        + 6.283320 * years
        - 0.0075 * jnp.sin(anomaly)
        - 0.0326 * jnp.cos(anomaly)
        - 0.0003 * jnp.sin(2.0 * anomaly)
        + 0.0002 * jnp.cos(2.0 * anomaly)
    )
    return jnp.sin(_OBLIQUITY) * jnp.sin(ecliptic_longitude)


def _equation_of_time(years: jax.Array) -> jax.Array:
    """Apparent minus mean solar time, s."""
    mean_anomaly = 6.240041 + 6.283020 * years
    mean_longitude = 4.8951 + 6.283076 * years
    return (
        591.8 * jnp.sin(2.0 * mean_longitude)
        - 459.4 * jnp.sin(mean_anomaly)
        + 39.5 * jnp.sin(mean_anomaly) * jnp.cos(2.0 * mean_longitude)
        - 12.7 * jnp.sin(4.0 * mean_longitude)
        - 4.8 * jnp.sin(2.0 * mean_anomaly)
    )


def _solar_distance(years: jax.Array) -> jax.Array:
    """Earth to sun, astronomical units."""
    anomaly = 1.7535 + 6.283076 * years
    return 1.0001 - 0.0163 * jnp.sin(anomaly) + 0.0037 * jnp.cos(anomaly)
