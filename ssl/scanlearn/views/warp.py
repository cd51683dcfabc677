"""The drawn geometry as one grid, through which the packed scan is sampled once."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from scanlearn.core import ScanBatch
from scanlearn.views.draw import Draw
from scanlearn.views.operations.fields import elastic_field
from scanlearn.views.operations.geometry import LARGEST_ELASTIC
from scanlearn.views.settings import Background, Pivot, RenderSettings

# A hair beyond the scan is rounding.
_BEYOND_PX = 1e-6


class Way(IntEnum):
    """How a scan's view is resampled: along the axes, inside the scan or beyond; or by a grid."""

    INSIDE = 0
    BEYOND = 1
    WARPED = 2


def ways_of(batch: ScanBatch, draw: Draw, settings: RenderSettings) -> Int64[np.ndarray, "b v"]:
    """Returns how each view of each scan is resampled."""
    valid = batch.valid_box.cpu().numpy()[:, None]
    inwards = (draw.crop_box - valid) * np.array([1, 1, -1, -1])
    # A grid alone mirrors the scan.
    beyond = Way.WARPED if settings.background == "reflect" else Way.BEYOND
    ways = np.where((inwards < -_BEYOND_PX).any(-1), int(beyond), int(Way.INSIDE))
    return np.where(is_warped(draw), int(Way.WARPED), ways)


def is_warped(draw: Draw) -> Bool[np.ndarray, "b v"]:
    """Returns which views need more than a crop and a flip."""
    amounts = (draw.rotation_deg, draw.stretch, draw.elastic, draw.elastic_mm, draw.elastic_axial)
    warped: Bool[np.ndarray, "b v"] = (draw.translation != 0).any(-1) | (draw.shear_deg != 0).any(
        -1
    )
    for amount in amounts:
        warped |= amount != 0
    return warped


def is_elastic(draw: Draw, view: int) -> Bool[np.ndarray, " b"]:
    """Returns which scans' views are bent."""
    amounts = (draw.elastic, draw.elastic_mm, draw.elastic_axial)
    elastic: Bool[np.ndarray, " b"] = np.any([each[:, view] != 0 for each in amounts], axis=0)
    return elastic


def warp(
    planes: Float[Tensor, "b c h w"],
    valid_box: Float64[np.ndarray, "b 4"],
    draw: Draw,
    view: int,
    size: int,
    background: Background,
    pivot: Pivot = "centre",
    spacing_mm: Float64[np.ndarray, "b 2"] | None = None,
) -> Float[Tensor, "b c s s"]:
    """Returns the planes sampled through each scan's grid, antialiased where it shrinks.

    The elastic field bends the view, which is the affine image of the flipped crop; content moves
    as the draw says, so the grid applies the inverses in the opposite order. Bilinear where
    nothing shrinks; else several samples to a pixel, weighted by a triangle that makes up for what
    bilinear sampling lacks against Pillow's filter. Content beyond the crop but inside the valid
    box is real and is used; beyond the valid box lies the background.

    Args:
        planes: Content and, as the last plane, 1 where it is inside the valid box and the mask;
            all 0 outside.
        valid_box: Top, left, bottom and right of each scan on the canvas, in pixels.
        background: "black" leaves 0 outside; the others mirror the scan at its edges.
        pivot: What stays in its place; see `RenderSettings`.
        spacing_mm: Height and width of a canvas pixel, NaN where unknown; None where all are.
    """
    device = planes.device
    spacing = np.full((len(planes), 2), np.nan) if spacing_mm is None else spacing_mm
    to_canvas, offset = maps(draw, view, valid_box if pivot == "apex" else None)
    reach, taps = samples(draw, view, size)
    views = planes.new_empty((len(planes), planes.shape[1], size, size))
    for count in np.unique(taps):
        chosen = np.flatnonzero(taps == count)
        rows = torch.from_numpy(chosen).to(device)
        offsets, weights = _triangle(reach[chosen], int(count))
        drawn, known = draw.take(chosen), spacing[chosen]
        grid = _view_grid(drawn, view, size, offsets.to(device), known)
        matrix = torch.from_numpy(to_canvas[chosen]).float().to(device)
        start = torch.from_numpy(offset[chosen]).float().to(device)
        grid = _mapped(grid, matrix, start)
        if background != "black":
            grid = _reflected(grid, valid_box[chosen])
        sampled = _sample(planes[rows], grid)
        k = max(int(count), 1)
        parts = sampled.view(*sampled.shape[:2], size, k, size, k)
        weights = weights.to(device)
        views[rows] = (parts * weights).sum(-1).mul(weights[:, None]).sum(-2)
    return views


