"""In memory or in a scratch file, a stack gives back what was put in, in tiles within its budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra.member_stack import MemberStack

SHAPE = (2, 7, 5)


@pytest.mark.parametrize("budget", [1, 2000, 10**6])
def test_tiles_cover_every_member_once(budget: int, tmp_path: Path) -> None:
    fields = np.random.default_rng(0).normal(size=(6, *SHAPE)).astype(np.float32)
    with MemberStack(6, SHAPE, budget=budget, folder=tmp_path) as stack:
        assert stack.spilled == (budget < fields.nbytes)
        for index in (3, 0, 5, 1, 2, 4):
            stack.put(index, fields[index])
        seen = np.full_like(fields, np.nan)
        for level, rows, tile in stack.tiles():
            assert tile.nbytes <= max(budget // 4, 6 * 5 * 4)
            seen[:, level, rows] = tile
        np.testing.assert_array_equal(seen, fields)
        np.testing.assert_array_equal(stack.get(4), fields[4])
    assert list(tmp_path.iterdir()) == []


def test_an_unset_member_is_zero_and_a_wrong_shape_is_refused(tmp_path: Path) -> None:
    for budget in (1, 10**6):
        with MemberStack(2, SHAPE, budget=budget, folder=tmp_path) as stack:
            assert not stack.get(1).any()
            with pytest.raises(ValueError, match=r"member 0: expected a field of shape \(2, 7, 5\)"):
                stack.put(0, np.zeros((7, 5), dtype=np.float32))
