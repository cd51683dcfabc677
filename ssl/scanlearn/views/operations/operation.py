"""What an operation is: its parameters, how it is drawn, and how it changes a view.

An operation is a row: `Operation(name, sub-dial, parameters, draw, apply)` in the module of its
trade, listed in `table.OPERATIONS`. Everything else loops over that table. Settings and `explain`
do so too: torch, which takes seconds, is imported where a view is rendered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64

from scanlearn.views.draw import Draw
from scanlearn.views.settings import DEFAULT_SETTINGS, LEAST_BLUR_PX, RenderSettings
from scanlearn.views.uniforms import UNIFORMS

if TYPE_CHECKING:
    from torch import Tensor

SubDial = Literal["crop", "geometry", "photometric", "acquisition"]

# Some views and their rows in the batch -> what takes their place.
Change = Callable[["Float[Tensor, 'k c s s']", np.ndarray[Any, Any]], "Float[Tensor, 'k c s s']"]

_INDEX = {name: index for index, name in enumerate(UNIFORMS)}
# Half a step of 8 bits of coverage: less than that of a pixel is in the field of view.
_LEAST_COVERAGE = 1 / 512
# Of one tensor: 256 KiB, a part of the cache, in few enough calls.
_ELEMENTS_IN_CACHE = 2**16


@dataclass(frozen=True)
class Parameter:
    """A number of an operation: what it is called, measured in and allowed to be.

    Args:
        name: What a configuration calls it. ``..._p`` is the probability that the operation is
            done at all; other numbers are the largest that is drawn, about no change.
        identity: The value at which it changes nothing; the highest where a stronger setting has
            the smaller number, as of a crop's area.
        negligible_px: The largest value in pixels of the view that changes none of them either.
        scales_with_view: Whether its pixels are those of views of 224 px; otherwise they are the
            view's own.
        peak: The value of most variation: a limit beyond it is not set unless asked for.
        in_place_of: The parameter that holds where a scan's archive does not say what this one is
            measured in; None where it holds in every scan.
    """

    name: str
    label: str
    unit: str
    lowest: float = 0.0
    highest: float = 1.0
    identity: float = 0.0
    negligible_px: float = 0.0
    scales_with_view: bool = False
    peak: float = math.inf
    in_place_of: str | None = None

    @property
    def title(self) -> str:
        """What it is and what it is measured in."""
        return f"{self.label}, {self.unit}"

    @property
    def is_decreasing(self) -> bool:
        """Whether a stronger setting has the smaller number."""
        return self.identity == self.highest


def probability(operation: str, label: str, *, peak: float = math.inf) -> Parameter:
    """Returns the parameter that says how often an operation is done."""
    return Parameter(f"{operation}_p", label, "probability", peak=peak)


@dataclass(frozen=True)
class Quantiles:
    """Pushes the uniforms of a batch through the ranges of each view.

    Args:
        spans: The ranges of each of the ``v`` views, by parameter.
        uniforms: One number in [0, 1) per scan, view and entry of `UNIFORMS`.
        valid_box: Top, left, bottom and right of each scan on its canvas, in pixels.
    """

    spans: Mapping[str, Float64[np.ndarray, " v"]]
    uniforms: Float64[np.ndarray, "b v p"]
    valid_box: Float64[np.ndarray, "b 4"]

    def uniform(self, name: str) -> Float64[np.ndarray, "b v"]:
        """Returns the uniforms of one name."""
        return self.uniforms[..., _INDEX[name]]

    def span(self, parameter: str) -> Float64[np.ndarray, " v"]:
        """Returns a parameter's value in each view."""
        return self.spans[parameter]

    def happens(self, operation: str) -> Bool[np.ndarray, "b v"]:
        """Returns where an operation is done, by its probability."""
        happening: Bool[np.ndarray, "b v"] = self.uniform(operation) < self.span(f"{operation}_p")
        return happening

    def either_way(
        self, operation: str, parameter: str, uniform: str
    ) -> Float64[np.ndarray, "b v"]:
        """Returns numbers from minus to plus the parameter; 0 where the operation is not done."""
        drawn = (2 * self.uniform(uniform) - 1) * self.span(parameter)
        return np.where(self.happens(operation), drawn, 0.0)

    def pair(self, operation: str, parameter: str) -> Float64[np.ndarray, "b v 2"]:
        """Returns two such numbers, along y and x."""
        along = [self.either_way(operation, parameter, f"{operation}_{axis}") for axis in "yx"]
        return np.stack(along, axis=-1)

    def upwards(
        self, operation: str, parameter: str, uniform: str | None = None
    ) -> Float64[np.ndarray, "b v"]:
        """Returns numbers from 0 to the parameter; 0 where the operation is not done.

        Args:
            uniform: None for that of the parameter's own name.
        """
        drawn = self.uniform(uniform or parameter) * self.span(parameter)
        return np.where(self.happens(operation), drawn, 0.0)


