"""Banded resampling: every output pixel is a short weighted sum along one axis, then the other.

Crop, resize, flip and blur are all of this form. `Taps` says which input rows (or columns) an
output row is made of and with what weight; `resample` applies a pair of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor


@dataclass(frozen=True)
class Taps:
    """Which inputs make an output along one axis.

    Args:
        index: ``[b s t]`` input position of each tap, inside the axis.
        weight: ``[b s t]`` weight of each tap; the taps of an output sum to 1.
    """

    index: Int[Tensor, "b s t"]
    weight: Float[Tensor, "b s t"]

    def rows(self, start: int, stop: int) -> Taps:
        """Returns the taps of some scans of the batch."""
        return Taps(self.index[start:stop], self.weight[start:stop])


def crop_taps(
    low: Float64[np.ndarray, " b"],
    high: Float64[np.ndarray, " b"],
    *,
    size: int,
    extent: int,
    reverse: Bool[np.ndarray, " b"] | None = None,
) -> Taps:
    """Returns the taps that resize the interval from ``low`` to ``high`` to ``size`` pixels.

    A triangle filter as wide as a reduction asks for (antialiased), clipped and renormalised at
    the ends of the interval, so that what lies outside it never enters: what cropping first and
    resizing then would give. A pixel the interval only partly covers weighs by that part, which
    keeps the result continuous in its ends.

    Args:
        low: Start of the interval on each scan, in pixels from the canvas's edge.
        high: Its end.
        size: Number of output pixels.
        extent: Pixels along this axis of the canvas.
        reverse: Scans whose output is mirrored.

    Source: the bilinear filter of Pillow's resize (libImaging, Resample.c).
    """
    step = (high - low)[:, None] / size
    centre = low[:, None] + (np.arange(size) + 0.5) * step
    if reverse is not None:
        centre = np.where(reverse[:, None], centre[:, ::-1], centre)
    reach = np.maximum(step, 1.0)
    first = np.floor(centre - reach - 0.5) + 1
    # From the canvas, not from the batch: a scan's views do not depend on its neighbours.
    num_taps = math.ceil(2 * max(extent / size, 1.0)) + 1
    tap = np.arange(num_taps, dtype=np.float32)

    def from_first(position: Float64[np.ndarray, "b s"]) -> Float[np.ndarray, "b s 1"]:
        distance: Float[np.ndarray, "b s 1"] = (position - first).astype(np.float32)[..., None]
        return distance

    from_centre = np.abs(tap + np.float32(0.5) - from_first(centre))
    weight = np.maximum(1 - from_centre / reach.astype(np.float32)[..., None], 0)
    start, stop = from_first(low[:, None]), from_first(high[:, None])
    weight *= np.clip(np.minimum(tap + 1, stop) - np.maximum(tap, start), 0, 1)
    weight /= weight.sum(axis=-1, keepdims=True)
    index = np.clip(first[..., None].astype(np.int64) + tap.astype(np.int64), 0, extent - 1)
    return Taps(torch.from_numpy(index), torch.from_numpy(weight))


def blur_taps(sigma: Float64[np.ndarray, " b"], *, size: int) -> Taps:
    """Returns the taps of a Gaussian blur that reflects at the edge of the view.

    Args:
        sigma: Standard deviation for each scan, in pixels of this view.
        size: Side of the view. The kernel spans a tenth of it, an odd number of pixels.

    Source: kernel width, SimCLR's released code (data_util.random_blur); kernel values and
    reflection, torchvision's gaussian_blur.
    """
    radius = min(max(1, size // 10 // 2), size - 1)
    offset = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offset / sigma[:, None]) ** 2)
    kernel /= kernel.sum(axis=-1, keepdims=True)
    position = np.arange(size)[:, None] + offset
    reflected = (size - 1) - np.abs((size - 1) - np.abs(position))
    shape = (len(sigma), size, 2 * radius + 1)
    index = np.broadcast_to(reflected, shape).copy()
    weight = np.broadcast_to(kernel[:, None].astype(np.float32), shape).copy()
    return Taps(torch.from_numpy(index), torch.from_numpy(weight))


def resample(
    planes: Float[Tensor, "b c h w"], rows: Taps, columns: Taps
) -> Float[Tensor, "b c s s"]:
    """Returns the planes resampled along both axes.

    Args:
        planes: Float planes of any range.
        rows: Taps along the height, inside ``h``.
        columns: Taps along the width, inside ``w``.
    """
    halfway = _gather(planes, rows)
    return _gather(halfway.transpose(2, 3), columns).transpose(2, 3)


def _gather(planes: Float[Tensor, "b c h w"], taps: Taps) -> Float[Tensor, "b c s w"]:
    """Sums weighted rows: an embedding bag, which is fast on CPU and GPU and reads only the band.

    Multiplying by the dense matrix of the same weights takes up to three times as long on a CPU.
    """
    b, c, h, w = planes.shape
    size, num_taps = taps.index.shape[1:]
    index = taps.index.to(planes.device, non_blocking=True)
    weight = taps.weight.to(planes.device, non_blocking=True)
    plane = torch.arange(b * c, device=planes.device).view(b, c, 1, 1) * h
    bags = F.embedding_bag(
        (index[:, None] + plane).reshape(b * c * size, num_taps),
        planes.reshape(b * c * h, w),
        per_sample_weights=weight[:, None].expand(b, c, size, num_taps).reshape(-1, num_taps),
        mode="sum",
    )
    return bags.view(b, c, size, w)
