from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightly.data import LightlyDataset
from lightly.loss import NTXentLoss
from lightly.transforms.multi_view_transform import MultiViewTransform
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import v2

from scanlearn.core import ScanBatch, ViewPlan
from scanlearn.errors import ScanlearnError
from scanlearn.views.extras import Extra, per_scan
from scanlearn.views.generator import ViewGenerator
from scanlearn.views.recipes import RECIPES, Recipe, find_recipe
from scanlearn.views.scale import Scale
from scanlearn.views.settings import RenderSettings
from scanlearn.views.transform import Picture, ViewTransform, batch_of_one
from scanlearn.views.uniforms import DrawKey

MakeBatch = Callable[..., ScanBatch]
HEIGHT, WIDTH = 64, 80
LOCAL = sorted(name for name, recipe in RECIPES.items() if recipe.has_local_views)


@pytest.fixture
def image() -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path, image: Image.Image) -> Path:
    for label in ("sick", "well"):
        (tmp_path / label).mkdir()
        for number in range(4):
            image.rotate(20 * number).save(tmp_path / label / f"{number}.png")
    return tmp_path


def _repeated(transform: ViewTransform, image: object, seed: int = 0) -> list[Tensor]:
    torch.manual_seed(seed)
    return transform(image)  # type: ignore[arg-type]


def test_an_image_gives_float_views_of_the_unit_range(image: Image.Image) -> None:
    views = ViewTransform(size=32)(image)
    assert [view.shape for view in views] == [(3, 32, 32)] * 2
    assert all(view.dtype == torch.float32 and 0 <= view.min() <= view.max() <= 1 for view in views)
    assert not torch.equal(*views)
    assert ViewTransform(size=32)(image.convert("L"))[0].shape == (1, 32, 32)


def test_the_views_are_those_of_the_generator(make_batch: MakeBatch) -> None:
    batch = make_batch(1, 3)
    torch.manual_seed(5)
    views = ViewTransform(size=32, mean=[0.4] * 3, std=[0.2] * 3)(batch.pixels[0])
    torch.manual_seed(5)
    seed = int(torch.randint(2**63 - 1, ()))
    generator = ViewGenerator("simclr", Scale.STRONG, ViewPlan(2), 32, [0.4] * 3, [0.2] * 3)
    expected = generator(batch, DrawKey(seed, 0, np.zeros(1, np.int64))).global_views
    for mine, theirs in zip(views, expected, strict=True):
        assert torch.equal(mine, theirs[0])


def test_image_array_and_tensor_give_the_same_views(image: Image.Image) -> None:
    transform = ViewTransform(size=32)
    array = np.asarray(image)
    given = (image, array, torch.from_numpy(array.copy()).permute(2, 0, 1))
    first, *others = (_repeated(transform, one) for one in given)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    floats = _repeated(transform, array / 255)
    deep = _repeated(transform, array.astype(np.uint16) * 257)
    for near in (floats, deep):
        assert all((a - b).abs().max() < 1e-5 for a, b in zip(first, near, strict=True))


