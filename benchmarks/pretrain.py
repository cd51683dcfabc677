"""How fast pretraining is, end to end, beside what it could be and beside a plain script.

    python benchmarks/pretrain.py                  about 15 minutes on two cores
    python benchmarks/pretrain.py --quick          about 3 minutes, noisier

Everything trains ResNet-18 by SimCLR on 64-px views in batches of 128, in the same precision and
memory format. Compared are

- `pretrain`: the loop of this package, from a packed archive to the optimiser step;
- the bare step: the same networks, loss and optimiser on one batch of views kept in memory;
- a plain script as lightly's documentation shows it: its dataset, SimCLRTransform, two loader
  workers, Lightning's Trainer.

Runs are interleaved and medians taken, so that a machine that slows down slows all of them.
Scans come from $SCANLEARN_DATA or --data; without either, phantoms are drawn and saved as JPEG.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import logging
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
import torchvision
from lightly.data import LightlyDataset
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import nn

from scanlearn.backbones.precision import autocast
from scanlearn.core import Progress
from scanlearn.scans.archive import Archive, ArchiveWriter
from scanlearn.scans.pack import PackSettings, pack
from scanlearn.scans.phantom import PhantomSpec, draw_phantom
from scanlearn.training.choices import training_device
from scanlearn.training.data import StepLoader
from scanlearn.training.job import Job
from scanlearn.training.optim import build_optimiser
from scanlearn.training.pretrain import train
from scanlearn.training.settings import LoggingConfig, PretrainConfig, ViewsConfig

BATCH = 128
SIZE = 64
WORKERS = 2
WARM_STEPS = 2
NUM_SCANS = 2000


class Source(NamedTuple):
    """One set of scans, as files and packed."""

    name: str
    folder: Path
    archive: Archive
    pack_s: float


def link_files(files: list[Path], folder: Path, count: int) -> Path:
    """Fills a folder with links to the files, each as often as it takes to make ``count``."""
    folder.mkdir()
    for index in range(count):
        file = files[index % len(files)]
        (folder / f"{index:05d}{file.suffix}").symlink_to(file.resolve())
    return folder


def draw_files(folder: Path, count: int, side: int, channels: int) -> list[Path]:
    """Draws phantoms and saves them as JPEG of ``side`` pixels."""
    folder.mkdir()
    spec = PhantomSpec(patients=(count + 1) // 2, height=96, width=96, channels=channels)
    files = []
    for index in range(count):
        pixels = draw_phantom(spec, index).pixels
        image = Image.fromarray(pixels[0] if channels == 1 else np.moveaxis(pixels, 0, -1))
        files.append(folder / f"{index:03d}.jpg")
        image.resize((side, side)).save(files[-1], quality=90)
    return files


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
            writer.add(pixels, scan_id=name, patient=name, valid_box=box)
        return writer.close(), seconds


def sources(data: Path | None, work: Path, count: int) -> tuple[Source, Source]:
    """X-rays of 224 px on one channel, and fundus originals of about 1,900 px in colour."""
    if data is not None:
        small = sorted((data / "kermany_cxr" / "images").glob("*.jp*g"))[:count]
        large = sorted((data / "hygd" / "originals").glob("*.jp*g"))
    else:
        small = draw_files(work / "small", 200, 224, channels=1)
        large = draw_files(work / "large", 12, 1900, channels=3)
    made = []
    for name, files, channels in (("224-px JPEGs", small, 1), ("originals", large, 3)):
        folder = work / name.split()[0]
        folder.mkdir()
        archive, seconds = pack_repeated(files, folder, channels, count)
        made.append(Source(name, link_files(files, folder / "files", count), archive, seconds))
    return made[0], made[1]


def pretrain_config(source: Source, work: Path, steps: int) -> PretrainConfig:
    return PretrainConfig(
        archive=str(source.archive.path),
        output=tempfile.mkdtemp(dir=work),
        batch_size=BATCH,
        steps=steps,
        views=ViewsConfig(size=SIZE, scale=1.0),
        logging=LoggingConfig(every_steps=1),
        progress=False,
    )


def pretrain_rate(source: Source, work: Path, steps: int) -> tuple[float, float]:
    """Views/s of this package's loop, and the share of its time spent waiting for data."""
    config = pretrain_config(source, work, WARM_STEPS + steps)
    job = Job.of(config, source.archive)
    with contextlib.redirect_stdout(io.StringIO()):
        train(job)
    with job.run.metrics.open() as file:
        rows = list(csv.DictReader(file))[WARM_STEPS:]
    shutil.rmtree(job.run.path)
    seconds = sum(2 * BATCH / float(row["views_per_s"]) for row in rows)
    wait = statistics.fmean(float(row["data_wait_share"]) for row in rows)
    return 2 * BATCH * len(rows) / seconds, wait


