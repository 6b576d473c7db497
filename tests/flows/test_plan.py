"""``foldcast plan`` shows needs against what there is, and fails on what does not fit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows import plan as flow
from flows.plan import plan_table
from infra.devices import Machine
from infra.errors import DoesNotFitError
from model.grid import Grid
from tasks.memory_plan import Choice
from tasks.run_plan import RunPlan

MACHINE = Machine(
    platform="gpu", device_kind="NVIDIA H100", devices=4, device_bytes=80 * 2**30, host_bytes=256 * 2**30
)


def planned(**changes: Any) -> RunPlan:
    return RunPlan(
        **{
            "model": "gencast",
            "grid": Grid(resolution=1.0),
            "members": 50,
            "steps": 30,
            "blocks": 13,
            "choice": Choice(precision="bfloat16", members_per_program=1),
            "machine": MACHINE,
            "device_bytes": 8 * 2**30,
            "host_bytes": 24 * 2**30,
            "compiled": True,
            "store_bytes": 100 * 2**20,
            "seconds_per_step": 20.0,
            "problems": (),
            "remedies": (),
            **changes,
        }
    )


def text(plan: RunPlan) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(plan_table(plan))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_says_what_is_needed_and_what_there_is() -> None:
    shown = text(planned())
    assert "8.0 GiB" in shown
    assert "80.0 GiB" in shown
    assert "100 MiB" in shown
    assert "no limit known" in shown, "an object store"
    assert "2:05:00" in shown, "50 × 30 × 20 s on 4 devices"
    assert "❌" not in shown
    assert "memory per gpu (compiled)" in shown
    assert "memory per gpu (estimate)" in text(planned(compiled=False))
    assert "❌" in text(planned(device_bytes=90 * 2**30))


def test_the_command_fails_on_what_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = planned(problems=("needs about 90 GiB",), remedies=("precision=bfloat16",))
    monkeypatch.setattr(flow, "plan_run", lambda *_, **__: refused)
    with pytest.raises(DoesNotFitError, match=r"needs about 90 GiB; it would fit with precision=bfloat16"):
        flow.plan(model="gencast")
    assert "Plan for gencast" in capsys.readouterr().out, "the table is shown before the refusal"