def test_scale_zero_is_the_whole_image_resized(image: Image.Image) -> None:
    first, second = ViewTransform(scale="identity", size=32)(image)
    height, width = image.height, image.width
    bars = [max(0, (other - own) // 2) for own, other in ((width, height), (height, width))]
    square = v2.functional.pad(v2.functional.to_image(image).float() / 255, bars)
    assert square.shape[1] == square.shape[2]
    expected = v2.functional.resize(square, [32, 32])
    assert torch.equal(first, second)
    assert (first - expected).abs().max() < 1e-5


def test_mean_and_std_standardise_last_per_channel(image: Image.Image) -> None:
    plain = _repeated(ViewTransform(size=32), image)[0]
    mean, std = (0.1, 0.2, 0.3), (0.2, 0.3, 0.4)
    found = _repeated(ViewTransform(size=32, mean=mean, std=std), image)[0]
    assert (found - v2.functional.normalize(plain, mean, std)).abs().max() < 1e-5
    one_for_all = _repeated(ViewTransform(size=32, mean=[0.5], std=[0.5]), image)[0]
    assert (one_for_all - (plain * 2 - 1)).abs().max() < 1e-5


def test_torchs_seed_repeats_the_views_and_the_next_call_draws_anew(image: Image.Image) -> None:
    transform = ViewTransform(size=32)
    first = _repeated(transform, image)[0]
    assert not torch.equal(transform(image)[0], first)
    assert torch.equal(_repeated(transform, image)[0], first)


def test_a_generator_of_ones_own_is_drawn_from_and_torchs_is_left_alone(image: Image.Image) -> None:
    state = torch.get_rng_state()
    found = [
        ViewTransform(size=32, generator=torch.Generator().manual_seed(3))(image)[0]
        for _ in range(2)
    ]
    assert torch.equal(*found)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_local_view_on_its_own_is_blurred_as_among_all(image: Image.Image) -> None:
    only_blur = find_recipe("dino").adjusted({"blur_p": 1, "jitter": "off", "gray": "off"})
    scale = {"crop": 0.0, "geometry": 0.0, "photometric": 1.0}
    local = ViewTransform(only_blur, scale, size=224, local_size=96, plan=ViewPlan(2, 1)).one(2)
    unscaled = RenderSettings(scale_blur=False)
    stated = ViewTransform(only_blur, scale, size=96, plan=ViewPlan(1), settings=unscaled)
    torch.manual_seed(0)
    found = local(image)
    assert torch.equal(found, _repeated(stated, image, seed=0)[0])


def test_box_mask_and_range_reach_the_renderer(image: Image.Image) -> None:
    transform = ViewTransform(scale=0, size=32)
    array = np.asarray(image.convert("L"))
    cropped = transform(np.ascontiguousarray(array[10:50, 20:60]))[0]
    assert torch.equal(transform(array, valid_box=(10, 20, 50, 60))[0], cropped)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, WIDTH // 2 :] = True
    masked = transform(array, mask=mask)[0]
    assert (masked[..., :15] == 0).all()
    assert (masked[..., 17:] > 0).any()
    narrow = transform(array, value_range=(0, 510))[0]
    assert (narrow * 2 - transform(array)[0]).abs().max() < 1e-6


@pytest.mark.skipif(not LOCAL, reason="no recipe with local views")
def test_local_views_follow_the_global_ones_and_are_smaller(image: Image.Image) -> None:
    plan = ViewPlan(2, 3)
    views = ViewTransform(LOCAL[0], size=56, plan=plan)(image)
    assert [view.shape[-1] for view in views] == [56, 56, 24, 24, 24]
    views = ViewTransform(LOCAL[0], size=56, plan=plan, local_size=16)(image)
    assert [view.shape[-1] for view in views] == [56, 56, 16, 16, 16]


@pytest.mark.skipif(not LOCAL, reason="no recipe with local views")
def test_one_view_has_the_ranges_and_the_size_of_its_place(image: Image.Image) -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    transform = ViewTransform(
        LOCAL[0], size=28, plan=ViewPlan(2, 1), extras=[Extra(torch.zeros_like, views="local")]
    )
    assert transform.one(2)(image).shape == (3, 12, 12)
    assert (transform.one(2)(image) == 0).all()
    assert (transform.one(0)(red) != 0).any()
    # Only the second global view is solarized: full red becomes no red at all.
    torch.manual_seed(0)
    calm = dict.fromkeys(("jitter", "gray"), "off")
    plain = ViewTransform(LOCAL[0], size=28, operations=calm)
    solarized = [
        sum(float(plain.one(view)(red)[0].max()) < 0.1 for _ in range(60)) for view in (0, 1)
    ]
    assert solarized[0] == 0
    assert 2 < solarized[1] < 30


def test_one_view_is_drawn_on_its_own_each_time(image: Image.Image) -> None:
    one = ViewTransform(size=32).one()
    first, second = one(image), one(image)
    assert first.shape == (3, 32, 32)
    assert not torch.equal(first, second)


def test_operations_are_switched_off_by_name(image: Image.Image) -> None:
    calm = dict.fromkeys(("jitter", "gray", "blur", "crop", "flip"), "off")
    first, second = ViewTransform(size=32, operations=calm)(image)
    assert torch.equal(first, second)


def test_extras_of_ones_own_are_done(image: Image.Image) -> None:
    extra = Extra(per_scan(v2.RandomErasing(p=1.0, value=0)), views=(1,))
    plain = _repeated(ViewTransform(size=32), image)
    found = _repeated(ViewTransform(size=32, extras=[extra]), image)
    assert torch.equal(found[0], plain[0])
    assert ((found[1] == 0) & (plain[1] != 0)).any()


def test_lightlys_dataset_and_loss_take_the_views(folder: Path) -> None:
    dataset = LightlyDataset(str(folder), transform=ViewTransform(size=32))
    views, labels, names = next(iter(DataLoader(dataset, batch_size=4)))
    assert [view.shape for view in views] == [(4, 3, 32, 32)] * 2
    assert len(labels) == len(names) == 4
    loss = NTXentLoss()(views[0].flatten(1), views[1].flatten(1))
    assert loss.isfinite()


def test_lightlys_multi_view_transform_takes_one_view_at_a_time(folder: Path) -> None:
    transform = ViewTransform(size=32)
    several = MultiViewTransform([transform.one(0), transform.one(1), transform.one(0)])
    dataset = LightlyDataset(str(folder), transform=several)
    views, _, _ = next(iter(DataLoader(dataset, batch_size=4)))
    assert [view.shape for view in views] == [(4, 3, 32, 32)] * 3
    assert not torch.equal(views[0], views[2])


def test_torchvisions_datasets_take_it_alone_and_in_a_chain(folder: Path) -> None:
    for transform in (
        ViewTransform(size=32),
        v2.Compose([v2.Grayscale(3), ViewTransform(size=32)]),
        v2.Compose([v2.PILToTensor(), ViewTransform(size=32)]),
    ):
        for dataset in (
            ImageFolder(str(folder), transform=transform),
            FakeData(4, (3, 40, 50), transform=transform),
        ):
            views, labels = next(iter(DataLoader(dataset, batch_size=4)))
            assert [view.shape for view in views] == [(4, 3, 32, 32)] * 2
            assert labels.shape == (4,)


class _Same(Dataset[list[Tensor]]):
    """One image again and again: its views differ only by what was drawn."""

    def __init__(self, transform: ViewTransform, scans: int) -> None:
        self.transform = transform
        self.scans = scans

    def __len__(self) -> int:
        return self.scans

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(np.arange(16 * 16, dtype=np.uint8).reshape(16, 16))


def _first_pixels(loader: DataLoader[list[Tensor]]) -> list[tuple[float, ...]]:
    return [tuple(view[0].flatten().tolist()) for batch in loader for view in batch]


@pytest.mark.parametrize("own_generator", [False, True])
def test_workers_and_epochs_draw_differently_and_torchs_seed_repeats_them(
    own_generator: bool,
) -> None:
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(1) if own_generator else None
        dataset = _Same(ViewTransform(size=8, generator=generator), 4)
        loader = DataLoader(dataset, batch_size=1, num_workers=2, multiprocessing_context="fork")
        runs.append([_first_pixels(loader) for _ in range(2)])
    assert runs[0] == runs[1]
    drawn = [view for epoch in runs[0] for view in epoch]
    assert len(set(drawn)) == len(drawn) == 16


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_mix_of_gray_and_colour_is_brought_to_one_kind(dtype: type) -> None:
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    ramp = np.linspace(0, 1, 32 * 32).reshape(32, 32)
    colour = np.stack([ramp, ramp**2, 1 - ramp], axis=-1)
    luma = colour @ [0.299, 0.587, 0.114]
    pictures = [(picture * top).astype(dtype) for picture in (ramp, colour, luma)]
    for channels in (1, 3):
        transform = ViewTransform(scale=0, size=32, channels=channels)
        gray, mixed, expected = (transform(picture)[0] for picture in pictures)
        assert gray.shape == mixed.shape == (channels, 32, 32)
        if channels == 1:
            assert (mixed - expected).abs().max() < 0.01
            assert transform(np.full((8, 8, 3), top, dtype))[0].max() == 1
        else:
            assert torch.equal(gray[0], gray[2])
    with pytest.raises(ScanlearnError, match="channels 2 is not 1 or 3"):
        ViewTransform(channels=2)  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_may_be_forked_or_spawned(start: str, folder: Path) -> None:
    torch.manual_seed(0)
    dataset = LightlyDataset(str(folder), transform=ViewTransform(size=32, channels=3))
    # Rendered here before: a fork inherits what is loaded.
    dataset[0]
    loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=start)
    for _ in range(2):
        for views, _, _ in loader:
            assert [view.shape[1:] for view in views] == [(3, 32, 32)] * 2
            assert all(view.isfinite().all() for view in views)


def test_a_transform_is_picklable_and_says_what_it_is(image: Image.Image) -> None:
    transform = ViewTransform("simclr", "weak", size=32, plan=ViewPlan(3))
    again = pickle.loads(pickle.dumps(transform))
    for mine, theirs in zip(_repeated(transform, image), _repeated(again, image), strict=True):
        assert torch.equal(mine, theirs)
    assert repr(again) == "ViewTransform('simclr', 0.5, size=32, views=3+0)"
    one = pickle.loads(pickle.dumps(transform.one(1)))
    assert one(image).shape == (3, 32, 32)
    assert repr(one) == "OneView(ViewTransform('simclr', 0.5, size=32, views=1+0))"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mean": [0.5]}, "give both or neither"),
        ({"mean": [0.5] * 3, "std": [0.5]}, "3 means and 1 standard deviations"),
        ({"recipe": "simcrl"}, "did you mean 'simclr'"),
        ({"scale": 2}, "scale: 2 is not between 0"),
        ({"plan": ViewPlan(2, 2)}, "2 local views"),
        ({"size": 1}, "size 1 is too small"),
        ({"size": "big"}, "ViewTransform: 'size' is of the type str, but it should be int"),
        ({"plan": 2}, "'plan' is of the type int, but it should be ViewPlan"),
        ({"mean": 0.5, "std": 0.2}, "'mean' is of the type float, but it should be a list"),
        ({"scle": 0.5}, "'scle' is not an argument"),
    ],
)
def test_a_transform_that_cannot_be_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ScanlearnError, match=words):
        ViewTransform(**given)  # type: ignore[arg-type]


