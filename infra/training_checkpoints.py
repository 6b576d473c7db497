"""Checkpoints of a training in progress, kept by Orbax: the whole state, and what it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from infra.errors import CheckpointMismatchError, StoreError

State = TypeVar("State")
_FINGERPRINT, _NOTES = "fingerprint", "notes"


class TrainingCheckpoints:
    """The checkpoints of one training in one folder; to be closed, or used in a ``with`` statement.

    Args:
        folder: where they lie; made if absent.
        fingerprint: of everything that decides a parameter of this training.
        keep: how many of the newest are kept.
    """

    def __init__(self, folder: Path, *, fingerprint: str, keep: int = 2) -> None:
        self._folder = folder.resolve()
        self._fingerprint = fingerprint
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                enable_async_checkpointing=False,
                create=True,
                single_host_load_and_broadcast=False,
            ),
            item_names=("state", "about"),
        )

    def __enter__(self) -> TrainingCheckpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is being written and release the folder."""
        self._manager.close()

    def newest(self) -> int | None:
        """Number of the update the newest checkpoint goes on with; None if there is none."""
        update = self._manager.latest_step()
        return None if update is None else int(update)

    def save(self, update: int, state: Any, *, notes: Mapping[str, Any] | None = None) -> None:
        """Keep a state whose next update is ``update``, with notes (as JSON); seen only when it is whole."""
        self._manager.save(
            update,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                about=ocp.args.JsonSave({_FINGERPRINT: self._fingerprint, _NOTES: dict(notes or {})}),
            ),
        )

    def restore(self, like: State) -> tuple[State, dict[str, Any]] | None:
        """The newest state that is whole, bit for bit as it was saved, and its notes; None if there is none.

        A damaged checkpoint is removed and the one before it taken.

        Args:
            like: a state of the same structure, shapes and types.

        Raises:
            CheckpointMismatchError: the checkpoint belongs to another training.
            StoreError: all there are are damaged.
        """
        damaged: list[str] = []
        for update in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._read(int(update), like)
            except CheckpointMismatchError:
                raise
            except Exception as error:  # Orbax and what it reads with raise all kinds for damaged files
                damaged.append(f"{update}: {type(error).__name__}")
                self._manager.delete(update)
        if damaged:
            raise StoreError(
                f"{self._folder}: expected a whole checkpoint, got only damaged ones ({'; '.join(damaged)}), "
                "which were removed; the training starts again from its beginning when it is started again"
            )
        return None

    def _read(self, update: int, like: State) -> tuple[State, dict[str, Any]]:
        about = self._manager.restore(update, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]
        if about.get(_FINGERPRINT) != self._fingerprint:
            raise CheckpointMismatchError(
                f"{self._folder}: expected checkpoints of training {self._fingerprint}, got those of "
                f"{about.get(_FINGERPRINT)}; give this training another folder"
            )
        template = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored: State = self._manager.restore(
            update, args=ocp.args.Composite(state=ocp.args.StandardRestore(template))
        )["state"]
        return restored, about[_NOTES]
