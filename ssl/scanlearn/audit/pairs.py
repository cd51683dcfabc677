"""Pairs of scans that are copies: equal by their hash, or alike by their pixels.

A proposed pair counts when the correlation of the two small pictures, after the best small shift
and stretch, reaches a bound.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from scanlearn.archive.reader import Archive
from scanlearn.audit.fingerprint import (
    SIDE,
    batch_size,
    small_pictures,
    turn_pictures,
)
from scanlearn.audit.proposals import Proposals
from scanlearn.console import Progressor

# Largest shift tried, in pixels of a picture, and what is left out of the comparison at each edge.
MAX_SHIFT = 4
# Largest stretch: what undoes a crop of 3 % at each edge.
MAX_STRETCH = 0.07
# Below it a picture is another one, however well it is laid over.
_WORTH_REFINING = 0.9
_STEPS = 4
_AROUND = 7
# Contrast of detail below which it is taken for noise, such as that of a JPEG; a picture's is 1.
_NOISE = 0.1
_INNER = SIDE - 2 * MAX_SHIFT
_CENTRE = (SIDE - 1) / 2


def equal_pairs(
    first: Shaped[np.ndarray, " n"], second: Shaped[np.ndarray, " m"]
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Returns the places of equal values: each of ``second`` with the first such of ``first``."""
    if not len(first):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    values, place = np.unique(first, return_index=True)
    at = np.minimum(np.searchsorted(values, second), len(values) - 1)
    equal = np.flatnonzero(values[at] == second)
    return place[at[equal]].astype(np.int64), equal.astype(np.int64)


