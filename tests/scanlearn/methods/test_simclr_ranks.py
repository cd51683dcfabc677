"""Two processes that share a batch learn what one process learns from the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scanlearn.backbones.build import BackboneConfig, build_backbone
from scanlearn.core import Progress, Views
from scanlearn.methods import SimCLR, SimCLRConfig

SCANS = 6

# One rank: its half of the scans, gradients averaged as DistributedDataParallel does.
_RANK = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from scanlearn.backbones.build import BackboneConfig, build_backbone
from scanlearn.core import Progress, Views
from scanlearn.methods import SimCLRConfig

class Step(torch.nn.Module):
    def __init__(self, method):
        super().__init__()
        self.method = method

    def forward(self, views):
        return self.method.loss(views, Progress(0, 1, 1)).total

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt", weights_only=True)
half = slice(rank * len(given["first"]) // 2, (rank + 1) * len(given["first"]) // 2)

z0, z1 = (given[name][half].clone().requires_grad_() for name in ("z0", "z1"))
backbone = build_backbone(BackboneConfig(name="test_vit"), 1, 0, size=32)
method = SimCLRConfig(head_batch_norm=False).build(backbone, 0)
loss_alone = method.contrast(z0, z1)
loss_alone.backward()

ids = torch.arange(len(given["first"]))[half]
parallel = DistributedDataParallel(Step(method))
loss = parallel(Views((given["first"][half], given["second"][half]), (), ids))
loss.backward()
torch.save(
    {
        "loss_alone": loss_alone.detach(),
        "grad_alone": z0.grad,
        "loss": loss.detach(),
        "grads": [p.grad for p in method.parameters()],
    },
    f"{folder}/rank{rank}.pt",
)
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def given() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "z0": (SCANS, 5),
        "z1": (SCANS, 5),
        "first": (SCANS, 1, 32, 32),
        "second": (SCANS, 1, 32, 32),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def ranks(
    tmp_path_factory: pytest.TempPathFactory, given: dict[str, torch.Tensor]
) -> list[dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.save(given, folder / "given.pt")
    running = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", _RANK, str(rank), str(folder)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return [torch.load(Path(folder, f"rank{r}.pt"), weights_only=True) for r in range(2)]


def _method() -> SimCLR:
    backbone = build_backbone(BackboneConfig(name="test_vit"), 1, 0, size=32)
    return SimCLRConfig(head_batch_norm=False).build(backbone, 0)


@pytest.mark.long
def test_two_ranks_have_the_loss_of_one_on_the_joined_batch(
    given: dict[str, torch.Tensor], ranks: list[dict[str, torch.Tensor]]
) -> None:
    z0, z1 = (given[name].clone().requires_grad_() for name in ("z0", "z1"))
    joined = _method().contrast(z0, z1)
    joined.backward()
    torch.testing.assert_close(sum(r["loss_alone"] for r in ranks) / 2, joined.detach())
    # DistributedDataParallel halves each rank's gradient when it averages over the two.
    found = torch.cat([r["grad_alone"] for r in ranks]) / 2
    torch.testing.assert_close(found, z0.grad)


@pytest.mark.long
def test_two_ranks_have_the_gradients_of_one_on_the_joined_batch(
    given: dict[str, torch.Tensor], ranks: list[dict[str, torch.Tensor]]
) -> None:
    method = _method()
    views = Views((given["first"], given["second"]), (), torch.arange(SCANS))
    loss = method.loss(views, Progress(0, 1, 1)).total
    loss.backward()
    torch.testing.assert_close(sum(r["loss"] for r in ranks) / 2, loss.detach())
    for rank in ranks:
        for found, parameter in zip(rank["grads"], method.parameters(), strict=True):
            torch.testing.assert_close(found, parameter.grad, rtol=1e-4, atol=1e-6)
