"""Kill a process that computes an ensemble by itself, at random moments, and start it again until it is done.

Without server and workers a death costs a second, so that many can be tried: ``python -m tests.tools.sudden_death
--seeds 100``. What a member has left at such a moment (half a step, a checkpoint under its temporary name, chunks
without a checkpoint) is what the next process finds. Now and then two processes compute at once, as when an attempt
that was given up still runs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flows.ensemble import forecast_ensemble
from infra import layout
from infra.analyses import write_analysis
from infra.object_store import ObjectStore
from infra.settings import ModelSettings, Settings, StoreSettings
from tests.fakes.pass_through import initial_condition
from tests.tools.survival import CHECKPOINT_EVERY, CYCLE, MEMBERS, STEPS, examine, look_for_checkpoints


@dataclass(frozen=True, kw_only=True)
class Deaths:
    """One random sequence of deaths.

    Args:
        folder: an empty folder.
        seed: decides the moments, and the members' random numbers.
        kills: how many processes die before one may finish.
        step_seconds: how long a step lasts.
    """

    folder: Path
    seed: int
    kills: int = 4
    step_seconds: float = 0.02
    diary: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "diary", self.folder / "diary.txt")

    @property
    def settings(self) -> Settings:
        """One process computes all blocks."""
        model = ModelSettings(
            checkpoint=f"pass-through?step_seconds={self.step_seconds}&diary={self.diary}",
            statistics="none",
            loader="tests.fakes.pass_through:load",
            trained_on="nature-run",
            source="none",
            members=MEMBERS,
            steps=STEPS,
            block_size=2,
            checkpoint_every=CHECKPOINT_EVERY,
            seed=self.seed,
        )
        return Settings(store=StoreSettings(root=str(self.folder / "store")), models={CYCLE.model: model})

    def run(self) -> dict[str, Any]:
        """Compute, die, compute, until the ensemble is complete; returns an ``Outcome`` as JSON types."""
        chance = random.Random(self.seed)
        store = ObjectStore(root=str(self.folder / "store"))
        in_child(
            lambda: write_analysis(store, layout.initial_condition(CYCLE), initial_condition(CYCLE.init_time))
        )
        self.diary.touch()
        began = time.monotonic()
        seen: dict[int, float] = {}
        kills: list[str] = []
        beside: set[int] = set()
        for _ in range(self.kills):
            processes = [self._start() for _ in range(2 if chance.random() < 0.25 else 1)]
            beside.update(processes if len(processes) > 1 else ())
            target = self._steps_done() + chance.randrange(0, 2 * MEMBERS * STEPS // self.kills)
            ended = 0
            while self._steps_done() < target and ended == 0:
                look_for_checkpoints(store, seen)
                time.sleep(0.01)
                ended, _ = os.waitpid(processes[0], os.WNOHANG)
            time.sleep(chance.uniform(0.0, 3 * self.step_seconds))
            for process in processes:
                if process != ended:
                    os.kill(process, signal.SIGKILL)
                    os.waitpid(process, 0)
            kills.append(f"{len(processes)} at step {self._steps_done()}")
            look_for_checkpoints(store, seen)
        _, status = os.waitpid(self._start(), 0)
        if status != 0:
            raise RuntimeError(f"the last process ended with status {status}; see {self.folder}")
        seconds = time.monotonic() - began
        return in_child(
            lambda: asdict(
                examine(
                    self.folder,
                    store,
                    self.diary,
                    seen,
                    kills,
                    self.seed,
                    seconds,
                    excused=frozenset(beside),
                )
            )
        )

    def _steps_done(self) -> int:
        return self.diary.read_bytes().count(b"\n")

    def _start(self) -> int:
        """A child that shares what is imported; JAX starts in the child alone."""
        process = os.fork()
        if process:
            return process
        try:
            forecast_ensemble(CYCLE, self.settings)
        except BaseException as error:
            print(f"seed {self.seed}: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)


def in_child(work: Callable[[], object]) -> Any:
    """What some work returns, as JSON, done in a child so that this process never starts JAX or a thread."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        status = 0
        try:
            text = json.dumps(work())
        except BaseException:
            text, status = json.dumps(traceback.format_exc()), 1
        with os.fdopen(writing, "w") as pipe:
            pipe.write(text)
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = json.loads(pipe.read())
    if os.waitpid(process, 0)[1] != 0:
        raise RuntimeError(answer)
    return answer


def main() -> None:
    """Many random sequences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    failed = 0
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        folder = Path(tempfile.mkdtemp(prefix=f"death-{seed}-", dir=arguments.folder))
        outcome = Deaths(folder=folder, seed=seed, kills=arguments.kills).run()
        failed += not outcome["identical"] or bool(outcome["started_again"])
        print(seed, json.dumps(outcome), flush=True)
    sys.exit(f"{failed} of {arguments.seeds} failed" if failed else 0)


if __name__ == "__main__":
    main()
