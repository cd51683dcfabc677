"""How far a writer of an archive had come when it last finished a shard, for one that goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scanlearn.runs import write_atomically

_FILE = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """What is on disk for good, and what the writer's caller needs to go on from there.

    Args:
        header: What the archive is made from and how; only a writer of the same goes on.
        shards: File, bytes and scans of each finished shard, as in ``archive.json``.
        list_bytes: How long each list was, by file name.
        facts: What else the writer keeps.
        state: What its caller keeps.
    """

    header: dict[str, Any]
    shards: list[dict[str, Any]]
    list_bytes: dict[str, int]
    facts: dict[str, Any]
    state: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Writes it in one step, in the place of the one before."""
        write_atomically(folder / _FILE, json.dumps(asdict(self)))

    @property
    def counts(self) -> list[int]:
        """Scans of each finished shard."""
        return [int(shard["scans"]) for shard in self.shards]


def read_checkpoint(folder: Path, header: Mapping[str, Any]) -> Checkpoint | None:
    """Returns the checkpoint in a folder; None where it is of another archive or not whole."""
    try:
        found = Checkpoint(**json.loads((folder / _FILE).read_text("utf-8")))
        sizes = {file: (folder / file).stat().st_size for file in found.list_bytes}
        sizes |= {str(one["file"]): (folder / one["file"]).stat().st_size for one in found.shards}
    except (OSError, ValueError, TypeError, KeyError):
        return None
    is_same = found.header == json.loads(json.dumps(dict(header)))
    has_shards = all(sizes[one["file"]] == one["bytes"] for one in found.shards)
    has_lists = all(sizes[file] >= size for file, size in found.list_bytes.items())
    return found if is_same and has_shards and has_lists else None


def drop_checkpoint(folder: Path) -> None:
    """Removes what no complete archive has."""
    (folder / _FILE).unlink(missing_ok=True)
