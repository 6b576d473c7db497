"""The configuration of one bundled model on the bundled analyses, in the working folder."""

from __future__ import annotations

from infra.demo import bundled


def tiny_configuration(*, steps: int, model: str = "") -> str:
    """A foldcast.toml with the model ``tiny``.

    Args:
        steps: of its forecasts.
        model: further lines of its table.
    """
    return f"""
[store]
root = "data"
[run]
cache = "cache"
[sources.archive]
type = "nature-run"
kind = "nature-run"
roots = ["{bundled("analyses")}"]
[models.tiny]
checkpoint = "{bundled("graphcast.npz")}"
statistics = "{bundled("graphcast_stats")}"
trained_on = "nature-run"
source = "archive"
steps = {steps}
products = {{formats = ["zarr"], quantiles = [0.5], events = []}}
{model}
"""
