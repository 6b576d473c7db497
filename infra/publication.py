"""How products become visible: all of a cycle, checked, or nothing.

1. An attempt writes its products under a prefix of its own, which no other attempt ever touches.
2. They are read back and compared with the checksums of what was meant to be written.
3. ``manifest.json`` appears by a conditional put: of several attempts, also concurrent ones, one wins. The
   others find the winner's manifest, remove their own products and report the winner's.
4. ``latest.json`` moves to the cycle by compare and swap, unless it points to a later one already.

A reader who starts from either document therefore sees a whole, verified cycle. An attempt that dies between
3 and 4 leaves a published cycle that is not the latest yet; publishing it again, or a later one, makes that good.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from infra import layout
from infra.conditional_replace import update
from infra.errors import PublicationError, StoreError, TransientSourceError
from infra.object_store import ObjectStore
from infra.retry import RetryPolicy
from infra.verified_upload import upload_verified
from model.cycle import Cycle, parse_init_time

FORMAT = 1
PARALLEL = 8
"""Objects on their way at once; more brings 503 SlowDown from S3."""

RETRY = RetryPolicy(attempts=8, first_delay=0.5)


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """What is known of one published object: sha256 in hex, size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A published cycle.

    Args:
        cycle: its cycle.
        run: short name of the run its products were made from.
        attempt: which attempt at publication this is.
        members: global member numbers.
        steps: number of model steps.
        step_hours: length of a step.
        published_at: when the manifest was written, UTC.
        files: what was published, by name relative to the products' prefix.
        details: checks, representative member, whether the weather is simulated.
    """

    cycle: Cycle
    run: str
    attempt: str
    members: tuple[int, ...]
    steps: int
    step_hours: int
    published_at: datetime
    files: Mapping[str, FileRecord]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """Key prefix of the products."""
        return layout.products_prefix(self.cycle, self.run, self.attempt)

    @property
    def simulated(self) -> bool:
        """Whether its analyses are a nature run's, whose times have nothing to do with the clock."""
        return bool(self.details.get("simulated", False))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the product checks found and did not block."""
        return tuple(self.details.get("warnings", ()))

    @property
    def latency_hours(self) -> float:
        """Hours from init_time to publication."""
        return (self.published_at - self.cycle.init_time).total_seconds() / 3600

    def to_json(self) -> bytes:
        """As it is stored."""
        document = {
            "format": FORMAT,
            "model": self.cycle.model,
            "init_time": self.cycle.identifier,
            "run": self.run,
            "attempt": self.attempt,
            "members": list(self.members),
            "steps": self.steps,
            "step_hours": self.step_hours,
            "published_at": self.published_at.astimezone(UTC).isoformat(timespec="seconds"),
            "products": self.prefix,
            "details": dict(self.details),
            "files": {name: asdict(record) for name, record in sorted(self.files.items())},
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """From its stored form.

        Raises:
            PublicationError: it is damaged, or of a later format.
        """
        try:
            document = json.loads(data)
            if document["format"] != FORMAT:
                raise PublicationError(f"manifest: expected format {FORMAT}, got {document['format']}")
            return cls(
                cycle=Cycle(model=document["model"], init_time=parse_init_time(document["init_time"])),
                run=document["run"],
                attempt=document["attempt"],
                members=tuple(document["members"]),
                steps=document["steps"],
                step_hours=document["step_hours"],
                published_at=datetime.fromisoformat(document["published_at"]),
                files={name: FileRecord(**record) for name, record in document["files"].items()},
                details=document["details"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise PublicationError(f"manifest: not readable: {error}") from error


def upload_folder(
    store: ObjectStore, folder: Path, prefix: str, *, adopt: bool = False, retry: RetryPolicy = RETRY
) -> dict[str, FileRecord]:
    """Put all files of a folder below a prefix, several at once, and check every one in the store.

    An object that is not what was sent is put again.

    Args:
        store: where to.
        folder: the files.
        prefix: of their keys, ending with ``/``.
        adopt: the folder is the caller's alone and its files will not be written again (``store.scratch``), so
            a local store may keep the files themselves.
        retry: of each file.

    Returns:
        What was put, by path relative to the folder.

    Raises:
        TransientSourceError: the store kept failing, or an object is not what was sent after all attempts.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    def put(name: str) -> FileRecord:
        sha256, size = retry.run(
            lambda: upload_verified(store, folder / name, f"{prefix}{name}", adopt=adopt)
        )
        return FileRecord(sha256=sha256, size=size)

    with ThreadPoolExecutor(PARALLEL, "upload") as pool:
        return dict(zip(names, pool.map(put, names), strict=True))


def verify_sizes(
    store: ObjectStore, prefix: str, files: Mapping[str, FileRecord], *, retry: RetryPolicy = RETRY
) -> None:
    """Check by one listing that all objects are there and whole.

    Raises:
        PublicationError: objects are missing or of another size.
    """
    sizes = retry.run(lambda: store.sizes(prefix))
    wrong = [name for name, record in files.items() if sizes.get(f"{prefix}{name}") != record.size]
    if wrong:
        raise PublicationError(
            f"{store.url(prefix)}: {len(wrong)} of {len(files)} objects are not there or not whole, first "
            f"{wrong[0]}: expected {files[wrong[0]].size} bytes, got {sizes.get(prefix + wrong[0])}"
        )