def test_an_image_whose_channels_have_no_mean_is_refused(image: Image.Image) -> None:
    transform = ViewTransform(mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(ScanlearnError, match="mean and std have 3 values, the image 1 channels"):
        transform(image.convert("L"))


def test_a_view_that_is_not_there_is_refused() -> None:
    for view in (-1, 2):
        with pytest.raises(ScanlearnError, match=f"view {view} is not one of the 2 views"):
            ViewTransform().one(view)


def test_an_image_that_is_none_is_refused() -> None:
    with pytest.raises(ScanlearnError, match=r"shape \[4, 4, 5\] is no scan"):
        ViewTransform()(np.zeros((4, 4, 5), np.uint8))


SIDES = (20, 30)
RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, SIDES, dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (*SIDES, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, SIDES, dtype=np.uint16)


def _read(image: Picture) -> torch.Tensor:
    return batch_of_one(image, None, None, None).pixels[0]


def _opened(image: Image.Image, path: Path) -> Image.Image:
    image.save(path)
    return Image.open(path)


def test_a_gray_image_has_one_channel_and_a_colour_image_three() -> None:
    assert np.array_equal(_read(Image.fromarray(GRAY)).numpy(), GRAY[None])
    assert np.array_equal(_read(Image.fromarray(COLOUR)).numpy(), COLOUR.transpose(2, 0, 1))


def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path) -> None:
    for image in (
        _opened(Image.fromarray(DEEP), tmp_path / "deep.png"),
        Image.fromarray(DEEP.astype(np.int32)),
        DEEP,
        DEEP.astype(">u2"),
        torch.from_numpy(DEEP),
    ):
        pixels = _read(image)
        assert pixels.dtype == torch.uint16
        assert np.array_equal(pixels[0].numpy(), DEEP)


