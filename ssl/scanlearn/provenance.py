"""What the results of a run depend on: versions, commit, machine and seeds."""

from __future__ import annotations

import hashlib
import platform
import random
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np

_PACKAGES = (
    *("scanlearn", "torch", "torchvision", "timm", "lightly", "pytorch-lightning"),
    *("numpy", "pillow", "pyarrow"),
)


def seed_step(seed: int, step: int) -> None:
    """Seeds Python's, NumPy's and torch's global generators for one training step.

    DropPath and dropout draw from the global generator, whose state no checkpoint holds. Seeded
    from (seed, step), a resumed run draws what an uninterrupted one would have drawn.

    Args:
        step: Optimiser steps already taken; -1 for what comes before the first.
    """
    import torch  # It takes seconds, and packing needs none of it.

    digest = hashlib.sha256(f"scanlearn {seed} {step}".encode()).digest()
    random.seed(digest)
    np.random.seed(np.frombuffer(digest[:16], dtype=np.uint32))  # noqa: NPY002
    torch.manual_seed(int.from_bytes(digest[16:24], "little") >> 1)


def provenance() -> dict[str, object]:
    """What the results depend on besides the configuration: versions, commit, kind of machine.

    Host name, user and paths are left out, so that a run folder can be handed on.
    """
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in _PACKAGES},
        "commit": _commit(),
        "platform": {
            "system": platform.system(),
            "machine": platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "gpu": gpu,
        },
    }


def _commit() -> str | None:
    """The commit of the source tree scanlearn runs from; None for an installed package."""
    source = Path(__file__).parent
    if not any((parent / ".git").exists() for parent in source.parents):
        return None
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