def bare_rate(source: Source, work: Path, steps: int) -> float:
    """Views/s of the training step alone, on one batch of views that stays in memory."""
    config = pretrain_config(source, work, WARM_STEPS + steps)
    job = Job.of(config, source.archive)
    device = training_device(config.device)
    layout = job.choices.memory_format
    method = job.method.to(device, memory_format=layout).train()
    optimiser = build_optimiser(method, config.method, learning_rate=job.choices.schedule.peak)
    loader = StepLoader(source.archive, batch_size=BATCH, seed=0, first=0, stop=1)
    batch = next(iter(loader))
    views = job.generator(batch.scans.to(device), batch.key)
    fixed = type(views)(
        tuple(view.contiguous(memory_format=layout) for view in views.global_views), (), views.ids
    )

    def step(number: int) -> None:
        optimiser.zero_grad()
        with autocast(device, job.choices.precision):
            loss = method.loss(fixed, Progress(number, WARM_STEPS + steps, steps)).total
        loss.backward()
        optimiser.step()
        float(loss)

    shutil.rmtree(job.run.path)
    for number in range(WARM_STEPS):
        step(number)
    start = time.perf_counter()
    for number in range(steps):
        step(WARM_STEPS + number)
    return 2 * BATCH * steps / (time.perf_counter() - start)


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


def plain_rate(source: Source, precision: str, steps: int) -> float:
    """Views/s of the plain script."""
    channels = source.archive.shape[0]
    normalise = {"mean": [0.5] * channels, "std": [0.25] * channels}
    dataset = LightlyDataset(
        str(source.folder), transform=SimCLRTransform(input_size=SIZE, normalize=normalise)
    )
    if channels == 1:
        dataset.dataset.loader = lambda path: Image.open(path).convert("L")
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=BATCH,
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
    return 2 * BATCH * steps / seconds


def measure(small: Source, large: Source, work: Path, repeats: int, steps: int) -> dict[str, float]:
    """Medians over interleaved repeats, in views/s."""
    with contextlib.redirect_stderr(io.StringIO()):
        job = Job.of(pretrain_config(small, work, 1), small.archive)
    precision = job.choices.precision
    print(f"precision {precision}, {torch.get_num_threads()} threads, {repeats} x {steps} steps")
    waits: list[float] = []

    def ours(source: Source) -> float:
        rate, wait = pretrain_rate(source, work, steps)
        waits.append(wait)
        return rate

    variants: dict[str, Callable[[], float]] = {
        "simclr_64": lambda: ours(small),
        "bare_64": lambda: bare_rate(small, work, steps),
        "plain_64": lambda: plain_rate(small, precision, steps),
        "simclr_64_originals": lambda: ours(large),
        "plain_64_originals": lambda: plain_rate(large, precision, steps),
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(repeats):
        for name, rate in variants.items():
            rates[name].append(rate())
            print(f"  repeat {repeat + 1}  {name:22s} {rates[name][-1]:8.1f} views/s", flush=True)
    figures = {f"{name}_views_per_s": statistics.median(all_) for name, all_ in rates.items()}
    figures["data_wait_share"] = statistics.median(waits)

    def ratio(a: str, b: str) -> float:
        # Of the same repeat: what slows the machine for a while slows both.
        return statistics.median(x / y for x, y in zip(rates[a], rates[b], strict=True))

    figures["simclr_64_vs_bare"] = ratio("simclr_64", "bare_64")
    figures["simclr_64_vs_plain_lightly"] = ratio("simclr_64", "plain_64")
    figures["simclr_64_originals_vs_plain_lightly"] = ratio(
        "simclr_64_originals", "plain_64_originals"
    )
    return figures


GOALS = {
    "simclr_64_vs_bare": 0.90,
    "simclr_64_vs_plain_lightly": 1.05,
    "simclr_64_originals_vs_plain_lightly": 2.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repeats")
    parser.add_argument("--data", type=Path, default=os.environ.get("SCANLEARN_DATA"))
    parser.add_argument("--json", type=Path, help="write the figures as one flat object")
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    repeats, steps = (2, 4) if arguments.quick else (5, 10)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = None if arguments.data is None else Path(arguments.data)
        small, large = sources(data, work, NUM_SCANS)
        figures = measure(small, large, work, repeats, steps)
        for source in (small, large):
            key = f"pack_{'originals' if source is large else '64'}_s"
            figures[key] = source.pack_s
    print(f"\n{'figure':40s} {'value':>9s}  goal")
    for name, value in figures.items():
        goal = f">= {GOALS[name]:.2f}" if name in GOALS else ""
        print(f"{name:40s} {value:9.3f}  {goal}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
