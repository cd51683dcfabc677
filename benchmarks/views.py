"""Views per second: this package's views beside those of other libraries, in one run.

SimCLR at s = 1 on colour scans of 256 x 256 in memory, 256 -> 224 and 256 -> 64, one thread, from
uint8 to standardised float tensors. Everyone crops .08 to 1 of the area, flips, jitters with .8 .8
.8 .2 at p .8, drops colour at p .2 and blurs at p .5 with sigma .1 to 2; the kernel is a tenth of
the view where it can be chosen. All else is each library's default.

* ours: `ViewGenerator` on batches of 32 at 224 px and of 64 at 64 px, as pretraining calls it.
* ours_single (figures `single_...`): `ViewTransform` on one PIL image at a time.
* lightly: its `SimCLRTransform` on PIL images.
* torchvision_pil, torchvision_tensor: transforms v2 on PIL images and on uint8 tensors.
* kornia: its `AugmentationSequential` on batches of 64.
* albumentations: on arrays; its default resize does not antialias.

dino_vs_lightly: `ViewTransform` makes DINO's ten views (2 of 224 px, 8 of 96) of one PIL image,
beside lightly's DINOTransform with the same crops. loader_vs_lightly: one DataLoader with two
workers that feeds nothing, two views of 224 px of JPEG files of 256 px, drawn on the spot; beside
lightly and albumentations. first_view_seconds: the first view in a fresh process whose imports are
done, from compiled code in the cache; compile_seconds: the same with an empty cache.

Runs are interleaved and a ratio is the median of the repeats' ratios, so that a machine that slows
down slows all of them. kornia and albumentations are left out where they are not installed. With
a CUDA device, or with --gpu, rates on it follow: SimCLR and DINO's multi-crop at 224 px, kornia,
and the share of a training step that the views take.
acquisition_64_per_second is the slowest modality's rate of views in which the device alone acts, at
s = 1: gray scans of 64 x 64 to 64-px views. policy_64_vs_recipe is the slowest modality's rate at
s = .5, gray scans of 128 x 128 to 64-px views, as a share of that of the recipe alone, which bends
and turns nothing. --acquisition measures these two and nothing else.
Scans come from $SCANLEARN_DATA or --data; without either, phantoms are drawn.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import draw, hush, interleaved, median_ratio, options, real_files, report
from lightly.transforms import DINOTransform, SimCLRTransform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from scanlearn.backbones.backbone import BackboneConfig, build_backbone
from scanlearn.core import ScanBatch, ViewPlan
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.modality import POLICIES
from scanlearn.views.recipes import find_recipe
from scanlearn.views.scale import Scale
from scanlearn.views.transform import ViewTransform
from scanlearn.views.uniforms import DrawKey

SIDE = 256
BATCH = 64
SIZES = (224, 64)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JITTER = (0.8, 0.8, 0.8, 0.2)
SIGMA = (0.1, 2.0)
# Views of a larger batch pass 32 MiB, from where on the C library hands memory back after each
# batch and every page of the next is faulted in anew: at 224 px batches of 64 are a sixth slower.
OUR_BATCH = {224: 32, 64: 64}
GPU_BATCH = 256
RIVALS = ("lightly", "kornia", "albumentations")
TWO_VIEWS = ViewPlan(2)

# One call, and the views that it makes.
Variant = tuple[Callable[[], object], int]
GOALS = {
    "single_224_vs_lightly": (">=", 4.0),
    "single_64_vs_lightly": (">=", 4.0),
    "single_224_vs_albumentations": (">=", 1.3),
    "single_64_vs_albumentations": (">=", 1.3),
    "views_224_vs_lightly": (">=", 3.0),
    "views_64_vs_lightly": (">=", 3.0),
    "views_224_vs_torchvision": (">=", 5.0),
    "views_224_vs_kornia": (">=", 5.0),
    "views_224_vs_albumentations": (">=", 1.5),
    "views_64_vs_albumentations": (">=", 1.5),
    "dino_vs_lightly": (">=", 4.0),
    "loader_vs_lightly": (">=", 2.0),
    "first_view_seconds": ("<=", 1.0),
    "acquisition_64_per_second": (">=", 4000.0),
    "policy_64_vs_recipe": (">=", 0.03),
    "gpu_share_of_resnet50_step": ("<=", 0.05),
    "gpu_share_of_vit_small_step": ("<=", 0.05),
}


def scans(data: Path | None) -> np.ndarray[Any, Any]:
    """Colour scans ``[n h w c]`` of 256 x 256."""
    if data is None:
        images = list(draw(BATCH, SIDE, channels=3))
    else:
        files = real_files(data, "hygd/images")[:BATCH]
        images = [Image.open(file).convert("RGB") for file in files]
    return np.stack([np.asarray(image.resize((SIDE, SIDE))) for image in images])


def batch_of(pixels: np.ndarray[Any, Any], count: int = BATCH) -> ScanBatch:
    """The scans as an archive would hand them out, over and over until there are ``count``."""
    chosen = np.ascontiguousarray(np.moveaxis(pixels, -1, 1)[np.arange(count) % len(pixels)])
    return ScanBatch(
        pixels=torch.from_numpy(chosen),
        valid_box=torch.tensor([[0, 0, SIDE, SIDE]] * count),
        mask=None,
        spacing_mm=torch.full((count, 2), torch.nan),
        value_range=torch.tensor([[0.0, 255.0]] * count),
        ids=torch.arange(count),
    )


def kernel_of(size: int) -> int:
    """Width of SimCLR's blur: a tenth of the view, odd."""
    return 2 * (size // 20) + 1


def generating(
    batch: ScanBatch,
    size: int,
    recipe: str = "simclr",
    plan: ViewPlan = TWO_VIEWS,
) -> Variant:
    """This package, a batch at a time."""
    generator = ViewGenerator(recipe, Scale.STRONG, plan, size, MEAN, STD)
    positions = np.arange(len(batch))
    step = iter(range(2**62))
    return (
        lambda: generator(batch, DrawKey(0, next(step), positions)),
        generator.num_views * len(batch),
    )


def one_by_one(transform: Callable[[Any], object], items: list[Any], views: int) -> Variant:
    """A transform of one image, over all images."""

    def run() -> None:
        for item in items:
            transform(item)

    return run, views * len(items)


def torchvision_transform(size: int) -> v2.Transform:
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.08, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(*JITTER)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(kernel_of(size), SIGMA)], p=0.5),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def kornia_variant(pixels: Tensor, size: int) -> Variant:
    import kornia.augmentation as K

    kernel = (kernel_of(size),) * 2
    chain = K.AugmentationSequential(
        K.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(p=0.5),
        K.ColorJitter(*JITTER, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur(kernel, SIGMA, p=0.5),
        K.Normalize(MEAN, STD),
        data_keys=["input"],
    ).to(pixels.device)
    return lambda: chain(pixels.float() / 255), len(pixels)


def albumentations_transform(size: int) -> Callable[[Any], object]:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A
    import cv2
    from albumentations.pytorch import ToTensorV2

    cv2.setNumThreads(0)
    kernel = kernel_of(size)
    spread = [(max(0.0, 1 - value), 1 + value) for value in JITTER[:3]]
    chain = A.Compose(
        [
            A.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(*spread, (-JITTER[3], JITTER[3]), p=0.8),
            A.ToGray(p=0.2),
            A.GaussianBlur(blur_limit=(kernel, kernel), sigma_limit=SIGMA, p=0.5),
            A.Normalize(MEAN, STD),
            ToTensorV2(),
        ]
    )
    return lambda array: chain(image=array)["image"]


def is_there(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def variants(pixels: np.ndarray[Any, Any], size: int) -> dict[str, Variant]:
    """Everyone's way to make views of one size."""
    images = [Image.fromarray(array) for array in pixels]
    batch, our_batch = batch_of(pixels), batch_of(pixels, OUR_BATCH[size])
    tensors = list(batch.pixels)
    single = ViewTransform(size=size, mean=MEAN, std=STD)
    lightly = SimCLRTransform(input_size=size, normalize={"mean": list(MEAN), "std": list(STD)})
    theirs = torchvision_transform(size)
    found = {
        "ours": generating(our_batch, size),
        "ours_single": one_by_one(single, images, 2),
        "lightly": one_by_one(lightly, images, 2),
        "torchvision_pil": one_by_one(theirs, images, 1),
        "torchvision_tensor": one_by_one(theirs, tensors, 1),
    }
    if is_there("kornia"):
        found["kornia"] = kornia_variant(batch.pixels, size)
    if is_there("albumentations"):
        arrays = list(pixels)
        found["albumentations"] = one_by_one(albumentations_transform(size), arrays, 1)
    return found


def rate(variant: Variant, seconds: float, wait: Callable[[], None] = lambda: None) -> float:
    """Views per second over at least so many seconds; ``wait`` waits for the device."""
    run, views = variant
    wait()
    start, calls = time.perf_counter(), 0
    while True:
        run()
        calls += 1
        wait()
        spent = time.perf_counter() - start
        if spent >= seconds:
            return views * calls / spent


def faster(rates: Mapping[str, list[float]], *names: str) -> list[float]:
    """The rates of whichever is faster on this machine."""
    return max((rates[name] for name in names), key=statistics.median)


def figures_of(rates: Mapping[str, list[float]], size: int) -> dict[str, float]:
    figures = {
        f"views_{size}_{name}_per_s": statistics.median(values) for name, values in rates.items()
    }
    rivals = {name: rates[name] for name in RIVALS if name in rates}
    rivals["torchvision"] = faster(rates, "torchvision_pil", "torchvision_tensor")
    for way, mine in (("views", rates["ours"]), ("single", rates["ours_single"])):
        for name, values in rivals.items():
            figures[f"{way}_{size}_vs_{name}"] = median_ratio(mine, values)
    return figures


def dino_variants(pixels: np.ndarray[Any, Any]) -> dict[str, Variant]:
    """Ten views of one image, with the same crops."""
    images, plan = [Image.fromarray(array) for array in pixels], ViewPlan(2, 8)
    large, *_, small = find_recipe("dino").at(Scale.STRONG).views
    theirs = DINOTransform(
        global_crop_scale=(large.crop_min, large.crop_max),
        local_crop_scale=(small.crop_min, small.crop_max),
        n_local_views=plan.local_views,
        normalize={"mean": list(MEAN), "std": list(STD)},
    )
    ours = ViewTransform("dino", size=224, local_size=96, plan=plan, mean=MEAN, std=STD)
    return {
        "dino_ours": one_by_one(ours, images, 10),
        "dino_lightly": one_by_one(theirs, images, 10),
    }


class Files(Dataset[object]):
    """Views of image files, each file several times over."""

    def __init__(self, files: list[Path], transform: Callable[[Image.Image], object]) -> None:
        self.files = files
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> object:
        return self.transform(Image.open(self.files[index]).convert("RGB"))


def loader_variants(folder: Path, pixels: np.ndarray[Any, Any], count: int) -> dict[str, Variant]:
    """Epochs of a loader with two workers that stay, over so many JPEG files."""
    files = [folder / f"{number}.jpg" for number in range(len(pixels))]
    for file, array in zip(files, pixels, strict=True):
        Image.fromarray(array).save(file, quality=90)
    every = [files[number % len(files)] for number in range(count)]
    transforms: dict[str, Callable[[Image.Image], object]] = {
        "ours": ViewTransform(size=224, mean=MEAN, std=STD),
        "lightly": SimCLRTransform(
            input_size=224, normalize={"mean": list(MEAN), "std": list(STD)}
        ),
    }
    if is_there("albumentations"):
        once = albumentations_transform(224)
        transforms["albumentations"] = lambda image: [once(np.asarray(image)) for _ in range(2)]

    def epoch(loader: DataLoader[object]) -> None:
        for _ in loader:
            pass

    return {
        f"loader_{name}": (
            partial(epoch, DataLoader(Files(every, transform), 16, num_workers=2,
                                      persistent_workers=True)),
            2 * count,
        )
        for name, transform in transforms.items()
    }  # fmt: skip


FIRST_VIEW = """
import time
import numpy as np
from scanlearn import ViewTransform
transform = ViewTransform(size=64)
image = np.zeros((256, 256, 3), np.uint8)
start = time.perf_counter()
transform(image)
print(time.perf_counter() - start)
"""


def first_view_figures() -> dict[str, float]:
    """Seconds to the first view in a fresh process, without and with compiled code in the cache."""
    with tempfile.TemporaryDirectory() as cache:
        # Python's own bytecode is in the cache too, as it is after an installation's first run.
        left_out = ("NUMBA_CACHE_DIR", "PYTHONDONTWRITEBYTECODE")
        kept = {name: text for name, text in os.environ.items() if name not in left_out}
        kept |= {"PYTHONPYCACHEPREFIX": cache}

        def seconds() -> float:
            done = subprocess.run(
                [sys.executable, "-c", FIRST_VIEW],
                env=kept | {"SCANLEARN_CACHE": cache},
                capture_output=True,
                text=True,
                check=True,
            )
            return float(done.stdout)

        return {
            "compile_seconds": seconds(),
            "first_view_seconds": min(seconds() for _ in range(3)),
        }


def acquisition_figures(pixels: np.ndarray[Any, Any], seconds: float) -> dict[str, float]:
    """Views per second of 64 px in which the device of each modality acts alone, at s = 1."""
    gray = np.ascontiguousarray(pixels[:, ::4, ::4, :1])
    batch = batch_of(gray)
    batch = replace(batch, valid_box=torch.tensor([[0, 0, 64, 64]] * BATCH))
    alone = Scale(0, 0, 0, 1)
    rates = {}
    for modality in POLICIES:
        recipe = find_recipe("simclr").under(modality)
        if recipe.at(alone) == recipe.at(Scale.IDENTITY):
            continue
        generator = ViewGenerator(recipe, alone, TWO_VIEWS, 64, MEAN[:1], STD[:1])
        run, views = partial(_views_of_a_step, generator, batch), 2 * BATCH
        run()
        rates[modality] = rate((run, views), seconds)
        print(f"  acquisition  {modality:12s} {rates[modality]:9.1f} views/s", flush=True)
    return {"acquisition_64_per_second": min(rates.values())}


def policy_figures(pixels: np.ndarray[Any, Any], seconds: float) -> dict[str, float]:
    """Weak views of 64 px under each modality's policy, beside those of the recipe alone."""
    batch = batch_of(np.ascontiguousarray(pixels[:, ::2, ::2, :1]))
    batch = replace(batch, valid_box=torch.tensor([[0, 0, 128, 128]] * BATCH))
    ways = {}
    for modality in (None, *POLICIES):
        recipe = find_recipe("simclr").under(modality)
        scale = recipe.dial(Scale.WEAK)
        generator = ViewGenerator(recipe, scale, TWO_VIEWS, 64, MEAN[:1], STD[:1])
        run = partial(_views_of_a_step, generator, batch)
        run()
        ways[modality or "recipe"] = partial(rate, (run, 2 * BATCH), seconds)
    rates = interleaved(ways, 3)
    shares = {name: median_ratio(each, rates["recipe"]) for name, each in rates.items()}
    for name, share in shares.items():
        each = statistics.median(rates[name])
        print(f"  policy  {name:14s} {each:9.1f} views/s, {share:.3f} of the recipe's", flush=True)
    return {"policy_64_vs_recipe": min(shares.values())}


def _views_of_a_step(generator: ViewGenerator, batch: ScanBatch) -> object:
    return generator(batch, DrawKey(0, 0, np.arange(BATCH)))


def step_of(network: nn.Module, large: Tensor, small: Tensor | None = None) -> Callable[[], object]:
    """A training step on views that stay in memory; with small ones, DINO's student and teacher."""
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            loss = network(large).float().square().mean()
            if small is not None:
                loss = loss + network(small).float().square().mean()
                with torch.no_grad():
                    network(large)
        loss.backward()
        optimiser.step()

    return step


def gpu_figures(pixels: np.ndarray[Any, Any], seconds: float) -> dict[str, float]:
    """Rates on the GPU at 224 px, and the share of a step in bfloat16 that the views take."""
    device, wait = torch.device("cuda"), torch.cuda.synchronize
    batch = batch_of(pixels, GPU_BATCH).to(device)
    simclr = generating(batch, 224)
    dino = generating(batch, 224, "dino", ViewPlan(2, 8))
    figures = {}

    def median_rate(variant: Variant) -> float:
        for _ in range(3):
            variant[0]()
        return statistics.median(rate(variant, seconds, wait) for _ in range(3))

    figures["gpu_simclr_views_per_s"] = median_rate(simclr)
    figures["gpu_dino_views_per_s"] = median_rate(dino)
    if is_there("kornia"):
        figures["gpu_kornia_views_per_s"] = median_rate(kornia_variant(batch.pixels, 224))
        figures["gpu_vs_kornia"] = (
            figures["gpu_simclr_views_per_s"] / figures["gpu_kornia_views_per_s"]
        )
    layout = torch.channels_last
    large = torch.randn(2 * GPU_BATCH, 3, 224, 224, device=device).to(memory_format=layout)
    small = torch.randn(8 * GPU_BATCH, 3, 96, 96, device=device).to(memory_format=layout)
    convnet = build_backbone(BackboneConfig(name="resnet50"), 3, 0).to(device, memory_format=layout)
    steps_per_s = median_rate((step_of(convnet, large), 1))
    views_s = simclr[1] / figures["gpu_simclr_views_per_s"]
    figures["gpu_share_of_resnet50_step"] = views_s / (views_s + 1 / steps_per_s)
    vit = build_backbone(BackboneConfig(name="vit_small_patch16_224"), 3, 0, size=224).to(device)
    steps_per_s = median_rate((step_of(vit, large, small), 1))
    views_s = dino[1] / figures["gpu_dino_views_per_s"]
    figures["gpu_share_of_vit_small_step"] = views_s / (views_s + 1 / steps_per_s)
    return figures


def main() -> None:
    parser = options(__doc__, quick="fewer and shorter repeats", data=True)
    parser.add_argument("--gpu", action="store_true", help="only the rates on the GPU")
    parser.add_argument(
        "--acquisition", action="store_true", help="only the rates of devices and policies"
    )
    arguments = parser.parse_args()
    if arguments.gpu and not torch.cuda.is_available():
        parser.error("--gpu: no CUDA device")
    hush()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    repeats, seconds = (3, 0.5) if arguments.quick else (7, 2.0)
    for library in ("kornia", "albumentations"):
        if not is_there(library):
            print(f"{library}: not installed, its ratios are left out")
    pixels = scans(arguments.data)
    figures: dict[str, float] = {}
    if not arguments.gpu:
        figures |= acquisition_figures(pixels, seconds)
        figures |= policy_figures(pixels, seconds)
    if arguments.acquisition:
        report(figures, GOALS, arguments.json)
        return
    for size in () if arguments.gpu else SIZES:
        every = variants(pixels, size)
        for run, _ in every.values():
            run()
        ways = {name: partial(rate, variant, seconds) for name, variant in every.items()}
        rates = interleaved(ways, repeats)
        for name, values in rates.items():
            spread = f"{min(values):9.1f} to {max(values):9.1f}"
            print(f"  256 -> {size:3d}  {name:18s} {spread} views/s", flush=True)
        figures |= figures_of(rates, size)
    if not arguments.gpu:
        with tempfile.TemporaryDirectory() as folder:
            every = dino_variants(pixels)
            every |= loader_variants(Path(folder), pixels, 128 if arguments.quick else 512)
            for run, _ in every.values():
                run()
            ways = {name: partial(rate, variant, seconds) for name, variant in every.items()}
            rates = interleaved(ways, repeats)
        figures |= {f"{name}_per_s": statistics.median(values) for name, values in rates.items()}
        figures["dino_vs_lightly"] = median_ratio(rates["dino_ours"], rates["dino_lightly"])
        for name in ("lightly", "albumentations"):
            if f"loader_{name}" in rates:
                ratio = median_ratio(rates["loader_ours"], rates[f"loader_{name}"])
                figures[f"loader_vs_{name}"] = ratio
        figures |= first_view_figures()
    if torch.cuda.is_available():
        with torch.enable_grad():
            figures |= gpu_figures(pixels, seconds)
    report(figures, GOALS, arguments.json)


if __name__ == "__main__":
    main()
