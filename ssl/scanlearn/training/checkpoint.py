"""Checkpoints that are written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from scanlearn.errors import ScanlearnError
from scanlearn.files import write_atomically


class AtomicCheckpoints(CheckpointIO):
    """Writes checkpoints aside, flushes and renames them; reads no code from them.

    A checkpoint is serialised in memory first: torch's own file writer reports a full disk as a
    RuntimeError without the system's reason. The comment of the zip file that torch makes holds
    the sha256 of all before it: a flipped bit was resumed as another weight.
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
        comment = _COMMENT + hashlib.sha256(buffer.getbuffer()).hexdigest().encode()
        buffer.seek(-len(_NO_COMMENT), io.SEEK_END)
        buffer.write(len(comment).to_bytes(2, "little") + comment)
        write_atomically(Path(path), buffer.getvalue())

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = "cpu",
        weights_only: bool | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Reads a checkpoint of plain values and tensors.

        Raises:
            ScanlearnError: The file is no checkpoint, or was changed after it was written.
        """
        return _read(Path(path), map_location=map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint."""
        Path(path).unlink(missing_ok=True)


def checkpoint_step(path: Path) -> int:
    """Optimiser steps taken by the run when its checkpoint was written; 0 without a checkpoint.

    Raises:
        ScanlearnError: The file is no checkpoint, or was changed after it was written.
    """
    if not path.is_file():
        return 0
    step = _read(path, map_location="cpu", mmap=True).get("global_step")
    if type(step) is not int or step < 0:
        raise ScanlearnError(f"{path} cannot be read as a checkpoint (no global_step): {_REMEDY}")
    return step


def method_weights(path: Path) -> dict[str, torch.Tensor]:
    """Returns the weights of the whole method that a checkpoint holds, by their names in it.

    Raises:
        ScanlearnError: The file is no checkpoint, or was changed after it was written.
    """
    weights = _read(path, map_location="cpu").get("state_dict")
    if not isinstance(weights, dict):
        raise ScanlearnError(f"{path} cannot be read as a checkpoint (no weights): {_REMEDY}")
    return {name.removeprefix("method."): value for name, value in weights.items()}


def has_digest(path: Path) -> bool:
    """Returns whether a checkpoint has a digest of its content; earlier releases wrote none."""
    with zipfile.ZipFile(path) as file:
        return file.comment.startswith(_COMMENT)


def check_content(path: Path) -> None:
    """Compares a checkpoint with its digest, or its parts with their check sums if it has none.

    Raises:
        ScanlearnError: The file is no checkpoint, or was changed after it was written.
    """
    status = path.stat()
    _check_content(path, status.st_size, status.st_mtime_ns)


def _read(path: Path, **options: Any) -> dict[str, Any]:
    try:
        check_content(path)
        loaded = torch.load(path, weights_only=True, **options)
    except ScanlearnError:
        raise
    except Exception as error:  # torch raises errors of many unrelated classes here
        raise ScanlearnError(f"{path} cannot be read as a checkpoint: {_REMEDY}") from error
    if not isinstance(loaded, dict):
        raise ScanlearnError(f"{path} cannot be read as a checkpoint: {_REMEDY}")
    return loaded


# A start asks for the step several times; a checkpoint of gigabytes is read through once.
@lru_cache(maxsize=1)
def _check_content(path: Path, num_bytes: int, _changed_ns: int) -> None:
    with zipfile.ZipFile(path) as file:
        comment = file.comment
        is_changed = not comment.startswith(_COMMENT) and file.testzip() is not None
    if comment.startswith(_COMMENT):
        digest, rest = hashlib.sha256(), num_bytes - len(_NO_COMMENT) - len(comment)
        with path.open("rb") as stream:
            while rest > 0 and (chunk := stream.read(min(rest, _CHUNK_BYTES))):
                digest.update(chunk)
                rest -= len(chunk)
        digest.update(_NO_COMMENT)
        is_changed = _COMMENT + digest.hexdigest().encode() != comment
    if is_changed:
        raise ScanlearnError(f"{path} was changed after it was written: {_REMEDY}")


_COMMENT = b"sha256 "
# The last two bytes of a zip file: the length of its comment.
_NO_COMMENT = b"\0\0"
_CHUNK_BYTES = 2**24
_REMEDY = "restore it from a copy, or delete it to restart this run from its first step"
