"""Embeddings per second: `scanlearn embed`'s passes beside the bare forward pass, in one run.

ResNet-50 and ViT-S on drawn colour scans of 256 x 256, views of 224 pixels, fp32, on a GPU if there
is one. The bare loop has its views on the device, standardised, and keeps nothing; ours reads an
archive, renders each whole scan, and keeps the features, with --patches those of all patches.
Runs are interleaved, and a share is the median of the repeats' shares.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import hush, interleaved, median_ratio, options, report, silence, workplace
from torch import Tensor

from scanlearn.archive.reader import Archive
from scanlearn.backbones.backbone import Backbone, BackboneConfig, build_backbone
from scanlearn.backbones.device import preferred_device, preferred_memory_format
from scanlearn.features.extract import extract, in_evaluation, whole_scans
from scanlearn.features.tokens import tokens_of
from scanlearn.packing.sources import open_archive

SIZE, MEAN, STD = 224, (0.5,) * 3, (0.25,) * 3
NETWORKS = ("resnet50", "vit_small_patch16_224")
GOALS = {f"embed_{name}_of_bare": (">=", 0.9) for name in NETWORKS}


def rate(count: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return count / (time.perf_counter() - start)


def bare(backbone: Backbone, views: Tensor, batch_size: int) -> None:
    with in_evaluation(backbone):
        for batch in views.split(batch_size):
            backbone(batch)


def with_patches(backbone: Backbone, archive: Archive, batch_size: int) -> None:
    rows, device = np.arange(len(archive)), preferred_device()
    views = whole_scans(archive, rows, SIZE, MEAN, STD, batch_size, device)
    for _ in tokens_of(backbone, views, "fp32", "mean"):
        pass


def main() -> None:
    parser = options(__doc__, quick="fewer scans and two repeats", only="one network's name")
    given = parser.parse_args()
    hush()
    device = preferred_device()
    is_gpu = device.type == "cuda"
    count, batch_size = (4096 if is_gpu else 128), (256 if is_gpu else 32)
    count = count // 4 if given.quick else count
    figures = {}
    with workplace() as folder, silence():
        source = f"phantom:patients={count},size=256x256,channels=3"
        archive = open_archive(source, cache=Path(folder))
        count = len(archive)
    for name in NETWORKS:
        if given.only not in name:
            continue
        backbone = build_backbone(BackboneConfig(name=name), 3, 0, size=SIZE).to(device)
        batches = whole_scans(archive, np.arange(count), SIZE, MEAN, STD, batch_size, device)
        layout = preferred_memory_format(backbone)
        views = torch.cat([each for _, each in batches]).contiguous(memory_format=layout)
        take = partial(
            extract, backbone, archive, size=SIZE, mean=MEAN, std=STD,
            batch_size=batch_size, visible=False,
        )  # fmt: skip
        ways = {
            "bare": partial(bare, backbone, views, batch_size),
            "embed": take,
            "patches": partial(with_patches, backbone, archive, batch_size),
        }
        bare(backbone, views[:batch_size], batch_size)
        runs = {way: partial(rate, count, work) for way, work in ways.items()}
        rates = interleaved(runs, 2 if given.quick else 5, "scans/s")
        figures |= {
            f"{way}_{name}_per_second": float(np.median(each)) for way, each in rates.items()
        }
        for way in ("embed", "patches"):
            figures[f"{way}_{name}_of_bare"] = median_ratio(rates[way], rates["bare"])
    report(figures, GOALS, given.json)


if __name__ == "__main__":
    main()
