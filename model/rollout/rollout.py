"""Members through time: an iterator of steps, none of which has to be kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import xarray as xr

from model.forecaster import Forecaster
from model.rollout.state import RolloutState


@dataclass(frozen=True, kw_only=True)
class Step:
    """One member after one step.

    Args:
        member: global number.
        step: of the member, from 0.
        lead_time: from init_time to the fields' time.
        fields: the targets, float32 numpy, dims ([level,] latitude, longitude).
        state: from which to go on.
    """

    member: int
    step: int
    lead_time: timedelta
    fields: xr.Dataset
    state: RolloutState


def rollout(
    forecaster: Forecaster,
    states: Sequence[RolloutState],
    statics: xr.Dataset,
    *,
    steps: int,
    members_per_program: int = 1,
) -> Iterator[Step]:
    """Step members up to a number of steps, group by group, each step as it comes off the device.

    Args:
        states: where each member is; those that have their steps give nothing.
        statics: the static fields.
        steps: how many each member shall have from its init_time on.
        members_per_program: as the forecaster was loaded with; that many members make a group.

    Yields:
        A group's members step by step, then the next group's.
    """
    for start in range(0, len(states), members_per_program):
        group = list(states[start : start + members_per_program])
        while group and group[0].step < steps:
            results = forecaster.advance(group, statics)
            group = [state for state, _ in results]
            for state, fields in results:
                yield Step(
                    member=state.member,
                    step=state.step - 1,
                    lead_time=state.step * forecaster.task.step,
                    fields=fields,
                    state=state,
                )
