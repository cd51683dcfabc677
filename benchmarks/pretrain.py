"""How fast pretraining is, end to end, beside what it could be and beside other ways.

    python benchmarks/pretrain.py                  five repeats of ten steps
    python benchmarks/pretrain.py --quick          two repeats of four, noisier
    python benchmarks/pretrain.py --only dino      the variants whose names hold a word
    python benchmarks/pretrain.py --lightly-train PYTHON
                                                   beside lightly-train, installed for PYTHON

Everything trains ResNet-18 in the same precision and memory format, SimCLR in batches of 128 at 64
px and of 32 at 224 px, DINO (2 + 8 views) in batches of 32. Compared are

- the loop of this package, from a packed archive to the optimiser step;
- the bare step: the same networks, loss and optimiser on one batch of views kept in memory;
- a plain script as lightly's documentation shows it: its dataset, SimCLRTransform, two loader
  workers, Lightning's Trainer;
- lightly-train's `pretrain`, in a process of its own, as it trains: on three channels.

Runs are interleaved and medians taken, so that a machine that slows down slows all of them.
Each variant's peak memory is that of a process of its own that does nothing else.
Scans come from $SCANLEARN_DATA or --data; without either, phantoms are drawn and saved as JPEG.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
import torchvision
from common import (
    draw_files,
    hush,
    interleaved,
    link_files,
    median_ratio,
    options,
    real_files,
    report,
    silence,
    workplace,
)
from lightly.data import LightlyDataset
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import nn

from scanlearn.archive.layout import Origin, PackedScan
from scanlearn.archive.reader import Archive
from scanlearn.archive.writer import ArchiveWriter
from scanlearn.backbones.device import autocast, preferred_precision
from scanlearn.core import Progress
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.training.batches import StepLoader
from scanlearn.training.optim import build_optimiser
from scanlearn.training.resolved import training_device
from scanlearn.training.run import Run
from scanlearn.training.settings import PretrainConfig
from scanlearn.training.trainer import train

WORKERS = 2
WARM_STEPS = 2
NUM_SCANS = 2000


class Task(NamedTuple):
    """What is trained."""

    method: str
    size: int
    batch: int

    @property
    def views(self) -> int:
        """Views of a batch."""
        return self.batch * (10 if self.method == "dino" else 2)


SIMCLR_64 = Task("simclr", 64, 128)
SIMCLR_224 = Task("simclr", 224, 32)
DINO_64 = Task("dino", 64, 32)


class Source(NamedTuple):
    """One set of scans, as files and packed."""

    name: str
    folder: Path
    archive: Archive
    pack_s: float


def pack_repeated(
    files: list[Path], work: Path, channels: int, count: int
) -> tuple[Archive, float]:
    """Packs the files, then writes their packed scans again until there are ``count``.

    Returns:
        The archive, and the seconds it takes to pack ``count`` such files.
    """
    start = time.perf_counter()
    settings = PackSettings(channels=channels)  # type: ignore[arg-type]
    once = pack(
        link_files(files, work / "once", len(files)), work / "packed_once", settings=settings
    )
    seconds = (time.perf_counter() - start) / len(once) * count
    if len(once) >= count:
        return once, seconds
    with ArchiveWriter(work / "packed", shape=once.shape, dtype=once.dtype) as writer:
        for index in range(count):
            batch = once.gather(np.array([index % len(once)]))
            top, left, bottom, right = batch.valid_box[0].tolist()
            name = f"{index:05d}"
            pixels = batch.pixels[0].numpy()
            box = (top, left, bottom, right)
            writer.add(PackedScan(pixels, valid_box=box), Origin(name, name))
        return writer.close(), seconds


def sources(data: Path | None, work: Path, count: int) -> dict[str, Source]:
    """X-rays of 224 px on one channel and on three, and fundus originals of about 1,900 px."""
    if data is not None:
        small = real_files(data, "kermany_cxr/images")[:count]
        large = real_files(data, "hygd/originals")
    else:
        small = draw_files(work / "drawn", 200, 224, channels=1)
        large = draw_files(work / "drawn_large", 12, 1900, channels=3)
    made = {}
    for name, files, channels in (("gray", small, 1), ("rgb", small, 3), ("originals", large, 3)):
        folder = work / name
        folder.mkdir()
        archive, seconds = pack_repeated(files, folder, channels, count)
        made[name] = Source(name, link_files(files, folder / "files", count), archive, seconds)
    return made


def pretrain_config(task: Task, source: Source, work: Path, steps: int) -> PretrainConfig:
    return PretrainConfig.model_validate(
        {
            "archive": str(source.archive.path),
            "output": tempfile.mkdtemp(dir=work),
            "method": {"name": task.method},
            "batch_size": task.batch,
            "steps": steps,
            "views": {"size": task.size, "scale": 1.0},
            "logging": {"every_steps": 1},
            "progress": False,
        }
    )


def pretrain_rate(task: Task, source: Source, work: Path, steps: int) -> tuple[float, float]:
    """Views/s of this package's loop, and the share of its time spent waiting for data."""
    config = pretrain_config(task, source, work, WARM_STEPS + steps)
    run = Run.of(config, source.archive)
    with silence():
        train(run)
    with run.folder.metrics.open() as file:
        rows = list(csv.DictReader(file))[WARM_STEPS:]
    shutil.rmtree(run.folder.path)
    seconds = sum(task.views / float(row["views_per_s"]) for row in rows)
    wait = statistics.fmean(float(row["data_wait_share"]) for row in rows)
    return task.views * len(rows) / seconds, wait


