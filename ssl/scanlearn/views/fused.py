"""Views on a CPU: a draw as numbers, the compiled renderer called with them, and what it lacks.

An operation that is no step of the renderer is done by its row of the table, with torch, between
two calls: before all steps that the table lists after it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped, UInt8
from torch import Tensor

from scanlearn.core import ScanBatch
from scanlearn.views import kernel
from scanlearn.views.draw import Draw
from scanlearn.views.operations.operation import Rendering
from scanlearn.views.operations.table import OPERATIONS
from scanlearn.views.operations.tone import moved_window
from scanlearn.views.settings import LEAST_BLUR_PX, RenderSettings, Standard
from scanlearn.views.warp import Way, displacement, is_elastic, maps, samples, ways_of

_KINDS = {
    torch.uint8: kernel.EIGHT_BITS,
    torch.uint16: kernel.SIXTEEN_BITS,
    torch.float32: kernel.FLOATS,
}
_NO_LINES = tuple(np.zeros((0, 1, 1), kind) for kind in (np.uint8, np.uint16, np.float32))
_Apply = Callable[[Tensor, Rendering], None]
# What is drawn for a view and the column that holds it as it is.
_AS_DRAWN = {
    "flip": kernel.FLIP, "vflip": kernel.VFLIP, "quarter_turns": kernel.TURNS,
    "jitter": kernel.JITTER, "brightness": kernel.BRIGHTNESS, "contrast": kernel.CONTRAST,
    "saturation": kernel.SATURATION, "hue": kernel.HUE, "gray": kernel.GRAY,
    "solarize": kernel.SOLARIZE, "posterise_bits": kernel.BITS,
}  # fmt: skip


@dataclass(frozen=True)
class _Scans:
    """The scans of a batch as the renderer reads them; see `kernel.render_rows`."""

    lines: tuple[Shaped[np.ndarray, "n l w"], ...]
    kind: int
    channels: int
    is_interleaved: bool
    mask: UInt8[np.ndarray, "m h w"]

    @classmethod
    def of(cls, batch: ScanBatch) -> _Scans:
        pixels = batch.pixels if batch.pixels.dtype in _KINDS else batch.pixels.float()
        b, c, h, w = pixels.shape
        mask = np.zeros((0, h, w), np.uint8)
        if batch.mask is not None:
            mask = batch.mask.contiguous().numpy().view(np.uint8)
        last = pixels.permute(0, 2, 3, 1)
        # Decoded pictures are read as they lie.
        is_interleaved = c > 1 and last.is_contiguous()
        if is_interleaved:
            stored = last.numpy().reshape(b, h, w * c)
        else:
            stored = pixels.contiguous().numpy().reshape(b, c * h, w)
        kind = _KINDS[pixels.dtype]
        lines = (*_NO_LINES[:kind], stored, *_NO_LINES[kind + 1 :])
        return cls(lines, kind, c, is_interleaved, mask)


def render_fused(
    batch: ScanBatch,
    draw: Draw,
    views: Sequence[int],
    size: int,
    settings: RenderSettings,
    standard: Standard | None,
) -> tuple[Float[Tensor, "b c s s"], ...]:
    """Returns several views of every scan; see `render.render_views`."""
    scans = _Scans.of(batch)
    # One tensor a view: an allocation that is too large comes back as pages to be faulted in.
    together = [list(views)] if len(batch) == 1 else [[view] for view in views]
    found: list[Tensor] = []
    ways = ways_of(batch, draw, settings)
    for some in together:
        out = _rendered(scans, Orders.of(batch, draw, ways, some, size, settings, standard))
        found += [out[end : end + len(batch)] for end in range(0, len(out), len(batch))]
    return tuple(found)


def render_orders(batch: ScanBatch, orders: Sequence[Orders]) -> list[Float[Tensor, "c s s"]]:
    """Returns the views that are ordered of a batch of one scan, one after the other."""
    scans = _Scans.of(batch)
    return [view for some in orders for view in _rendered(scans, some).unbind()]


@dataclass(frozen=True)
class Orders:
    """What is done to views of one size, whatever the pixels that they are made of.

    Args:
        scan: Whose draw each view is made by.
        source: Of which scan of the batch it is made.
        view: Which of the draw's views it is.
        numbers: What the renderer does to it; see `kernel.render_rows`.
        fields: Elastic displacements that `numbers` counts.
        linear: Factor and offset of finished views, per channel.
        is_covered: Whether it has a coverage.
        unit_hu: Hounsfield units that it spans; None where values are none.
        others: Operations that are no step of the renderer, in their order: the steps since the
            one before, how it is applied, and to which views.
        last: The steps after them.
    """

    draw: Draw
    size: int
    settings: RenderSettings
    scan: Int64[np.ndarray, " k"]
    source: Int64[np.ndarray, " k"]
    view: Int64[np.ndarray, " k"]
    numbers: Float64[np.ndarray, "k n"]
    fields: Float32[np.ndarray, "f 2 s s"]
    linear: Float32[np.ndarray, "2 c"]
    is_covered: Bool[np.ndarray, " k"]
    unit_hu: Float64[np.ndarray, " k"] | None
    others: tuple[tuple[int, _Apply, Bool[np.ndarray, " k"]], ...]
    last: int

    @classmethod
    def of(
        cls,
        batch: ScanBatch,
        draw: Draw,
        ways: Int64[np.ndarray, "b v"],
        views: list[int],
        size: int,
        settings: RenderSettings,
        standard: Standard | None,
    ) -> Orders:
        """Returns what a draw does to a batch, or to any scan like the only one of a batch."""
        channels = batch.pixels.shape[1]
        scan = np.arange(len(draw)).repeat(len(views))
        view = np.tile(views, len(draw))
        way = ways[:, views].reshape(-1)
        numbers = _numbers(batch, draw, views, size, settings)
        numbers[:, kernel.WAY] = way
        unit_hu = None
        if batch.hu_per_value is not None:
            unit_hu = batch.hu_per_value * (numbers[:, kernel.HIGH] - numbers[:, kernel.LOW])
        linear = np.ones((2, channels), np.float32)
        linear[1] = 0
        if standard is not None:
            linear[:] = standard.linear
        others, last = _others(draw, scan, view)
        return cls(
            draw=draw,
            size=size,
            settings=settings,
            scan=scan,
            source=scan if len(batch) == len(draw) else np.zeros_like(scan),
            view=view,
            numbers=numbers,
            fields=_add_warps(numbers, batch, draw, views, size, settings),
            linear=linear,
            is_covered=(way != Way.INSIDE) | (batch.mask is not None),
            unit_hu=unit_hu,
            others=others,
            last=last,
        )

    def of_scan(self, row: int) -> Orders:
        """Returns those for one scan of the draw, to be done to the only scan of a batch."""
        count = len(self.scan) // len(self.draw)
        part = slice(row * count, (row + 1) * count)
        return Orders(
            self.draw,
            self.size,
            self.settings,
            self.scan[part],
            self.source[:count],
            self.view[part],
            self.numbers[part],
            self.fields,
            self.linear,
            self.is_covered[part],
            None if self.unit_hu is None else self.unit_hu[part],
            tuple((steps, apply, acts[part]) for steps, apply, acts in self.others),
            self.last,
        )


def _numbers(
    batch: ScanBatch, draw: Draw, views: list[int], size: int, settings: RenderSettings
) -> Float64[np.ndarray, "k n"]:
    """What is done to each view, but for how it is resampled."""
    numbers = np.zeros((len(draw), len(views), kernel.NUM_COLUMNS))
    numbers[..., kernel.TOP : kernel.RIGHT + 1] = draw.crop_box[:, views]
    box = batch.valid_box.numpy()[:, None]
    numbers[..., kernel.VALID_TOP : kernel.VALID_RIGHT + 1] = box
    for name, column in _AS_DRAWN.items():
        numbers[..., column] = getattr(draw, name)[:, views]
    numbers[..., kernel.ORDER : kernel.ORDER + 4] = draw.order[:, views]
    numbers[..., kernel.SHIFT : kernel.SHIFT + 3] = draw.histogram_shift[:, views]
    blur = settings.blur_px(draw.blur_sigma[:, views], size)
    soft = draw.soft_sigma[:, views]
    numbers[..., kernel.BLUR_PX] = blur * (draw.blur[:, views] & (blur > LEAST_BLUR_PX))
    numbers[..., kernel.SOFT_PX] = soft * (soft > LEAST_BLUR_PX)
    # In single precision, as everything that is done to values.
    low, high = batch.value_range.numpy().astype(np.float32)[:, None].transpose(2, 0, 1)
    width, level = (
        each[:, views].astype(np.float32) for each in (draw.window_width, draw.window_level)
    )
    numbers[..., kernel.LOW], numbers[..., kernel.HIGH] = moved_window(low, high, width, level)
    return numbers.reshape(-1, kernel.NUM_COLUMNS)


def _add_warps(
    numbers: Float64[np.ndarray, "k n"],
    batch: ScanBatch,
    draw: Draw,
    views: list[int],
    size: int,
    settings: RenderSettings,
) -> Float32[np.ndarray, "f 2 s s"]:
    """Adds the grids of warped views to their numbers; returns the displacements."""
    fields = [np.zeros((0, 2, size, size), np.float32)]
    count = 0
    numbers[:, kernel.FIELD] = -1
    numbers[:, kernel.REFLECTS] = settings.background != "black"
    by_view = numbers.reshape(len(draw), len(views), -1)
    boxes, spacings = (
        np.broadcast_to(each.numpy(), (len(draw), each.shape[1]))
        for each in (batch.valid_box, batch.spacing_mm)
    )
    for number, view in enumerate(views):
        rows = np.flatnonzero(by_view[:, number, kernel.WAY] == Way.WARPED)
        if not len(rows):
            continue
        drawn, box = draw.take(rows), boxes[rows].astype(np.float64)
        matrix, offset = maps(drawn, view, box if settings.pivot == "apex" else None)
        grid = np.concatenate([matrix.reshape(-1, 4), offset], axis=1)
        by_view[rows, number, kernel.XX : kernel.Y + 1] = grid
        reach, taps = samples(drawn, view, size)
        by_view[rows, number, kernel.REACH] = reach
        by_view[rows, number, kernel.SAMPLES] = taps
        bent = np.flatnonzero(is_elastic(drawn, view))
        if len(bent):
            spacing = spacings.astype(np.float64)[rows[bent]]
            field = displacement(drawn.take(bent), view, size, torch.device("cpu"), spacing)
            fields.append(field.numpy())
            by_view[rows[bent], number, kernel.FIELD] = np.arange(count, count + len(bent))
            count += len(bent)
    return np.concatenate(fields)


def _others(
    draw: Draw, scan: Int64[np.ndarray, " k"], view: Int64[np.ndarray, " k"]
) -> tuple[tuple[tuple[int, _Apply, Bool[np.ndarray, " k"]], ...], int]:
    """The operations that the renderer lacks, in the order of the table, and its last steps."""
    steps, others = kernel.BIT["geometry"], []
    for operation in OPERATIONS:
        if operation.apply is None:
            continue
        if operation.name in kernel.BIT:
            steps |= kernel.BIT[operation.name]
            continue
        acts = np.ones(len(scan), bool)
        if operation.acts is not None:
            acts = operation.acts(draw)[scan, view]
        if acts.any():
            others.append((steps, operation.apply, acts))
            steps = 0
    return tuple(others), steps | kernel.BIT["finish"]


def _rendered(scans: _Scans, orders: Orders) -> Float[Tensor, "k c s s"]:
    """Does the steps of the renderer and the other operations in their order."""
    size, num_covered = orders.size, len(orders.view) if orders.is_covered.any() else 0
    out = torch.empty(len(orders.view), scans.channels, size, size)
    coverage = torch.empty(num_covered, size, size)
    steps = 0
    for before, apply, acts in orders.others:
        steps |= before
        if acts.any():
            _call(scans, orders, steps, out, coverage)
            _apply(apply, orders, acts, out, coverage)
            steps = 0
    _call(scans, orders, steps | orders.last, out, coverage)
    return out


def _apply(
    apply: _Apply,
    orders: Orders,
    acts: Bool[np.ndarray, " k"],
    out: Float[Tensor, "k c s s"],
    coverage: Float[Tensor, "m s s"],
) -> None:
    """Does an operation by its row of the table, where it acts; covered views by themselves."""
    for view in np.unique(orders.view):
        for is_covered in (False, True):
            chosen = np.flatnonzero(
                acts & (orders.view == view) & (orders.is_covered == is_covered)
            )
            if not len(chosen):
                continue
            rows = torch.from_numpy(chosen)
            rendering = Rendering(
                orders.draw.take(orders.scan[chosen]),
                int(view),
                coverage[rows][:, None] if is_covered else None,
                orders.settings,
                None if orders.unit_hu is None else orders.unit_hu[chosen],
            )
            changed = out[rows]
            apply(changed, rendering)
            out[rows] = changed


def _call(
    scans: _Scans,
    orders: Orders,
    steps: int,
    views: Float[Tensor, "k c s s"],
    covered: Float[Tensor, "m s s"],
) -> None:
    """Calls the renderer, by as many threads as torch computes with."""
    out, coverage = views.numpy(), covered.numpy()

    def render(part: slice) -> None:
        kernel.render_rows(
            *scans.lines, scans.kind, scans.channels, scans.is_interleaved, scans.mask,
            len(scans.mask) > 0, orders.source[part], orders.numbers[part], orders.fields, steps,
            orders.linear[0], orders.linear[1], out[part], coverage[part],
        )  # fmt: skip

    threads = min(torch.get_num_threads(), len(out))
    if threads <= 1:
        render(slice(0, len(out)))
        return
    ends = np.linspace(0, len(out), threads + 1).astype(int).tolist()
    parts = [slice(start, end) for start, end in pairwise(ends)]
    list(_threads(os.getpid(), threads).map(render, parts))


@lru_cache(maxsize=1)
def _threads(process: int, number: int) -> ThreadPoolExecutor:
    """Threads of this process: a fork has none of its parent's."""
    del process
    return ThreadPoolExecutor(number, thread_name_prefix="views")