def verify_files(
    store: ObjectStore, prefix: str, files: Mapping[str, FileRecord], *, retry: RetryPolicy = RETRY
) -> None:
    """Read every object and compare it with what should be there.

    Raises:
        PublicationError: objects are missing or different.
        TransientSourceError: the store kept failing.
    """

    def wrong(name: str) -> str | None:
        def once() -> None:
            got = _digest(store, f"{prefix}{name}")
            if got != files[name]:
                raise TransientSourceError(f"expected {files[name]}, read {got}")

        try:
            retry.run(once)
        except (StoreError, TransientSourceError) as error:
            return f"{name}: {error}"
        return None

    with ThreadPoolExecutor(PARALLEL, "verify") as pool:
        problems = [problem for problem in pool.map(wrong, files) if problem]
    if problems:
        raise PublicationError(
            f"{store.url(prefix)}: {len(problems)} of {len(files)} objects are not what was written, "
            f"first {problems[0]}"
        )


def make_visible(
    store: ObjectStore, manifest: Manifest, *, replace: bool = False, retry: RetryPolicy = RETRY
) -> Manifest:
    """Publish verified products; returns the cycle's manifest, which is another attempt's if that was first.

    Calling it again, or from several processes at once, changes nothing more. With ``replace`` it takes the
    place of an earlier attempt, whose products stay for readers who are at it until the cycle is removed.

    Raises:
        TransientSourceError: the store kept failing; whether the cycle is visible is then not known here, but
            it is visible whole or not at all.
    """
    key = layout.cycle_manifest(manifest.cycle)
    seen_to_lose = False

    def settle(attempts: Iterator[int]) -> Manifest:
        nonlocal seen_to_lose
        first = next(attempts) == 0
        if replace:
            update(store, key, lambda _: manifest.to_json())
        else:
            created = store.create(
                key, manifest.to_json()
            )  # its answer may be lost, so what lies there decides
            seen_to_lose = first and not created
        return read_manifest(store, manifest.cycle)

    published = retry.run(partial(settle, count()))
    if seen_to_lose and published.attempt != manifest.attempt:  # so no reader was ever led to these products
        retry.run(lambda: store.delete(manifest.prefix))
    retry.run(lambda: advance_latest(store, manifest.cycle))
    return published


def read_manifest(store: ObjectStore, cycle: Cycle) -> Manifest:
    """The manifest of a published cycle.

    Raises:
        StoreError: the cycle is not published.
        TransientSourceError: what came over the network was damaged, or the store failed.
    """
    data = store.read(layout.cycle_manifest(cycle))
    try:
        return Manifest.from_json(data)
    except PublicationError as error:
        raise TransientSourceError(f"{store.url(layout.cycle_manifest(cycle))}: {error}") from error


def advance_latest(store: ObjectStore, cycle: Cycle) -> None:
    """Let ``latest.json`` point to a published cycle's products, unless it points to a later cycle."""

    def change(current: bytes | None) -> bytes | None:
        if current is not None and _pointed_at(current) > cycle.init_time:
            return None
        manifest = read_manifest(store, cycle)  # anew: it may have been replaced meanwhile
        pointer = {
            "format": FORMAT,
            "model": cycle.model,
            "init_time": cycle.identifier,
            "manifest": layout.cycle_manifest(cycle),
            "products": manifest.prefix,
            "page": f"{manifest.prefix}index.html",
        }
        return json.dumps(pointer, indent=1).encode()

    update(store, layout.latest(cycle.model), change)


def read_latest(store: ObjectStore, model: str) -> Manifest:
    """The manifest of the newest published cycle of a model.

    Raises:
        StoreError: none is published.
    """
    init_time = _pointed_at(store.read(layout.latest(model)))
    return read_manifest(store, Cycle(model=model, init_time=init_time))


def quarantine(
    store: ObjectStore,
    cycle: Cycle,
    *,
    run: str,
    attempt: str,
    reasons: list[str],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> str:
    """Record why a run's products are not published; the products stay where they are, without a manifest.

    Returns:
        Key of the record.
    """
    key = layout.quarantine(cycle, f"{run}-{attempt}.json")
    document = {
        "format": FORMAT,
        "model": cycle.model,
        "init_time": cycle.identifier,
        "run": run,
        "attempt": attempt,
        "products": layout.products_prefix(cycle, run, attempt),
        "quarantined_at": now().isoformat(timespec="seconds"),
        "reasons": reasons,
    }
    store.write(key, json.dumps(document, indent=1, ensure_ascii=False).encode())
    return key


def _digest(store: ObjectStore, key: str) -> FileRecord:
    sha256, size = store.digest(key)
    return FileRecord(sha256=sha256, size=size)


def _pointed_at(latest: bytes) -> datetime:
    """The init_time ``latest.json`` names.

    Raises:
        TransientSourceError: it came damaged; it is only ever written whole.
    """
    try:
        return parse_init_time(json.loads(latest)["init_time"])
    except (ValueError, KeyError, TypeError) as error:
        raise TransientSourceError(f"latest.json: not readable: {error}") from error
