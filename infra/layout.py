"""Where every object lies below the store's root: the only module that knows a key.

Keys are relative to the root, use ``/`` and carry no leading slash. ``{cycle}`` stands for
``{model}/{init_time:%Y%m%dT%HZ}``.

========================================== ==================================================================
``fields/{source}/{valid_time}/``          decoded, regridded analysis fields and the raw messages' checksums
``statics/{source}/{grid}.zarr``           orography and land-sea mask
``initial-conditions/{cycle}.zarr``        the two frames a model starts from, with provenance
``validation/{cycle}/``                    reports and Data Docs of the inputs
``runs/{cycle}/{run}/run.json``            everything that decides a value of this run
``runs/{cycle}/{run}/forecast.zarr``       the forecast store, one chunk per member and lead time
``runs/{cycle}/{run}/members/0007.json``   a finished member's chunk checksums
``runs/{cycle}/{run}/checkpoints/0007/``   that member's rollout checkpoints
``cycles/{cycle}/products/{run}/…/``       products, visible or not yet: a prefix for each attempt to publish
``cycles/{cycle}/manifest.json``           the cycle is whole and verified: readers start here
``cycles/{model}/latest.json``             the newest such cycle
``claims/{cycle}/``                        which run works on the cycle
``quarantine/{cycle}/``                    what failed its checks, with the reason
``verification/{cycle}/``                  sufficient statistics of a verified cycle
``reports/{model}/``                       score curves and cards over all verified cycles
``{archive}/{yyyymmdd}/{HH}z.grib2``       analyses of an archive (a nature run), with its statics and summary
========================================== ==================================================================
"""

from __future__ import annotations

from datetime import UTC, datetime

from model.cycle import Cycle


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y%m%dT%HZ")


def fields(source: str, valid_time: datetime, name: str) -> str:
    """One decoded file of a source at a valid time."""
    return f"fields/{source}/{_stamp(valid_time)}/{name}"


def fields_prefix(source: str = "", valid_time: str = "") -> str:
    """Raw and regridded analyses: of all sources, of one, or of one at a time (as its folder is named)."""
    return "/".join(part for part in ("fields", source, valid_time) if part) + "/"


def completion_mark(key: str) -> str:
    """The object without which fields at a key count as not there."""
    return f"{key}.json"


def raw(source: str, valid_time: datetime, name: str) -> str:
    """A raw file of a source as fetched for a valid time, or the manifest of some."""
    return f"fields/{source}/{_stamp(valid_time)}/raw/{name}"


def analysis(source: str, valid_time: datetime, resolution: float, request: str) -> str:
    """A source's fields on a grid; ``request`` is the digest of which and how."""
    return f"fields/{source}/{_stamp(valid_time)}/{resolution:g}deg-{request}.zarr"


def statics(source: str, resolution: float, request: str) -> str:
    """Orography and land-sea mask of a source on a grid; ``request`` is the digest of how they came there."""
    return f"statics/{source}/{resolution:g}deg-{request}.zarr"


def initial_condition(cycle: Cycle, source: str = "") -> str:
    """The two frames a cycle starts from; those of one source of a set of analyses where it is named."""
    return f"initial-conditions/{cycle}{'.' if source else ''}{source}.zarr"


def validation(cycle: Cycle, name: str = "") -> str:
    """Reports on a cycle's inputs."""
    return f"validation/{cycle}/{name}"


def data_docs(cycle: Cycle, name: str = "index.html") -> str:
    """Great Expectations' pages about a cycle's inputs."""
    return validation(cycle, f"data-docs/{name}")


def shown_prefixes() -> tuple[str, ...]:
    """Where people look: products, the catalogue, reports of checks and of skill, reasons of a quarantine."""
    return ("cycles/", "catalog/", "reports/", "validation/", "verification/", "quarantine/")


def runs_prefix(cycle: Cycle) -> str:
    """All runs of a cycle."""
    return f"runs/{cycle}/"


def run_prefix(cycle: Cycle, run: str) -> str:
    """All working data of one run (a fingerprint) of a cycle."""
    return f"runs/{cycle}/{run}/"


def run_description(cycle: Cycle, run: str) -> str:
    """Everything that decides a value of a run."""
    return f"{run_prefix(cycle, run)}run.json"


def ensemble_manifest(cycle: Cycle, run: str) -> str:
    """What the controller gathered: complete members, what is missing, on which devices."""
    return f"{run_prefix(cycle, run)}ensemble.json"


def block_progress(cycle: Cycle, run: str, block: int) -> str:
    """A sign of life of the worker that computes a block."""
    return f"{run_prefix(cycle, run)}progress/{block:04d}.json"


def forecast_store(cycle: Cycle, run: str) -> str:
    """The Zarr store members stream their steps into."""
    return f"{run_prefix(cycle, run)}forecast.zarr"


def member_manifest(cycle: Cycle, run: str, member: int) -> str:
    """The mark of a complete member, with its chunks' checksums."""
    return f"{run_prefix(cycle, run)}members/{member:04d}.json"


