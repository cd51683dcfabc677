"""Two processes that share a batch learn what one process learns from the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCANS = 6
METHODS = ("simclr", "mocov2", "mocov3", "dino")

# What one process computes of its part of the batch. Heads and backbone have no BatchNorm.
_SCRIPT = """
import sys
import torch
import torch.distributed as dist
from pydantic import TypeAdapter
from torch.nn.parallel import DistributedDataParallel
from scanlearn.backbones.backbone import BackboneConfig, build_backbone
from scanlearn.core import Progress, Views
from scanlearn.methods import MethodConfig, RunFacts
from scanlearn.methods.mocov3 import contrast

SETTINGS = {
    "simclr": {"head_batch_norm": False},
    "mocov2": {"queue_size": 16},
    "mocov3": {"head_batch_norm": False, "head_hidden": 32, "head_dim": 8},
    "dino": {"head_hidden": 32, "head_bottleneck": 8, "num_prototypes": 12, "local_views": 2},
}

class Step(torch.nn.Module):
    def __init__(self, method):
        super().__init__()
        self.method = method

    def forward(self, views):
        return self.method.loss(views, Progress(5, 40, 8)).total

def alone(name, method, z0, z1):
    if name == "mocov3":
        return contrast(z0, z1, 0.2)
    if name == "dino":
        return method.criterion([z1, z1.flip(1)], [z0, z0.flip(1), 2 * z0])
    return method.contrast(z0, z1)

def found(name, given, half, ranks):
    facts = RunFacts(num_scans=64, batch_size=6, ranks=ranks, total_steps=40, steps_per_epoch=8)
    config = TypeAdapter(MethodConfig).validate_python({"name": name, **SETTINGS[name]})

    def build():
        backbone = build_backbone(BackboneConfig(name="test_vit"), 1, 0, size=32)
        return config.resolved(facts, backbone)[0].build(backbone, 0)

    z0, z1 = (given[key][name][half].clone().requires_grad_() for key in ("z0", "z1"))
    method = build()
    loss_alone = alone(name, method, z0, z1)
    loss_alone.backward()

    method = build()
    step = Step(method)
    if ranks > 1:
        step = DistributedDataParallel(step)
    local = tuple(given["local"][i][half] for i in range(2)) if name == "dino" else ()
    views = Views((given["first"][half], given["second"][half]), local, torch.arange(6)[half])
    loss = step(views)
    loss.backward()
    grads = [p.grad.clone() for p in method.parameters() if p.grad is not None]
    with torch.no_grad():
        for p in method.parameters():
            if p.grad is not None:
                p.sub_(p.grad, alpha=0.1)
    method.after_step(Progress(5, 40, 8))
    state = {k: v.clone() for k, v in method.state_dict().items()}
    return {"loss_alone": loss_alone.detach(), "grad_alone": z0.grad, "loss": loss.detach(),
            "grads": grads, "state": state}

rank, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
given = torch.load(f"{folder}/given.pt", weights_only=True)
if ranks > 1:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks
    )
share = 6 // ranks
half = slice(rank * share, (rank + 1) * share)
results = {name: found(name, given, half, ranks) for name in SETTINGS}
torch.save(results, f"{folder}/{ranks}_{rank}.pt")
if ranks > 1:
    dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process finds on all scans, and each of two on its half."""
    folder = tmp_path_factory.mktemp("ranks")
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    width = {"simclr": 5, "mocov2": 128, "mocov3": 5, "dino": 12}
    given = {
        "z0": {name: normal(SCANS, d) for name, d in width.items()},
        "z1": {name: normal(SCANS, d) for name, d in width.items()},
        "first": normal(SCANS, 1, 32, 32),
        "second": normal(SCANS, 1, 32, 32),
        "local": [normal(SCANS, 1, 16, 16) for _ in range(2)],
    }
    torch.save(given, folder / "given.pt")
    running = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", _SCRIPT, str(rank), str(ranks), str(folder)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for ranks in (1, 2)
        for rank in range(ranks)
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors

    def read(name: str) -> Any:
        return torch.load(Path(folder, name), weights_only=True)

    return {"one": read("1_0.pt"), "two": [read("2_0.pt"), read("2_1.pt")]}


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_have_the_loss_of_one_on_given_embeddings(
    results: dict[str, Any], name: str
) -> None:
    joined, ranks = results["one"][name], [found[name] for found in results["two"]]
    torch.testing.assert_close(sum(r["loss_alone"] for r in ranks) / 2, joined["loss_alone"])
    # DistributedDataParallel halves each rank's gradient when it averages over the two.
    gradient = torch.cat([r["grad_alone"] for r in ranks]) / 2
    torch.testing.assert_close(gradient, joined["grad_alone"])


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_have_the_step_of_one_on_the_joined_batch(
    results: dict[str, Any], name: str
) -> None:
    joined, ranks = results["one"][name], [found[name] for found in results["two"]]
    torch.testing.assert_close(sum(r["loss"] for r in ranks) / 2, joined["loss"])
    for rank in ranks:
        assert len(rank["grads"]) == len(joined["grads"]) > 0
        for found, expected in zip(rank["grads"], joined["grads"], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        # Weights, teacher, queue and centre.
        for key, expected in joined["state"].items():
            torch.testing.assert_close(rank["state"][key], expected, rtol=1e-4, atol=1e-5)
