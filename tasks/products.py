"""Make all products of an ensemble, judge them and put them into the store, where nobody sees them yet."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr

from infra import layout
from infra.errors import StoreError
from infra.forecast_store import open_forecast
from infra.object_store import ObjectStore
from infra.product_files import open_products, write_netcdf
from infra.publication import FileRecord, upload_folder
from infra.settings import ModelSettings, Settings
from infra.validation_report import Finding
from infra.version import code_version
from model.cycle import Cycle
from tasks.aggregate import DEFAULT_BUDGET, aggregate
from tasks.climatology import climatology_at, climatology_variables, load_climatology
from tasks.product_checks import judge_products, write_page
from tasks.product_grib import refuse_uncodable, write_grib_products
from tasks.product_maps import draw_pictures
from tasks.product_plan import plan_products

_FORMAT = 2


class Ensemble(Protocol):
    """What is needed of a gathered ensemble (``flows.ensemble.EnsembleResult``)."""

    @property
    def run(self) -> str: ...
    @property
    def members(self) -> tuple[int, ...]: ...
    @property
    def steps(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class ProductSet:
    """One attempt's products, complete in the store and not yet visible.

    Args:
        cycle: its cycle.
        run: short name of the run.
        attempt: name of this attempt.
        made_at: when, UTC.
        members: global member numbers.
        steps: model steps.
        step_hours: length of a step.
        representative_member: the member nearest to the mean; None for a single forecast.
        files: what was put, by name below the attempt's prefix.
        findings: of the checks, blocking ones first.
    """

    cycle: Cycle
    run: str
    attempt: str
    made_at: datetime
    members: tuple[int, ...]
    steps: int
    step_hours: int
    representative_member: int | None
    files: dict[str, FileRecord]
    findings: tuple[Finding, ...]

    @property
    def prefix(self) -> str:
        """Key prefix of the products."""
        return layout.products_prefix(self.cycle, self.run, self.attempt)

    def save(self, store: ObjectStore) -> None:
        """Write the inventory: the attempt is complete."""
        document = {"format": _FORMAT, **asdict(self)}
        document["cycle"] = {"model": self.cycle.model, "init_time": self.cycle.init_time.isoformat()}
        document["made_at"] = self.made_at.isoformat()
        key = layout.product_inventory(self.cycle, self.run, self.attempt)
        store.write(key, json.dumps(document, indent=1, ensure_ascii=False).encode())


def newest_product_set(store: ObjectStore, cycle: Cycle, run: str) -> ProductSet:
    """The last complete attempt at a run's products.

    Raises:
        StoreError: there is none.
    """
    found = []
    for attempt in store.folders(layout.products_prefix(cycle, run)):
        key = layout.product_inventory(cycle, run, attempt)
        if store.exists(key):
            document = json.loads(store.read(key))
            if document.pop("format") != _FORMAT:
                continue  # of another version of the code
            found.append(
                ProductSet(
                    **{
                        **document,
                        "cycle": Cycle(
                            model=document["cycle"]["model"],
                            init_time=datetime.fromisoformat(document["cycle"]["init_time"]),
                        ),
                        "made_at": datetime.fromisoformat(document["made_at"]),
                        "members": tuple(document["members"]),
                        "files": {name: FileRecord(**record) for name, record in document["files"].items()},
                        "findings": tuple(Finding(**finding) for finding in document["findings"]),
                    }
                )
            )
    if not found:
        raise StoreError(f"{cycle}: run {run} has no complete products")
    return max(found, key=lambda products: products.made_at)


def make_products(
    cycle: Cycle, settings: Settings, ensemble: Ensemble, *, budget: int = DEFAULT_BUDGET
) -> ProductSet:
    """Make a cycle's products as the settings of its model say, with the verdict on them and their page.

    Args:
        cycle: the cycle.
        settings: store and model.
        ensemble: the run, and the members that are complete.
        budget: bytes of members' fields held in memory at once.

    Raises:
        StoreError: the forecast or a configured climatology is missing.
        IncompleteCycleError: a member's field is missing.
        PublicationError: a product read back differently from what was written, or GRIB2 cannot hold it.
    """
    store = settings.store.open()
    model = settings.configured_model(cycle.model)
    refuse_uncodable(model.products, ensemble.members)
    forecast = open_forecast(store, layout.forecast_store(cycle, ensemble.run), members=ensemble.members)
    forecast = forecast.isel(lead_time=slice(0, ensemble.steps))
    attempt = uuid.uuid4().hex[:8]
    prefix = layout.products_prefix(cycle, ensemble.run, attempt)
    described: dict[str, Any] = {
        "steps": ensemble.steps,
        "step_hours": int(forecast["lead_time"].values[0] / np.timedelta64(1, "h")),
    }
    with store.scratch("products") as folder:
        described["representative_member"], pictures = _fill(
            folder, forecast, cycle, ensemble.run, model, store, budget
        )
        count = len(ensemble.members)
        findings = judge_products(folder, members=count)
        write_page(
            folder,
            cycle=cycle,
            prefix=prefix,
            members=count,
            pictures=pictures,
            findings=findings,
            simulated=settings.simulated(cycle.model),
            **described,
        )
        files = upload_folder(store, folder, prefix, adopt=True)
    products = ProductSet(
        cycle=cycle,
        run=ensemble.run,
        attempt=attempt,
        made_at=datetime.now(UTC),
        members=tuple(ensemble.members),
        files=files,
        findings=findings,
        **described,
    )
    products.save(store)
    return products


def _fill(
    folder: Path,
    forecast: xr.Dataset,
    cycle: Cycle,
    run: str,
    model: ModelSettings,
    store: ObjectStore,
    budget: int,
) -> tuple[int | None, dict[str, Any]]:
    """Write all products into a folder; returns the representative member and what the page shows."""
    climatology = load_climatology(model.climatology) if model.climatology else None
    plan = plan_products(
        model.products,
        [str(name) for name in forecast.data_vars],
        [int(level) for level in forecast["level"].values] if "level" in forecast.dims else (),
        climatology=climatology_variables(climatology) if climatology is not None else (),
    )
    attrs = {
        "title": f"Foldcast ensemble forecast {cycle}",
        "institution": "Foldcast",
        "source": str(forecast.attrs.get("model_description", cycle.model)),
        "model": cycle.model,
        "run": run,
        "code_version": code_version(),
        "not_available": list(plan.not_available),
    }
    made = aggregate(
        forecast,
        folder,
        plan=plan,
        climatology=climatology_at(climatology) if climatology is not None else None,
        budget=budget,
        attrs=attrs,
    )
    (folder / "checks").mkdir()
    made.statistics.to_csv(folder / "checks" / "product_statistics.csv", index=False)
    made.members.to_csv(folder / "checks" / "member_statistics.csv", index=False)
    formats: Sequence[str] = model.products.formats
    if "netcdf" in formats:
        write_netcdf(open_products(folder / "ensemble.zarr"), folder / "netcdf", stem="ensemble")
    if "grib2" in formats:
        write_grib_products(folder / "grib2", open_products(folder / "ensemble.zarr"), forecast, plan)
    page: dict[str, Any] = {"maps": [], "plumes": []}
    if "png" in formats:
        maps, plumes = draw_pictures(
            folder, forecast, plan, model=cycle.model, land=_land(store, cycle, forecast)
        )
        page = {
            "maps": [
                {"title": series.title, "images": {str(lead): path for lead, path in series.images.items()}}
                for series in maps
            ],
            "plumes": [asdict(plume) for plume in plumes],
        }
    return made.representative_member, page


def _land(store: ObjectStore, cycle: Cycle, forecast: xr.Dataset) -> np.ndarray | None:
    """The land fraction the forecast started from, for coastlines; None if its analysis is not stored."""
    key = layout.initial_condition(cycle)
    try:
        condition = xr.open_zarr(store.zarr(key, read_only=True), chunks=None, consolidated=False)
    except (FileNotFoundError, ValueError, KeyError):
        return None
    if "land_sea_mask" not in condition:
        return None
    mask = condition["land_sea_mask"].transpose("latitude", "longitude").values
    expected = (forecast.sizes["latitude"], forecast.sizes["longitude"])
    return mask if mask.shape == expected else None
