"""An ensemble on two workers of a real server, with everything that can die killed once.

``python -m tests.tools.survival --seeds 20`` tries random sequences of kills at random moments.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local_services import LocalServer
from tests.tools.survival import MEMBERS, survive


@pytest.mark.server
@pytest.mark.timeout(450)
def test_an_ensemble_survives_the_death_of_member_worker_and_controller(
    tmp_path: Path, prefect_server: LocalServer
) -> None:
    victims = ("member", "controller", "worker and member")
    outcome = survive(prefect_server, tmp_path, victims, seed=20260101, limit_seconds=420)
    assert [kill.rsplit(" at ", 1)[0] for kill in outcome.kills] == list(victims)
    assert outcome.identical, "a value differs from the undisturbed run's"
    assert outcome.started_again == [], "computed from step 0 though a checkpoint existed"
    assert sorted(outcome.resumed) == list(range(MEMBERS))
    assert any(len(steps) > 1 for steps in outcome.resumed.values()), "no member was interrupted"