def bare_rate(task: Task, source: Source, work: Path, steps: int) -> float:
    """Views/s of the training step alone, on one batch of views that stays in memory."""
    config = pretrain_config(task, source, work, WARM_STEPS + steps)
    run = Run.of(config, source.archive)
    device = training_device(config.device)
    layout = run.resolved.memory_format
    method = run.method.to(device, memory_format=layout).train()
    optimiser = build_optimiser(method, run.resolved.method)
    loader = StepLoader(source.archive, batch_size=task.batch, seed=0, first=0, stop=1)
    batch = next(iter(loader))
    views = run.generator(batch.scans.to(device), batch.key)
    fixed = type(views)(
        tuple(view.contiguous(memory_format=layout) for view in views.global_views),
        tuple(view.contiguous(memory_format=layout) for view in views.local_views),
        views.ids,
    )

    def step(number: int) -> None:
        at = Progress(number, WARM_STEPS + steps, steps)
        optimiser.zero_grad()
        with autocast(device, run.resolved.precision):
            loss = method.loss(fixed, at).total
        loss.backward()
        method.after_backward(at)
        optimiser.step()
        method.after_step(at)
        float(loss.detach())

    shutil.rmtree(run.folder.path)
    for number in range(WARM_STEPS):
        step(number)
    start = time.perf_counter()
    for number in range(steps):
        step(WARM_STEPS + number)
    return task.views * steps / (time.perf_counter() - start)


