"""The configurations to copy from the quickstart are valid, and the bundled ones name files that are there."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from infra.settings import Settings, load_settings
from model.cycle import Cycle, recent_init_times
from tasks.initial_conditions import missing_inputs

NOW = datetime(2021, 12, 28, 20, tzinfo=UTC)
"""The time that the quickstart has the service take for now."""

LOOK_BACK = timedelta(hours=30)
"""As ``availability`` looks back."""


@pytest.fixture
def configurations(repository: Path, tmp_path: Path) -> list[Settings]:
    """Those in the quickstart, as read in the checkout."""
    text = (repository / "docs" / "quickstart.md").read_text()
    (tmp_path / "infra").symlink_to(repository / "infra")
    found = []
    for block in re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL):
        path = tmp_path / "foldcast.toml"
        path.write_text(dedent(block))
        found.append(load_settings(path))
    return found


def test_the_configurations_to_copy_are_valid(configurations: list[Settings]) -> None:
    service, real = configurations
    assert sorted(service.models) == ["gencast-demo", "graphcast-demo"]
    assert service.run.submission == "work-pool"
    assert list(real.models) == ["graphcast"]
    for settings in configurations:
        for model in settings.models.values():
            assert settings.configured_source(model.source).kind == model.trained_on


def test_the_service_has_its_files_and_at_the_time_named_two_cycles_of_each_model(
    configurations: list[Settings],
) -> None:
    service = configurations[0]
    for name, model in service.models.items():
        for path in (model.checkpoint, model.statistics, model.climatology):
            assert path is not None
            assert Path(path).exists()
        times = recent_init_times(NOW, hours=model.init_hours, look_back=LOOK_BACK)
        ready = [time for time in times if not missing_inputs(Cycle(model=name, init_time=time), service)]
        assert [time.isoformat() for time in ready] == [
            "2021-12-28T00:00:00+00:00",
            "2021-12-28T12:00:00+00:00",
        ]
