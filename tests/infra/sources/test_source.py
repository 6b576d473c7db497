from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from infra.sources.source import FieldRequest, SourceOffer

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_request_is_kept_in_utc_and_knows_its_level_variables() -> None:
    east = TIME.astimezone(timezone(timedelta(hours=2)))
    request = FieldRequest(valid_time=east, variables=("2m_temperature", "temperature"), levels=(500,))
    assert request.valid_time.utcoffset() == timedelta(0)
    assert request.on_levels == ("temperature",)


def test_the_digest_tells_requests_apart() -> None:
    def digest(**changes) -> str:
        arguments = {"valid_time": TIME, "variables": ("temperature",), "levels": (500,), **changes}
        return FieldRequest(**arguments).digest

    assert digest() == digest()
    others = {
        digest(valid_time=TIME + timedelta(hours=6)),
        digest(levels=(850,)),
        digest(variables=("geopotential",)),
    }
    assert len({digest(), *others}) == 4


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"valid_time": datetime(2026, 1, 1)}, "time-zone aware"),
        ({"valid_time": TIME.replace(minute=30)}, "whole hour"),
        ({"variables": ("temprature",)}, "known long names"),
        ({"variables": ()}, "known long names"),
        ({"levels": ()}, "expected some for temperature"),
        ({"levels": (850, 500)}, "ascending"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        FieldRequest(**{"valid_time": TIME, "variables": ("temperature",), "levels": (500,), **arguments})


def test_auxiliary_variables_may_be_asked_for() -> None:
    assert FieldRequest(valid_time=TIME, variables=("skin_temperature",)).on_levels == ()


def test_an_offer_says_why_it_lacks_something() -> None:
    offer = SourceOffer(
        direct=frozenset({"temperature"}),
        unavailable={"sea_surface_temperature": "land model"},
        levels=(500,),
    )
    request = FieldRequest(
        valid_time=TIME,
        variables=("temperature", "sea_surface_temperature", "vertical_velocity"),
        levels=(500, 850),
    )
    assert offer.lacks(request) == (
        "sea_surface_temperature: land model",
        "vertical_velocity: not offered by this source",
        "levels [850] hPa: the source has [500]",
    )
