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
from jaxtyping import Bool, Float, Float64, Int, Int64, Shaped
from scipy.special import ndtr
from torch import Tensor

# Where a Gaussian is cut off, in sigmas, as scipy.ndimage does: 6e-5 of it lie further out.
BLUR_REACH = 4.0


@dataclass(frozen=True)
class Taps:
    """Which inputs make an output along one axis.

    Args:
        start: ``[b]`` first input position that any output of the scan needs.
        stop: ``[b]`` position after the last.
        index: ``[b s t]`` position of each tap from there.
        weight: ``[b s t]`` weight of each tap; the taps of an output sum to 1 where all of it lies
            on the scan.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    index: Int[Tensor, "b s t"]
    weight: Float[Tensor, "b s t"]

    @classmethod
    def of(cls, index: Int64[np.ndarray, "b s t"], weight: Float[np.ndarray, "b s t"]) -> Taps:
        """Returns the taps at positions ``index`` of the axis."""
        start = index.min(axis=(1, 2))
        return cls(
            start=tuple(start.tolist()),
            stop=tuple((index.max(axis=(1, 2)) + 1).tolist()),
            index=torch.from_numpy(np.ascontiguousarray(index - start[:, None, None])),
            weight=torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32)),
        )


def crop_taps(
    low: Float64[np.ndarray, " b"],
    high: Float64[np.ndarray, " b"],
    *,
    size: int,
    extent: int,
    longest: int | None = None,
    inside: tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " b"]] | None = None,
    reverse: Bool[np.ndarray, " b"] | None = None,
) -> Taps:
    """Returns the taps that resize the interval from ``low`` to ``high`` to ``size`` pixels.

    A triangle filter as wide as a reduction asks for (antialiased), clipped and renormalised at
    the ends of the interval, so that what lies outside it never enters: what cropping first and
    resizing then would give. A pixel the interval only partly covers weighs by that part, which
    keeps the result continuous in its ends. Where the interval reaches beyond the scan, that part
    of it weighs as if the scan went on with zeros.

    Args:
        low: Start of the interval on each scan, in pixels from the canvas's edge.
        extent: Pixels along this axis of the canvas.
        longest: Length of the longest interval that is ever asked for; None is ``extent``.
        inside: First pixel of each scan, and the one after its last; None is the canvas.

    Source: the bilinear filter of Pillow's resize (libImaging, Resample.c).
    """
    step = (high - low)[:, None] / size
    centre = low[:, None] + (np.arange(size) + 0.5) * step
    if reverse is not None:
        centre = np.where(reverse[:, None], centre[:, ::-1], centre)
    reach = np.maximum(step, 1.0)
    first = np.floor(centre - reach - 0.5) + 1
    # From the canvas, not from the batch: a scan's views do not depend on its neighbours.
    num_taps = math.ceil(2 * max((longest or extent) / size, 1.0)) + 1
    # Taps are the first axis up to the end: numpy is slow along a last axis as short as theirs.
    tap = np.arange(num_taps, dtype=np.float32)[:, None, None]

    def from_first(position: Float64[np.ndarray, "b s"]) -> Float[np.ndarray, "b s"]:
        distance: Float[np.ndarray, "b s"] = (position - first).astype(np.float32)
        return distance

    from_centre = np.abs(tap + np.float32(0.5) - from_first(centre))
    weight = np.maximum(1 - from_centre / reach.astype(np.float32), 0)
    begin, end = from_first(low[:, None]), from_first(high[:, None])
    covered = np.minimum(tap + 1, end) - np.maximum(tap, begin)
    weight *= np.minimum(np.maximum(covered, 0), 1)
    weight /= weight.sum(axis=0)
    position = first.astype(np.int64) + np.arange(num_taps)[:, None, None]
    index = np.minimum(np.maximum(position, 0), extent - 1)
    start, stop = (0, extent) if inside is None else (edge[:, None] for edge in inside)
    weight *= (position >= start) & (position < stop)
    return Taps.of(np.moveaxis(index, 0, -1), np.moveaxis(weight, 0, -1))


def blur_taps(sigma: Float64[np.ndarray, " b"], *, size: int) -> Taps:
    """Returns the taps of a Gaussian blur that reflects at the edge of the view.

    A pixel weighs what the Gaussian holds between its edges. Sampled at whole pixels the blur was
    the identity below a sigma of .4, which at 64 px was half of all drawn ones; and a kernel of a
    tenth of the view cut a local view's Gaussian off at two sigmas.

    Args:
        sigma: Standard deviation for each scan, in pixels of this view; above 0.
        size: Side of the view.

    Source: reflection, torchvision's gaussian_blur.
    """
    reach = np.maximum(np.ceil(BLUR_REACH * sigma - 0.5), 1)[:, None]
    radius = int(reach.max())
    offset = np.arange(-radius, radius + 1)
    # To the left of the centre, where the distribution function is small and exact.
    away, width = np.abs(offset), sigma[:, None]
    kernel = (ndtr((0.5 - away) / width) - ndtr((-0.5 - away) / width)) * (away <= reach)
    # Not over its sum, whose rounding depends on how wide the widest kernel of the batch is.
    kernel /= 1 - 2 * ndtr((-0.5 - reach) / width)
    # A kernel wider than the view is reflected to and fro.
    period = max(2 * (size - 1), 1)
    position = (np.arange(size)[:, None] + offset) % period
    reflected = np.minimum(position, period - position)
    shape = (len(sigma), *reflected.shape)
    return Taps.of(np.broadcast_to(reflected, shape), np.broadcast_to(kernel[:, None], shape))


def coarse_taps(side: Int64[np.ndarray, " b"], *, size: int) -> Taps:
    """Returns the taps that pick ``side`` pixels and interpolate between them by Keys' cubic.

    Args:
        side: Pixels that are left along the axis for each scan, from 1 to ``size``.
        size: Side of the view.
    """
    step = size / side[:, None]
    place = (np.arange(size) + 0.5) / step - 0.5
    first = np.floor(place)
    tap = np.arange(-1, 3)
    away = np.abs((place - first)[..., None] - tap)
    near = (1.5 * away - 2.5) * away**2 + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    weight = np.where(away <= 1, near, far)
    kept = np.clip(first[..., None] + tap, 0, side[:, None, None] - 1)
    return Taps.of(np.floor((kept + 0.5) * step[..., None]).astype(np.int64), weight)


def resample(
    planes: Shaped[Tensor, "b c h w"], rows: Taps, columns: Taps
) -> Float[Tensor, "b c s s"]:
    """Returns the planes resampled along both axes.

    Only what the taps touch is read, so that the cost of a crop follows its size. Integers are made
    float, which costs least here.
    """
    top, left = min(rows.start), min(columns.start)
    touched = planes[:, :, top : max(rows.stop), left : max(columns.stop)].transpose(2, 3)
    turned = touched.to(torch.float32, memory_format=torch.contiguous_format)
    # The rows last: what comes out lies in memory as it is, and need not be turned over again.
    return _gather(_gather(turned, columns, left).transpose(2, 3), rows, top)


def _gather(planes: Float[Tensor, "b c h w"], taps: Taps, start: int) -> Float[Tensor, "b c s w"]:
    """Weighted sums of lines; the first line of the planes stands at ``start`` of the axis."""
    b, c, h, w = planes.shape
    size, num_taps = taps.index.shape[1:]
    first = torch.tensor(taps.start).view(b, 1, 1) - start
    index = (taps.index + first).to(planes.device, non_blocking=True)
    weight = taps.weight.to(planes.device, non_blocking=True)
    plane = torch.arange(b * c, device=planes.device).view(b, c, 1, 1) * h
    sums = _sums(
        # Of lines that lie crosswise, as those of a single plane would, sums are rounded otherwise.
        planes.reshape(b * c * h, w).contiguous(),
        (index[:, None] + plane).reshape(b * c * size, num_taps),
        weight[:, None].expand(b, c, size, num_taps).reshape(-1, num_taps),
    )
    return sums.view(b, c, size, w)


def _sums(
    lines: Float[Tensor, "h k"], index: Int[Tensor, "s t"], weight: Float[Tensor, "s t"]
) -> Float[Tensor, "s k"]:
    """Sums weighted lines: an embedding bag, which is fast on CPU and GPU and reads only the band.

    Multiplying by the dense matrix of the same weights takes up to six times as long on a CPU.
    """
    num_bags, num_taps = index.shape
    first = torch.arange(0, num_bags * num_taps, num_taps, device=index.device)
    return F.embedding_bag(
        index.flatten(), lines, first, per_sample_weights=weight.flatten(), mode="sum"
    )
