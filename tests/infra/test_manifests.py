"""Run descriptions and member manifests: complete, self-identifying, and refused when they are another's."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra import layout
from infra.errors import CheckpointMismatchError, IncompleteCycleError, StoreError
from infra.manifests import MemberManifest, RunDescription, load_member_manifest, load_run_description
from infra.object_store import ObjectStore
from model.cycle import Cycle

CYCLE = Cycle(model="gencast", init_time=datetime(2026, 1, 1, tzinfo=UTC))
DESCRIPTION = RunDescription(
    cycle=CYCLE,
    model_sha256="a" * 64,
    statistics_sha256="b" * 64,
    initial_condition=layout.initial_condition(CYCLE),
    initial_condition_sha256="c" * 64,
    seed=0,
    rng="operational",
    precision="auto",
    attention="auto",
    perturbation={"kind": "gaussian", "amplitude": 0.1},
    code_version="1.0",
    compiler_version="jax 0.10.2, jaxlib 0.10.2",
)


def changed(**changes: Any) -> RunDescription:
    fields = {name: getattr(DESCRIPTION, name) for name in DESCRIPTION.__dataclass_fields__}
    return RunDescription(**{**fields, **changes})


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"cycle": Cycle(model="gencast", init_time=datetime(2026, 1, 1, 12, tzinfo=UTC))},
        {"model_sha256": "d" * 64},
        {"statistics_sha256": "d" * 64},
        {"initial_condition_sha256": "d" * 64},
        {"seed": 1},
        {"rng": "reference"},
        {"precision": "float32"},
        {"attention": "dense"},
        {"perturbation": {}},
        {"code_version": "1.1"},
        {"compiler_version": "jax 0.12.0, jaxlib 0.12.0"},
    ],
)
def test_every_field_is_part_of_the_fingerprint(change: dict[str, Any]) -> None:
    assert changed(**change).fingerprint != DESCRIPTION.fingerprint
    assert changed().fingerprint == DESCRIPTION.fingerprint


def test_a_description_is_read_back(store: ObjectStore) -> None:
    DESCRIPTION.save(store)
    assert load_run_description(store, CYCLE, DESCRIPTION.run) == DESCRIPTION
    assert len(DESCRIPTION.run) == 12


def test_a_description_that_was_tampered_with_is_refused(store: ObjectStore) -> None:
    DESCRIPTION.save(store)
    key = layout.run_description(CYCLE, DESCRIPTION.run)
    document = json.loads(store.read(key))
    store.write(key, json.dumps({**document, "seed": 9}).encode())
    with pytest.raises(CheckpointMismatchError, match=f"expected run {DESCRIPTION.run}"):
        load_run_description(store, CYCLE, DESCRIPTION.run)
    store.write(key, json.dumps({**document, "unheard": 1}).encode())
    with pytest.raises(CheckpointMismatchError, match="not a run description"):
        load_run_description(store, CYCLE, DESCRIPTION.run)


def test_a_missing_or_broken_description_is_a_store_error(store: ObjectStore) -> None:
    with pytest.raises(StoreError, match="no such object"):
        load_run_description(store, CYCLE, "0" * 12)
    store.write(layout.run_description(CYCLE, "0" * 12), b"{")
    with pytest.raises(StoreError, match="not JSON"):
        load_run_description(store, CYCLE, "0" * 12)


def test_a_member_manifest_is_read_back_and_bound_to_its_place(store: ObjectStore) -> None:
    assert load_member_manifest(store, CYCLE, "run", 7) is None
    manifest = MemberManifest(
        member=7, run="run", steps=2, chunks={"t/c/7/0/0/0": "ab"}, device="cpu", started_at_steps=(0, 1)
    )
    manifest.save(store, CYCLE)
    assert load_member_manifest(store, CYCLE, "run", 7) == manifest
    store.write(layout.member_manifest(CYCLE, "run", 8), store.read(layout.member_manifest(CYCLE, "run", 7)))
    with pytest.raises(IncompleteCycleError, match="expected member 8"):
        load_member_manifest(store, CYCLE, "run", 8)