def samples(
    draw: Draw, view: int, size: int
) -> tuple[Float64[np.ndarray, " b"], Int64[np.ndarray, " b"]]:
    """Returns by how far, in pixels of the view, and how often each pixel is sampled on an axis."""
    # The crop alone shrinks: all else keeps areas, and stretches by a few per cent.
    box = draw.crop_box[:, view]
    shrink = (box[:, 2:] - box[:, :2]).max(axis=-1) / size
    # Half width of the triangle in pixels of the view: with the sampler's own triangle it has
    # the variance of a triangle as wide as the reduction.
    reach = np.sqrt(np.maximum(1 - 1 / np.maximum(shrink, 1) ** 2, 0))
    # No two samples are further apart than a pixel of the canvas.
    taps = np.where(reach > 0, np.maximum(np.ceil(2 * shrink * reach), 2), 0)
    return reach, taps.astype(np.int64)


def maps(
    draw: Draw, view: int, apex_of: Float64[np.ndarray, "b 4"] | None
) -> tuple[Float64[np.ndarray, "b 2 2"], Float64[np.ndarray, "b 2"]]:
    """Returns where a point (x, y) of the view, from -.5 to .5, lies on the canvas.

    A matrix and an offset.

    Args:
        apex_of: Valid boxes, the middle of whose upper edge inside the crop stays in its place;
            None for the centre of the crop.
    """
    turn = turn_matrix(draw.quarter_turns[:, view])
    forward = affine_matrix(draw, view) @ turn
    shift = draw.translation[:, view, ::-1]
    top, left, bottom, right = draw.crop_box[:, view].T
    extent = np.stack([right - left, bottom - top], axis=-1)
    signs = np.stack([draw.flip[:, view], draw.vflip[:, view]], axis=-1)
    scale = extent * np.where(signs, -1.0, 1.0)
    matrix = scale[:, :, None] * np.linalg.inv(forward)
    centre = np.stack([left + right, top + bottom], axis=-1) / 2
    still = centre
    if apex_of is not None:
        highest, first, _, last = apex_of.T
        middle = (np.maximum(left, first) + np.minimum(right, last)) / 2
        still = np.stack([middle, np.maximum(top, highest)], axis=-1)
        shift = shift + np.einsum("bij,bj->bi", turn, (still - centre) / scale)
    offset = still - np.einsum("bij,bj->bi", matrix, shift)
    return matrix, offset


def turn_matrix(turns: Int64[np.ndarray, " b"]) -> Float64[np.ndarray, "b 2 2"]:
    """Returns how quarter turns, counter-clockwise, move content in (x right, y down)."""
    cosine, sine = np.array([1.0, 0, -1, 0])[turns % 4], np.array([0.0, -1, 0, 1])[turns % 4]
    return _matrix(cosine, -sine, sine, cosine)


def affine_matrix(draw: Draw, view: int) -> Float64[np.ndarray, "b 2 2"]:
    """Returns how content moves in coordinates (x right, y down): rotation, shear, stretch.

    Source: the order and the shear matrix of torchvision's affine.
    """
    # Counter-clockwise for the eye is clockwise where y points down.
    angle = -np.deg2rad(draw.rotation_deg[:, view])
    shear_y, shear_x = np.tan(np.deg2rad(draw.shear_deg[:, view])).T
    rotation = _matrix(np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle))
    one = np.ones_like(angle)
    shear = _matrix(one, -shear_x, -shear_y, 1 + shear_x * shear_y)
    half = draw.stretch[:, view] / 2
    stretch = _matrix(np.exp(half), 0 * half, 0 * half, np.exp(-half))
    moved: Float64[np.ndarray, "b 2 2"] = rotation @ shear @ stretch
    return moved