class PlainSimCLR(pl.LightningModule):
    """SimCLR as in lightly's documentation, on torchvision's ResNet-18."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        network = torchvision.models.resnet18()
        if channels == 1:
            network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        self.backbone = nn.Sequential(*list(network.children())[:-1])
        self.projection_head = SimCLRProjectionHead(512, 512, 128)
        self.criterion = NTXentLoss()
        self.finished: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.projection_head(self.backbone(x).flatten(start_dim=1))
        return z

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:  # noqa: ARG002
        x0, x1 = (view.contiguous(memory_format=torch.channels_last) for view in batch[0])
        loss: torch.Tensor = self.criterion(self(x0), self(x1))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.finished.append(time.perf_counter())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.06)


def open_gray(path: str) -> Image.Image:
    """Of a module, so that loader workers that are started afresh can be told of it."""
    return Image.open(path).convert("L")


def plain_rate(task: Task, source: Source, precision: str, steps: int) -> float:
    """Views/s of the plain script."""
    channels = source.archive.shape[0]
    normalise = {"mean": [0.5] * channels, "std": [0.25] * channels}
    dataset = LightlyDataset(
        str(source.folder), transform=SimCLRTransform(input_size=task.size, normalize=normalise)
    )
    if channels == 1:
        dataset.dataset.loader = open_gray
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=task.batch,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=True,
    )
    module = PlainSimCLR(channels).to(memory_format=torch.channels_last)
    trainer = pl.Trainer(
        max_steps=WARM_STEPS + steps,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        accelerator="auto" if torch.cuda.is_available() else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader)
    seconds = module.finished[-1] - module.finished[WARM_STEPS - 1]
    return task.views * steps / seconds


# Run by the interpreter that has lightly-train; prints the seconds of each step.
LIGHTLY_TRAIN = """
import json, sys, time
import pytorch_lightning as pl
from lightly_train import pretrain

given = json.loads(sys.argv[1])
ends = []

class Clock(pl.Callback):
    def on_train_batch_end(self, *_):
        ends.append(time.perf_counter())

fit = pl.Trainer.fit
def timed(trainer, *a, **k):
    trainer.callbacks.append(Clock())
    return fit(trainer, *a, **k)
pl.Trainer.fit = timed
pretrain(**given)
print("ENDS", json.dumps(ends))
"""


def lightly_train_rate(
    task: Task, source: Source, python: str, work: Path, precision: str, steps: int
) -> float:
    """Views/s of lightly-train's SimCLR."""
    given = {
        "out": tempfile.mkdtemp(dir=work),
        "overwrite": True,
        "data": str(source.folder),
        "model": "torchvision/resnet18",
        "method": task.method,
        "batch_size": task.batch,
        "epochs": 1,
        "num_workers": WORKERS,
        "devices": 1,
        "accelerator": "auto" if torch.cuda.is_available() else "cpu",
        "precision": "bf16-mixed" if precision == "bf16" else "32-true",
        "trainer_args": {"max_steps": WARM_STEPS + steps},
        "transform_args": {"image_size": [task.size, task.size]},
    }
    quiet = {"LIGHTLY_TRAIN_EVENTS_DISABLED": "1", "LIGHTLY_TRAIN_POSTHOG_KEY": ""}
    done = subprocess.run(
        [python, "-c", LIGHTLY_TRAIN, json.dumps(given)],
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"lightly-train failed:\n{done.stderr[-2000:]}")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("ENDS "))
    ends = json.loads(line[5:])
    return task.views * (len(ends) - WARM_STEPS) / (ends[-1] - ends[WARM_STEPS - 1])


class Variant(NamedTuple):
    """One way of training something."""

    way: str
    task: Task
    source: str

    @property
    def name(self) -> str:
        """As it stands in the figures."""
        kind = {"gray": "", "rgb": "_rgb", "originals": "_originals"}[self.source]
        return f"{self.task.method}_{self.task.size}{kind}_{self.way}"

    def rate(self, made: dict[str, Source], arguments: argparse.Namespace, steps: int) -> float:
        """Views/s."""
        source, work = made[self.source], arguments.work
        if self.way == "ours":
            return pretrain_rate(self.task, source, work, steps)[0]
        if self.way == "bare":
            return bare_rate(self.task, source, work, steps)
        if self.way == "plain":
            return plain_rate(self.task, source, arguments.precision, steps)
        python = arguments.lightly_train
        return lightly_train_rate(self.task, source, python, work, arguments.precision, steps)