def test_alpha_is_dropped_and_leaves_the_colours_as_stored() -> None:
    alpha = RNG.integers(0, 256, (*SIDES, 1), dtype=np.uint8)
    image = Image.fromarray(np.concatenate([COLOUR, alpha], axis=2))
    batch = batch_of_one(image, None, None, None)
    assert np.array_equal(batch.pixels[0].numpy(), COLOUR.transpose(2, 0, 1))
    assert batch.valid_box.tolist() == [[0, 0, *SIDES]]
    assert batch.mask is None
    gray = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(alpha[..., 0])])
    assert np.array_equal(_read(gray)[0].numpy(), GRAY)


def test_a_palette_becomes_the_colours_it_stands_for() -> None:
    image = Image.fromarray(COLOUR).quantize(16)
    assert image.mode == "P"
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(_read(image).numpy(), expected)


def test_one_bit_images_are_black_and_white() -> None:
    image = Image.fromarray(GRAY > 100)
    assert image.mode == "1"
    assert np.array_equal(_read(image)[0].numpy(), np.where(GRAY > 100, 255, 0))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "float16"])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_arrays_end_in_channels_and_tensors_begin_with_them(
    channels: int | None, dtype: str
) -> None:
    shape = SIDES if channels is None else (*SIDES, channels)
    top = 1 if dtype.startswith("float") else 200
    array = (RNG.random(shape) * top).astype(dtype)
    tensor = torch.from_numpy(array if channels is None else array.transpose(2, 0, 1))
    pixels = _read(array)
    assert pixels.shape == (channels or 1, *SIDES)
    assert torch.equal(pixels, _read(tensor))
    kept = torch.float32 if dtype.startswith("float") else getattr(torch, dtype)
    assert pixels.dtype == kept