def elastic_reach(
    draw: Draw, view: int, spacing_mm: Float64[np.ndarray, "b 2"] | None = None
) -> Float64[np.ndarray, "b 2"]:
    """Returns the largest elastic displacement along x and y, as shares of the view's side.

    Millimetres, where they are drawn and the scan's spacing is known, take the place of the share
    that is drawn; a small crop shows them larger, up to the share at which nothing folds yet.
    """
    reach = np.repeat(draw.elastic[:, view, None], 2, axis=1)
    drawn_mm = draw.elastic_mm[:, view, None]
    if spacing_mm is not None and drawn_mm.any():
        box = draw.crop_box[:, view]
        side_mm = ((box[:, 2:] - box[:, :2]) * spacing_mm)[:, ::-1]
        is_across = draw.quarter_turns[:, view, None] % 2 == 1
        side_mm = np.where(is_across, side_mm[:, ::-1], side_mm)
        share = np.minimum(drawn_mm / side_mm, LARGEST_ELASTIC)
        reach = np.where((drawn_mm > 0) & np.isfinite(side_mm), share, reach)
    reach[:, 1] += draw.elastic_axial[:, view]
    return reach


def displacement(
    draw: Draw,
    view: int,
    size: int,
    device: torch.device,
    spacing_mm: Float64[np.ndarray, "b 2"] | None = None,
) -> Float[Tensor, "b 2 s s"]:
    """Returns the elastic displacement (x, y) of each pixel, as shares of the view's side."""
    reach = torch.from_numpy(elastic_reach(draw, view, spacing_mm)).float().to(device)
    return reach[:, :, None, None] * elastic_field(draw.field_key[:, view], size, device)


def _matrix(*entries: Float64[np.ndarray, " b"]) -> Float64[np.ndarray, "b 2 2"]:
    return np.stack(entries, axis=-1).reshape(-1, 2, 2)


def _triangle(
    reach: Float64[np.ndarray, " b"], count: int
) -> tuple[Float[Tensor, "b k"], Float[Tensor, " k"]]:
    """Offsets of the samples of a pixel, in pixels, and their weights."""
    if count == 0:
        return torch.zeros(len(reach), 1), torch.ones(1)
    place = (np.arange(count) + 0.5) * 2 / count - 1
    weight = 1 - np.abs(place)
    offsets = torch.from_numpy(reach[:, None] * place).float()
    return offsets, torch.from_numpy(weight / weight.sum()).float()


def _view_grid(
    draw: Draw,
    view: int,
    size: int,
    offsets: Float[Tensor, "b k"],
    spacing_mm: Float64[np.ndarray, "b 2"],
) -> Float[Tensor, "b t t 2"]:
    """Points (x, y) of every sample in the view's own coordinates, the elastic field applied."""
    pixel = torch.arange(size, device=offsets.device) + 0.5
    line = (pixel[None, :, None] + offsets[:, None, :]).flatten(1) / size - 0.5
    t = line.shape[1]
    x, y = line[:, None, :].expand(-1, t, t), line[:, :, None].expand(-1, t, t)
    grid = torch.stack([x, y], dim=-1)
    if not is_elastic(draw, view).any():
        return grid
    field = displacement(draw, view, size, offsets.device, spacing_mm)
    if t != size:
        field = F.interpolate(field, (t, t), mode="bilinear", align_corners=False)
    return grid + field.permute(0, 2, 3, 1)


def _mapped(
    grid: Float[Tensor, "b t t 2"], matrix: Float[Tensor, "b 2 2"], offset: Float[Tensor, "b 2"]
) -> Float[Tensor, "b t t 2"]:
    """Point by point: a matrix product rounds otherwise in another batch."""
    x, y = grid.unbind(-1)
    rows = zip(matrix[..., None, None].unbind(1), offset[..., None, None].unbind(1), strict=True)
    return torch.stack([row[:, 0] * x + row[:, 1] * y + start for row, start in rows], dim=-1)


def _reflected(
    grid: Float[Tensor, "b t t 2"], valid_box: Float64[np.ndarray, "b 4"]
) -> Float[Tensor, "b t t 2"]:
    box = torch.from_numpy(np.asarray(valid_box)).float().to(grid.device)
    low, high = box[:, None, None, [1, 0]], box[:, None, None, [3, 2]]
    span = high - low
    folded = (grid - low).remainder(2 * span)
    inside = span - (folded - span).abs()
    # Half a pixel in from the edge, where sampling would mix in what lies beyond it.
    return low + torch.minimum(inside.clamp(min=0.5), span - 0.5)


def _sample(
    planes: Float[Tensor, "b c h w"], grid: Float[Tensor, "b t t 2"]
) -> Float[Tensor, "b c t t"]:
    h, w = planes.shape[-2:]
    unit = grid / grid.new_tensor([w / 2, h / 2]) - 1
    return F.grid_sample(planes, unit, mode="bilinear", padding_mode="zeros", align_corners=False)
