"""The whole main job on the embedded default: bundled data and models, no network, server or accelerator."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from flows.forecast import forecast_here
from infra.demo import INIT_TIME
from infra.demo.configuration import DETERMINISTIC, ENSEMBLE, deliver_analyses, demo_settings
from infra.errors import StoreError
from infra.publication import read_manifest
from model.cycle import Cycle


def demo(*, output: Path) -> None:
    """Run both bundled models over one cycle, publish, verify, and say where to look.

    Args:
        output: folder for everything that is written; what is done there is not done again.

    Raises:
        StoreError: the folder cannot be written.
        FoldcastError: a stage failed.
    """
    console = Console()
    output = output.resolve()
    try:
        deliver_analyses(output)
    except OSError as error:
        raise StoreError(f"output folder {output}: cannot be written: {error.strerror}") from None
    settings = demo_settings(output)
    cycles = [Cycle(model=name, init_time=INIT_TIME) for name in (DETERMINISTIC, ENSEMBLE)]
    for cycle in cycles:
        forecast_here(cycle, settings, console)
    store = settings.store.open()
    console.print("\nOpen these pages:")
    for cycle in cycles:
        page = f"{read_manifest(store, cycle).prefix}index.html"
        console.print(f"  {cycle.model}: {store.url(page)}", soft_wrap=True)
