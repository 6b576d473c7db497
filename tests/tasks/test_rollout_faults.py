"""Members whose store fails: a disk that is really full, a server that answers 503, drops and cuts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from infra import layout
from infra.background_writer import Backoff
from infra.errors import TransientSourceError
from infra.forecast_store import create_forecast_store
from infra.manifests import load_member_manifest
from infra.object_store import ObjectStore
from tasks.rollout import BlockRollout, RolloutOptions
from tests.fakes.pass_through import TASK, PassThroughForecaster, initial_condition
from tests.fakes.s3 import S3Server
from tests.tasks.test_rollout import CYCLE, FORECAST, RUN, assert_identical, describe, start, values
from tests.tools.faulty_proxy import FaultyProxy

STEPS = 6


def lay_out(store: ObjectStore, resolution: float = 30.0) -> BlockRollout:
    forecaster = PassThroughForecaster(resolution=resolution)
    condition = initial_condition(CYCLE.init_time, resolution=resolution)
    create_forecast_store(
        store, FORECAST, task=TASK, grid=forecaster.grid, init_time=CYCLE.init_time, members=1, steps=STEPS
    )
    return block(store, forecaster, condition)


def block(store: ObjectStore, forecaster: PassThroughForecaster, condition: object) -> BlockRollout:
    def initial_state(loaded: object, member: int) -> object:
        key = start(PassThroughForecaster(), member).key
        return forecaster.initial_state(condition, init_time=CYCLE.init_time, member=member, key=key)  # type: ignore[arg-type]

    return BlockRollout(
        forecasters=[forecaster],
        store=store,
        description=describe(forecaster),
        members=[0],
        steps=STEPS,
        initial_state=initial_state,  # type: ignore[arg-type]
        statics=condition[list(TASK.statics)],  # type: ignore[index]
        options=RolloutOptions(checkpoint_every=2, backoff=Backoff(attempts=3, first_seconds=0.0)),
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; only a privileged user can have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "foldcast-test", str(folder)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_fails_without_a_false_mark_and_space_cures_it(
    small_disk: Path, tmp_path: Path
) -> None:
    store = ObjectStore(root=str(small_disk))
    whole = ObjectStore(root=str(tmp_path / "whole"))
    lay_out(whole, resolution=5.0).run()
    first = lay_out(store, resolution=5.0)  # a step of 5° is about 27 kB compressed, a checkpoint 64 kB
    with pytest.raises(TransientSourceError, match="No space left on device"):
        first.run()
    assert load_member_manifest(store, CYCLE, RUN, 0) is None
    stored = sorted(int(key[-9:-4]) for key in store.list(layout.rollout_checkpoints(CYCLE, RUN, 0)))
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    again = lay_out(store, resolution=5.0)
    again.run()
    forecaster = again.forecasters[0]
    assert isinstance(forecaster, PassThroughForecaster)
    assert forecaster.advanced[0] == (0, max(stored, default=0))
    assert_identical(values(store, [0], STEPS), values(whole, [0], STEPS))
    left = [path.name for path in small_disk.rglob(".writing-*")]
    assert left == [], "no half-written file stays behind"


@pytest.mark.timeout(120)
def test_a_store_that_refuses_drops_and_cuts_only_delays(s3_server: S3Server, tmp_path: Path) -> None:
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = s3_server.new_bucket()
    direct = ObjectStore(root=f"s3://{bucket}", options=s3_server.options)
    whole = ObjectStore(root=str(tmp_path / "whole"))
    lay_out(whole).run()
    lay_out(direct)
    condition = initial_condition(CYCLE.init_time)
    with FaultyProxy(s3_server.address, rate=0.2, seed=5) as proxy:
        options = s3_server.options_at(
            proxy.url, retries={"max_attempts": 0}, read_timeout=5, connect_timeout=5
        )
        store = ObjectStore(root=f"s3://{bucket}", options=options)
        for _ in range(60):  # the controller starts a block again that failed
            forecaster = PassThroughForecaster()
            try:
                block(store, forecaster, condition).run()
            except TransientSourceError:
                continue
            break
        assert proxy.faults > 0
    manifest = load_member_manifest(direct, CYCLE, RUN, 0)
    assert manifest is not None
    assert_identical(values(direct, [0], STEPS), values(whole, [0], STEPS))