def test_mirrored_read_only_and_labelled_pictures_are_read_too() -> None:
    mirrored = COLOUR[:, ::-1]
    mirrored.flags.writeable = False
    assert np.array_equal(_read(mirrored).numpy(), mirrored.transpose(2, 0, 1))
    labelled = _read(tv_tensors.Image(torch.from_numpy(GRAY)))
    assert type(labelled) is torch.Tensor


def test_a_picture_is_not_shared_with_the_batch() -> None:
    array = GRAY.copy()
    _read(array)[:] = 0
    assert np.array_equal(array, GRAY)


def test_the_type_says_what_means_one_unless_a_range_is_given() -> None:
    for image, top in ((GRAY, 255), (DEEP, 65535), (GRAY / 255, 1)):
        assert batch_of_one(image, None, None, None).value_range.tolist() == [[0, top]]
    hounsfield = RNG.uniform(-1000, 1000, SIDES)
    batch = batch_of_one(hounsfield, None, None, (-150, 250))
    assert batch.value_range.tolist() == [[-150, 250]]


def test_box_and_mask_arrive_in_the_batch() -> None:
    mask = GRAY > 128
    for given in (mask, torch.from_numpy(mask), Image.fromarray(mask), mask.astype(np.uint8) * 255):
        batch = batch_of_one(GRAY, (1, 2, 15, 20), given, None)
        assert batch.valid_box.tolist() == [[1, 2, 15, 20]]
        assert batch.mask is not None
        assert np.array_equal(batch.mask[0].numpy(), mask)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 5), np.uint8), r"shape \[4, 4, 5\] is no scan; give \[h w\] or \[h w c\]"),
        (torch.zeros(5, 4, 4), r"shape \[5, 4, 4\] is no scan; give \[h w\] or \[c h w\]"),
        (np.zeros((3, 4, 4), np.uint8), r"shape \[3, 4, 4\] is no scan"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"shape \[2, 3, 4, 4\] is no scan"),
        (np.zeros((0, 4), np.uint8), r"shape \[0, 4\] is no scan"),
        (np.zeros(4, np.uint8), r"shape \[4\] is no scan"),
        (np.full((4, 4), np.nan), "not finite"),
        (torch.full((4, 4), torch.inf), "not finite"),
        (np.full((4, 4), 1.5), "floats from 1.5 to 1.5 lie outside"),
        (-torch.ones(4, 4), "floats from -1 to -1 lie outside"),
        (np.zeros((4, 4), np.int64), "type torch.int64 has no known value range"),
        (np.zeros((4, 4), complex), "ndarray complex128 is no picture"),
        ("scan.png", "str is no picture"),
        (Image.fromarray(np.full((4, 4), 70_000, np.int32)), "more than 16 bits"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(image: Picture, words: str) -> None:
    with pytest.raises(ScanlearnError, match=words) as caught:
        _read(image)
    assert re.match(r"image: .*; (give|scale) .*\.$", str(caught.value))


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"valid_box": (0, 0, 21, 30)}, "valid_box: .* does not lie on an image of 20 x 30"),
        ({"valid_box": (5, 0, 5, 30)}, "does not lie on"),
        ({"valid_box": (0, 0, 20)}, "does not lie on"),
        ({"mask": np.ones((20, 31), bool)}, r"mask: shape \[20, 31\] for an image of 20 x 30"),
        ({"mask": np.zeros((20, 30), bool)}, "mask: nothing lies inside"),
        ({"value_range": (3, 3)}, "value_range: .* is no range"),
        ({"value_range": (0, np.nan)}, "value_range: .* is no range"),
        ({"value_range": 3}, "value_range: 3 is no range"),
        ({"valid_box": 3}, "does not lie on"),
    ],
)
def test_a_box_mask_or_range_that_does_not_fit_is_refused(
    about: dict[str, object], words: str
) -> None:
    given = {"valid_box": None, "mask": None, "value_range": None} | about
    with pytest.raises(ScanlearnError, match=words):
        batch_of_one(GRAY, **given)  # type: ignore[arg-type]


