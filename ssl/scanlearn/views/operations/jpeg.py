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
# Even frequencies see sums of values that lie opposite each other, odd ones their differences.
_EVEN_FIRST = np.r_[0:BLOCK:2, 1:BLOCK:2]


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
    """Rounded to 8 bits, in place."""
    return values.add_(0.5).floor_().clamp_(0, 255)


def _coded(
    planes: Float[Tensor, "b c h w"], table: Float64[np.ndarray, "b 8 8"]
) -> Float[Tensor, "b c h w"]:
    """Planes of whole blocks after their coefficients were rounded to steps of the table."""
    import torch

    b, c, h, w = planes.shape
    by_block = planes.view(b, c, h // BLOCK, BLOCK, w // BLOCK, BLOCK)
    # Places in the block first: what a CPU adds up then lies side by side.
    blocks = by_block.permute(3, 5, 0, 1, 2, 4).reshape(BLOCK, BLOCK, b, -1).sub_(128)
    cosines = torch.from_numpy(_COSINES[_EVEN_FIRST, : BLOCK // 2]).to(planes)
    ordered = np.moveaxis(table[:, _EVEN_FIRST[:, None], _EVEN_FIRST], 0, -1)
    steps = torch.from_numpy(ordered).to(planes)[..., None]
    # Both transforms carry a factor of 8 each.
    levels = _frequencies(_frequencies(blocks, cosines, 0), cosines, 1).div_(steps * BLOCK)
    # Halves away from 0, as libjpeg has it; an average of 8 bits often is one.
    levels = levels.abs().add_(0.5).floor_().copysign_(levels).mul_(steps / BLOCK)
    values = _values(_values(levels, cosines, 0), cosines, 1).add_(128)
    by_place = values.view(BLOCK, BLOCK, b, c, h // BLOCK, w // BLOCK)
    return by_place.permute(2, 3, 4, 0, 5, 1).reshape(b, c, h, w)


def _frequencies(
    blocks: Float[Tensor, "8 8 b n"], cosines: Float[Tensor, "8 4"], axis: int
) -> Float[Tensor, "8 8 b n"]:
    """Cosine transform along an axis of 8, even frequencies first."""
    import torch

    low, high = blocks.chunk(2, axis)
    high = high.flip(axis)
    (even, odd), found = cosines.chunk(2), torch.empty_like(blocks)
    first, last = found.chunk(2, axis)
    _sum(low + high, even, axis, first)
    _sum(torch.sub(low, high, out=high), odd, axis, last)
    return found


def _values(
    levels: Float[Tensor, "8 8 b n"], cosines: Float[Tensor, "8 4"], axis: int
) -> Float[Tensor, "8 8 b n"]:
    """The inverse of `_frequencies`, times 8."""
    import torch

    found = torch.empty_like(levels)
    (even, odd), sums = levels.chunk(2, axis), found.chunk(2, axis)
    for part, weights, out in zip((even, odd), cosines.chunk(2), sums, strict=True):
        _sum(part, weights.T, axis, out)
    even, odd = sums
    difference = even - odd
    even.add_(odd)
    odd.copy_(difference.flip(axis))
    return found


def _sum(
    parts: Float[Tensor, "..."],
    weights: Float[Tensor, "4 4"],
    axis: int,
    out: Float[Tensor, "..."],
) -> None:
    """The four parts along an axis times the matrix; in one order, as no matrix product is."""
    import torch

    shape = [1] * parts.ndim
    shape[axis] = len(weights)
    columns = [column.view(shape) for column in weights.unbind(1)]
    first, *others = parts.chunk(4, axis)
    torch.mul(first, columns[0], out=out)
    product = torch.empty_like(out)
    for part, column in zip(others, columns[1:], strict=True):
        out.add_(torch.mul(part, column, out=product))


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
