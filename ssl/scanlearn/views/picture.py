"""From one picture, as other libraries hold it, to a batch of one scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8, UInt16
from PIL import Image
from torch import Tensor

from scanlearn.core import ScanBatch, ScanlearnError

Picture = Image.Image | np.ndarray[Any, Any] | Tensor
Pixels = UInt8[Tensor, "c h w"] | UInt16[Tensor, "c h w"] | Float[Tensor, "c h w"]

_GRAY_MODES = ("1", "L", "LA", "La")
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_TYPES = (torch.uint8, torch.uint16)
_CHANNELS = (1, 3)
# What rounding may add to a value of 0 or 1.
_ROUNDING = 1e-6


def batch_of_one(
    image: Picture,
    valid_box: Sequence[int] | None,
    mask: Picture | None,
    value_range: tuple[float, float] | None,
) -> ScanBatch:
    """Returns a picture as a batch of one scan, on the picture's device.

    Args:
        image: A PIL image (gray, 16 bits, palette or colour; alpha is dropped), an array ``[h w]``
            or ``[h w c]``, or a tensor ``[h w]`` or ``[c h w]``, with one or three channels of
            uint8, uint16 or floats.
        valid_box: Top, left, bottom, right of the scan on the picture in pixels, bottom and right
            exclusive; None for all of it.
        mask: ``[h w]``, not 0 inside the field of view; None where all of it is.
        value_range: The values that mean 0 and 1; None for the range of the type, which for
            floats is 0 and 1.

    Raises:
        ScanlearnError: One of them cannot be used.
    """
    pixels = _pixels(image)
    height, width = pixels.shape[1:]
    device = pixels.device
    return ScanBatch(
        pixels=pixels[None],
        valid_box=torch.tensor([_box(valid_box, height, width)], device=device),
        mask=None if mask is None else _mask(mask, height, width).to(device)[None],
        spacing_mm=torch.full((1, 2), torch.nan, device=device),
        value_range=torch.tensor([_range(pixels, value_range)], device=device),
        ids=torch.zeros(1, dtype=torch.int64, device=device),
    )


def _pixels(image: Picture) -> Pixels:
    stored, layout = _stored(image), "[c h w]" if isinstance(image, Tensor) else "[h w c]"
    pixels = stored[None] if stored.ndim == 2 else stored
    if pixels is stored and pixels.ndim == 3 and layout == "[h w c]":
        pixels = pixels.permute(2, 0, 1)
    if pixels.ndim != 3 or pixels.shape[0] not in _CHANNELS or pixels.numel() == 0:
        raise ScanlearnError(
            f"image: shape {list(stored.shape)} is no scan; give [h w] or {layout} with 1 or 3 "
            "channels and at least one pixel."
        )
    if pixels.is_floating_point():
        pixels = pixels.to(torch.float32)
    elif pixels.dtype not in _TYPES:
        raise ScanlearnError(
            f"image: type {pixels.dtype} has no known range; give uint8, uint16 or floats in "
            "[0, 1]."
        )
    return pixels.contiguous()


def _stored(image: Picture) -> Tensor:
    """Returns the values as a plain tensor, their axes in the order of the picture."""
    if isinstance(image, Tensor):
        return image.detach().as_subclass(Tensor)
    if isinstance(image, Image.Image):
        return _from_pillow(image)
    if isinstance(image, np.ndarray) and image.dtype.kind in "uif":
        # A copy in the machine's byte order: a view of a read-only array makes torch warn.
        return torch.from_numpy(image.astype(image.dtype.newbyteorder("=")))
    given = f"{type(image).__name__} {getattr(image, 'dtype', '')}".strip()
    raise ScanlearnError(
        f"image: {given} is no picture; give a PIL image, or an array or tensor of uint8, uint16 "
        "or floats in [0, 1]."
    )


def _from_pillow(image: Image.Image) -> Tensor:
    if image.mode in _DEEP_MODES:
        deep = np.array(image)
        if deep.size and not 0 <= deep.min() <= deep.max() <= np.iinfo(np.uint16).max:
            raise ScanlearnError(
                f"image: values {deep.min()} to {deep.max()} are more than 16 bits; give an array "
                "of floats in [0, 1]."
            )
        return torch.from_numpy(deep.astype(np.uint16))
    if image.mode == "F":
        return torch.from_numpy(np.array(image))
    mode = "L" if image.mode in _GRAY_MODES else "RGB"
    return torch.from_numpy(np.array(image if image.mode == mode else image.convert(mode)))


def _range(pixels: Tensor, given: tuple[float, float] | None) -> tuple[float, float]:
    if pixels.is_floating_point():
        low, high = (float(end) for end in pixels.aminmax())
        if not np.isfinite([low, high]).all():
            raise ScanlearnError(
                "image: values are not finite (NaN or infinite); give finite values."
            )
        if given is None and (low < -_ROUNDING or high > 1 + _ROUNDING):
            raise ScanlearnError(
                f"image: floats from {low:g} to {high:g} lie outside [0, 1]; scale them to it, or "
                "give value_range, the values that mean 0 and 1."
            )
    if given is None:
        return 0.0, 1.0 if pixels.is_floating_point() else float(torch.iinfo(pixels.dtype).max)
    if not (np.isfinite(given).all() and given[0] < given[1]):
        raise ScanlearnError(
            f"value_range: {given} is no range; give two finite values, the lower first."
        )
    return float(given[0]), float(given[1])


def _box(given: Sequence[int] | None, height: int, width: int) -> tuple[int, int, int, int]:
    if given is None:
        return 0, 0, height, width
    values = [int(value) for value in given]
    if len(values) == 4:
        top, left, bottom, right = values
        if 0 <= top < bottom <= height and 0 <= left < right <= width:
            return top, left, bottom, right
    raise ScanlearnError(
        f"valid_box: {values} does not lie on an image of {height} x {width} pixels; give top, "
        "left, bottom, right, with bottom and right exclusive."
    )


def _mask(given: Picture, height: int, width: int) -> Tensor:
    mask = given if isinstance(given, Tensor) else torch.from_numpy(np.array(given))
    inside = mask.detach().as_subclass(Tensor) != 0
    if inside.shape != (height, width):
        raise ScanlearnError(
            f"mask: shape {list(inside.shape)} for an image of {height} x {width} pixels; give "
            "[h w] of the same size."
        )
    if not inside.any():
        raise ScanlearnError("mask: nothing lies inside it; give None for the whole image.")
    return inside
