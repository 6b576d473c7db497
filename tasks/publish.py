"""Make a cycle's products visible, or quarantine them with the reason."""

from __future__ import annotations

from datetime import UTC, datetime

from infra import layout
from infra.catalog import catalog_entries, update_catalog
from infra.errors import PublicationError, StoreError
from infra.events import raise_event
from infra.object_store import ObjectStore
from infra.publication import Manifest, advance_latest, make_visible, quarantine, read_manifest, verify_sizes
from infra.settings import Settings
from model.cycle import Cycle
from tasks.products import ProductSet, newest_product_set


def publish_cycle(cycle: Cycle, settings: Settings, run: str, *, replace: bool = False) -> str:
    """Publish a run's newest products: whole, judged good, then visible all at once.

    Nothing is written beside the products, so any number of publishers of one cycle, one after the other or at
    once, end with the same cycle. What is published already is not judged again.

    Args:
        cycle: the cycle.
        settings: store and model.
        run: short name of the run whose products were made.
        replace: take the place of what is published of this cycle.

    Returns:
        Key of the cycle's manifest.

    Raises:
        PublicationError: the products failed a blocking check (they are quarantined and an event is raised),
            or are not what was written.
        StoreError: there are no products of that run.
    """
    store = settings.store.open()
    products = newest_product_set(store, cycle, run)
    before = _published(store, cycle)
    if before is None or (replace and before.attempt != products.attempt):
        _refuse_if_blocked(store, products)
        verify_sizes(store, products.prefix, products.files)
    manifest = make_visible(
        store, _manifest(products, simulated=settings.simulated(cycle.model)), replace=replace
    )
    if before is None or before.attempt != manifest.attempt:
        raise_event("published", cycle, run=manifest.run, members=len(manifest.members))
    update_catalog(store, (cycle,))
    return layout.cycle_manifest(cycle)


def finish_publication(cycle: Cycle, settings: Settings) -> None:
    """What follows a published cycle's manifest, where a process that died left it undone.

    ``latest.json`` moves to the cycle unless a later one is there; a cycle the catalogue lacks enters it.
    """
    store = settings.store.open()
    advance_latest(store, cycle)
    if all(entry.cycle != cycle for entry in catalog_entries(store)):
        update_catalog(store, (cycle,))


def _refuse_if_blocked(store: ObjectStore, products: ProductSet) -> None:
    reasons = [str(finding) for finding in products.findings if finding.severity == "block"]
    if not reasons:
        return
    quarantine(store, products.cycle, run=products.run, attempt=products.attempt, reasons=reasons)
    raise_event("quarantined", products.cycle, run=products.run, reasons=reasons[:5])
    raise PublicationError(
        f"{products.cycle}: products of run {products.run} are quarantined, {len(reasons)} blocking findings, "
        f"first: {reasons[0]}"
    )


def _published(store: ObjectStore, cycle: Cycle) -> Manifest | None:
    try:
        return read_manifest(store, cycle)
    except StoreError:
        return None


def _manifest(products: ProductSet, *, simulated: bool) -> Manifest:
    return Manifest(
        cycle=products.cycle,
        run=products.run,
        attempt=products.attempt,
        members=products.members,
        steps=products.steps,
        step_hours=products.step_hours,
        published_at=datetime.now(UTC),
        files=products.files,
        details={
            "representative_member": products.representative_member,
            "simulated": simulated,
            "warnings": [str(finding) for finding in products.findings],
        },
    )