def equal_across(
    values: Shaped[np.ndarray, " n"], groups: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Returns the places of equal values in different groups.

    Of all places with one value, those outside the group of the first are paired with the first.
    """
    first, second = equal_pairs(values, values)
    across = groups[first] != groups[second]
    return first[across], second[across]


def correlations(
    first: Archive, second: Archive, proposals: Proposals, progress: Progressor
) -> Float32[np.ndarray, "2 p"]:
    """Returns the correlations of pixels and of detail, after the best small shift and stretch.

    ``proposals`` names rows of both archives, and the turn that the second scan needs.
    """
    both = np.empty((2, len(proposals)), np.float32)
    size = min(batch_size(first), batch_size(second))
    for start in range(0, len(proposals), size):
        part = slice(start, start + size)
        one = _pictures(first, proposals.first[part])
        other = _pictures(second, proposals.second[part])
        turns = proposals.turn[part]
        for turn in np.unique(turns).tolist():
            rows = np.flatnonzero(turns == turn)
            turned = turn_pictures(other[rows], turn)
            r_and_detail = aligned_correlations(one[rows], turned)
            both[:, start + rows] = torch.stack(r_and_detail).numpy()
        progress.advance(len(one))
    return both


def _pictures(archive: Archive, rows: Int64[np.ndarray, " p"]) -> Float32[Tensor, "p s s"]:
    """Returns the small pictures of rows, some of which come more than once."""
    single, place = np.unique(rows, return_inverse=True)
    return small_pictures(archive.gather(single))[torch.from_numpy(place)]


def aligned_correlations(
    one: Float32[Tensor, "p s s"], other: Float32[Tensor, "p s s"]
) -> tuple[Float32[Tensor, " p"], Float32[Tensor, " p"]]:
    """Returns how the middle of one picture correlates with the part of the other most like it.

    The middle is without 4 of 64 pixels at each edge. The other is shifted by up to 4 pixels and
    stretched by up to 7 %, each down and across. A picture without contrast correlates with
    nothing: 0.

    Returns:
        ``[p]`` highest correlation of the pixels; ``[p]`` correlation of their detail in the same
        place, 0 where the former is below .9. Detail is what is left without the mean of 7 x 7
        pixels, for equal contrast everywhere: the shading and the rim of two fundus photographs
        agree to .99 where their vessels do not.
    """
    r, shift = _best_shift(one, other)
    detail = torch.zeros_like(r)
    close = torch.nonzero(r >= _WORTH_REFINING)[:, 0]
    if len(close):
        r[close], detail[close] = _refined(_middle(one[close]), other[close], shift[close])
    return r, detail


def _middle(pictures: Float32[Tensor, "p s s"]) -> Float32[Tensor, "p i i"]:
    inner = pictures[:, MAX_SHIFT:-MAX_SHIFT, MAX_SHIFT:-MAX_SHIFT]
    return inner - inner.mean((1, 2), keepdim=True)


def _best_shift(
    one: Float32[Tensor, "p s s"], other: Float32[Tensor, "p s s"]
) -> tuple[Float32[Tensor, " p"], Float32[Tensor, "p 2"]]:
    """Returns the best correlation over whole pixels, and how far the other lies down and right."""
    middle = _middle(one)
    template = torch.zeros_like(one)
    template[:, :_INNER, :_INNER] = middle
    # Every shift at once, as a product of transforms; the template is small enough not to wrap.
    places = 2 * MAX_SHIFT + 1
    transforms = torch.fft.rfft2(other) * torch.fft.rfft2(template).conj()
    products = torch.fft.irfft2(transforms, s=one.shape[1:])[:, :places, :places]
    mean, power = (avg_pool2d(x[:, None], _INNER, 1)[:, 0] for x in (other, other.square()))
    spread = (power - mean.square()).clamp(min=0) * _INNER**2
    norms = (middle.square().sum((1, 2))[:, None, None] * spread).sqrt()
    # In units where a whole picture has norm 64; what is far less is rounding.
    has_contrast = norms > 1e-3 * SIDE**2
    all_shifts = torch.where(has_contrast, products / norms.clamp(min=1e-6), 0.0)
    r, place = all_shifts.flatten(1).max(1)
    shift = torch.stack([place // places, place % places], 1) - MAX_SHIFT
    return r, shift.float()


def _refined(
    middle: Float32[Tensor, "p i i"], other: Float32[Tensor, "p s s"], shift: Float32[Tensor, "p 2"]
) -> tuple[Float32[Tensor, " p"], Float32[Tensor, " p"]]:
    """Returns the best correlation on the way to the best shift and stretch, and its detail's.

    Source: Lucas, Kanade, "An Iterative Image Registration Technique", IJCAI 1981; contrast and
    brightness are fitted along.
    """
    wanted = (middle / middle.square().mean((1, 2), keepdim=True).sqrt()).flatten(1)
    moved = torch.cat([shift, torch.zeros_like(shift)], 1)
    limits = torch.tensor([MAX_SHIFT, MAX_SHIFT, MAX_STRETCH, MAX_STRETCH])
    ramp = torch.arange(_INNER) - (_INNER - 1) / 2
    best, like = torch.full((len(middle),), -1.0), torch.zeros_like(middle)
    for _ in range(_STEPS):
        seen = _resampled(other, moved, ramp)
        r = _correlation(middle, seen)
        like = torch.where((r > best)[:, None, None], seen, like)
        best = torch.maximum(best, r)
        down, across = torch.gradient(seen, dim=(1, 2))
        slopes = (down, across, down * ramp[:, None], across * ramp, seen, torch.ones_like(seen))
        columns = torch.stack([slope.flatten(1) for slope in slopes], 2)
        square = columns.mT @ columns
        # A hair on the diagonal keeps a picture without slopes solvable.
        square += torch.diag_embed(1e-4 * square.diagonal(dim1=1, dim2=2) + 1e-3)
        fitted = torch.linalg.solve(square, (columns.mT @ wanted[:, :, None])[:, :, 0])
        step = fitted[:, :4] / fitted[:, 4:5].clamp(min=0.1)
        moved = torch.clamp(moved + step, -limits, limits)
    return best, _correlation(_detail(middle), _detail(like))


def _correlation(
    one: Float32[Tensor, "p i i"], other: Float32[Tensor, "p i i"]
) -> Float32[Tensor, " p"]:
    one, other = (x.flatten(1) - x.mean((1, 2))[:, None] for x in (one, other))
    norms = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    r: Tensor = (one * other).sum(1) / norms.clamp(min=1e-6)
    return r


def _detail(pictures: Float32[Tensor, "p i i"]) -> Float32[Tensor, "p i i"]:
    """Returns pictures without the mean of their surroundings, for equal contrast throughout."""

    def around(x: Float32[Tensor, "p i i"]) -> Float32[Tensor, "p i i"]:
        mean = avg_pool2d(x[:, None], _AROUND, 1, _AROUND // 2, count_include_pad=False)
        return mean[:, 0]

    fine = pictures - around(pictures)
    return fine / (around(fine.square()).sqrt() + _NOISE)


def _resampled(
    other: Float32[Tensor, "p s s"], moved: Float32[Tensor, "p 4"], ramp: Float32[Tensor, " i"]
) -> Float32[Tensor, "p i i"]:
    """Returns the part that lies under the middle after shifts and stretches, down and across."""
    places = _CENTRE + moved[:, :2, None] + (1 + moved[:, 2:, None]) * ramp
    down, across = ((2 * places + 1) / SIDE - 1).unbind(1)
    size = (len(other), _INNER, _INNER)
    grid = torch.stack([across[:, None, :].expand(size), down[:, :, None].expand(size)], 3)
    drawn = grid_sample(
        other[:, None], grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    return drawn[:, 0]
