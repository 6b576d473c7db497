"""Metrics in Prometheus' format, read from what is published: no state of its own, right after any restart.

Served by ``foldcast serve`` under ``/metrics``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from infra.cycle_status import published_cycles
from infra.manifests import MemberManifest, load_member_manifest
from infra.object_store import ObjectStore
from infra.publication import Manifest

Clock = Callable[[], datetime]
Stop = Callable[[], None]


class CycleCollector(Collector):
    """The newest published cycle of every model, measured; step seconds and memory over all its members.

    Args:
        open_store: makes the store that is read; called at every scrape.
        clock: the time ages are judged by, in UTC.
    """

    def __init__(self, open_store: Callable[[], ObjectStore], clock: Clock) -> None:
        self._open_store = open_store
        self._clock = clock
        self._members: dict[str, tuple[str, list[MemberManifest]]] = {}

    def collect(self) -> Iterator[Metric]:
        """One value per model and metric."""
        newest: dict[str, Manifest] = {}
        counts: dict[str, int] = {}
        store = self._open_store()
        for manifest in published_cycles(store):
            model = manifest.cycle.model
            newest[model] = manifest  # they come by ascending init_time: the last one stays
            counts[model] = counts.get(model, 0) + 1
        for name, (text, measure) in _MEASURES.items():
            family = GaugeMetricFamily(f"foldcast_{name}", text, labels=["model"])
            for model, manifest in sorted(newest.items()):
                value = measure(manifest, self._clock())
                if value is not None:
                    family.add_metric([model], value)
            yield family
        members = {model: self._members_of(store, manifest) for model, manifest in sorted(newest.items())}
        for name, (text, measure_member) in _MEMBER_MEASURES.items():
            family = GaugeMetricFamily(f"foldcast_{name}", text, labels=["model"])
            for model, manifests in members.items():
                values = [value for value in map(measure_member, manifests) if value]
                if values:
                    family.add_metric([model], max(values))
            yield family
        cycles = GaugeMetricFamily("foldcast_cycles", "Published cycles in the store.", labels=["model"])
        for model, count in sorted(counts.items()):
            cycles.add_metric([model], count)
        yield cycles

    def _members_of(self, store: ObjectStore, manifest: Manifest) -> list[MemberManifest]:
        """Members' manifests, which do not change: read once for each publication."""
        model, publication = manifest.cycle.model, manifest.prefix
        if self._members.get(model, ("",))[0] != publication:
            found = [load_member_manifest(store, manifest.cycle, manifest.run, n) for n in manifest.members]
            self._members[model] = (publication, [member for member in found if member is not None])
        return self._members[model][1]


def _seconds(later: datetime, earlier: datetime) -> float:
    return (later - earlier).total_seconds()


_MEASURES: dict[str, tuple[str, Callable[[Manifest, datetime], float | None]]] = {
    "age_seconds": (
        "Since the newest published init_time; none of simulated weather.",
        lambda m, now: None if m.simulated else _seconds(now, m.cycle.init_time),
    ),
    "latency_seconds": (
        "From init_time to publication of the newest cycle; none of simulated weather.",
        lambda m, _: None if m.simulated else _seconds(m.published_at, m.cycle.init_time),
    ),
    "published_bytes": ("Size of the newest cycle.", lambda m, _: sum(f.size for f in m.files.values())),
    "members": ("Members of the newest cycle.", lambda m, _: len(m.members)),
}

_MEMBER_MEASURES: dict[str, tuple[str, Callable[[MemberManifest], float | None]]] = {
    "step_seconds": ("Wall time of a model step, of the slowest member.", lambda m: m.seconds_per_step),
    "peak_host_bytes": ("Peak resident memory of a worker of members.", lambda m: m.peak_host_bytes),
    "peak_device_bytes": ("Peak memory of a worker's device, where it tells.", lambda m: m.peak_device_bytes),
}


def serve_metrics(open_store: Callable[[], ObjectStore], *, port: int, clock: Clock, host: str) -> Stop:
    """Answer scrapes under ``/metrics`` from a thread; returns what ends it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(CycleCollector(open_store, clock))
    server, thread = start_http_server(port, addr=host, registry=registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
