"""Which number format and memory layout run fast, decided by what the hardware says it can do."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch

from scanlearn.backbones.backbone import Backbone

Precision = Literal["fp32", "bf16"]


def preferred_precision(device: torch.device | str) -> Precision:
    """Returns the number format in which ``device`` trains fast.

    bf16 on NVIDIA GPUs of compute capability 8 and above and on CPUs with AMX bf16 tiles; fp32
    everywhere else. A CPU without AMX emulates bf16 and is several times slower with it than with
    fp32, whatever torch lets one ask for.
    """
    kind = torch.device(device)
    if kind.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(kind)[0] >= 8 else "fp32"
    if kind.type == "cpu":
        return "bf16" if "amx_bf16" in cpu_flags() else "fp32"
    return "fp32"


def preferred_device() -> torch.device:
    """Returns where a network that is not trained runs: a GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cpu_flags() -> frozenset[str]:
    """Returns the CPU's capability flags as Linux lists them; empty on another system.

    AMX is used by torch on Linux alone, so that nothing is lost elsewhere.
    """
    listing = Path("/proc/cpuinfo")
    if platform.system() != "Linux" or not listing.is_file():
        return frozenset()
    for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def preferred_memory_format(backbone: Backbone) -> torch.memory_format:
    """Returns channels_last for convolutional backbones, on which it is faster on CPU and GPU."""
    return torch.channels_last if backbone.is_convolutional else torch.contiguous_format


def autocast(device: torch.device | str, precision: Precision) -> AbstractContextManager[object]:
    """Returns a context that computes in ``precision``; weights stay fp32 in either."""
    return torch.autocast(
        torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bf16"
    )
