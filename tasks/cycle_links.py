"""Links from a cycle's flow run to what people look at: its products, a map, the Data Docs of its inputs."""

from __future__ import annotations

import logging

from prefect.artifacts import create_image_artifact, create_link_artifact
from prefect.context import FlowRunContext

from infra import layout
from infra.object_store import ObjectStore
from infra.publication import read_manifest
from infra.settings import Settings
from infra.wording import counted
from model.cycle import Cycle

_LOG = logging.getLogger(__name__)
_PREFERRED_MAPS = ("maps/2m_temperature", "maps/mean_sea_level_pressure", "maps/")


def publish_links(cycle: Cycle, settings: Settings) -> None:
    """Attach links and a map to the flow run; nothing happens outside one, or where no base URL is configured.

    Args:
        cycle: a published cycle.
        settings: the store and the URL under which readers see it.
    """
    base = settings.store.public_url
    if base is None or FlowRunContext.get() is None:
        return
    try:
        _publish(cycle, settings.store.open(), base)
    except Exception as error:  # the cycle is published, whatever becomes of its links
        _LOG.warning("%s: links could not be shown: %s", cycle, error)


def _publish(cycle: Cycle, store: ObjectStore, base: str) -> None:
    manifest = read_manifest(store, cycle)
    name = f"{cycle.model}-{cycle.identifier}".lower()
    members = counted(len(manifest.members), "member")

    def url(key: str) -> str:
        return f"{base.rstrip('/')}/{key}"

    create_link_artifact(
        link=url(f"{manifest.prefix}index.html"),
        link_text=f"Products of {cycle}",
        key=f"products-{name}",
        description=f"{members}, {counted(manifest.steps, 'step')} of {manifest.step_hours} h",
    )
    docs = layout.data_docs(cycle)
    if store.exists(docs):
        create_link_artifact(
            link=url(docs), link_text=f"Data Docs of the inputs of {cycle}", key=f"data-docs-{name}"
        )
    picture = first_map(list(manifest.files))
    if picture is not None:
        create_image_artifact(
            image_url=url(f"{manifest.prefix}{picture}"), key=f"map-{name}", description=f"{cycle}: {picture}"
        )


def first_map(files: list[str]) -> str | None:
    """The map to show first: the earliest lead time of the best-known field there is."""
    for prefix in _PREFERRED_MAPS:
        maps = sorted(name for name in files if name.startswith(prefix) and name.endswith(".png"))
        if maps:
            return maps[0]
    return None