def rollout_checkpoints(cycle: Cycle, run: str, member: int) -> str:
    """Prefix of a member's rollout checkpoints."""
    return f"{run_prefix(cycle, run)}checkpoints/{member:04d}/"


def rollout_checkpoint(cycle: Cycle, run: str, member: int, step: int) -> str:
    """A member's rollout checkpoint from which ``step`` is the next step to compute."""
    return f"{rollout_checkpoints(cycle, run, member)}{step:05d}.npz"


def products_prefix(cycle: Cycle, run: str = "", attempt: str = "") -> str:
    """All products of a cycle, of one run of it, or of one attempt to publish that run."""
    return "/".join(part for part in (f"cycles/{cycle}/products", run, attempt) if part) + "/"


def product(cycle: Cycle, run: str, attempt: str, name: str) -> str:
    """One product."""
    return f"{products_prefix(cycle, run, attempt)}{name}"


def product_inventory(cycle: Cycle, run: str, attempt: str) -> str:
    """Sizes and checksums of an attempt's products."""
    return product(cycle, run, attempt, "inventory.json")


def cycle_prefix(cycle: Cycle) -> str:
    """Everything published of a cycle."""
    return f"cycles/{cycle}/"


def cycle_manifest(cycle: Cycle) -> str:
    """The cycle's manifest: it exists only when the cycle is whole and verified."""
    return f"cycles/{cycle}/manifest.json"


def cycles_prefix(model: str = "") -> str:
    """All published cycles (of a model)."""
    return f"cycles/{model}/" if model else "cycles/"


def latest(model: str) -> str:
    """The pointer to the newest published cycle of a model."""
    return f"cycles/{model}/latest.json"


def catalog(name: str = "catalog.json") -> str:
    """STAC catalogue documents and the index page over all cycles."""
    return f"catalog/{name}"


def catalog_item(cycle: Cycle) -> str:
    """The catalogue's entry of a cycle."""
    return catalog(f"{cycle}.json")


def catalog_collection(model: str) -> str:
    """The catalogue's entry of a model."""
    return catalog(f"{model}/collection.json")


def claimed(model: str = "") -> str:
    """Prefix of all claims, or of a model's."""
    return f"claims/{model}/" if model else "claims/"


def claims_prefix(cycle: Cycle) -> str:
    """All claims ever made on a cycle."""
    return f"claims/{cycle}/"


def claim(cycle: Cycle, number: int) -> str:
    """The conditional put that makes the cycle's claim of that number."""
    return f"{claims_prefix(cycle)}{number:06d}.claim.json"


def claim_heartbeat(cycle: Cycle, number: int) -> str:
    """When that claim was last renewed, and whether it was released."""
    return f"{claims_prefix(cycle)}{number:06d}.heartbeat.json"


def event_mark(cycle: Cycle, event: str, about: str = "") -> str:
    """The mark that an event of a cycle (about one thing of several) was raised, so that it is raised once."""
    return (
        f"events/{cycle}/{event}-{about.removesuffix('.nc')}.json"
        if about
        else f"events/{cycle}/{event}.json"
    )


def event_marks(cycle: Cycle) -> str:
    """Prefix of the marks of events that were raised once for a cycle."""
    return f"events/{cycle}/"


def quarantine(cycle: Cycle, name: str = "") -> str:
    """What failed its checks, with the reason."""
    return f"quarantine/{cycle}/{name}"


def verification(cycle: Cycle, name: str = "statistics.nc") -> str:
    """A cycle's verification statistics."""
    return f"verification/{cycle}/{name}"


def missing_truth(cycle: Cycle, name: str) -> str:
    """The times whose truth is no longer waited for, beside the statistics of that name."""
    return verification(cycle, f"{name.removesuffix('.nc')}-missing.json")


def verification_prefix(model: str) -> str:
    """All verification statistics of a model."""
    return f"verification/{model}/"


def archived_analysis(prefix: str, valid_time: datetime) -> str:
    """One analysis of an archive such as a nature run's, as GRIB."""
    return _below(prefix, f"{valid_time.astimezone(UTC):%Y%m%d/%H}z.grib2")


def archived_time(prefix: str, key: str) -> datetime | None:
    """The valid time of an archive's analysis by its key; None if the key is of something else."""
    try:
        return datetime.strptime(key, _below(prefix, "%Y%m%d/%Hz.grib2")).replace(tzinfo=UTC)
    except ValueError:
        return None


def archived_statics(prefix: str) -> str:
    """Orography and land-sea mask of an archive, as GRIB."""
    return _below(prefix, "statics.grib2")


def archive_description(prefix: str) -> str:
    """What decided the values of an archive, and how far it has got."""
    return _below(prefix, "archive.json")


def simulation_state(prefix: str) -> str:
    """The state from which a nature run goes on."""
    return _below(prefix, "restart.ckpt")


def archive_summary(prefix: str, name: str) -> str:
    """Statistics and climatology of an archive."""
    return _below(prefix, f"summary/{name}")


def _below(prefix: str, name: str) -> str:
    return f"{prefix.rstrip('/')}/{name}" if prefix else name


def skill_report(model: str, name: str) -> str:
    """A picture of a model's skill over all verified cycles."""
    return f"reports/{model}/{name}"
