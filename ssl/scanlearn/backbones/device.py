"""Which number format and memory layout run fast, decided by what the hardware says it can do."""

from __future__ import annotations

import copy
import platform
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch
from torch import nn

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


def training_precision(
    network: nn.Module, shape: tuple[int, ...], device: torch.device | str
) -> Precision:
    """Returns the number format in which a network trains fast on ``device``, and rightly.

    It is that of `preferred_precision`, but fp32 on a CPU where bf16 gradients would be wrong: see
    `has_unset_gradients`.

    Args:
        shape: ``(c, s, s)`` of a view, or ``(d,)`` of features.
    """
    precision = preferred_precision(device)
    if precision == "bf16" and torch.device(device).type == "cpu":
        return "fp32" if has_unset_gradients(network, shape) else "bf16"
    return precision


def has_unset_gradients(network: nn.Module, shape: tuple[int, ...]) -> bool:
    """Returns whether a CPU leaves bf16 gradients of a network's convolutions unset.

    Where a stride is larger than the input, part of a kernel meets padding alone. The gradient of
    that part is 0, but torch's CPU kernels with AMX do not write it: it is what was in memory,
    NaN or, in silence, a number. Views of 32 px and less can be that small for a last stage.

    Args:
        shape: ``(c, s, s)`` of a view, or ``(d,)`` of features.
    """
    shapes_only = copy.deepcopy(network).to("meta").eval()
    unset = False

    def compare(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal unset
        assert isinstance(layer, nn.Conv2d)
        unset |= min(inputs[0].shape[-2:]) < max(layer.stride)

    for layer in shapes_only.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(compare)
    with torch.no_grad():
        shapes_only(torch.empty(1, *shape, device="meta"))
    return unset


def preferred_device() -> torch.device:
    """Returns where a network that is not trained runs: a GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cpu_flags() -> frozenset[str]:
    """Returns the CPU's capability flags as Linux lists them; empty on another system.

    AMX is used by torch on Linux alone, so that nothing is lost elsewhere.
    """
    return frozenset(_cpu_line("flags").split())


def processor_name(device: torch.device) -> str:
    """Returns the model of the GPU; or of the CPU, with the instructions that torch uses on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = _cpu_line("model name") or platform.machine()
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}"


def _cpu_line(name: str) -> str:
    """Returns a line of Linux's list of CPUs, that of the first; empty on another system."""
    listing = Path("/proc/cpuinfo")
    if platform.system() != "Linux" or not listing.is_file():
        return ""
    for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return ""


def preferred_memory_format(backbone: Backbone) -> torch.memory_format:
    """Returns channels_last for convolutional backbones, on which it is faster on CPU and GPU."""
    return torch.channels_last if backbone.is_convolutional else torch.contiguous_format


def autocast(device: torch.device | str, precision: Precision) -> AbstractContextManager[object]:
    """Returns a context that computes in ``precision``; weights stay fp32 in either."""
    return torch.autocast(
        torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bf16"
    )
