"""How numbers of things are said."""

from __future__ import annotations

import pytest

from infra.wording import counted


@pytest.mark.parametrize(("count", "said"), [(0, "0 members"), (1, "1 member"), (8, "8 members")])
def test_one_is_singular(count: int, said: str) -> None:
    assert counted(count, "member") == said
