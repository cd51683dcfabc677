"""What is left of a picture after a JPEG file: batched, and the same on every device.

Only sums, products and roundings, in one order whatever the batch.

Source: ITU-T T.81 (JPEG), annex K for the tables; JFIF 1.02 for the colours; the scaling of the
    tables by quality and the subsampling of the colours are those of libjpeg, as Pillow uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float64

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 8
_LUMINANCE = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
])  # fmt: skip
_CHROMINANCE = np.full((BLOCK, BLOCK), 99)
_CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# Row k times the values of a line is their k-th frequency, but for the scale: the first is the sum.
_COSINES = np.cos(np.pi * np.arange(BLOCK)[:, None] * (2 * np.arange(BLOCK) + 1) / (2 * BLOCK))
_COSINES[1:] *= np.sqrt(2)


def compress(
    x: Float[Tensor, "b c h w"], quality: Float64[np.ndarray, " b"]
) -> Float[Tensor, "b c h w"]:
    """Returns the pictures as a JPEG file of 8 bits gives them back.

    Three channels are colours, whose differences are kept at half the resolution (4:2:0); any
    other number of them are gray pictures.

    Args:
        x: From 0 to 1.
        quality: From 1 to 100 for each picture; between two whole numbers the tables lie between
            theirs.
    """
    import torch

    height, width = x.shape[-2:]
    is_colour = x.shape[1] == 3
    padded = _padded(_whole(x * 255), 2 * BLOCK if is_colour else BLOCK)
    if not is_colour:
        return _whole(_coded(padded, _table(_LUMINANCE, quality))).div_(255)[..., :height, :width]
    red, green, blue = padded.unbind(1)
    luma = _whole(red * 0.299 + green * 0.587 + blue * 0.114)
    chroma = torch.stack(
        [
            red * -0.168735892 - green * 0.331264108 + blue * 0.5,
            red * 0.5 - green * 0.418687589 - blue * 0.081312411,
        ],
        dim=1,
    )
    small = _whole(_halved(_whole(chroma.add_(128))))
    small = _whole(_coded(small, _table(_CHROMINANCE, quality)))
    luma = _whole(_coded(luma[:, None], _table(_LUMINANCE, quality)))[:, 0]
    first, second = _whole(_doubled(small)).sub_(128).unbind(1)
    found = torch.stack(
        [
            luma + second * 1.402,
            luma - first * 0.344136286 - second * 0.714136286,
            luma + first * 1.772,
        ],
        dim=1,
    )
    return _whole(found).div_(255)[..., :height, :width]


def _table(table: np.ndarray, quality: Float64[np.ndarray, " b"]) -> Float64[np.ndarray, "b 8 8"]:
    """Steps of the coefficients, as libjpeg scales them by quality."""
    percent = np.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]
    return np.clip(np.floor((table * percent + 50) / 100), 1, 255)


def _whole(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Rounded to 8 bits."""
    return values.add(0.5).floor_().clamp_(0, 255)


def _coded(
    planes: Float[Tensor, "b c h w"], table: Float64[np.ndarray, "b 8 8"]
) -> Float[Tensor, "b c h w"]:
    """Planes of whole blocks after their coefficients were rounded to steps of the table."""
    import torch

    b, c, h, w = planes.shape
    blocks = planes.view(b, c, h // BLOCK, BLOCK, w // BLOCK, BLOCK) - 128
    # Both transforms carry a factor of 8 each.
    step = torch.from_numpy(BLOCK * table).to(planes)[:, None, None, :, None, :]
    levels = _frequencies(_frequencies(blocks, 3), 5).div_(step)
    # Halves away from 0, as libjpeg has it; an average of 8 bits often is one.
    levels = levels.abs().add_(0.5).floor_().copysign_(levels)
    step = torch.from_numpy(table / BLOCK).to(planes)[:, None, None, :, None, :]
    return _values(_values(levels.mul_(step), 3), 5).add_(128).reshape(b, c, h, w)


def _frequencies(blocks: Float[Tensor, "..."], axis: int) -> Float[Tensor, "..."]:
    """Cosine transform along an axis of 8: even frequencies see sums, odd ones differences."""
    import torch

    low, high = blocks.narrow(axis, 0, BLOCK // 2), blocks.narrow(axis, BLOCK // 2, BLOCK // 2)
    high = high.flip(axis)
    halves = [
        _sum(half, _COSINES[parity::2, : BLOCK // 2], axis)
        for parity, half in enumerate((low + high, low - high))
    ]
    return torch.stack(halves, dim=axis + 1).flatten(axis, axis + 1)


def _values(levels: Float[Tensor, "..."], axis: int) -> Float[Tensor, "..."]:
    """The inverse of `_frequencies`, times 8."""
    import torch

    even, odd = (
        _sum(part, _COSINES[parity::2, : BLOCK // 2].T, axis)
        for parity, part in enumerate(levels.unflatten(axis, (BLOCK // 2, 2)).unbind(axis + 1))  # type: ignore[no-untyped-call]
    )
    return torch.cat([even + odd, (even - odd).flip(axis)], dim=axis)


def _sum(
    parts: Float[Tensor, "..."], weights: Float64[np.ndarray, "4 4"], axis: int
) -> Float[Tensor, "..."]:
    """The four parts along an axis times the matrix; in one order, as no matrix product is."""
    import torch

    shape = [1] * parts.ndim
    shape[axis] = len(weights)
    columns = torch.from_numpy(np.ascontiguousarray(weights.T)).to(parts).unbind(0)
    total = parts.narrow(axis, 0, 1) * columns[0].view(shape)
    for place in (1, 2, 3):
        total.add_(parts.narrow(axis, place, 1) * columns[place].view(shape))
    return total


def _padded(planes: Float[Tensor, "b c h w"], multiple: int) -> Float[Tensor, "b c H W"]:
    """Planes of whole blocks: the last row and column go on."""
    import torch.nn.functional as F

    rows, columns = (-n % multiple for n in planes.shape[-2:])
    return F.pad(planes, (0, columns, 0, rows), mode="replicate") if rows or columns else planes


def _halved(planes: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h/2 w/2"]:
    pairs = planes[..., ::2, :] + planes[..., 1::2, :]
    return (pairs[..., ::2] + pairs[..., 1::2]) / 4


def _doubled(planes: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2*h 2*w"]:
    """As large again as before it was halved, by a triangle filter."""
    import torch.nn.functional as F

    return F.interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False)
