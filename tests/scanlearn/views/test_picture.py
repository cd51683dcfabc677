from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from scanlearn.core import ScanlearnError
from scanlearn.views.picture import Picture, batch_of_one

HEIGHT, WIDTH = 20, 30
RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)


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
    alpha = RNG.integers(0, 256, (HEIGHT, WIDTH, 1), dtype=np.uint8)
    image = Image.fromarray(np.concatenate([COLOUR, alpha], axis=2))
    batch = batch_of_one(image, None, None, None)
    assert np.array_equal(batch.pixels[0].numpy(), COLOUR.transpose(2, 0, 1))
    assert batch.valid_box.tolist() == [[0, 0, HEIGHT, WIDTH]]
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
    shape = (HEIGHT, WIDTH) if channels is None else (HEIGHT, WIDTH, channels)
    top = 1 if dtype.startswith("float") else 200
    array = (RNG.random(shape) * top).astype(dtype)
    tensor = torch.from_numpy(array if channels is None else array.transpose(2, 0, 1))
    pixels = _read(array)
    assert pixels.shape == (channels or 1, HEIGHT, WIDTH)
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
    hounsfield = RNG.uniform(-1000, 1000, (HEIGHT, WIDTH))
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
        (np.zeros((4, 4), np.int64), "type torch.int64 has no known range"),
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
    ],
)
def test_a_box_mask_or_range_that_does_not_fit_is_refused(
    about: dict[str, object], words: str
) -> None:
    given = {"valid_box": None, "mask": None, "value_range": None} | about
    with pytest.raises(ScanlearnError, match=words):
        batch_of_one(GRAY, **given)  # type: ignore[arg-type]