@dataclass(frozen=True)
class Rendering:
    """What views are changed by.

    Args:
        coverage: Share of each pixel inside the field of view; None where all of it is. Views are
            on the unit range, times the coverage.
        unit_hu: Hounsfield units from 0 to 1; None where values are none.
    """

    draw: Draw
    view: int
    coverage: Float[Tensor, "b 1 s s"] | None = None
    settings: RenderSettings = DEFAULT_SETTINGS
    unit_hu: Float64[np.ndarray, " b"] | None = None


@dataclass(frozen=True)
class Operation:
    """An augmentation.

    Args:
        parameters: Its numbers, a probability first.
        draw: Returns fields of `Draw`, from the uniforms that carry the operation's name.
        apply: Changes views ``[b c s s]`` in place; None where another operation does it: geometry
            is composed into one resampling, the parts of the jitter are done by it, the window is
            moved as stored values are brought to the unit range.
        acts: Returns the views that ``apply`` may change; None for all. A CPU leaves the others
            alone, and finishes what its compiled renderer does in one go.
        part_of: The operation whose probability it shares.
        needs_colour: Whether it has no meaning on one channel.
    """

    name: str
    dial: SubDial
    parameters: tuple[Parameter, ...]
    draw: Callable[[Quantiles], Mapping[str, np.ndarray[Any, Any]]]
    apply: Callable[[Float[Tensor, "b c s s"], Rendering], None] | None = None
    acts: Callable[[Draw], Bool[np.ndarray, "b v"]] | None = None
    part_of: str | None = None
    needs_colour: bool = False


def change_rows(
    x: Float[Tensor, "b c s s"],
    applies: Bool[np.ndarray, " b"],
    change: Change,
    *,
    in_cache: bool = False,
) -> None:
    """Puts ``change(some views, their rows)`` in the place of the views it applies to.

    Args:
        in_cache: Whether a CPU changes few views at a time, for what makes many tensors on its way:
            memory for large ones is handed out page by page, at up to 30 times the cost.
    """
    import torch

    chosen = np.flatnonzero(applies)
    step = len(chosen)
    if in_cache and not x.is_cuda:
        step = min(step, max(_ELEMENTS_IN_CACHE // max(x[:1].numel(), 1), 1))
    if step == len(x):
        x.copy_(change(x, chosen))
        return
    for start in range(0, len(chosen), max(step, 1)):
        part = chosen[start : start + step]
        rows = torch.from_numpy(part).to(x.device)
        # A third of the time that x[rows] takes.
        x[rows] = change(x.index_select(0, rows), part)


def change_content(
    x: Float[Tensor, "b c s s"],
    rendering: Rendering,
    applies: Bool[np.ndarray, " b"],
    change: Change,
    *,
    in_cache: bool = False,
) -> None:
    """Changes the content itself, not the content times its coverage; see `change_rows`."""
    import torch

    coverage = rendering.coverage
    if coverage is None:
        change_rows(x, applies, change, in_cache=in_cache)
        return

    def inside(part: Float[Tensor, "k c s s"], rows: np.ndarray) -> Float[Tensor, "k c s s"]:
        share = coverage[torch.from_numpy(rows).to(x.device)]
        content = (part / share.clamp(min=_LEAST_COVERAGE)).clamp_(0, 1)
        return change(content, rows).mul_(share)

    change_rows(x, applies, inside, in_cache=in_cache)


def smooth(
    x: Float[Tensor, "b c s s"], rendering: Rendering, sigma_px: Float64[np.ndarray, " b"]
) -> None:
    """Blurs views by a Gaussian, in place; a sigma up to `LEAST_BLUR_PX` changes nothing.

    The coverage is no content: it stays sharp, and what lies outside the field of view does not
    darken its rim.

    Args:
        sigma_px: Standard deviation for each view, in its own pixels.
    """
    import torch

    from scanlearn.views.resample import blur_taps, resample

    coverage = rendering.coverage

    def smoothed(part: Float[Tensor, "k c s s"], rows: np.ndarray) -> Float[Tensor, "k c s s"]:
        taps = blur_taps(sigma_px[rows], size=x.shape[-1])
        blurred = resample(part, taps, taps)
        if coverage is None:
            return blurred
        inside = coverage[torch.from_numpy(rows).to(x.device)]
        return blurred.mul_(inside).div_(resample(inside, taps, taps).clamp_(min=1e-6))

    change_rows(x, sigma_px > LEAST_BLUR_PX, smoothed)


def column(values: Float[np.ndarray, " b"], like: Tensor) -> Float[Tensor, "b 1 1 1"]:
    """Returns one number per view, to be multiplied by views like the one given."""
    import torch

    numbers = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return numbers.to(like.device, non_blocking=True).view(-1, 1, 1, 1)