def _chest() -> np.ndarray:
    """Two dark lungs with ribs, the heart on the viewer's right, a bright marker beside it."""
    y, x = np.mgrid[:96, :96] / 96
    lungs = ((np.abs(x - 0.5) - 0.22) / 0.16) ** 2 + ((y - 0.5) / 0.38) ** 2 < 1
    heart = ((x - 0.62) / 0.14) ** 2 + ((y - 0.6) / 0.2) ** 2 < 1
    pixels = np.where(lungs & ~heart, 60 + 25 * (np.sin(40 * y) > 0), 140)
    pixels[:, 80:] = 230
    return pixels.astype(np.uint8)


def _num_mirrored(modality: Any, calls: int = 150, **options: Any) -> tuple[int, int]:
    """Of 300 views, those with the marker on the viewer's left, and all that show it."""
    # The marker is known by its brightness.
    scale = {"crop": 0.5, "geometry": 0.5, "photometric": 0.0}
    transform = ViewTransform("simclr", scale, size=32, modality=modality, **options)
    torch.manual_seed(0)
    chest = _chest()
    views = torch.stack([view[0] for _ in range(calls) for view in transform(chest)])
    marker = (views > 0.8).sum(1)
    left, right = marker[:, :16].sum(1), marker[:, 16:].sum(1)
    return int((left > right).sum()), int((left + right > 0).sum())


@pytest.mark.parametrize("modality", ["xray", {"name": "child", "like": "xray"}])
def test_a_chest_is_never_mirrored_under_its_modality(modality: Any) -> None:
    assert _num_mirrored(modality)[0] == 0
    mirrored, told = _num_mirrored(None)
    assert told > 100
    assert 0.3 < mirrored / told < 0.7
    asked, told = _num_mirrored(modality, operations={"flip_p": 0.5})
    assert 0.3 < asked / told < 0.7


def test_natural_and_auto_are_the_recipe_alone(image: Image.Image) -> None:
    alone = _repeated(ViewTransform(size=32), image)
    for modality in ("natural", "auto"):
        same = _repeated(ViewTransform(size=32, modality=modality), image)
        assert all(map(torch.equal, alone, same))


def test_one_view_and_the_words_keep_the_modality(image: Image.Image) -> None:
    transform = ViewTransform(size=32, modality="ultrasound")
    assert "modality='ultrasound'" in repr(transform)
    assert "modality='ultrasound'" in repr(transform.one(1))
    assert torch.equal(
        _repeated(ViewTransform(size=32, modality="ultrasound", plan=ViewPlan(1)), image)[0],
        _repeated(transform.one(), image),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("recipe", "modality", "expected"),
    [
        ("simclr", "xrays", "did you mean 'xray'"),
        ("simclr", {"name": "hand", "crop_floor": 2}, "crop_floor"),
        (find_recipe("simclr").adjusted({"blur": "off"}), "xray", r"changed already \(blur off\)"),
        (find_recipe("simclr").under("ct"), "xray", "name one modality"),
    ],
)
def test_a_modality_that_cannot_be_used_is_refused(
    recipe: Recipe | str, modality: Any, expected: str
) -> None:
    with pytest.raises(ScanlearnError, match=expected):
        ViewTransform(recipe, modality=modality)
