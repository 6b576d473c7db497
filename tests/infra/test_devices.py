"""Devices in words and numbers, and the machine they make."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax

from infra.devices import describe, local_devices, machine_of


@dataclass
class Handle:
    """Looks like a JAX device."""

    id: int = 0
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100"
    statistics: dict[str, int] | None = field(default_factory=lambda: {"bytes_limit": 80})
    compute_capability: str = "9.0"

    def memory_stats(self) -> dict[str, int] | None:
        return self.statistics


def test_the_cpu_has_no_memory_of_its_own() -> None:
    device = describe(jax.local_devices(backend="cpu")[0])
    assert (device.platform, device.kind, device.memory_bytes) == ("cpu", "cpu", None)
    assert str(device) == "cpu:0 cpu"


def test_devices_come_in_jaxs_order_and_no_more_than_asked() -> None:
    assert local_devices() == tuple(jax.local_devices())
    assert local_devices(1) == (jax.local_devices()[0],)


def test_the_smallest_device_limits_the_machine() -> None:
    found = [describe(Handle()), describe(Handle(id=1, statistics={"bytes_limit": 40}))]
    machine = machine_of(found, host_bytes=500, store_bytes=None)
    assert str(found[1]) == "gpu:1 NVIDIA H100"
    assert (machine.devices, machine.device_bytes, machine.host_bytes) == (2, 40, 500)
    assert machine.compute_capability == 9.0


def test_a_device_that_does_not_tell_its_memory_sets_no_limit() -> None:
    assert machine_of([describe(Handle(statistics=None))], host_bytes=1, store_bytes=2).device_bytes is None
