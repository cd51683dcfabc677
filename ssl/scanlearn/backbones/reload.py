"""The proof of an export: timm alone, in a fresh process, returns the same features."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from scanlearn.backbones.build import Backbone
from scanlearn.core import ScanlearnError

# Threads and convolution kernels may order sums differently; other weights differ by far more.
RELATIVE_TOLERANCE = 1e-4

# Runs without scanlearn: what it checks is that a stranger's two lines work.
_STRANGER = """
import sys
import safetensors.torch
import timm
import torch
folder, probe, answer, kind = sys.argv[1:]
options = {"num_classes": 0} if kind == "backbone" else {}
model = timm.create_model("local-dir:" + folder, pretrained=True, **options).eval()
with torch.no_grad():
    features = model(safetensors.torch.load_file(probe)["views"])
safetensors.torch.save_file({"features": features.contiguous()}, answer)
"""


def check_reload(folder: Path, backbone: Backbone, size: int) -> None:
    """Loads ``folder`` with timm in a fresh process and compares features on fixed views.

    Args:
        folder: A written backbone folder.
        backbone: What it should hold.
        size: Side of the views in pixels.

    Raises:
        ScanlearnError: If timm cannot load it or its features differ.
    """
    views = torch.randn(
        (2, backbone.channels, size, size), generator=torch.Generator().manual_seed(0)
    )
    theirs = stranger_features(folder, views, classifies=backbone.num_classes > 0)
    ours = _reference_features(backbone, views)
    tolerance = RELATIVE_TOLERANCE * float(ours.abs().max())
    if theirs.shape != ours.shape or not bool((theirs - ours).abs().max() <= tolerance):
        raise ScanlearnError(
            f"timm loaded the exported '{backbone.name}' but its features differ; nothing was "
            "exported"
        )


def stranger_features(
    folder: Path, views: Float[Tensor, "b c s s"], *, classifies: bool = False
) -> Float[Tensor, "b d"]:
    """Returns what timm alone makes of ``views`` with the network in ``folder``, in a new process.

    Args:
        folder: A backbone's, or that of a network with its classifier.
        views: Standardised.
        classifies: Whether the classifier is asked; features are, where not.

    Raises:
        ScanlearnError: If timm cannot load it; the message is timm's last line.
    """
    with tempfile.TemporaryDirectory(prefix="scanlearn-reload-") as scratch:
        probe, answer = Path(scratch, "probe.safetensors"), Path(scratch, "answer.safetensors")
        safetensors.torch.save_file({"views": views}, probe)
        # -P keeps the folder one happens to stand in from replacing a module of the same name.
        kind = "classifier" if classifies else "backbone"
        words = (str(folder), str(probe), str(answer), kind)
        command = [sys.executable, "-P", "-c", _STRANGER, *words]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
        )
        if done.returncode != 0 or not answer.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ScanlearnError(
                f"{folder}: timm could not load the export in a fresh process: {last}"
            )
        features: Tensor = safetensors.torch.load_file(answer)["features"]
    return features


def _reference_features(
    backbone: Backbone, views: Float[Tensor, "b c s s"]
) -> Float[Tensor, "b d"]:
    """Features of a copy on the CPU in fp32; the backbone itself is left as it is."""
    reference = copy.deepcopy(backbone).cpu().float().eval()
    reference.to(memory_format=torch.contiguous_format)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        features: Tensor = reference(views)
    return features
