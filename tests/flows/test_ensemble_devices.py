"""Members of a real model come out the same, bit for bit, on one device and on four."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from infra.settings import child_environment
from tests.conftest import QUICK_COMPILATION


def compute(repository: Path, parity_dir: Path, folder: Path, devices: int) -> dict[str, Any]:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.tools.ensemble_program",
            str(parity_dir / "graphcast_small_f32"),
            str(folder),
            *("4", "2", "4"),
        ],
        env=child_environment(
            XLA_FLAGS=f"{QUICK_COMPILATION} --xla_force_host_platform_device_count={devices}"
        ),
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_one_and_four_devices_give_the_same_members(
    repository: Path, parity_dir: Path, tmp_path: Path
) -> None:
    one = compute(repository, parity_dir, tmp_path / "one", 1)
    four = compute(repository, parity_dir, tmp_path / "four", 4)
    assert (one["devices"], four["devices"]) == (1, 4)
    assert len(four["used"]) > 1
    assert one["members"] == four["members"]