VARIANTS = (
    Variant("ours", SIMCLR_64, "gray"),
    Variant("bare", SIMCLR_64, "gray"),
    Variant("plain", SIMCLR_64, "gray"),
    Variant("ours", SIMCLR_224, "gray"),
    Variant("bare", SIMCLR_224, "gray"),
    Variant("ours", SIMCLR_64, "rgb"),
    Variant("bare", SIMCLR_64, "rgb"),
    Variant("lightly_train", SIMCLR_64, "rgb"),
    Variant("ours", DINO_64, "gray"),
    Variant("bare", DINO_64, "gray"),
    Variant("ours", SIMCLR_64, "originals"),
    Variant("plain", SIMCLR_64, "originals"),
)
# Figure: one variant over another, and the goal.
RATIOS = {
    "simclr_64_vs_bare": ("simclr_64_ours", "simclr_64_bare", 0.95),
    "simclr_224_vs_bare": ("simclr_224_ours", "simclr_224_bare", 0.95),
    "simclr_64_rgb_vs_bare": ("simclr_64_rgb_ours", "simclr_64_rgb_bare", 0.92),
    "dino_64_vs_bare": ("dino_64_ours", "dino_64_bare", 0.95),
    "simclr_64_vs_lightly_train": ("simclr_64_rgb_ours", "simclr_64_rgb_lightly_train", 1.0),
    "simclr_64_vs_plain_lightly": ("simclr_64_ours", "simclr_64_plain", 1.05),
    "simclr_64_originals_vs_plain_lightly": (
        "simclr_64_originals_ours",
        "simclr_64_originals_plain",
        2.0,
    ),
}


def train_and_weigh(variant: Variant, source: Source, arguments: argparse.Namespace) -> None:
    """Trains three steps and writes down the most memory it took, in KB."""
    hush()
    variant.rate({variant.source: source}, arguments, 1)
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = sum(resource.getrusage(kind).ru_maxrss for kind in kinds)
    (arguments.work / "peak").write_text(str(peak))


def peak_memory(variant: Variant, made: dict[str, Source], arguments: argparse.Namespace) -> float:
    """Most memory, in MB, of a process that trains three steps and of its largest child."""
    process = multiprocessing.get_context("spawn").Process(
        target=train_and_weigh, args=(variant, made[variant.source], arguments)
    )
    process.start()
    process.join()
    assert process.exitcode == 0, variant.name
    return int((arguments.work / "peak").read_text()) / 1024


def measure(made: dict[str, Source], arguments: argparse.Namespace) -> dict[str, float]:
    """Medians over interleaved repeats, in views/s, their ratios and peak memory."""
    repeats, steps = (2, 4) if arguments.quick else (5, 10)
    variants = [
        variant
        for variant in VARIANTS
        if arguments.only in variant.name
        and (variant.way != "lightly_train" or arguments.lightly_train)
    ]
    threads = torch.get_num_threads()
    print(f"precision {arguments.precision}, {threads} threads, {repeats} x {steps} steps")
    figures = {
        f"{variant.name}_peak_mb": peak_memory(variant, made, arguments)
        for variant in variants
        if arguments.memory
    }
    ways = {variant.name: partial(variant.rate, made, arguments, steps) for variant in variants}
    rates = interleaved(ways, repeats, "views/s")
    figures |= {f"{name}_views_per_s": statistics.median(each) for name, each in rates.items()}
    for figure, (first, second, _) in RATIOS.items():
        if first in rates and second in rates:
            figures[figure] = median_ratio(rates[first], rates[second])
    return figures


def main() -> None:
    parser = options(
        __doc__,
        quick="fewer and shorter repeats",
        only="variants whose names contain this word",
        data=True,
    )
    parser.add_argument("--memory", action="store_true", help="peak memory of each variant too")
    parser.add_argument("--lightly-train", help="an interpreter that has lightly-train")
    arguments = parser.parse_args()
    hush()
    arguments.precision = preferred_precision(training_device("auto"))
    with workplace() as arguments.work:
        made = sources(arguments.data, arguments.work, NUM_SCANS)
        figures = measure(made, arguments)
        figures |= {f"pack_{name}_s": source.pack_s for name, source in made.items()}
    goals = {name: (">=", goal) for name, (_, _, goal) in RATIOS.items()}
    report(figures, goals, arguments.json)


if __name__ == "__main__":
    main()
