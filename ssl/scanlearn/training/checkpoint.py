"""Checkpoints that are written whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from scanlearn.errors import ScanlearnError
from scanlearn.files import write_atomically


class AtomicCheckpoints(CheckpointIO):
    """Writes checkpoints aside, flushes and renames them; reads no code from them.

    A checkpoint is serialised in memory first: torch's own file writer reports a full disk as a
    RuntimeError without the system's reason.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ARG002
    ) -> None:
        """Replaces the checkpoint at ``path``, or leaves it as it was."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue())

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = "cpu",
        weights_only: bool | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Reads a checkpoint of plain values and tensors."""
        loaded: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint."""
        Path(path).unlink(missing_ok=True)


def checkpoint_step(path: Path) -> int:
    """Optimiser steps taken by the run when its checkpoint was written; 0 without a checkpoint.

    Raises:
        ScanlearnError: The file is no checkpoint.
    """
    if not path.is_file():
        return 0
    try:
        return int(
            torch.load(path, weights_only=True, mmap=True, map_location="cpu")["global_step"]
        )
    except Exception as error:  # torch raises errors of many unrelated classes here
        raise ScanlearnError(
            f"{path} cannot be read as a checkpoint: delete it to restart this run from its first "
            "step"
        ) from error
