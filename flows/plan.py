"""``foldcast plan``: what a run would need against what this machine has."""

from __future__ import annotations

from rich.table import Table

from infra.resources import size_text
from infra.settings import load_settings
from infra.terminal import FoldingTable, command_console
from infra.wording import counted
from tasks.run_plan import RunPlan, plan_run


def plan(*, model: str, members: int | None = None, steps: int | None = None) -> None:
    """Print a run's needs, and refuse what does not fit.

    Args:
        model: name of a configured model.
        members: ensemble size; default the model's.
        steps: model steps; default the model's.

    Raises:
        DoesNotFitError: something does not fit; the message names settings that would.
        UnknownModelError: no such model.
    """
    found = plan_run(model, load_settings(), members=members, steps=steps)
    command_console().print(plan_table(found))
    found.require_fit()


def plan_table(found: RunPlan) -> Table:
    """A plan as a table: what is needed, what there is."""
    machine = found.machine
    table = FoldingTable("", "needed", "available", "", title=f"Plan for {found.model}", title_justify="left")
    table.add_row("grid", f"{found.grid.resolution:g}°", "", "")
    table.add_row(
        "members × steps", f"{found.members} × {found.steps} in {counted(found.blocks, 'block')}", "", ""
    )
    table.add_row("how", str(found.choice), f"{machine.devices} × {machine.device_kind}", "")
    basis = "compiled" if found.compiled else "estimate"
    _add(
        table,
        f"memory per {machine.platform} ({basis})",
        found.device_bytes,
        machine.device_bytes or machine.host_bytes,
    )
    _add(table, "host memory", found.host_bytes, machine.host_bytes)
    _add(table, "store, at most", found.store_bytes, machine.store_bytes)
    duration = str(found.duration).split(".")[0] if found.duration else "known after the first run"
    table.add_row("time on this machine", duration, "", "")
    return table


def _add(table: Table, name: str, needed: int, available: int | None) -> None:
    if available is None:
        table.add_row(name, size_text(needed), "no limit known", "✅")
    else:
        mark = "✅" if needed <= available else "❌"
        table.add_row(name, size_text(needed), size_text(available), mark)
