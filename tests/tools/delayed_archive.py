"""A provider whose analyses of the bundled nature run appear as time goes on, but for one."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

from infra.demo import bundled


class DelayedArchive:
    """An archive to which analyses are added.

    Args:
        folder: where; made here.
        withheld: valid time of the analysis that never comes.
    """

    def __init__(self, folder: Path, *, withheld: datetime | None = None) -> None:
        self._folder = folder
        self._withheld = withheld
        folder.mkdir(parents=True)
        shutil.copyfile(bundled("analyses") / "statics.grib2", folder / "statics.grib2")

    def publish_until(self, last: datetime) -> None:
        """Add what is valid until then and is not there yet."""
        for path in sorted(bundled("analyses").glob("*/*z.grib2")):
            valid_time = datetime.strptime(f"{path.parent.name}{path.stem}+0000", "%Y%m%d%Hz%z")
            target = self._folder / path.parent.name / path.name
            if valid_time <= last and valid_time != self._withheld and not target.exists():
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, target.with_suffix(".part"))
                target.with_suffix(".part").replace(target)
